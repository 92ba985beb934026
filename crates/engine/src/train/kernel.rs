//! The kernels of a training step, and how they run.

use super::lower::Slot;
use crate::plan::{Lines, Plain};
use cardinal_kernels::{
    self as k, Bf16, ConvIo, DType, DropKey, KernelError, Line, Part, Pool, Views, Write, as_f32, as_f32_mut,
};
use std::ops::Range;

/// The parameters of a norm: places in the vector of values.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) weight: Range<usize>,
    pub(super) bias: Range<usize>,
    /// Given statistics; none for those of the batch.
    pub(super) running: Option<[Range<usize>; 2]>,
    pub(super) epsilon: f32,
}

/// A kernel; parameters are places in the vector of values, and their gradients places in that of gradients.
#[derive(Debug)]
pub(super) enum Kernel {
    /// One of inference's.
    Plain(Box<Plain>),
    Sum(k::AddChannels),
    Conv {
        conv: Box<k::Conv>,
        rows: usize,
        weight: Range<usize>,
        bias: Option<Range<usize>>,
        /// Where the batch statistics of its result go, if a norm wants them.
        statistics: Option<[Range<usize>; 2]>,
    },
    ConvInput {
        grad: Box<k::DataGrad>,
        weight: Range<usize>,
    },
    ConvWeight {
        grad: Box<k::WeightGrad>,
        to: Range<usize>,
    },
    Bias {
        grad: k::BiasGrad,
        to: Range<usize>,
    },
    Statistics {
        stats: k::NormStats,
        to: [Range<usize>; 2],
    },
    Norm {
        apply: k::NormApply,
        base: Base,
        join: bool,
    },
    NormGrad {
        grad: k::NormGrad,
        base: Base,
        to: [Range<usize>; 2],
    },
    FixedNormGrad {
        grad: k::FixedNormGrad,
        base: Base,
    },
    Drop {
        drop: k::RandomDrop,
        /// None: that of the step.
        rate: Option<f64>,
        layer: u64,
    },
    Activation(k::ActivationGrad),
    MaxPool(k::MaxPoolGrad),
    Spread(k::SpreadGrad),
    Means(k::GlobalPoolGrad),
    DepthToSpace(k::DepthToSpace),
    /// And the rows of the map.
    Slice(k::CopyMap, usize),
    /// The logits of an attention.
    Logits(k::AttentionGrad),
    /// What an attention weighs; and whether the gradient of its means is added.
    Weighted(k::AttentionGrad, bool),
}

/// What a call works on besides the arena.
pub(super) struct Call<'a> {
    pub(super) pool: &'a Pool,
    pub(super) images: usize,
    /// What the caller gives: images in the forward pass, gradients of outputs in the backward pass.
    pub(super) inputs: &'a [&'a [f32]],
    pub(super) outputs: &'a mut [Vec<f32>],
    pub(super) values: &'a [f32],
    pub(super) gradients: &'a mut [f32],
    pub(super) seed: super::StepSeed,
}

/// Where a step reads and writes, in lines of the arena.
#[derive(Debug)]
pub(super) struct Places {
    /// The format of its maps.
    pub(super) dtype: DType,
    pub(super) reads: Vec<Range<usize>>,
    pub(super) writes: Vec<Range<usize>>,
    pub(super) scratch: Range<usize>,
    /// Whether its result replaces an input that is not among `reads`.
    pub(super) in_place: bool,
    /// Whether its result is added to what is there.
    pub(super) add: bool,
}

impl Kernel {
    /// Which slot has the format of the maps that the kernel is about.
    pub(super) fn format(&self, reads: &[Slot], writes: &[Slot]) -> DType {
        let slot = match self {
            Self::Logits(_) | Self::Bias { .. } | Self::ConvWeight { .. } | Self::Statistics { .. } => {
                reads.first()
            }
            _ => writes.first().or(reads.first()),
        };
        slot.map_or(DType::F32, |slot| slot.dtype)
    }

    /// Lines of scratch memory for `images` images and `threads` workers.
    pub(super) fn scratch(&self, images: usize, threads: usize) -> usize {
        match self {
            Self::Plain(plain) => plain.scratch(threads),
            Self::Conv { conv, statistics: Some(_), .. } => conv.statistics_scratch(images, threads),
            Self::Conv { conv, .. } => conv.scratch(threads),
            Self::ConvInput { grad, .. } => grad.scratch(images, threads),
            Self::ConvWeight { grad, .. } => grad.scratch(threads),
            Self::Bias { grad, .. } => grad.scratch(images, threads),
            Self::Statistics { stats, .. } => stats.scratch(threads),
            Self::Norm { base, .. } => 2 * base.lines(),
            Self::FixedNormGrad { grad, base } => base.lines() + grad.scratch(),
            Self::NormGrad { grad, .. } => grad.scratch(threads),
            Self::Drop { drop, .. } => drop.scratch(),
            Self::MaxPool(grad) => grad.scratch(threads),
            Self::Logits(grad) | Self::Weighted(grad, _) => grad.scratch(threads),
            Self::Sum(_)
            | Self::Activation(_)
            | Self::Spread(_)
            | Self::Means(_)
            | Self::DepthToSpace(_)
            | Self::Slice(..) => 0,
        }
    }

