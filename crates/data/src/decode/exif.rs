//! The one EXIF field that changes pixels: orientation.

use crate::RgbImage;

/// How a stored image must be turned to stand upright. Names say what is done to the stored one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Orientation {
    /// EXIF 2.
    FlipHorizontal,
    /// EXIF 3.
    Rotate180,
    /// EXIF 4.
    FlipVertical,
    /// EXIF 5: mirrored along the main diagonal.
    Transpose,
    /// EXIF 6: a quarter turn clockwise.
    Rotate90,
    /// EXIF 7: mirrored along the other diagonal.
    Transverse,
    /// EXIF 8: a quarter turn anticlockwise.
    Rotate270,
}

impl Orientation {
    /// Finds the orientation in an EXIF block (a small TIFF file, with or without `Exif\0\0` ahead).
    /// `None` if it is absent, 1 (upright) or invalid, all of which mean: leave the pixels.
    pub(super) fn from_exif(block: &[u8]) -> Option<Self> {
        let tiff = block.strip_prefix(b"Exif\0\0").unwrap_or(block);
        let little = match tiff.get(..4)? {
            [b'I', b'I', 42, 0] => true,
            [b'M', b'M', 0, 42] => false,
            _ => return None,
        };
        let u16_at = |at: usize| -> Option<u16> {
            let bytes = tiff.get(at..at.checked_add(2)?)?.try_into().ok()?;
            Some(if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
        };
        let ifd = match (u16_at(4)?, u16_at(6)?) {
            (low, high) if little => usize::from(high) << 16 | usize::from(low),
            (high, low) => usize::from(high) << 16 | usize::from(low),
        };
        const ORIENTATION: u16 = 0x0112;
        const SHORT: u16 = 3;
        (0..usize::from(u16_at(ifd)?))
            .map(|entry| ifd + 2 + entry * 12)
            .find(|&at| u16_at(at) == Some(ORIENTATION) && u16_at(at + 2) == Some(SHORT))
            .and_then(|at| Self::from_code(u16_at(at + 8)?))
    }

    fn from_code(code: u16) -> Option<Self> {
        Some(match code {
            2 => Self::FlipHorizontal,
            3 => Self::Rotate180,
            4 => Self::FlipVertical,
            5 => Self::Transpose,
            6 => Self::Rotate90,
            7 => Self::Transverse,
            8 => Self::Rotate270,
            _ => return None,
        })
    }

    /// The upright image.
    pub(super) fn apply(self, image: &RgbImage) -> RgbImage {
        let (w, h) = (image.width(), image.height());
        let (right, bottom) = (w - 1, h - 1);
        // In each arm (x, y) is a pixel of the result, and `get` takes the stored one that goes there.
        match self {
            Self::FlipHorizontal => RgbImage::from_fn(w, h, |x, y| image.get(right - x, y)),
            Self::Rotate180 => RgbImage::from_fn(w, h, |x, y| image.get(right - x, bottom - y)),
            Self::FlipVertical => RgbImage::from_fn(w, h, |x, y| image.get(x, bottom - y)),
            Self::Transpose => RgbImage::from_fn(h, w, |x, y| image.get(y, x)),
            Self::Rotate90 => RgbImage::from_fn(h, w, |x, y| image.get(y, bottom - x)),
            Self::Transverse => RgbImage::from_fn(h, w, |x, y| image.get(right - y, bottom - x)),
            Self::Rotate270 => RgbImage::from_fn(h, w, |x, y| image.get(right - y, x)),
        }
    }
}
