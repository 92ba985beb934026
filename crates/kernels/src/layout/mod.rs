//! Kernels that move numbers without changing them: to and from the order of a framework, between maps, into halos.

mod copy;
mod depth;
mod halo;
mod nchw;

pub use copy::CopyMap;
pub(crate) use copy::Spans;
pub use depth::SpaceToDepth;
pub use halo::FillHalo;
pub use nchw::{FromNchw, ToNchw};
pub(crate) use nchw::{Gather, Scatter};
