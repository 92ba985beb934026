//! One vector type per level behind one trait, so that a kernel's loops are written once.
//!
//! A [`Kernel`] is a generic `#[inline(always)]` function over [`Simd`]; [`Isa::call`] calls it from a function that is
//! compiled with the level's `target_feature`, into which it and the intrinsics are inlined. A closure in a kernel is a
//! function of its own, without the features: inner loops must do without.

use crate::{Bf16, Isa, Level};

/// Vectors of `f32` at one level.
///
/// # Safety
///
/// Every function may only be called on a processor that has the level, which holders of an [`Isa`](crate::Isa) know,
/// and pointers must be valid for the numbers named; no alignment is needed.
pub trait Simd: Copy + Send + Sync + 'static {
    /// A vector of `LANES` `f32`.
    type V: Copy;
    /// `f32` per vector.
    const LANES: usize;
    /// Vector registers, by which kernels choose their tile.
    const REGISTERS: usize;

    unsafe fn splat(value: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    unsafe fn store(to: *mut f32, value: Self::V);
    /// The first `count` numbers and zeros; reads no further.
    unsafe fn load_part(from: *const f32, count: usize) -> Self::V;
    /// Writes the first `count` numbers alone.
    unsafe fn store_part(to: *mut f32, value: Self::V, count: usize);
    unsafe fn load_bf16(from: *const Bf16) -> Self::V;
    /// Rounds to nearest, ties to even.
    unsafe fn store_bf16(to: *mut Bf16, value: Self::V);
    /// Stores both vectors, one after the other, as [`store_bf16`](Simd::store_bf16) does; denormals may become zero.
    #[inline(always)]
    unsafe fn store_bf16_two(to: *mut Bf16, low: Self::V, high: Self::V) {
        // SAFETY: the same contract.
        unsafe {
            Self::store_bf16(to, low);
            Self::store_bf16(to.add(Self::LANES), high);
        }
    }
    unsafe fn load_bf16_part(from: *const Bf16, count: usize) -> Self::V;
    unsafe fn store_bf16_part(to: *mut Bf16, value: Self::V, count: usize);

    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once where the level has it.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// `a` where `x > 0`, otherwise `b`.
    unsafe fn where_positive(x: Self::V, a: Self::V, b: Self::V) -> Self::V;
    /// To the nearest whole number, ties to even.
    unsafe fn round(x: Self::V) -> Self::V;
    /// `2^n` for whole numbers from -126 to 127.
    unsafe fn exp2_whole(n: Self::V) -> Self::V;
    /// The sum of all lanes, in a fixed order.
    unsafe fn sum(x: Self::V) -> f32;

    /// `exp(x)` to about one unit in the last place; outside [-87.3, 88] it stays at the value of the bound, so the
    /// result is neither zero nor infinite.
    #[inline(always)]
    unsafe fn exp(x: Self::V) -> Self::V {
        // SAFETY: the same contract.
        unsafe {
            let x = Self::min(Self::max(x, Self::splat(-87.3)), Self::splat(88.0));
            // x = n ln 2 + r with |r| <= ln 2 / 2; ln 2 in two parts, so that the product with n is exact.
            let n = Self::round(Self::mul(x, Self::splat(std::f32::consts::LOG2_E)));
            let r = Self::fma(n, Self::splat(-355.0 / 512.0), x);
            let r = Self::fma(n, Self::splat(2.121_944_4e-4), r);
            // The Taylor series: its remainder at ln 2 / 2 is below 2e-8.
            let mut p = Self::splat(1.0 / 5040.0);
            p = Self::fma(p, r, Self::splat(1.0 / 720.0));
            p = Self::fma(p, r, Self::splat(1.0 / 120.0));
            p = Self::fma(p, r, Self::splat(1.0 / 24.0));
            p = Self::fma(p, r, Self::splat(1.0 / 6.0));
            p = Self::fma(p, r, Self::splat(0.5));
            p = Self::fma(p, r, Self::splat(1.0));
            p = Self::fma(p, r, Self::splat(1.0));
            Self::mul(p, Self::exp2_whole(n))
        }
    }

    /// Two neighbouring numbers of bf16 in every lane.
    type Pair: Copy;
    /// Broadcasts one pair.
    unsafe fn splat_pair(from: *const Bf16) -> Self::Pair;
    /// Loads `LANES` pairs.
    unsafe fn load_pairs(from: *const Bf16) -> Self::Pair;
    /// `acc + a.0 * b.0 + a.1 * b.1` per lane, in `f32`.
    unsafe fn dot_pair(acc: Self::V, a: Self::Pair, b: Self::Pair) -> Self::V;

    /// Runs `kernel` as a function of its own at this level: what is inlined shares its registers with all around it,
    /// and a loop that needs every one of them must not.
    unsafe fn outline<K: Kernel>(kernel: K) -> K::Output;

    /// Stores past the caches, where the level can: for what is not read again soon. `to` is aligned to the vector, and
    /// [`fence`](Simd::fence) comes before another thread reads it.
    #[inline(always)]
    unsafe fn stream(to: *mut f32, value: Self::V) {
        // SAFETY: the same contract.
        unsafe { Self::store(to, value) }
    }

    /// Ends a row of calls of [`stream`](Simd::stream).
    #[inline(always)]
    unsafe fn fence() {}

    /// Asks for the cache line at `at` (which need not be valid).
    unsafe fn prefetch(at: *const u8);

    /// Asks for the cache line at `at` (which need not be valid) in the second cache only.
    #[inline(always)]
    unsafe fn prefetch_l2(at: *const u8) {
        // SAFETY: the same contract.
        unsafe { Self::prefetch(at) }
    }
}

/// A computation that is compiled once per level.
pub trait Kernel {
    /// What it returns.
    type Output;

    /// Runs it; must be `#[inline(always)]`.
    ///
    /// # Safety
    ///
    /// The processor has the level of `S`, and what the kernel's fields promise holds.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

impl Isa {
    /// Runs `kernel` with this level's vectors.
    ///
    /// # Safety
    ///
    /// What the kernel's fields promise holds.
    pub(crate) unsafe fn call<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: an `Isa` exists only for levels that the processor has; the rest is the caller's promise.
        unsafe {
            match self.level() {
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => crate::x86::avx2::call(kernel),
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => crate::x86::avx512::call(kernel),
                #[cfg(target_arch = "x86_64")]
                Level::Avx512Bf16 | Level::Amx => crate::x86::avx512::call_bf16(kernel),
                #[cfg(target_arch = "aarch64")]
                Level::Neon => crate::neon::call(kernel),
                _ => kernel.run::<crate::portable::Portable>(),
            }
        }
    }
}
