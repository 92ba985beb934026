//! The gradient of a convolution's input: a convolution of the output's gradient with the weight turned around.
//!
//! With stride 1 it is one convolution. With a stride, the input's pixels fall into `stride²` phases by where they stand
//! to the windows; the taps that reach a phase are a smaller kernel of stride 1, so no product with zero is computed:
//!
//! ```text
//! y = stride * out - padding + tap * dilation   =>   phase (y + padding) % stride, taps with tap * dilation % stride equal
//! ```
//! A phase is computed apart and then spread over its pixels.

use super::weights::{Strides, Weights};
use super::{Conv, ConvIo, ConvSpec};
use crate::arena::lines_as;
use crate::error::{at_least, same_format};
use crate::work::Out;
use crate::{Activation, DType, Element, Halo, Isa, KernelError, Line, Map, Part, Pool};

const NAME: &str = "input gradient";

/// The gradient of a convolution's input, with packed weights.
#[derive(Debug)]
pub struct DataGrad {
    spec: ConvSpec,
    dtype: DType,
    phases: Vec<Phase>,
}

/// Pixels of the input with the same place in the windows.
#[derive(Debug)]
struct Phase {
    /// The first of them.
    first: [usize; 2],
    spec: ConvSpec,
    taps: [Taps; 2],
    conv: Conv,
}

/// The taps of one axis that reach a phase: `first`, `first + step`, ..
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Taps {
    first: usize,
    step: usize,
    count: usize,
}

/// One axis of a phase.
struct Axis {
    taps: Taps,
    /// The first pixel and how many there are.
    pixel: usize,
    pixels: usize,
    /// From one tap to the next in the gradient.
    dilation: usize,
    /// Pixels before the gradient's first one that the first window starts at; negative: after.
    padding: isize,
}

/// The memory of one call.
#[derive(Debug)]
pub struct DataGradIo<'a, T> {
    /// The gradient of the output, with zeros in its halo.
    pub grad: &'a [T],
    /// The gradient of the input; its halo is left alone.
    pub input: &'a mut [T],
    /// Memory for intermediate results.
    pub scratch: &'a mut [Line],
}

impl DataGrad {
    /// The halo that the gradient of the output needs, given the convolution without it.
    ///
    /// # Errors
    ///
    /// The description is inconsistent.
    pub fn halo(spec: &ConvSpec) -> Result<Halo, KernelError> {
        with_halo(spec).check()?;
        let mut halo = Halo::default();
        for [y, x] in phases(spec) {
            let need = |axis: &Axis, size: usize| {
                let last = axis.pixels as isize - 1 - axis.padding
                    + ((axis.taps.count - 1) * axis.dilation) as isize;
                [axis.padding.max(0) as usize, (last + 1 - size as isize).max(0) as usize]
            };
            if y.taps.count > 0 && x.taps.count > 0 {
                let ([top, bottom], [left, right]) = (need(&y, spec.output.h), need(&x, spec.output.w));
                halo = halo.union(Halo { top, left, bottom, right });
            }
        }
        Ok(halo)
    }

    /// For the convolution `spec` whose output map has at least [`DataGrad::halo`], for `images` images on `threads`
    /// threads; its epilogue does not matter. `weight` is `[outputs, inputs / groups, rows, columns]`.
    ///
    /// # Errors
    ///
    /// The description is inconsistent, or a length does not fit.
    pub fn new(
        spec: &ConvSpec,
        weight: &[f32],
        dtype: DType,
        isa: Isa,
        images: usize,
        threads: usize,
    ) -> Result<Self, KernelError> {
        with_halo(spec).check()?;
        spec.check_weights(weight, None)?;
        let mut built = Vec::new();
        for [y, x] in phases(spec) {
            if y.taps.count == 0 || x.taps.count == 0 || y.pixels == 0 || x.pixels == 0 {
                continue;
            }
            // Windows that never reach the output leave zeros.
            let Some(map) = moved(&spec.output, [y.padding.min(0), x.padding.min(0)]) else { continue };
            let phase = ConvSpec {
                input: map,
                output: if spec.stride == [1; 2] {
                    spec.input
                } else {
                    Map::new(y.pixels, x.pixels, spec.input.c)
                },
                kernel: [y.taps.count, x.taps.count],
                stride: [1; 2],
                dilation: [y.dilation, x.dilation],
                padding: [y.padding.max(0) as usize, x.padding.max(0) as usize],
                groups: spec.groups,
                activation: Activation::Identity,
                residual: None,
                pooled: false,
            };
            let method = Conv::choose_in_training(&phase, dtype, isa, images, threads);
            let taps = [y.taps, x.taps];
            let conv = Conv::of(&phase, turned(spec, &phase, weight, taps), None, dtype, isa, method)?;
            built.push(Phase { first: [y.pixel, x.pixel], spec: phase, taps, conv });
        }
        Ok(Self { spec: spec.clone(), dtype, phases: built })
    }

