//! The loop that element-wise kernels share: `y = activation(combine(x * scale + shift, other))`.
//!
//! One call does neighbouring pixels of a row, in the order of memory, which the processor's prefetching likes best:
//! without numbers per channel they are one long pixel, and with them, those are loaded anew for each pixel from the
//! first cache.

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

/// Vectors that one step of a loop computes: enough to hide latencies, few enough for sixteen registers.
pub(crate) const STEP: usize = 4;

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
        let (pixels, channels) =
            if flat { (1, self.pixels * self.channels) } else { (self.pixels, self.channels) };
        for pixel in 0..pixels {
            let at = pixel * channels;
            let mut k = 0;
            unsafe {
                while k + STEP * S::LANES <= channels {
                    self.step::<S, STEP, true>(at + k, k, 0);
                    k += STEP * S::LANES;
                }
                while k + S::LANES <= channels {
                    self.step::<S, 1, true>(at + k, k, 0);
                    k += S::LANES;
                }
                if k < channels {
                    self.step::<S, 1, false>(at + k, k, channels - k);
                }
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
    /// `N` vectors from element `at`, which are channels from `k`; whole ones, or `count` lanes of one.
    #[inline(always)]
    unsafe fn step<S: Simd, const N: usize, const FULL: bool>(&self, at: usize, k: usize, count: usize) {
        unsafe {
            let mut v = loads::<S, T, N, FULL>(self.x.add(at), count);
            if !self.scale.is_null() {
                let scale = loads::<S, f32, N, FULL>(self.scale.add(k), count);
                for i in 0..N {
                    v[i] = S::mul(v[i], scale[i]);
                }
            }
            if !self.shift.is_null() {
                let shift = loads::<S, f32, N, FULL>(self.shift.add(k), count);
                for i in 0..N {
                    v[i] = S::add(v[i], shift[i]);
                }
            }
            if self.combine != Combine::First {
                let other = if self.others.is_null() {
                    loads::<S, T, N, FULL>(self.other.add(at), count)
                } else {
                    loads::<S, f32, N, FULL>(self.others.add(k), count)
                };
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
                store::<S, T, FULL>(self.y.add(at + i * S::LANES), v[i], count);
            }
        }
    }
}

/// Loads `N` whole vectors, or `count` numbers of one.
///
/// # Safety
///
/// They are there, and the processor has the level of `S`.
#[inline(always)]
pub(crate) unsafe fn loads<S: Simd, T: Element, const N: usize, const FULL: bool>(
    from: *const T,
    count: usize,
) -> [S::V; N] {
    // SAFETY: the same contract; without `FULL`, `N` is 1.
    unsafe {
        let mut v = [S::splat(0.0); N];
        for i in 0..N {
            v[i] = load::<S, T, FULL>(from.add(i * S::LANES), count);
        }
        v
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

/// Asks for `N` vectors at `at`, which need not be valid.
///
/// # Safety
///
/// The processor has the level of `S`.
#[inline(always)]
pub(crate) unsafe fn prefetch<S: Simd, T: Element, const N: usize>(at: *const T) {
    let mut line = 0;
    while line < N * S::LANES * size_of::<T>() {
        // SAFETY: the same contract.
        unsafe { S::prefetch(at.cast::<u8>().wrapping_add(line)) };
        line += 64;
    }
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
        _ => {
            let mut v = v;
            // SAFETY: the same contract, and there are `N` vectors.
            unsafe { S::outline(Slow::<S> { activation, v: v.as_mut_ptr(), count: N }) };
            v
        }
    }
}

/// The longer activations: one copy of their code serves all loops, and costs little beside what they compute.
struct Slow<S: Simd> {
    activation: Activation,
    v: *mut S::V,
    count: usize,
}

// SAFETY of the blocks below: the caller of `Kernel::run` promises that there are `count` vectors of its level.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<L: Simd> Kernel for Slow<L> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for i in 0..self.count {
            unsafe {
                let x = self.v.add(i);
                *x = self.activation.apply::<L>(*x);
            }
        }
    }
}
