//! The gradient of a convolution's weight on every level, against the plain loops.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "levels that could not run are named")]

mod common;
mod windows;

use cardinal_kernels::{
    Bf16, ConvSpec, DType, Element, Isa, KernelError, Level, Line, Pool, WeightGrad, WeightGradIo, as_f32_mut,
};
use proptest::prelude::*;
use windows::{Numbers, each_product, spec, specs};

/// The gradient and the sum of the magnitudes of all that was added up.
fn expected<T: Element>(spec: &ConvSpec, images: usize, input: &[T], grad: &[T]) -> Vec<(f64, f64)> {
    let mut sums = vec![(0.0, 0.0); spec.weights()];
    each_product(spec, images, |to, from, tap| {
        let product = f64::from(input[from].to_f32()) * f64::from(grad[to].to_f32());
        sums[tap].0 += product;
        sums[tap].1 += product.abs();
    });
    sums
}

/// Every method that can compute it.
fn methods(spec: &ConvSpec, dtype: DType, isa: Isa) -> Vec<WeightGrad> {
    let by_windows = WeightGrad::by_windows(spec, dtype, isa).unwrap();
    let suits = [spec.kernel, spec.stride, spec.dilation] == [[3; 2], [1; 2], [1; 2]];
    let by_winograd = WeightGrad::by_winograd(spec, dtype, isa);
    assert_eq!(by_winograd.is_ok(), suits, "{spec:?}");
    [Ok(by_windows), by_winograd].into_iter().flatten().collect()
}

fn run<T: Element>(
    kernel: &WeightGrad,
    spec: &ConvSpec,
    images: usize,
    threads: usize,
    input: &[T],
    grad: &[T],
) -> Vec<f32> {
    let pool = Pool::new(threads, false);
    // What happens to be there does not matter.
    let mut scratch = vec![Line::ZERO; kernel.scratch(threads)];
    as_f32_mut(&mut scratch).fill(f32::NAN);
    let mut weight = vec![f32::NAN; spec.weights()];
    let io = WeightGradIo { input, grad, weight: &mut weight, scratch: &mut scratch };
    kernel.run(&pool, images, io).unwrap();
    weight
}

fn check<T: Element>(spec: &ConvSpec, images: usize, threads: usize, seed: u64) {
    let mut numbers = Numbers(seed);
    let mut input: Vec<T> = vec![T::default(); images * spec.input.image()];
    // The padding is zero.
    each_product(spec, images, |_, from, _| input[from] = T::from_f32(1.0));
    input.iter_mut().filter(|x| x.to_f32() != 0.0).for_each(|x| *x = numbers.vec(1)[0]);
    let grad: Vec<T> = numbers.vec(images * spec.output.image());
    let expected = expected(spec, images, &input, &grad);
    // Winograd's transforms mix the taps of a kernel.
    let taps: usize = spec.kernel.iter().product();
    let largest = |index: usize| {
        let of_kernel = &expected[index / taps * taps..][..taps];
        of_kernel.iter().fold(0.0_f64, |most, (_, magnitude)| most.max(*magnitude))
    };
    for kernel in Isa::available().iter().flat_map(|&isa| methods(spec, T::DTYPE, isa)) {
        let label = kernel.label();
        let found = run(&kernel, spec, images, threads, &input, &grad);
        for (index, (found, (sum, magnitude))) in found.iter().zip(&expected).enumerate() {
            // Each rounding of a sum loses half a unit of its size so far, and blocks keep the chains short.
            let size = if label.starts_with("winograd") { largest(index) } else { *magnitude };
            let error = (f64::from(*found) - sum).abs();
            let allowed = 2e-5 * size + 1e-6;
            assert!(error <= allowed, "{label}: weight {index}: {found}, not {sum}; {spec:?}");
        }
        let alone = run(&kernel, spec, images, 1, &input, &grad);
        assert_eq!(found, alone, "{label}: {threads} threads give other bits than one");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 100, ..common::cases(96) })]

    #[test]
    fn any_gradient_is_the_definition(spec in specs(), images in 1_usize..4, threads in 1_usize..5, seed: u64) {
        check::<f32>(&spec, images, threads, seed);
        check::<Bf16>(&spec, images, threads, seed);
    }
}

