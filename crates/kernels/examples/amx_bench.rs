//! Times tiles and the convolutions on them: the peak from registers, L1 and L2, then layers of our networks.
//!
//! `amx_bench [seconds per case] [filter]`
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement for a person")]

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    println!("this processor has no tile registers");
}

#[cfg(target_arch = "x86_64")]
fn main() {
    x86::main();
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use cardinal_kernels::*;
    use std::time::Instant;

    /// Input size, channels in and out, kernel, stride, groups, and whether a residual is added or means are taken.
    type Layer = (&'static str, usize, [usize; 2], usize, usize, usize, &'static str);

    const LAYERS: &[Layer] = &[
        ("resnet stem", 224, [3, 64], 7, 2, 1, ""),
        ("resnet 64-64", 56, [64, 64], 1, 1, 1, ""),
        ("resnet 64-64", 56, [64, 64], 3, 1, 1, ""),
        ("resnet 64-256", 56, [64, 256], 1, 1, 1, "residual"),
        ("resnet 256-64", 56, [256, 64], 1, 1, 1, ""),
        ("resnet 128-128", 56, [128, 128], 3, 2, 1, ""),
        ("resnet 128-128", 28, [128, 128], 3, 1, 1, ""),
        ("resnet 128-512", 28, [128, 512], 1, 1, 1, "residual"),
        ("resnet 512-128", 28, [512, 128], 1, 1, 1, ""),
        ("resnet 256-512", 56, [256, 512], 1, 2, 1, ""),
        ("resnet 256-256", 14, [256, 256], 3, 1, 1, ""),
        ("resnet 256-1024", 14, [256, 1024], 1, 1, 1, "residual"),
        ("resnet 1024-256", 14, [1024, 256], 1, 1, 1, ""),
        ("resnet 512-512", 14, [512, 512], 3, 2, 1, ""),
        ("resnet 512-512", 7, [512, 512], 3, 1, 1, ""),
        ("resnet 512-2048", 7, [512, 2048], 1, 1, 1, "residual"),
        ("resnet 2048-512", 7, [2048, 512], 1, 1, 1, ""),
        ("resnet 1024-2048", 14, [1024, 2048], 1, 2, 1, ""),
        ("resnet head", 1, [2048, 1000], 1, 1, 1, ""),
        ("resnest stem", 224, [3, 32], 3, 2, 1, ""),
        ("resnest stem", 112, [32, 32], 3, 1, 1, ""),
        ("resnest stem", 112, [32, 64], 3, 1, 1, ""),
        ("resnest 64-128", 56, [64, 128], 3, 1, 2, "means"),
        ("resnest 128-256", 56, [128, 256], 3, 1, 2, "means"),
        ("resnest 128-256", 28, [128, 256], 3, 1, 2, "means"),
        ("resnest 256-512", 14, [256, 512], 3, 1, 2, "means"),
        ("resnest 512-1024", 7, [512, 1024], 3, 1, 2, "means"),
        ("resnest 4s2x40d", 56, [80, 320], 3, 1, 8, "means"),
        ("tresnet stem", 56, [48, 64], 3, 1, 1, ""),
        ("tresnet 64-128", 56, [64, 128], 3, 1, 1, ""),
        ("tresnet 128-128", 28, [128, 128], 3, 1, 1, "residual"),
        ("tresnet-l 76-76", 56, [76, 76], 3, 1, 1, ""),
        ("tresnet-xl 332-1328", 14, [332, 1328], 1, 1, 1, "residual"),
    ];

    fn spec(&(_, size, [inputs, outputs], kernel, stride, groups, extra): &Layer) -> ConvSpec {
        let output = Map::new(size.div_ceil(stride), size.div_ceil(stride), outputs);
        ConvSpec {
            input: Map::new(size, size, inputs).with_halo(Halo::even(kernel / 2)),
            output,
            kernel: [kernel; 2],
            stride: [stride; 2],
            dilation: [1, 1],
            padding: [kernel / 2; 2],
            groups,
            activation: Activation::Relu,
            residual: (extra == "residual").then_some(output),
            pooled: extra == "means",
        }
    }

    /// The fastest of some runs in seconds, after one to warm up.
    fn best(seconds: f64, mut run: impl FnMut(), mut between: impl FnMut()) -> f64 {
        run();
        let (start, mut best) = (Instant::now(), f64::MAX);
        let mut runs = 0;
        while runs < 3 || start.elapsed().as_secs_f64() < seconds {
            between();
            let begun = Instant::now();
            run();
            best = best.min(begun.elapsed().as_secs_f64());
            runs += 1;
        }
        best
    }

    fn peaks(isa: Isa, seconds: f64) {
        println!("tile products, TFLOP/s of one thread / of all, by the rows of a tile");
        for (name, bytes) in
            [("registers", 0), ("16 KiB", 16 << 10), ("512 KiB", 512 << 10), ("8 MiB", 8 << 20)]
        {
            print!("{name:>12}");
            for rows in [16, 14, 12, 8, 7, 4] {
                for threads in [1, allowed_cores().len()] {
                    let pool = Pool::new(threads, true);
                    let probes: Vec<_> =
                        (0..threads).map(|_| TileProbe::new(isa, rows, bytes / threads).unwrap()).collect();
                    let done = std::sync::atomic::AtomicUsize::new(0);
                    let run = || {
                        pool.run(|worker| {
                            let steps = probes[worker].run(10_000);
                            done.store(steps, std::sync::atomic::Ordering::Relaxed);
                        });
                    };
                    let time = best(seconds / 4.0, run, || ());
                    let flops = probes[0].flops() * done.into_inner() * threads;
                    print!("{}{:.2}", if threads == 1 { "  " } else { "/" }, flops as f64 / time * 1e-12);
                }
            }
            println!();
        }
    }

    fn layer(layer: &Layer, isa: Isa, images: usize, threads: usize, seconds: f64) {
        let spec = spec(layer);
        let conv =
            Amx::new(&spec, &vec![0.01; spec.weights()], Some(&vec![0.1; spec.output.c]), isa).unwrap();
        let pool = Pool::new(threads, true);
        // Lines, as in an arena: rows of tiles lie on cache lines.
        let lines = |elements: usize| vec![Line::ZERO; Line::count(elements * 2)];
        let (mut input, mut output) =
            (lines(images * spec.input.image()), lines(images * spec.output.image()));
        as_bf16_mut(&mut input).fill(Bf16::from_f32(0.5));
        let residual = spec.residual.map(|map| lines(images * map.image()));
        let mut pooled = vec![0.0; images * spec.output.c];
        let mut scratch = vec![Line::ZERO; conv.scratch(threads)];
        let part = Part::whole(images, spec.output.h);
        // With one image, a network's weights leave the caches from call to call.
        let mut flush = vec![1_u8; if images == 1 { 96 << 20 } else { 1 }];
        let run = || {
            let io = ConvIo {
                input: as_bf16(&input),
                output: as_bf16_mut(&mut output),
                residual: residual.as_deref().map(as_bf16),
                pooled: spec.pooled.then_some(&mut pooled[..]),
                scratch: &mut scratch,
            };
            conv.run(&pool, &part, io).unwrap();
        };
        let time = best(seconds, run, || flush.iter_mut().step_by(64).for_each(|x| *x = x.wrapping_add(1)));
        let &(name, size, _, kernel, stride, groups, extra) = layer;
        let rate = (spec.macs() * images * 2) as f64 / time * 1e-12;
        let cost = Amx::cost(&spec, images, threads) * 1e6;
        println!(
            "{name:<22} @{size:<3} {kernel}x{kernel}/{stride} g{groups} {extra:<8} images {images:<2} threads {threads}: \
             {:8.1} us, estimated {cost:8.1}, {rate:.2} TFLOP/s",
            time * 1e6
        );
    }

    pub(super) fn main() {
        let mut args = std::env::args().skip(1);
        let seconds: f64 = args.next().map_or(0.3, |x| x.parse().unwrap());
        let filter = args.next().unwrap_or_default();
        let Some(isa) = Isa::get(Level::Amx) else {
            println!("this processor has no tile registers, or the system does not give them");
            return;
        };
        if let Some(&core) = allowed_cores().first() {
            pin_to(core);
        }
        peaks(isa, seconds);
        for threads in [1, 2] {
            for images in [1, 16] {
                for case in LAYERS.iter().filter(|case| case.0.contains(&filter)) {
                    layer(case, isa, images, threads, seconds);
                }
            }
        }
    }
}
