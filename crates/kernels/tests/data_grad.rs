//! The gradient of a convolution's input on every level, against the plain loops.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod windows;

use cardinal_kernels::{Bf16, ConvSpec, DataGrad, DataGradIo, Element, Isa, KernelError, Line, Pool};
use proptest::prelude::*;
use windows::{Numbers, each_product, spec, specs};

/// The gradient at every pixel without its halo, and the sum of the magnitudes of all that was added up.
fn expected<T: Element>(spec: &ConvSpec, images: usize, weight: &[f32], grad: &[T]) -> Vec<(f64, f64)> {
    let mut sums = vec![(0.0, 0.0); images * spec.input.image()];
    each_product(spec, images, |to, from, tap| {
        let weight = f64::from(T::from_f32(weight[tap]).to_f32());
        let product = weight * f64::from(grad[to].to_f32());
        sums[from].0 += product;
        sums[from].1 += product.abs();
    });
    sums
}

fn check<T: Element>(spec: &ConvSpec, images: usize, threads: usize, seed: u64) {
    let mut numbers = Numbers(seed);
    let halo = DataGrad::halo(spec).unwrap().union(spec.output.halo);
    let spec = &ConvSpec { output: spec.output.with_halo(halo), ..spec.clone() };
    let weight: Vec<f32> = numbers.vec(spec.weights());
    let mut grad: Vec<T> = vec![T::default(); images * spec.output.image()];
    each_pixel(&spec.output, images, |at| grad[at] = numbers.vec(1)[0]);
    let expected = expected(spec, images, &weight, &grad);
    let pool = Pool::new(threads, false);
    for &isa in Isa::available() {
        let other = vec![9.0; weight.len()];
        let mut kernel = DataGrad::new(spec, &other, T::DTYPE, isa, images, threads).unwrap();
        kernel.set_weight(&pool, &weight).unwrap();
        let mut scratch = vec![Line::ZERO; kernel.scratch(images, threads)];
        let untouched = T::from_f32(77.0);
        let mut input = vec![untouched; images * spec.input.image()];
        let io = DataGradIo { grad: &grad, input: &mut input, scratch: &mut scratch };
        kernel.run(&pool, images, io).unwrap();
        let mut inside = vec![false; input.len()];
        each_pixel(&spec.input, images, |at| inside[at] = true);
        for (at, found) in input.iter().enumerate() {
            if !inside[at] {
                assert_eq!(*found, untouched, "{isa}: the halo at {at} was written; {spec:?}");
                continue;
            }
            let (sum, magnitude) = expected[at];
            // Winograd loses two digits; bf16 has three.
            let rounding = if T::DTYPE.bytes() == 2 { 1e-2 * sum.abs() } else { 0.0 };
            let allowed = 1e-4 * magnitude + rounding + 1e-6;
            let error = (f64::from(found.to_f32()) - sum).abs();
            assert!(error <= allowed, "{isa} {}: {at}: {found:?}, not {sum}; {spec:?}", kernel.label());
        }
    }
}

fn each_pixel(map: &cardinal_kernels::Map, images: usize, mut visit: impl FnMut(usize)) {
    for image in 0..images {
        for y in 0..map.h {
            for x in 0..map.w {
                let at = image * map.image() + map.at(y as isize, x as isize);
                (at..at + map.c).for_each(&mut visit);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn any_gradient_is_the_definition(spec in specs(), images in 1_usize..4, threads in 1_usize..5, seed: u64) {
        check::<f32>(&spec, images, threads, seed);
        check::<Bf16>(&spec, images, threads, seed);
    }
}

#[test]
fn whole_layers() {
    for (size, channels, kernel, stride) in [
        ([28, 28], [1, 64, 48], 3, 1),
        ([14, 14], [2, 32, 64], 3, 1),
        ([14, 14], [1, 32, 48], 3, 2),
        ([7, 7], [1, 64, 96], 1, 2),
        ([17, 13], [1, 3, 32], 7, 2),
        ([9, 9], [24, 1, 1], 3, 1),
        ([5, 5], [24, 1, 1], 3, 2),
    ] {
        let window = ([kernel; 2], [stride; 2], [1; 2]);
        check::<f32>(&spec(size, channels, window, [kernel / 2; 2], 0), 2, 2, 7);
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let spec = spec([4, 4], [1, 3, 5], ([3; 2], [2; 2], [1; 2]), [1; 2], 1);
    let weight = vec![0.0; spec.weights()];
    let kernel = DataGrad::new(&spec, &weight, f32::DTYPE, Isa::best(), 1, 1).unwrap();
    let pool = Pool::new(1, false);
    let lengths = [spec.output.image(), spec.input.image(), kernel.scratch(1, 1)];
    for short in 0..3 {
        let len = |index: usize| lengths[index] - usize::from(index == short);
        let io = DataGradIo {
            grad: &vec![0.0_f32; len(0)],
            input: &mut vec![0.0; len(1)],
            scratch: &mut vec![Line::ZERO; len(2)],
        };
        assert!(matches!(kernel.run(&pool, 1, io), Err(KernelError::Length { .. })), "{short}");
    }
    assert!(DataGrad::new(&spec, &weight[1..], f32::DTYPE, Isa::best(), 1, 1).is_err());
    let bare = windows::spec([4, 4], [1, 3, 5], ([3; 2], [1; 2], [1; 2]), [1; 2], 0);
    assert!(DataGrad::new(&bare, &weight, f32::DTYPE, Isa::best(), 1, 1).is_err(), "no halo to read from");
}
