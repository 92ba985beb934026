//! Batch norm in training on every level, against plain loops.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use cardinal_kernels::{
    Bf16, DType, Element, FixedNormGrad, FixedNormGradIo, Halo, Isa, KernelError, Line, Map, NormApply,
    NormApplyIo, NormGrad, NormGradIo, NormSource, NormStats, Pool, Write, scale_shift,
};
use proptest::prelude::*;

/// Small numbers with a repeatable pattern.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn vec<T: Element>(&mut self, len: usize, middle: f32) -> Vec<T> {
        (0..len).map(|_| T::from_f32(self.next() + middle)).collect()
    }
}

/// Places of channel `k` in images of `map`.
fn places(map: Map, images: usize, k: usize) -> impl Iterator<Item = usize> {
    (0..images * map.h * map.w).map(move |pixel| {
        let (row, x) = (pixel / map.w, pixel % map.w);
        row / map.h * map.image() + map.at((row % map.h) as isize, x as isize) + k
    })
}

#[derive(Clone, Debug)]
struct Case {
    kept: Map,
    grad: Map,
    result: Map,
    /// Of an activation behind the norm, and its slope.
    output: Option<(Map, f32)>,
    way: Way,
    images: usize,
    threads: usize,
    slope: f32,
    /// How far the values are from zero.
    middle: f32,
    seed: u64,
}

/// Where the gradient of the input goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    InPlace,
    Apart(Write),
}

fn cases() -> impl Strategy<Value = Case> {
    let halo = || {
        prop::array::uniform4(0_usize..3).prop_map(|[top, left, bottom, right]| Halo {
            top,
            left,
            bottom,
            right,
        })
    };
    let shape = (1_usize..9, 1_usize..40, 1_usize..90);
    let rest = (
        1_usize..4,
        1_usize..5,
        prop::sample::select(vec![1e-3_f32, 0.01, 1.0, 0.0]),
        -20.0_f32..20.0,
        any::<u64>(),
    );
    let ways = vec![Way::InPlace, Way::Apart(Write::Replace), Way::Apart(Write::Add)];
    let outputs = prop::option::of(prop::sample::select(vec![0.0_f32, 0.1, 1.0]));
    (shape, [halo(), halo(), halo(), halo()], rest, prop::sample::select(ways), outputs).prop_map(
        |((h, w, c), halos, (images, threads, slope, middle, seed), way, output)| {
            let [kept, grad, result, after] = halos.map(|halo| Map::new(h, w, c).with_halo(halo));
            let result = if way == Way::InPlace { grad } else { result };
            let output = output.map(|slope| (after, slope));
            Case { kept, grad, result, output, way, images, threads, slope, middle, seed }
        },
    )
}

/// Relative to the largest number.
fn close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    let largest = expected.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs();
        assert!(error <= tolerance * largest + 1e-7, "{what} {index}: {found}, not {expected}");
    }
}

