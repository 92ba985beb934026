//! An 8-bit RGB image in memory.

use std::{fmt, io};

/// `pixels` of `[height, width, 3]` as a PNG file.
///
/// # Errors
///
/// The length of `pixels` differs, or a side is 0.
pub fn encode_png(width: u32, height: u32, pixels: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(bytes)
}

/// An image of 8-bit red, green, blue, row by row from the top left, without padding.
///
/// Width and height are at least 1.
#[derive(Clone, PartialEq, Eq)]
pub struct RgbImage {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

impl RgbImage {
    /// Wraps `pixels` of length `width * height * 3`; `None` if the length differs or a side is 0.
    #[must_use]
    pub fn new(width: u32, height: u32, pixels: Vec<u8>) -> Option<Self> {
        let expected = (width as usize).checked_mul(height as usize)?.checked_mul(3)?;
        (expected > 0 && pixels.len() == expected).then_some(Self { width, height, pixels })
    }

    /// Width in pixels.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.height
    }

    /// All pixels: `[height, width, 3]`.
    #[must_use]
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    pub(crate) fn pixels_mut(&mut self) -> &mut [u8] {
        &mut self.pixels
    }

    /// Gives the pixels away: `[height, width, 3]`.
    #[must_use]
    pub fn into_pixels(self) -> Vec<u8> {
        self.pixels
    }

    /// Mirrors left and right.
    pub(crate) fn flip_horizontal(&mut self) {
        let stride = self.width as usize * 3;
        for row in self.pixels.chunks_exact_mut(stride) {
            row.as_chunks_mut::<3>().0.reverse();
        }
    }

    /// Mirrors top and bottom.
    pub(crate) fn flip_vertical(&mut self) {
        let stride = self.width as usize * 3;
        let (upper, lower) = self.pixels.split_at_mut(self.height as usize / 2 * stride);
        for (upper, lower) in upper.chunks_exact_mut(stride).zip(lower.chunks_exact_mut(stride).rev()) {
            upper.swap_with_slice(lower);
        }
    }

    /// Columns `left..left + width` of rows `top..top + height`, which must lie inside.
    pub(crate) fn cropped(&self, [left, top, width, height]: [u32; 4]) -> Self {
        let stride = self.width as usize * 3;
        let (start, end) = (left as usize * 3, (left + width) as usize * 3);
        let rows = self.pixels.chunks_exact(stride).skip(top as usize).take(height as usize);
        let pixels = rows.flat_map(|row| &row[start..end]).copied().collect();
        Self { width, height, pixels }
    }

    /// Wraps pixels whose number is known to fit, and is not 0.
    pub(crate) fn from_pixels(width: u32, height: u32, pixels: Vec<u8>) -> Self {
        debug_assert_eq!(pixels.len(), width as usize * height as usize * 3);
        Self { width, height, pixels }
    }

    /// Builds an image from a function of (x, y); the caller guarantees sides of at least 1.
    pub(crate) fn from_fn(width: u32, height: u32, mut pixel: impl FnMut(u32, u32) -> [u8; 3]) -> Self {
        let mut pixels = Vec::with_capacity(width as usize * height as usize * 3);
        for y in 0..height {
            for x in 0..width {
                pixels.extend_from_slice(&pixel(x, y));
            }
        }
        Self { width, height, pixels }
    }

    /// The pixel at (x, y), which must lie inside.
    pub(crate) fn get(&self, x: u32, y: u32) -> [u8; 3] {
        let at = (y as usize * self.width as usize + x as usize) * 3;
        [self.pixels[at], self.pixels[at + 1], self.pixels[at + 2]]
    }
}

impl fmt::Debug for RgbImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RgbImage({} x {})", self.width, self.height)
    }
}
