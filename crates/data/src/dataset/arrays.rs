//! Datasets whose pixels lie in memory: CIFAR, IDX, the embedded digits.

use std::path::{Path, PathBuf};

use super::labels::Labels;
use super::{Dataset, Label, Picture, Sample, Task};
use crate::{DataError, RgbImage};

/// How an image's bytes are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// `[height, width]`; each value `v` of 0 to `max` becomes the grey level `255 v / max`.
    Grey { max: u8 },
    /// `[3, height, width]`: all of red, all of green, all of blue.
    Planes,
}

/// Images of one size.
pub(super) struct PixelSet {
    /// Width and height.
    pub(super) size: (u32, u32),
    pub(super) layout: Layout,
    /// Image after image.
    pub(super) pixels: Vec<u8>,
    pub(super) labels: Labels,
    pub(super) count: usize,
    pub(super) classes: Vec<String>,
    /// The files, each with the number of its first image.
    pub(super) files: Vec<(PathBuf, usize)>,
    pub(super) describe: String,
}

impl PixelSet {
    fn image(&self, index: usize) -> RgbImage {
        let (width, height) = self.size;
        let area = width as usize * height as usize;
        let pixels = match self.layout {
            Layout::Grey { max } => {
                let max = u32::from(max);
                let level = |value: u8| ((u32::from(value) * 255 + max / 2) / max).min(255) as u8;
                let grey = &self.pixels[index * area..][..area];
                grey.iter().flat_map(|&value| [level(value); 3]).collect()
            }
            Layout::Planes => {
                let planes = &self.pixels[index * 3 * area..][..3 * area];
                (0..area).flat_map(|at| [planes[at], planes[area + at], planes[2 * area + at]]).collect()
            }
        };
        RgbImage::from_pixels(width, height, pixels)
    }

    fn place(&self, index: usize) -> (&Path, usize) {
        let after = self.files.partition_point(|(_, first)| *first <= index);
        let (path, first) = &self.files[after - 1];
        (path, index - first)
    }
}

impl Dataset for PixelSet {
    fn len(&self) -> usize {
        self.count
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn task(&self) -> Task {
        self.labels.task()
    }

    fn read(&self, index: usize) -> Result<Sample, DataError> {
        Ok(Sample { picture: Picture::Pixels(self.image(index)), label: self.label(index) })
    }

    fn label(&self, index: usize) -> Label {
        self.labels.get(index)
    }

    fn name(&self, index: usize) -> String {
        let (path, number) = self.place(index);
        format!("{}[{number}]", path.file_name().unwrap_or_default().to_string_lossy())
    }

    fn describe(&self) -> String {
        self.describe.clone()
    }
}
