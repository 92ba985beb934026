//! GIF, by the `gif` crate: the first frame on its canvas.

use std::io::{Cursor, ErrorKind};
use std::num::NonZeroU64;

use ::gif::{ColorOutput, DecodeOptions, DecodingError, Frame, MemoryLimit};

use super::{Decoded, Decoder, Format};
use crate::DataErrorKind;

pub(super) fn decode(bytes: &[u8], limits: &Decoder) -> Result<Decoded, DataErrorKind> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.set_memory_limit(
        NonZeroU64::new(limits.max_pixels).map_or(MemoryLimit::Unlimited, MemoryLimit::Bytes),
    );
    let mut decoder = options.read_info(Cursor::new(bytes)).map_err(kind)?;
    let canvas = (u32::from(decoder.width()), u32::from(decoder.height()));
    let Some(frame) = decoder.next_frame_info().map_err(kind)?.cloned() else {
        return Err(DataErrorKind::Truncated { format: Format::Gif });
    };
    // As in Pillow, a frame that stands out enlarges the canvas.
    let width = canvas.0.max(u32::from(frame.left) + u32::from(frame.width));
    let height = canvas.1.max(u32::from(frame.top) + u32::from(frame.height));
    let pixels = limits.check_size(Format::Gif, width, height)?;
    let palette = decoder.palette().map_err(kind)?.to_vec();
    let mut indices = vec![0; decoder.buffer_size()];
    decoder.read_into_buffer(&mut indices).map_err(kind)?;
    let rgb = paint(&frame, &indices, &palette, width, pixels);
    Decoded::from_channels(Format::Gif, (width, height), rgb, 3, None)
}

/// The frame's colours, and around it that of the transparent index (or of index 0), as in Pillow.
fn paint(frame: &Frame<'_>, indices: &[u8], palette: &[u8], width: u32, pixels: usize) -> Vec<u8> {
    let color = |index: u8| -> [u8; 3] {
        let at = usize::from(index) * 3;
        palette.get(at..at + 3).map_or([0; 3], |rgb| [rgb[0], rgb[1], rgb[2]])
    };
    let mut rgb = color(frame.transparent.unwrap_or(0)).repeat(pixels);
    let rows = rgb.chunks_exact_mut(width as usize * 3).skip(usize::from(frame.top));
    for (row, indices) in rows.zip(indices.chunks_exact(usize::from(frame.width).max(1))) {
        let row = row.chunks_exact_mut(3).skip(usize::from(frame.left));
        for (pixel, &index) in row.zip(indices) {
            pixel.copy_from_slice(&color(index));
        }
    }
    rgb
}

fn kind(error: DecodingError) -> DataErrorKind {
    match error {
        DecodingError::Io(error) if error.kind() == ErrorKind::UnexpectedEof => {
            DataErrorKind::Truncated { format: Format::Gif }
        }
        error => DataErrorKind::Corrupt { format: Format::Gif, detail: error.to_string() },
    }
}
