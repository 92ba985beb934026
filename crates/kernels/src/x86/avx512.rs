//! 512-bit vectors, with and without dot products of bf16.

use crate::Bf16;
use crate::simd::{Kernel, Simd};
use core::arch::x86_64::*;

/// Sixteen numbers in a `zmm` register; pairs of bf16 are multiplied as `f32`.
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

/// The same with `vdpbf16ps`, which flushes denormals to zero, and with its rounding to bf16.
#[derive(Clone, Copy)]
pub(crate) struct Avx512Bf16;

/// Runs `kernel` in a function that is compiled for AVX-512.
///
/// # Safety
///
/// The processor has AVX-512 F, BW, DQ and VL, and what the kernel's fields promise holds.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
#[inline(never)]
pub(crate) unsafe fn call<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the same contract.
    unsafe { kernel.run::<Avx512>() }
}

/// Runs `kernel` in a function that is compiled for AVX-512 with bf16.
///
/// # Safety
///
/// As [`call`], and the processor has AVX512-BF16.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
#[inline(never)]
pub(crate) unsafe fn call_bf16<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the same contract.
    unsafe { kernel.run::<Avx512Bf16>() }
}

/// One bit for each of the first `count` lanes.
#[inline(always)]
fn mask(count: usize) -> __mmask16 {
    ((1_u32 << count) - 1) as __mmask16
}

/// Rounds to bf16, ties to even; NaN keeps its upper half and becomes quiet.
#[inline(always)]
unsafe fn round_bf16(value: __m512) -> __m256i {
    // SAFETY: the caller has AVX-512.
    unsafe {
        let bits = _mm512_castps_si512(value);
        let upper = _mm512_srli_epi32::<16>(bits);
        let odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
        let rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(value, value);
        let quiet = _mm512_or_si512(upper, _mm512_set1_epi32(0x40));
        _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(_mm512_srli_epi32::<16>(rounded), nan, quiet))
    }
}

/// The same in one instruction, which needs AVX512-BF16; denormals become zero.
#[inline(always)]
unsafe fn convert_bf16(value: __m512) -> __m256i {
    // SAFETY: the caller has AVX512-BF16; both types are 256 bits of any value.
    unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(value)) }
}

#[inline(always)]
unsafe fn dot_as_f32(acc: __m512, a: __m512i, b: __m512i) -> __m512 {
    // SAFETY: the caller has AVX-512.
    unsafe {
        let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
        let low = |p| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(p));
        let high = |p| _mm512_castsi512_ps(_mm512_and_si512(p, upper));
        let acc = _mm512_fmadd_ps(low(a), low(b), acc);
        _mm512_fmadd_ps(high(a), high(b), acc)
    }
}

#[inline(always)]
unsafe fn dot_as_bf16(acc: __m512, a: __m512i, b: __m512i) -> __m512 {
    // SAFETY: the caller has AVX512-BF16; both types are 512 bits of any value.
    unsafe {
        let (a, b) =
            (std::mem::transmute::<__m512i, __m512bh>(a), std::mem::transmute::<__m512i, __m512bh>(b));
        _mm512_dpbf16_ps(acc, a, b)
    }
}

/// Rounds both vectors to bf16, one after the other in memory.
#[inline(always)]
unsafe fn store_two(to: *mut Bf16, low: __m512, high: __m512) {
    // SAFETY: the caller has AVX-512 and vouches for 32 numbers.
    unsafe {
        _mm256_storeu_si256(to.cast(), round_bf16(low));
        _mm256_storeu_si256(to.add(16).cast(), round_bf16(high));
    }
}

/// The same in two instructions; denormals become zero.
#[inline(always)]
unsafe fn store_two_bf16(to: *mut Bf16, low: __m512, high: __m512) {
    // SAFETY: the caller has AVX512-BF16 and vouches for 32 numbers; both types are 512 bits of any value.
    unsafe {
        let rounded = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
        _mm512_storeu_si512(to.cast(), rounded);
    }
}

