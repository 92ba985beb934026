//! The gradient of a convolution's weight: `dW[o][i][tap] = sum over pixels of dY[pixel][o] * X[window + tap][i]`.
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
//! Elements of a window that lie next to each other in memory (a row of taps with all channels) are one run, which is cut
//! into panels; so a stem of three channels fills its vectors too. Each sum has one owner and a fixed order: the result
//! does not depend on the number of threads. bf16 is widened as it is packed.
//!
//! The input may be what came before a norm and its activation, which are then computed again as it is packed.

mod tile;
mod unpack;
mod work;

use super::direct::window_runs;
use super::taken::Taken;
use super::{ConvSpec, LARGEST};
use crate::error::at_least;
use crate::work::{In, Out};
use crate::{Element, Isa, KernelError, Line, Pool, as_f32_mut, share};
use std::ops::Range;
use tile::{Ask, Shape};
use work::{Items, PackGrads};

const NAME: &str = "weight gradient";

/// Pixels of a block: a panel and a tile of them fit the first cache (16 and 6 KiB on AVX2).
const BLOCK: usize = 256;

/// Bytes of packed gradients of a stretch, and the most blocks of one. With more of them the workers meet less often.
const STRETCH: usize = 1 << 20;
const BLOCKS: usize = 16;

/// Tiles of packed gradients that share the second cache with a panel: 6 KiB each on AVX2.
const CACHED_TILES: usize = 48;

/// Numbers behind a packed tile: vectors are written whole, and an odd number of lines from one tile to the next spreads
/// them over the sets of the cache.
const SLACK: usize = 16;

/// The gradient of a convolution's weight.
#[derive(Debug)]
pub struct WeightGrad {
    spec: ConvSpec,
    isa: Isa,
    shape: Shape,
    panels: Vec<Panel>,
    /// Panels of the same input channels, which are written to the weight together.
    sets: Vec<Vec<usize>>,
    /// Tiles of the outputs of one group.
    tiles: usize,
    /// The slope of the activation that the input is read through.
    norm: Option<f32>,
}

/// Up to W neighbouring elements of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Panel {
    group: usize,
    /// The first one, from the start of the window.
    offset: usize,
    width: usize,
    /// Its tap, and its channel among those of the group.
    tap: [usize; 2],
    channel: usize,
}

/// The memory of one call.
#[derive(Debug)]
pub struct WeightGradIo<'a, T> {
    /// The input images of the forward pass, or what they were before the norm.
    pub input: &'a [T],
    /// The gradient of the output; its halo is not read.
    pub grad: &'a [T],
    /// The gradient of the weight, `[outputs, inputs / groups, rows, columns]`, which is overwritten.
    pub weight: &'a mut [f32],
    /// Memory for intermediate results.
    pub scratch: &'a mut [Line],
}

/// Where the parts of the scratch memory begin, in lines.
#[derive(Clone, Copy)]
struct Layout {
    taken: usize,
    /// Where the windows of a stretch's pixels start, and their places in the map.
    starts: usize,
    places: usize,
    grads: usize,
    /// Each worker's panel.
    panels: usize,
    panel: usize,
    sums: usize,
    end: usize,
}

impl WeightGrad {
    /// For the convolution `spec`, whose epilogue does not matter: its gradient is taken before this.
    ///
    /// # Errors
    ///
    /// The description is inconsistent.
    pub fn new(spec: &ConvSpec, isa: Isa) -> Result<Self, KernelError> {
        spec.check()?;
        Self::build(spec, isa, None)
    }

    /// The same with an input `z` of which the convolution read `leaky(z * scale + shift)` (slope 1 is no activation, 0
    /// ReLU; the padding stays zero, whatever the halo of `z` holds). So what a norm's activation gave need not be kept.
    ///
    /// # Errors
    ///
    /// The slope is not from 0 to 1.
    pub fn with_input_norm(self, slope: f32) -> Result<Self, KernelError> {
        if !(0.0..=1.0).contains(&slope) {
            return Err(KernelError::spec(NAME, format!("a slope of {slope}, not from 0 to 1")));
        }
        Self::build(&self.spec, self.isa, Some(slope))
    }

