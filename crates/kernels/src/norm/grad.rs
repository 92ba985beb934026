//! The gradients of a batch norm with leaky ReLU.

use super::gradients::{
    BIAS, CENTER, GradMoments, InputGrad, MEAN_GRAD, PER_DISTANCE, Pixels, ROWS, Rows, SCALE,
};
use super::{Sums, pixels};
use crate::error::at_least;
use crate::grad::Write;
use crate::work::{In, Out, Segment, Work, check_length, check_same};
use crate::{Element, Isa, KernelError, Line, Map, Part, Pool, as_f32_mut};
use std::ptr::null;

const NAME: &str = "norm gradient";

/// What the backward pass reads of the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormSource {
    /// The norm's input.
    Input,
    /// Its output, from which the input is rebuilt: the slope must be above zero and no weight zero.
    Output,
}

/// The gradients of a batch norm with leaky ReLU, whose statistics are those of the batch.
#[derive(Clone, Debug)]
pub struct NormGrad {
    maps: Maps,
    source: NormSource,
    slope: f32,
    isa: Isa,
}

/// The maps of one call.
#[derive(Clone, Debug)]
struct Maps {
    kept: Map,
    grad: Map,
    result: Map,
    /// The output of a leaky ReLU behind the norm and something that was added to it, and its slope.
    output: Option<(Map, f32)>,
}

/// The memory of one call of [`NormGrad`]; everything that is not a map has one number per channel.
#[derive(Debug)]
pub struct NormGradIo<'a, T> {
    /// The norm's input or output.
    pub kept: &'a [T],
    /// The output of the activation behind it, if the kernel was built for it.
    pub output: Option<&'a [T]>,
    /// The gradient of the output; without it that is what `result` holds, for which both maps must be equal.
    pub grad: Option<&'a [T]>,
    /// The gradient of the input; its halo is left alone.
    pub result: &'a mut [T],
    /// Whether to add to `result`.
    pub write: Write,
    /// The norm's weight.
    pub weight: &'a [f32],
    /// The norm's bias.
    pub bias: &'a [f32],
    /// The batch's means; not read if the output was kept.
    pub mean: &'a [f32],
    /// The batch's biased variances.
    pub var: &'a [f32],
    /// Added to the variance.
    pub epsilon: f32,
    /// The weight's gradient, which is overwritten.
    pub weight_grad: &'a mut [f32],
    /// The bias's gradient, which is overwritten.
    pub bias_grad: &'a mut [f32],
    /// Memory for intermediate results.
    pub scratch: &'a mut [Line],
}

impl NormGrad {
    /// For what was kept, the gradient of the output and that of the input, all of the same size; halos are not read.
    ///
    /// # Errors
    ///
    /// The sizes differ, or the output cannot be inverted because the slope is not above zero.
    pub fn new(maps: [Map; 3], source: NormSource, slope: f32, isa: Isa) -> Result<Self, KernelError> {
        if source == NormSource::Output && (slope <= 0.0 || !slope.is_finite()) {
            return Err(KernelError::spec(NAME, format!("an output with slope {slope} has no inverse")));
        }
        Ok(Self { maps: Maps::new(maps)?, source, slope, isa })
    }

    /// The same where the norm's own output `u` went on as `y = leaky(u + skip)`: `y`, a `map`, is read to tell where it
    /// was positive, so that `grad` is the gradient of `y`.
    ///
    /// # Errors
    ///
    /// The sizes differ, or the slope is negative: the sign would be lost.
    pub fn with_output(self, map: Map, slope: f32) -> Result<Self, KernelError> {
        Ok(Self { maps: self.maps.with_output(map, slope)?, ..self })
    }

    /// Lines of scratch memory for `threads` workers.
    #[must_use]
    pub fn scratch(&self, threads: usize) -> usize {
        Sums::scratch(self.maps.kept.c, threads) + rows_lines(self.maps.kept.c)
    }

