//! Depthwise convolution: every output channel reads one input channel.
//!
//! ```text
//! for each output row: for each few neighbouring outputs: for each vector of channels:
//!     acc[i] = bias
//!     for each row of the kernel:
//!         w[..] = the row's weights
//!         for each column j that the outputs read: x = input[j]
//!             acc[i] += x * w[j - i * stride]          for the outputs i that read it
//!     epilogue
//! ```
//!
//! 1. The common kernels (3, 5 or 7 columns) know their width and stride, so that each input is loaded once for all
//!    outputs that read it; any other kernel loads it for each.
//! 2. A row's last few outputs overlap those before them instead of being computed one by one.
//! 3. Weights are packed by [`PANEL`] channels, a cache line: `[panel][row][column][PANEL]`.

use super::weights::Weights;
use super::{CONV, ConvIo, ConvSpec};
use crate::pointwise::{activate, load, store};
use crate::simd::{Kernel, Simd};
use crate::work::{In, Means, Out, Segment, Share, Work, check_length};
use crate::{Activation, DType, Element, Isa, KernelError, Part, Pool};
use std::ptr::{null, null_mut};

/// Channels whose weights lie together: a multiple of every level's vector.
const PANEL: usize = 16;

/// A convolution with one input channel per group.
#[derive(Debug)]
pub(crate) struct Depthwise {
    spec: ConvSpec,
    dtype: DType,
    isa: Isa,
    /// `[panel][row][column][PANEL]`, zeros behind the last channel.
    weight: Vec<f32>,
    /// One for each output, zeros behind the last.
    bias: Vec<f32>,
}

impl Depthwise {
    /// Whether every group has one input; the outputs may be a multiple.
    pub(crate) fn supports(spec: &ConvSpec) -> bool {
        spec.group_inputs() == 1
    }

    /// Packs the weights of a convolution that was checked and is depthwise, rounded to `dtype`, with its bias.
    pub(crate) fn new(
        spec: &ConvSpec,
        weights: Weights<'_>,
        bias: Option<&[f32]>,
        dtype: DType,
        isa: Isa,
    ) -> Self {
        let panels = spec.output.c.div_ceil(PANEL);
        let weight = vec![0.0; panels * spec.kernel[0] * spec.kernel[1] * PANEL];
        let mut this = Self { spec: spec.clone(), dtype, isa, weight, bias: vec![0.0; panels * PANEL] };
        this.repack(weights, bias);
        this
    }

    pub(crate) fn spec(&self) -> &ConvSpec {
        &self.spec
    }

    /// Packs other weights and another bias; they are few.
    pub(crate) fn repack(&mut self, weights: Weights<'_>, bias: Option<&[f32]>) {
        let [rows, columns] = self.spec.kernel;
        let (c, outputs) = (self.spec.output.c, self.spec.group_outputs());
        for k in 0..c {
            let panel = &mut self.weight[k / PANEL * rows * columns * PANEL..];
            for (tap, to) in panel.chunks_exact_mut(PANEL).take(rows * columns).enumerate() {
                let from = weights.at([k / outputs, k % outputs, 0], [tap / columns, tap % columns]);
                // SAFETY: it is one of the convolution's weights.
                let weight = unsafe { *from };
                to[k % PANEL] = match self.dtype {
                    DType::F32 => weight,
                    DType::Bf16 => crate::Bf16::from_f32(weight).to_f32(),
                };
            }
        }
        match bias {
            Some(bias) => self.bias[..c].copy_from_slice(&bias[..c]),
            None => self.bias.fill(0.0),
        }
    }

    /// Bytes of the packed weights.
    pub(crate) fn packed_bytes(&self) -> usize {
        size_of_val(&self.weight[..]) + size_of_val(&self.bias[..])
    }

    /// Lines of scratch memory for `threads` workers.
    pub(crate) fn scratch(&self, threads: usize) -> usize {
        if self.spec.pooled { Means::scratch(self.spec.output.c, threads) } else { 0 }
    }

    /// Computes `part`.
    ///
    /// # Errors
    ///
    /// A slice is too short, or `T` is not the format that the weights were packed for.
    pub(crate) fn run<T: Element>(
        &self,
        pool: &Pool,
        part: &Part,
        io: ConvIo<'_, T>,
    ) -> Result<(), KernelError> {
        let spec = &self.spec;
        spec.check_io(part, &io)?;
        check_length(CONV, "scratch", io.scratch.len(), 1, self.scratch(pool.threads()))?;
        if T::DTYPE != self.dtype {
            return Err(KernelError::spec(CONV, format!("called with {}", T::DTYPE.name())));
        }
        let pooled = io.pooled.filter(|_| spec.pooled);
        let means = pooled.map(|pooled| Means::new(spec.output.c, part, pooled, io.scratch));
        let memory = Memory {
            x: In::new(io.input),
            y: Out::new(io.output),
            residual: io.residual.map(In::new),
            means: means.as_ref(),
        };
        let bytes = spec.output.c * size_of::<T>() * spec.kernel[0] * spec.kernel[1];
        let work = Work::new(pool, part, &spec.output, bytes);
        work.run(pool, |share| {
            if let Some(means) = memory.means {
                // SAFETY: the length of the scratch memory was checked.
                unsafe { means.begin(&share) };
            }
            for segment in share.clone() {
                // SAFETY: the lengths were checked, the specification's windows lie in the input, each output is
                // written by one worker, and so are its sums.
                unsafe { self.isa.call(self.row(&memory, &share, segment)) };
            }
        });
        if let Some(means) = means {
            // SAFETY: the workers are done.
            unsafe { means.finish(&work, spec.output.h) };
        }
        Ok(())
    }

