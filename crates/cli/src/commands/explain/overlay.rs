//! A map over the picture that it is about, in the picture's own coordinates.

use cardinal_data::{Interpolation, Preprocess, RgbImage, resize};
use serde::Serialize;

/// The longer side of a shown picture, in pixels; smaller ones are enlarged to at least [`LEAST`].
const MOST: u32 = 448;
const LEAST: u32 = 224;

/// The rectangle of the original picture that the network saw, in its pixels. It may reach over the picture's edges,
/// where the network saw the border's fill.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Crop {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Crop {
    /// Where `preprocess` looks in a picture of this size.
    pub(super) fn of(preprocess: &Preprocess, width: u32, height: u32) -> anyhow::Result<Self> {
        let geometry = preprocess.geometry(width, height)?;
        let (rows, columns) = geometry.resized;
        let (dx, dy) = (f64::from(width) / columns as f64, f64::from(height) / rows as f64);
        let (crop_height, crop_width) = preprocess.size;
        Ok(Self {
            x: geometry.left as f64 * dx,
            y: geometry.top as f64 * dy,
            width: f64::from(crop_width) * dx,
            height: f64::from(crop_height) * dy,
        })
    }

    /// The rectangle in a picture that is `factor` times as large.
    pub(super) fn scaled(&self, factor: f64) -> Self {
        let Self { x, y, width, height } = *self;
        Self { x: x * factor, y: y * factor, width: width * factor, height: height * factor }
    }
}

/// A map of numbers in [0, 1], `[rows, columns]`.
pub(super) struct Heat<'a> {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) values: &'a [f32],
}

impl Heat<'_> {
    /// The value at a point of the map, both coordinates in [0, 1]: linear between the cells' centres.
    fn at(&self, x: f64, y: f64) -> f32 {
        let place = |share: f64, count: usize| {
            let position = (share * count as f64 - 0.5).clamp(0.0, (count - 1) as f64);
            let low = position.floor() as usize;
            (low, (low + 1).min(count - 1), (position - position.floor()) as f32)
        };
        let ((top, bottom, down), (left, right, over)) = (place(y, self.rows), place(x, self.columns));
        let value = |row: usize, column: usize| self.values[row * self.columns + column];
        let row = |row: usize| value(row, left) * (1.0 - over) + value(row, right) * over;
        row(top) * (1.0 - down) + row(bottom) * down
    }
}

/// The picture at the size in which it is shown, and how many of its pixels one of the original's is.
pub(super) fn shown(image: &RgbImage) -> anyhow::Result<(RgbImage, f64)> {
    let longer = f64::from(image.width().max(image.height()));
    let factor = (f64::from(MOST) / longer).min(1.0).max(f64::from(LEAST) / longer);
    let side = |side: u32| ((f64::from(side) * factor).round() as u32).max(1);
    let (width, height) = (side(image.width()), side(image.height()));
    let filter = if factor > 1.0 { Interpolation::Bicubic } else { Interpolation::Bilinear };
    Ok((resize(image, width, height, filter)?, factor))
}

/// `image` with the map over `crop`, both in the image's coordinates: what has no weight is grey and dim, what has much
/// is bright; outside the crop the picture is darker still.
pub(super) fn overlay(image: &RgbImage, crop: &Crop, heat: &Heat<'_>) -> Vec<u8> {
    let width = image.width() as usize;
    let mut pixels = Vec::with_capacity(image.pixels().len());
    for (index, pixel) in image.pixels().chunks_exact(3).enumerate() {
        let (x, y) = ((index % width) as f64 + 0.5, (index / width) as f64 + 0.5);
        let (u, v) = ((x - crop.x) / crop.width, (y - crop.y) / crop.height);
        let grey = 0.299 * f32::from(pixel[0]) + 0.587 * f32::from(pixel[1]) + 0.114 * f32::from(pixel[2]);
        if !(0.0..=1.0).contains(&u) || !(0.0..=1.0).contains(&v) {
            pixels.extend([(grey * 0.35) as u8; 3]);
            continue;
        }
        let value = heat.at(u, v);
        let share = 0.3 + 0.45 * value;
        for (channel, colour) in pixel.iter().zip(viridis(value)) {
            // Half the colour of the picture is kept where it matters, none where it does not.
            let own = grey + (f32::from(*channel) - grey) * value;
            pixels.push((own * (1.0 - share) + f32::from(colour) * share).round() as u8);
        }
    }
    pixels
}

