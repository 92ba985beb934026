//! Channel attention: split attention (ResNeSt), gates (squeeze-and-excitation), and the softmax of a classifier.
//!
//! The weights of an image are computed once per worker, into scratch memory, and then every pixel is read and written
//! once.

use crate::loops::Loops;
use crate::pointwise::{Combine, Run, STEP, activate, loads, store};
use crate::simd::{Kernel, Simd};
use crate::work::{In, Out, Share, Work, check_length, check_map, check_part, check_same};
use crate::{Activation, Element, Isa, KernelError, Line, Map, Part, Pool, arena, share};
use std::ptr::null;

const SPLIT: &str = "split attention";

/// `activation(sum over r of weight_r * x_r)`: the splits of a map, weighed and added.
///
/// Split `r` of `x` is its channels `r * c .. (r + 1) * c`, where `c` are the output's channels. The weights are the
/// softmax of the logits over the splits, or, of a single split, their sigmoid. Logits are `[images, radix * c]` with
/// the cardinal groups first: logit `(k * radix + r) * (c / cardinality) + i` is that of channel `i` of group `k` in
/// split `r`.
#[derive(Clone, Debug)]
pub struct SplitAttention {
    input: Map,
    output: Map,
    radix: usize,
    cardinality: usize,
    activation: Activation,
    isa: Isa,
}

/// The memory of one call of [`SplitAttention`].
#[derive(Debug)]
pub struct SplitIo<'a, T> {
    /// The input images, `radix * c` channels.
    pub input: &'a [T],
    /// `[images, radix * c]`.
    pub logits: &'a [f32],
    /// The output images, `c` channels.
    pub output: &'a mut [T],
    /// Memory for the weights; its content means nothing between calls.
    pub scratch: &'a mut [Line],
}

impl SplitAttention {
    /// From maps of `input` to maps of `output`.
    ///
    /// # Errors
    ///
    /// The sizes do not fit together.
    pub fn new(
        input: Map,
        output: Map,
        radix: usize,
        cardinality: usize,
        activation: Activation,
        isa: Isa,
    ) -> Result<Self, KernelError> {
        check_map(SPLIT, &input)?;
        check_map(SPLIT, &output)?;
        if radix == 0 || Some(input.c) != output.c.checked_mul(radix) {
            let reason = format!("{} channels are not {radix} splits of {}", input.c, output.c);
            return Err(KernelError::spec(SPLIT, reason));
        }
        if cardinality == 0 || !output.c.is_multiple_of(cardinality) {
            let reason = format!("{} channels are not a multiple of {cardinality} groups", output.c);
            return Err(KernelError::spec(SPLIT, reason));
        }
        check_same(SPLIT, &input, &Map { c: input.c, ..output })?;
        Ok(Self { input, output, radix, cardinality, activation, isa })
    }

    /// Lines of scratch memory for `threads` workers.
    #[must_use]
    pub fn scratch(&self, threads: usize) -> usize {
        Line::count(4 * self.input.c) * threads
    }

    /// Computes `part`.
    ///
    /// # Errors
    ///
    /// A slice is too short.
    #[expect(clippy::needless_pass_by_value, reason = "the call borrows the output for itself")]
    pub fn run<T: Element>(&self, pool: &Pool, part: &Part, io: SplitIo<'_, T>) -> Result<(), KernelError> {
        let (input, output) = (&self.input, &self.output);
        check_part(SPLIT, part, output.h)?;
        check_length(SPLIT, "input", io.input.len(), part.images, input.image())?;
        check_length(SPLIT, "output", io.output.len(), part.images, output.image())?;
        check_length(SPLIT, "logits", io.logits.len(), part.images, input.c)?;
        check_length(SPLIT, "scratch", io.scratch.len(), 1, self.scratch(pool.threads()))?;
        let (x, y, logits) = (In::new(io.input), Out::new(io.output), In::new(io.logits));
        let weights = Weights::new(io.scratch, input.c);
        let work = Work::new(pool, part, output, input.c * size_of::<T>());
        work.run(pool, |share| {
            // SAFETY: the scratch memory holds a row for each worker, and there is a row of logits for each image.
            let compute = |image: usize, weights: *mut f32| unsafe {
                split_weights(
                    self.isa,
                    SplitWeights {
                        logits: logits.at(image * input.c),
                        weights,
                        radix: self.radix,
                        cardinality: self.cardinality,
                        group: output.c / self.cardinality,
                    },
                );
            };
            weights.for_each(share, compute, |segment, weights| {
                // SAFETY: the lengths were checked, so every segment lies in both slices, and each is written by one
                // worker.
                unsafe {
                    T::weigh_splits(
                        self.isa,
                        WeighSplits {
                            x: x.at(segment.start(input)),
                            y: y.at(segment.start(output)),
                            weights,
                            pixels: segment.pixels,
                            channels: output.c,
                            radix: self.radix,
                            activation: self.activation,
                        },
                    );
                }
            });
        });
        Ok(())
    }
}

