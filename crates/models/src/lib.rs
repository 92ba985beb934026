//! ResNeSt, TResNet and their peers as Burn modules.
//!
//! A network is made by its timm name, and has timm's parameter names:
//!
//! ```
//! use cardinal_models::{Backbone, ModelOptions, create};
//! use burn::tensor::{Device, Tensor};
//!
//! let device = Device::flex();
//! let model = create("resnest14d", &ModelOptions::default().with_num_classes(10), &device)?;
//! let logits = model.forward(Tensor::zeros([1, 3, 64, 64], &device));
//! assert_eq!(logits.dims(), [1, 10]);
//! # Ok::<(), cardinal_models::ModelError>(())
//! ```
//!
//! - [`registry`]: every variant as a row of numbers with its source, and the published weights.
//! - [`backbones`]: one file per family; [`blocks`] and [`layers`] are what they are made of.
//! - [`ops`]: the operators that the papers add, behind one trait, so that capture sees them as named nodes.
//! - [`weights`]: a model's parameters by name, in and out of checkpoints.
//! - [`explain`]: Grad-CAM, where in a feature map the evidence for a class lies.
//! - [`summary`]: parameters, multiply-adds and activations, layer by layer, from the captured graph.

pub mod backbones;
pub mod blocks;
mod error;
pub mod explain;
pub mod layers;
mod model;
pub mod ops;
pub mod registry;
pub mod summary;
pub mod weights;

pub use backbones::{Backbone, FeatureInfo, Tap};
pub use burn;
pub use error::ModelError;
pub use model::{Model, ModelOptions, create};

/// The code of the library's page compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/library.md")]
struct LibraryPage;

/// The code of the page about extending runs.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/extend.md")]
struct ExtendPage;
