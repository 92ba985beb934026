//! Convolution by every method, format and level, against the plain loops.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "levels that could not run are named")]

mod common;
mod windows;

use cardinal_kernels::reference::{Convolved, convolve};
use cardinal_kernels::{
    Activation, Bf16, Conv, ConvIo, ConvSpec, DType, Element, Halo, Isa, KernelError, Level, Line, Map,
    Method, Part, Pool,
};
use proptest::prelude::*;

/// Small numbers with a repeatable pattern.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn vec<T: Element>(&mut self, len: usize) -> Vec<T> {
        (0..len).map(|_| T::from_f32(self.next())).collect()
    }
}

/// How a case is run.
#[derive(Clone, Debug)]
struct Case {
    spec: ConvSpec,
    images: usize,
    /// Rows of the first of two calls.
    cut: usize,
    bias: bool,
    threads: usize,
    seed: u64,
}

/// A convolution that fits its input, from sizes that need not.
fn specs() -> impl Strategy<Value = ConvSpec> {
    let shape = (1_usize..12, 1_usize..14, 1_usize..5, 1_usize..24, 1_usize..40);
    let window = ([1_usize..5, 1_usize..5], [1_usize..4, 1_usize..4], [1_usize..3, 1_usize..3]);
    let edges =
        ([0_usize..3, 0_usize..3], prop::array::uniform4(0_usize..3), prop::array::uniform4(0_usize..3));
    (shape, window, edges, activations(), any::<[bool; 4]>()).prop_map(
        |((h, w, groups, ci, co), (kernel, stride, dilation), (padding, extra, outer), activation, flags)| {
            // A few shapes are more likely than the rest: depthwise, and what Winograd can do.
            let (groups, ci, co) = if flags[2] { (groups * 5, 1, 1) } else { (groups, ci, co) };
            let plain = flags[3];
            let kernel = if plain { [3; 2] } else { kernel };
            let (stride, dilation) = if plain { ([1; 2], [1; 2]) } else { (stride, dilation) };
            let reach = |axis: usize| (kernel[axis] - 1) * dilation[axis];
            let [h, w] = [h, w];
            // The output's size decides what is read; the halo holds that and sometimes more.
            let size = |axis: usize, input: usize| {
                (input + 2 * padding[axis]).saturating_sub(reach(axis) + 1) / stride[axis] + 1
            };
            let (oh, ow) = (size(0, h), size(1, w));
            let need = |axis: usize, output: usize, input: usize| {
                ((output - 1) * stride[axis] + reach(axis) + 1).saturating_sub(padding[axis] + input)
            };
            let halo = Halo {
                top: padding[0] + extra[0] / 2,
                left: padding[1] + extra[1] / 2,
                bottom: need(0, oh, h) + extra[2] / 2,
                right: need(1, ow, w) + extra[3] / 2,
            };
            let around = Halo { top: outer[0], left: outer[1], bottom: outer[2], right: outer[3] };
            let output = Map::new(oh, ow, groups * co).with_halo(around);
            ConvSpec {
                input: Map::new(h, w, groups * ci).with_halo(halo),
                output,
                kernel,
                stride,
                dilation,
                padding,
                groups,
                activation,
                residual: flags[0].then(|| Map::new(oh, ow, groups * co).with_halo(Halo::even(outer[0]))),
                pooled: flags[1],
            }
        },
    )
}

fn activations() -> impl Strategy<Value = Activation> {
    prop::sample::select(vec![
        Activation::Identity,
        Activation::Relu,
        Activation::LeakyRelu(0.1),
        Activation::Relu6,
        Activation::Sigmoid,
        Activation::Silu,
        Activation::HardSigmoid,
        Activation::HardSwish,
    ])
}

fn cases() -> impl Strategy<Value = Case> {
    (specs(), 1_usize..4, 0_usize..12, any::<bool>(), 1_usize..5, any::<u64>()).prop_map(
        |(spec, images, cut, bias, threads, seed)| Case {
            cut: cut.min(spec.output.h),
            spec,
            images,
            bias,
            threads,
            seed,
        },
    )
}