    fn build(spec: &ConvSpec, isa: Isa, norm: Option<f32>) -> Result<Self, KernelError> {
        // SAFETY: this kernel promises nothing.
        let shape = unsafe { isa.call(Ask) };
        let panels = panels(spec, shape, norm.is_some());
        let tiles = spec.group_outputs().div_ceil(shape.rows);
        let this = Self { spec: spec.clone(), isa, shape, sets: unpack::sets(&panels), panels, tiles, norm };
        if this.layout(1).end >= LARGEST / Line::BYTES {
            return Err(KernelError::spec(NAME, "a size is too large"));
        }
        Ok(this)
    }

    /// Lines of scratch memory for `threads` workers.
    #[must_use]
    pub fn scratch(&self, threads: usize) -> usize {
        self.layout(threads).end
    }

    /// Multiply-adds for one image.
    #[must_use]
    pub fn macs(&self) -> usize {
        self.spec.macs()
    }

    fn layout(&self, threads: usize) -> Layout {
        let floats = |count: usize| Line::count(count * size_of::<f32>());
        let pixels = self.blocks() * BLOCK;
        let starts = threads;
        let places = starts + Line::count(pixels * size_of::<usize>());
        let grads = places + Line::count(pixels * size_of::<[i32; 2]>());
        let panels = grads + floats(self.blocks() * self.grad_block());
        let panel = floats(BLOCK * self.shape.width);
        let sums = panels + threads * panel;
        let end = sums + floats(self.panels.len() * self.panel_sums());
        Layout { taken: 0, starts, places, grads, panels, panel, sums, end }
    }

    /// The most blocks of a stretch.
    fn blocks(&self) -> usize {
        (STRETCH / size_of::<f32>() / self.grad_block()).clamp(1, BLOCKS)
    }

    /// Numbers of a block of packed gradients, and of one tile.
    fn grad_block(&self) -> usize {
        self.spec.groups * self.tiles * self.grad_tile()
    }

    fn grad_tile(&self) -> usize {
        BLOCK * self.shape.rows + SLACK
    }

    /// Sums of one panel.
    fn panel_sums(&self) -> usize {
        self.tiles * self.shape.rows * self.shape.width
    }

    /// Computes the gradient from `images` images.
    ///
    /// # Errors
    ///
    /// A slice is too short, or the kernel was built for a norm.
    pub fn run<T: Element>(
        &self,
        pool: &Pool,
        images: usize,
        io: WeightGradIo<'_, T>,
    ) -> Result<(), KernelError> {
        if self.norm.is_some() {
            return Err(KernelError::spec(NAME, "the norm's scale and shift are missing"));
        }
        self.gradient(pool, images, [&[]; 2], io)
    }

    /// The same through a norm with this scale and shift, one number for each input channel.
    ///
    /// # Errors
    ///
    /// A slice is too short, or the kernel was built without a norm.
    pub fn run_with_norm<T: Element>(
        &self,
        pool: &Pool,
        images: usize,
        norm: [&[f32]; 2],
        io: WeightGradIo<'_, T>,
    ) -> Result<(), KernelError> {
        if self.norm.is_none() {
            return Err(KernelError::spec(NAME, "built without a norm"));
        }
        for (operand, values) in ["scale", "shift"].into_iter().zip(norm) {
            at_least(NAME, operand, values.len(), self.spec.input.c)?;
        }
        self.gradient(pool, images, norm, io)
    }

