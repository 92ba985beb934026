//! Linear operators: what each output reads, and with which weight.

use super::{View, indices, map, place};
use crate::graph::{Conv2d, Padding, Window};
use std::ops::Range;

/// A linear function of a map whose weights are fixed.
#[derive(Clone, Copy)]
pub(super) enum Linear<'a> {
    /// Means over windows, and whether padding counts.
    AvgPool(&'a Window, bool),
    /// The means over all pixels of so many splits, summed.
    Means(usize),
    /// A 3x3 binomial filter with stride 2 and reflected border.
    Blur,
    /// Blocks of so many rows and columns to channels.
    Blocks(usize),
    /// Zeros around the map.
    Pad(Padding),
    /// Channels from this one.
    Slice(usize),
}

impl Linear<'_> {
    /// `y = A x`
    pub(super) fn apply(self, x: View<'_>, shape: &[usize]) -> Vec<f64> {
        let mut y = vec![0.0; shape.iter().product()];
        self.taps(map(x.shape), map(shape), |from, to, weight| y[to] += weight * x.data[from]);
        y
    }

    /// `dx = Aᵀ dy`
    pub(super) fn transpose(self, dy: View<'_>, shape: &[usize]) -> Vec<f64> {
        let mut dx = vec![0.0; shape.iter().product()];
        self.taps(map(shape), map(dy.shape), |from, to, weight| dx[from] += weight * dy.data[to]);
        dx
    }

    /// Calls `tap` with a place in `x`, a place in `y` and the weight between them, for each pair that has one.
    fn taps(self, x: [usize; 4], y: [usize; 4], mut tap: impl FnMut(usize, usize, f64)) {
        let [_, channels, h, w] = x;
        for (to, [n, k, row, column]) in indices(y).enumerate() {
            let mut read = |k: usize, row: usize, column: usize, weight: f64| {
                tap(place(x, [n, k, row, column]), to, weight);
            };
            match self {
                Self::AvgPool(window, count_padding) => {
                    let inside = window_taps(window, [h, w], [row, column]).flatten().count();
                    let all = window_taps(window, [h, w], [row, column]).count();
                    let weight = 1.0 / if count_padding { all } else { inside } as f64;
                    window_taps(window, [h, w], [row, column])
                        .flatten()
                        .for_each(|[row, column]| read(k, row, column, weight));
                }
                Self::Means(radix) => {
                    for [_, r, row, column] in indices([1, radix, h, w]) {
                        read(r * (channels / radix) + k, row, column, 1.0 / (h * w) as f64);
                    }
                }
                Self::Blur => {
                    for [_, _, i, j] in indices([1, 1, 3, 3]) {
                        let weight = [1.0, 2.0, 1.0][i] * [1.0, 2.0, 1.0][j] / 16.0;
                        read(k, reflected(2 * row + i, h), reflected(2 * column + j, w), weight);
                    }
                }
                Self::Blocks(block) => {
                    let (offset, k) = (k / channels, k % channels);
                    read(k, row * block + offset / block, column * block + offset % block, 1.0);
                }
                Self::Pad([top, left, ..]) => {
                    if let (Some(row), Some(column)) = (inside(row, top, h), inside(column, left, w)) {
                        read(k, row, column, 1.0);
                    }
                }
                Self::Slice(start) => read(start + k, row, column, 1.0),
            }
        }
    }
}

/// A position that is counted from the padding's start, in the map; none if it is in the padding.
fn inside(position: usize, before: usize, size: usize) -> Option<usize> {
    position.checked_sub(before).filter(|&position| position < size)
}

/// Counted from a border of one: position -1 is pixel 1, and position `size` is pixel `size - 2`.
fn reflected(position: usize, size: usize) -> usize {
    match position {
        0 => 1,
        p if p == size + 1 => size - 2,
        p => p - 1,
    }
}

/// The taps of a window, row by row, without those that stick out of the padding: row and column, or none in the padding.
fn window_taps(
    window: &Window,
    [h, w]: [usize; 2],
    [row, column]: [usize; 2],
) -> impl Iterator<Item = Option<[usize; 2]>> {
    let Window { kernel: [kh, kw], stride: [sy, sx], padding, dilation: [dy, dx], .. } = *window;
    let [top, left, bottom, right] = padding;
    (0..kh * kw)
        .map(move |tap| [row * sy + tap / kw * dy, column * sx + tap % kw * dx])
        .filter(move |[y, x]| *y < top + h + bottom && *x < left + w + right)
        .map(move |[y, x]| Some([inside(y, top, h)?, inside(x, left, w)?]))
}

/// For each window the place in `x` of its first maximum; none if all of it lies in the padding.
pub(super) fn maxima(window: &Window, x: View<'_>, shape: &[usize]) -> Vec<Option<usize>> {
    let sizes = map(x.shape);
    let [_, _, h, w] = sizes;
    let first = |[n, k, row, column]: [usize; 4]| {
        let taps = window_taps(window, [h, w], [row, column]).flatten();
        taps.map(|[row, column]| place(sizes, [n, k, row, column]))
            .reduce(|best, place| if x.data[place] > x.data[best] { place } else { best })
    };
    indices(map(shape)).map(first).collect()
}

/// The products of a convolution along a row of its output: one tap, and every `stride`th number of the input.
pub(super) struct Row {
    /// The first place in `x`.
    pub(super) from: usize,
    pub(super) stride: usize,
    /// The place in `weight`.
    pub(super) tap: usize,
    /// The places in `y`.
    pub(super) to: Range<usize>,
}

/// Calls `products` with all products of a convolution whose `x`, `weight` and `y` have these sizes.
pub(super) fn conv(conv: &Conv2d, [x, weight, y]: [[usize; 4]; 3], mut products: impl FnMut(Row)) {
    let [_, _, h, w] = x;
    let [_, inputs, kh, kw] = weight;
    let [n, outputs, oh, ow] = y;
    let ([sy, stride], [dy, dx], [top, left, ..]) = (conv.stride, conv.dilation, conv.padding);
    for (image, output) in (0..n).flat_map(|image| (0..outputs).map(move |output| (image, output))) {
        let first = output / (outputs / conv.groups) * inputs;
        for [_, input, ky, kx] in indices([1, inputs, kh, kw]) {
            let tap = place(weight, [output, input, ky, kx]);
            let mut columns = (0..ow).filter(|ox| inside(ox * stride + kx * dx, left, w).is_some());
            let Some(start) = columns.next() else { continue };
            let count = 1 + columns.count();
            for oy in 0..oh {
                let Some(iy) = inside(oy * sy + ky * dy, top, h) else { continue };
                let from = place(x, [image, first + input, iy, start * stride + kx * dx - left]);
                let to = place(y, [image, output, oy, start]);
                products(Row { from, stride, tap, to: to..to + count });
            }
        }
    }
}
