//! Winograd convolution against the definition in `f64`, on every level that this processor has.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "errors and levels that could not run are shown")]
#![allow(clippy::single_range_in_vec_init, reason = "bands of rows, of which there may be one")]

mod common;

use cardinal_kernels::{
    Activation, ConvIo, ConvSpec, Halo, Isa, KernelError, Level, Line, Map, Part, Pool, Tile, Winograd,
};
use proptest::prelude::*;
use std::ops::Range;
use std::sync::OnceLock;

/// Normally distributed numbers (sums of twelve uniform ones) from a linear congruential generator.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f64 / f64::from(1 << 24)
    }

    fn normal(&mut self) -> f32 {
        ((0..12).map(|_| self.uniform()).sum::<f64>() - 6.0) as f32
    }

    fn normals(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.normal()).collect()
    }
}

/// A map of NaN but for `size` pixels before the image and what `h` x `w` need after it, which are zero, and the image.
fn images(map: &Map, padding: [usize; 2], needed: [usize; 2], count: usize, random: &mut Random) -> Vec<f32> {
    let mut data = vec![f32::NAN; count * map.image()];
    for image in 0..count {
        for y in -(padding[0] as isize)..needed[0] as isize {
            for x in -(padding[1] as isize)..needed[1] as isize {
                let inside = (0..map.h as isize).contains(&y) && (0..map.w as isize).contains(&x);
                for c in 0..map.c {
                    let value = if inside { random.normal() } else { 0.0 };
                    data[image * map.image() + map.at(y, x) + c] = value;
                }
            }
        }
    }
    data
}

struct Case {
    spec: ConvSpec,
    tile: Tile,
    count: usize,
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    input: Vec<f32>,
    residual: Option<Vec<f32>>,
    /// `[image, y, x, channel]`, before rounding.
    expected: Vec<f64>,
    /// The largest sum of magnitudes over all outputs.
    magnitude: f64,
}

impl Case {
    fn new(spec: ConvSpec, tile: Tile, count: usize, with_bias: bool, seed: u64) -> Self {
        let mut random = Random(seed);
        let needed = [spec.output.h + 2 - spec.padding[0], spec.output.w + 2 - spec.padding[1]];
        let input = images(&spec.input, spec.padding, needed, count, &mut random);
        let residual = spec.residual.map(|map| images(&map, [0, 0], [map.h, map.w], count, &mut random));
        let weight = random.normals(spec.weights());
        let bias = with_bias.then(|| random.normals(spec.output.c));
        let mut case =
            Self { spec, tile, count, weight, bias, input, residual, expected: vec![], magnitude: 0.0 };
        case.define();
        case
    }

    fn define(&mut self) {
        let ConvSpec { input, output, padding, .. } = self.spec;
        let (inputs, outputs) = (self.spec.group_inputs(), self.spec.group_outputs());
        // By tap, so that both operands of a product are contiguous.
        let mut weight = vec![0.0; self.weight.len()];
        for (i, w) in self.weight.iter().enumerate() {
            let (pair, tap) = (i / 9, i % 9);
            weight[(pair / inputs * 9 + tap) * inputs + pair % inputs] = *w;
        }
        let positions = (0..self.count * output.h * output.w * output.c).map(|i| {
            let (pixel, c) = (i / output.c, i % output.c);
            let (row, x) = (pixel / output.w, pixel % output.w);
            (row / output.h, (row % output.h) as isize, x as isize, c)
        });
        for (image, y, x, c) in positions {
            let mut sum = self.bias.as_ref().map_or(0.0, |bias| f64::from(bias[c]));
            let mut magnitude = sum.abs();
            for tap in 0..9 {
                let (v, u) = (y + tap / 3 - padding[0] as isize, x + tap % 3 - padding[1] as isize);
                let pixel =
                    &self.input[image * input.image() + input.at(v, u) + c / outputs * inputs..][..inputs];
                let weight = &weight[(c * 9 + tap as usize) * inputs..][..inputs];
                for (a, b) in pixel.iter().zip(weight) {
                    let product = f64::from(*a) * f64::from(*b);
                    sum += product;
                    magnitude += product.abs();
                }
            }
            if let (Some(map), Some(residual)) = (self.spec.residual, &self.residual) {
                sum += f64::from(residual[image * map.image() + map.at(y, x) + c]);
            }
            self.magnitude = self.magnitude.max(magnitude);
            self.expected.push(activation(self.spec.activation, sum));
        }
    }