/// Scratch memory with a row of weights for each worker.
pub(crate) struct Weights {
    rows: Out<f32>,
    stride: usize,
}

impl Weights {
    pub(crate) fn new(scratch: &mut [Line], count: usize) -> Self {
        let stride = Line::count(4 * count) * Line::BYTES / 4;
        Self { rows: Out::new(arena::as_f32_mut(scratch)), stride }
    }

    /// Calls `compute` at the first segment of each image, and `item` for every segment.
    pub(crate) fn for_each(
        &self,
        share: Share,
        compute: impl Fn(usize, *mut f32),
        item: impl Fn(crate::work::Segment, *const f32),
    ) {
        // SAFETY: there is a row for each worker.
        let weights = unsafe { self.rows.at(share.worker * self.stride) };
        let mut known = None;
        for segment in share {
            if known != Some(segment.image) {
                compute(segment.image, weights);
                known = Some(segment.image);
            }
            item(segment, weights);
        }
    }
}

/// Computes the weights of one image; not generic, so that it is compiled in this crate.
///
/// # Safety
///
/// What the fields promise holds.
#[inline(never)]
pub(crate) unsafe fn split_weights(isa: Isa, weights: SplitWeights) {
    // SAFETY: the same contract.
    unsafe { isa.call(weights) }
}

/// The weights of one image, split by split.
pub(crate) struct SplitWeights {
    pub(crate) logits: *const f32,
    pub(crate) weights: *mut f32,
    pub(crate) radix: usize,
    pub(crate) cardinality: usize,
    /// Channels of a cardinal group.
    pub(crate) group: usize,
}

// SAFETY of the blocks below: the caller of `Kernel::run` promises that both pointers are valid for
// `radix * cardinality * group` numbers, and every offset is below that by the loops' bounds.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl Kernel for SplitWeights {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for k in 0..self.cardinality {
            let mut i = 0;
            while i < self.group {
                let count = (self.group - i).min(S::LANES);
                unsafe { self.softmax::<S>(k, i, count) };
                i += count;
            }
        }
    }
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl SplitWeights {
    /// `count` channels from `i` of group `k`.
    #[inline(always)]
    unsafe fn softmax<S: Simd>(&self, k: usize, i: usize, count: usize) {
        let Self { logits, weights, radix, cardinality, group } = *self;
        let channels = cardinality * group;
        unsafe {
            let logit = |r: usize| logits.add((k * radix + r) * group + i);
            let weight = |r: usize| weights.add(r * channels + k * group + i);
            if radix == 1 {
                let x = S::load_part(logit(0), count);
                S::store_part(weight(0), Activation::Sigmoid.apply::<S>(x), count);
                return;
            }
            let mut largest = S::load_part(logit(0), count);
            for r in 1..radix {
                largest = S::max(largest, S::load_part(logit(r), count));
            }
            let mut sum = S::splat(0.0);
            for r in 0..radix {
                let e = S::exp(S::sub(S::load_part(logit(r), count), largest));
                sum = S::add(sum, e);
                S::store_part(weight(r), e, count);
            }
            for r in 0..radix {
                let e = S::load_part(weight(r), count);
                S::store_part(weight(r), S::div(e, sum), count);
            }
        }
    }
}

/// Neighbouring pixels of a row, in the order of memory.
pub struct WeighSplits<T> {
    x: *const T,
    y: *mut T,
    weights: *const f32,
    pixels: usize,
    /// Of the output.
    channels: usize,
    radix: usize,
    activation: Activation,
}

