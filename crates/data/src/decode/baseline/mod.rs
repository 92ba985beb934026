//! A part of an ordinary JPEG file: baseline, grey or YCbCr, one scan.
//!
//! Nearly all photographs are such files, and a training crop is half of one on average. All bits up to the
//! crop's last row must be read, but only its blocks are transformed, enlarged and coloured, which is most of
//! the work. Transform, upsampling and colours have libjpeg's roundings, so the pixels are Pillow's.
//!
//! Everything else (progressive files, other samplings and colours, damage of any kind) makes this return
//! `None`: the general decoder then reads the file, or says what is wrong with it.

mod bits;
mod idct;
mod rows;

use bits::{Bits, Huffman};
use rows::{Plane, Upsampling};

use super::exif::Orientation;
use crate::RgbImage;

/// Where the coefficients of a zigzag sequence belong.
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7,
    14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39,
    46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// A file whose headers have been read, up to its only scan.
pub(super) struct Baseline<'a> {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) orientation: Option<Orientation>,
    components: Vec<Component>,
    /// Quantisation tables in natural order. Larger values than an `i16` holds wrap, as in libjpeg's SIMD code;
    /// no picture of 8 bits needs them.
    quantization: [Option<[i16; 64]>; 4],
    dc: [Option<Huffman>; 4],
    ac: [Option<Huffman>; 4],
    /// MCUs between restart markers, 0 for none.
    restart_interval: usize,
    scan: &'a [u8],
}

/// A component as the frame and the scan header describe it.
#[derive(Default)]
struct Component {
    id: u8,
    /// Blocks per MCU, across and down.
    sampling: (usize, usize),
    quantization: usize,
    dc: usize,
    ac: usize,
}

/// [`Baseline::decode`], compiled for every level of the processor's instructions. (A closure would not be
/// inlined into the code for the level.)
struct Decode<'a> {
    file: &'a Baseline<'a>,
    part: [u32; 4],
}

impl pulp::WithSimd for Decode<'_> {
    type Output = Option<RgbImage>;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _level: S) -> Self::Output {
        let planes = self.file.decode_planes(self.part)?;
        Some(self.file.color(&planes, self.part))
    }
}

impl<'a> Baseline<'a> {
    /// Reads the headers; `None` if the file is not of the kind above.
    pub(super) fn open(bytes: &'a [u8]) -> Option<Self> {
        let mut file = Self {
            width: 0,
            height: 0,
            orientation: None,
            components: Vec::new(),
            quantization: [None; 4],
            dc: [const { None }; 4],
            ac: [const { None }; 4],
            restart_interval: 0,
            scan: &[],
        };
        // An end marker at the very end, so nothing is missing. Other endings are left to the general decoder.
        let mut rest = bytes.strip_prefix(&[0xFF, 0xD8])?;
        if !bytes.ends_with(&[0xFF, 0xD9]) {
            return None;
        }
        let (mut jfif, mut adobe) = (false, None);
        loop {
            let &[marker_start, marker, high, low] = rest.first_chunk::<4>()?;
            let length = usize::from(u16::from_be_bytes([high, low]));
            let segment = rest.get(4..2 + length)?;
            rest = &rest[2 + length..];
            match (marker_start, marker) {
                (0xFF, 0xC0 | 0xC1) if file.components.is_empty() => file.read_frame(segment)?,
                (0xFF, 0xC4) => file.read_huffman(segment)?,
                (0xFF, 0xDB) => file.read_quantization(segment)?,
                (0xFF, 0xDD) => {
                    file.restart_interval = usize::from(u16::from_be_bytes(*segment.first_chunk()?));
                }
                (0xFF, 0xDA) => {
                    file.read_scan_header(segment)?;
                    file.scan = rest;
                    break;
                }
                (0xFF, 0xE0) => jfif |= segment.starts_with(b"JFIF\0"),
                (0xFF, 0xE1) if segment.starts_with(b"Exif\0\0") && file.orientation.is_none() => {
                    file.orientation = Orientation::from_exif(segment);
                }
                (0xFF, 0xEE) if segment.starts_with(b"Adobe") => adobe = Some(*segment.get(11)?),
                (0xFF, 0xE1..=0xEF | 0xFE) => {}
                _ => return None,
            }
        }
        let colors = file.components.len() == 1
            || jfif
            || adobe.map_or_else(
                || file.components.iter().map(|component| component.id).eq([1, 2, 3]),
                |transform| transform == 1,
            );
        colors.then_some(file)
    }