fn check<T: Element>(case: &Case) {
    let Case { kept, grad, result, images, threads, slope, middle, seed, .. } = *case;
    let c = kept.c;
    let mut numbers = Numbers(seed);
    let x: Vec<T> = numbers.vec(images * kept.image(), middle);
    let dy: Vec<T> = numbers.vec(images * grad.image(), 0.0);
    let weight: Vec<f32> = numbers.vec(c, 2.0);
    let bias: Vec<f32> = numbers.vec(c, 0.0);
    let epsilon = 1e-5_f32;
    let count = (images * kept.h * kept.w) as f64;
    let at = |values: &[T], place: usize| f64::from(values[place].to_f32());
    let means: Vec<f64> =
        (0..c).map(|k| places(kept, images, k).map(|p| at(&x, p)).sum::<f64>() / count).collect();
    let vars: Vec<f64> = (0..c)
        .map(|k| places(kept, images, k).map(|p| (at(&x, p) - means[k]).powi(2)).sum::<f64>() / count)
        .collect();
    let pool = Pool::new(threads, false);
    for &isa in Isa::available() {
        let stats = NormStats::new(kept, isa).unwrap();
        let mut scratch = vec![Line::ZERO; stats.scratch(threads)];
        let (mut mean, mut var) = (vec![0.0; c], vec![0.0; c]);
        stats.run(&pool, images, &x, [&mut mean, &mut var], &mut scratch).unwrap();
        let wide = |values: &[f32]| values.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
        close("mean", &wide(&mean), &means, 1e-6);
        for (k, (found, expected)) in var.iter().zip(&vars).enumerate() {
            let error = (f64::from(*found) - expected).abs();
            assert!(error <= 1e-5 * expected + 1e-6, "{isa}: variance {k}: {found}, not {expected}");
        }
        for source in [NormSource::Input, NormSource::Output] {
            if source == NormSource::Output && slope == 0.0 {
                assert!(NormGrad::new([kept, grad, result], source, slope, isa).is_err());
                continue;
            }
            // With few values a variance may be near zero, and everything is magnified.
            if count < 4.0 {
                continue;
            }
            let mut stored = x.clone();
            if source == NormSource::Output {
                for k in 0..c {
                    let scale = f64::from(weight[k]) / (f64::from(var[k]) + f64::from(epsilon)).sqrt();
                    for place in places(kept, images, k) {
                        let u = (at(&x, place) - f64::from(mean[k])) * scale + f64::from(bias[k]);
                        let y = if u > 0.0 { u } else { u * f64::from(slope) };
                        stored[place] = T::from_f32(y as f32);
                    }
                }
            }
            let parameters = (&weight[..], &bias[..], &mean[..], &var[..], epsilon);
            let dy = decided(case, &x, &dy, parameters);
            let given = Given {
                stored: &stored,
                dy: &dy,
                y: numbers.vec(case.output.map_or(0, |(map, _)| images * map.image()), 0.0),
                before: if case.way == Way::InPlace {
                    dy.clone()
                } else {
                    numbers.vec(images * result.image(), 0.0)
                },
            };
            gradients(case, source, isa, &pool, &given, parameters);
            fixed_gradient(case, source, isa, &pool, &given, parameters);
        }
    }
}

/// The gradient without those elements whose value before the activation is zero but for rounding: either slope is right
/// for them.
fn decided<T: Element>(
    case: &Case,
    x: &[T],
    dy: &[T],
    (weight, bias, mean, var, epsilon): Parameters<'_>,
) -> Vec<T> {
    let mut dy = dy.to_vec();
    for k in 0..case.kept.c {
        let scale = f64::from(weight[k]) / (f64::from(var[k]) + f64::from(epsilon)).sqrt();
        let (mean, bias) = (f64::from(mean[k]), f64::from(bias[k]));
        for (from, to) in places(case.kept, case.images, k).zip(places(case.grad, case.images, k)) {
            let value = f64::from(x[from].to_f32());
            let rounding = 1e-6 * ((value.abs() + mean.abs()) * scale.abs() + bias.abs());
            if ((value - mean) * scale + bias).abs() <= rounding {
                dy[to] = T::default();
            }
        }
    }
    dy
}

type Parameters<'a> = (&'a [f32], &'a [f32], &'a [f32], &'a [f32], f32);

/// The maps of a backward pass.
struct Given<'a, T> {
    stored: &'a [T],
    dy: &'a [T],
    y: Vec<T>,
    /// What the result held.
    before: Vec<T>,
}

