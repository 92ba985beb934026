//! The layers that every network is built of, with PyTorch's semantics and parameter names.

mod activation;
mod conv;
mod drop;
mod init;
mod linear;
mod norm;
mod pool;
mod sequential;

pub use activation::Activation;
pub use conv::{Conv2d, Conv2dConfig, Padding};
pub use drop::{DropBlock, Dropout, StochasticDepth};
pub use init::Init;
pub use linear::{Linear, LinearConfig};
pub use norm::{BatchNorm, BatchNormConfig, ConvNorm};
pub use pool::{Pool, PoolKind};
pub use sequential::{Layer, Nothing};