    fn read_frame(&mut self, segment: &[u8]) -> Option<()> {
        let &[precision, h0, h1, w0, w1, count] = segment.first_chunk::<6>()?;
        self.height = u32::from(u16::from_be_bytes([h0, h1]));
        self.width = u32::from(u16::from_be_bytes([w0, w1]));
        let (entries, rest) = segment[6..].as_chunks::<3>();
        if precision != 8 || entries.len() != usize::from(count) || !rest.is_empty() {
            return None;
        }
        self.components = entries
            .iter()
            .map(|&[id, sampling, quantization]| Component {
                id,
                sampling: (usize::from(sampling >> 4), usize::from(sampling & 15)),
                quantization: usize::from(quantization),
                ..Component::default()
            })
            .collect();
        let known = match &mut self.components[..] {
            // A single component has no one to share an MCU with, whatever its sampling says.
            [grey] => {
                grey.sampling = (1, 1);
                true
            }
            [luma, blue, red] => {
                matches!(luma.sampling, (1 | 2, 1) | (2, 2))
                    && blue.sampling == (1, 1)
                    && red.sampling == (1, 1)
                    // libjpeg enlarges narrower ones in another way.
                    && self.width > 4
            }
            _ => false,
        };
        (known && self.width > 0 && self.height > 0).then_some(())
    }

    fn read_huffman(&mut self, mut segment: &[u8]) -> Option<()> {
        while let Some((&[class_and_id, ref counts @ ..], rest)) = segment.split_first_chunk::<17>() {
            let total = counts.iter().map(|&count| usize::from(count)).sum();
            let symbols = rest.get(..total)?;
            segment = &rest[total..];
            let tables = match class_and_id >> 4 {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return None,
            };
            *tables.get_mut(usize::from(class_and_id & 15))? = Some(Huffman::new(counts, symbols)?);
        }
        segment.is_empty().then_some(())
    }

    fn read_quantization(&mut self, mut segment: &[u8]) -> Option<()> {
        while let Some((&precision_and_id, rest)) = segment.split_first() {
            let table = self.quantization.get_mut(usize::from(precision_and_id & 15))?;
            let wide = match precision_and_id >> 4 {
                0 => false,
                1 => true,
                _ => return None,
            };
            let (values, rest) = rest.split_at_checked(if wide { 128 } else { 64 })?;
            let table = table.insert([0; 64]);
            for (i, &natural) in ZIGZAG.iter().enumerate() {
                table[usize::from(natural)] = match wide {
                    true => i16::from_be_bytes([values[2 * i], values[2 * i + 1]]),
                    false => i16::from(values[i]),
                };
            }
            segment = rest;
        }
        Some(())
    }

    fn read_scan_header(&mut self, segment: &[u8]) -> Option<()> {
        let (&count, rest) = segment.split_first()?;
        let (entries, rest) = rest.split_at_checked(usize::from(count) * 2)?;
        let all = usize::from(count) == self.components.len() && !self.components.is_empty();
        if !all || rest != [0, 63, 0] {
            return None;
        }
        for (component, &[id, tables]) in self.components.iter_mut().zip(entries.as_chunks::<2>().0) {
            (component.dc, component.ac) = (usize::from(tables >> 4), usize::from(tables & 15));
            let there = self.dc.get(component.dc)?.is_some()
                && self.ac.get(component.ac)?.is_some()
                && self.quantization.get(component.quantization)?.is_some();
            if component.id != id || !there {
                return None;
            }
        }
        Some(())
    }

    /// Decodes the box `[left, top, width, height]`, which must lie inside; `None` if the scan is damaged up
    /// to there.
    pub(super) fn decode(&self, part: [u32; 4]) -> Option<RgbImage> {
        pulp::Arch::new().dispatch(Decode { file: self, part })
    }

    /// MCUs per row.
    fn columns(&self) -> usize {
        (self.width as usize).div_ceil(8 * self.components[0].sampling.0)
    }

    /// The samples that the box needs: whole blocks, and where chroma is enlarged, a sample more on each side.
    fn plane(&self, component: &Component, [left, top, width, height]: [u32; 4]) -> Plane {
        let most = self.components[0].sampling;
        let range = |start: u32, len: u32, size: u32, own: usize, most: usize| {
            let factor = most / own;
            let real = (size as usize).div_ceil(factor);
            let margin = usize::from(factor > 1);
            let first = (start as usize / factor).saturating_sub(margin);
            let last = ((start + len - 1) as usize / factor + margin).min(real - 1);
            (first / 8 * 8, (last / 8 + 1) * 8, real)
        };
        let (left, right, width) = range(left, width, self.width, component.sampling.0, most.0);
        let (top, bottom, height) = range(top, height, self.height, component.sampling.1, most.1);
        let stride = right - left;
        Plane { samples: vec![0; stride * (bottom - top)], stride, left, top, width, height }
    }