    /// Computes all gradients for `images` images, at least one.
    ///
    /// # Errors
    ///
    /// A slice is missing or too short, or there is no image.
    pub fn run<T: Element>(
        &self,
        pool: &Pool,
        images: usize,
        io: NormGradIo<'_, T>,
    ) -> Result<(), KernelError> {
        let NormGradIo { kept, output, grad, result, write, weight, bias, mean, var, epsilon, .. } = io;
        let NormGradIo { weight_grad, bias_grad, scratch, .. } = io;
        let (maps, c) = (&self.maps, self.maps.kept.c);
        if images == 0 {
            return Err(KernelError::spec(NAME, "no images"));
        }
        let memory = Memory::new(maps, images, Some(kept), (output, grad, result), write)?;
        check_channels(c, [weight, bias, mean, var])?;
        at_least(NAME, "gradient of the weight", weight_grad.len(), c)?;
        at_least(NAME, "gradient of the bias", bias_grad.len(), c)?;
        at_least(NAME, "scratch", scratch.len(), self.scratch(pool.threads()))?;
        let (sums, rows) = scratch.split_at_mut(Sums::scratch(c, pool.threads()));
        let (values, stride) = (as_f32_mut(rows), rows_stride(c));
        let inverse_std = |k: usize| 1.0 / (f64::from(var[k]) + f64::from(epsilon)).sqrt();
        for k in 0..c {
            values[CENTER * stride + k] = if self.source == NormSource::Input { mean[k] } else { bias[k] };
            values[SCALE * stride + k] = (f64::from(weight[k]) * inverse_std(k)) as f32;
            values[BIAS * stride + k] = bias[k];
        }
        let sums = Sums { c, base: Out::new(sums) };
        let map = &maps.result;
        let work = Work::new(pool, &Part::whole(images, map.h), map, 2 * c * size_of::<T>());
        let call = Call { maps, memory, source: self.source, slope: self.slope, write };
        let rows = Rows { base: values.as_ptr(), stride };
        work.run(pool, |share| {
            // SAFETY: the scratch memory and the maps are long enough.
            unsafe {
                sums.gather(share, |segment, sums| {
                    let pixels = call.pixels(&segment, rows);
                    T::grad_moments(self.isa, GradMoments { pixels, sums });
                });
            }
        });
        let count = pixels(map, images) as f64;
        for k in 0..c {
            // SAFETY: the workers are done.
            let [sum, product] = unsafe { sums.total(work.workers(), k) };
            // From distances to normalised values.
            let unit = match self.source {
                NormSource::Input => inverse_std(k),
                NormSource::Output => 1.0 / f64::from(weight[k]),
            };
            bias_grad[k] = sum as f32;
            weight_grad[k] = (product * unit) as f32;
            values[MEAN_GRAD * stride + k] = (sum / count) as f32;
            values[PER_DISTANCE * stride + k] = (product * unit * unit / count) as f32;
        }
        let rows = Rows { base: values.as_ptr(), stride };
        // SAFETY: the maps are long enough.
        unsafe { call.input_grad(pool, &work, rows, self.isa) };
        Ok(())
    }
}

/// The gradient of a batch norm with leaky ReLU whose statistics are given: `dx = dy * slope' * weight / std`.
#[derive(Clone, Debug)]
pub struct FixedNormGrad {
    maps: Maps,
    source: NormSource,
    slope: f32,
    isa: Isa,
}

/// The memory of one call of [`FixedNormGrad`]; everything that is not a map has one number per channel.
#[derive(Debug)]
pub struct FixedNormGradIo<'a, T> {
    /// The norm's input or output; with slope 1 not read, and may be empty.
    pub kept: &'a [T],
    /// The output of the activation behind it, if the kernel was built for it.
    pub output: Option<&'a [T]>,
    /// The gradient of the output; without it that is what `result` holds, for which both maps must be equal.
    pub grad: Option<&'a [T]>,
    /// The gradient of the input; its halo is left alone.
    pub result: &'a mut [T],
    /// Whether to add to `result`.
    pub write: Write,
    /// What the forward pass multiplied with.
    pub scale: &'a [f32],
    /// What it added.
    pub shift: &'a [f32],
    /// Memory for intermediate results.
    pub scratch: &'a mut [Line],
}

impl FixedNormGrad {
    /// As [`NormGrad::new`], but any slope from 0 on will do.
    ///
    /// # Errors
    ///
    /// The sizes differ, or the slope is negative.
    pub fn new(maps: [Map; 3], source: NormSource, slope: f32, isa: Isa) -> Result<Self, KernelError> {
        check_slope(slope)?;
        Ok(Self { maps: Maps::new(maps)?, source, slope, isa })
    }

    /// As [`NormGrad::with_output`].
    ///
    /// # Errors
    ///
    /// The sizes differ, or the slope is negative.
    pub fn with_output(self, map: Map, slope: f32) -> Result<Self, KernelError> {
        Ok(Self { maps: self.maps.with_output(map, slope)?, ..self })
    }

    /// Lines of scratch memory.
    #[must_use]
    pub fn scratch(&self) -> usize {
        rows_lines(self.maps.kept.c)
    }

    /// Computes the gradient of `images` images.
    ///
    /// # Errors
    ///
    /// A slice is missing or too short.
    pub fn run<T: Element>(
        &self,
        pool: &Pool,
        images: usize,
        io: FixedNormGradIo<'_, T>,
    ) -> Result<(), KernelError> {
        let FixedNormGradIo { kept, output, grad, result, write, scale, shift, scratch } = io;
        let c = self.maps.kept.c;
        // Without an activation the sign of what was kept does not matter.
        let kept = (self.slope != 1.0).then_some(kept);
        let memory = Memory::new(&self.maps, images, kept, (output, grad, result), write)?;
        at_least(NAME, "scale", scale.len(), c)?;
        at_least(NAME, "shift", shift.len(), c)?;
        at_least(NAME, "scratch", scratch.len(), self.scratch())?;
        let (values, stride) = (as_f32_mut(scratch), rows_stride(c));
        values[..ROWS * stride].fill(0.0);
        values[SCALE * stride..][..c].copy_from_slice(&scale[..c]);
        values[BIAS * stride..][..c].copy_from_slice(&shift[..c]);
        let map = &self.maps.result;
        let work = Work::new(pool, &Part::whole(images, map.h), map, 2 * c * size_of::<T>());
        let call = Call { maps: &self.maps, memory, source: self.source, slope: self.slope, write };
        let rows = Rows { base: values.as_ptr(), stride };
        // SAFETY: the maps are long enough.
        unsafe { call.input_grad(pool, &work, rows, self.isa) };
        Ok(())
    }
}

