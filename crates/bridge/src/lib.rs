//! Borders between the engine's graph and other formats.
//!
//! [`capture()`] records what a Burn module does on an image, without running it, and translates the record: any module
//! made of ConvNet operators compiles, ours and others. [`onnx`] writes a graph as an ONNX file.

mod capture;
mod names;
pub mod onnx;
mod translate;

pub use capture::{CaptureError, Names, capture, capture_all, module_names};

/// The code of the page for Burn users runs.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/burn.md")]
struct BurnPage;
