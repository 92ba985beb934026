//! Vectors in plain Rust: what runs where nothing else does, and what Miri can follow.

use crate::Bf16;
use crate::simd::{Kernel, Simd};

/// Eight numbers in an array.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

const LANES: usize = 8;

/// Runs `kernel` as a function of its own.
///
/// # Safety
///
/// What the kernel's fields promise holds.
#[inline(never)]
unsafe fn call<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the same contract.
    unsafe { kernel.run::<Portable>() }
}

#[inline(always)]
fn zip(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

// SAFETY of every block: the caller promises that the pointers are valid for the numbers named.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl Simd for Portable {
    type V = [f32; LANES];
    const LANES: usize = LANES;
    // Sixteen of 128 bits, on every processor that has any.
    const REGISTERS: usize = 8;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::V {
        [value; LANES]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        unsafe { from.cast::<Self::V>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: Self::V) {
        unsafe { to.cast::<Self::V>().write_unaligned(value) }
    }
    #[inline(always)]
    unsafe fn load_part(from: *const f32, count: usize) -> Self::V {
        std::array::from_fn(|i| if i < count { unsafe { from.add(i).read_unaligned() } } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn store_part(to: *mut f32, value: Self::V, count: usize) {
        for (i, v) in value.into_iter().enumerate().take(count) {
            unsafe { to.add(i).write_unaligned(v) }
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const Bf16) -> Self::V {
        unsafe { Self::load_bf16_part(from, LANES) }
    }
    #[inline(always)]
    unsafe fn store_bf16(to: *mut Bf16, value: Self::V) {
        unsafe { Self::store_bf16_part(to, value, LANES) }
    }
    #[inline(always)]
    unsafe fn load_bf16_part(from: *const Bf16, count: usize) -> Self::V {
        std::array::from_fn(
            |i| if i < count { unsafe { from.add(i).read_unaligned() }.to_f32() } else { 0.0 },
        )
    }
    #[inline(always)]
    unsafe fn store_bf16_part(to: *mut Bf16, value: Self::V, count: usize) {
        for (i, v) in value.into_iter().enumerate().take(count) {
            unsafe { to.add(i).write_unaligned(Bf16::from_f32(v)) }
        }
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // Two roundings: without the instruction, one rounding is a slow call.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn where_positive(x: Self::V, a: Self::V, b: Self::V) -> Self::V {
        let mut result = b;
        for i in 0..Self::LANES {
            if x[i] > 0.0 {
                result[i] = a[i];
            }
        }
        result
    }
    #[inline(always)]
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn round(x: Self::V) -> Self::V {
        x.map(f32::round_ties_even)
    }
    #[inline(always)]
    unsafe fn exp2_whole(n: Self::V) -> Self::V {
        n.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    unsafe fn sum(x: Self::V) -> f32 {
        ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]))
    }

    type Pair = [(f32, f32); LANES];
    #[inline(always)]
    unsafe fn splat_pair(from: *const Bf16) -> Self::Pair {
        let pair = unsafe { from.cast::<[Bf16; 2]>().read_unaligned() };
        [(pair[0].to_f32(), pair[1].to_f32()); LANES]
    }
    #[inline(always)]
    unsafe fn load_pairs(from: *const Bf16) -> Self::Pair {
        let pairs = unsafe { from.cast::<[[Bf16; 2]; LANES]>().read_unaligned() };
        pairs.map(|pair| (pair[0].to_f32(), pair[1].to_f32()))
    }
    #[inline(always)]
    unsafe fn dot_pair(acc: Self::V, a: Self::Pair, b: Self::Pair) -> Self::V {
        std::array::from_fn(|i| acc[i] + a[i].0 * b[i].0 + a[i].1 * b[i].1)
    }

    #[inline(always)]
    unsafe fn outline<K: Kernel>(kernel: K) -> K::Output {
        unsafe { call(kernel) }
    }

    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
}
