//! The gradient by windows.
//!
//! A matrix product whose long axis is the pixels. For each stretch of pixels, whose packed gradients fit the last cache:
//!
//! ```text
//! pack dY                          [block][tile of outputs][pixel][R]        all workers, then they meet
//! for each chunk of tiles, for each panel of W elements of the window:       whoever is free
//!     for each block of the stretch:
//!         pack X                   [pixel][W]                                stays in the first cache
//!         for each tile:           dW[panel][tile][R][W] += dY[tile]ᵀ X[panel]       in registers
//! ```
//!
//! For bf16 on a processor with tile registers, the pixels are packed as tiles and multiplied as they are (`amx.rs`).
//! Everywhere else bf16 is widened as it is packed: also with `vdpbf16ps`, whose pairs of pixels would need another packing
//! on both sides.
//!
//! Elements of a window that lie next to each other in memory (a row of taps with all channels) are one run, which is cut
//! into panels; so a stem of three channels fills its vectors too. Each sum has one owner and a fixed order: the result
//! does not depend on the number of threads.

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::tile::{Ask, Shape};
use super::{NAME, unpack};
use crate::conv::direct::window_runs;
use crate::conv::{ConvSpec, LARGEST};
use crate::{DType, Isa, KernelError, Level, Line};

/// Pixels of a block: a panel and a tile of them fit the first cache (16 and 6 KiB on AVX2, 16 KiB each
/// on AMX).
pub(super) const BLOCK: usize = 256;

/// Bytes of packed gradients of a stretch, and the most blocks of one. With more of them the workers meet less often.
const STRETCH: usize = 1 << 20;
pub(super) const BLOCKS: usize = 16;

/// Tiles of packed gradients that share the second cache with a panel: 6 KiB each on AVX2.
const CACHED_TILES: usize = 48;

/// Bytes behind a packed tile: vectors are written whole, and an odd number of lines from one tile to the next spreads
/// them over the sets of the cache.
const SLACK: usize = Line::BYTES;

/// What sums up the pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Product {
    /// Vectors of `f32`.
    Vectors,
    /// Tiles of bf16.
    #[cfg(target_arch = "x86_64")]
    Tiles,
}

impl Product {
    /// The fastest one.
    pub(super) fn of(dtype: DType, isa: Isa) -> Self {
        let tiles = dtype == DType::Bf16 && isa.level() == Level::Amx;
        match tiles {
            #[cfg(target_arch = "x86_64")]
            true => Self::Tiles,
            _ => Self::Vectors,
        }
    }

    /// Bytes of a packed number.
    fn bytes(self) -> usize {
        match self {
            Self::Vectors => size_of::<f32>(),
            #[cfg(target_arch = "x86_64")]
            Self::Tiles => DType::Bf16.bytes(),
        }
    }

    /// Pixels that are packed and multiplied together.
    pub(super) fn step(self) -> usize {
        match self {
            Self::Vectors => 1,
            #[cfg(target_arch = "x86_64")]
            Self::Tiles => amx::STEP,
        }
    }

    /// The most tiles of a chunk.
    fn cached_tiles(self) -> usize {
        match self {
            Self::Vectors => CACHED_TILES,
            #[cfg(target_arch = "x86_64")]
            Self::Tiles => amx::CACHED_TILES,
        }
    }
}

/// The way by windows.
#[derive(Debug)]
pub(super) struct ByWindows {
    pub(super) spec: ConvSpec,
    pub(super) isa: Isa,
    pub(super) product: Product,
    pub(super) shape: Shape,
    pub(super) panels: Vec<Panel>,
    /// Panels of the same input channels, which are written to the weight together.
    pub(super) sets: Vec<Vec<usize>>,
    /// Tiles of the outputs of one group.
    pub(super) tiles: usize,
    /// Parts of each stretch with sums of their own.
    pub(super) parts: usize,
}

/// Up to W neighbouring elements of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Panel {
    pub(super) group: usize,
    /// The first one, from the start of the window.
    pub(super) offset: usize,
    pub(super) width: usize,
    /// Its tap, and its channel among those of the group.
    pub(super) tap: [usize; 2],
    pub(super) channel: usize,
}

/// Where the parts of the scratch memory begin, in lines.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub(super) taken: usize,
    /// Where the windows of a stretch's pixels start.
    pub(super) starts: usize,
    pub(super) grads: usize,
    /// Each worker's memory: a panel and, `partial` lines behind its start, the sums of tile products.
    pub(super) panels: usize,
    pub(super) partial: usize,
    pub(super) worker: usize,
    pub(super) sums: usize,
    pub(super) end: usize,
}

