//! Image files to 8-bit RGB, with the meaning of Pillow's `ImageOps.exif_transpose(Image.open(f))
//! .convert("RGB")`.
//!
//! What that meaning is where formats leave a choice: alpha is dropped, not blended; palette colours
//! are taken as stored, transparent ones too; CMYK is inverted as Adobe writes it; of an animation the
//! first frame counts; no colour profile is applied. Two departures, both on purpose: 16-bit grey keeps
//! its high byte, as 16-bit RGB does in Pillow too (Pillow clips such grey at 255, which leaves white),
//! and orientation is read from EXIF only, not from XMP.
//!
//! Each format's file knows how to read; this one holds what they share: limits, errors, orientation.

mod baseline;
mod bmp;
mod exif;
mod format;
mod gif;
mod jpeg;
mod part;
mod png;
mod webp;

use std::fs::File;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::{DataError, DataErrorKind, RgbImage};

pub use format::Format;

/// Decodes images, within limits that are checked before memory is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoder {
    /// The most bytes that one file may have. Default: 256 MiB.
    pub max_file_bytes: u64,
    /// The most pixels that one image may claim. Default: 178,956,970, where Pillow refuses too.
    pub max_pixels: u64,
    /// Whether to turn the image upright as EXIF says. Default: yes. (timm's own evaluation does not.)
    pub apply_orientation: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { max_file_bytes: 256 << 20, max_pixels: 178_956_970, apply_orientation: true }
    }
}

impl Decoder {
    /// Reads and decodes a file.
    ///
    /// # Errors
    /// If it cannot be read, is over a limit, is of no known format, or is truncated or damaged: in
    /// every case the error names the file.
    pub fn decode_file(&self, path: impl AsRef<Path>) -> Result<RgbImage, DataError> {
        let path = path.as_ref();
        let metadata = std::fs::metadata(path).map_err(|error| DataError::io(path, error))?;
        if metadata.is_dir() {
            return Err(DataError::new(path, DataErrorKind::IsDirectory));
        }
        let file = File::open(path).map_err(|error| DataError::io(path, error))?;
        self.decode_reader(file, path)
    }

    /// Reads to the end and decodes; `name` stands for the path in errors (say `<stdin>`).
    ///
    /// # Errors
    /// As [`Decoder::decode_file`].
    pub fn decode_reader(&self, reader: impl Read, name: impl AsRef<Path>) -> Result<RgbImage, DataError> {
        let name = name.as_ref();
        let mut bytes = Vec::new();
        let mut limited = reader.take(self.max_file_bytes.saturating_add(1));
        limited.read_to_end(&mut bytes).map_err(|error| DataError::io(name, error))?;
        self.decode_bytes(&bytes, name)
    }

    /// Decodes a file's bytes; `name` stands for the path in errors.
    ///
    /// # Errors
    /// As [`Decoder::decode_file`].
    pub fn decode_bytes(&self, bytes: &[u8], name: impl AsRef<Path>) -> Result<RgbImage, DataError> {
        self.decode(bytes).map_err(|kind| DataError::new(name.as_ref(), kind))
    }

    fn decode(&self, bytes: &[u8]) -> Result<RgbImage, DataErrorKind> {
        if bytes.is_empty() {
            return Err(DataErrorKind::Empty);
        }
        if bytes.len() as u64 > self.max_file_bytes {
            return Err(DataErrorKind::FileTooLarge { limit: self.max_file_bytes });
        }
        let format = Format::detect(bytes)
            .ok_or_else(|| DataErrorKind::UnknownFormat { looks_like: format::looks_like(bytes) })?;
        // The decoders are other people's code, fed with anybody's bytes. Should one of them panic
        // after all, this file has failed and not the whole run.
        catch_unwind(AssertUnwindSafe(|| self.decode_as(format, bytes))).unwrap_or_else(|_| {
            Err(DataErrorKind::Corrupt { format, detail: "it makes the decoder fail".into() })
        })
    }

    fn decode_as(&self, format: Format, bytes: &[u8]) -> Result<RgbImage, DataErrorKind> {
        let decoded = match format {
            Format::Jpeg => jpeg::decode(bytes, self),
            Format::Png => png::decode(bytes, self),
            Format::WebP => webp::decode(bytes, self),
            Format::Bmp => bmp::decode(bytes, self),
            Format::Gif => gif::decode(bytes, self),
        }?;
        match decoded.orientation {
            Some(orientation) if self.apply_orientation => Ok(orientation.apply(&decoded.image)),
            _ => Ok(decoded.image),
        }
    }

    /// Refuses an image over the limit or without pixels; otherwise its number of pixels.
    fn check_size(&self, format: Format, width: u32, height: u32) -> Result<usize, DataErrorKind> {
        let pixels = u64::from(width) * u64::from(height);
        if pixels == 0 {
            let detail = format!("the header says {width} x {height} pixels");
            return Err(DataErrorKind::Corrupt { format, detail });
        }
        if pixels > self.max_pixels {
            return Err(DataErrorKind::TooManyPixels { width, height, limit: self.max_pixels });
        }
        usize::try_from(pixels).map_err(|_| DataErrorKind::TooManyPixels {
            width,
            height,
            limit: self.max_pixels,
        })
    }
}

/// What a format's decoder returns: the pixels as stored, and how to turn them.
struct Decoded {
    image: RgbImage,
    orientation: Option<exif::Orientation>,
}

impl Decoded {
    /// Wraps pixels as a decoder wrote them, of 1 to 4 channels: grey, grey + alpha, RGB, RGB + alpha.
    fn from_channels(
        format: Format,
        (width, height): (u32, u32),
        pixels: Vec<u8>,
        channels: usize,
        exif: Option<&[u8]>,
    ) -> Result<Self, DataErrorKind> {
        let rgb = match channels {
            3 => pixels,
            1 | 2 => pixels.chunks_exact(channels).flat_map(|p| [p[0]; 3]).collect(),
            4 => pixels.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect(),
            _ => Vec::new(),
        };
        let image = RgbImage::new(width, height, rgb).ok_or_else(|| DataErrorKind::Corrupt {
            format,
            detail: "the pixels do not fill the image".into(),
        })?;
        Ok(Self { image, orientation: exif.and_then(exif::Orientation::from_exif) })
    }
}
