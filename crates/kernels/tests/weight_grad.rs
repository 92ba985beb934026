//! The gradient of a convolution's weight on every level, against the plain loops.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "levels that could not run are named")]

use cardinal_kernels::{
    Activation, Bf16, ConvSpec, Element, Halo, Isa, KernelError, Level, Line, Map, Pool, WeightGrad,
    WeightGradIo,
};
use proptest::prelude::*;

/// Small numbers with a repeatable pattern.
struct Numbers(u64);

impl Numbers {
    fn vec<T: Element>(&mut self, len: usize) -> Vec<T> {
        let next = |_| {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            T::from_f32((self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0)
        };
        (0..len).map(next).collect()
    }
}

fn spec(
    [oh, ow]: [usize; 2],
    [groups, ci, co]: [usize; 3],
    (kernel, stride, dilation): ([usize; 2], [usize; 2], [usize; 2]),
    padding: [usize; 2],
    extra: usize,
) -> ConvSpec {
    let reach =
        |axis: usize, size: usize| (size - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] + 1;
    // The windows cover the padding above, the map, and what the halo must have below.
    let (h, w) = (
        reach(0, oh).saturating_sub(2 * padding[0]).max(1),
        reach(1, ow).saturating_sub(2 * padding[1]).max(1),
    );
    let halo = Halo {
        top: padding[0] + extra,
        left: padding[1],
        bottom: reach(0, oh).saturating_sub(padding[0] + h) + extra,
        right: reach(1, ow).saturating_sub(padding[1] + w),
    };
    ConvSpec {
        input: Map::new(h, w, groups * ci).with_halo(halo),
        output: Map::new(oh, ow, groups * co).with_halo(Halo::even(extra)),
        kernel,
        stride,
        dilation,
        padding,
        groups,
        activation: Activation::Identity,
        residual: None,
        pooled: false,
    }
}

fn specs() -> impl Strategy<Value = ConvSpec> {
    let axis = |most: usize| [1..=most, 1..=most];
    (axis(19), [1_usize..5, 1..40, 1..40], (axis(4), axis(3), axis(2)), [0_usize..3, 0..3], 0_usize..3)
        .prop_map(|(output, channels, window, padding, extra)| spec(output, channels, window, padding, extra))
}

/// The gradient and the sum of the magnitudes of all that was added up.
fn expected<T: Element>(spec: &ConvSpec, images: usize, input: &[T], grad: &[T]) -> Vec<(f64, f64)> {
    let (inputs, outputs) = (spec.group_inputs(), spec.group_outputs());
    let mut sums = Vec::with_capacity(spec.weights());
    for o in 0..spec.output.c {
        for i in 0..inputs {
            for ky in 0..spec.kernel[0] {
                for kx in 0..spec.kernel[1] {
                    let (mut sum, mut magnitude) = (0.0, 0.0);
                    for image in 0..images {
                        for y in 0..spec.output.h {
                            for x in 0..spec.output.w {
                                let row = (y * spec.stride[0] + ky * spec.dilation[0]) as isize
                                    - spec.padding[0] as isize;
                                let column = (x * spec.stride[1] + kx * spec.dilation[1]) as isize
                                    - spec.padding[1] as isize;
                                let from = image * spec.input.image()
                                    + spec.input.at(row, column)
                                    + o / outputs * inputs
                                    + i;
                                let to =
                                    image * spec.output.image() + spec.output.at(y as isize, x as isize) + o;
                                let product = f64::from(input[from].to_f32()) * f64::from(grad[to].to_f32());
                                sum += product;
                                magnitude += product.abs();
                            }
                        }
                    }
                    sums.push((sum, magnitude));
                }
            }
        }
    }
    sums
}

fn run<T: Element>(
    spec: &ConvSpec,
    images: usize,
    threads: usize,
    isa: Isa,
    input: &[T],
    grad: &[T],
) -> Vec<f32> {
    let kernel = WeightGrad::new(spec, isa).unwrap();
    let pool = Pool::new(threads, false);
    let mut scratch = vec![Line::ZERO; kernel.scratch(threads)];
    let mut weight = vec![f32::NAN; spec.weights()];
    let io = WeightGradIo { input, grad, weight: &mut weight, scratch: &mut scratch };
    kernel.run(&pool, images, io).unwrap();
    weight
}

fn check<T: Element>(spec: &ConvSpec, images: usize, threads: usize, seed: u64) {
    let mut numbers = Numbers(seed);
    let input: Vec<T> = numbers.vec(images * spec.input.image());
    let grad: Vec<T> = numbers.vec(images * spec.output.image());
    let expected = expected(spec, images, &input, &grad);
    for &isa in Isa::available() {
        let found = run(spec, images, threads, isa, &input, &grad);
        for (index, (found, (sum, magnitude))) in found.iter().zip(&expected).enumerate() {
            // Each rounding of a sum loses half a unit of its size so far, and blocks keep the chains short.
            let allowed = 2e-5 * magnitude + 1e-6;
            let error = (f64::from(*found) - sum).abs();
            assert!(error <= allowed, "{isa}: weight {index}: {found}, not {sum}; {spec:?}");
        }
        let alone = run(spec, images, 1, isa, &input, &grad);
        assert_eq!(found, alone, "{isa}: {threads} threads give other bits than one");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 100, ..ProptestConfig::default() })]

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
        ([14, 14], [2, 32, 64], same(3), 1),
        ([17, 13], [1, 3, 32], ([7; 2], [2; 2], [1; 2]), 3),
        ([1, 1], [1, 96, 40], same(1), 0),
    ] {
        check::<f32>(&spec(size, channels, window, [padding; 2], 0), 2, 2, 7);
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let spec = spec([4, 4], [1, 3, 5], ([3; 2], [1; 2], [1; 2]), [1; 2], 0);
    let kernel = WeightGrad::new(&spec, Isa::best()).unwrap();
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
    let wrong = ConvSpec { groups: 2, ..spec };
    assert!(WeightGrad::new(&wrong, Isa::best()).is_err());
}

#[test]
fn levels_that_could_not_run() {
    let available = Isa::available();
    let missing: Vec<_> =
        Level::ALL.iter().filter(|level| available.iter().all(|isa| isa.level() != **level)).collect();
    eprintln!("levels that could not run here: {missing:?}");
}