    /// Either of them; the norm's numbers were checked.
    fn gradient<T: Element>(
        &self,
        pool: &Pool,
        images: usize,
        norm: [&[f32]; 2],
        io: WeightGradIo<'_, T>,
    ) -> Result<(), KernelError> {
        let WeightGradIo { input, grad, weight, scratch } = io;
        let threads = pool.threads();
        at_least(NAME, "input", input.len(), images.saturating_mul(self.spec.input.image()))?;
        at_least(NAME, "gradient", grad.len(), images.saturating_mul(self.spec.output.image()))?;
        at_least(NAME, "weight", weight.len(), self.spec.weights())?;
        at_least(NAME, "scratch", scratch.len(), self.scratch(threads))?;
        let layout = self.layout(threads);
        let pixels = images * self.spec.output.h * self.spec.output.w;
        if pixels == 0 {
            weight[..self.spec.weights()].fill(0.0);
            return Ok(());
        }
        let (norm, input, grad) = (norm.map(In::new), In::new(input), In::new(grad));
        let base = Out::new(scratch);
        let stretches = pixels.div_ceil(self.blocks() * BLOCK);
        for index in 0..stretches {
            let stretch = Stretch::new(share(pixels, stretches, index));
            pool.run(|worker| {
                let own = share(stretch.len(), threads, worker);
                // SAFETY: the slices were checked to hold every pixel, and each worker packs its own pixels.
                unsafe {
                    self.isa.call(PackGrads {
                        plan: self,
                        stretch: &stretch,
                        own,
                        grad: grad.at(0),
                        starts: base.at(layout.starts).cast(),
                        places: base.at(layout.places).cast(),
                        to: base.at(layout.grads).cast(),
                    });
                }
            });
            // SAFETY: there is a line for each worker.
            let taken = unsafe { Taken::new(base.at(layout.taken), threads) };
            let chunks = self.chunks(threads);
            pool.run(|worker| {
                for owner in (0..threads).map(|step| (worker + step) % threads) {
                    // SAFETY: the slices were checked to hold every window, and each item has its own sums.
                    unsafe {
                        self.isa.call(Items {
                            plan: self,
                            stretch: &stretch,
                            chunks,
                            own: share(self.panels.len() * chunks, threads, owner),
                            taken: (taken, owner),
                            input: input.at(0),
                            norm: norm.map(|values| values.at(0)),
                            starts: base.at(layout.starts).cast(),
                            places: base.at(layout.places).cast(),
                            grads: base.at(layout.grads).cast(),
                            panel: base.at(layout.panels + worker * layout.panel).cast(),
                            sums: base.at(layout.sums).cast(),
                            add: index > 0,
                        });
                    }
                }
            });
        }
        self.unpack(pool, as_f32_mut(&mut scratch[layout.sums..layout.end]), weight);
        Ok(())
    }

    /// Into how many chunks the tiles are cut: enough items for the workers, each with tiles enough to be worth packing the
    /// panel, and no more than the second cache holds.
    fn chunks(&self, threads: usize) -> usize {
        let shared = (4 * threads).div_ceil(self.panels.len()).min(self.tiles.div_ceil(4)).max(1);
        shared.max(self.tiles.div_ceil(CACHED_TILES))
    }
}

/// The pixels between two meetings of the workers, in blocks of equal size.
struct Stretch {
    pixels: Range<usize>,
    blocks: usize,
}

impl Stretch {
    fn new(pixels: Range<usize>) -> Self {
        let blocks = pixels.len().div_ceil(BLOCK);
        Self { pixels, blocks }
    }

    fn len(&self) -> usize {
        self.pixels.len()
    }

    /// The pixels of a block, from the stretch's first one.
    fn block(&self, block: usize) -> Range<usize> {
        share(self.len(), self.blocks, block)
    }
}

/// Cuts a window into panels; `within_taps` if none may hold elements of two taps.
fn panels(spec: &ConvSpec, shape: Shape, within_taps: bool) -> Vec<Panel> {
    let (inputs, input) = (spec.group_inputs(), &spec.input);
    let mut panels = Vec::new();
    for group in 0..spec.groups {
        for (offset, len) in window_runs(spec) {
            let mut start = 0;
            while start < len {
                let (y, rest) = ((offset + start) / input.row(), (offset + start) % input.row());
                let (x, channel) = (rest / input.c, rest % input.c);
                let most = if within_taps { inputs - channel } else { len - start };
                let width = most.min(len - start).min(shape.width);
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
