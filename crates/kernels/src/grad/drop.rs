//! Dropout, stochastic depth and DropBlock, with masks that are functions of a key and an index.
//!
//! Nothing of a mask is kept: the backward pass is the forward pass on the gradient with the same key. The numbers are
//! those of SplitMix64 (Steele, Lea and Flood 2014), whose state after `i` steps is the key plus `i` times a constant, so
//! that any of them can be had alone. Integers all the way: the same bits on every level and for every number of threads.

use crate::simd::{Kernel, Simd};
use crate::work::{In, LARGEST, Out, Segment, Work, check_length, check_same};
use crate::{Element, Isa, KernelError, Line, Map, Part, Pool, arena, share};
use std::ptr::null;
use std::sync::atomic::{AtomicUsize, Ordering};

const NAME: &str = "drop";

/// What selects a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropKey(u64);

/// The state of SplitMix64 moves by it.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function of SplitMix64: a bijection that changes half the bits for each that is changed.
fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl DropKey {
    /// The key of layer `layer` in step `step` of the run with seed `seed`. The three are mixed one after the other, so
    /// that near ones have streams that are far from each other.
    #[must_use]
    pub fn new(seed: u64, step: u64, layer: u64) -> Self {
        let add = |state: u64, x: u64| mix(state.wrapping_add(STEP).wrapping_add(x));
        Self(add(add(add(0, seed), step), layer))
    }

    /// Number `index` of the stream, uniform over all `u32`.
    #[must_use]
    pub fn draw(self, index: u64) -> u32 {
        (mix(self.0.wrapping_add(index.wrapping_add(1).wrapping_mul(STEP))) >> 32) as u32
    }

    /// Whether number `index` is below `probability`, rounded to a multiple of 2^-32.
    #[must_use]
    pub fn below(self, index: u64, probability: f64) -> bool {
        u64::from(self.draw(index)) < (probability * 2_f64.powi(32)) as u64
    }
}

/// What is dropped together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Each number by itself (dropout): its index counts images, rows, columns and channels, without halos.
    Numbers,
    /// Whole images (stochastic depth): the index is the image's.
    Images,
    /// Squares of so many rows and columns of a channel, the same in all images (DropBlock, ResNeSt section 5.2). The
    /// index of a square counts rows, columns and channels; squares are as large as the map at most.
    Squares(usize),
}

/// Zeroes what is dropped, and scales the rest: numbers and images by one over the probability to stay, with squares by
/// one over the share of the mask that stayed.
#[derive(Clone, Debug)]
pub struct RandomDrop {
    input: Map,
    output: Map,
    dropped: Dropped,
    isa: Isa,
}

/// The memory of one call of [`RandomDrop`].
#[derive(Debug)]
pub struct RandomDropIo<'a, T> {
    /// The images, or the gradient; without it those of `output` are changed in place, for which both maps must be equal.
    pub input: Option<&'a [T]>,
    /// The result.
    pub output: &'a mut [T],
    /// Memory for the mask; its content means nothing between calls.
    pub scratch: &'a mut [Line],
}

impl RandomDrop {
    /// From maps of `input` to maps of `output`.
    ///
    /// # Errors
    ///
    /// The sizes differ, or squares have none.
    pub fn new(input: Map, output: Map, dropped: Dropped, isa: Isa) -> Result<Self, KernelError> {
        check_same(NAME, &input, &output)?;
        if let Dropped::Squares(side) = dropped
            && !(1..LARGEST).contains(&side)
        {
            return Err(KernelError::spec(NAME, format!("squares of {side}")));
        }
        Ok(Self { input, output, dropped, isa })
    }

    /// Lines of scratch memory.
    #[must_use]
    pub fn scratch(&self) -> usize {
        match self.dropped {
            Dropped::Squares(_) => Line::count(self.numbers() * size_of::<f32>()),
            Dropped::Numbers | Dropped::Images => 0,
        }
    }

    /// Numbers of an image without its halo.
    fn numbers(&self) -> usize {
        self.output.h * self.output.w * self.output.c
    }

    /// Computes `images` images, of which a share `rate` in `[0, 1)` is dropped.
    ///
    /// # Errors
    ///
    /// A slice is too short, or the rate lies outside.
    pub fn run<T: Element>(
        &self,
        pool: &Pool,
        images: usize,
        key: DropKey,
        rate: f64,
        io: RandomDropIo<'_, T>,
    ) -> Result<(), KernelError> {
        let RandomDropIo { input, output, scratch } = io;
        if !(0.0..1.0).contains(&rate) {
            return Err(KernelError::spec(NAME, format!("a rate of {rate}")));
        }
        check_length(NAME, "output", output.len(), images, self.output.image())?;
        check_length(NAME, "scratch", scratch.len(), 1, self.scratch())?;
        let y = Out::new(output);
        let x = match input {
            Some(input) => {
                check_length(NAME, "input", input.len(), images, self.input.image())?;
                In::new(input)
            }
            None if self.input == self.output => In::of(y),
            None => return Err(KernelError::spec(NAME, "in place with another halo")),
        };
        let stay = (1.0 / (1.0 - rate)) as f32;
        let mask = arena::as_f32_mut(scratch);
        let scale = match self.dropped {
            Dropped::Squares(side) => self.squares(pool, key, rate, side, mask),
            Dropped::Numbers | Dropped::Images => stay,
        };
        let c = self.output.c;
        let work = Work::new(pool, &Part::whole(images, self.output.h), &self.output, 2 * c * size_of::<T>());
        work.run(pool, |share| {
            for segment in share {
                // SAFETY: the lengths were checked, so every segment lies in both slices, and each is written by one
                // worker.
                let (x, y) = unsafe { (x.at(segment.start(&self.input)), y.at(segment.start(&self.output))) };
                let masked = Masked { x, y, mask: null(), scale, count: segment.pixels * c };
                let first = (segment.y * self.output.w + segment.x) * c;
                match self.dropped {
                    Dropped::Numbers => self.each(key, rate, &segment, masked),
                    Dropped::Images => {
                        let scale = if key.below(segment.image as u64, rate) { 0.0 } else { scale };
                        // SAFETY: as above.
                        unsafe { T::masked(self.isa, Masked { scale, ..masked }) };
                    }
                    // SAFETY: as above, and the mask holds an image.
                    Dropped::Squares(_) => unsafe {
                        T::masked(self.isa, Masked { mask: mask[first..].as_ptr(), ..masked });
                    },
                }
            }
        });
        Ok(())
    }