/// Random images with zeros in the padding and, in the halo that no window reaches, what must not be read as a number.
fn images<T: Element>(spec: &ConvSpec, images: usize, numbers: &mut Numbers) -> Vec<T> {
    let map = &spec.input;
    let reach = |axis: usize, output: usize| {
        let last = (output - 1) * spec.stride[axis] + (spec.kernel[axis] - 1) * spec.dilation[axis];
        -(spec.padding[axis] as isize)..last as isize - spec.padding[axis] as isize + 1
    };
    let (rows, columns) = (reach(0, spec.output.h), reach(1, spec.output.w));
    let mut values = numbers.vec(images * map.image());
    for image in values.chunks_exact_mut(map.image()) {
        for y in -(map.halo.top as isize)..(map.h + map.halo.bottom) as isize {
            for x in -(map.halo.left as isize)..(map.w + map.halo.right) as isize {
                let inside = (0..map.h as isize).contains(&y) && (0..map.w as isize).contains(&x);
                if !inside {
                    let read = rows.contains(&y) && columns.contains(&x);
                    let fill = T::from_f32(if read { 0.0 } else { f32::NAN });
                    let at = ((y + map.halo.top as isize) as usize) * map.row()
                        + (x + map.halo.left as isize) as usize * map.c;
                    image[at..at + map.c].fill(fill);
                }
            }
        }
    }
    values
}

/// The rounding of sums of `depth` products, in any order, is at most about this times the sum of their magnitudes.
fn sum_bound(depth: usize) -> f64 {
    (depth + 4) as f64 * f64::from(f32::EPSILON)
}

/// How far a result may be off.
fn tolerance(
    spec: &ConvSpec,
    method: Method,
    dtype: DType,
    expected: f64,
    magnitude: f64,
    largest: f64,
) -> f64 {
    let depth = spec.group_inputs() * spec.kernel[0] * spec.kernel[1];
    // Its transforms add neighbours up before they cancel, so errors go with the largest sum around.
    let sums = if matches!(method, Method::Winograd(_)) {
        32.0 * sum_bound(depth) * largest
    } else {
        sum_bound(depth) * magnitude
    };
    // Activations stretch by at most 1.5, and their exponential is good to some units.
    let activated = 1.5 * sums + 8.0 * f64::from(f32::EPSILON) * (expected.abs() + 1.0);
    match dtype {
        DType::F32 => activated,
        // Rounding the output to eight bits.
        DType::Bf16 => activated + (expected.abs() + activated) / 256.0 + 1e-30,
    }
}

/// Runs a case in two bands and compares everything that was written, and what must not be.
fn check<T: Element>(case: &Case, isa: Isa, method: Method) -> Result<(), TestCaseError> {
    let Case { spec, images: count, cut, .. } = case;
    let numbers = &mut Numbers(case.seed);
    let weight: Vec<f32> = numbers.vec(spec.weights());
    let bias: Option<Vec<f32>> = case.bias.then(|| numbers.vec(spec.output.c));
    let mut input = vec![T::from_f32(f32::NAN)];
    input.extend(images::<T>(spec, *count, numbers));
    let input = &input[1..];
    let residual: Option<Vec<T>> = spec.residual.map(|map| numbers.vec(count * map.image()));
    let right = convolve(spec, &weight, bias.as_deref(), *count, input, residual.as_deref());

    let conv = Conv::new(spec, &weight, bias.as_deref(), T::DTYPE, isa, method).unwrap();
    let pool = Pool::new(case.threads, false);
    let mark = T::from_f32(-77.0);
    let mut output = vec![mark; 1 + count * spec.output.image()];
    let mut pooled = vec![f32::NAN; count * spec.output.c];
    let mut scratch = vec![Line::ZERO; conv.scratch(case.threads)];
    for rows in [0..*cut, *cut..spec.output.h] {
        let io = ConvIo {
            input,
            output: &mut output[1..],
            residual: residual.as_deref(),
            pooled: spec.pooled.then_some(&mut pooled[..]),
            scratch: &mut scratch,
        };
        conv.run(&pool, &Part { images: *count, rows }, io).unwrap();
    }
    prop_assert_eq!(output[0], mark);
    compare(case, method, &right, &output[1..], &pooled, mark)?;
    statistics(case, &conv, (input, residual.as_deref()), &output[1..])
}

