//! Weights that were packed again, against those that a convolution was built with.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod windows;

use cardinal_kernels::{
    Bf16, Conv, ConvIo, ConvSpec, DataGrad, DataGradIo, Element, Isa, KernelError, Line, Part, Pool,
};
use proptest::prelude::*;
use windows::{Numbers, spec, specs};

fn run<T: Element>(conv: &Conv, spec: &ConvSpec, pool: &Pool, input: &[T]) -> Vec<T> {
    let mut output = vec![T::default(); spec.output.image()];
    let mut scratch = vec![Line::ZERO; conv.scratch(pool.threads())];
    let io = ConvIo { input, output: &mut output, residual: None, pooled: None, scratch: &mut scratch };
    conv.run(pool, &Part::whole(1, spec.output.h), io).unwrap();
    output
}

fn gradient<T: Element>(kernel: &DataGrad, spec: &ConvSpec, pool: &Pool, grad: &[T]) -> Vec<T> {
    let mut input = vec![T::default(); spec.input.image()];
    let mut scratch = vec![Line::ZERO; kernel.scratch(1, pool.threads())];
    kernel.run(pool, 1, DataGradIo { grad, input: &mut input, scratch: &mut scratch }).unwrap();
    input
}

fn check<T: Element>(spec: &ConvSpec, threads: usize, seed: u64) {
    let halo = DataGrad::halo(spec).unwrap().union(spec.output.halo);
    let spec = &ConvSpec { output: spec.output.with_halo(halo), ..spec.clone() };
    let pool = Pool::new(threads, false);
    let mut numbers = Numbers(seed);
    let [weight, before]: [Vec<f32>; 2] = [0, 1].map(|_| numbers.vec(spec.weights()));
    let [bias, bias_before]: [Vec<f32>; 2] = [0, 1].map(|_| numbers.vec(spec.output.c));
    let input: Vec<T> = numbers.vec(spec.input.image());
    let grad: Vec<T> = numbers.vec(spec.output.image());
    for &isa in Isa::available() {
        for method in Conv::methods(spec, T::DTYPE, isa) {
            for bias in [Some(&bias[..]), None] {
                let right = Conv::new(spec, &weight, bias, T::DTYPE, isa, method).unwrap();
                let mut again = Conv::new(spec, &before, Some(&bias_before), T::DTYPE, isa, method).unwrap();
                again.repack(&pool, &weight, bias).unwrap();
                let [right, found] = [&right, &again].map(|conv| run(conv, spec, &pool, &input));
                assert_eq!(found, right, "{isa} {method} {spec:?}");
            }
        }
        let right = DataGrad::new(spec, &weight, T::DTYPE, isa, 1, threads).unwrap();
        let mut again = DataGrad::new(spec, &before, T::DTYPE, isa, 1, threads).unwrap();
        again.set_weight(&pool, &weight).unwrap();
        let [right, found] = [&right, &again].map(|kernel| gradient(kernel, spec, &pool, &grad));
        assert_eq!(found, right, "{isa} {} {spec:?}", again.label());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn packing_again_is_packing(spec in specs(), threads in 1_usize..5, seed: u64) {
        check::<f32>(&spec, threads, seed);
        check::<Bf16>(&spec, threads, seed);
    }
}

#[test]
fn whole_layers() {
    let square = |kernel: usize, stride: usize| ([kernel; 2], [stride; 2], [1; 2]);
    for (size, channels, window) in [
        (5, [1, 70, 90], square(3, 1)),
        (4, [1, 70, 90], square(1, 1)),
        (4, [16, 8, 8], square(3, 1)),
        (9, [1, 3, 40], square(7, 2)),
        (5, [40, 1, 1], square(3, 1)),
        (3, [2, 65, 33], square(3, 2)),
    ] {
        let spec = spec([size; 2], channels, window, [window.0[0] / 2; 2], 0);
        check::<f32>(&spec, 2, 3);
        check::<Bf16>(&spec, 2, 3);
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let spec = spec([4, 4], [1, 3, 5], ([3; 2], [1; 2], [1; 2]), [1; 2], 2);
    let (isa, pool) = (Isa::best(), Pool::new(1, false));
    let weight = vec![0.5; spec.weights()];
    for method in Conv::methods(&spec, f32::DTYPE, isa) {
        let mut conv = Conv::new(&spec, &weight, None, f32::DTYPE, isa, method).unwrap();
        let short = |result| matches!(result, Err(KernelError::Length { .. }));
        assert!(short(conv.repack(&pool, &weight[1..], None)));
        assert!(short(conv.repack(&pool, &weight, Some(&[0.0; 4]))));
        assert!(conv.repack(&pool, &weight, Some(&[0.0; 5])).is_ok());
    }
    let mut grad = DataGrad::new(&spec, &weight, f32::DTYPE, isa, 1, 1).unwrap();
    assert!(grad.set_weight(&pool, &weight[1..]).is_err());
}
