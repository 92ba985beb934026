//! What the optimizer says about its work.

use super::rewrite::Rewrite;
use std::collections::BTreeMap;
use std::fmt;

/// Something that a pass did, or could not do and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remark {
    /// Rewritings of one kind.
    Done {
        /// The pass.
        pass: &'static str,
        /// The kind.
        what: &'static str,
        /// How many.
        count: usize,
    },
    /// A node that looks as if it could be fused and was not.
    Missed {
        /// The pass.
        pass: &'static str,
        /// The node: module path and operator.
        place: String,
        /// Why it stays.
        reason: String,
    },
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done { pass, what, count } => write!(f, "{pass}: {count} x {what}"),
            Self::Missed { pass, place, reason } => write!(f, "{pass}: {place} stays: {reason}"),
        }
    }
}

/// Collects the remarks of one run of one pass.
#[derive(Debug)]
pub(super) struct Log {
    pass: &'static str,
    done: Vec<Remark>,
    /// Ordered as the nodes are, in whatever order a pass goes through them.
    missed: BTreeMap<usize, Remark>,
}

impl Log {
    pub(super) fn new(pass: &'static str) -> Self {
        Self { pass, done: Vec::new(), missed: BTreeMap::new() }
    }

    /// One rewriting of the kind `what`. A pass that changes a graph says so here, or it is not run again.
    pub(super) fn done(&mut self, what: &'static str) {
        add(&mut self.done, Remark::Done { pass: self.pass, what, count: 1 });
    }

    /// The node at `place` stays as it is.
    pub(super) fn missed(&mut self, rw: &Rewrite, place: usize, reason: impl Into<String>) {
        let Some(node) = rw.node(place) else { return };
        let remark = Remark::Missed { pass: self.pass, place: node.place(), reason: reason.into() };
        self.missed.insert(place, remark);
    }

    pub(super) fn changed(&self) -> bool {
        !self.done.is_empty()
    }

    pub(super) fn into_remarks(self) -> impl Iterator<Item = Remark> {
        self.done.into_iter().chain(self.missed.into_values())
    }
}

/// Adds a remark; what was done is counted by kind.
pub(super) fn add(remarks: &mut Vec<Remark>, remark: Remark) {
    if let Remark::Done { pass, what, count } = &remark {
        let same = remarks.iter_mut().find_map(|old| match old {
            Remark::Done { pass: p, what: w, count } if p == pass && w == what => Some(count),
            Remark::Done { .. } | Remark::Missed { .. } => None,
        });
        if let Some(total) = same {
            *total += count;
            return;
        }
    }
    remarks.push(remark);
}
