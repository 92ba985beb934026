//! How fast gradients of convolutions are computed: `cargo run --release -p cardinal-kernels --example grad_bench`.
//!
//! Times are the best of several runs on 16 images.

#![allow(clippy::print_stdout, reason = "a program for developers")]
#![allow(clippy::unwrap_used, reason = "a program for developers")]

use cardinal_kernels::{Activation, ConvSpec, Halo, Isa, Line, Map, Pool, WeightGrad, WeightGradIo};
use std::time::Instant;

const IMAGES: usize = 16;

/// Size of the output, channels in and out, kernel, stride, groups.
const LAYERS: &[(usize, [usize; 2], usize, usize, usize)] = &[
    (112, [3, 64], 7, 2, 1),
    (56, [64, 64], 1, 1, 1),
    (56, [64, 64], 3, 1, 1),
    (56, [64, 256], 1, 1, 1),
    (56, [256, 64], 1, 1, 1),
    (28, [128, 128], 3, 1, 1),
    (28, [128, 128], 3, 2, 1),
    (28, [128, 256], 3, 1, 2),
    (28, [128, 512], 1, 1, 1),
    (14, [256, 256], 3, 1, 1),
    (14, [256, 1024], 1, 1, 1),
    (14, [1024, 256], 1, 1, 1),
    (7, [512, 512], 3, 1, 1),
    (7, [512, 2048], 1, 1, 1),
];

fn main() {
    let isa = Isa::best();
    for threads in [1, 2] {
        let pool = Pool::new(threads, true);
        let (mut all, mut macs) = (0.0, 0);
        for &(size, [ci, co], kernel, stride, groups) in LAYERS {
            let padding = kernel / 2;
            let spec = ConvSpec {
                input: Map::new(size * stride, size * stride, ci).with_halo(Halo::even(padding)),
                output: Map::new(size, size, co),
                kernel: [kernel; 2],
                stride: [stride; 2],
                dilation: [1; 2],
                padding: [padding; 2],
                groups,
                activation: Activation::Identity,
                residual: None,
                pooled: false,
            };
            let grad = WeightGrad::new(&spec, isa).unwrap();
            let input = vec![0.5_f32; IMAGES * spec.input.image()];
            let output = vec![0.25_f32; IMAGES * spec.output.image()];
            let mut weight = vec![0.0; spec.weights()];
            let mut scratch = vec![Line::ZERO; grad.scratch(threads)];
            let mut best = f64::INFINITY;
            for _ in 0..5 {
                let start = Instant::now();
                let io =
                    WeightGradIo { input: &input, grad: &output, weight: &mut weight, scratch: &mut scratch };
                grad.run(&pool, IMAGES, io).unwrap();
                best = best.min(start.elapsed().as_secs_f64());
            }
            let gflops = 2e-9 * (IMAGES * spec.macs()) as f64 / best;
            all += best;
            macs += IMAGES * spec.macs();
            println!(
                "t{threads} {size:>3} {ci:>4} -> {co:<4} {kernel}x{kernel} /{stride} g{groups} {:>9.2} ms {gflops:>6.1} GFLOP/s",
                best * 1e3
            );
        }
        println!("t{threads} all: {:.1} ms, {:.1} GFLOP/s", all * 1e3, 2e-9 * macs as f64 / all);
    }
}