/// With statistics the same bits are written, and mean and variance are those of what was written, whoever helped whom.
fn statistics<T: Element>(
    case: &Case,
    conv: &Conv,
    (input, residual): (&[T], Option<&[T]>),
    expected: &[T],
) -> Result<(), TestCaseError> {
    let Case { spec, images, threads, .. } = case;
    let map = &spec.output;
    let run = || {
        let mut output = vec![T::from_f32(-77.0); images * map.image()];
        let mut pooled = vec![0.0; images * map.c];
        let mut found = [vec![f32::NAN; map.c + 1], vec![f32::NAN; map.c + 1]];
        let mut scratch = vec![Line::ZERO; conv.statistics_scratch(*images, *threads)];
        let [mean, var] = &mut found;
        let io = ConvIo {
            input,
            output: &mut output,
            residual,
            pooled: spec.pooled.then_some(&mut pooled[..]),
            scratch: &mut scratch,
        };
        conv.run_with_statistics(&Pool::new(*threads, false), *images, io, [mean, var]).unwrap();
        (output, found)
    };
    let (output, found) = run();
    let whole = |values: &[T]| values.iter().map(|x| x.to_f32().to_bits()).collect::<Vec<_>>();
    // A call in two bands rounds the same where no sum crosses them.
    if conv.method() == Method::Direct {
        prop_assert!(whole(&output) == whole(expected));
    }
    let again = run().1;
    for k in 0..map.c {
        let mut values = Vec::new();
        for image in 0..*images {
            for y in 0..map.h {
                for x in 0..map.w {
                    let at = image * map.image() + map.at(y as isize, x as isize) + k;
                    values.push(f64::from(output[at].to_f32()));
                }
            }
        }
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let var = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
        let largest = values.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
        let spread = values.iter().fold(0.0_f64, |most, x| most.max((x - mean).abs()));
        let (m, v) = (f64::from(found[0][k]), f64::from(found[1][k]));
        prop_assert!((m - mean).abs() <= 1e-6 * (largest + spread), "channel {k}: mean {m} and not {mean}");
        let bound = 1e-5 * var + 1e-6 * spread * spread + 1e-12 * largest * largest;
        prop_assert!((v - var).abs() <= bound, "channel {k}: variance {v} and not {var} +- {bound}");
    }
    prop_assert!(found.iter().zip(&again).all(|(a, b)| a[..map.c] == b[..map.c]));
    prop_assert!(found[0][map.c].is_nan() && found[1][map.c].is_nan());
    Ok(())
}

fn compare<T: Element>(
    case: &Case,
    method: Method,
    right: &Convolved,
    output: &[T],
    pooled: &[f32],
    mark: T,
) -> Result<(), TestCaseError> {
    let spec = &case.spec;
    let map = &spec.output;
    let largest = right.magnitude.iter().copied().fold(0.0, f64::max);
    let mut seen = 0;
    for image in 0..case.images {
        for y in 0..map.h {
            for x in 0..map.w {
                let at = image * map.image() + map.at(y as isize, x as isize);
                let index = ((image * map.h + y) * map.w + x) * map.c;
                for k in 0..map.c {
                    let (found, expected) = (f64::from(output[at + k].to_f32()), right.output[index + k]);
                    let magnitude = right.magnitude[index + k];
                    let bound = tolerance(spec, method, T::DTYPE, expected, magnitude, largest);
                    prop_assert!(
                        (found - expected).abs() <= bound,
                        "image {image}, ({y}, {x}), channel {k}: {found} and not {expected} +- {bound}"
                    );
                    seen += 1;
                }
            }
        }
    }
    // Outside the map nothing is written. (No result is exactly the mark.)
    let marks = output.iter().filter(|&&value| value == mark).count();
    prop_assert_eq!(marks, output.len() - seen, "the output's halo");
    if spec.pooled {
        let pixels = map.h * map.w;
        for (i, (&found, &expected)) in pooled.iter().zip(&right.pooled).enumerate() {
            let magnitude = right.pooled_magnitude[i];
            let bound = tolerance(spec, method, T::DTYPE, expected, magnitude, largest)
                + (sum_bound(pixels) + if T::DTYPE == DType::Bf16 { 1.0 / 256.0 } else { 0.0 })
                    * 1.5
                    * magnitude;
            prop_assert!(
                (f64::from(found) - expected).abs() <= bound,
                "mean {i}: {found} and not {expected} +- {bound}"
            );
        }
    }
    Ok(())
}

