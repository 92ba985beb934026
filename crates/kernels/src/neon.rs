//! 128-bit vectors of `AArch64`.

use crate::Bf16;
use crate::simd::{Kernel, Simd};
use core::arch::aarch64::*;

/// Four numbers in a `v` register.
#[derive(Clone, Copy)]
pub(crate) struct Neon;

/// Runs `kernel`; every `AArch64` processor has this level.
///
/// # Safety
///
/// What the kernel's fields promise holds.
#[inline(never)]
pub(crate) unsafe fn call<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the same contract.
    unsafe { kernel.run::<Neon>() }
}

/// Rounds to bf16, ties to even; NaN keeps its upper half and becomes quiet.
#[inline(always)]
unsafe fn round_bf16(value: float32x4_t) -> uint16x4_t {
    // SAFETY: the caller has NEON.
    unsafe {
        let bits = vreinterpretq_u32_f32(value);
        let upper = vshrq_n_u32::<16>(bits);
        let odd = vandq_u32(upper, vdupq_n_u32(1));
        let rounded = vshrq_n_u32::<16>(vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd));
        let number = vceqq_f32(value, value);
        vmovn_u32(vbslq_u32(number, rounded, vorrq_u32(upper, vdupq_n_u32(0x40))))
    }
}

// SAFETY of every block: every AArch64 processor has NEON, and the caller promises that the pointers are valid for the
// numbers named; no instruction used here needs alignment beyond that of the number.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl Simd for Neon {
    type V = float32x4_t;
    const LANES: usize = 4;
    const REGISTERS: usize = 32;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::V {
        unsafe { vdupq_n_f32(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        unsafe { vld1q_f32(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: Self::V) {
        unsafe { vst1q_f32(to, value) }
    }
    #[inline(always)]
    unsafe fn load_part(from: *const f32, count: usize) -> Self::V {
        unsafe {
            let mut buffer = [0.0; 4];
            std::ptr::copy_nonoverlapping(from, buffer.as_mut_ptr(), count);
            vld1q_f32(buffer.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store_part(to: *mut f32, value: Self::V, count: usize) {
        unsafe {
            let mut buffer = [0.0; 4];
            vst1q_f32(buffer.as_mut_ptr(), value);
            std::ptr::copy_nonoverlapping(buffer.as_ptr(), to, count);
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const Bf16) -> Self::V {
        unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from.cast()))) }
    }
    #[inline(always)]
    unsafe fn store_bf16(to: *mut Bf16, value: Self::V) {
        unsafe { vst1_u16(to.cast(), round_bf16(value)) }
    }
    #[inline(always)]
    unsafe fn load_bf16_part(from: *const Bf16, count: usize) -> Self::V {
        unsafe {
            let mut buffer = [Bf16(0); 4];
            std::ptr::copy_nonoverlapping(from, buffer.as_mut_ptr(), count);
            Self::load_bf16(buffer.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store_bf16_part(to: *mut Bf16, value: Self::V, count: usize) {
        unsafe {
            let mut buffer = [Bf16(0); 4];
            Self::store_bf16(buffer.as_mut_ptr(), value);
            std::ptr::copy_nonoverlapping(buffer.as_ptr(), to, count);
        }
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        unsafe { vaddq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        unsafe { vsubq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        unsafe { vmulq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
        unsafe { vdivq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        unsafe { vfmaq_f32(c, a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) }
    }
    #[inline(always)]
    unsafe fn where_positive(x: Self::V, a: Self::V, b: Self::V) -> Self::V {
        unsafe { vbslq_f32(vcgtq_f32(x, vdupq_n_f32(0.0)), a, b) }
    }
    #[inline(always)]
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
        unsafe { vbslq_f32(vcltq_f32(a, b), a, b) }
    }
    #[inline(always)]
    unsafe fn round(x: Self::V) -> Self::V {
        unsafe { vrndnq_f32(x) }
    }
    #[inline(always)]
    unsafe fn exp2_whole(n: Self::V) -> Self::V {
        unsafe {
            let exponent = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent))
        }
    }
    #[inline(always)]
    unsafe fn sum(x: Self::V) -> f32 {
        unsafe { vaddvq_f32(x) }
    }

    type Pair = uint32x4_t;
    #[inline(always)]
    unsafe fn splat_pair(from: *const Bf16) -> Self::Pair {
        unsafe { vdupq_n_u32(from.cast::<u32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn load_pairs(from: *const Bf16) -> Self::Pair {
        unsafe { vreinterpretq_u32_u16(vld1q_u16(from.cast())) }
    }
    #[inline(always)]
    unsafe fn dot_pair(acc: Self::V, a: Self::Pair, b: Self::Pair) -> Self::V {
        unsafe {
            let upper = vdupq_n_u32(0xffff_0000);
            let low = |p| vreinterpretq_f32_u32(vshlq_n_u32::<16>(p));
            let high = |p| vreinterpretq_f32_u32(vandq_u32(p, upper));
            let acc = vfmaq_f32(acc, low(a), low(b));
            vfmaq_f32(acc, high(a), high(b))
        }
    }

    #[inline(always)]
    unsafe fn outline<K: Kernel>(kernel: K) -> K::Output {
        unsafe { call(kernel) }
    }

    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
}
