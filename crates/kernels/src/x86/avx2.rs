//! 256-bit vectors with fused multiply-add.

use crate::Bf16;
use crate::simd::{Kernel, Simd};
use core::arch::x86_64::*;

/// Eight numbers in a `ymm` register.
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

/// Runs `kernel` in a function that is compiled for this level.
///
/// # Safety
///
/// The processor has AVX2 and FMA, and what the kernel's fields promise holds.
#[target_feature(enable = "avx2,fma")]
#[inline(never)]
pub(crate) unsafe fn call<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the same contract.
    unsafe { kernel.run::<Avx2>() }
}

/// All bits in the first `count` lanes.
#[inline(always)]
unsafe fn mask(count: usize) -> __m256i {
    // SAFETY: the caller has AVX2.
    unsafe {
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), lanes)
    }
}

/// Rounds to bf16 in the lower 16 bits of each lane, ties to even; NaN keeps its upper half and becomes quiet.
#[inline(always)]
unsafe fn round_bf16(value: __m256) -> __m256i {
    // SAFETY: the caller has AVX2.
    unsafe {
        let bits = _mm256_castps_si256(value);
        let upper = _mm256_srli_epi32::<16>(bits);
        let odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
        let rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(value, value));
        let quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
        _mm256_blendv_epi8(_mm256_srli_epi32::<16>(rounded), quiet, nan)
    }
}

/// The lower halves of eight lanes, packed.
#[inline(always)]
unsafe fn pack16(lanes: __m256i) -> __m128i {
    // SAFETY: the caller has AVX2.
    unsafe { _mm_packus_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256::<1>(lanes)) }
}

// SAFETY of every block: the caller promises that the processor has AVX2 and FMA and that the pointers are valid for
// the numbers named; no instruction used here needs alignment.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl Simd for Avx2 {
    type V = __m256;
    const LANES: usize = 8;
    const REGISTERS: usize = 16;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::V {
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: Self::V) {
        unsafe { _mm256_storeu_ps(to, value) }
    }
    #[inline(always)]
    unsafe fn load_part(from: *const f32, count: usize) -> Self::V {
        unsafe { _mm256_maskload_ps(from, mask(count)) }
    }
    #[inline(always)]
    unsafe fn store_part(to: *mut f32, value: Self::V, count: usize) {
        unsafe { _mm256_maskstore_ps(to, mask(count), value) }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const Bf16) -> Self::V {
        unsafe {
            let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves))
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(to: *mut Bf16, value: Self::V) {
        unsafe { _mm_storeu_si128(to.cast(), pack16(round_bf16(value))) }
    }
    #[inline(always)]
    unsafe fn load_bf16_part(from: *const Bf16, count: usize) -> Self::V {
        unsafe {
            let mut buffer = [Bf16(0); 8];
            std::ptr::copy_nonoverlapping(from, buffer.as_mut_ptr(), count);
            Self::load_bf16(buffer.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store_bf16_part(to: *mut Bf16, value: Self::V, count: usize) {
        unsafe {
            let mut buffer = [Bf16(0); 8];
            Self::store_bf16(buffer.as_mut_ptr(), value);
            std::ptr::copy_nonoverlapping(buffer.as_ptr(), to, count);
        }
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn where_positive(x: Self::V, a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm256_blendv_ps(b, a, _mm256_cmp_ps::<_CMP_GT_OQ>(x, _mm256_setzero_ps())) }
    }
    #[inline(always)]
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm256_min_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn round(x: Self::V) -> Self::V {
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x) }
    }
    #[inline(always)]
    unsafe fn exp2_whole(n: Self::V) -> Self::V {
        unsafe {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
        }
    }
    #[inline(always)]
    unsafe fn sum(x: Self::V) -> f32 {
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    type Pair = __m256i;
    #[inline(always)]
    unsafe fn splat_pair(from: *const Bf16) -> Self::Pair {
        unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn load_pairs(from: *const Bf16) -> Self::Pair {
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    unsafe fn dot_pair(acc: Self::V, a: Self::Pair, b: Self::Pair) -> Self::V {
        unsafe {
            let upper = _mm256_set1_epi32(0xffff_0000_u32 as i32);
            let low = |p| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(p));
            let high = |p| _mm256_castsi256_ps(_mm256_and_si256(p, upper));
            let acc = _mm256_fmadd_ps(low(a), low(b), acc);
            _mm256_fmadd_ps(high(a), high(b), acc)
        }
    }

    #[inline(always)]
    unsafe fn outline<K: Kernel>(kernel: K) -> K::Output {
        unsafe { call(kernel) }
    }

    #[inline(always)]
    unsafe fn stream(to: *mut f32, value: Self::V) {
        debug_assert!(to.addr().is_multiple_of(32));
        unsafe { _mm256_stream_ps(to, value) }
    }
    #[inline(always)]
    unsafe fn fence() {
        unsafe { _mm_sfence() }
    }

    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
    #[inline(always)]
    unsafe fn prefetch_l2(at: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
}
