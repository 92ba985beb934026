//! What only training does: DropBlock, and marks in a captured graph for all that is dropped.

use super::PaperOps;
use burn::backend::Dispatch;
use burn::tensor::Tensor;

/// What is dropped together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drop {
    /// Each element by itself (dropout).
    Elements,
    /// All elements of a sample (stochastic depth).
    Samples,
    /// Squares of this side, the same in the whole batch (DropBlock).
    Squares(usize),
}

/// DropBlock (ResNeSt section 5.2): zeroes `block` x `block` squares around the places where `noise` is below
/// `gamma`, and scales the rest so that the mean is kept.
///
/// # Shapes
///
/// - `x`: `[n, c, h, w]`
/// - `noise`: uniform in [0, 1), `[n | 1, c | 1, h, w]`: a size of 1 shares the mask over that dimension
/// - output: `[n, c, h, w]`
pub fn drop_block(x: Tensor<4>, noise: Tensor<4>, gamma: f64, block: usize) -> Tensor<4> {
    let (x, noise) = (x.into_dispatch(), noise.into_dispatch());
    Tensor::from_dispatch(<Dispatch as PaperOps>::drop_block(x, noise, gamma, block))
}

/// Gives `x` back. On the capture device it records a node that says what training would drop here, so that a compiled
/// training step can; inference removes the node.
///
/// # Shapes
///
/// - `x` and output: any
pub fn mark_drop<const D: usize>(x: Tensor<D>, what: Drop, rate: f64) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as PaperOps>::mark_drop(x.into_dispatch(), what, rate))
}
