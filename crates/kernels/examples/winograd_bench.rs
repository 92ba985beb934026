//! Times Winograd convolutions: effective GFLOP/s (those of the definition) and their ratio to the FMA peak.
//!
//! `winograd_bench [seconds per case] [filter]`; `TILE=2` takes the smaller tile.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement for a person")]

use cardinal_kernels::*;
use std::time::Instant;

const LAYERS: &[(&str, usize, usize, usize, usize)] = &[
    ("64-64@56", 56, 64, 64, 1),
    ("128-128@28", 28, 128, 128, 1),
    ("256-256@14", 14, 256, 256, 1),
    ("512-512@7", 7, 512, 512, 1),
    ("64-128g2@56", 56, 64, 128, 2),
    ("128-256g2@28", 28, 128, 256, 2),
    ("256-512g2@14", 14, 256, 512, 2),
    ("512-1024g2@7", 7, 512, 1024, 2),
];

fn main() {
    let mut args = std::env::args().skip(1);
    let seconds: f64 = args.next().map_or(0.3, |x| x.parse().unwrap());
    let filter = args.next().unwrap_or_default();
    let tile = if std::env::var("TILE").is_ok_and(|x| x == "2") { Tile::Two } else { Tile::Four };
    let isa = Isa::best();
    // The pools first: they pin their threads by what this thread may use.
    let pools = [Pool::new(1, true), Pool::new(2, true)];
    pin_to(allowed_cores()[0]);
    for pool in &pools {
        let threads = pool.threads();
        for images in [1, 16] {
            for &(name, size, inputs, outputs, groups) in LAYERS.iter().filter(|x| x.0.contains(&filter)) {
                let spec = ConvSpec {
                    input: Map::new(size, size, inputs).with_halo(Halo::even(1)),
                    output: Map::new(size, size, outputs).with_halo(Halo::even(1)),
                    kernel: [3, 3],
                    stride: [1, 1],
                    dilation: [1, 1],
                    padding: [1, 1],
                    groups,
                    activation: Activation::Relu,
                    residual: None,
                    pooled: groups > 1,
                };
                let weight = vec![0.01; spec.weights()];
                let t = Instant::now();
                let conv = Winograd::with_tile(&spec, tile, &weight, Some(&vec![0.1; outputs]), isa).unwrap();
                let packed = t.elapsed().as_secs_f64();
                let mut scratch = vec![Line::ZERO; conv.scratch(threads)];
                let input = vec![0.5; images * spec.input.image()];
                let mut output = vec![0.0; images * spec.output.image()];
                let mut pooled = vec![0.0; images * outputs];
                let part = Part::whole(images, size);
                // Between two calls of one image the weights leave the cache, as they do in a network; maps and
                // scratch memory do not.
                let mut flush = vec![1u8; if images == 1 { 96 << 20 } else { 1 }];
                let (mut times, mut peak) = (Vec::new(), 0.0_f64);
                let start = Instant::now();
                while start.elapsed().as_secs_f64() < seconds || times.len() < 3 {
                    flush.iter_mut().step_by(64).for_each(|x| *x = x.wrapping_add(1));
                    if images == 1 {
                        output.fill(0.0);
                        scratch.fill(Line::ZERO);
                        std::hint::black_box(input.iter().sum::<f32>());
                    }
                    let io = ConvIo {
                        input: &input,
                        output: &mut output,
                        residual: None,
                        pooled: Some(&mut pooled),
                        scratch: &mut scratch,
                    };
                    let t = Instant::now();
                    conv.run(pool, &part, io).unwrap();
                    times.push(t.elapsed().as_secs_f64());
                    peak = peak.max(fma_peak(isa, pool));
                }
                times.sort_by(f64::total_cmp);
                let flop = 2.0 * (images * spec.macs()) as f64;
                let [best, median] = [times[0], times[times.len() / 2]].map(|t| flop / t * 1e-9);
                println!(
                    "{threads}t b{images:<2} {name:13} best {best:4.0} median {median:4.0} GFLOP/s, {:.2} and {:.2} \
                     of the peak {peak:.0}; {:.3} ms, expected {:.3}; weights {:.1} MB, packed in {packed:.3} s",
                    best / peak,
                    median / peak,
                    times[0] * 1e3,
                    Winograd::cost(&spec, tile, images, threads, isa) * 1e3,
                    conv.packed_bytes() as f64 * 1e-6
                );
            }
        }
    }
}

/// GFLOP/s of fused multiply-adds in registers, on all threads of the pool, over some hundred microseconds.
fn fma_peak(isa: Isa, pool: &Pool) -> f64 {
    const ROUNDS: usize = 40_000;
    let start = Instant::now();
    pool.run(|_| {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the `Isa` proves that the processor has the level.
        unsafe {
            match isa.level() {
                Level::Avx2 => peak_avx2(ROUNDS),
                Level::Avx512 | Level::Avx512Bf16 | Level::Amx => peak_avx512(ROUNDS),
                _ => {}
            }
        }
    });
    let lanes = if isa.level() >= Level::Avx512 { 16 } else { 8 };
    (ROUNDS * pool.threads() * 12 * lanes * 2) as f64 / start.elapsed().as_secs_f64() * 1e-9
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn peak_avx2(rounds: usize) {
    use core::arch::x86_64::*;
    let mut sums: [_; 12] = std::hint::black_box([_mm256_set1_ps(0.0); 12]);
    let x = _mm256_set1_ps(std::hint::black_box(0.5));
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(*sum, x, x);
        }
    }
    std::hint::black_box(sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn peak_avx512(rounds: usize) {
    use core::arch::x86_64::*;
    let mut sums: [_; 12] = std::hint::black_box([_mm512_set1_ps(0.0); 12]);
    let x = _mm512_set1_ps(std::hint::black_box(0.5));
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, x, x);
        }
    }
    std::hint::black_box(sums);
}
