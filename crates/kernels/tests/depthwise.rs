//! Depthwise convolutions against the definition in `f64`, on every level that this processor has.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod maps;

use cardinal_kernels::*;
use maps::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Case {
    way: Way,
    spec: ConvSpec,
    bias: bool,
}

/// One axis: output size, kernel, stride, dilation, padding, and by how much the input is larger than it must be.
fn axis() -> impl Strategy<Value = [usize; 6]> {
    let kernel = prop_oneof![3 => prop::sample::select(vec![3_usize, 5, 7]), 1 => 1..6_usize];
    let dilation = prop_oneof![3 => Just(1_usize), 1 => 2..4_usize];
    (1..22_usize, kernel, 1..4_usize, dilation, 0..3_usize, 0..2_usize).prop_map(
        |(size, kernel, stride, dilation, padding, more)| {
            [size, kernel, stride, dilation, padding.min((kernel - 1) * dilation), more]
        },
    )
}

fn case() -> impl Strategy<Value = Case> {
    let activation = prop::sample::select(vec![
        Activation::Identity,
        Activation::Relu,
        Activation::LeakyRelu(0.01),
        Activation::HardSwish,
    ]);
    let multiplier = prop_oneof![4 => Just(1_usize), 1 => 2..4_usize];
    (way(), [axis(), axis()], channels(), multiplier, [halo(), halo()], activation, any::<[bool; 3]>())
        .prop_map(|(way, axes, c, multiplier, halos, activation, [bias, residual, pooled])| {
            // The input that the windows need, the halo at its end as large as its padding.
            let input = |[size, kernel, stride, dilation, padding, more]: [usize; 6]| {
                let needed = (size - 1) * stride + (kernel - 1) * dilation + 1;
                (needed.saturating_sub(2 * padding).max(1) + more, padding)
            };
            let ([h, w], [(ih, py), (iw, px)]) = ([axes[0][0], axes[1][0]], axes.map(input));
            let halo = Halo { top: py, left: px, bottom: py.max(1), right: px + 1 };
            let output = Map::new(h, w, c * multiplier).with_halo(halos[0]);
            let each = |i: usize| [axes[0][i], axes[1][i]];
            let spec = ConvSpec {
                input: Map::new(ih, iw, c).with_halo(halo),
                output,
                kernel: each(1),
                stride: each(2),
                dilation: each(3),
                padding: [py, px],
                groups: c,
                activation,
                residual: residual.then_some(output.with_halo(halos[1])),
                pooled,
            };
            Case { way, spec, bias }
        })
}

fn depthwise<T: Element>(case: &Case) {
    let Case { way, spec, bias } = case;
    let mut random = way.random();
    let x = way.map::<T>(&spec.input, &mut random).padded();
    let residual = spec.residual.map(|map| way.map::<T>(&map, &mut random));
    let weight = random.numbers(spec.weights());
    let bias = bias.then(|| random.numbers(spec.output.c));
    let (bias, residual) = (bias.as_deref(), residual.as_ref().map(|images| images.slice()));
    let expected = reference::convolve(spec, &weight, bias, way.images, x.slice(), residual);
    let Map { h, w, c, .. } = spec.output;
    // Kernel, bias, residual, and a few for the activation, whose slope is below 1.6.
    let terms = 2 * spec.kernel[0] * spec.kernel[1] + 6;
    for &isa in levels() {
        let kernel = Conv::new(spec, &weight, bias, T::DTYPE, isa, Method::Depthwise).unwrap();
        let mut memory = scratch(kernel.scratch(way.threads));
        let mut y = Images::<T>::filled(way, &spec.output, 7.0);
        let mut pooled = way.vector(&vec![f32::NAN; way.images * c]);
        for part in way.bands(h) {
            let before = y.clone();
            let io = ConvIo {
                input: x.slice(),
                output: y.slice_mut(),
                residual,
                pooled: spec.pooled.then(|| pooled.slice()),
                scratch: &mut memory,
            };
            kernel.run(way.pool(), &part, io).unwrap();
            y.check(&part, &before, |[image, row, column, k]| {
                let at = ((image * h + row) * w + column) * c + k;
                (expected.output[at], sum_tolerance(terms, expected.magnitude[at]))
            });
        }
        for (at, found) in pooled.slice().iter().enumerate().filter(|_| spec.pooled) {
            let tolerance = sum_tolerance(terms + h * w, expected.pooled_magnitude[at]);
            let (found, expected) = (f64::from(*found), expected.pooled[at]);
            assert!((found - expected).abs() <= tolerance, "mean {at}: {found}, not {expected}");
        }
    }
}

proptest! {
    #![proptest_config(common::cases(128))]

    #[test]
    fn depthwise_follows_the_definition(case in case().prop_filter("sizes do not fit", |case| case.spec.check().is_ok())) {
        both_formats!(depthwise(&case));
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let isa = Isa::best();
    let spec = ConvSpec {
        input: Map::new(4, 4, 8).with_halo(Halo::even(1)),
        output: Map::new(4, 4, 8),
        kernel: [3, 3],
        stride: [1, 1],
        dilation: [1, 1],
        padding: [1, 1],
        groups: 8,
        activation: Activation::Identity,
        residual: None,
        pooled: true,
    };
    assert!(Conv::new(&spec, &[0.0; 71], None, DType::F32, isa, Method::Depthwise).is_err());
    assert!(Conv::new(&spec, &[0.0; 72], Some(&[0.0; 7]), DType::F32, isa, Method::Depthwise).is_err());
    let dense = ConvSpec { groups: 4, ..spec.clone() };
    assert!(Conv::new(&dense, &[0.0; 144], None, DType::F32, isa, Method::Depthwise).is_err());
    let kernel = Conv::new(&spec, &[0.0; 72], None, DType::F32, isa, Method::Depthwise).unwrap();
    let (pool, x, mut y) = (Pool::new(1, false), vec![0.0_f32; 288], vec![0.0_f32; 128]);
    let mut means = vec![0.0; 8];
    let io = ConvIo { input: &x, output: &mut y, residual: None, pooled: Some(&mut means), scratch: &mut [] };
    assert!(kernel.run(&pool, &Part::whole(1, 4), io).is_err());
    let mut memory = scratch(kernel.scratch(1));
    let io = ConvIo { input: &x, output: &mut y, residual: None, pooled: None, scratch: &mut memory };
    assert!(kernel.run(&pool, &Part::whole(1, 4), io).is_err());
    let (x, mut y) = (vec![Bf16::default(); 288], vec![Bf16::default(); 128]);
    let io =
        ConvIo { input: &x, output: &mut y, residual: None, pooled: Some(&mut means), scratch: &mut memory };
    assert!(kernel.run(&pool, &Part::whole(1, 4), io).is_err());
}
