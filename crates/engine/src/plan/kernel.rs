//! The kernel of a step: chosen and packed once, run on the step's regions.

use super::step::Call;
use cardinal_kernels::{
    self as k, Bf16, ConvIo, DType, Element, GateIo, KernelError, Line, Map, Operand, SplitIo,
};

/// A kernel with its packed weights.
#[derive(Debug)]
pub(super) enum Kernel {
    /// The caller's images into a map: the input's index.
    Input(k::FromNchw, usize),
    /// A map into the caller's results: the output's index.
    Output(k::ToNchw, usize),
    Halo(k::FillHalo),
    /// Maps into channels of a wider one, or into another halo.
    Copy(Vec<k::CopyMap>),
    /// A map into the other format.
    Cast(k::CopyMap),
    Conv(Box<k::Conv>),
    MaxPool(k::MaxPool),
    AvgPool(k::AvgPool),
    /// And the rows that it walks through.
    GlobalPool(k::GlobalPool, usize),
    BlurPool(k::BlurPool),
    SplitAttention(k::SplitAttention),
    Gate(k::Gate),
    Binary(k::Map2, [Side; 2]),
    Affine(k::Affine),
    Activate(k::Activate),
    Softmax(k::Softmax, Map),
    SpaceToDepth(k::SpaceToDepth),
}

/// Where an operand of a binary operation comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The `n`th region that the step reads, a map.
    Map(usize),
    /// The `n`th region that the step reads, a vector for each image.
    Vector(usize),
    /// The kernel itself.
    Constant,
}

/// A format by its lines.
pub(crate) trait Lines: Element {
    fn of(lines: &[Line]) -> &[Self];
    fn of_mut(lines: &mut [Line]) -> &mut [Self];
}

impl Lines for f32 {
    fn of(lines: &[Line]) -> &[Self] {
        k::as_f32(lines)
    }

    fn of_mut(lines: &mut [Line]) -> &mut [Self] {
        k::as_f32_mut(lines)
    }
}

impl Lines for Bf16 {
    fn of(lines: &[Line]) -> &[Self] {
        k::as_bf16(lines)
    }

    fn of_mut(lines: &mut [Line]) -> &mut [Self] {
        k::as_bf16_mut(lines)
    }
}

impl Kernel {
    /// Bytes of packed weights.
    pub(super) fn weight_bytes(&self) -> usize {
        match self {
            Self::Conv(conv) => conv.packed_bytes(),
            _ => 0,
        }
    }

    /// Lines of scratch memory for `threads` workers.
    pub(super) fn scratch(&self, threads: usize) -> usize {
        match self {
            Self::Conv(conv) => conv.scratch(threads),
            Self::GlobalPool(pool, _) => pool.scratch(threads),
            Self::SplitAttention(split) => split.scratch(threads),
            Self::Gate(gate) => gate.scratch(threads),
            _ => 0,
        }
    }

    /// Runs on maps of `dtype`.
    pub(super) fn run(&self, call: Call<'_>, dtype: DType) -> Result<(), KernelError> {
        match dtype {
            DType::F32 => self.run_on::<f32>(call),
            DType::Bf16 => self.run_on::<Bf16>(call),
        }
    }

