//! Times the kernels that are bound by memory: GB/s of what each must read and write once, and the ratio to a plain copy
//! of as many bytes on the same threads.
//!
//! `rest_bench [seconds per case] [filter]`
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement for a person")]

use cardinal_kernels::*;
use std::time::{Duration, Instant};

const SHAPES: [[usize; 3]; 2] = [[56, 56, 256], [28, 28, 512]];

struct Bench {
    time: Duration,
    filter: String,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().map_or(0.05, |text| text.parse::<f64>().unwrap());
    let bench =
        Bench { time: Duration::from_secs_f64(seconds), filter: arguments.next().unwrap_or_default() };
    println!("{}", Isa::best());
    for threads in [1, 2] {
        let pool = Pool::new(threads, true);
        for images in [1, 16] {
            for size in SHAPES {
                bench.shape::<f32>(&pool, images, size);
                bench.shape::<Bf16>(&pool, images, size);
            }
        }
    }
}

impl Bench {
    /// Prints what `run` reaches, which must move `bytes`.
    fn case(&self, pool: &Pool, name: &str, bytes: usize, mut run: impl FnMut()) {
        if !name.contains(&self.filter) {
            return;
        }
        let own = self.fastest(&mut run);
        // As much is written as is read.
        let from = vec![1_u8; bytes / 2];
        let mut to = vec![0_u8; bytes / 2];
        let share = (bytes / 2).div_ceil(pool.threads());
        let copy = self.fastest(&mut || {
            let parts: Vec<_> =
                to.chunks_mut(share).zip(from.chunks(share)).map(std::sync::Mutex::new).collect();
            pool.run(|worker| {
                let mut part = parts[worker].lock().unwrap();
                let from = part.1;
                part.0.copy_from_slice(from);
            });
        });
        let rate = |seconds: f64| bytes as f64 / seconds * 1e-9;
        let (gb, ratio) = (rate(own), copy / own);
        println!("  {name:30} {:9.1} us {gb:7.1} GB/s {ratio:6.2} of a copy's {:.1}", own * 1e6, rate(copy));
    }

    fn fastest(&self, run: &mut impl FnMut()) -> f64 {
        run();
        let (start, mut best) = (Instant::now(), f64::MAX);
        while start.elapsed() < self.time {
            let begin = Instant::now();
            run();
            best = best.min(begin.elapsed().as_secs_f64());
        }
        best
    }