    /// Drops numbers of a segment, some at a time.
    fn each<T: Element>(&self, key: DropKey, rate: f64, segment: &Segment, whole: Masked<T>) {
        let Map { h, w, c, .. } = self.output;
        let start = ((segment.image * h + segment.y) * w + segment.x) * c;
        let mut mask = [0.0; 256];
        let mut at = 0;
        while at < whole.count {
            let count = (whole.count - at).min(mask.len());
            for (i, mask) in mask[..count].iter_mut().enumerate() {
                *mask = if key.below((start + at + i) as u64, rate) { 0.0 } else { 1.0 };
            }
            // SAFETY: these are numbers of the segment, for which the caller made `whole`.
            unsafe {
                let (x, y) = (whole.x.add(at), whole.y.add(at));
                T::masked(self.isa, Masked { x, y, mask: mask.as_ptr(), count, ..whole });
            }
            at += count;
        }
    }

    /// Writes 0 to the numbers of the mask in dropped squares and 1 to the others; gives one over the share of the
    /// others.
    ///
    /// As in the reference, a square of side `b` around row `y` has the rows from `y - (b - 1) / 2` to `y + b / 2`, cut
    /// off at the border, and the probability of one is such that a share `rate` would be dropped by squares that lie
    /// inside the map. They lie everywhere, so large ones drop more.
    fn squares(&self, pool: &Pool, key: DropKey, rate: f64, side: usize, mask: &mut [f32]) -> f32 {
        let Map { h, w, c, .. } = self.output;
        let side = side.min(h).min(w);
        let places = (h - side + 1) * (w - side + 1);
        let probability = rate * (h * w) as f64 / (side * side * places) as f64;
        let zeroed = AtomicUsize::new(0);
        let mask = Out::new(&mut mask[..h * w * c]);
        let workers = pool.threads().min(c);
        let span = |at: usize, size: usize| at.saturating_sub((side - 1) / 2)..size.min(at + side / 2 + 1);
        pool.for_each(workers, |worker| {
            let own = share(c, workers, worker);
            let mut count = 0;
            for pixel in 0..h * w {
                for k in own.clone() {
                    // SAFETY: the mask has a number for each channel of each pixel, and a channel is one worker's.
                    unsafe { mask.at(pixel * c + k).write(1.0) };
                }
            }
            for pixel in 0..h * w {
                for k in own.clone() {
                    if !key.below((pixel * c + k) as u64, probability) {
                        continue;
                    }
                    for y in span(pixel / w, h) {
                        for x in span(pixel % w, w) {
                            // SAFETY: as above.
                            unsafe {
                                let number = mask.at((y * w + x) * c + k);
                                count += usize::from(*number != 0.0);
                                *number = 0.0;
                            }
                        }
                    }
                }
            }
            zeroed.fetch_add(count, Ordering::Relaxed);
        });
        let kept = 1.0 - zeroed.into_inner() as f64 / (h * w * c) as f64;
        (1.0 / kept.max(1e-7)) as f32
    }
}

/// `y = x * (mask * scale)` for neighbouring numbers; without a mask, `x * scale`.
#[derive(Clone, Copy)]
pub struct Masked<T> {
    x: *const T,
    y: *mut T,
    mask: *const f32,
    scale: f32,
    count: usize,
}

// SAFETY of the blocks below: the caller of `Kernel::run` promises that the pointers are valid for `count` numbers, or
// null for the mask, and that no other thread touches those of `y`; offsets are below `count` by the loops' bounds.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Kernel for Masked<T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        unsafe { through_channels!(self.step(), self.count) }
    }
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Masked<T> {
    #[inline(always)]
    unsafe fn step<S: Simd, const N: usize, const FULL: bool>(&self, k: usize, count: usize) {
        use crate::pointwise::{loads, store};
        unsafe {
            let x = loads::<S, T, N, FULL>(self.x.add(k), count);
            let mut scale = [S::splat(self.scale); N];
            if !self.mask.is_null() {
                let mask = loads::<S, f32, N, FULL>(self.mask.add(k), count);
                for i in 0..N {
                    scale[i] = S::mul(mask[i], scale[i]);
                }
            }
            for i in 0..N {
                store::<S, T, FULL>(self.y.add(k + i * S::LANES), S::mul(x[i], scale[i]), count);
            }
        }
    }
}