// SAFETY of the blocks below: the caller of `Kernel::run` promises that `x` is valid for `pixels * radix * channels`
// numbers, `y` for `pixels * channels`, which no other thread touches, and `weights` for `radix * channels`; every
// offset is below these by the loops' bounds.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Kernel for WeighSplits<T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for pixel in 0..self.pixels {
            let mut k = 0;
            unsafe {
                while k + STEP * S::LANES <= self.channels {
                    self.step::<S, STEP, true>(pixel, k, 0);
                    k += STEP * S::LANES;
                }
                while k + S::LANES <= self.channels {
                    self.step::<S, 1, true>(pixel, k, 0);
                    k += S::LANES;
                }
                if k < self.channels {
                    self.step::<S, 1, false>(pixel, k, self.channels - k);
                }
            }
        }
    }
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> WeighSplits<T> {
    /// `N` vectors of channels from `k`; whole ones, or `count` lanes of one.
    #[inline(always)]
    unsafe fn step<S: Simd, const N: usize, const FULL: bool>(&self, pixel: usize, k: usize, count: usize) {
        unsafe {
            let mut x = self.x.add(pixel * self.radix * self.channels + k);
            let mut weights = self.weights.add(k);
            let mut v = loads::<S, T, N, FULL>(x, count);
            let weight = loads::<S, f32, N, FULL>(weights, count);
            for i in 0..N {
                v[i] = S::mul(v[i], weight[i]);
            }
            for _ in 1..self.radix {
                (x, weights) = (x.add(self.channels), weights.add(self.channels));
                let weight = loads::<S, f32, N, FULL>(weights, count);
                let x = loads::<S, T, N, FULL>(x, count);
                for i in 0..N {
                    v[i] = S::fma(x[i], weight[i], v[i]);
                }
            }
            v = activate::<S, N>(self.activation, v);
            let y = self.y.add(pixel * self.channels + k);
            for i in 0..N {
                store::<S, T, FULL>(y.add(i * S::LANES), v[i], count);
            }
        }
    }
}

const GATE: &str = "gate";

/// `activation(x * sigmoid(logits) + residual)`: channels scaled by an attention of their own.
#[derive(Clone, Debug)]
pub struct Gate {
    input: Map,
    output: Map,
    residual: Option<Map>,
    hard: bool,
    activation: Activation,
    isa: Isa,
}

/// The memory of one call of [`Gate`].
#[derive(Debug)]
pub struct GateIo<'a, T> {
    /// The input images; without them the output's are changed in place, for which both halos must be equal.
    pub input: Option<&'a [T]>,
    /// `[images, channels]`.
    pub logits: &'a [f32],
    /// The residual images, if the gate was built for them.
    pub residual: Option<&'a [T]>,
    /// The output images.
    pub output: &'a mut [T],
    /// Memory for the weights; its content means nothing between calls.
    pub scratch: &'a mut [Line],
}

impl Gate {
    /// From maps of `input` to maps of `output`; with `hard`, the weights are `min(max(v + 3, 0), 6) / 6` instead of
    /// the sigmoid.
    ///
    /// # Errors
    ///
    /// The sizes differ.
    pub fn new(
        input: Map,
        output: Map,
        residual: Option<Map>,
        hard: bool,
        activation: Activation,
        isa: Isa,
    ) -> Result<Self, KernelError> {
        check_same(GATE, &input, &output)?;
        if let Some(residual) = &residual {
            check_same(GATE, residual, &output)?;
        }
        Ok(Self { input, output, residual, hard, activation, isa })
    }

    /// Lines of scratch memory for `threads` workers.
    #[must_use]
    pub fn scratch(&self, threads: usize) -> usize {
        Line::count(4 * self.output.c) * threads
    }