    fn shape<T: Element>(&self, pool: &Pool, images: usize, [h, w, c]: [usize; 3]) {
        let (isa, relu, threads) = (Isa::best(), Activation::Relu, pool.threads());
        println!("{h}x{w}x{c} {} batch {images} threads {threads}", T::DTYPE.name());
        let map = Map::new(h, w, c).with_halo(Halo::even(1));
        let (half, narrow) = (Map::new(h / 2, w / 2, c), Map::new(h, w, c / 2));
        let part = Part::whole(images, h);
        let below = Part::whole(images, h / 2);
        let full = images * h * w * c * size_of::<T>();
        let x: Vec<T> =
            (0..images * map.image()).map(|i| T::from_f32((i % 251) as f32 / 100.0 - 1.2)).collect();
        let z = x.clone();
        let mut y = x.clone();
        let logits = vec![0.3_f32; images * c];
        let mut means = vec![0.0_f32; images * c];
        let mut memory = vec![Line::ZERO; 1 << 12];

        let kernel = Activate::new(map, map, relu, isa).unwrap();
        self.case(pool, "relu", 2 * full, || kernel.run(pool, &part, Some(&x), &mut y).unwrap());
        let kernel = Activate::new(map, map, Activation::Silu, isa).unwrap();
        self.case(pool, "silu", 2 * full, || kernel.run(pool, &part, Some(&x), &mut y).unwrap());
        let kernel = Affine::new(map, map, &logits[..c], &logits[..c], relu, isa).unwrap();
        self.case(pool, "affine", 2 * full, || kernel.run(pool, &part, Some(&x), &mut y).unwrap());
        let kernel = Map2::new(Binary::Add, Side::Map(map), Side::Map(map), map, relu, isa).unwrap();
        self.case(pool, "add", 3 * full, || {
            kernel.run(pool, &part, Operand::Map(&x), Operand::Map(&z), &mut y).unwrap();
        });
        let kernel = Gate::new(map, map, Some(map), false, relu, isa).unwrap();
        self.case(pool, "gate and residual", 3 * full, || {
            let io = GateIo {
                input: Some(&x),
                logits: &logits,
                residual: Some(&z),
                output: &mut y,
                scratch: &mut memory,
            };
            kernel.run(pool, &part, io).unwrap();
        });
        let kernel = SplitAttention::new(map, narrow, 2, 1, Activation::Identity, isa).unwrap();
        self.case(pool, "split attention", full + full / 2, || {
            let io = SplitIo { input: &x, logits: &logits, output: &mut y, scratch: &mut memory };
            kernel.run(pool, &part, io).unwrap();
        });
        let kernel = GlobalPool::new(map, 2, isa).unwrap();
        self.case(pool, "global pool", full, || {
            kernel.run(pool, &part, &x, &mut means, &mut memory).unwrap();
        });
        let kernel = BlurPool::new(map, half, isa).unwrap();
        self.case(pool, "blur pool", full + full / 4, || kernel.run(pool, &below, &x, &mut y).unwrap());
        let [three, two] = [(3, 1), (2, 0)].map(|(size, padding)| PoolSpec {
            input: map,
            output: half,
            kernel: [size; 2],
            stride: [2, 2],
            dilation: [1, 1],
            padding: [padding; 2],
        });
        let kernel = MaxPool::new(three.clone(), isa).unwrap();
        self.case(pool, "max pool 3x3/2", full + full / 4, || kernel.run(pool, &below, &x, &mut y).unwrap());
        let kernel = AvgPool::new(three, true, isa).unwrap();
        self.case(pool, "mean pool 3x3/2", full + full / 4, || kernel.run(pool, &below, &x, &mut y).unwrap());
        let kernel = AvgPool::new(two, true, isa).unwrap();
        self.case(pool, "mean pool 2x2/2", full + full / 4, || kernel.run(pool, &below, &x, &mut y).unwrap());
        let kernel = CopyMap::channels(narrow, 0, map, c / 2, c / 2, isa).unwrap();
        self.case(pool, "half of a concatenation", full, || kernel.run(pool, &part, &x, &mut y).unwrap());
        let mut other = vec![0.0_f32; images * map.image()];
        let kernel = CopyMap::new(map, Map::new(h, w, c), isa).unwrap();
        let wide = full + images * h * w * c * 4;
        self.case(pool, "copy to f32", wide, || kernel.run(pool, &part, &x, &mut other).unwrap());
        let kernel = ToNchw::new(map, isa).unwrap();
        self.case(pool, "to NCHW", wide, || kernel.run(pool, &part, &x, &mut other).unwrap());

        // An image of as many numbers, in three channels.
        let side = 4 * h;
        let image = Map::new(side, side, 3).with_halo(Halo::even(3));
        let mut pixels = vec![T::default(); images * image.image()];
        let kernel = FromNchw::new(image, isa).unwrap().with_affine(&[1.5; 3], &[0.1; 3]).unwrap();
        let bytes = images * side * side * 3 * (4 + size_of::<T>());
        let source = vec![0.5_f32; images * side * side * 3];
        let rows = Part::whole(images, side);
        self.case(pool, "from NCHW, 3 channels", bytes, || {
            kernel.run(pool, &rows, &source, &mut pixels).unwrap();
        });
        let deep = Map::new(h, h, 48).with_halo(Halo::even(1));
        let kernel = FromNchw::with_block(deep, 4, isa).unwrap().with_affine(&[1.5; 3], &[0.1; 3]).unwrap();
        self.case(pool, "from NCHW, space to depth", bytes, || {
            kernel.run(pool, &part, &source, &mut y).unwrap();
        });
        let kernel = FillHalo::new(map).unwrap();
        let around = images * (map.image() - h * w * c) * size_of::<T>();
        self.case(pool, "halo", around, || kernel.run(pool, &part, &mut y).unwrap());
        self.depthwise::<T>(pool, images, [h, w, c], &x, &mut y);
    }

    fn depthwise<T: Element>(&self, pool: &Pool, images: usize, [h, w, c]: [usize; 3], x: &[T], y: &mut [T]) {
        let full = images * h * w * c * size_of::<T>();
        for (size, stride) in [(3, 1), (3, 2)] {
            let spec = ConvSpec {
                input: Map::new(h, w, c).with_halo(Halo::even(size / 2)),
                output: Map::new(h / stride, w / stride, c),
                kernel: [size; 2],
                stride: [stride; 2],
                dilation: [1, 1],
                padding: [size / 2; 2],
                groups: c,
                activation: Activation::Relu,
                residual: None,
                pooled: false,
            };
            let weight = vec![0.1; spec.weights()];
            let kernel = Conv::new(&spec, &weight, None, T::DTYPE, Isa::best(), Method::Depthwise).unwrap();
            let name = format!("depthwise {size}x{size}/{stride}");
            self.case(pool, &name, full + full / (stride * stride), || {
                let io = ConvIo { input: x, output: &mut *y, residual: None, pooled: None, scratch: &mut [] };
                kernel.run(pool, &Part::whole(images, h / stride), io).unwrap();
            });
        }
    }
}
