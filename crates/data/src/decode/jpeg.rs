//! JPEG: ordinary files by our own [`Baseline`], all others by `zune-jpeg`.
//!
//! That decoder can be lenient, and then fills with grey what it cannot decode, or strict, and then
//! also refuses harmless oddities between the headers. So headers are read leniently and pixels
//! strictly; and since neither mode asks for the end of the image, [`is_complete`] does.
//!
//! Damage that leaves valid codes and an end marker cannot be told from a picture; nor does Pillow.

use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;

use super::baseline::Baseline;
use super::{Decoded, Decoder, Format};
use crate::DataErrorKind;

pub(super) fn decode(bytes: &[u8], limits: &Decoder) -> Result<Decoded, DataErrorKind> {
    if let Some(file) = Baseline::open(bytes)
        && limits.check_size(Format::Jpeg, file.width, file.height).is_ok()
        && let Some(image) = file.decode([0, 0, file.width, file.height])
    {
        return Ok(Decoded { image, orientation: file.orientation });
    }
    // RGB is asked for throughout: the decoder then repeats grey, and turns CMYK and YCCK into RGB by
    // Pillow's simple formula, assuming Adobe's inverted inks as Pillow does.
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    let complete = is_complete(bytes);
    decoder.decode_headers().map_err(|error| kind(error, complete))?;
    let (width, height) = decoder.dimensions().ok_or_else(|| corrupt("it has no size"))?;
    let (width, height) = (narrow(width)?, narrow(height)?);
    let pixels = limits.check_size(Format::Jpeg, width, height)?;
    if !complete {
        return Err(DataErrorKind::Truncated { format: Format::Jpeg });
    }
    decoder.set_options(options.set_strict_mode(true));
    let mut rgb = vec![0; pixels * 3];
    decoder.decode_into(&mut rgb).map_err(|error| kind(error, complete))?;
    let exif = decoder.exif().map(Vec::as_slice);
    Decoded::from_channels(Format::Jpeg, (width, height), rgb, 3, exif)
}

/// Whether the file's segments and scans lead to an end-of-image marker (Pillow wants one too).
///
/// Thumbnails have end markers as well, but lie inside segments, which are skipped by their length.
fn is_complete(bytes: &[u8]) -> bool {
    const END: u8 = 0xD9;
    let mut at = 2;
    while let Some(offset) = bytes.get(at..).and_then(|rest| rest.iter().position(|&byte| byte == 0xFF)) {
        at += offset + 1;
        match bytes.get(at) {
            Some(&END) => return true,
            // Stuffed byte, fill byte, or a marker without a segment: go on behind it.
            Some(0x00 | 0x01 | 0xD0..=0xD8) => at += 1,
            Some(0xFF) => {}
            // A segment, scan headers included. What follows a scan header is searched byte by byte.
            Some(_) => match bytes.get(at + 1..at + 3) {
                Some(length) => at += 1 + usize::from(u16::from_be_bytes([length[0], length[1]])),
                None => return false,
            },
            None => return false,
        }
    }
    false
}

fn narrow(side: usize) -> Result<u32, DataErrorKind> {
    u32::try_from(side).map_err(|_| corrupt("its size is out of range"))
}

fn corrupt(detail: &str) -> DataErrorKind {
    DataErrorKind::Corrupt { format: Format::Jpeg, detail: detail.into() }
}

fn kind(error: DecodeErrors, complete: bool) -> DataErrorKind {
    match error {
        DecodeErrors::Unsupported(scheme) => {
            DataErrorKind::Unsupported { format: Format::Jpeg, what: format!("{scheme:?}") }
        }
        _ if !complete => DataErrorKind::Truncated { format: Format::Jpeg },
        error => corrupt(&error.to_string()),
    }
}