    /// Computes `part`.
    ///
    /// # Errors
    ///
    /// A slice is too short or missing.
    #[expect(clippy::needless_pass_by_value, reason = "the call borrows the output for itself")]
    pub fn run<T: Element>(&self, pool: &Pool, part: &Part, io: GateIo<'_, T>) -> Result<(), KernelError> {
        let (output, c) = (&self.output, self.output.c);
        check_part(GATE, part, output.h)?;
        check_length(GATE, "output", io.output.len(), part.images, output.image())?;
        check_length(GATE, "logits", io.logits.len(), part.images, c)?;
        check_length(GATE, "scratch", io.scratch.len(), 1, self.scratch(pool.threads()))?;
        let residual = match &self.residual {
            Some(map) => {
                let residual = io.residual.unwrap_or(&[]);
                check_length(GATE, "residual", residual.len(), part.images, map.image())?;
                Some((map, In::new(residual)))
            }
            None => None,
        };
        let (y, logits) = (Out::new(io.output), In::new(io.logits));
        let x = match io.input {
            Some(input) => {
                check_length(GATE, "input", input.len(), part.images, self.input.image())?;
                In::new(input)
            }
            None if self.input == *output => In::of(y),
            None => return Err(KernelError::spec(GATE, "in place with another halo")),
        };
        let weights = Weights::new(io.scratch, c);
        let work = Work::new(pool, part, output, c * size_of::<T>());
        work.run(pool, |share| {
            let sigmoid = if self.hard { Activation::HardSigmoid } else { Activation::Sigmoid };
            // SAFETY: the scratch memory holds a row for each worker, and there is a row of logits for each image.
            let compute = |image: usize, weights: *mut f32| unsafe {
                let logits = Run { activation: sigmoid, ..Run::copy(logits.at(image * c), weights, 1, c) };
                f32::pointwise(self.isa, logits);
            };
            weights.for_each(share, compute, |segment, weights| {
                // SAFETY: the lengths were checked, so every segment lies in each slice, and each is written by one
                // worker.
                unsafe {
                    let (x, y) = (x.at(segment.start(&self.input)), y.at(segment.start(output)));
                    T::pointwise(
                        self.isa,
                        Run {
                            scale: weights,
                            other: residual.map_or(null(), |(map, residual)| residual.at(segment.start(map))),
                            combine: if residual.is_some() { Combine::Add } else { Combine::First },
                            activation: self.activation,
                            ..Run::copy(x, y, segment.pixels, c)
                        },
                    );
                }
            });
        });
        Ok(())
    }
}

const SOFTMAX: &str = "softmax";

/// The softmax of each row of `[rows, c]`.
#[derive(Clone, Debug)]
pub struct Softmax {
    c: usize,
    isa: Isa,
}

impl Softmax {
    /// Over rows of `c` numbers.
    ///
    /// # Errors
    ///
    /// `c` is zero.
    pub fn new(c: usize, isa: Isa) -> Result<Self, KernelError> {
        check_map(SOFTMAX, &Map::new(1, 1, c))?;
        Ok(Self { c, isa })
    }

    /// Replaces the first `rows` rows of `data` by their softmax.
    ///
    /// # Errors
    ///
    /// The slice is too short.
    pub fn run(&self, pool: &Pool, rows: usize, data: &mut [f32]) -> Result<(), KernelError> {
        check_length(SOFTMAX, "data", data.len(), rows, self.c)?;
        let data = Out::new(data);
        let softmax = |row: usize| {
            // SAFETY: the row lies in the slice, and one worker has it.
            unsafe { self.isa.call(SoftmaxRow { row: data.at(row * self.c), c: self.c }) };
        };
        let workers = pool.threads().min(rows);
        if workers <= 1 || rows * self.c < 4096 {
            (0..rows).for_each(softmax);
        } else {
            pool.run(|worker| {
                if worker < workers {
                    share(rows, workers, worker).for_each(softmax);
                }
            });
        }
        Ok(())
    }
}

struct SoftmaxRow {
    row: *mut f32,
    c: usize,
}

// SAFETY of the blocks below: the caller of `Kernel::run` promises that `row` is valid for `c` numbers that no other
// thread touches; every offset is below `c` by the loops' bounds.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl Kernel for SoftmaxRow {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { row, c } = self;
        unsafe {
            let mut largest = f32::NEG_INFINITY;
            for i in 0..c {
                largest = largest.max(*row.add(i));
            }
            let largest = S::splat(largest);
            let mut sums = S::splat(0.0);
            let mut i = 0;
            while i < c {
                let count = (c - i).min(S::LANES);
                let e = S::exp(S::sub(S::load_part(row.add(i), count), largest));
                S::store_part(row.add(i), e, count);
                // Read back, because the lanes behind the end are not zero.
                sums = S::add(sums, S::load_part(row.add(i), count));
                i += count;
            }
            let scale = 1.0 / S::sum(sums);
            for i in 0..c {
                *row.add(i) *= scale;
            }
        }
    }
}
