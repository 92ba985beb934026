//! The backward passes of everything but convolutions and norms, and the update that follows them.
//!
//! A kernel takes the gradient of an operator's output and writes that of its input. All of them gather: each number of
//! the result is computed by one worker, from everything that it went into, so nothing depends on which worker was
//! faster. What the forward pass can do again cheaply (the place of a maximum, a softmax, a random mask) is recomputed
//! instead of kept.

use crate::Element;
use crate::pointwise::{load, store};
use crate::simd::Simd;

/// Calls `$self.step` for all channels: two vectors at a time, then one, then a part of one.
macro_rules! through_channels {
    ($self:ident.step($($argument:expr),*), $channels:expr) => {{
        let mut k = 0;
        while k + 2 * S::LANES <= $channels {
            $self.step::<S, 2, true>($($argument,)* k, 0);
            k += 2 * S::LANES;
        }
        while k + S::LANES <= $channels {
            $self.step::<S, 1, true>($($argument,)* k, 0);
            k += S::LANES;
        }
        if k < $channels {
            $self.step::<S, 1, false>($($argument,)* k, $channels - k);
        }
    }};
}

mod activation;
mod attention;
mod channels;
mod depth;
mod drop;
mod factor;
mod global;
mod loss;
mod max_pool;
mod spread;
mod update;

pub use activation::{ActivationGrad, ActivationGradIo, ActivationSource};
pub use attention::{AttentionGrad, InputGradIo, LogitsGradIo};
pub use channels::{AddChannels, BiasGrad};
pub use depth::DepthToSpace;
pub use drop::{DropKey, Dropped, RandomDrop, RandomDropIo};
pub use factor::{FactorGrad, FactorGradIo};
pub use global::GlobalPoolGrad;
pub use loss::{LogitLoss, LossIo, LossRule};
pub use max_pool::{MaxPoolGrad, MaxPoolGradIo};
pub use spread::SpreadGrad;
pub use update::{Decay, Update, UpdateIo, UpdateRule, clip_scale, grad_norm, grad_norm_scratch};

pub(crate) use activation::Slopes;
pub(crate) use attention::Weigh;
pub(crate) use channels::Sum;
pub(crate) use drop::Masked;
pub(crate) use factor::Products;
pub(crate) use global::Broadcast;
pub(crate) use max_pool::{MaxGrad, Sums};
pub(crate) use spread::Spread;

/// What becomes of the numbers that a gradient's memory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// They are overwritten.
    Replace,
    /// The gradient is added to them: what was computed has several readers.
    Add,
}

/// Stores a whole vector, or `count` numbers, over what is there or in addition to it.
///
/// # Safety
///
/// There are as many numbers, and the processor has the level of `S`.
#[inline(always)]
pub(crate) unsafe fn put<S: Simd, T: Element, const FULL: bool>(
    to: *mut T,
    value: S::V,
    count: usize,
    write: Write,
) {
    // SAFETY: the same contract.
    unsafe {
        let value = match write {
            Write::Replace => value,
            Write::Add => S::add(load::<S, T, FULL>(to.cast_const(), count), value),
        };
        store::<S, T, FULL>(to, value, count);
    }
}