    /// Packs other weights, `[outputs, inputs / groups, rows, columns]`, without allocating.
    ///
    /// # Errors
    ///
    /// The length does not fit.
    pub fn set_weight(&mut self, pool: &Pool, weight: &[f32]) -> Result<(), KernelError> {
        self.spec.check_weights(weight, None)?;
        for phase in &mut self.phases {
            phase.conv.repack_from(pool, turned(&self.spec, &phase.spec, weight, phase.taps), None);
        }
        Ok(())
    }

    /// Bytes of the packed weights.
    #[must_use]
    pub fn packed_bytes(&self) -> usize {
        self.phases.iter().map(|phase| phase.conv.packed_bytes()).sum()
    }

    /// Lines of scratch memory for `images` images and `threads` workers.
    #[must_use]
    pub fn scratch(&self, images: usize, threads: usize) -> usize {
        let lines = |phase: &Phase| phase.conv.scratch(threads) + self.apart(phase, images);
        self.phases.iter().map(lines).max().unwrap_or(0)
    }

    /// Lines of a phase's own map.
    fn apart(&self, phase: &Phase, images: usize) -> usize {
        if self.spec.stride == [1; 2] {
            return 0;
        }
        Line::count(images.saturating_mul(phase.spec.output.image()) * self.dtype.bytes())
    }

    /// How its convolutions are computed, such as `winograd4 avx2`.
    #[must_use]
    pub fn label(&self) -> String {
        self.phases.first().map_or_else(|| "zero".into(), |phase| phase.conv.label())
    }

    /// Computes the gradient for `images` images.
    ///
    /// # Errors
    ///
    /// A slice is too short, or `T` is not the format that it was built for.
    pub fn run<T: Element>(
        &self,
        pool: &Pool,
        images: usize,
        io: DataGradIo<'_, T>,
    ) -> Result<(), KernelError> {
        let DataGradIo { grad, input, scratch } = io;
        same_format::<T>(NAME, self.dtype)?;
        at_least(NAME, "gradient", grad.len(), images.saturating_mul(self.spec.output.image()))?;
        at_least(NAME, "input", input.len(), images.saturating_mul(self.spec.input.image()))?;
        at_least(NAME, "scratch", scratch.len(), self.scratch(images, pool.threads()))?;
        if images == 0 {
            return Ok(());
        }
        if self.spec.stride == [1; 2] {
            return match self.phases.first() {
                Some(phase) => {
                    let part = Part::whole(images, self.spec.input.h);
                    phase.conv.run(
                        pool,
                        &part,
                        ConvIo { input: grad, output: input, residual: None, pooled: None, scratch },
                    )
                }
                None => {
                    self.clear(pool, images, input);
                    Ok(())
                }
            };
        }
        let [sy, sx] = self.spec.stride;
        // Pixels that no tap reaches.
        if self.phases.len() < sy * sx {
            self.clear(pool, images, input);
        }
        for phase in &self.phases {
            let part = Part::whole(images, phase.spec.output.h);
            let (apart, scratch) = scratch.split_at_mut(self.apart(phase, images));
            let apart = lines_as(apart);
            let io = ConvIo { input: grad, output: &mut *apart, residual: None, pooled: None, scratch };
            phase.conv.run(pool, &part, io)?;
            self.spread(pool, images, phase, apart, input);
        }
        Ok(())
    }

    /// Zeros in all pixels.
    fn clear<T: Element>(&self, pool: &Pool, images: usize, input: &mut [T]) {
        let map = self.spec.input;
        let input = Out::new(&mut input[..images * map.image()]);
        pool.for_each(images * map.h, |row| {
            let at = row / map.h * map.image() + map.at((row % map.h) as isize, 0);
            // SAFETY: the row lies in the input, and is this item's alone; zeros are numbers of either format.
            unsafe { input.at(at).write_bytes(0, map.w * map.c) };
        });
    }