impl<T: Element> Given<'_, T> {
    /// For each pixel of channel `k` the gradient before the activations, and what the norm's activation took.
    fn before_activations(
        &self,
        case: &Case,
        source: NormSource,
        k: usize,
        u: impl Fn(f64) -> f64,
    ) -> Vec<(f64, f64)> {
        let Case { kept, grad, output, images, slope, .. } = *case;
        let leaky = |positive: bool, slope: f32| if positive { 1.0 } else { f64::from(slope) };
        let after: Vec<f64> = match output {
            Some((map, slope)) => {
                places(map, images, k).map(|place| leaky(self.y[place].to_f32() > 0.0, slope)).collect()
            }
            None => vec![1.0; images * kept.h * kept.w],
        };
        places(kept, images, k)
            .zip(places(grad, images, k))
            .zip(after)
            .map(|((from, to), after)| {
                let value = f64::from(self.stored[from].to_f32());
                let u = match source {
                    NormSource::Input => u(value),
                    NormSource::Output if value > 0.0 => value,
                    NormSource::Output => value / f64::from(slope),
                };
                (f64::from(self.dy[to].to_f32()) * after * leaky(u > 0.0, slope), u)
            })
            .collect()
    }

    /// Checks the gradient of the input of channel `k`.
    fn check(&self, what: &str, case: &Case, k: usize, found: &[T], expected: &[f64]) {
        let held = |place: usize| match case.way {
            Way::Apart(Write::Add) => f64::from(self.before[place].to_f32()),
            _ => 0.0,
        };
        let (mut values, mut right) = (Vec::new(), Vec::new());
        for (place, expected) in places(case.result, case.images, k).zip(expected) {
            values.push(f64::from(found[place].to_f32()));
            right.push(held(place) + expected);
        }
        let rounding = if T::DTYPE == DType::Bf16 { 8e-3 } else { 2e-4 };
        close(&format!("{what} {case:?}: input gradient of channel {k}"), &values, &right, rounding);
    }

    /// Checks that nothing but pixels was written.
    fn check_halo(&self, case: &Case, found: &[T]) {
        let mut inside = vec![false; found.len()];
        let pixels = (0..case.result.c).flat_map(|k| places(case.result, case.images, k));
        pixels.for_each(|place| inside[place] = true);
        let outside = |(place, _): &(usize, &T)| !inside[*place];
        assert!(
            found.iter().enumerate().filter(outside).all(|(place, x)| *x == self.before[place]),
            "the halo was written"
        );
    }
}

fn gradients<T: Element>(
    case: &Case,
    source: NormSource,
    isa: Isa,
    pool: &Pool,
    given: &Given<'_, T>,
    (weight, bias, mean, var, epsilon): Parameters<'_>,
) {
    let Case { kept, grad, result, output, way, images, slope, .. } = *case;
    let (c, count) = (kept.c, (images * kept.h * kept.w) as f64);
    let mut kernel = NormGrad::new([kept, grad, result], source, slope, isa).unwrap();
    if let Some((map, slope)) = output {
        kernel = kernel.with_output(map, slope).unwrap();
    }
    let mut scratch = vec![Line::ZERO; kernel.scratch(pool.threads())];
    let mut found = given.before.clone();
    let (mut weight_grad, mut bias_grad) = (vec![f32::NAN; c], vec![f32::NAN; c]);
    let io = NormGradIo {
        kept: given.stored,
        output: output.map(|_| &given.y[..]),
        grad: (way != Way::InPlace).then_some(given.dy),
        result: &mut found,
        write: if let Way::Apart(write) = way { write } else { Write::Replace },
        weight,
        bias,
        mean,
        var,
        epsilon,
        weight_grad: &mut weight_grad,
        bias_grad: &mut bias_grad,
        scratch: &mut scratch,
    };
    kernel.run(pool, images, io).unwrap();
    for k in 0..c {
        let std = (f64::from(var[k]) + f64::from(epsilon)).sqrt();
        let (w, b) = (f64::from(weight[k]), f64::from(bias[k]));
        let u = |value: f64| (value - f64::from(mean[k])) / std * w + b;
        let pairs: Vec<(f64, f64)> =
            given.before_activations(case, source, k, u).into_iter().map(|(g, u)| (g, (u - b) / w)).collect();
        let sum: f64 = pairs.iter().map(|(g, _)| g).sum();
        let product: f64 = pairs.iter().map(|(g, unit)| g * unit).sum();
        let tolerance = 1e-5 * pairs.iter().map(|(g, unit)| g.abs() * (1.0 + unit.abs())).sum::<f64>() + 1e-6;
        assert!((f64::from(bias_grad[k]) - sum).abs() <= tolerance, "{isa} {source:?}: bias {k}: {case:?}");
        assert!(
            (f64::from(weight_grad[k]) - product).abs() <= tolerance,
            "{isa} {source:?}: weight {k}: {case:?}"
        );
        let expected: Vec<f64> =
            pairs.iter().map(|(g, unit)| w / std * (g - (sum + unit * product) / count)).collect();
        given.check(&format!("{isa} {source:?}"), case, k, &found, &expected);
    }
    given.check_halo(case, &found);
}

