//! How tiles of pixels walk over a map.
//!
//! A tile's rows must lie equally far apart, and a tile costs the same with 16 rows as with 7. So the pixels of an
//! output are seen as lines of equal spacing, cut into as few tiles as possible: each row of the output is a line;
//! or all rows of an image are one, where the pixels between one row's end and the next row's start are computed and
//! dropped; or all images are. Where that is still too wasteful, a small input is copied first: images interleaved
//! pixel by pixel, and strided pixels brought together.

use super::steps::Place;
use crate::{ConvSpec, Map};
use std::ops::Range;

/// Rows of a tile register.
pub(super) const ROWS: usize = 16;

/// Where the windows of a part of the output begin, in elements, and how taps move on from there.
///
/// An axis is seen as `period` phases: position `p` is `p % period` phases and `p / period` whole steps away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    /// The window of the part's first output.
    origin: usize,
    /// From image to image (with `images == 1`).
    image: usize,
    period: [usize; 2],
    phase: [usize; 2],
    whole: [usize; 2],
    /// Images that are interleaved.
    pub(super) images: usize,
}

impl View {
    /// The input as it lies.
    pub(super) fn direct(spec: &ConvSpec, first_row: usize) -> Self {
        let (input, [y, x]) = (&spec.input, spec.stride);
        let top = (first_row * y) as isize - spec.padding[0] as isize;
        Self {
            origin: input.at(top, -(spec.padding[1] as isize)),
            image: input.image(),
            period: [y, x],
            phase: [input.row(), input.c],
            whole: [y * input.row(), x * input.c],
            images: 1,
        }
    }

    /// Elements from one pixel of a line to the next.
    pub(super) fn spacing(&self) -> usize {
        self.whole[1] / self.images
    }

    /// From the window's first number to this one.
    pub(super) fn offset(&self, spec: &ConvSpec, place: Place) -> usize {
        let axis = |axis: usize| {
            let position = place.tap[axis] * spec.dilation[axis];
            position % self.period[axis] * self.phase[axis] + position / self.period[axis] * self.whole[axis]
        };
        axis(0) + axis(1) + place.channel
    }
}

/// A copy of the input of some rows of the output: `[phase y][phase x][y][x][image][channel]`.
#[derive(Clone, Debug)]
pub(super) struct Copied {
    stride: [usize; 2],
    period: [usize; 2],
    /// Rows and columns that are copied.
    size: [usize; 2],
    /// Rows and columns of one phase.
    cells: [usize; 2],
    images: usize,
    /// Elements of a pixel.
    pixel: usize,
    /// The first row and column that are copied, relative to the image.
    first: [isize; 2],
}

impl Copied {
    pub(super) fn new(spec: &ConvSpec, rows: &Range<usize>, images: usize) -> Self {
        let extent = |axis: usize| (spec.kernel[axis] - 1) * spec.dilation[axis] + 1;
        // Of a window smaller than its stride, the rows between are left out.
        let period = [0, 1].map(|axis| spec.stride[axis].min(extent(axis)));
        let outputs = [rows.len(), spec.output.w];
        let size = [0, 1].map(|axis| (outputs[axis] - 1) * period[axis] + extent(axis));
        // Neighbouring pixels a multiple of 512 bytes apart would crowd a few sets of the cache.
        let pixel = spec.input.c + if spec.input.c.is_multiple_of(256) { 32 } else { 0 };
        Self {
            stride: spec.stride,
            period,
            size,
            cells: [0, 1].map(|axis| size[axis].div_ceil(period[axis])),
            images,
            pixel,
            first: [
                (rows.start * spec.stride[0]) as isize - spec.padding[0] as isize,
                -(spec.padding[1] as isize),
            ],
        }
    }

    /// Elements of the copy.
    pub(super) fn len(&self) -> usize {
        self.period[0] * self.period[1] * self.cells[0] * self.cells[1] * self.images * self.pixel
    }

    pub(super) fn view(&self) -> View {
        let cell = self.images * self.pixel;
        let plane = self.cells[0] * self.cells[1] * cell;
        View {
            origin: 0,
            image: 0,
            period: self.period,
            phase: [self.period[1] * plane, plane],
            whole: [self.cells[1] * cell, cell],
            images: self.images,
        }
    }

    /// Rows to copy, of all images one after the other.
    pub(super) fn rows(&self) -> usize {
        self.images * self.size[0]
    }

    /// Calls `copy(from, to)` with the elements where each pixel of one row begins.
    pub(super) fn each_pixel(&self, input: &Map, row: usize, mut copy: impl FnMut(usize, usize)) {
        let (image, y) = (row / self.size[0], row % self.size[0]);
        let view = self.view();
        let source = |axis: usize, position: usize| {
            let (whole, phase) = (position / self.period[axis], position % self.period[axis]);
            self.first[axis] + (whole * self.stride[axis] + phase) as isize
        };
        let target = |axis: usize, position: usize| {
            position % self.period[axis] * view.phase[axis] + position / self.period[axis] * view.whole[axis]
        };
        for x in 0..self.size[1] {
            let from = image * input.image() + input.at(source(0, y), source(1, x));
            copy(from, target(0, y) + target(1, x) + image * self.pixel);
        }
    }
}

