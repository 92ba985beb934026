//! Progress bars on standard error; none where nobody is looking or wants one.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};

static QUIET: AtomicBool = AtomicBool::new(false);

/// Hides all bars.
pub(crate) fn set_quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

/// Whether nothing but errors is to be said.
pub(crate) fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Whether bars are drawn.
pub(crate) fn is_drawn() -> bool {
    !is_quiet() && std::io::stderr().is_terminal()
}

/// A bar over the `batches` of an epoch.
pub(crate) fn training(batches: usize) -> ProgressBar {
    bar(batches as u64, "{prefix} {bar:20} {pos}/{len}  {msg}  eta {eta}")
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
    if !is_drawn() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style)
}