fn fixed_gradient<T: Element>(
    case: &Case,
    source: NormSource,
    isa: Isa,
    pool: &Pool,
    given: &Given<'_, T>,
    (weight, bias, mean, var, epsilon): Parameters<'_>,
) {
    let Case { kept, grad, result, output, way, images, slope, .. } = *case;
    let (mut scale, mut shift) = (vec![0.0; kept.c], vec![0.0; kept.c]);
    scale_shift(weight, bias, mean, var, epsilon, &mut scale, &mut shift);
    let mut kernel = FixedNormGrad::new([kept, grad, result], source, slope, isa).unwrap();
    if let Some((map, slope)) = output {
        kernel = kernel.with_output(map, slope).unwrap();
    }
    let mut scratch = vec![Line::ZERO; kernel.scratch()];
    let mut found = given.before.clone();
    let io = FixedNormGradIo {
        kept: if slope == 1.0 { &[] } else { given.stored },
        output: output.map(|_| &given.y[..]),
        grad: (way != Way::InPlace).then_some(given.dy),
        result: &mut found,
        write: if let Way::Apart(write) = way { write } else { Write::Replace },
        scale: &scale,
        shift: &shift,
        scratch: &mut scratch,
    };
    kernel.run(pool, images, io).unwrap();
    for k in 0..kept.c {
        let (scale, shift) = (f64::from(scale[k]), f64::from(shift[k]));
        let pairs = given.before_activations(case, source, k, |value| value * scale + shift);
        let expected: Vec<f64> = pairs.iter().map(|(g, _)| g * scale).collect();
        given.check(&format!("{isa} {source:?} fixed"), case, k, &found, &expected);
    }
    given.check_halo(case, &found);
}

