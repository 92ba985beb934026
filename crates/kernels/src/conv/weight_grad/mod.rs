//! The gradient of a convolution's weight: `dW[o][i][tap] = sum over pixels of dY[pixel][o] * X[window + tap][i]`.
//!
//! A matrix product whose long axis is the pixels. For each block of pixels:
//!
//! ```text
//! pack dY                      [tile of outputs][pixel][R]                   all workers, then they meet
//! for each panel of W elements of the window, for each chunk of tiles:       whoever is free
//!     pack X                   [pixel][W]                                    stays in the first cache
//!     for each tile:           dW[panel][tile][R][W] += dY[tile]ᵀ X[panel]   in registers
//! ```
//!
//! Elements of a window that lie next to each other in memory (a row of taps with all channels) are one run, which is cut
//! into panels; so a stem of three channels fills its vectors too. Each sum has one owner and a fixed order: the result
//! does not depend on the number of threads. bf16 is widened as it is packed.

mod tile;
mod work;

use super::direct::window_runs;
use super::taken::Taken;
use super::{ConvSpec, LARGEST};
use crate::error::at_least;
use crate::work::Out;
use crate::{Element, Isa, KernelError, Line, Pool, as_f32_mut, share};
use tile::{Ask, Shape};
use work::{Items, PackGrads};

const NAME: &str = "weight gradient";

/// Pixels of a block: a panel and a tile of them fit the first cache (16 and 6 KiB on AVX2).
const BLOCK: usize = 256;

/// Blocks whose gradients are packed at once, at most: workers meet once for all of them.
const MOST_BLOCKS: usize = 8;

/// Bytes of packed gradients that are worth more than one block.
const PACKED: usize = 1 << 20;

/// Elements of a panel, at most.
const MOST_WIDTH: usize = 32;

/// Tiles of packed gradients that share the second cache with a panel: 6 KiB each on AVX2.
const CACHED_TILES: usize = 48;

/// The gradient of a convolution's weight.
#[derive(Debug)]
pub struct WeightGrad {
    spec: ConvSpec,
    isa: Isa,
    shape: Shape,
    panels: Vec<Panel>,
    /// Tiles of the outputs of one group.
    tiles: usize,
    /// Pixels whose gradients are packed at once.
    span: usize,
}

/// Up to W neighbouring elements of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Panel {
    group: usize,
    /// The first one, from the start of the window.
    offset: usize,
    width: usize,
}

/// The memory of one call.
#[derive(Debug)]
pub struct WeightGradIo<'a, T> {
    /// The input images of the forward pass.
    pub input: &'a [T],
    /// The gradient of the output; its halo is not read.
    pub grad: &'a [T],
    /// The gradient of the weight, `[outputs, inputs / groups, rows, columns]`, which is overwritten.
    pub weight: &'a mut [f32],
    /// Memory for intermediate results.
    pub scratch: &'a mut [Line],
}

