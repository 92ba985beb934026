//! PNG, by the `png` crate.

use std::io::{Cursor, ErrorKind};

use ::png::{DecodingError, Limits, Transformations};

use super::{Decoded, Decoder, Format};
use crate::DataErrorKind;

pub(super) fn decode(bytes: &[u8], limits: &Decoder) -> Result<Decoded, DataErrorKind> {
    // Rows, chunks and inflation buffers; the pixels themselves are ours, and are limited below.
    let memory = Limits { bytes: usize::try_from(limits.max_file_bytes).unwrap_or(usize::MAX).max(64 << 20) };
    let mut decoder = ::png::Decoder::new_with_limits(Cursor::new(bytes), memory);
    // Palettes and 1, 2, 4-bit grey to 8 bits; of 16-bit values the high byte.
    decoder.set_transformations(Transformations::normalize_to_color8());
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let header = decoder.read_header_info().map_err(kind)?;
    let (width, height) = (header.width, header.height);
    limits.check_size(Format::Png, width, height)?;
    let mut reader = decoder.read_info().map_err(kind)?;
    let size = reader.output_buffer_size().ok_or(DataErrorKind::TooManyPixels {
        width,
        height,
        limit: limits.max_pixels,
    })?;
    let mut pixels = vec![0; size];
    let frame = reader.next_frame(&mut pixels).map_err(kind)?;
    // The orientation may stand behind the pixels. They are whole by now, so a missing end is forgiven.
    let _missing_end = reader.finish();
    let channels = frame.color_type.samples();
    let exif = reader.info().exif_metadata.as_deref();
    Decoded::from_channels(Format::Png, (width, height), pixels, channels, exif)
}

fn kind(error: DecodingError) -> DataErrorKind {
    match error {
        DecodingError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            DataErrorKind::Truncated { format: Format::Png }
        }
        error => DataErrorKind::Corrupt { format: Format::Png, detail: error.to_string() },
    }
}
