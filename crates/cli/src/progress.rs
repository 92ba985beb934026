//! Progress bars on standard error; none where nobody is looking or wants one.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};

static QUIET: AtomicBool = AtomicBool::new(false);

/// Hides all bars.
pub(crate) fn set_quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

/// A bar over `total` things called `unit`.
pub(crate) fn items(total: usize, unit: &'static str) -> ProgressBar {
    bar(total as u64, &format!("{{bar:30}} {{pos}}/{{len}} {unit} {{per_sec}} eta {{eta}}"))
}

/// A bar over the bytes of a download.
pub(crate) fn bytes(total: u64, name: &str) -> ProgressBar {
    bar(total, &format!("{name} {{bar:30}} {{bytes}}/{{total_bytes}} {{bytes_per_sec}} eta {{eta}}"))
}

fn bar(total: u64, template: &str) -> ProgressBar {
    if QUIET.load(Ordering::Relaxed) || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style)
}
