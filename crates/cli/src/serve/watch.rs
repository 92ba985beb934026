//! Hot reload: looks at the models' files every second and loads what has changed.

use super::Server;
use super::source::Stamp;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Duration;

const EVERY: Duration = Duration::from_millis(1000);

/// What was last seen of a file.
struct Seen {
    /// As it was loaded, or refused.
    settled: Option<Stamp>,
    /// Changed since then; loaded once it looks the same twice, so that a copy in progress is not read.
    changing: Option<Stamp>,
}

/// Starts the thread that watches; it ends with the server.
pub(super) fn start(server: &Arc<Server>, stamps: Vec<Option<Stamp>>) -> std::io::Result<()> {
    let mut seen: Vec<_> = stamps.into_iter().map(|stamp| Seen { settled: stamp, changing: None }).collect();
    let server = Arc::downgrade(server);
    std::thread::Builder::new().name("watch".into()).spawn(move || {
        while look(&server, &mut seen) {
            std::thread::sleep(EVERY);
        }
    })?;
    Ok(())
}

fn look(server: &Weak<Server>, seen: &mut [Seen]) -> bool {
    let Some(server) = server.upgrade().filter(|server| !server.draining.load(Relaxed)) else { return false };
    for (slot, seen) in server.models.iter().zip(seen) {
        let now = slot.source.stamp();
        // A file that is gone may be on its way back; the network goes on meanwhile.
        if now.is_none() || now == seen.settled {
            seen.changing = None;
        } else if now == seen.changing {
            seen.settled = now;
            slot.reload();
        } else {
            seen.changing = now;
        }
    }
    true
}
