//! What kernels refuse.

use crate::{DType, Element};
use std::ops::Range;

/// Why a kernel was not built or did not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// A description that no kernel can follow.
    #[error("{kernel}: {reason}")]
    Spec {
        /// The kernel.
        kernel: &'static str,
        /// What is wrong with the description.
        reason: String,
    },
    /// A slice of another length than the kernel was built for.
    #[error("{kernel}: `{operand}` has {found} elements, {expected} are needed")]
    Length {
        /// The kernel.
        kernel: &'static str,
        /// The argument.
        operand: &'static str,
        /// Its length.
        found: usize,
        /// The length it must have.
        expected: usize,
    },
    /// Memory of a step that is written and also used otherwise.
    #[error("lines {range:?} of the arena are written by the same step or do not exist")]
    Overlap {
        /// The lines.
        range: Range<usize>,
    },
}

impl KernelError {
    /// An error about a description.
    pub(crate) fn spec(kernel: &'static str, reason: impl Into<String>) -> Self {
        Self::Spec { kernel, reason: reason.into() }
    }
}

/// Checks that `operand` has at least `expected` elements.
pub(crate) fn at_least(
    kernel: &'static str,
    operand: &'static str,
    found: usize,
    expected: usize,
) -> Result<(), KernelError> {
    if found < expected {
        return Err(KernelError::Length { kernel, operand, found, expected });
    }
    Ok(())
}

/// Checks that a kernel `built` for a format is called with it.
pub(crate) fn same_format<T: Element>(kernel: &'static str, built: DType) -> Result<(), KernelError> {
    if T::DTYPE != built {
        let (built, called) = (built.name(), T::DTYPE.name());
        return Err(KernelError::spec(kernel, format!("built for {built}, called with {called}")));
    }
    Ok(())
}
