//! Which parts of each worker's share were taken.
//!
//! Cores are rarely equally fast (another program, another virtual machine, a warmer core), and a step ends with its
//! slowest worker. Each begins with the share that it always has, whose inputs its own cache holds from the step before,
//! and then helps the others. Outputs do not depend on who computed them.

use crate::Line;
use std::sync::atomic::{AtomicUsize, Ordering};

/// For each share, how many of its units were taken: in a cache line of its own.
#[derive(Clone, Copy)]
pub(super) struct Taken(*mut Line);

// SAFETY: the counters are atomic.
unsafe impl Send for Taken {}
// SAFETY: the counters are atomic.
unsafe impl Sync for Taken {}

impl Taken {
    /// Nothing is taken.
    ///
    /// # Safety
    ///
    /// `lines` holds a line for each of `shares`, which nobody else uses as long as this lives.
    pub(super) unsafe fn new(lines: *mut Line, shares: usize) -> Self {
        for share in 0..shares {
            // SAFETY: the same contract.
            unsafe { lines.add(share).cast::<AtomicUsize>().write(AtomicUsize::new(0)) };
        }
        Self(lines)
    }

    /// The number of the next unit of `share`, which nobody else gets.
    ///
    /// # Safety
    ///
    /// `share` is one of those that it was made for.
    pub(super) unsafe fn next(self, share: usize) -> usize {
        // SAFETY: the same contract; the line was initialised.
        unsafe { &*self.0.add(share).cast::<AtomicUsize>() }.fetch_add(1, Ordering::Relaxed)
    }
}
