//! CPU kernels for ConvNets: checked, safe functions over slices.
//!
//! Feature maps are channels last ([`Map`]) in `f32` or [`Bf16`]. A kernel is built once from a description, which is
//! where shapes are checked and weights are packed, and then run many times on slices, whose lengths are checked. The
//! level of vector instructions is detected, never assumed ([`Isa`]).
//!
//! This is the only crate of the workspace with unsafe code. It knows no graph and no file.

// The helpers that tests of this crate share with those in `tests/` name it as they do.
#[cfg(test)]
extern crate self as cardinal_kernels;

mod activation;
mod arena;
mod attention;
mod conv;
mod cpu;
mod element;
mod elementwise;
mod error;
mod grad;
mod layout;
mod loops;
mod map;
#[cfg(target_arch = "aarch64")]
mod neon;
mod norm;
mod pointwise;
mod pool;
mod pooling;
mod portable;
pub mod reference;
pub mod roofline;
mod simd;
mod work;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use activation::Activation;
pub use arena::{Line, Views, as_bf16, as_bf16_mut, as_f32, as_f32_mut, trim_heap, zeroed};
pub use attention::{Gate, GateIo, Softmax, SplitAttention, SplitIo};
#[cfg(target_arch = "x86_64")]
#[doc(hidden)]
pub use conv::amx::Amx;
#[doc(hidden)]
pub use conv::data_grad::{DataGrad, DataGradIo};
pub use conv::weight_grad::{WeightGrad, WeightGradIo};
pub use conv::winograd::Tile;
pub use conv::winograd::Winograd;
pub use conv::{Conv, ConvIo, ConvSpec, Method};
pub use cpu::{Isa, Level};
pub use element::{Bf16, DType, Element};
pub use elementwise::{Activate, Affine, Binary, Map2, Operand, Side};
pub use error::KernelError;
pub use grad::{
    ActivationGrad, ActivationGradIo, ActivationSource, AddChannels, AttentionGrad, BiasGrad, Decay,
    DepthToSpace, DropKey, Dropped, FactorGrad, FactorGradIo, GlobalPoolGrad, InputGradIo, LogitLoss,
    LogitsGradIo, LossIo, LossRule, MaxPoolGrad, MaxPoolGradIo, RandomDrop, RandomDropIo, SpreadGrad, Update,
    UpdateIo, UpdateRule, Write, clip_scale, grad_norm, grad_norm_scratch,
};
pub use layout::{CopyMap, FillHalo, FromNchw, SpaceToDepth, ToNchw};
pub use map::{Halo, Map, Part};
pub use norm::{
    FixedNormGrad, FixedNormGradIo, NormApply, NormApplyIo, NormGrad, NormGradIo, NormSource, NormStats,
    scale_shift,
};
pub use pool::{Pool, allowed_cores, pin_to, share};
pub use pooling::{AvgPool, BlurPool, GlobalPool, MaxPool, PoolSpec};
#[cfg(target_arch = "x86_64")]
#[doc(hidden)]
pub use x86::amx::TileProbe;