    /// Bytes of packed weights.
    pub(super) fn weight_bytes(&self) -> usize {
        match self {
            Self::Conv { conv, .. } => conv.packed_bytes(),
            Self::ConvInput { grad, .. } => grad.packed_bytes(),
            _ => 0,
        }
    }

    /// Packs the weights anew.
    pub(super) fn pack(&mut self, pool: &Pool, values: &[f32]) -> Result<(), KernelError> {
        match self {
            Self::Conv { conv, weight, bias, .. } => {
                let bias = bias.as_ref().map(|bias| &values[bias.clone()]);
                conv.repack(pool, &values[weight.clone()], bias)
            }
            Self::ConvInput { grad, weight } => grad.set_weight(pool, &values[weight.clone()]),
            _ => Ok(()),
        }
    }

    /// Runs the kernel on the arena.
    pub(super) fn run(&self, places: &Places, arena: &mut [Line], call: Call<'_>) -> Result<(), KernelError> {
        if let Self::Plain(plain) = self {
            return plain.run(call.pool, arena, call.inputs, call.outputs, call.images);
        }
        match places.dtype {
            DType::F32 => self.run_on::<f32>(places, arena, call),
            DType::Bf16 => self.run_on::<Bf16>(places, arena, call),
        }
    }

    fn run_on<T: Lines>(
        &self,
        places: &Places,
        arena: &mut [Line],
        call: Call<'_>,
    ) -> Result<(), KernelError> {
        let Call { pool, images, values, gradients, seed, .. } = call;
        let written = |at: usize| places.writes.get(at).cloned().unwrap_or(0..0);
        let mut views =
            Views::<4>::new(arena, &[written(0), written(1), written(2), places.scratch.clone()])?;
        let [first, second, third, scratch] = views.outputs.each_mut().map(std::mem::take);
        // What is done in place is not among the reads.
        let skipped = usize::from(places.in_place);
        let lines = |at: usize| views.input(places.reads.get(at).cloned().unwrap_or(usize::MAX..usize::MAX));
        let map = |at: usize| lines(at).map(T::of);
        let vector = |at: usize| lines(at).map(as_f32);
        let write = if places.add { Write::Add } else { Write::Replace };
        let value = |range: &Range<usize>| &values[range.clone()];
        match self {
            Self::Plain(_) => Ok(()),
            Self::Sum(sum) => sum.run(pool, images, map(0)?, T::of_mut(first)),
            Self::Conv { conv, rows, statistics, .. } => {
                let (input, output) = (map(0)?, T::of_mut(first));
                let io = ConvIo { input, output, residual: None, pooled: None, scratch };
                let Some(to) = statistics else { return conv.run(pool, &Part::whole(images, *rows), io) };
                let (mean, var) = (as_f32_mut(second), as_f32_mut(third));
                conv.run_with_statistics(pool, images, io, [&mut *mean, &mut *var])?;
                keep_statistics(gradients, to, [mean, var]);
                Ok(())
            }
            Self::ConvInput { grad, .. } => {
                let (dy, input) = (map(0)?, T::of_mut(first));
                grad.run(pool, images, k::DataGradIo { grad: dy, input, scratch })
            }
            Self::ConvWeight { grad, to } => {
                let (input, dy) = (map(0)?, map(1)?);
                let weight = &mut gradients[to.clone()];
                grad.run(pool, images, k::WeightGradIo { input, grad: dy, weight, scratch })
            }
            Self::Bias { grad, to } => grad.run(pool, images, map(0)?, &mut gradients[to.clone()], scratch),
            Self::Statistics { stats, to } => {
                let (mean, var) = (as_f32_mut(first), as_f32_mut(second));
                stats.run(pool, images, map(0)?, [&mut *mean, &mut *var], scratch)?;
                keep_statistics(gradients, to, [mean, var]);
                Ok(())
            }
            Self::Norm { apply, base, join } => {
                let mut next = 1 - skipped;
                let statistics = match &base.running {
                    Some([mean, var]) => [value(mean), value(var)],
                    None => {
                        next += 2;
                        [vector(next - 2)?, vector(next - 1)?]
                    }
                };
                let (scale, shift) = scratch.split_at_mut(base.lines());
                let (scale, shift) = (as_f32_mut(scale), as_f32_mut(shift));
                base.scale_shift(values, statistics, scale, shift);
                let input = if places.in_place { None } else { Some(map(0)?) };
                let residual = if *join { Some(map(next)?) } else { None };
                let io = k::NormApplyIo { input, residual, scale, shift, output: T::of_mut(first) };
                apply.run(pool, images, io)
            }
            Self::NormGrad { grad, base, to } => {
                let dy = if places.in_place { None } else { Some(map(1)?) };
                let [weight_grad, bias_grad] = both(gradients, to);
                let io = k::NormGradIo {
                    kept: map(0)?,
                    output: None,
                    grad: dy,
                    result: T::of_mut(first),
                    write,
                    weight: value(&base.weight),
                    bias: value(&base.bias),
                    mean: vector(2 - skipped)?,
                    var: vector(3 - skipped)?,
                    epsilon: base.epsilon,
                    weight_grad,
                    bias_grad,
                    scratch,
                };
                grad.run(pool, images, io)
            }
            Self::FixedNormGrad { grad, base } => {
                let dy = if places.in_place { None } else { Some(map(1)?) };
                let (scale, scratch) = scratch.split_at_mut(base.lines());
                let scale = as_f32_mut(scale);
                if let Some([mean, var]) = &base.running {
                    base.scale(values, [value(mean), value(var)], scale);
                }
                let kept = map(0)?;
                // The sign of an output needs no shift.
                let (scale, shift) = (&*scale, &*scale);
                let io = k::FixedNormGradIo {
                    kept,
                    output: None,
                    grad: dy,
                    result: T::of_mut(first),
                    write,
                    scale,
                    shift,
                    scratch,
                };
                grad.run(pool, images, io)
            }
            Self::Drop { drop, rate, layer } => {
                let input = if places.in_place { None } else { Some(map(0)?) };
                let key = DropKey::new(seed.seed, seed.step, *layer);
                let rate = rate.unwrap_or(seed.drop_block);
                let io = k::RandomDropIo { input, output: T::of_mut(first), scratch };
                drop.run(pool, images, key, rate, io)
            }
            Self::Activation(grad) => {
                let dy = if places.in_place { None } else { Some(map(1)?) };
                let io = k::ActivationGradIo { kept: map(0)?, grad: dy, result: T::of_mut(first), write };
                grad.run(pool, images, io)
            }
            Self::MaxPool(grad) => {
                let io = k::MaxPoolGradIo {
                    input: map(0)?,
                    grad: map(1)?,
                    result: T::of_mut(first),
                    write,
                    scratch,
                };
                grad.run(pool, images, io)
            }
            Self::Spread(grad) => grad.run(pool, images, map(0)?, T::of_mut(first), write),
            Self::Means(grad) => grad.run(pool, images, vector(0)?, T::of_mut(first), write),
            Self::DepthToSpace(grad) => grad.run(pool, images, map(0)?, T::of_mut(first)),
            Self::Slice(copy, rows) => {
                let output = T::of_mut(first);
                output.fill(T::from_f32(0.0));
                copy.run(pool, &Part::whole(images, *rows), map(0)?, output)
            }
            Self::Logits(grad) => {
                let (input, dy, logits) = (map(0)?, map(1)?, vector(2)?);
                let result = as_f32_mut(first);
                let io = k::LogitsGradIo { input, grad: dy, output: None, logits, result, scratch };
                grad.logits(pool, images, io)
            }
            Self::Weighted(grad, means) => {
                let dy = if places.in_place { None } else { Some(map(0)?) };
                let logits = vector(1 - skipped)?;
                let means = if *means { Some(vector(2 - skipped)?) } else { None };
                let result = T::of_mut(first);
                let io = k::InputGradIo { grad: dy, output: None, logits, means, result, write, scratch };
                grad.input(pool, images, io)
            }
        }
    }
}

