//! What the cores can do, and how much of it each distinct convolution of some networks reaches with each method.
//!
//! `cargo run --release -p cardinal-kernels --example conv_bench -- [FILTER]...`: a case runs if its line's name
//! contains every filter; `peak` alone prints the roofline. Times are the best of several runs.

#![allow(clippy::print_stdout, reason = "a program for developers")]
#![allow(clippy::unwrap_used, reason = "a program for developers")]

use cardinal_kernels::{
    Activation, Conv, ConvIo, ConvSpec, DType, Element, Halo, Isa, Line, Map, Method, Part, Pool,
    as_bf16_mut, as_f32_mut, roofline,
};
use std::sync::LazyLock;
use std::time::Instant;

/// A convolution of a network: name, size of the output, channels in and out, kernel, stride, groups, and how often.
type Row = (&'static str, usize, [usize; 2], usize, usize, usize, usize);

const RESNET50: &[Row] = &[
    ("stem", 112, [3, 64], 7, 2, 1, 1),
    ("1x1", 56, [64, 64], 1, 1, 1, 1),
    ("3x3", 56, [64, 64], 3, 1, 1, 3),
    ("1x1", 56, [64, 256], 1, 1, 1, 4),
    ("1x1", 56, [256, 64], 1, 1, 1, 2),
    ("1x1", 56, [256, 128], 1, 1, 1, 1),
    ("3x3", 28, [128, 128], 3, 2, 1, 1),
    ("1x1", 28, [256, 512], 1, 2, 1, 1),
    ("1x1", 28, [128, 512], 1, 1, 1, 4),
    ("1x1", 28, [512, 128], 1, 1, 1, 3),
    ("3x3", 28, [128, 128], 3, 1, 1, 3),
    ("1x1", 28, [512, 256], 1, 1, 1, 1),
    ("3x3", 14, [256, 256], 3, 2, 1, 1),
    ("1x1", 14, [512, 1024], 1, 2, 1, 1),
    ("1x1", 14, [256, 1024], 1, 1, 1, 6),
    ("1x1", 14, [1024, 256], 1, 1, 1, 5),
    ("3x3", 14, [256, 256], 3, 1, 1, 5),
    ("1x1", 14, [1024, 512], 1, 1, 1, 1),
    ("3x3", 7, [512, 512], 3, 2, 1, 1),
    ("1x1", 7, [1024, 2048], 1, 2, 1, 1),
    ("1x1", 7, [512, 2048], 1, 1, 1, 3),
    ("1x1", 7, [2048, 512], 1, 1, 1, 2),
    ("3x3", 7, [512, 512], 3, 1, 1, 2),
    ("fc", 1, [2048, 1000], 1, 1, 1, 1),
];

/// What ResNeSt-50 has beside these.
const RESNEST50: &[Row] = &[
    ("stem1", 112, [3, 32], 3, 2, 1, 1),
    ("stem2", 112, [32, 32], 3, 1, 1, 1),
    ("stem3", 112, [32, 64], 3, 1, 1, 1),
    ("radix", 56, [64, 128], 3, 1, 2, 3),
    ("radix", 56, [128, 256], 3, 1, 2, 1),
    ("radix", 28, [128, 256], 3, 1, 2, 3),
    ("radix", 28, [256, 512], 3, 1, 2, 1),
    ("radix", 14, [256, 512], 3, 1, 2, 5),
    ("radix", 14, [512, 1024], 3, 1, 2, 1),
    ("radix", 7, [512, 1024], 3, 1, 2, 2),
    ("attn1", 1, [64, 32], 1, 1, 1, 3),
    ("attn2", 1, [32, 128], 1, 1, 1, 3),
    ("attn1", 1, [512, 256], 1, 1, 1, 2),
    ("attn2", 1, [256, 1024], 1, 1, 1, 2),
];

/// What TResNet-M has beside these; the stem with space-to-depth folded in.
const TRESNET_M: &[Row] = &[
    ("s2d", 56, [3, 64], 12, 4, 1, 1),
    ("3x3", 56, [64, 128], 3, 1, 1, 1),
    ("3x3", 28, [128, 128], 3, 1, 1, 7),
    ("3x3", 14, [512, 512], 3, 1, 1, 1),
    ("1x1", 7, [2048, 512], 1, 1, 1, 2),
];

/// Small ones that stay in the second cache: the kernel without the memory.
const CACHED: &[Row] = &[
    ("1x1", 14, [64, 64], 1, 1, 1, 1),
    ("1x1", 14, [128, 128], 1, 1, 1, 1),
    ("1x1", 14, [256, 64], 1, 1, 1, 1),
    ("3x3", 14, [32, 64], 3, 1, 1, 1),
    ("3x3", 14, [64, 64], 3, 1, 1, 1),
];

/// Grouped ones of other families.
const OTHERS: &[Row] = &[
    ("resnext", 56, [128, 128], 3, 1, 32, 1),
    ("resnext", 14, [512, 512], 3, 1, 32, 1),
    ("regnet", 28, [56, 56], 3, 1, 7, 1),
    ("regnet", 14, [152, 152], 3, 1, 19, 1),
    ("depthwise", 28, [192, 192], 3, 1, 192, 1),
];

fn spec(&(_, size, [ci, co], k, stride, groups, _): &Row) -> ConvSpec {
    let pad = k.saturating_sub(stride).div_ceil(2);
    let input = Map::new(size * stride, size * stride, ci).with_halo(Halo::even(pad));
    ConvSpec {
        input,
        output: Map::new(size, size, co),
        kernel: [k; 2],
        stride: [stride; 2],
        dilation: [1; 2],
        padding: [pad; 2],
        groups,
        activation: Activation::Relu,
        residual: None,
        pooled: false,
    }
}

/// The best seconds of a call.
fn time<T: Element>(
    numbers: fn(&mut [Line]) -> &mut [T],
    spec: &ConvSpec,
    isa: Isa,
    method: Method,
    images: usize,
    threads: usize,
) -> (f64, String) {
    let weight: Vec<f32> = (0..spec.weights()).map(|i| (i % 13) as f32 * 0.01 - 0.06).collect();
    let conv = Conv::new(spec, &weight, None, T::DTYPE, isa, method).unwrap();
    let pool = Pool::new(threads, true);
    let line = |count: usize| vec![Line::ZERO; Line::count(count * size_of::<T>())];
    let (mut input, mut output) = (line(images * spec.input.image()), line(images * spec.output.image()));
    let mut scratch = vec![Line::ZERO; conv.scratch(threads)];
    let input = numbers(&mut input);
    input.iter_mut().enumerate().for_each(|(i, x)| *x = T::from_f32((i % 7) as f32 * 0.1));
    let output = numbers(&mut output);
    let part = Part::whole(images, spec.output.h);
    let mut best = f64::INFINITY;
    let begin = Instant::now();
    let mut runs = 0;
    while runs < 3 || begin.elapsed().as_millis() < 60 {
        let io = ConvIo { input, output, residual: None, pooled: None, scratch: &mut scratch };
        let start = seconds(threads);
        conv.run(&pool, &part, io).unwrap();
        best = best.min(seconds(threads) - start);
        runs += 1;
    }
    (best, conv.label())
}

/// A clock: with `CPU_TIME` set and one thread that of the thread, which other processes do not disturb as much.
fn seconds(threads: usize) -> f64 {
    static CPU_TIME: LazyLock<bool> = LazyLock::new(|| std::env::var_os("CPU_TIME").is_some());
    let clock = if *CPU_TIME && threads == 1 { libc::CLOCK_THREAD_CPUTIME_ID } else { libc::CLOCK_MONOTONIC };
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes to `time` alone.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn main() {
    let filters: Vec<String> = std::env::args().skip(1).collect();
    let isa = Isa::best();
    let peak = [1, 2].map(|threads| roofline::measure(isa, threads));
    for roof in &peak {
        println!("{roof}");
    }
    if filters == ["peak"] {
        return;
    }
    for dtype in [DType::F32, DType::Bf16] {
        for images in [1, 16] {
            for threads in [1, 2] {
                let mut total: [f64; 3] = [0.0; 3];
                for (network, rows) in [
                    ("resnet50", RESNET50),
                    ("resnest50", RESNEST50),
                    ("tresnet_m", TRESNET_M),
                    ("cached", CACHED),
                    ("other", OTHERS),
                ] {
                    for row in rows {
                        let &(name, size, [ci, co], k, stride, groups, times) = row;
                        let spec = spec(row);
                        for method in Conv::methods(&spec, dtype, isa) {
                            let line = format!(
                                "{network} {name} {ci}x{co} k{k} s{stride} g{groups} @{size} {} b{images} t{threads} {method}",
                                dtype.name()
                            );
                            if !filters.iter().all(|filter| line.contains(filter.as_str())) {
                                continue;
                            }
                            let (seconds, label) = match dtype {
                                DType::F32 => time(as_f32_mut, &spec, isa, method, images, threads),
                                DType::Bf16 => time(as_bf16_mut, &spec, isa, method, images, threads),
                            };
                            let flops = 2.0 * (images * spec.macs()) as f64 / seconds;
                            let share = flops / 1e9 / peak[threads - 1].fma;
                            println!(
                                "{line:70} {label:24} {:9.1} us {:7.1} GFLOP/s {:5.1} %",
                                seconds * 1e6,
                                flops / 1e9,
                                100.0 * share
                            );
                            if method == Method::Direct && network == "resnet50" {
                                total[0] += times as f64 * seconds;
                                total[1] += (times * 2 * images * spec.macs()) as f64;
                            }
                        }
                    }
                }
                if total[0] > 0.0 {
                    let rate = total[1] / total[0] / 1e9;
                    println!(
                        "== resnet50 direct {} b{images} t{threads}: {:.1} ms, {rate:.1} GFLOP/s, {:.1} %",
                        dtype.name(),
                        total[0] * 1e3,
                        100.0 * rate / peak[threads - 1].fma
                    );
                }
            }
        }
    }
}