/// Where the parts of the scratch memory begin, in lines.
struct Layout {
    taken: usize,
    /// Where the windows and the gradients of a block's pixels start.
    starts: usize,
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
        // SAFETY: this kernel promises nothing.
        let shape = unsafe { isa.call(Ask) };
        let mut panels = Vec::new();
        for group in 0..spec.groups {
            for (offset, len) in window_runs(spec) {
                for start in (0..len).step_by(shape.width) {
                    let offset = group * spec.group_inputs() + offset + start;
                    panels.push(Panel { group, offset, width: (len - start).min(shape.width) });
                }
            }
        }
        let tiles = spec.group_outputs().div_ceil(shape.rows);
        let block = spec.groups * tiles * shape.rows * BLOCK * size_of::<f32>();
        let span = BLOCK * (PACKED / block.max(1)).clamp(1, MOST_BLOCKS);
        let this = Self { spec: spec.clone(), isa, shape, panels, tiles, span };
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
        // Vectors are written whole: what stands behind a row's end is written over by the next one.
        let slack = 32;
        let starts = threads;
        let grads = starts + 2 * Line::count(self.span * size_of::<usize>());
        let panels = grads + floats(self.spec.groups * self.tiles * self.grad_tile() + slack);
        let panel = floats(BLOCK * self.shape.width);
        let sums = panels + threads * panel;
        let end = sums + floats(self.panels.len() * self.tiles * self.shape.rows * self.shape.width);
        Layout { taken: 0, starts, grads, panels, panel, sums, end }
    }

    /// Numbers of a packed tile of the gradient.
    fn grad_tile(&self) -> usize {
        self.span * self.shape.rows
    }

    /// Computes the gradient from `images` images.
    ///
    /// # Errors
    ///
    /// A slice is too short.
    pub fn run<T: Element>(
        &self,
        pool: &Pool,
        images: usize,
        io: WeightGradIo<'_, T>,
    ) -> Result<(), KernelError> {
        let WeightGradIo { input, grad, weight, scratch } = io;
        let threads = pool.threads();
        at_least(NAME, "input", input.len(), images.saturating_mul(self.spec.input.image()))?;
        at_least(NAME, "gradient", grad.len(), images.saturating_mul(self.spec.output.image()))?;
        at_least(NAME, "weight", weight.len(), self.spec.weights())?;
        at_least(NAME, "scratch", scratch.len(), self.scratch(threads))?;
        let layout = self.layout(threads);
        as_f32_mut(&mut scratch[layout.sums..layout.end]).fill(0.0);
        let pixels = images * self.spec.output.h * self.spec.output.w;
        // Spans of equal size.
        let spans = pixels.div_ceil(self.span);
        let chunks = self.chunks(threads);
        let items = self.panels.len() * chunks;
        for span in 0..spans {
            let span = share(pixels, spans, span);
            self.locate(&span, scratch_starts(scratch, &layout));
            let base = Out::new(scratch);
            // SAFETY: there is a line for each worker.
            let taken = unsafe { Taken::new(base.at(layout.taken), threads) };
            let all = self.spec.groups * self.tiles;
            pool.run(|worker| {
                let tiles = share(all, threads, worker);
                // SAFETY: the slices were checked to hold every pixel, and each worker packs its own tiles.
                unsafe {
                    let kernel = PackGrads {
                        plan: self,
                        tiles,
                        grad: grad.as_ptr(),
                        starts: starts(base, &layout, 1),
                        pixels: span.len(),
                        to: base.at(layout.grads).cast(),
                    };
                    self.isa.call(kernel);
                }
            });
            pool.run(|worker| {
                for owner in (0..threads).map(|step| (worker + step) % threads) {
                    let own = share(items, threads, owner);
                    // SAFETY: the slices were checked to hold every window, and each item has its own sums.
                    unsafe {
                        let kernel = Items {
                            plan: self,
                            chunks,
                            own,
                            taken: (taken, owner),
                            input: input.as_ptr(),
                            starts: starts(base, &layout, 0),
                            pixels: span.len(),
                            grads: base.at(layout.grads).cast(),
                            panel: base.at(layout.panels + worker * layout.panel).cast(),
                            sums: base.at(layout.sums).cast(),
                        };
                        self.isa.call(kernel);
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

    /// Writes where the windows and the gradients of the pixels `span` start.
    fn locate(&self, span: &std::ops::Range<usize>, (inputs, grads): (&mut [usize], &mut [usize])) {
        let ConvSpec { input, output, stride, padding, .. } = &self.spec;
        let (row, mut x) = (span.start / output.w, span.start % output.w);
        let (mut image, mut y) = (row / output.h, row % output.h);
        let mut done = 0;
        while done < span.len() {
            let count = (output.w - x).min(span.len() - done);
            // The first window starts in the halo, which is at least as wide as the padding.
            let mut from = image * input.image()
                + (y * stride[0] + input.halo.top - padding[0]) * input.row()
                + (x * stride[1] + input.halo.left - padding[1]) * input.c;
            let mut to = image * output.image() + output.at(y as isize, x as isize);
            let starts = inputs[done..done + count].iter_mut().zip(&mut grads[done..done + count]);
            for (input_start, grad_start) in starts {
                (*input_start, *grad_start) = (from, to);
                (from, to) = (from + stride[1] * input.c, to + output.c);
            }
            done += count;
            (x, y) = (0, y + 1);
            if y == output.h {
                (y, image) = (0, image + 1);
            }
        }
    }

    /// Writes the sums in the order of the weight.
    fn unpack(&self, pool: &Pool, sums: &[f32], weight: &mut [f32]) {
        let (inputs, outputs) = (self.spec.group_inputs(), self.spec.group_outputs());
        let [rows, columns] = self.spec.kernel;
        let (input, dilation) = (&self.spec.input, self.spec.dilation);
        let Shape { rows: tile_rows, width } = self.shape;
        let filter = inputs * rows * columns;
        let weight = Out::new(&mut weight[..self.spec.weights()]);
        pool.for_each(self.panels.len(), |index| {
            let panel = &self.panels[index];
            let sums = &sums[index * self.tiles * tile_rows * width..];
            // Where the panel's elements stand in a filter.
            let mut places = [0; MOST_WIDTH];
            for (element, place) in places[..panel.width].iter_mut().enumerate() {
                let offset = panel.offset - panel.group * inputs + element;
                let (y, rest) = (offset / input.row() / dilation[0], offset % input.row());
                let (x, i) = (rest / input.c / dilation[1], rest % input.c);
                *place = (i * rows + y) * columns + x;
            }
            for o in 0..outputs {
                let start = (panel.group * outputs + o) * filter;
                for (&place, &sum) in places[..panel.width].iter().zip(&sums[o * width..]) {
                    // SAFETY: the place lies in the weight, and in no other panel.
                    unsafe { weight.at(start + place).write(sum) };
                }
            }
        });
    }
}

/// The two tables of a block's starts: of windows and of gradients.
fn scratch_starts<'a>(scratch: &'a mut [Line], layout: &Layout) -> (&'a mut [usize], &'a mut [usize]) {
    let tables = &mut scratch[layout.starts..layout.grads];
    let count = size_of_val(tables) / size_of::<usize>();
    // SAFETY: lines are aligned for numbers of any type, and all bytes are valid ones.
    let numbers = unsafe { std::slice::from_raw_parts_mut(tables.as_mut_ptr().cast::<usize>(), count) };
    numbers.split_at_mut(count / 2)
}

/// Table `index` of the starts.
fn starts(base: Out<Line>, layout: &Layout, index: usize) -> *const usize {
    let lines = (layout.grads - layout.starts) / 2;
    // SAFETY: the tables lie in the scratch memory.
    unsafe { base.at(layout.starts + index * lines).cast() }
}
