//! How fast the gradients of ResNet-50's convolutions are computed and their weights packed, and what its norms read and
//! write, for a batch of 16 in `f32` unless bf16 is named:
//! `cargo run --release -p cardinal-kernels --example grad_bench -- [pack|norm|weight|weight-bf16|data] [FILTER]`.
//!
//! Times are the best of several runs; the totals count each layer as often as the network has it.

#![allow(clippy::print_stdout, reason = "a program for developers")]
#![allow(clippy::unwrap_used, reason = "a program for developers")]

use cardinal_kernels::{
    Activation, Bf16, Conv, ConvSpec, DType, DataGrad, DataGradIo, Element, Halo, Isa, Line, Map, NormApply,
    NormApplyIo, NormGrad, NormGradIo, NormSource, NormStats, Pool, WeightGrad, WeightGradIo, Write, as_f32,
    as_f32_mut, zeroed,
};
use std::time::Instant;

const IMAGES: usize = 16;

/// Size of the output, channels in and out, kernel, stride, groups, how often; ResNet-50's, then others.
type Row = (usize, [usize; 2], usize, usize, usize, usize);

const LAYERS: &[Row] = &[
    (112, [3, 64], 7, 2, 1, 1),
    (56, [64, 64], 1, 1, 1, 1),
    (56, [64, 64], 3, 1, 1, 3),
    (56, [64, 256], 1, 1, 1, 4),
    (56, [256, 64], 1, 1, 1, 2),
    (56, [256, 128], 1, 1, 1, 1),
    (28, [128, 128], 3, 2, 1, 1),
    (28, [256, 512], 1, 2, 1, 1),
    (28, [128, 512], 1, 1, 1, 4),
    (28, [512, 128], 1, 1, 1, 3),
    (28, [128, 128], 3, 1, 1, 3),
    (28, [512, 256], 1, 1, 1, 1),
    (14, [256, 256], 3, 2, 1, 1),
    (14, [512, 1024], 1, 2, 1, 1),
    (14, [256, 1024], 1, 1, 1, 6),
    (14, [1024, 256], 1, 1, 1, 5),
    (14, [256, 256], 3, 1, 1, 5),
    (14, [1024, 512], 1, 1, 1, 1),
    (7, [512, 512], 3, 2, 1, 1),
    (7, [1024, 2048], 1, 2, 1, 1),
    (7, [512, 2048], 1, 1, 1, 3),
    (7, [2048, 512], 1, 1, 1, 2),
    (7, [512, 512], 3, 1, 1, 2),
    (28, [128, 256], 3, 1, 2, 0),
    (14, [512, 512], 3, 1, 32, 0),
    (112, [32, 32], 3, 1, 1, 0),
    (112, [32, 64], 3, 1, 1, 0),
    (56, [128, 128], 3, 1, 32, 0),
    (28, [32, 32], 3, 1, 1, 0),
    (14, [8, 16], 3, 1, 1, 0),
    (7, [64, 64], 3, 1, 1, 0),
];

fn spec(&(size, [ci, co], kernel, stride, groups, _): &Row) -> ConvSpec {
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
    let halo = DataGrad::halo(&spec).unwrap();
    ConvSpec { output: spec.output.with_halo(halo), ..spec }
}

/// Numbers that look random.
fn numbers(count: usize) -> Vec<Line> {
    let mut lines = zeroed(Line::count(count * size_of::<f32>()));
    as_f32_mut(&mut lines)
        .iter_mut()
        .enumerate()
        .for_each(|(i, x)| *x = ((i * 2_654_435_761) >> 16 & 255) as f32 / 256.0 - 0.5);
    lines
}