impl Maps {
    fn new([kept, grad, result]: [Map; 3]) -> Result<Self, KernelError> {
        check_same(NAME, &kept, &grad)?;
        check_same(NAME, &kept, &result)?;
        Ok(Self { kept, grad, result, output: None })
    }

    fn with_output(self, map: Map, slope: f32) -> Result<Self, KernelError> {
        check_same(NAME, &map, &self.grad)?;
        check_slope(slope)?;
        Ok(Self { output: Some((map, slope)), ..self })
    }
}

/// Where the maps of a call are, whose lengths were checked.
#[derive(Clone, Copy)]
struct Memory<T> {
    /// None where it does not matter.
    kept: Option<In<T>>,
    output: Option<In<T>>,
    grad: In<T>,
    result: Out<T>,
}

impl<T: Element> Memory<T> {
    fn new(
        maps: &Maps,
        images: usize,
        kept: Option<&[T]>,
        (output, grad, result): (Option<&[T]>, Option<&[T]>, &mut [T]),
        write: Write,
    ) -> Result<Self, KernelError> {
        check_length(NAME, "result", result.len(), images, maps.result.image())?;
        let result = Out::new(result);
        if let Some(kept) = kept {
            check_length(NAME, "kept map", kept.len(), images, maps.kept.image())?;
        }
        let output = output.filter(|_| maps.output.is_some());
        if let Some((map, _)) = &maps.output {
            check_length(NAME, "output", output.map_or(0, <[T]>::len), images, map.image())?;
        }
        let grad = match grad {
            Some(grad) => {
                check_length(NAME, "gradient", grad.len(), images, maps.grad.image())?;
                In::new(grad)
            }
            None if maps.grad == maps.result && write == Write::Replace => In::of(result),
            None => return Err(KernelError::spec(NAME, "in place with another map, or in addition")),
        };
        Ok(Self { kept: kept.map(In::new), output: output.map(In::new), grad, result })
    }
}

/// What the workers of a call share.
#[derive(Clone, Copy)]
struct Call<'a, T> {
    maps: &'a Maps,
    memory: Memory<T>,
    source: NormSource,
    slope: f32,
    write: Write,
}

impl<T: Element> Call<'_, T> {
    /// Where the pixels of a segment are.
    ///
    /// # Safety
    ///
    /// The segment lies in the maps.
    unsafe fn pixels(&self, segment: &Segment, rows: Rows) -> Pixels<T> {
        let (maps, Memory { kept, output, grad, result }) = (self.maps, self.memory);
        // SAFETY: the same contract.
        unsafe {
            let dy = grad.at(segment.start(&maps.grad));
            let (y, output_slope) = match (&maps.output, output) {
                (Some((map, slope)), Some(output)) => (output.at(segment.start(map)), *slope),
                _ => (null(), 1.0),
            };
            Pixels {
                x: kept.map_or(dy, |kept| kept.at(segment.start(&maps.kept))),
                dy,
                y,
                dx: result.at(segment.start(&maps.result)),
                pixels: segment.pixels,
                channels: maps.kept.c,
                rows,
                source: self.source,
                slope: self.slope,
                // Without an inverse there is no gradient of parameters either, and the distance does not count.
                inverse_slope: if self.slope > 0.0 { 1.0 / self.slope } else { 0.0 },
                output_slope,
                write: self.write,
            }
        }
    }

    /// Writes the gradient of the input.
    ///
    /// # Safety
    ///
    /// The maps hold all pixels of the work, and the rows a number for each channel.
    unsafe fn input_grad(&self, pool: &Pool, work: &Work, rows: Rows, isa: Isa) {
        work.run(pool, |share| {
            for segment in share {
                // SAFETY: the same contract; each pixel is one worker's.
                unsafe { T::norm_grad(isa, InputGrad { pixels: self.pixels(&segment, rows) }) };
            }
        });
    }
}

fn check_slope(slope: f32) -> Result<(), KernelError> {
    if slope < 0.0 || !slope.is_finite() {
        return Err(KernelError::spec(NAME, format!("a slope of {slope}")));
    }
    Ok(())
}

fn check_channels(c: usize, vectors: [&[f32]; 4]) -> Result<(), KernelError> {
    for (operand, vector) in ["weight", "bias", "mean", "variance"].into_iter().zip(vectors) {
        at_least(NAME, operand, vector.len(), c)?;
    }
    Ok(())
}

/// Numbers from one row of values per channel to the next.
fn rows_stride(c: usize) -> usize {
    Line::count(c * size_of::<f32>()) * Line::BYTES / size_of::<f32>()
}

fn rows_lines(c: usize) -> usize {
    ROWS * Line::count(c * size_of::<f32>())
}
