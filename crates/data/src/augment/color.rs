//! Operations on the colours of 8-bit images, with Pillow's arithmetic.
//!
//! What depends on a level alone is a table of 256; Pillow blends in `f32` and truncates, and so do these.

use crate::RgbImage;

/// Replaces every level of each channel by its entry in the channel's table.
fn map(image: &mut RgbImage, tables: &[[u8; 256]; 3]) {
    for pixel in image.pixels_mut().as_chunks_mut::<3>().0 {
        for (level, table) in pixel.iter_mut().zip(tables) {
            *level = table[usize::from(*level)];
        }
    }
}

fn map_all(image: &mut RgbImage, level: impl Fn(u8) -> u8) {
    map(image, &[std::array::from_fn(|old| level(old as u8)); 3]);
}

/// Pillow's `Image.blend`: `from` at 0, `to` at 1, beyond them outside. The cast truncates and clamps.
fn blend(from: u8, to: u8, alpha: f32) -> u8 {
    (f32::from(from) + alpha * (f32::from(to) - f32::from(from))) as u8
}

/// Pillow's grey value: ITU-R 601 in 16 bits.
fn luma(pixel: [u8; 3]) -> u8 {
    let [r, g, b] = pixel.map(u32::from);
    ((r * 19_595 + g * 38_470 + b * 7471 + 0x8000) >> 16) as u8
}

/// `ImageEnhance.Brightness(image).enhance(factor)`: 0 is black, 1 the image itself.
pub(super) fn brightness(image: &mut RgbImage, factor: f64) {
    map_all(image, |level| blend(0, level, factor as f32));
}

/// `ImageEnhance.Contrast(image).enhance(factor)`: 0 is the mean grey, 1 the image itself.
pub(super) fn contrast(image: &mut RgbImage, factor: f64) {
    let pixels = image.pixels().as_chunks::<3>().0;
    let sum: u64 = pixels.iter().map(|&pixel| u64::from(luma(pixel))).sum();
    let mean = (sum as f64 / pixels.len() as f64 + 0.5) as u8;
    map_all(image, |level| blend(mean, level, factor as f32));
}

/// `ImageEnhance.Color(image).enhance(factor)`, saturation: 0 is grey, 1 the image itself.
pub(super) fn color(image: &mut RgbImage, factor: f64) {
    for pixel in image.pixels_mut().as_chunks_mut::<3>().0 {
        let grey = luma(*pixel);
        *pixel = pixel.map(|level| blend(grey, level, factor as f32));
    }
}

/// `ImageEnhance.Sharpness(image).enhance(factor)`: 0 is smoothed, 1 the image itself, 2 sharpened.
pub(super) fn sharpness(image: &mut RgbImage, factor: f64) {
    let smooth = smooth(image);
    for (level, &smooth) in image.pixels_mut().iter_mut().zip(&smooth) {
        *level = blend(smooth, *level, factor as f32);
    }
}

/// `image.filter(ImageFilter.SMOOTH)`: ones around a five, over 13; the outermost pixels stay.
fn smooth(image: &RgbImage) -> Vec<u8> {
    const ONE: f32 = 1.0 / 13.0;
    const FIVE: f32 = 5.0 / 13.0;
    let stride = image.width() as usize * 3;
    let mut smooth = image.pixels().to_vec();
    if image.width() < 3 || image.height() < 3 {
        return smooth;
    }
    let rows: Vec<&[u8]> = image.pixels().chunks_exact(stride).collect();
    for (target, rows) in smooth.chunks_exact_mut(stride).skip(1).zip(rows.windows(3)) {
        let sum = |row: &[u8], x: usize, middle: f32| {
            f32::from(row[x]) * ONE + f32::from(row[x + 3]) * middle + f32::from(row[x + 6]) * ONE
        };
        for (x, target) in target[3..stride - 3].iter_mut().enumerate() {
            // From the lower row up, as Pillow adds.
            let sum = 0.5 + sum(rows[2], x, ONE) + sum(rows[1], x, FIVE) + sum(rows[0], x, ONE);
            *target = sum as u8;
        }
    }
    smooth
}

/// torchvision's `adjust_hue` of a PIL image: turns the hue by `factor` of the circle, -0.5 to 0.5.
pub(super) fn hue(image: &mut RgbImage, factor: f64) {
    let turn = (factor * 255.0) as i32 as u8;
    for pixel in image.pixels_mut().as_chunks_mut::<3>().0 {
        let [h, s, v] = to_hsv(*pixel);
        *pixel = to_rgb([h.wrapping_add(turn), s, v]);
    }
}