/// The best seconds of a few calls.
fn best(mut call: impl FnMut()) -> f64 {
    let (begin, mut best) = (Instant::now(), f64::INFINITY);
    while best.is_infinite() || begin.elapsed().as_millis() < 150 {
        let start = Instant::now();
        call();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

/// Packs all weights of the network, as a training step does: nothing stays in a cache from one time to the next.
fn pack(isa: Isa, dtype: DType, threads: usize) {
    let pool = Pool::new(threads, true);
    let mut layers = Vec::new();
    for row in LAYERS {
        for _ in 0..row.5 {
            let spec = spec(row);
            let weight = numbers(spec.weights());
            let method = Conv::choose(&spec, dtype, isa, IMAGES, threads);
            let weights = &as_f32(&weight)[..spec.weights()];
            let conv = Conv::new(&spec, weights, None, dtype, isa, method).unwrap();
            let grad = DataGrad::new(&spec, weights, dtype, isa, IMAGES, threads).unwrap();
            layers.push((spec, weight, conv, grad));
        }
    }
    let (mut forward, mut backward) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..5 {
        let start = Instant::now();
        for (spec, weight, conv, _) in &mut layers {
            conv.repack(&pool, &as_f32(weight)[..spec.weights()], None).unwrap();
        }
        forward = forward.min(start.elapsed().as_secs_f64());
        let start = Instant::now();
        for (spec, weight, _, grad) in &mut layers {
            grad.set_weight(&pool, &as_f32(weight)[..spec.weights()]).unwrap();
        }
        backward = backward.min(start.elapsed().as_secs_f64());
    }
    let bytes: usize = layers.iter().map(|(_, _, conv, _)| conv.packed_bytes()).sum();
    println!(
        "t{threads} {}: packing {:.1} MB forward {:.1} ms, for the input's gradient {:.1} ms",
        dtype.name(),
        bytes as f64 / 1e6,
        forward * 1e3,
        backward * 1e3
    );
}

/// Times what a norm does, in bytes that must be read and written.
fn norm(isa: Isa, threads: usize) {
    let pool = Pool::new(threads, true);
    for (size, c) in [(112, 64), (56, 64), (56, 256), (28, 512), (14, 1024), (7, 2048)] {
        let map = Map::new(size, size, c);
        let count = IMAGES * map.image();
        let (x, mut dy) = (numbers(count), numbers(count));
        let mut rows = vec![vec![0.5_f32; c]; 6];
        let [weight, bias, mean, var, weight_grad, bias_grad] = &mut rows[..] else { return };
        let stats = NormStats::new(map, isa).unwrap();
        let apply = NormApply::new(map, map, 0.0, isa).unwrap();
        let grad = NormGrad::new([map; 3], NormSource::Input, 0.0, isa).unwrap();
        let mut scratch = zeroed(grad.scratch(threads).max(stats.scratch(threads)));
        let of_stats = best(|| {
            let into = [&mut weight_grad[..], &mut bias_grad[..]];
            stats.run(&pool, IMAGES, as_f32(&x), into, &mut scratch).unwrap();
        });
        let of_apply = best(|| {
            let output = as_f32_mut(&mut dy);
            let (input, residual) = (Some(as_f32(&x)), None);
            let io = NormApplyIo { input, output, residual, scale: weight, shift: bias };
            apply.run(&pool, IMAGES, io).unwrap();
        });
        let of_grad = best(|| {
            let io = NormGradIo {
                kept: as_f32(&x),
                output: None,
                grad: None,
                result: as_f32_mut(&mut dy),
                write: Write::Replace,
                weight,
                bias,
                mean,
                var,
                epsilon: 1e-5,
                weight_grad,
                bias_grad,
                scratch: &mut scratch,
            };
            grad.run(&pool, IMAGES, io).unwrap();
        });
        let rate = |maps: usize, seconds: f64| (maps * count * 4) as f64 / seconds / 1e9;
        println!(
            "norm t{threads} {size:>3} {c:>4}: statistics {:.1} GB/s, apply {:.1} GB/s, gradients {:.1} GB/s ({:.2} ms)",
            rate(1, of_stats),
            rate(2, of_apply),
            rate(5, of_grad),
            of_grad * 1e3
        );
    }
}

/// Times one layer's weight gradient in a format.
fn weight_grad<T: Element>(spec: &ConvSpec, kernel: &WeightGrad, pool: &Pool) -> f64 {
    let numbers = |count: usize| -> Vec<T> {
        as_f32(&numbers(count))[..count].iter().map(|x| T::from_f32(*x)).collect()
    };
    let input = numbers(IMAGES * spec.input.image());
    let grad = numbers(IMAGES * spec.output.image());
    let mut weight = vec![0.0; spec.weights()];
    let mut scratch = zeroed(kernel.scratch(pool.threads()));
    best(|| {
        let io = WeightGradIo { input: &input, grad: &grad, weight: &mut weight, scratch: &mut scratch };
        kernel.run(pool, IMAGES, io).unwrap();
    })
}

/// Times one gradient of every layer.
fn time(what: &str, filter: &str, isa: Isa, threads: usize) {
    let pool = Pool::new(threads, true);
    let (mut all, mut macs) = (0.0, 0);
    for row in LAYERS {
        let &(size, [ci, co], kernel, stride, groups, times) = row;
        let spec = spec(row);
        let name =
            format!("{what} t{threads} {size:>3} {ci:>4} -> {co:<4} {kernel}x{kernel} /{stride} g{groups}");
        if !name.contains(filter) {
            continue;
        }
        let seconds = if let "weight" | "weight-bf16" = what {
            let dtype = if what == "weight" { DType::F32 } else { DType::Bf16 };
            let chosen = WeightGrad::new(&spec, dtype, isa, IMAGES).unwrap().label();
            let methods =
                [WeightGrad::by_windows(&spec, dtype, isa), WeightGrad::by_winograd(&spec, dtype, isa)];
            let mut seconds = 0.0;
            for kernel in methods.into_iter().flatten() {
                let time = match dtype {
                    DType::F32 => weight_grad::<f32>(&spec, &kernel, &pool),
                    DType::Bf16 => weight_grad::<Bf16>(&spec, &kernel, &pool),
                };
                let label = kernel.label();
                let mark = if label == chosen { ", taken" } else { "" };
                if label == chosen {
                    seconds = time;
                }
                println!("{name} {:>9.2} ms {label}{mark}", time * 1e3);
            }
            seconds
        } else {
            let mut input = numbers(IMAGES * spec.input.image());
            let grad = numbers(IMAGES * spec.output.image());
            let weight = numbers(spec.weights());
            let weight = &as_f32(&weight)[..spec.weights()];
            let kernel = DataGrad::new(&spec, weight, DType::F32, isa, IMAGES, threads).unwrap();
            let mut scratch = zeroed(kernel.scratch(IMAGES, threads));
            best(|| {
                let input = as_f32_mut(&mut input);
                kernel
                    .run(&pool, IMAGES, DataGradIo { grad: as_f32(&grad), input, scratch: &mut scratch })
                    .unwrap();
            })
        };
        let gflops = 2e-9 * (IMAGES * spec.macs()) as f64 / seconds;
        all += times as f64 * seconds;
        macs += times * IMAGES * spec.macs();
        println!("{name} {:>9.2} ms {gflops:>6.1} GFLOP/s", seconds * 1e3);
    }
    println!("{what} t{threads} resnet50: {:.1} ms, {:.1} GFLOP/s", all * 1e3, 2e-9 * macs as f64 / all);
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asked = |what: &str| arguments.first().is_none_or(|first| first == what);
    let filter = arguments.get(1).map_or("", String::as_str);
    let isa = Isa::best();
    for threads in [1, 2] {
        if asked("pack") {
            pack(isa, DType::F32, threads);
            pack(isa, DType::Bf16, threads);
        }
        if asked("norm") {
            norm(isa, threads);
        }
        for what in ["weight", "weight-bf16", "data"].into_iter().filter(|what| asked(what)) {
            time(what, filter, isa, threads);
        }
    }
}