    fn run_on<T: Lines>(&self, mut call: Call<'_>) -> Result<(), KernelError> {
        let (pool, part) = (call.pool, call.part());
        match self {
            Self::Input(kernel, index) => {
                let image = call.inputs[*index].len() / call.images;
                let input = &call.inputs[*index][call.group.start * image..call.group.end * image];
                kernel.run(pool, &part, input, call.write::<T>(0))
            }
            Self::Output(kernel, index) => {
                let map = call.read::<T>(0)?;
                let image = call.step.output.h * call.step.output.w * call.step.output.c;
                let range = call.group.start * image..call.group.end * image;
                kernel.run(pool, &part, map, &mut call.outputs[*index][range])
            }
            Self::Halo(kernel) => kernel.run(pool, &part, call.write::<T>(0)),
            Self::Copy(kernels) => {
                for (i, kernel) in kernels.iter().enumerate() {
                    let input = call.read::<T>(i)?;
                    kernel.run(pool, &part, input, call.write::<T>(0))?;
                }
                Ok(())
            }
            Self::Cast(kernel) => match T::DTYPE {
                DType::F32 => {
                    let input = call.read::<f32>(0)?;
                    kernel.run(pool, &part, input, call.write::<Bf16>(0))
                }
                DType::Bf16 => {
                    let input = call.read::<Bf16>(0)?;
                    kernel.run(pool, &part, input, call.write::<f32>(0))
                }
            },
            Self::Conv(kernel) => {
                let (input, residual) = (call.read::<T>(0)?, call.read_if::<T>(1)?);
                let (output, pooled, scratch) = call.write_all::<T>();
                let io = ConvIo { input, output, residual, pooled, scratch };
                kernel.run(pool, &part, io)
            }
            Self::MaxPool(kernel) => kernel.run(pool, &part, call.read::<T>(0)?, call.write::<T>(0)),
            Self::AvgPool(kernel) => kernel.run(pool, &part, call.read::<T>(0)?, call.write::<T>(0)),
            Self::GlobalPool(kernel, rows) => {
                let input = call.read::<T>(0)?;
                let (output, _, scratch) = call.write_all::<f32>();
                let part = k::Part::whole(part.images, *rows);
                kernel.run(pool, &part, input, output, scratch)
            }
            Self::BlurPool(kernel) => kernel.run(pool, &part, call.read::<T>(0)?, call.write::<T>(0)),
            Self::SplitAttention(kernel) => {
                let (input, logits) = (call.read::<T>(0)?, call.read::<f32>(1)?);
                let (output, _, scratch) = call.write_all::<T>();
                kernel.run(pool, &part, SplitIo { input, logits, output, scratch })
            }
            Self::Gate(kernel) => {
                let (input, logits) = (Some(call.read::<T>(0)?), call.read::<f32>(1)?);
                let residual = call.read_if::<T>(2)?;
                let (output, _, scratch) = call.write_all::<T>();
                kernel.run(pool, &part, GateIo { input, logits, residual, output, scratch })
            }
            Self::Binary(kernel, sides) => {
                let operand = |side| match side {
                    Side::Map(i) => call.read::<T>(i).map(Operand::Map),
                    Side::Vector(i) => call.read::<f32>(i).map(Operand::PerImage),
                    Side::Constant => Ok(Operand::Constant),
                };
                let (left, right) = (operand(sides[0])?, operand(sides[1])?);
                kernel.run(pool, &part, left, right, call.write::<T>(0))
            }
            Self::Affine(kernel) => kernel.run(pool, &part, Some(call.read::<T>(0)?), call.write::<T>(0)),
            Self::Activate(kernel) => kernel.run(pool, &part, Some(call.read::<T>(0)?), call.write::<T>(0)),
            Self::Softmax(kernel, map) => {
                let rows = part.images * map.h * map.w;
                let input = call.read::<f32>(0)?;
                let output = call.write::<f32>(0);
                output[..rows * map.c].copy_from_slice(&input[..rows * map.c]);
                kernel.run(pool, rows, output)
            }
            Self::SpaceToDepth(kernel) => kernel.run(pool, &part, call.read::<T>(0)?, call.write::<T>(0)),
        }
    }
}

impl<'a> Call<'a> {
    /// The part of the step that this call computes.
    fn part(&self) -> k::Part {
        k::Part { images: self.group.len(), rows: self.rows.clone() }
    }

    /// The group's numbers of the `index`th region that the step reads.
    fn read<T: Lines>(&self, index: usize) -> Result<&'a [T], KernelError> {
        let region = &self.step.reads[index];
        let numbers = T::of(self.views.input(region.lines.clone())?);
        Ok(&numbers[region.start(self.group.start)..])
    }

    /// The same where the step may read less.
    fn read_if<T: Lines>(&self, index: usize) -> Result<Option<&'a [T]>, KernelError> {
        if index < self.step.reads.len() { self.read(index).map(Some) } else { Ok(None) }
    }

    /// The group's numbers of the `index`th region that the step writes.
    fn write<T: Lines>(&mut self, index: usize) -> &mut [T] {
        let start = self.step.writes[index].start(self.group.start);
        &mut T::of_mut(self.views.outputs[index])[start..]
    }

    /// Everything that the step writes: the result, the pooled means if there are any, and scratch memory.
    fn write_all<T: Lines>(&mut self) -> (&mut [T], Option<&mut [f32]>, &mut [Line]) {
        let start = |index: usize| self.step.writes.get(index).map(|region| region.start(self.group.start));
        let (first, second) = (start(0), start(1));
        let [result, pooled, scratch] = &mut self.views.outputs;
        let result = &mut T::of_mut(result)[first.unwrap_or(0)..];
        let pooled = second.map(|start| &mut k::as_f32_mut(pooled)[start..]);
        (result, pooled, scratch)
    }
}