impl Base {
    /// Lines of a number per channel.
    fn lines(&self) -> usize {
        Line::count(self.weight.len() * size_of::<f32>())
    }

    /// What a norm multiplies with.
    fn scale(&self, values: &[f32], [_, var]: [&[f32]; 2], scale: &mut [f32]) {
        for ((scale, weight), var) in scale.iter_mut().zip(&values[self.weight.clone()]).zip(var) {
            *scale = (f64::from(*weight) / (f64::from(*var) + f64::from(self.epsilon)).sqrt()) as f32;
        }
    }

    /// What a norm multiplies with and adds.
    fn scale_shift(&self, values: &[f32], statistics: [&[f32]; 2], scale: &mut [f32], shift: &mut [f32]) {
        self.scale(values, statistics, scale);
        let bias = &values[self.bias.clone()];
        for (((shift, scale), bias), mean) in shift.iter_mut().zip(&*scale).zip(bias).zip(statistics[0]) {
            *shift = (f64::from(*bias) - f64::from(*mean) * f64::from(*scale)) as f32;
        }
    }
}

/// Copies a batch's mean and variance to where the update of the running ones looks for them.
fn keep_statistics(gradients: &mut [f32], to: &[Range<usize>; 2], from: [&mut [f32]; 2]) {
    for (to, from) in to.iter().zip(from) {
        gradients[to.clone()].copy_from_slice(&from[..to.len()]);
    }
}

/// Two parts of a vector that do not overlap.
fn both<'a>(vector: &'a mut [f32], [a, b]: &[Range<usize>; 2]) -> [&'a mut [f32]; 2] {
    if a.start < b.start {
        let (left, right) = vector.split_at_mut(b.start);
        [&mut left[a.clone()], &mut right[..b.len()]]
    } else {
        let (left, right) = vector.split_at_mut(a.start);
        [&mut right[..a.len()], &mut left[b.clone()]]
    }
}
