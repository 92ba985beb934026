//! Training's transforms: what the papers do to an image before a network sees it.
//!
//! [`TrainTransform`] is all of it as plain settings; [`Mix`] works on whole batches. Operations on pixels
//! have Pillow's and torchvision's results, bit for bit where those are integers (`fixtures/augment`), and all
//! chance comes from a [`Random`](crate::Random). `docs/augmentation.md` shows each operation.

mod affine;
mod color;
mod crop;
mod erase;
mod jitter;
mod level;
mod mix;
mod operation;
mod policies;
mod policy;
mod transform;

pub use color::sample_pairing;
pub use crop::Crop;
pub use erase::{Cutout, CutoutFill, EraseMode, RandomErasing};
pub use jitter::{ColorJitter, PcaLighting};
pub use mix::{Mix, MixMode, Pairing};
pub use operation::{Canvas, Operation};
pub use policy::{AutoAugment, Policy, RandAugment, RandAugmentStyle};
pub use transform::{CropFilter, PolicyPlace, TrainTransform};