/// Pillow's RGB to HSV; its mixture of `f32` and `f64` decides some roundings.
fn to_hsv([r, g, b]: [u8; 3]) -> [u8; 3] {
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    if min == max {
        return [0, 0, max];
    }
    let range = f32::from(max - min);
    let saturation = range / f32::from(max);
    let [rc, gc, bc] = [r, g, b].map(|level| f32::from(max - level) / range);
    let hue = if r == max {
        bc - gc
    } else if g == max {
        (2.0 + f64::from(rc) - f64::from(bc)) as f32
    } else {
        (4.0 + f64::from(gc) - f64::from(rc)) as f32
    };
    let hue = ((f64::from(hue) / 6.0 + 1.0) % 1.0) as f32;
    [(f64::from(hue) * 255.0) as u8, (f64::from(saturation) * 255.0) as u8, max]
}

/// Pillow's HSV to RGB.
fn to_rgb([h, s, v]: [u8; 3]) -> [u8; 3] {
    if s == 0 {
        return [v; 3];
    }
    let sector = (f64::from(h) * 6.0 / 255.0).floor();
    let rest = (f64::from(h) * 6.0 / 255.0 - f64::from(sector as f32)) as f32;
    let saturation = (f64::from(s) / 255.0) as f32;
    let share = |lost: f64| (f64::from(v) * (1.0 - lost)).round() as u8;
    let p = share(f64::from(saturation));
    let q = share(f64::from(saturation * rest));
    let t = share(f64::from(saturation) * (1.0 - f64::from(rest)));
    match sector as u8 % 6 {
        0 => [v, t, p],
        1 => [q, v, p],
        2 => [p, v, t],
        3 => [p, q, v],
        4 => [t, p, v],
        _ => [v, p, q],
    }
}

/// How often each level occurs, by channel.
fn histograms(image: &RgbImage) -> [[u64; 256]; 3] {
    let mut counts = [[0; 256]; 3];
    for pixel in image.pixels().as_chunks::<3>().0 {
        for (counts, &level) in counts.iter_mut().zip(pixel) {
            counts[usize::from(level)] += 1;
        }
    }
    counts
}

/// `ImageOps.autocontrast(image)`: stretches each channel to 0..255.
pub(super) fn auto_contrast(image: &mut RgbImage) {
    let tables = histograms(image).map(|counts| {
        let low = counts.iter().position(|&count| count > 0).unwrap_or(0);
        let high = counts.iter().rposition(|&count| count > 0).unwrap_or(0);
        if high <= low {
            return identity();
        }
        let scale = 255.0 / (high - low) as f64;
        let offset = -(low as f64) * scale;
        std::array::from_fn(|level| (level as f64 * scale + offset) as u8)
    });
    map(image, &tables);
}

/// `ImageOps.equalize(image)`: spreads each channel's levels evenly.
pub(super) fn equalize(image: &mut RgbImage) {
    let tables = histograms(image).map(|counts| {
        let used: Vec<u64> = counts.iter().copied().filter(|&count| count > 0).collect();
        let step = (used.iter().sum::<u64>() - used.last().copied().unwrap_or(0)) / 255;
        if used.len() <= 1 || step == 0 {
            return identity();
        }
        let mut sum = step / 2;
        std::array::from_fn(|level| {
            let new = (sum / step).min(255) as u8;
            sum += counts[level];
            new
        })
    });
    map(image, &tables);
}

fn identity() -> [u8; 256] {
    std::array::from_fn(|level| level as u8)
}

/// `ImageOps.invert(image)`.
pub(super) fn invert(image: &mut RgbImage) {
    map_all(image, |level| 255 - level);
}

/// `ImageOps.solarize(image, threshold)`: inverts levels from the threshold on.
pub(super) fn solarize(image: &mut RgbImage, threshold: f64) {
    map_all(image, |level| if f64::from(level) < threshold { level } else { 255 - level });
}

/// timm's `solarize_add`: adds to levels below 128.
pub(super) fn solarize_add(image: &mut RgbImage, add: u8) {
    map_all(image, |level| if level < 128 { level.saturating_add(add) } else { level });
}

/// `ImageOps.posterize(image, bits)`: keeps the high bits; none of them leaves black.
pub(super) fn posterize(image: &mut RgbImage, bits: u8) {
    let mask = !(0xFF_u16 >> bits.min(8)) as u8;
    map_all(image, |level| level & mask);
}

/// SamplePairing (Inoue, arXiv:1801.02929), one of AutoAugment's 16 operations: Pillow's
/// `Image.blend(image, other, weight)`, with `other` of the same size. No published policy uses it.
///
/// Returns `None` if the sizes differ.
#[must_use]
pub fn sample_pairing(image: &RgbImage, other: &RgbImage, weight: f64) -> Option<RgbImage> {
    let same = (image.width(), image.height()) == (other.width(), other.height());
    same.then(|| {
        let pairs = image.pixels().iter().zip(other.pixels());
        let pixels = pairs.map(|(&a, &b)| blend(a, b, weight as f32)).collect();
        RgbImage::from_pixels(image.width(), image.height(), pixels)
    })
}
