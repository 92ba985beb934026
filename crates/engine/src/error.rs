//! What the engine refuses.

use cardinal_kernels::KernelError;

/// Why a graph was refused, not compiled or not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// A graph that contradicts itself.
    #[error("{place}: {reason}")]
    Graph {
        /// The node (module path and operator) or the value.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// A kernel refused what the plan asked for.
    #[error("{place}: {source}")]
    Kernel {
        /// The step.
        place: String,
        /// The kernel's words.
        source: KernelError,
    },
    /// An input that the session was not made for.
    #[error("input `{name}` has {found}, {expected} is needed")]
    Input {
        /// The graph's name of the input.
        name: String,
        /// What was given.
        found: String,
        /// What the graph takes.
        expected: String,
    },
    /// A file that is not a graph, or a damaged one.
    #[error("{reason}")]
    File {
        /// What is wrong with it.
        reason: String,
    },
    /// A choice that this processor does not have.
    #[error("{0}")]
    Unsupported(String),
}

impl EngineError {
    /// An error about `place` in a graph.
    pub(crate) fn graph(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Graph { place: place.into(), reason: reason.into() }
    }
}