    #[inline(always)]
    fn decode_planes(&self, part: [u32; 4]) -> Option<Vec<Plane>> {
        let mut planes: Vec<Plane> = self.components.iter().map(|c| self.plane(c, part)).collect();
        let bottoms = planes.iter().zip(&self.components).map(|(plane, component)| {
            (plane.top + plane.samples.len() / plane.stride).div_ceil(8 * component.sampling.1)
        });
        let rows = bottoms.max()?;
        let mut bits = Bits::new(self.scan);
        let mut predictions = vec![0; self.components.len()];
        let (mut until_restart, mut restarts) = (self.restart_interval, 0);
        for row in 0..rows {
            for column in 0..self.columns() {
                if self.restart_interval > 0 {
                    if until_restart == 0 {
                        bits.restart(restarts)?;
                        restarts = (restarts + 1) % 8;
                        until_restart = self.restart_interval;
                        predictions.fill(0);
                    }
                    until_restart -= 1;
                }
                for ((component, plane), prediction) in
                    self.components.iter().zip(&mut planes).zip(&mut predictions)
                {
                    self.decode_mcu(component, plane, prediction, (column, row), &mut bits)?;
                }
            }
            if bits.overrun() {
                return None;
            }
        }
        Some(planes)
    }

    /// One component's blocks of an MCU.
    #[inline(always)]
    fn decode_mcu(
        &self,
        component: &Component,
        plane: &mut Plane,
        prediction: &mut i32,
        (column, row): (usize, usize),
        bits: &mut Bits<'_>,
    ) -> Option<()> {
        let dc = self.dc[component.dc].as_ref()?;
        let ac = self.ac[component.ac].as_ref()?;
        let quantization = self.quantization[component.quantization].as_ref()?;
        let (across, down) = component.sampling;
        for v in 0..down {
            for h in 0..across {
                *prediction = prediction.wrapping_add(dc.dc(bits)?);
                let (x, y) = ((column * across + h) * 8, (row * down + v) * 8);
                let inside = x >= plane.left && x < plane.left + plane.stride && y >= plane.top;
                let start = if inside { (y - plane.top) * plane.stride + x - plane.left } else { usize::MAX };
                let Some(target) = plane.samples.get_mut(start..) else {
                    ac.ac(bits, |_, _| {})?;
                    continue;
                };
                let mut block = [0; 64];
                block[0] = *prediction as i16;
                let detailed = ac.ac(bits, |position, value| {
                    block[usize::from(ZIGZAG[position & 63] & 63)] = value as i16;
                })?;
                if detailed {
                    idct::idct(&block, quantization, target, plane.stride);
                } else {
                    idct::flat(block[0].wrapping_mul(quantization[0]), target, plane.stride);
                }
            }
        }
        Some(())
    }

    /// The box's pixels from the planes that hold them.
    #[inline(always)]
    fn color(&self, planes: &[Plane], [left, top, width, height]: [u32; 4]) -> RgbImage {
        let (x, len) = (left as usize, width as usize);
        let mut pixels = vec![0; len * height as usize * 3];
        let (mut sums, mut blue_row, mut red_row) = (Vec::new(), Vec::new(), Vec::new());
        let upsampling = match self.components[0].sampling {
            (1, _) => Upsampling::None,
            (_, 1) => Upsampling::H2V1,
            _ => Upsampling::H2V2,
        };
        for (y, target) in (top as usize..).zip(pixels.chunks_exact_mut(len * 3)) {
            match planes {
                [luma, blue, red] => {
                    rows::upsample(blue, upsampling, (x, y), &mut sums, &mut blue_row, len);
                    rows::upsample(red, upsampling, (x, y), &mut sums, &mut red_row, len);
                    rows::to_rgb(luma.row(y, x, len), &blue_row, &red_row, target);
                }
                [grey, ..] => {
                    let levels = grey.row(y, x, len).iter();
                    for (pixel, &level) in target.as_chunks_mut::<3>().0.iter_mut().zip(levels) {
                        *pixel = [level; 3];
                    }
                }
                [] => {}
            }
        }
        RgbImage::from_pixels(width, height, pixels)
    }
}
