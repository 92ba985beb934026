//! Which source pixels make a target pixel, and in what shares.

use std::f64::consts::PI;
use std::ops::Range;

use super::{Axis, Interpolation};

/// Bits behind the point of a weight: 8 for a pixel and 2 for overshoot fit above them in an `i32`.
pub(super) const BITS: u32 = 32 - 8 - 2;

/// The weights of every target pixel along one axis.
pub(super) struct Weights {
    spans: Vec<Range<u32>>,
    /// The weights of all spans, one behind the other.
    values: Vec<i32>,
}

impl Weights {
    /// `axis.size` and `axis.target` are at least 1, and the part taken lies inside.
    pub(super) fn new(axis: &Axis, interpolation: Interpolation) -> Self {
        let scale = axis.len / f64::from(axis.target);
        let spread = scale.max(1.0);
        let (filter, support) = kernel(interpolation);
        let support = support * spread;
        let mut weights = Self { spans: Vec::with_capacity(axis.target as usize), values: Vec::new() };
        let mut shares: Vec<f64> = Vec::new();
        for target in 0..axis.target {
            let center = axis.from + (f64::from(target) + 0.5) * scale;
            // `as` truncates and stops at 0, as Pillow's cast and clamp do.
            let first = (center - support + 0.5) as u32;
            let last = ((center + support + 0.5) as u32).min(axis.size);
            shares.clear();
            shares.extend((first..last).map(|x| filter((f64::from(x) - center + 0.5) * (1.0 / spread))));
            let sum: f64 = shares.iter().sum();
            let sum = if sum == 0.0 { 1.0 } else { sum };
            weights.values.extend(shares.iter().map(|share| fixed_point(share / sum)));
            weights.spans.push(first.min(last)..last);
        }
        weights
    }

    /// How many target pixels there are.
    pub(super) fn len(&self) -> u32 {
        self.spans.len() as u32
    }

    /// Per target pixel: the first source pixel, and the weights from there on.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let mut rest = self.values.as_slice();
        self.spans.iter().map(move |span| {
            let (own, others) = rest.split_at(span.len());
            rest = others;
            (span.start as usize, own)
        })
    }

    /// The most weights that a target pixel has.
    pub(super) fn most(&self) -> usize {
        self.spans.iter().map(ExactSizeIterator::len).max().unwrap_or(0)
    }

    /// As [`Weights::iter`], with zeros added so that every target pixel has `K` weights; `None` if one has
    /// more, or the source has fewer than `K` pixels.
    pub(super) fn padded<const K: usize>(&self, source: usize) -> Option<Vec<(usize, [i32; K])>> {
        let last = source.checked_sub(K)?;
        let pad = |(start, weights): (usize, &[i32])| {
            let first = start.min(last);
            let mut padded = [0; K];
            padded.get_mut(start - first..)?.get_mut(..weights.len())?.copy_from_slice(weights);
            Some((first, padded))
        };
        self.iter().map(pad).collect()
    }

    /// The source pixels in use; from now on they are counted from the first of these.
    pub(super) fn rebase(&mut self) -> Range<u32> {
        let start = self.spans.iter().map(|span| span.start).min().unwrap_or(0);
        let end = self.spans.iter().map(|span| span.end).max().unwrap_or(0);
        for span in &mut self.spans {
            *span = span.start - start..span.end - start;
        }
        start..end
    }
}

fn fixed_point(weight: f64) -> i32 {
    let scaled = weight * f64::from(1 << BITS);
    (if scaled < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
}

/// A filter and its support.
fn kernel(interpolation: Interpolation) -> (fn(f64) -> f64, f64) {
    match interpolation {
        Interpolation::Nearest => (|_| 1.0, 0.5),
        Interpolation::Bilinear => (triangle, 1.0),
        Interpolation::Bicubic => (cubic, 2.0),
        Interpolation::Lanczos => (lanczos, 3.0),
    }
}

fn triangle(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

/// Keys' cubic.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    match x.abs() {
        x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
        _ => 0.0,
    }
}

fn lanczos(x: f64) -> f64 {
    if (-3.0..3.0).contains(&x) { sinc(x) * sinc(x / 3.0) } else { 0.0 }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) }
}