    /// # Safety
    ///
    /// The segment lies in the output, and the memory is that of the specification.
    unsafe fn row<T>(&self, memory: &Memory<'_, T>, share: &Share, segment: Segment) -> Row<T> {
        let spec = &self.spec;
        let place = |axis: usize, at: usize| (at * spec.stride[axis]) as isize - spec.padding[axis] as isize;
        let from = spec.input.at(place(0, segment.y), place(1, segment.x));
        // SAFETY: the first tap of the first output lies in the input and its halo; the rest is the caller's promise.
        unsafe {
            Row {
                x: memory.x.at(segment.image * spec.input.image() + from),
                y: memory.y.at(segment.start(&spec.output)),
                residual: match (&spec.residual, memory.residual) {
                    (Some(map), Some(residual)) => residual.at(segment.start(map)),
                    _ => null(),
                },
                sums: memory.means.map_or(null_mut(), |means| means.at(share, segment.image)),
                pixels: segment.pixels,
                weight: self.weight.as_ptr(),
                bias: self.bias.as_ptr(),
                inputs: spec.input.c,
                outputs: spec.output.c,
                kernel: spec.kernel,
                stride: spec.stride,
                row: spec.dilation[0] * spec.input.row(),
                dilation: spec.dilation[1],
                activation: spec.activation,
            }
        }
    }
}

struct Memory<'a, T> {
    x: In<T>,
    y: Out<T>,
    residual: Option<In<T>>,
    means: Option<&'a Means>,
}

/// Neighbouring outputs of a row, with all that the loops need by value: they would load it anew after every store.
struct Row<T> {
    /// The first tap of the first output.
    x: *const T,
    y: *mut T,
    /// Null, or as many numbers as the outputs.
    residual: *const T,
    /// Null, or one number for each channel.
    sums: *mut f32,
    pixels: usize,
    weight: *const f32,
    bias: *const f32,
    /// Channels of the input and of the output.
    inputs: usize,
    outputs: usize,
    kernel: [usize; 2],
    stride: [usize; 2],
    /// Elements from one row of taps to the next.
    row: usize,
    /// Pixels from one column of taps to the next.
    dilation: usize,
    activation: Activation,
}