    /// Writes a phase's pixels where they belong.
    fn spread<T: Element>(&self, pool: &Pool, images: usize, phase: &Phase, apart: &[T], input: &mut [T]) {
        let (from, map) = (phase.spec.output, self.spec.input);
        let [sy, sx] = self.spec.stride;
        let input = Out::new(&mut input[..images * map.image()]);
        pool.for_each(images * from.h, |row| {
            let (image, y) = (row / from.h, row % from.h);
            let to =
                image * map.image() + map.at((phase.first[0] + y * sy) as isize, phase.first[1] as isize);
            for (x, pixel) in apart[row * from.row()..][..from.row()].chunks_exact(from.c).enumerate() {
                // SAFETY: the pixel lies in the input, and in no other phase or row.
                unsafe { input.at(to + x * sx * map.c).copy_from_nonoverlapping(pixel.as_ptr(), map.c) };
            }
        });
    }
}

/// The convolution on an input with the halo that it needs: its gradient needs none.
fn with_halo(spec: &ConvSpec) -> ConvSpec {
    let (input, [top, left]) = (spec.input, spec.padding);
    let after = |axis: usize, size: usize, before: usize| {
        let out = [spec.output.h, spec.output.w][axis].saturating_sub(1);
        let last = out.saturating_mul(spec.stride[axis]);
        let reach = spec.kernel[axis].saturating_sub(1).saturating_mul(spec.dilation[axis]);
        last.saturating_add(reach).saturating_add(1).saturating_sub(size.saturating_add(before))
    };
    let (bottom, right) = (after(0, input.h, top), after(1, input.w, left));
    let halo = input.halo.union(Halo { top, left, bottom, right });
    ConvSpec { input: input.with_halo(halo), ..spec.clone() }
}

/// The phases of both axes.
fn phases(spec: &ConvSpec) -> impl Iterator<Item = [Axis; 2]> {
    let [sy, sx] = spec.stride;
    (0..sy * sx).map(move |phase| [axis(spec, 0, phase / sx), axis(spec, 1, phase % sx)])
}

/// Phase `phase` of an axis.
fn axis(spec: &ConvSpec, axis: usize, phase: usize) -> Axis {
    let (stride, dilation, padding) = (spec.stride[axis], spec.dilation[axis], spec.padding[axis]);
    let size = [spec.input.h, spec.input.w][axis];
    let reaches = |tap: &usize| tap * dilation % stride == phase;
    let first = (0..spec.kernel[axis]).find(reaches);
    let step = stride / gcd(stride, dilation);
    let count = first.map_or(0, |first| (spec.kernel[axis] - first).div_ceil(step));
    let first = first.unwrap_or(0);
    // The first pixel of the phase, counted from the padding's start, is `stride * start + phase`.
    let start = padding.saturating_sub(phase).div_ceil(stride);
    let pixel = (stride * start + phase).saturating_sub(padding);
    let pixels = size.saturating_sub(pixel).div_ceil(stride);
    let dilation_out = dilation / gcd(stride, dilation);
    // Taps in their order reach gradients in the reverse order, the last tap the first one.
    let shift = (first * dilation).saturating_sub(phase) / stride;
    let padding = (count.max(1) - 1) * dilation_out + shift;
    Axis {
        taps: Taps { first, step, count },
        pixel,
        pixels,
        dilation: dilation_out,
        padding: padding as isize - start as isize,
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The same map without its first rows and columns, as many as `by` is below zero: they become part of the halo.
fn moved(map: &Map, by: [isize; 2]) -> Option<Map> {
    let [y, x] = by.map(isize::unsigned_abs);
    let halo = Halo { top: map.halo.top + y, left: map.halo.left + x, ..map.halo };
    (y < map.h && x < map.w).then(|| Map { h: map.h - y, w: map.w - x, c: map.c, halo })
}

/// The weight of a phase: inputs and outputs change places in each group, and taps come in the reverse order.
fn turned<'a>(spec: &ConvSpec, phase: &ConvSpec, weight: &'a [f32], [y, x]: [Taps; 2]) -> Weights<'a> {
    let [rows, columns] = spec.kernel;
    let last = |taps: Taps| taps.first + (taps.count - 1) * taps.step;
    let strides = Strides {
        group: spec.group_outputs() * spec.group_inputs() * rows * columns,
        output: rows * columns,
        input: spec.group_inputs() * rows * columns,
        row: -((y.step * columns) as isize),
        column: -(x.step as isize),
    };
    Weights::new(phase, weight, last(y) * columns + last(x), strides)
}
