//! Affine transforms: `image.transform(image.size, Image.AFFINE, matrix, filter, fillcolor)`, bit for bit.
//!
//! Every pixel of the result is taken from `(a x + b y + c, d x + e y + f)` of the source, pixel centres at
//! halves. Bilinear and bicubic are interpolated in `f64` and truncated; nothing is antialiased.

use super::Canvas;
use crate::{Interpolation, RgbImage};

/// `[a, b, c, d, e, f]`, from a place in the result to the place in the source.
type Matrix = [f64; 6];

pub(super) fn shear_x(image: &mut RgbImage, factor: f64, canvas: &Canvas) {
    *image = transform(image, [1.0, factor, 0.0, 0.0, 1.0, 0.0], canvas);
}

pub(super) fn shear_y(image: &mut RgbImage, factor: f64, canvas: &Canvas) {
    *image = transform(image, [1.0, 0.0, 0.0, factor, 1.0, 0.0], canvas);
}

pub(super) fn translate(image: &mut RgbImage, x: f64, y: f64, canvas: &Canvas) {
    *image = transform(image, [1.0, 0.0, x, 0.0, 1.0, y], canvas);
}

/// Pillow's `image.rotate`: anticlockwise about the middle.
pub(super) fn rotate(image: &mut RgbImage, degrees: f64, canvas: &Canvas) {
    if degrees % 360.0 == 0.0 {
        return;
    }
    let angle = -degrees.to_radians();
    let (sin, cos) = (rounded(angle.sin()), rounded(angle.cos()));
    let center = (f64::from(image.width()) / 2.0, f64::from(image.height()) / 2.0);
    let c = cos * -center.0 + sin * -center.1 + 0.0;
    let f = rounded(-angle.sin()) * -center.0 + cos * -center.1 + 0.0;
    *image = transform(image, [cos, sin, c + center.0, rounded(-angle.sin()), cos, f + center.1], canvas);
}

/// Python's `round(value, 15)`.
fn rounded(value: f64) -> f64 {
    format!("{value:.15}").parse().unwrap_or(value)
}

fn transform(image: &RgbImage, matrix: Matrix, canvas: &Canvas) -> RgbImage {
    match canvas.interpolation {
        Interpolation::Nearest => nearest(image, matrix, canvas.fill),
        Interpolation::Bilinear => interpolated(image, matrix, canvas.fill, bilinear),
        // Pillow has no transform with Lanczos' filter.
        Interpolation::Bicubic | Interpolation::Lanczos => interpolated(image, matrix, canvas.fill, bicubic),
    }
}

fn interpolated(
    image: &RgbImage,
    [a, b, c, d, e, f]: Matrix,
    fill: [u8; 3],
    filter: fn(&RgbImage, f64, f64) -> [u8; 3],
) -> RgbImage {
    let (width, height) = (f64::from(image.width()), f64::from(image.height()));
    RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let (x, y) = (f64::from(x) + 0.5, f64::from(y) + 0.5);
        let (x, y) = (a * x + b * y + c, d * x + e * y + f);
        let inside = x >= 0.0 && x < width && y >= 0.0 && y < height;
        if inside { filter(image, x - 0.5, y - 0.5) } else { fill }
    })
}

/// The `N` neighbours from `first` on, clamped into the image.
fn neighbours<const N: usize>(first: i64, size: u32) -> [u32; N] {
    std::array::from_fn(|step| (first + step as i64).clamp(0, i64::from(size) - 1) as u32)
}

fn bilinear(image: &RgbImage, x: f64, y: f64) -> [u8; 3] {
    let (left, top) = (x.floor(), y.floor());
    let (dx, dy) = (x - left, y - top);
    let columns = neighbours::<2>(left as i64, image.width());
    let rows = neighbours::<2>(top as i64, image.height());
    let mix = |a: f64, b: f64, share: f64| a + (b - a) * share;
    let pixels = rows.map(|y| columns.map(|x| image.get(x, y).map(f64::from)));
    std::array::from_fn(|channel| {
        let [upper, lower] = pixels.map(|row| mix(row[0][channel], row[1][channel], dx));
        mix(upper, lower, dy) as u8
    })
}

fn bicubic(image: &RgbImage, x: f64, y: f64) -> [u8; 3] {
    let (left, top) = (x.floor(), y.floor());
    let (dx, dy) = (x - left, y - top);
    let columns = neighbours::<4>(left as i64 - 1, image.width());
    let rows = neighbours::<4>(top as i64 - 1, image.height());
    let pixels = rows.map(|y| columns.map(|x| image.get(x, y).map(f64::from)));
    std::array::from_fn(|channel| {
        let rows = pixels.map(|row| cubic(row.map(|pixel| pixel[channel]), dx));
        cubic(rows, dy) as u8
    })
}

/// The cubic through four values with a = -1, at `d` between the second and the third.
fn cubic([a, b, c, d]: [f64; 4], at: f64) -> f64 {
    let p2 = -a + c;
    let p3 = 2.0 * (a - b) + c - d;
    let p4 = -a + b - c + d;
    b + at * (p2 + at * (p3 + at * p4))
}

/// Pillow steps through the nearest pixels in 16.16 fixed point, or in `f64` where that would overflow, or
/// where the axes stay apart.
fn nearest(image: &RgbImage, matrix: Matrix, fill: [u8; 3]) -> RgbImage {
    const ONE: f64 = 65_536.0;
    let [a, b, c, d, e, f] = matrix;
    let (width, height) = (f64::from(image.width()), f64::from(image.height()));
    let fits = |x: f64, y: f64| (x * a + y * b + c).abs() < 32_768.0 && (x * d + y * e + f).abs() < 32_768.0;
    let corners = [(0.0, 0.0), (width, height), (0.0, height), (width, 0.0)];
    let start = (c + a * 0.5 + b * 0.5, f + d * 0.5 + e * 0.5);
    if (b != 0.0 || d != 0.0) && corners.iter().all(|&(x, y)| fits(x, y)) {
        let fixed = |value: f64| (value * ONE + 0.5).floor() as i64;
        let [a, b, d, e] = [a, b, d, e].map(fixed);
        let (c, f) = (fixed(start.0), fixed(start.1));
        return RgbImage::from_fn(image.width(), image.height(), |x, y| {
            let (x, y) = (i64::from(x), i64::from(y));
            pick(image, (c + b * y + a * x) >> 16, (f + e * y + d * x) >> 16, fill)
        });
    }
    let floor = |value: f64| if value < 0.0 { -1 } else { value as i64 };
    let mut pixels = Vec::with_capacity(image.pixels().len());
    let mut row = start;
    for _ in 0..image.height() {
        let mut at = row;
        for _ in 0..image.width() {
            pixels.extend_from_slice(&pick(image, floor(at.0), floor(at.1), fill));
            at = (at.0 + a, at.1 + d);
        }
        row = (row.0 + b, row.1 + e);
    }
    RgbImage::from_pixels(image.width(), image.height(), pixels)
}

fn pick(image: &RgbImage, x: i64, y: i64, fill: [u8; 3]) -> [u8; 3] {
    let inside = (0..i64::from(image.width())).contains(&x) && (0..i64::from(image.height())).contains(&y);
    if inside { image.get(x as u32, y as u32) } else { fill }
}
