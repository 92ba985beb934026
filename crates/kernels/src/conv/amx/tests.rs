//! The convolution on emulated tiles with the vectors of every level, and on the processor's own where it has them,
//! against the definition.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../tests/common/mod.rs"]
pub(in crate::conv) mod common;

use super::plan::COPY_IMAGES;
use super::software::{Software, pair};
use super::steps::{Place, Steps};
use super::walk::{Copied, Spot, View, Walk};
use super::*;
use crate::reference::convolve;
use crate::{Activation, Halo, Map};
use proptest::prelude::*;

/// Numbers from -1 to 1 in bf16, the same for a seed.
fn random(seed: u64, count: usize) -> Vec<Bf16> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Bf16::from_f32((state >> 40) as f32 / (1 << 23) as f32 - 1.0)
    };
    (0..count).map(|_| next()).collect()
}

fn random_f32(seed: u64, count: usize) -> Vec<f32> {
    random(seed, count).into_iter().map(Bf16::to_f32).collect()
}

const NAN: Bf16 = Bf16(0x7fc1);

#[derive(Clone, Debug)]
struct Case {
    spec: ConvSpec,
    bias: bool,
    images: usize,
    threads: usize,
    /// Rows at which the output is cut into parts.
    cuts: Vec<usize>,
    seed: u64,
}

/// What one way of running gives: the output of every part's call on memory full of NaN, and the means.
struct Outcome {
    output: Vec<Bf16>,
    pooled: Vec<f32>,
}

impl Case {
    fn weight(&self) -> Vec<f32> {
        random_f32(self.seed + 1, self.spec.weights())
    }

    fn bias(&self) -> Option<Vec<f32>> {
        self.bias.then(|| random_f32(self.seed + 2, self.spec.output.c))
    }

    fn input(&self) -> Vec<Bf16> {
        random(self.seed + 3, self.images * self.spec.input.image())
    }

    fn residual(&self) -> Option<Vec<Bf16>> {
        self.spec.residual.map(|map| random(self.seed + 4, self.images * map.image()))
    }

    fn run<T: Tiles>(&self, isa: Isa, input: &[Bf16]) -> Outcome {
        let conv = Amx::pack(&self.spec, &self.weight(), self.bias().as_deref(), isa).unwrap();
        let pool = Pool::new(self.threads, false);
        let residual = self.residual();
        // Slices start at an odd element, between numbers that must be neither read nor written.
        let padded = [&[NAN][..], input, &[NAN; 64]].concat();
        let mut output = vec![NAN; self.images * self.spec.output.image() + 1];
        let mut pooled = vec![f32::NAN; self.images * self.spec.output.c];
        // A line of 0xff is NaN in every format.
        let mut scratch = vec![Line::ZERO; conv.scratch(self.threads)];
        crate::as_bf16_mut(&mut scratch).fill(Bf16(0xffff));
        let mut start = 0;
        for end in self.cuts.iter().copied().chain([self.spec.output.h]) {
            let io = ConvIo {
                input: &padded[1..=input.len()],
                output: &mut output[1..],
                residual: residual.as_deref(),
                pooled: self.spec.pooled.then_some(&mut pooled[..]),
                scratch: &mut scratch,
            };
            conv.run_on::<T>(&pool, &Part { images: self.images, rows: start..end }, io).unwrap();
            start = end;
        }
        assert_eq!(output[0], NAN);
        output.remove(0);
        Outcome { output, pooled }
    }

    /// Runs on emulated tiles with the vectors of every level and, where possible, on real ones.
    fn run_all(&self, input: &[Bf16]) -> Vec<(String, Outcome)> {
        let emulated = Isa::available().iter();
        let mut outcomes: Vec<_> =
            emulated.map(|&isa| (format!("emulated, {isa}"), self.run::<Software>(isa, input))).collect();
        if let Some(isa) = Isa::get(Level::Amx) {
            let real = self.run::<Hardware>(isa, input);
            let emulated = &outcomes.last().unwrap().1;
            assert_eq!(real.output, emulated.output, "real and emulated tiles differ");
            outcomes.push((isa.to_string(), real));
        }
        outcomes
    }

