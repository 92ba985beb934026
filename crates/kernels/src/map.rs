//! How a batch of feature maps lies in memory.

/// Rows and columns of extra pixels around a map, so that a convolution reads its padding like any pixel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Halo {
    /// Rows above.
    pub top: usize,
    /// Columns to the left.
    pub left: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns to the right.
    pub right: usize,
}

impl Halo {
    /// `size` pixels on every side.
    #[must_use]
    pub fn even(size: usize) -> Self {
        Self { top: size, left: size, bottom: size, right: size }
    }

    /// The smallest halo that holds both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self {
            top: self.top.max(other.top),
            left: self.left.max(other.left),
            bottom: self.bottom.max(other.bottom),
            right: self.right.max(other.right),
        }
    }
}

/// The geometry of one image's feature map: channels last, rows of pixels, with a halo.
///
/// The number at row `y`, column `x` and channel `k` is element
/// `((top + y) * (left + w + right) + left + x) * c + k` of its image, and images follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Map {
    /// Rows, without the halo.
    pub h: usize,
    /// Columns, without the halo.
    pub w: usize,
    /// Channels.
    pub c: usize,
    /// Pixels around it.
    pub halo: Halo,
}

impl Map {
    /// A map without a halo.
    #[must_use]
    pub fn new(h: usize, w: usize, c: usize) -> Self {
        Self { h, w, c, halo: Halo::default() }
    }

    /// The same map with `halo` around it.
    #[must_use]
    pub fn with_halo(self, halo: Halo) -> Self {
        Self { halo, ..self }
    }

    /// Elements from one row to the next.
    #[must_use]
    pub fn row(&self) -> usize {
        (self.halo.left + self.w + self.halo.right) * self.c
    }

    /// Elements of one image, halo included.
    #[must_use]
    pub fn image(&self) -> usize {
        (self.halo.top + self.h + self.halo.bottom) * self.row()
    }

    /// The element at row `y`, column `x`, channel 0 of an image; coordinates may lie in the halo.
    #[must_use]
    pub fn at(&self, y: isize, x: isize) -> usize {
        let (y, x) = (y + self.halo.top as isize, x + self.halo.left as isize);
        debug_assert!(y >= 0 && x >= 0, "the coordinates lie outside the halo");
        y as usize * self.row() + x as usize * self.c
    }
}

/// The part of a step that one call computes: the first `images` images, and of each these rows of the output.
///
/// A runtime that goes through several layers band by band calls with one range of rows after the other, from the top
/// down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Images, from the first.
    pub images: usize,
    /// Rows of the output.
    pub rows: std::ops::Range<usize>,
}

impl Part {
    /// All `h` rows of `images` images.
    #[must_use]
    pub fn whole(images: usize, h: usize) -> Self {
        Self { images, rows: 0..h }
    }
}