// SAFETY of the blocks below: the caller of `Kernel::run` promises that the windows of all `pixels` outputs lie in the
// input, that outputs, residual and sums are there and that no other thread touches outputs and sums. Outputs are
// below `pixels` by the loops' bounds, channels below `c`; weights and biases are padded to whole panels.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Kernel for Row<T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let width = if self.dilation == 1 && self.inputs == self.outputs { self.kernel[1] } else { 0 };
        unsafe {
            match (width, self.stride[1]) {
                (3, 1) => self.all::<S, 3, 1>(),
                (3, 2) => self.all::<S, 3, 2>(),
                (5, 1) => self.all::<S, 5, 1>(),
                (5, 2) => self.all::<S, 5, 2>(),
                (7, 1) => self.all::<S, 7, 1>(),
                _ => self.all::<S, 0, 0>(),
            }
        }
    }
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Row<T> {
    /// All outputs with a kernel of `WIDTH` columns, or any for 0.
    #[inline(always)]
    unsafe fn all<S: Simd, const WIDTH: usize, const STRIDE: usize>(&self) {
        unsafe {
            // As many accumulators as leave room for a row of weights and an input.
            if S::REGISTERS >= 32 && self.pixels >= 8 {
                self.by::<S, WIDTH, STRIDE, 8>();
            } else if self.pixels >= 4 {
                self.by::<S, WIDTH, STRIDE, 4>();
            } else {
                self.by::<S, 0, 0, 1>();
            }
        }
    }

    /// All outputs, `N` at a time; there are at least `N`.
    #[inline(always)]
    unsafe fn by<S: Simd, const WIDTH: usize, const STRIDE: usize, const N: usize>(&self) {
        let c = self.outputs;
        let mut next = 0;
        while next < self.pixels {
            // The last ones overlap those before, which must not be summed twice.
            let at = next.min(self.pixels - N);
            let known = next - at;
            let mut k = 0;
            unsafe {
                while k + S::LANES <= c {
                    self.step::<S, WIDTH, STRIDE, N, true>(at, known, k, 0);
                    k += S::LANES;
                }
                if k < c {
                    self.step::<S, WIDTH, STRIDE, N, false>(at, known, k, c - k);
                }
            }
            next = at + N;
        }
    }

    /// One vector of channels of `N` outputs.
    #[inline(always)]
    unsafe fn step<S: Simd, const WIDTH: usize, const STRIDE: usize, const N: usize, const FULL: bool>(
        &self,
        at: usize,
        known: usize,
        k: usize,
        count: usize,
    ) {
        let c = self.outputs;
        unsafe {
            let mut acc = [S::load(self.bias.add(k)); N];
            if WIDTH == 0 {
                self.any_window::<S, N, FULL>(&mut acc, at, k, count);
            } else {
                self.window::<S, WIDTH, STRIDE, N, FULL>(&mut acc, at, k, count);
            }
            if !self.residual.is_null() {
                let residual = self.residual.add(at * c + k);
                for i in 0..N {
                    acc[i] = S::add(acc[i], load::<S, T, FULL>(residual.add(i * c), count));
                }
            }
            let acc = activate::<S, N>(self.activation, acc);
            let y = self.y.add(at * c + k);
            for i in 0..N {
                store::<S, T, FULL>(y.add(i * c), acc[i], count);
            }
            if !self.sums.is_null() {
                let mut sum = S::splat(0.0);
                for i in 0..N {
                    if i >= known {
                        sum = S::add(sum, acc[i]);
                    }
                }
                let sums = self.sums.add(k);
                store::<S, f32, FULL>(sums, S::add(load::<S, f32, FULL>(sums, count), sum), count);
            }
        }
    }

    /// The weights of channels from `k`, tap by tap.
    #[inline(always)]
    unsafe fn weights(&self, k: usize) -> *const f32 {
        let taps = self.kernel[0] * self.kernel[1];
        unsafe { self.weight.add(k / PANEL * taps * PANEL + k % PANEL) }
    }

    #[inline(always)]
    unsafe fn window<S: Simd, const WIDTH: usize, const STRIDE: usize, const N: usize, const FULL: bool>(
        &self,
        acc: &mut [S::V; N],
        at: usize,
        k: usize,
        count: usize,
    ) {
        let c = self.inputs;
        unsafe {
            let mut weights = self.weights(k);
            let mut x = self.x.add(at * STRIDE * c + k);
            for row in 0..self.kernel[0] {
                let mut w = [acc[0]; WIDTH];
                for j in 0..WIDTH {
                    w[j] = S::load(weights.add(j * PANEL));
                }
                for j in 0..(N - 1) * STRIDE + WIDTH {
                    let x = load::<S, T, FULL>(x.add(j * c), count);
                    for i in 0..N {
                        if j >= i * STRIDE && j < i * STRIDE + WIDTH {
                            acc[i] = S::fma(x, w[j - i * STRIDE], acc[i]);
                        }
                    }
                }
                weights = weights.add(WIDTH * PANEL);
                // The rows that the next row of outputs does not share come from far: what the next outputs need of them.
                let line = 64 / size_of::<T>();
                if row + self.stride[0] >= self.kernel[0] && k.is_multiple_of(line) {
                    for j in (N - 1) * STRIDE + WIDTH..(2 * N - 1) * STRIDE + WIDTH {
                        S::prefetch(x.wrapping_add(j * c).cast());
                    }
                }
                x = x.wrapping_add(self.row);
            }
        }
    }

    /// Any kernel, stride and dilation, and several outputs per input.
    #[inline(always)]
    unsafe fn any_window<S: Simd, const N: usize, const FULL: bool>(
        &self,
        acc: &mut [S::V; N],
        at: usize,
        k: usize,
        count: usize,
    ) {
        let (c, stride) = (self.inputs, self.stride[1]);
        let multiplier = self.outputs / c;
        unsafe {
            let mut weights = self.weights(k);
            for y in 0..self.kernel[0] {
                for x in 0..self.kernel[1] {
                    let w = S::load(weights);
                    let x = self.x.add(y * self.row + (at * stride + x * self.dilation) * c);
                    for i in 0..N {
                        let x = x.add(i * stride * c);
                        let x = if multiplier == 1 {
                            load::<S, T, FULL>(x.add(k), count)
                        } else {
                            Self::repeated::<S>(x, k, multiplier, if FULL { S::LANES } else { count })
                        };
                        acc[i] = S::fma(x, w, acc[i]);
                    }
                    weights = weights.add(PANEL);
                }
            }
        }
    }

    /// The inputs of `count` outputs from `k`.
    #[inline(always)]
    unsafe fn repeated<S: Simd>(x: *const T, k: usize, multiplier: usize, count: usize) -> S::V {
        let mut lanes = [0.0; PANEL];
        unsafe {
            for (i, lane) in lanes.iter_mut().enumerate().take(count) {
                *lane = (*x.add((k + i) / multiplier)).to_f32();
            }
            S::load(lanes.as_ptr())
        }
    }
}