    /// Runs band by band, and gives the outputs as `expected` lies, and the means.
    fn run(&self, isa: Isa, pool: &Pool, bands: &[Range<usize>]) -> (Vec<f64>, Vec<f32>) {
        let spec = &self.spec;
        let conv = Winograd::with_tile(spec, self.tile, &self.weight, self.bias.as_deref(), isa).unwrap();
        // Odd starts, so that no vector is aligned, and rubbish in the scratch memory.
        let input = [&[f32::NAN], self.input.as_slice()].concat();
        let residual = self.residual.as_ref().map(|residual| [&[f32::NAN], residual.as_slice()].concat());
        let mut output = vec![f32::NAN; self.count * spec.output.image() + 1];
        let mut pooled = vec![f32::NAN; self.count * spec.output.c + 1];
        let mut scratch = vec![Line::ZERO; conv.scratch(pool.threads())];
        cardinal_kernels::as_f32_mut(&mut scratch).fill(f32::NAN);
        for rows in bands {
            let part = Part { images: self.count, rows: rows.clone() };
            let io = ConvIo {
                input: &input[1..],
                output: &mut output[1..],
                residual: residual.as_ref().map(|residual| &residual[1..]),
                pooled: Some(&mut pooled[1..]),
                scratch: &mut scratch,
            };
            conv.run(pool, &part, io).unwrap();
        }
        assert!(output[0].is_nan(), "a write before the output");
        let mut found = Vec::new();
        for image in 0..self.count {
            let map = &spec.output;
            let all = &output[1 + image * map.image()..][..map.image()];
            let mut touched = vec![false; all.len()];
            for y in 0..map.h as isize {
                for x in 0..map.w as isize {
                    let at = map.at(y, x);
                    touched[at..at + map.c].fill(true);
                    found.extend(all[at..at + map.c].iter().map(|&x| f64::from(x)));
                }
            }
            assert!(
                all.iter().zip(touched).all(|(x, touched)| touched || x.is_nan()),
                "the halo was written"
            );
        }
        (found, pooled[1..].to_vec())
    }

    /// The relative error in the L2 norm.
    fn error(&self, found: &[f64]) -> f64 {
        let (mut error, mut norm) = (0.0, 0.0);
        for (found, expected) in found.iter().zip(&self.expected) {
            error += (found - expected).powi(2);
            norm += expected.powi(2);
        }
        (error / norm).sqrt()
    }
}

fn activation(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Relu => x.max(0.0),
        Activation::LeakyRelu(slope) => x.max(f64::from(slope) * x),
        Activation::Silu => x / (1.0 + (-x).exp()),
        _ => x,
    }
}

fn pools() -> &'static [Pool] {
    static POOLS: OnceLock<Vec<Pool>> = OnceLock::new();
    POOLS.get_or_init(|| {
        let missing: Vec<_> = Level::ALL.into_iter().filter(|&level| Isa::get(level).is_none()).collect();
        println!("levels that could not run here: {missing:?}");
        (1..=4).map(|threads| Pool::new(threads, false)).collect()
    })
}

fn spec(h: usize, w: usize, inputs: usize, outputs: usize, groups: usize) -> ConvSpec {
    ConvSpec {
        input: Map::new(h, w, inputs * groups).with_halo(Halo::even(1)),
        output: Map::new(h, w, outputs * groups),
        kernel: [3, 3],
        stride: [1, 1],
        dilation: [1, 1],
        padding: [1, 1],
        groups,
        activation: Activation::Identity,
        residual: None,
        pooled: false,
    }
}