#[test]
fn whole_layers() {
    let same = |kernel: usize| ([kernel; 2], [1; 2], [1; 2]);
    for (size, channels, window, padding) in [
        ([28, 28], [1, 64, 48], same(3), 1),
        ([62, 61], [1, 20, 9], same(3), 1),
        ([14, 14], [2, 32, 64], same(3), 1),
        ([17, 13], [1, 3, 32], ([7; 2], [2; 2], [1; 2]), 3),
        ([1, 1], [1, 96, 40], same(1), 0),
    ] {
        let spec = spec(size, channels, window, [padding; 2], 0);
        check::<f32>(&spec, 2, 2, 7);
        check::<Bf16>(&spec, 2, 2, 7);
    }
}

#[test]
fn large_layers_of_3x3_go_by_tiles() {
    // Where the costs were measured.
    let Some(&isa) = Isa::available().iter().find(|isa| isa.level() == Level::Avx2) else { return };
    let layer = |channels: usize, groups: usize, kernel: usize, images: usize| {
        let spec =
            spec([28, 28], [groups, channels, channels], ([kernel; 2], [1; 2], [1; 2]), [kernel / 2; 2], 0);
        WeightGrad::new(&spec, DType::F32, isa, images).unwrap().label()
    };
    assert!(layer(128, 1, 3, 16).starts_with("winograd"));
    assert!(layer(64, 2, 3, 16).starts_with("winograd"));
    assert!(layer(16, 1, 3, 16).starts_with("product"), "small");
    assert!(layer(4, 64, 3, 16).starts_with("product"), "few channels in a group");
    assert!(layer(128, 1, 1, 16).starts_with("product"), "another kernel");
}

#[test]
fn a_call_without_images_gives_zeros() {
    fn check<T: Element>(spec: &ConvSpec) {
        for kernel in Isa::available().iter().flat_map(|&isa| methods(spec, T::DTYPE, isa)) {
            let weight = run::<T>(&kernel, spec, 0, 2, &[], &[]);
            assert!(weight.iter().all(|x| *x == 0.0), "{}", kernel.label());
        }
    }
    let spec = spec([4, 4], [1, 8, 8], ([3; 2], [1; 2], [1; 2]), [1; 2], 0);
    check::<f32>(&spec);
    check::<Bf16>(&spec);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let spec = spec([4, 4], [1, 3, 5], ([3; 2], [1; 2], [1; 2]), [1; 2], 0);
    for kernel in methods(&spec, DType::F32, Isa::best()) {
        refuses(&kernel, &spec);
    }
    let wrong = ConvSpec { groups: 2, ..spec };
    assert!(WeightGrad::new(&wrong, DType::F32, Isa::best(), 1).is_err());
}

/// Too short slices and the other format.
fn refuses(kernel: &WeightGrad, spec: &ConvSpec) {
    let pool = Pool::new(1, false);
    let lengths = [spec.input.image(), spec.output.image(), spec.weights(), kernel.scratch(1)];
    for short in 0..4 {
        let len = |index: usize| lengths[index] - usize::from(index == short);
        let io = WeightGradIo {
            input: &vec![0.0_f32; len(0)],
            grad: &vec![0.0; len(1)],
            weight: &mut vec![0.0; len(2)],
            scratch: &mut vec![Line::ZERO; len(3)],
        };
        assert!(matches!(kernel.run(&pool, 1, io), Err(KernelError::Length { .. })), "{short}");
    }
    let io = WeightGradIo {
        input: &vec![Bf16(0); lengths[0]],
        grad: &vec![Bf16(0); lengths[1]],
        weight: &mut vec![0.0; lengths[2]],
        scratch: &mut vec![Line::ZERO; lengths[3]],
    };
    assert!(matches!(kernel.run(&pool, 1, io), Err(KernelError::Spec { .. })), "another format");
}

#[test]
fn levels_that_could_not_run() {
    let available = Isa::available();
    let missing: Vec<_> =
        Level::ALL.iter().filter(|level| available.iter().all(|isa| isa.level() != **level)).collect();
    eprintln!("levels that could not run here: {missing:?}");
}
