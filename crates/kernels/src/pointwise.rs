//! The loop that element-wise kernels share: `y = activation(combine(x * scale + shift, other))`.
//!
//! One call does neighbouring pixels of a row. Without numbers per channel these are one long vector; with them, four
//! pixels go through the channels together, so that each scale is loaded once for four.

use crate::simd::{Kernel, Simd};
use crate::{Activation, Element};
use std::ptr::null;

/// How two numbers become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Combine {
    /// `x`.
    First,
    Add,
    Sub,
    /// `other - x`.
    SubFrom,
    Mul,
}

/// Vectors that one step of the loops computes: enough to hide latencies, few enough for sixteen registers.
const STEP: usize = 4;

/// Neighbouring pixels of a row. Pointers to channels may be null, which stands for no such operand.
#[derive(Clone, Copy)]
pub struct Run<T> {
    /// `pixels * channels` numbers.
    pub(crate) x: *const T,
    /// As many; may be `x`.
    pub(crate) y: *mut T,
    pub(crate) pixels: usize,
    pub(crate) channels: usize,
    /// One number per channel.
    pub(crate) scale: *const f32,
    /// One number per channel.
    pub(crate) shift: *const f32,
    /// As many numbers as `x`.
    pub(crate) other: *const T,
    /// One number per channel that takes the place of `other`.
    pub(crate) others: *const f32,
    pub(crate) combine: Combine,
    pub(crate) activation: Activation,
}

// SAFETY of the blocks below: the caller of `Kernel::run` promises that each pointer is valid for the numbers that its
// field names or null, and that no other thread touches `y`; every offset is below `pixels * channels`, and offsets
// into channels are below `channels`, by the loops' bounds.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Kernel for Run<T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let flat = self.scale.is_null() && self.shift.is_null() && self.others.is_null();
        unsafe {
            if flat {
                self.long::<S>(self.pixels * self.channels);
                return;
            }
            let mut pixel = 0;
            while pixel + STEP <= self.pixels {
                self.through_channels::<S, STEP>(pixel * self.channels);
                pixel += STEP;
            }
            while pixel < self.pixels {
                self.through_channels::<S, 1>(pixel * self.channels);
                pixel += 1;
            }
        }
    }
}

impl<T> Run<T> {
    /// `y = x`, for others to change fields of.
    pub(crate) fn copy(x: *const T, y: *mut T, pixels: usize, channels: usize) -> Self {
        let (scale, shift, other, others) = (null(), null(), null(), null());
        let (combine, activation) = (Combine::First, Activation::Identity);
        Self { x, y, pixels, channels, scale, shift, other, others, combine, activation }
    }
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Run<T> {
    #[inline(always)]
    unsafe fn long<S: Simd>(&self, count: usize) {
        unsafe {
            let mut at = 0;
            while at + STEP * S::LANES <= count {
                self.step::<S, STEP, true>(at, S::LANES, 0, 0);
                at += STEP * S::LANES;
            }
            while at + S::LANES <= count {
                self.step::<S, 1, true>(at, 0, 0, 0);
                at += S::LANES;
            }
            if at < count {
                self.step::<S, 1, false>(at, 0, 0, count - at);
            }
        }
    }

    /// All channels of `N` pixels, the first of which begins at `at`.
    #[inline(always)]
    unsafe fn through_channels<S: Simd, const N: usize>(&self, at: usize) {
        unsafe {
            let mut k = 0;
            while k + S::LANES <= self.channels {
                self.step::<S, N, true>(at + k, self.channels, k, 0);
                k += S::LANES;
            }
            if k < self.channels {
                self.step::<S, N, false>(at + k, self.channels, k, self.channels - k);
            }
        }
    }

    /// `N` vectors, `pitch` numbers apart, of channels from `k`; whole ones, or `count` lanes of each.
    #[inline(always)]
    unsafe fn step<S: Simd, const N: usize, const FULL: bool>(
        &self,
        at: usize,
        pitch: usize,
        k: usize,
        count: usize,
    ) {
        unsafe {
            let mut v = [S::splat(0.0); N];
            for i in 0..N {
                v[i] = load::<S, T, FULL>(self.x.add(at + i * pitch), count);
            }
            if !self.scale.is_null() {
                let scale = load::<S, f32, FULL>(self.scale.add(k), count);
                for i in 0..N {
                    v[i] = S::mul(v[i], scale);
                }
            }
            if !self.shift.is_null() {
                let shift = load::<S, f32, FULL>(self.shift.add(k), count);
                for i in 0..N {
                    v[i] = S::add(v[i], shift);
                }
            }
            if self.combine != Combine::First {
                let mut other = [S::splat(0.0); N];
                if self.others.is_null() {
                    for i in 0..N {
                        other[i] = load::<S, T, FULL>(self.other.add(at + i * pitch), count);
                    }
                } else {
                    other = [load::<S, f32, FULL>(self.others.add(k), count); N];
                }
                for i in 0..N {
                    v[i] = match self.combine {
                        Combine::First => v[i],
                        Combine::Add => S::add(v[i], other[i]),
                        Combine::Sub => S::sub(v[i], other[i]),
                        Combine::SubFrom => S::sub(other[i], v[i]),
                        Combine::Mul => S::mul(v[i], other[i]),
                    };
                }
            }
            v = activate::<S, N>(self.activation, v);
            for i in 0..N {
                store::<S, T, FULL>(self.y.add(at + i * pitch), v[i], count);
            }
        }
    }
}

/// Loads a whole vector, or `count` numbers.
///
/// # Safety
///
/// They are there, and the processor has the level of `S`.
#[inline(always)]
pub(crate) unsafe fn load<S: Simd, T: Element, const FULL: bool>(from: *const T, count: usize) -> S::V {
    // SAFETY: the same contract.
    unsafe { if FULL { T::load::<S>(from) } else { T::load_part::<S>(from, count) } }
}

/// Stores a whole vector, or `count` numbers.
///
/// # Safety
///
/// There is room for them, and the processor has the level of `S`.
#[inline(always)]
pub(crate) unsafe fn store<S: Simd, T: Element, const FULL: bool>(to: *mut T, value: S::V, count: usize) {
    // SAFETY: the same contract.
    unsafe { if FULL { T::store::<S>(to, value) } else { T::store_part::<S>(to, value, count) } }
}

/// Applies `activation` to `N` vectors, choosing it once.
///
/// # Safety
///
/// The processor has the level of `S`.
#[inline(always)]
pub(crate) unsafe fn activate<S: Simd, const N: usize>(activation: Activation, v: [S::V; N]) -> [S::V; N] {
    macro_rules! each {
        ($activation:expr) => {{
            let mut v = v;
            for x in &mut v {
                // SAFETY: the same contract.
                *x = unsafe { $activation.apply::<S>(*x) };
            }
            v
        }};
    }
    match activation {
        Activation::Identity => v,
        Activation::Relu => each!(Activation::Relu),
        Activation::LeakyRelu(slope) => each!(Activation::LeakyRelu(slope)),
        Activation::Relu6 => each!(Activation::Relu6),
        Activation::Sigmoid => each!(Activation::Sigmoid),
        Activation::Silu => each!(Activation::Silu),
        Activation::HardSigmoid => each!(Activation::HardSigmoid),
        Activation::HardSwish => each!(Activation::HardSwish),
    }
}
