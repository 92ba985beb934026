//! WebP, by `image-webp`.

use std::io::{Cursor, ErrorKind};

use image_webp::{DecodingError, WebPDecoder};

use super::{Decoded, Decoder, Format};
use crate::DataErrorKind;

pub(super) fn decode(bytes: &[u8], limits: &Decoder) -> Result<Decoded, DataErrorKind> {
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(|error| kind(error, bytes))?;
    let (width, height) = decoder.dimensions();
    let pixels = limits.check_size(Format::WebP, width, height)?;
    decoder.set_memory_limit(usize::try_from(limits.max_file_bytes).unwrap_or(usize::MAX));
    let channels = if decoder.has_alpha() { 4 } else { 3 };
    let mut buffer = vec![0; pixels * channels];
    decoder.read_image(&mut buffer).map_err(|error| kind(error, bytes))?;
    // Metadata that cannot be read turns nothing; the pixels are good.
    let exif = decoder.exif_metadata().ok().flatten();
    Decoded::from_channels(Format::WebP, (width, height), buffer, channels, exif.as_deref())
}

fn kind(error: DecodingError, bytes: &[u8]) -> DataErrorKind {
    match error {
        _ if is_short(bytes) => DataErrorKind::Truncated { format: Format::WebP },
        DecodingError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            DataErrorKind::Truncated { format: Format::WebP }
        }
        error => DataErrorKind::Corrupt { format: Format::WebP, detail: error.to_string() },
    }
}

/// Whether the file is shorter than its header says: the likelier reason when the decoder gives up.
fn is_short(bytes: &[u8]) -> bool {
    const RIFF_HEADER: usize = 8;
    match bytes.get(4..RIFF_HEADER) {
        Some(size) => {
            let promised = u32::from_le_bytes([size[0], size[1], size[2], size[3]]) as usize;
            bytes.len() - RIFF_HEADER < promised
        }
        None => true,
    }
}
