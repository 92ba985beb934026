//! Pooling: windows, the whole map, and anti-aliased halving.

mod blur;
mod global;
mod window;

pub use blur::BlurPool;
pub(crate) use blur::{Blur, neighbours};
pub(crate) use global::Add;
pub use global::GlobalPool;
pub(crate) use window::Windowed;
pub use window::{AvgPool, MaxPool, PoolSpec};