    /// Compares with the definition.
    fn check(&self) {
        let (weight, bias, input, residual) = (self.weight(), self.bias(), self.input(), self.residual());
        let expected =
            convolve(&self.spec, &weight, bias.as_deref(), self.images, &input, residual.as_deref());
        let map = &self.spec.output;
        // Every addition errs by at most half a unit of its result, which no partial sum's magnitude exceeds; the
        // steepest activation has slope 1.1, and exp errs by some units.
        let terms = self.spec.weights() / map.c + 10;
        let sum_error = |magnitude: f64| 2.0 * terms as f64 * f64::from(f32::EPSILON) * magnitude + 1e-6;
        for (name, outcome) in self.run_all(&input) {
            let mut visited = vec![false; outcome.output.len()];
            for (i, (want, magnitude)) in expected.output.iter().zip(&expected.magnitude).enumerate() {
                let (channel, pixel) = (i % map.c, i / map.c);
                let (x, y, image) = (pixel % map.w, pixel / map.w % map.h, pixel / map.w / map.h);
                let at = image * map.image() + map.at(y as isize, x as isize) + channel;
                visited[at] = true;
                let got = f64::from(outcome.output[at].to_f32());
                // Half a unit of bf16's 8 bits, and all of it where the error above crosses a tie.
                let tolerance = sum_error(*magnitude) + want.abs() / 256.0;
                assert!(
                    (got - want).abs() <= tolerance,
                    "{name}: {got}, not {want}, at {image} {y} {x} {channel}"
                );
            }
            let halo = outcome.output.iter().zip(&visited).filter(|(_, visited)| !**visited);
            assert!(halo.into_iter().all(|(value, _)| *value == NAN), "{name}: the halo was written");
            if self.spec.pooled {
                let pixels = (map.h * map.w) as f64;
                let means = expected.pooled.iter().zip(&expected.pooled_magnitude);
                for ((got, (want, magnitude)), i) in outcome.pooled.iter().zip(means).zip(0..) {
                    let adding = pixels * f64::from(f32::EPSILON) * magnitude;
                    let error = (f64::from(*got) - want).abs();
                    assert!(
                        error <= sum_error(*magnitude) + adding,
                        "{name}: mean {got}, not {want}, at {i}"
                    );
                }
            }
        }
    }
}

/// A dense 3x3 with padding 1, to vary.
fn dense(size: usize, inputs: usize, outputs: usize) -> Case {
    let spec = ConvSpec {
        input: Map::new(size, size, inputs).with_halo(Halo::even(1)),
        output: Map::new(size, size, outputs),
        kernel: [3, 3],
        stride: [1, 1],
        dilation: [1, 1],
        padding: [1, 1],
        groups: 1,
        activation: Activation::Relu,
        residual: None,
        pooled: false,
    };
    Case { spec, bias: true, images: 1, threads: 2, cuts: vec![], seed: 7 }
}

#[test]
fn levels_that_could_not_run() {
    let missing = Level::ALL.into_iter().filter(|&level| Isa::get(level).is_none());
    println!("not run: {}", missing.map(Level::name).collect::<Vec<_>>().join(", "));
}

#[test]
fn the_layers_of_our_networks_in_small() {
    // Sizes that take each path: lines of rows, flat with and without gaps, interleaved copies, strided copies, tails,
    // several panels, weights beyond L2.
    dense(16, 32, 32).check();
    dense(14, 64, 64).check();
    let mut narrow = dense(7, 64, 96);
    narrow.images = 5;
    narrow.check();
    narrow.spec.pooled = true;
    narrow.check();
    narrow.spec.stride = [2, 2];
    narrow.spec.output = Map::new(4, 4, 96).with_halo(Halo::even(1));
    narrow.check();
    let mut pointwise = dense(7, 96, 64);
    pointwise.spec.input = Map::new(7, 7, 96);
    pointwise.spec.residual = Some(Map::new(7, 7, 64).with_halo(Halo::even(2)));
    (pointwise.spec.kernel, pointwise.spec.padding, pointwise.images) = ([1, 1], [0, 0], 3);
    (pointwise.spec.pooled, pointwise.threads) = (true, 4);
    pointwise.check();
    let mut stem = dense(20, 3, 32);
    (stem.spec.kernel, stem.spec.padding, stem.spec.stride) = ([7, 7], [3, 3], [2, 2]);
    stem.spec.input = Map::new(20, 20, 3).with_halo(Halo::even(3));
    stem.spec.output = Map::new(10, 10, 32);
    stem.check();
    let mut wide = dense(7, 640, 608);
    (wide.spec.kernel, wide.spec.padding, wide.threads) = ([1, 3], [0, 1], 3);
    wide.check();
    let mut odd = dense(9, 76, 83);
    odd.images = 2;
    odd.check();
}

#[test]
fn weights_beyond_l2_share_blocks_of_pixels() {
    let mut case = dense(9, 332, 200);
    case.images = 2;
    case.threads = 1;
    let conv = Amx::pack(&case.spec, &case.weight(), None, Isa::best()).unwrap();
    let split = conv.split(&Plan::new(&case.spec, &conv.steps, 2, &(0..9)), 1);
    assert!(split.block_tiles > 2 && conv.steps.gathered > 0, "{split:?}");
    case.check();
}

