//! Windows bitmaps: header, palette, then rows (bottom row first), plain or run-length encoded.
//!
//! Read here rather than by a crate: the format is small, and Pillow's reading of its corners (no alpha
//! in plain 32-bit files, 5-bit channels as `v * 255 / 31`) is then ours to follow.

mod rle;

use super::{Decoded, Decoder, Format};
use crate::{DataErrorKind, RgbImage};

/// What the headers say, checked.
struct Header {
    width: u32,
    height: u32,
    /// Whether the first row stored is the top one.
    top_down: bool,
    bits: u16,
    compression: u32,
    /// Where the pixels start in the file.
    data: usize,
    /// Blue, green, red per index, for up to 8 bits.
    palette: Vec<[u8; 3]>,
    /// Red, green, blue, for 16 and 32 bits.
    masks: [u32; 3],
}

const PLAIN: u32 = 0;
const RLE8: u32 = 1;
const RLE4: u32 = 2;
const BIT_FIELDS: u32 = 3;

const FILE_HEADER: usize = 14;

pub(super) fn decode(bytes: &[u8], limits: &Decoder) -> Result<Decoded, DataErrorKind> {
    let header = Header::read(bytes)?;
    let pixels = limits.check_size(Format::Bmp, header.width, header.height)?;
    let data = bytes.get(header.data..).ok_or(TRUNCATED)?;
    let (width, bottom) = (header.width as usize, header.height - 1);
    let stored = |y: u32| if header.top_down { y } else { bottom - y } as usize;
    let image = if matches!(header.compression, RLE8 | RLE4) {
        let indices = rle::expand(data, width, pixels, header.compression == RLE4).ok_or(TRUNCATED)?;
        RgbImage::from_fn(header.width, header.height, |x, y| {
            header.color(indices[stored(y) * width + x as usize])
        })
    } else {
        let stride = (width * usize::from(header.bits)).div_ceil(32) * 4;
        // The last row's padding may be missing; its pixels may not.
        let needed = stride * bottom as usize + (width * usize::from(header.bits)).div_ceil(8);
        if data.len() < needed {
            return Err(TRUNCATED);
        }
        RgbImage::from_fn(header.width, header.height, |x, y| {
            header.pixel(&data[stored(y) * stride..], x as usize)
        })
    };
    Ok(Decoded { image, orientation: None })
}

const TRUNCATED: DataErrorKind = DataErrorKind::Truncated { format: Format::Bmp };

impl Header {
    fn read(bytes: &[u8]) -> Result<Self, DataErrorKind> {
        let size = u32_at(bytes, FILE_HEADER)? as usize;
        let old = size == 12;
        if !old && !matches!(size, 40 | 52 | 56 | 64 | 108 | 124) {
            return Err(unsupported(format!("a header of {size} bytes")));
        }
        let (width, height, bits) = if old {
            (u16_at(bytes, 18)?.into(), u16_at(bytes, 20)?.into(), u16_at(bytes, 24)?)
        } else {
            (u32_at(bytes, 18)?, u32_at(bytes, 22)? as i32, u16_at(bytes, 28)?)
        };
        let (compression, colors) = if old { (PLAIN, 0) } else { (u32_at(bytes, 30)?, u32_at(bytes, 46)?) };
        let masks = masks(bytes, compression, bits)?;
        // The masks follow the oldest of the newer headers; later ones contain them.
        let end = FILE_HEADER + if compression == BIT_FIELDS { size.max(52) } else { size };
        let (palette, palette_end) = palette(bytes, end, bits, colors, if old { 3 } else { 4 });
        // An offset of 0 is wrong but not rare; Pillow takes the end of the headers for it.
        let data = match u32_at(bytes, 10)? as usize {
            0 => palette_end,
            data => data,
        };
        let top_down = height < 0;
        Ok(Self { width, height: height.unsigned_abs(), top_down, bits, compression, data, palette, masks })
    }

    /// Pixel `x` of a row of an uncompressed image; the caller has checked that it is there.
    fn pixel(&self, row: &[u8], x: usize) -> [u8; 3] {
        match self.bits {
            24 => [row[x * 3 + 2], row[x * 3 + 1], row[x * 3]],
            16 => self.masked(u32::from(u16::from_le_bytes([row[x * 2], row[x * 2 + 1]]))),
            32 => {
                let at = x * 4;
                self.masked(u32::from_le_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]]))
            }
            bits => {
                let bits = usize::from(bits);
                let shift = 8 - bits - (x * bits) % 8;
                self.color(row[x * bits / 8] >> shift & (0xFF >> (8 - bits)) as u8)
            }
        }
    }

    fn color(&self, index: u8) -> [u8; 3] {
        self.palette.get(usize::from(index)).map_or([0; 3], |&[blue, green, red]| [red, green, blue])
    }

    fn masked(&self, value: u32) -> [u8; 3] {
        self.masks.map(|mask| {
            let shift = mask.trailing_zeros().min(31);
            let (value, max) = (u64::from((value & mask) >> shift), u64::from(mask >> shift).max(1));
            (value * 255 / max).min(255) as u8
        })
    }
}

/// The bits of red, green and blue in a pixel of 16 or 32 bits; also refuses what is not read at all.
fn masks(bytes: &[u8], compression: u32, bits: u16) -> Result<[u32; 3], DataErrorKind> {
    let masks = match (compression, bits) {
        (BIT_FIELDS, 16 | 32) => [u32_at(bytes, 54)?, u32_at(bytes, 58)?, u32_at(bytes, 62)?],
        (PLAIN, 1 | 4 | 8 | 16 | 24 | 32) | (RLE8, 8) | (RLE4, 4) => [0; 3],
        _ => return Err(unsupported(format!("{bits} bits with compression {compression}"))),
    };
    Ok(match (masks, bits) {
        ([0, 0, 0], 16) => [0x7C00, 0x03E0, 0x001F],
        ([0, 0, 0], _) => [0xFF_0000, 0xFF00, 0xFF],
        (masks, _) => masks,
    })
}

/// The colours of an image of up to 8 bits, and where they end; as many as there are, for a start.
fn palette(bytes: &[u8], start: usize, bits: u16, colors: u32, entry: usize) -> (Vec<[u8; 3]>, usize) {
    if bits > 8 {
        return (Vec::new(), start);
    }
    let stored = if colors == 0 { 1 << bits } else { colors as usize };
    let end = start.saturating_add(stored.saturating_mul(entry));
    let table = bytes.get(start..end.min(bytes.len())).unwrap_or_default();
    (table.chunks_exact(entry).take(256).map(|c| [c[0], c[1], c[2]]).collect(), end)
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, DataErrorKind> {
    let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or(TRUNCATED)?;
    Ok(u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, DataErrorKind> {
    let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or(TRUNCATED)?;
    Ok(u32::from_le_bytes(*bytes))
}

fn unsupported(what: String) -> DataErrorKind {
    DataErrorKind::Unsupported { format: Format::Bmp, what }
}