fn halo() -> impl Strategy<Value = Halo> {
    [0usize..3, 0..3, 0..3, 0..3].prop_map(|[top, left, bottom, right]| Halo { top, left, bottom, right })
}

prop_compose! {
    fn specs()(
        (h, w) in (1usize..19, 1usize..19),
        (inputs, outputs, groups) in (1usize..40, 1usize..80, prop_oneof![3 => Just(1usize), 1 => 2usize..4]),
        padding in [0usize..2, 0usize..2],
        more in [halo(), halo(), halo()],
        activation in prop_oneof![
            Just(Activation::Identity), Just(Activation::Relu), Just(Activation::LeakyRelu(0.01)), Just(Activation::Silu)
        ],
        (residual, pooled) in (any::<bool>(), any::<bool>()),
    ) -> ConvSpec {
        let mut spec = spec(h, w, inputs, outputs, groups);
        // The output decides; the input is what its windows need, some of it as halo.
        spec.padding = padding;
        spec.input.h = h + 1;
        spec.input.w = w + 1;
        spec.input.halo = Halo {
            top: padding[0] + more[0].top,
            left: padding[1] + more[0].left,
            bottom: 1 - padding[0] + more[0].bottom,
            right: 1 - padding[1] + more[0].right,
        };
        spec.output.halo = more[1];
        spec.residual = residual.then(|| Map::new(h, w, spec.output.c).with_halo(more[2]));
        ConvSpec { activation, pooled, ..spec }
    }
}

/// `0..h` cut at `cuts` (per mille).
fn bands(h: usize, cuts: &[usize]) -> Vec<Range<usize>> {
    let mut at: Vec<_> = cuts.iter().map(|cut| cut * h / 1000).chain([0, h]).collect();
    at.sort_unstable();
    at.windows(2).map(|pair| pair[0]..pair[1]).collect()
}

proptest! {
    #![proptest_config(common::cases(250))]

    #[test]
    fn equals_the_definition(
        spec in specs(),
        four in any::<bool>(),
        count in 1usize..5,
        with_bias in any::<bool>(),
        cuts in proptest::collection::vec(0usize..1000, 0..3),
        threads in 1usize..5,
        seed in any::<u64>(),
    ) {
        let (bands, channels, pixels) = (bands(spec.output.h, &cuts), spec.output.c, spec.output.h * spec.output.w);
        let tile = if four { Tile::Four } else { Tile::Two };
        let case = Case::new(spec, tile, count, with_bias, seed);
        // The transforms of F(4x4) enlarge rounding errors of the largest sum of magnitudes some ten times.
        let tolerance = 20.0 * f64::from(f32::EPSILON) * case.magnitude;
        for &isa in Isa::available() {
            let (found, pooled) = case.run(isa, &pools()[threads - 1], &bands);
            for (i, (found, expected)) in found.iter().zip(&case.expected).enumerate() {
                prop_assert!((found - expected).abs() <= tolerance, "{isa}: {i}: {found}, not {expected}");
            }
            if case.spec.pooled {
                for (i, mean) in pooled.iter().enumerate() {
                    let (image, c) = (i / channels, i % channels);
                    let of_image = &case.expected[image * pixels * channels..][..pixels * channels];
                    let expected = of_image[c..].iter().step_by(channels).sum::<f64>() / pixels as f64;
                    prop_assert!((f64::from(*mean) - expected).abs() <= tolerance, "{isa}: mean {i}: {mean}, not {expected}");
                }
            }
        }
    }
}

