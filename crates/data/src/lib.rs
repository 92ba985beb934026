//! From files to the numbers that a network reads: find the images, decode them, resize and crop them,
//! normalise them.
//!
//! The reference is the Python stack that published weights were trained and measured with: Pillow
//! decodes and resizes, torchvision crops, timm chooses the sizes. A different resize costs accuracy
//! without any error to see, so from pixels on every step here gives the same bits; decoding does too,
//! except for progressive and unusual JPEG files, where it ends within a few grey levels. `fixtures/preprocess`
//! and `fixtures/augment` hold the values.
//!
//! ```
//! use cardinal_data::{Preprocess, RgbImage};
//!
//! let image = RgbImage::new(640, 427, vec![128; 640 * 427 * 3]).expect("the length fits the size");
//! let input = Preprocess::default().run(&image)?; // 3 x 224 x 224, normalised
//! assert_eq!(input.len(), 3 * 224 * 224);
//! # Ok::<(), cardinal_data::PreprocessError>(())
//! ```
//!
//! **Invariant:** no Burn, no printing; every error about a file is a value that names the file.

#![forbid(unsafe_code)]

mod augment;
mod dataset;
mod decode;
mod error;
mod image;
mod loader;
mod npy;
mod preprocess;
mod random;
mod resize;
mod sources;

pub use augment::{
    AutoAugment, Canvas, ColorJitter, Crop, CropFilter, Cutout, CutoutFill, EraseMode, Mix, MixMode,
    Operation, Pairing, PcaLighting, Policy, PolicyPlace, RandAugment, RandAugmentStyle, RandomErasing,
    TrainTransform, sample_pairing,
};
pub use dataset::{
    Dataset, DatasetError, Label, Listing, OpenOptions, Picture, Sample, Split, Survey, Task, open,
    sharded_order, splits, survey,
};
pub use decode::{Decoder, Format};
pub use error::{DataError, DataErrorKind};
pub use image::{RgbImage, encode_png};
pub use loader::{Batch, Epoch, Loader, LoaderError, LoaderOptions, Prepare};
pub use npy::{NpyArray, read_npy, read_npy_from, write_npy};
pub use preprocess::{CropMode, Geometry, Preprocess, PreprocessError};
pub use random::Random;
pub use resize::{Interpolation, SourceBox, resize, resize_box};
pub use sources::{IMAGE_EXTENSIONS, Source, expand_sources};
