//! Run-length encoded bitmaps.
//!
//! Pairs of bytes: a count and a value, or 0 and a code (0 end of row, 1 end of image, 2 move, else
//! that many literal values, padded to an even number of bytes). Values not written are index 0.

/// The indices of all `pixels`, in rows of `width`; `None` if the data ends before its end code and
/// before the last pixel.
pub(super) fn expand(data: &[u8], width: usize, pixels: usize, nibbles: bool) -> Option<Vec<u8>> {
    let mut out = vec![0; pixels];
    let (mut x, mut row, mut at) = (0, 0, 0);
    while row < pixels {
        let (count, code) = (usize::from(*data.get(at)?), *data.get(at + 1)?);
        at += 2;
        let room = out.get_mut(row + x..row + width)?;
        match (count, code) {
            (0, 0) => (x, row) = (0, row + width),
            (0, 1) => return Some(out),
            (0, 2) => {
                x = (x + usize::from(*data.get(at)?)).min(width);
                row += usize::from(*data.get(at + 1)?) * width;
                at += 2;
            }
            (0, literal) => {
                let literal = usize::from(literal);
                let bytes = if nibbles { literal.div_ceil(2) } else { literal };
                let values = data.get(at..at + bytes)?;
                at += bytes.next_multiple_of(2);
                x += fill(room, literal, |i| if nibbles { nibble(values[i / 2], i) } else { values[i] });
            }
            (count, value) => x += fill(room, count, |i| if nibbles { nibble(value, i) } else { value }),
        }
        // A row may end without a code once the image is full.
        if x >= width && row + width >= pixels {
            return Some(out);
        }
    }
    Some(out)
}

/// Writes up to `count` values; those that stand over the row's end are dropped.
fn fill(room: &mut [u8], count: usize, value: impl Fn(usize) -> u8) -> usize {
    let count = count.min(room.len());
    room[..count].iter_mut().enumerate().for_each(|(i, pixel)| *pixel = value(i));
    count
}

/// The first of a byte's two values is the high one.
fn nibble(byte: u8, index: usize) -> u8 {
    if index.is_multiple_of(2) { byte >> 4 } else { byte & 0x0F }
}