macro_rules! avx512 {
    ($type:ty, $call:ident, $dot:ident, $round:ident, $store_two:ident) => {
        // SAFETY of every block: the caller promises that the processor has the level and that the pointers are valid
        // for the numbers named; no instruction used here needs alignment, and masked lanes are not touched.
        #[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
        impl Simd for $type {
            type V = __m512;
            const LANES: usize = 16;
            const REGISTERS: usize = 32;

            #[inline(always)]
            unsafe fn splat(value: f32) -> Self::V {
                unsafe { _mm512_set1_ps(value) }
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self::V {
                unsafe { _mm512_loadu_ps(from) }
            }
            #[inline(always)]
            unsafe fn store(to: *mut f32, value: Self::V) {
                unsafe { _mm512_storeu_ps(to, value) }
            }
            #[inline(always)]
            unsafe fn load_part(from: *const f32, count: usize) -> Self::V {
                unsafe { _mm512_maskz_loadu_ps(mask(count), from) }
            }
            #[inline(always)]
            unsafe fn store_part(to: *mut f32, value: Self::V, count: usize) {
                unsafe { _mm512_mask_storeu_ps(to, mask(count), value) }
            }
            #[inline(always)]
            unsafe fn load_bf16(from: *const Bf16) -> Self::V {
                unsafe {
                    let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
                    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
                }
            }
            #[inline(always)]
            unsafe fn store_bf16(to: *mut Bf16, value: Self::V) {
                unsafe { _mm256_storeu_si256(to.cast(), $round(value)) }
            }
            #[inline(always)]
            unsafe fn store_bf16_two(to: *mut Bf16, low: Self::V, high: Self::V) {
                unsafe { $store_two(to, low, high) }
            }
            #[inline(always)]
            unsafe fn load_bf16_part(from: *const Bf16, count: usize) -> Self::V {
                unsafe {
                    let halves = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask(count), from.cast()));
                    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
                }
            }
            #[inline(always)]
            unsafe fn store_bf16_part(to: *mut Bf16, value: Self::V, count: usize) {
                unsafe { _mm256_mask_storeu_epi16(to.cast(), mask(count), $round(value)) }
            }
            #[inline(always)]
            unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
                unsafe { _mm512_add_ps(a, b) }
            }
            #[inline(always)]
            unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
                unsafe { _mm512_sub_ps(a, b) }
            }
            #[inline(always)]
            unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
                unsafe { _mm512_mul_ps(a, b) }
            }
            #[inline(always)]
            unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
                unsafe { _mm512_div_ps(a, b) }
            }
            #[inline(always)]
            unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
                unsafe { _mm512_fmadd_ps(a, b, c) }
            }
            #[inline(always)]
            unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
                unsafe { _mm512_max_ps(a, b) }
            }
            #[inline(always)]
            unsafe fn where_positive(x: Self::V, a: Self::V, b: Self::V) -> Self::V {
                unsafe {
                    _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(x, _mm512_setzero_ps()), b, a)
                }
            }
            #[inline(always)]
            unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
                unsafe { _mm512_min_ps(a, b) }
            }
            #[inline(always)]
            unsafe fn round(x: Self::V) -> Self::V {
                unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x) }
            }
            #[inline(always)]
            unsafe fn exp2_whole(n: Self::V) -> Self::V {
                unsafe {
                    let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
                    _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
                }
            }
            #[inline(always)]
            unsafe fn sum(x: Self::V) -> f32 {
                unsafe { _mm512_reduce_add_ps(x) }
            }

            type Pair = __m512i;
            #[inline(always)]
            unsafe fn splat_pair(from: *const Bf16) -> Self::Pair {
                unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
            }
            #[inline(always)]
            unsafe fn load_pairs(from: *const Bf16) -> Self::Pair {
                unsafe { _mm512_loadu_si512(from.cast()) }
            }
            #[inline(always)]
            unsafe fn dot_pair(acc: Self::V, a: Self::Pair, b: Self::Pair) -> Self::V {
                unsafe { $dot(acc, a, b) }
            }

            #[inline(always)]
            unsafe fn outline<K: Kernel>(kernel: K) -> K::Output {
                unsafe { $call(kernel) }
            }

            #[inline(always)]
            unsafe fn stream(to: *mut f32, value: Self::V) {
                debug_assert!(to.addr().is_multiple_of(64));
                unsafe { _mm512_stream_ps(to, value) }
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
    };
}

avx512!(Avx512, call, dot_as_f32, round_bf16, store_two);
avx512!(Avx512Bf16, call_bf16, dot_as_bf16, convert_bf16, store_two_bf16);
