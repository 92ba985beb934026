//! What a convolution costs with each method, roughly: enough to choose one before anything was measured. What a method
//! alone knows stands beside it; what the machine does is here.

#[cfg(target_arch = "x86_64")]
use super::amx::Amx;
use super::direct::Direct;
use super::winograd::Winograd;
use super::{ConvSpec, Method};
use crate::{DType, Isa, Level};

/// Vector multiply-adds per second and thread: two a cycle at 3.15 GHz, and 2.5 with the widest vectors.
pub(super) fn rate(isa: Isa) -> f64 {
    match isa.level() {
        Level::Portable => 0.8e9,
        Level::Neon | Level::Avx2 => 6.3e9,
        Level::Avx512 | Level::Avx512Bf16 | Level::Amx => 5e9,
    }
}

/// `f32` per vector.
pub(super) fn lanes(isa: Isa) -> f64 {
    match isa.level() {
        Level::Neon => 4.0,
        Level::Portable | Level::Avx2 => 8.0,
        Level::Avx512 | Level::Avx512Bf16 | Level::Amx => 16.0,
    }
}

/// Of the peak, by the direct method.
const DIRECT_REACHED: f64 = 0.86;

/// Bytes per second and thread between the caches and the memory behind them.
pub(super) const BANDWIDTH: f64 = 15e9;

/// Seconds for whole images.
pub(super) fn seconds(
    spec: &ConvSpec,
    dtype: DType,
    isa: Isa,
    method: Method,
    images: usize,
    threads: usize,
) -> f64 {
    let threads = threads.max(1);
    let pixels = (images * spec.output.h * spec.output.w) as f64;
    let maps = (images * (spec.input.image() + spec.output.image()) * dtype.bytes()) as f64;
    let moved = |weights: f64| (maps + weights) / BANDWIDTH / threads as f64;
    let compute = |vectors: f64| vectors / rate(isa) / threads as f64;
    match method {
        Method::Direct => {
            let (vectors, packed) = Direct::size(spec, dtype, isa);
            // Pairs of bf16 are one product where there is an instruction, and split with others beside where not.
            let pairs = match (dtype, isa.level()) {
                (DType::F32, _) => 1.0,
                (DType::Bf16, Level::Avx512Bf16 | Level::Amx) => 0.5,
                (DType::Bf16, _) => 1.6,
            };
            compute(pixels * vectors as f64 * pairs / DIRECT_REACHED) + moved((packed * dtype.bytes()) as f64)
        }
        Method::Winograd(tile) => Winograd::cost(spec, tile, images, threads, isa),
        Method::Depthwise => {
            // A load for each product.
            compute(2.1 * (images * spec.macs()) as f64 / lanes(isa)) + moved(0.0)
        }
        #[cfg(target_arch = "x86_64")]
        Method::Amx => Amx::cost(spec, images, threads),
        #[cfg(not(target_arch = "x86_64"))]
        Method::Amx => f64::INFINITY,
    }
}