fn check_all(case: &Case) -> Result<(), TestCaseError> {
    for &isa in Isa::available() {
        for dtype in [DType::F32, DType::Bf16] {
            for method in Conv::methods(&case.spec, dtype, isa) {
                match dtype {
                    DType::F32 => check::<f32>(case, isa, method),
                    DType::Bf16 => check::<Bf16>(case, isa, method),
                }
                .map_err(|e| TestCaseError::fail(format!("{method} {} {isa}: {e}", dtype.name())))?;
            }
        }
    }
    Ok(())
}

#[test]
fn levels_that_cannot_run_here_are_named() {
    for level in Level::ALL.into_iter().filter(|&level| Isa::get(level).is_none()) {
        eprintln!("not run: {level}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 200, ..common::cases(400) })]

    #[test]
    fn every_method_agrees_with_the_loops(case in cases()) {
        check_all(&case)?;
    }
}

/// A square map of `size` with a kernel of `k` and the padding that keeps the size.
fn square(size: usize, [ci, co]: [usize; 2], k: usize, stride: usize, groups: usize) -> ConvSpec {
    let input = Map::new(size, size, ci).with_halo(Halo::even(k / 2));
    ConvSpec {
        input,
        output: Map::new(size.div_ceil(stride), size.div_ceil(stride), co),
        kernel: [k; 2],
        stride: [stride; 2],
        dilation: [1; 2],
        padding: [k / 2; 2],
        groups,
        activation: Activation::Relu,
        residual: None,
        pooled: true,
    }
}

#[test]
fn long_sums_and_many_panels() {
    // Several slices of the sum, blocks of pixels, panels and images; a stem; one pixel; groups that share a panel.
    for (spec, images) in [
        (square(7, [512, 40], 3, 1, 1), 3),
        (square(20, [70, 33], 3, 2, 1), 2),
        (square(23, [3, 64], 7, 2, 1), 2),
        (square(1, [300, 130], 1, 1, 1), 5),
        (square(9, [128, 128], 3, 1, 32), 1),
        (square(9, [96, 48], 3, 1, 24), 1),
        (square(6, [130, 130], 3, 1, 2), 2),
    ] {
        for threads in [1, 3] {
            let cut = spec.output.h / 2;
            let case = Case { spec: spec.clone(), images, cut, bias: true, threads, seed: 7 };
            check_all(&case).unwrap();
        }
    }
}

/// Small enough for an interpreter that looks for races.
#[test]
fn workers_that_help_each_other() {
    for (images, pooled) in [(2, false), (1, true)] {
        let spec = ConvSpec { pooled, ..square(6, [3, 20], 3, 1, 1) };
        check_all(&Case { spec, images, cut: 2, bias: true, threads: 3, seed: 7 }).unwrap();
    }
}

#[test]
fn outputs_do_not_depend_on_the_threads() {
    let spec = square(13, [48, 80], 3, 1, 1);
    let numbers = &mut Numbers(1);
    let (weight, input) = (numbers.vec::<f32>(spec.weights()), images::<f32>(&spec, 2, numbers));
    for &isa in Isa::available() {
        let conv = Conv::new(&spec, &weight, None, DType::F32, isa, Method::Direct).unwrap();
        let run = |threads| {
            let mut output = vec![0.0; 2 * spec.output.image()];
            let mut pooled = vec![0.0; 2 * spec.output.c];
            let mut scratch = vec![Line::ZERO; conv.scratch(threads)];
            let io = ConvIo {
                input: &input,
                output: &mut output,
                residual: None,
                pooled: Some(&mut pooled),
                scratch: &mut scratch,
            };
            conv.run(&Pool::new(threads, false), &Part::whole(2, spec.output.h), io).unwrap();
            output
        };
        let one = run(1);
        assert!((2..=4).all(|threads| run(threads) == one), "{isa}");
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let spec = square(5, [4, 4], 3, 1, 1);
    let isa = Isa::best();
    let weight = vec![0.0; spec.weights()];
    let build = |spec: &ConvSpec, weight: &[f32], bias: Option<&[f32]>| {
        Conv::new(spec, weight, bias, DType::F32, isa, Method::Direct)
    };
    assert!(matches!(build(&spec, &weight[1..], None), Err(KernelError::Length { .. })));
    assert!(matches!(build(&spec, &weight, Some(&[0.0])), Err(KernelError::Length { .. })));
    let bad = |change: fn(&mut ConvSpec)| {
        let mut spec = spec.clone();
        change(&mut spec);
        build(&spec, &weight, None).is_err()
    };
    assert!(bad(|spec| spec.groups = 3));
    assert!(bad(|spec| spec.stride = [0; 2]));
    assert!(bad(|spec| spec.output.h = 6));
    assert!(bad(|spec| spec.padding = [2; 2]));
    assert!(bad(|spec| spec.input.halo.top = usize::MAX));
    assert!(bad(|spec| spec.dilation[1] = usize::MAX));
    assert!(bad(|spec| spec.residual = Some(Map::new(5, 5, 5))));

    let conv = build(&spec, &weight, None).unwrap();
    let pool = Pool::new(1, false);
    let run = |input: usize, output: usize, pooled: usize, scratch: usize, part: Part| {
        let mut pooled = vec![0.0; pooled];
        conv.run(
            &pool,
            &part,
            ConvIo {
                input: &vec![0.0_f32; input],
                output: &mut vec![0.0; output],
                residual: None,
                pooled: Some(&mut pooled),
                scratch: &mut vec![Line::ZERO; scratch],
            },
        )
    };
    let (input, output, scratch) = (spec.input.image(), spec.output.image(), conv.scratch(1));
    assert_eq!(run(input, output, 4, scratch, Part::whole(1, 5)), Ok(()));
    assert!(run(input - 1, output, 4, scratch, Part::whole(1, 5)).is_err());
    assert!(run(input, output - 1, 4, scratch, Part::whole(1, 5)).is_err());
    assert!(run(input, output, 3, scratch, Part::whole(1, 5)).is_err());
    assert!(run(input, output, 4, scratch - 1, Part::whole(1, 5)).is_err());
    assert!(run(input, output, 4, scratch, Part::whole(2, 5)).is_err());
    assert!(run(input, output, 4, scratch, Part::whole(usize::MAX, 5)).is_err());
    assert!(run(input, output, 4, scratch, Part::whole(1, 6)).is_err());
    let io = ConvIo { input: &[], output: &mut [Bf16(0)], residual: None, pooled: None, scratch: &mut [] };
    assert!(conv.run(&pool, &Part::whole(0, 0), io).is_err());
}

#[test]
fn training_convolves_small_layers_without_winograd() {
    // Where the costs were measured.
    let Some(&isa) = Isa::available().iter().find(|isa| isa.level() == Level::Avx2) else { return };
    let layer = |channels: usize, images: usize| {
        let spec = windows::spec([28; 2], [1, channels, channels], ([3; 2], [1; 2], [1; 2]), [1; 2], 0);
        [Conv::choose, Conv::choose_in_training].map(|choose| choose(&spec, DType::F32, isa, images, 1))
    };
    let [fastest, exact] = layer(32, 4);
    assert_eq!((matches!(fastest, Method::Winograd(_)), exact), (true, Method::Direct));
    let [fastest, same] = layer(128, 16);
    assert!(matches!(fastest, Method::Winograd(_)));
    assert_eq!(fastest, same);
}