/// Viridis (Smith and van der Walt, CC0) at eighths; in between linear. Its lightness rises evenly, so it also reads in
/// grey and without telling red from green.
const VIRIDIS: [[u8; 3]; 9] = [
    [68, 1, 84],
    [71, 44, 122],
    [59, 81, 139],
    [44, 113, 142],
    [33, 144, 141],
    [39, 173, 129],
    [92, 200, 99],
    [170, 220, 50],
    [253, 231, 37],
];

/// The colour of a number in [0, 1].
pub(super) fn viridis(value: f32) -> [u8; 3] {
    let position = value.clamp(0.0, 1.0) * (VIRIDIS.len() - 1) as f32;
    let low = (position as usize).min(VIRIDIS.len() - 2);
    let over = position - low as f32;
    let mix = |channel: usize| {
        let (a, b) = (f32::from(VIRIDIS[low][channel]), f32::from(VIRIDIS[low + 1][channel]));
        (a + (b - a) * over).round() as u8
    };
    [mix(0), mix(1), mix(2)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use cardinal_data::CropMode;

    #[test]
    fn the_crop_is_where_the_network_looks() {
        // 400 x 200 is resized to 128 rows, 256 columns; the middle 112 x 112 of that.
        let preprocess = Preprocess { size: (112, 112), crop_pct: 0.875, ..Preprocess::default() };
        let crop = Crop::of(&preprocess, 400, 200).unwrap();
        assert_eq!(crop, Crop { x: 112.5, y: 12.5, width: 175.0, height: 175.0 });
        let squash = Preprocess { crop_pct: 1.0, crop_mode: CropMode::Squash, ..preprocess.clone() };
        let whole = Crop { x: 0.0, y: 0.0, width: 400.0, height: 200.0 };
        assert_eq!(Crop::of(&squash, 400, 200).unwrap(), whole);
        // The border's fill lies above and below the picture.
        let border = Preprocess { crop_pct: 1.0, crop_mode: CropMode::Border, ..preprocess };
        let crop = Crop::of(&border, 400, 200).unwrap();
        assert_eq!((crop.x, crop.width), (0.0, 400.0));
        assert_eq!((crop.y, crop.height), (-100.0, 400.0));
    }

    /// One pixel of the input is lit; the brightest point of the overlay must lie there.
    #[test]
    fn the_overlay_lies_where_the_map_does() {
        let image = RgbImage::new(400, 200, vec![128; 400 * 200 * 3]).unwrap();
        let crop = Crop { x: 112.5, y: 12.5, width: 175.0, height: 175.0 };
        let mut values = vec![0.0; 49];
        values[7 + 4] = 1.0;
        let heat = Heat { rows: 7, columns: 7, values: &values };
        let pixels = overlay(&image, &crop, &heat);
        let brightest = (0..400 * 200).max_by_key(|&at| u32::from(pixels[at * 3 + 1])).unwrap();
        // The centre of cell (1, 4) of 7 x 7, each 25 pixels wide.
        let (x, y) = (112.5 + 4.5 * 25.0, 12.5 + 1.5 * 25.0);
        assert!(f64::from(brightest as u32 % 400).mul_add(1.0, 0.5 - x).abs() <= 1.0);
        assert!(f64::from(brightest as u32 / 400).mul_add(1.0, 0.5 - y).abs() <= 1.0);
        assert_eq!(pixels[..3], [44; 3], "dim outside of the crop");
    }

    #[test]
    fn maps_are_linear_between_centres() {
        let heat = Heat { rows: 1, columns: 2, values: &[0.0, 1.0] };
        let near = |x: f64, expected: f32| assert!((heat.at(x, 0.3) - expected).abs() < 1e-6);
        near(0.0, 0.0);
        near(0.25, 0.0);
        near(0.5, 0.5);
        near(1.0, 1.0);
    }

    #[test]
    fn colours_get_lighter() {
        let light = |i: u8| {
            let [r, g, b] = viridis(f32::from(i) / 50.0).map(f32::from);
            0.299 * r + 0.587 * g + 0.114 * b
        };
        assert!((1..=50).all(|i| light(i) > light(i - 1)));
    }

    #[test]
    fn pictures_are_shown_at_a_readable_size() {
        let size = |width: u32, height: u32| {
            let image = RgbImage::new(width, height, vec![0; (width * height * 3) as usize]).unwrap();
            let (shown, factor) = shown(&image).unwrap();
            (shown.width(), shown.height(), factor)
        };
        assert_eq!(size(896, 448), (448, 224, 0.5));
        assert_eq!(size(300, 200), (300, 200, 1.0));
        assert_eq!(size(28, 28), (224, 224, 8.0));
    }
}