impl ByWindows {
    /// For a description that was checked.
    ///
    /// # Errors
    ///
    /// A size is too large.
    pub(super) fn new(spec: &ConvSpec, isa: Isa, product: Product) -> Result<Self, KernelError> {
        let shape = match product {
            // SAFETY: this kernel promises nothing.
            Product::Vectors => unsafe { isa.call(Ask) },
            #[cfg(target_arch = "x86_64")]
            Product::Tiles => amx::shape(spec),
        };
        let panels = panels(spec, shape);
        let tiles = spec.group_outputs().div_ceil(shape.rows);
        let parts = match product {
            Product::Vectors => 1,
            #[cfg(target_arch = "x86_64")]
            Product::Tiles => amx::parts(panels.len() * tiles),
        };
        let sets = unpack::sets(&panels);
        let this = Self { spec: spec.clone(), isa, product, shape, sets, panels, tiles, parts };
        if this.layout(1).end >= LARGEST / Line::BYTES {
            return Err(KernelError::spec(NAME, "a size is too large"));
        }
        Ok(this)
    }

    /// Lines of scratch memory for `threads` workers.
    pub(super) fn scratch(&self, threads: usize) -> usize {
        self.layout(threads).end
    }

    pub(super) fn layout(&self, threads: usize) -> Layout {
        let pixels = self.blocks() * BLOCK;
        let (number, float) = (self.product.bytes(), size_of::<f32>());
        let starts = threads;
        let grads = starts + Line::count(pixels * size_of::<usize>());
        let panels = grads + Line::count(self.blocks() * self.grad_block() * number);
        let partial = Line::count(BLOCK * self.shape.width * number);
        let worker = match self.product {
            Product::Vectors => partial,
            #[cfg(target_arch = "x86_64")]
            Product::Tiles => {
                let tiles = self.tiles.min(self.product.cached_tiles());
                partial + Line::count(tiles * self.tile_sums() * float)
            }
        };
        let sums = panels + threads * worker;
        let end = sums + Line::count(self.parts * self.part_sums() * float);
        Layout { taken: 0, starts, grads, panels, partial, worker, sums, end }
    }

    /// The most blocks of a stretch.
    pub(super) fn blocks(&self) -> usize {
        (STRETCH / self.product.bytes() / self.grad_block()).clamp(1, BLOCKS)
    }

    /// Numbers of a block of packed gradients, and of one tile.
    pub(super) fn grad_block(&self) -> usize {
        self.spec.groups * self.tiles * self.grad_tile()
    }

    pub(super) fn grad_tile(&self) -> usize {
        BLOCK * self.shape.rows + SLACK / self.product.bytes()
    }

    /// Sums of one tile of a panel, of a panel, and of a part.
    pub(super) fn tile_sums(&self) -> usize {
        self.shape.rows * self.shape.width
    }

    pub(super) fn panel_sums(&self) -> usize {
        self.tiles * self.tile_sums()
    }

    pub(super) fn part_sums(&self) -> usize {
        self.panels.len() * self.panel_sums()
    }

    /// Into how many chunks the tiles are cut: enough items for the workers, each with tiles enough to be worth packing the
    /// panel, and no more than the second cache holds.
    pub(super) fn chunks(&self, threads: usize) -> usize {
        let items = self.panels.len() * self.parts;
        let shared = (4 * threads).div_ceil(items).min(self.tiles.div_ceil(4)).max(1);
        shared.max(self.tiles.div_ceil(self.product.cached_tiles()))
    }
}

/// Cuts a window into panels.
fn panels(spec: &ConvSpec, shape: Shape) -> Vec<Panel> {
    let (inputs, input) = (spec.group_inputs(), &spec.input);
    let mut panels = Vec::new();
    for group in 0..spec.groups {
        for (offset, len) in window_runs(spec) {
            let mut start = 0;
            while start < len {
                let (y, rest) = ((offset + start) / input.row(), (offset + start) % input.row());
                let (x, channel) = (rest / input.c, rest % input.c);
                let width = (len - start).min(shape.width);
                panels.push(Panel {
                    group,
                    offset: group * inputs + offset + start,
                    width,
                    tap: [y / spec.dilation[0], x / spec.dilation[1]],
                    channel,
                });
                start += width;
            }
        }
    }
    panels
}