/// Blocks, chunks of panels, shared and own tiles, at the sizes of networks.
#[test]
fn is_accurate_at_the_sizes_of_networks() {
    let cases = [
        (spec(56, 56, 64, 64, 1), 1),
        (spec(56, 56, 32, 64, 2), 1),
        (spec(28, 28, 128, 128, 1), 1),
        (spec(14, 14, 256, 256, 1), 1),
        (spec(14, 14, 128, 256, 2), 2),
        (spec(7, 7, 512, 512, 1), 1),
        (spec(7, 7, 256, 512, 2), 3),
    ];
    for (mut spec, count) in cases {
        spec.pooled = true;
        let mut case = Case::new(spec.clone(), Tile::Two, count, true, 7);
        for tile in [Tile::Two, Tile::Four] {
            case.tile = tile;
            for &isa in Isa::available() {
                let (found, _) = case.run(isa, &pools()[1], &bands(spec.output.h, &[]));
                let error = case.error(&found);
                let (map, inputs) = (spec.output, spec.group_inputs());
                println!(
                    "{isa}, {tile:?}: {inputs} -> {} in {} groups @{}: {error:.2e}",
                    map.c, spec.groups, map.h
                );
                // Sums of up to 4608 products, each rounded: about 7e-7 after the exact transforms of F(2x2), and
                // three times that after those of F(4x4), whose sums are larger than their results.
                assert!(error <= if tile == Tile::Two { 1.5e-6 } else { 3e-6 });
            }
        }
    }
}

#[test]
fn threads_decide_the_result_alone() {
    let mut spec = spec(14, 14, 32, 48, 2);
    spec.pooled = true;
    let case = Case::new(spec, Tile::Four, 3, true, 1);
    for pool in pools() {
        let first = case.run(Isa::best(), pool, &bands(14, &[]));
        for _ in 0..5 {
            assert_eq!(first, case.run(Isa::best(), pool, &bands(14, &[])), "{} threads", pool.threads());
        }
    }
}

#[test]
fn refuses_what_it_cannot_do() {
    let isa = Isa::best();
    let good = spec(8, 8, 4, 4, 1);
    let weight = vec![0.0; good.weights()];
    let strided = ConvSpec { output: Map::new(4, 4, 4), stride: [2, 2], ..good.clone() };
    let uncovered = ConvSpec { input: Map::new(8, 8, 4), ..good.clone() };
    let dilated = ConvSpec { output: Map::new(6, 6, 4), dilation: [2, 2], ..good.clone() };
    for spec in [&strided, &dilated, &uncovered] {
        assert!(matches!(Winograd::new(spec, &weight, None, isa), Err(KernelError::Spec { .. })));
    }
    assert!(!Winograd::supports(&strided) && !Winograd::supports(&dilated) && Winograd::supports(&good));
    let short = |x| matches!(x, Err(KernelError::Length { .. }));
    assert!(short(Winograd::new(&good, &weight[1..], None, isa).map(|_| ())));
    assert!(short(Winograd::new(&good, &weight, Some(&[0.0; 3]), isa).map(|_| ())));

    let conv = Winograd::new(&good, &weight, None, isa).unwrap();
    let (input, mut output) = (vec![0.0; good.input.image()], vec![0.0; good.output.image()]);
    let mut scratch = vec![Line::ZERO; conv.scratch(1)];
    let run = |input: &[f32], output: &mut [f32], scratch: &mut [Line], rows| {
        let io = ConvIo { input, output, residual: None, pooled: None, scratch };
        conv.run(&pools()[0], &Part { images: 1, rows }, io)
    };
    assert!(run(&input, &mut output, &mut scratch, 0..8).is_ok());
    assert!(short(run(&input[1..], &mut output, &mut scratch, 0..8)));
    assert!(short(run(&input, &mut output[1..], &mut scratch, 0..8)));
    assert!(short(run(&input, &mut output, &mut scratch[1..], 0..8)));
    assert!(run(&input, &mut output, &mut scratch, 0..9).is_err());
    assert!(run(&input, &mut output, &mut scratch, 3..3).is_ok());
}