/// Tiles over lines of equally spaced pixels.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    pub(super) view: View,
    /// Elements from one pixel to the next.
    pub(super) spacing: usize,
    /// Pixels of an output row (of all interleaved images), and from one row's start to the next within a line.
    pub(super) width: usize,
    pub(super) pitch: usize,
    /// Output rows of an image, and of a line.
    pub(super) rows: usize,
    line_rows: usize,
    /// Pixels of a line.
    length: usize,
    /// Rows of a tile, tiles of a line, and all tiles.
    pub(super) tile: usize,
    line_tiles: usize,
    pub(super) tiles: usize,
}

/// A tile: where its windows begin, and which outputs they belong to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spot {
    /// The first window, in elements.
    pub(super) window: usize,
    /// Which tile of its line it is.
    index: usize,
    /// Rows that an earlier tile has computed already: a line's last tile ends with the line.
    pub(super) skip: usize,
    /// The first row's output after those: image, row, and pixel of the row.
    pub(super) at: At,
}

/// An output among those that a walk visits. A pixel from [`Walk::width`] on belongs to no row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct At {
    pub(super) image: usize,
    pub(super) y: usize,
    pub(super) pixel: usize,
}

impl At {
    /// To the next row's start.
    #[inline(always)]
    pub(super) fn next_row(&mut self, rows: usize) {
        self.pixel = 0;
        self.y += 1;
        if self.y == rows {
            self.y = 0;
            self.image += 1;
        }
    }
}

impl Walk {
    /// The walk with the fewest tiles over `rows` rows of `columns` pixels of each image.
    pub(super) fn new(view: View, rows: usize, columns: usize, images: usize) -> Self {
        let images = if view.images > 1 { 1 } else { images };
        let width = columns * view.images;
        let by_rows = Self::with_lines(view.clone(), [rows, images], width, width, 1);
        let pitch = view.whole[0] / view.spacing();
        if !view.whole[0].is_multiple_of(view.spacing()) || pitch < width {
            return by_rows;
        }
        let touching = images > 1 && view.image == rows * view.whole[0];
        let line_rows = if touching { rows * images } else { rows };
        let flat = Self::with_lines(view, [rows, images], width, pitch, line_rows);
        if flat.tiles < by_rows.tiles { flat } else { by_rows }
    }

    fn with_lines(
        view: View,
        [rows, images]: [usize; 2],
        width: usize,
        pitch: usize,
        line_rows: usize,
    ) -> Self {
        let length = (line_rows - 1) * pitch + width;
        let line_tiles = length.div_ceil(ROWS);
        let tiles = rows * images / line_rows * line_tiles;
        let tile = length.div_ceil(line_tiles);
        let spacing = view.spacing();
        Self { view, spacing, width, pitch, rows, line_rows, length, tile, line_tiles, tiles }
    }

    /// Tile number `tile`.
    pub(super) fn spot(&self, tile: usize) -> Spot {
        let (line, index) = (tile / self.line_tiles, tile % self.line_tiles);
        let start = (index * self.tile).min(self.length - self.tile);
        let skip = index * self.tile - start;
        let row = line * self.line_rows;
        let window = self.view.origin
            + row / self.rows * self.view.image
            + row % self.rows * self.view.whole[0]
            + start * self.spacing;
        Spot { window, index, skip, at: self.at(row, start + skip) }
    }

    /// Tile number `tile`, the one after `previous`: mostly without divisions.
    #[inline(always)]
    pub(super) fn spot_after(&self, previous: &Spot, tile: usize) -> Spot {
        if previous.index + 2 >= self.line_tiles {
            return self.spot(tile);
        }
        let mut spot = Spot { index: previous.index + 1, ..*previous };
        spot.window += self.tile * self.spacing;
        spot.at.pixel += self.tile;
        while spot.at.pixel >= self.pitch {
            let pixel = spot.at.pixel - self.pitch;
            spot.at.next_row(self.rows);
            spot.at.pixel = pixel;
        }
        spot
    }

    /// The images that tiles from `tiles.start` to before `tiles.end` belong to: the first and the last.
    pub(super) fn images(&self, tiles: &Range<usize>) -> [usize; 2] {
        let last = tiles.end - 1;
        let (line, index) = (last / self.line_tiles, last % self.line_tiles);
        let end = ((index + 1) * self.tile).min(self.length);
        [self.spot(tiles.start).at.image, self.at(line * self.line_rows, end - 1).image]
    }

    fn at(&self, row: usize, pixel: usize) -> At {
        let row = row + pixel / self.pitch;
        At { image: row / self.rows, y: row % self.rows, pixel: pixel % self.pitch }
    }
}