/// The forward pass, in place or not, with a residual map (of the output's gradient's shape) or not.
fn apply<T: Element>(case: &Case) {
    let Case { kept, result, output, way, images, threads, slope, middle, seed, .. } = *case;
    let mut numbers = Numbers(seed);
    let (from, to) = if way == Way::InPlace { (result, result) } else { (kept, result) };
    let x: Vec<T> = numbers.vec(images * from.image(), middle);
    let before: Vec<T> = if way == Way::InPlace { x.clone() } else { numbers.vec(images * to.image(), 0.0) };
    let residual: Option<(Map, Vec<T>)> =
        output.map(|(map, _)| (map, numbers.vec(images * map.image(), 0.0)));
    let (scale, shift): (Vec<f32>, Vec<f32>) = (numbers.vec(kept.c, 0.5), numbers.vec(kept.c, 0.0));
    let pool = Pool::new(threads, false);
    for &isa in Isa::available() {
        let mut kernel = NormApply::new(from, to, slope, isa).unwrap();
        if let Some((map, _)) = &residual {
            kernel = kernel.with_residual(*map).unwrap();
        }
        let mut found = before.clone();
        let io = NormApplyIo {
            input: (way != Way::InPlace).then_some(&x[..]),
            output: &mut found,
            residual: residual.as_ref().map(|(_, values)| &values[..]),
            scale: &scale,
            shift: &shift,
        };
        kernel.run(&pool, images, io).unwrap();
        let mut expected: Vec<(f64, f64)> = before.iter().map(|x| (f64::from(x.to_f32()), 0.0)).collect();
        for k in 0..kept.c {
            let mut others = residual.iter().flat_map(|(map, values)| {
                places(*map, images, k).map(|place| f64::from(values[place].to_f32()))
            });
            for (from, to) in places(from, images, k).zip(places(to, images, k)) {
                let x = f64::from(x[from].to_f32()) * f64::from(scale[k]);
                let (shift, other) = (f64::from(shift[k]), others.next().unwrap_or(0.0));
                let u = x + shift + other;
                let rounding = if T::DTYPE == DType::Bf16 { u.abs() / 256.0 } else { 0.0 };
                let bound = (x.abs() + shift.abs() + other.abs()) * 4e-7 + rounding + 1e-9;
                expected[to] = (if u > 0.0 { u } else { u * f64::from(slope) }, bound);
            }
        }
        for (at, (found, (expected, bound))) in found.iter().zip(&expected).enumerate() {
            let error = (f64::from(found.to_f32()) - expected).abs();
            assert!(error <= *bound, "{isa}: {at}: {found:?}, not {expected}; {case:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn statistics_and_gradients_are_the_definition(case in cases()) {
        check::<f32>(&case);
        check::<Bf16>(&case);
    }

    #[test]
    fn the_forward_pass_is_the_definition(case in cases()) {
        apply::<f32>(&case);
        apply::<Bf16>(&case);
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let map = Map::new(2, 3, 5);
    let stats = NormStats::new(map, Isa::best()).unwrap();
    let pool = Pool::new(1, false);
    let mut scratch = vec![Line::ZERO; stats.scratch(1)];
    let run = |images, len, scratch: &mut [Line]| {
        let (mut mean, mut var) = (vec![0.0; 5], vec![0.0; 5]);
        stats.run(&pool, images, &vec![0.0_f32; len], [&mut mean, &mut var], scratch)
    };
    assert!(run(1, map.image(), &mut scratch).is_ok());
    assert!(matches!(run(1, map.image() - 1, &mut scratch), Err(KernelError::Length { .. })));
    assert!(matches!(run(1, map.image(), &mut []), Err(KernelError::Length { .. })));
    assert!(run(0, map.image(), &mut scratch).is_err());
    let (other, isa) = (Map::new(2, 3, 4), Isa::best());
    assert!(NormGrad::new([map, other, map], NormSource::Input, 0.0, isa).is_err());
    assert!(NormGrad::new([map, map, other], NormSource::Input, 0.0, isa).is_err());
    assert!(FixedNormGrad::new([map; 3], NormSource::Input, -0.5, isa).is_err());
    let kernel = NormGrad::new([map; 3], NormSource::Input, 1.0, isa).unwrap();
    assert!(kernel.clone().with_output(other, 0.0).is_err());
    assert!(kernel.with_output(map, -1.0).is_err());
    assert!(NormApply::new(map, other, 0.0, isa).is_err());
    assert!(NormApply::new(map, map, 1.5, isa).is_err());
    assert!(NormApply::new(map, map, 0.0, isa).unwrap().with_residual(other).is_err());
}

#[test]
fn a_gradient_in_place_cannot_be_added() {
    let map = Map::new(2, 3, 5);
    let kernel = FixedNormGrad::new([map; 3], NormSource::Input, 1.0, Isa::best()).unwrap();
    let (pool, mut scratch) = (Pool::new(1, false), vec![Line::ZERO; kernel.scratch()]);
    let mut run = |write, len| {
        let io = FixedNormGradIo::<f32> {
            kept: &[],
            output: None,
            grad: None,
            result: &mut vec![0.0; len],
            write,
            scale: &[1.0; 5],
            shift: &[0.0; 5],
            scratch: &mut scratch,
        };
        kernel.run(&pool, 1, io)
    };
    assert!(run(Write::Replace, map.image()).is_ok());
    assert!(run(Write::Add, map.image()).is_err());
    assert!(matches!(run(Write::Replace, map.image() - 1), Err(KernelError::Length { .. })));
}