#[test]
fn more_images_than_one_copy_holds() {
    let mut case = dense(7, 32, 480);
    (case.images, case.spec.pooled) = (COPY_IMAGES * 2 + 1, true);
    assert!(Plan::new(&case.spec, &Steps::new(&case.spec), case.images, &(0..7)).copied.is_some());
    case.check();
}

#[test]
fn a_nan_stays_in_the_windows_that_hold_it() {
    for inputs in [3, 20, 32, 76] {
        for size in [7, 18] {
            let mut case = dense(size, inputs, 24);
            (case.images, case.spec.activation) = (2, Activation::Identity);
            let mut input = case.input();
            let (map, [y, x]) = (case.spec.input, [3, 4]);
            input[map.image() + map.at(y, x) + inputs - 1] = NAN;
            for (name, outcome) in case.run_all(&input) {
                for pixel in 0..2 * size * size {
                    let (image, row, column) = (pixel / size / size, pixel / size % size, pixel % size);
                    let near =
                        image == 1 && row.abs_diff(y as usize) <= 1 && column.abs_diff(x as usize) <= 1;
                    let output = &outcome.output[pixel * 24..][..24];
                    assert!(output.iter().all(|x| x.to_f32().is_nan() == near), "{name}: at {pixel}");
                }
            }
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    for mut case in [dense(7, 64, 96), dense(14, 64, 40), dense(12, 24, 64)] {
        case.images = 3;
        let outputs: Vec<_> = (1..=4)
            .map(|threads| {
                case.threads = threads;
                case.run::<Software>(Isa::best(), &case.input()).output
            })
            .collect();
        assert!(outputs.iter().all(|output| *output == outputs[0]));
    }
}

#[test]
fn bad_calls_are_errors() {
    let case = dense(7, 32, 32);
    let isa = Isa::best();
    assert!(Amx::pack(&case.spec, &case.weight()[1..], None, isa).is_err());
    assert!(Amx::pack(&case.spec, &case.weight(), Some(&[0.0; 31]), isa).is_err());
    if isa.level() != Level::Amx {
        assert!(Amx::new(&case.spec, &case.weight(), None, isa).is_err());
    }
    let mut unpadded = case.spec.clone();
    unpadded.input = Map::new(7, 7, 32);
    assert!(!Amx::supports(&unpadded) && Amx::pack(&unpadded, &case.weight(), None, isa).is_err());

    let conv = Amx::pack(&case.spec, &case.weight(), None, isa).unwrap();
    let pool = Pool::new(2, false);
    let (input, mut output) = (case.input(), vec![NAN; 49 * 32]);
    let mut scratch = vec![Line::ZERO; conv.scratch(2)];
    let lines = scratch.len();
    for (short, rows) in [([1, 0, 0], 0..7), ([0, 1, 0], 0..7), ([0, 0, 1], 0..7), ([0, 0, 0], 0..8)] {
        let [a, b, c] = short;
        let io = ConvIo {
            input: &input[a..],
            output: &mut output[b..],
            residual: None,
            pooled: None,
            scratch: &mut scratch[..lines - c],
        };
        assert!(conv.run_on::<Software>(&pool, &Part { images: 1, rows }, io).is_err());
    }
}

#[test]
fn a_walk_visits_every_output_once_and_stays_in_the_input() {
    for (size, stride, images, copies) in
        [(7, 1, 3, 1), (7, 1, 3, 3), (7, 2, 5, 5), (14, 1, 2, 1), (5, 3, 1, 1), (18, 1, 2, 1), (4, 2, 1, 1)]
    {
        for kernel in [1, 3] {
            let mut case = dense(size, 32, 32);
            let spec = &mut case.spec;
            (spec.kernel, spec.padding, spec.stride) = ([kernel; 2], [kernel / 2; 2], [stride; 2]);
            spec.input = Map::new(size * stride, size * stride, 32).with_halo(Halo::even(kernel / 2));
            let rows = 1..size;
            let copied = (copies > 1).then(|| Copied::new(spec, &rows, copies));
            let (view, len) = match &copied {
                Some(copied) => (copied.view(), copied.len()),
                None => (View::direct(spec, 1), spec.input.image() * images),
            };
            let walk = Walk::new(view, rows.len(), size, images);
            let mut visits = vec![0; images * rows.len() * size];
            for tile in 0..walk.tiles {
                let spot = walk.spot(tile);
                if tile > 0 {
                    assert_eq!(walk.spot_after(&walk.spot(tile - 1), tile), spot);
                }
                let Spot { window, skip, mut at, .. } = spot;
                let last = Place { tap: [kernel - 1; 2], channel: 31 };
                let end = window + (walk.tile - 1) * walk.spacing + walk.view.offset(spec, last);
                assert!(end < len, "{walk:?} ends at {end} of {len}");
                let mut row = skip;
                while row < walk.tile {
                    if at.pixel < walk.width {
                        let [image, x] = [at.image + at.pixel % copies, at.pixel / copies];
                        visits[(image * walk.rows + at.y) * size + x] += 1;
                    }
                    at.pixel += 1;
                    if at.pixel == walk.pitch {
                        at.next_row(walk.rows);
                    }
                    row += 1;
                }
            }
            assert!(visits.iter().all(|&visits| visits == 1), "{walk:?}: {visits:?}");
        }
    }
}

fn activation() -> impl Strategy<Value = Activation> {
    prop_oneof![
        Just(Activation::Identity),
        Just(Activation::Relu),
        Just(Activation::LeakyRelu(0.01)),
        Just(Activation::Silu),
    ]
}

fn axis() -> impl Strategy<Value = [usize; 6]> {
    // Output, kernel, stride, dilation, padding before, unused pixels behind.
    (1..20_usize, 1..5_usize, 1..4_usize, 1..3_usize, 0..4_usize, 0..3_usize).prop_map(
        |(output, kernel, stride, dilation, padding, behind)| {
            [output, kernel, stride, dilation, padding, behind]
        },
    )
}

fn halo() -> impl Strategy<Value = Halo> {
    (0..2_usize, 0..2_usize, 0..2_usize, 0..2_usize).prop_map(|(top, left, bottom, right)| Halo {
        top,
        left,
        bottom,
        right,
    })
}

fn channels() -> impl Strategy<Value = [usize; 3]> {
    let sizes = || prop_oneof![1..80_usize, Just(16), Just(32), Just(64)];
    prop_oneof![
        (sizes(), sizes()).prop_map(|(inputs, outputs)| [1, inputs, outputs]),
        (2..5_usize, 1..40_usize, 1..40_usize).prop_map(Into::into),
        (2..40_usize, 1..5_usize, 1..5_usize).prop_map(Into::into),
    ]
}

fn case() -> impl Strategy<Value = Case> {
    let shape = (axis(), axis(), channels(), halo(), proptest::option::of(halo()));
    let rest = (activation(), any::<bool>(), any::<bool>(), 1..6_usize, 1..5_usize);
    (shape, rest, proptest::collection::vec(1..20_usize, 0..3), any::<u32>()).prop_map(
        |((rows, columns, [groups, inputs, outputs], halo, residual), rest, cuts, seed)| {
            let (activation, pooled, bias, images, threads) = rest;
            let axes = [rows, columns];
            let of = |i: usize| axes.map(|axis| axis[i]);
            // The input ends somewhere in the last window, whose rest is halo.
            let extent = axes.map(|[output, kernel, stride, dilation, ..]| {
                (output - 1) * stride + (kernel - 1) * dilation + 1
            });
            let size = [0, 1].map(|i| extent[i].saturating_sub(axes[i][4]).max(1));
            let behind = [0, 1]
                .map(|i| (extent[i] - axes[i][4].min(extent[i] - 1)).saturating_sub(size[i]) + axes[i][5]);
            let padding = [0, 1].map(|i| axes[i][4].min(extent[i] - 1));
            let around = Halo { top: padding[0], left: padding[1] + 1, bottom: behind[0], right: behind[1] };
            let output = Map::new(rows[0], columns[0], groups * outputs);
            let spec = ConvSpec {
                input: Map::new(size[0], size[1], groups * inputs).with_halo(around),
                output: output.with_halo(halo),
                kernel: of(1),
                stride: of(2),
                dilation: of(3),
                padding,
                groups,
                activation,
                residual: residual.map(|halo| output.with_halo(halo)),
                pooled,
            };
            let mut cuts: Vec<_> = cuts.into_iter().filter(|&cut| cut < rows[0]).collect();
            cuts.sort_unstable();
            Case { spec, bias, images, threads, cuts, seed: u64::from(seed) }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 200, ..common::cases(100) })]

    #[test]
    fn any_convolution_is_the_definition(case in case()) {
        // Emulation takes microseconds for a product.
        prop_assume!(case.spec.macs() * case.images < 2_000_000);
        case.check();
    }
}

#[test]
fn real_tiles_do_what_the_emulated_do() {
    use crate::x86::amx::{LEFT, RIGHT, Shapes};
    struct Results([[u32; 256]; 2]);

    /// A product on top of a loaded accumulator, and 32 numbers copied with padding.
    fn product<T: Tiles>(rows: usize, acc: &[u32], left: &[u32], right: &[u32], count: usize) -> Results {
        let mut results = Results([[0; 256]; 2]);
        let mut tiles = T::default();
        // SAFETY: tiles are 1 KiB at most, as the slices are; `T` is emulated or the processor's.
        unsafe {
            tiles.configure(&Shapes::new(rows));
            tiles.load::<1>(acc.as_ptr().cast(), 64);
            tiles.load::<LEFT>(left.as_ptr().cast(), 64);
            tiles.load::<RIGHT>(right.as_ptr().cast(), 64);
            tiles.dot::<1, LEFT, RIGHT>();
            tiles.zero::<2>();
            tiles.dot::<2, LEFT, RIGHT>();
            tiles.store::<1>(results.0[0].as_mut_ptr().cast(), 64);
            tiles.store::<2>(results.0[1].as_mut_ptr().cast(), 64);
            tiles.release();
        }
        let mut copied = [0xffff_u16; 40];
        let bits: Vec<u16> = left.iter().map(|&x| x as u16).collect();
        // SAFETY: 32 numbers are written at most, and `count` are read.
        unsafe { T::copy_padded(copied.as_mut_ptr(), bits.as_ptr(), count) };
        assert_eq!(copied[..count], bits[..count]);
        assert!(copied[count..32].iter().all(|&x| x == 0) && copied[32..].iter().all(|&x| x == 0xffff));
        results
    }

    /// Pairs from -1 to 1 or, if `small`, some denormals among numbers whose products are near the denormals.
    fn bits(seed: u64, small: bool) -> Vec<u32> {
        let exponent = |i: usize| [0, 61, 62, 63, 64][i % 5] << 7;
        let number = |(i, x): (usize, Bf16)| if small { x.0 & 0x807f | exponent(i) } else { x.0 };
        let numbers: Vec<_> = random(seed, 512).into_iter().enumerate().map(number).collect();
        numbers.chunks_exact(2).map(|pair| u32::from(pair[0]) | u32::from(pair[1]) << 16).collect()
    }

    /// How many of an output's products and sums may count as zero: those that are denormal, and those that rounding
    /// may take there.
    fn denormals(left: &[u32], right: &[u32], row: usize, column: usize) -> usize {
        let mut sums = [0.0; 2];
        let mut count = 0;
        let mut note =
            |x: f64| count += usize::from(x != 0.0 && x.abs() < 2.0 * f64::from(f32::MIN_POSITIVE));
        for step in 0..16 {
            let (a, b) = (pair(left[row * 16 + step]), pair(right[step * 16 + column]));
            for i in 0..2 {
                let product = f64::from(a[i]) * f64::from(b[i]);
                sums[i] += product;
                note(product);
                note(sums[i]);
            }
        }
        note(sums[0] + sums[1]);
        count
    }

    for seed in 0..40 {
        let (rows, small) = (1 + seed as usize % 16, seed % 3 == 0);
        let (acc, left, right) = (bits(seed, small), bits(seed + 100, small), bits(seed + 200, small));
        let count = seed as usize % 33;
        let emulated = product::<Software>(rows, &acc, &left, &right, count);
        assert!(emulated.0[1][rows * 16..].iter().all(|&x| x == 0), "only the configured rows are stored");
        if Isa::get(Level::Amx).is_none() {
            continue;
        }
        let real = product::<Hardware>(rows, &acc, &left, &right, count);
        for (i, (real, emulated)) in real.0.iter().flatten().zip(emulated.0.iter().flatten()).enumerate() {
            let (row, column) = (i / 16 % 16, i % 16);
            let zeros = if row < rows { denormals(&left, &right, row, column) } else { 0 };
            if zeros == 0 {
                assert_eq!(real, emulated, "{rows} rows: {row}, {column}");
                continue;
            }
            // Processors take denormals for zero, but may do so before or after rounding, and for a product by itself
            // or for its sum alone: each time that is less than the smallest normal number. What follows may then
            // round the other way.
            let [real, emulated] = [real, emulated].map(|bits| f32::from_bits(*bits));
            let tolerance = zeros as f32 * f32::MIN_POSITIVE + f32::EPSILON * emulated.abs();
            assert!(
                (real - emulated).abs() <= tolerance,
                "{rows} rows: {real:e}, not {emulated:e}, at {row}, {column}"
            );
        }
    }
}
