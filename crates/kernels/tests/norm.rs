//! Batch norm in training on every level, against plain loops.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use cardinal_kernels::{
    Bf16, DType, Element, Halo, Isa, KernelError, Line, Map, NormGrad, NormGradIo, NormSource, NormStats,
    Pool,
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
    images: usize,
    threads: usize,
    slope: f32,
    /// How far the values are from zero.
    middle: f32,
    seed: u64,
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
    (shape, halo(), halo(), rest).prop_map(|((h, w, c), a, b, (images, threads, slope, middle, seed))| Case {
        kept: Map::new(h, w, c).with_halo(a),
        grad: Map::new(h, w, c).with_halo(b),
        images,
        threads,
        slope,
        middle,
        seed,
    })
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
    let Case { kept, grad, images, threads, slope, middle, seed } = *case;
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
                assert!(NormGrad::new(kept, grad, source, slope, isa).is_err());
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
            gradients(case, source, isa, &pool, (&stored, &dy), (&weight, &bias, &mean, &var, epsilon));
        }
    }
}

type Parameters<'a> = (&'a [f32], &'a [f32], &'a [f32], &'a [f32], f32);

fn gradients<T: Element>(
    case: &Case,
    source: NormSource,
    isa: Isa,
    pool: &Pool,
    (stored, dy): (&[T], &[T]),
    (weight, bias, mean, var, epsilon): Parameters<'_>,
) {
    let Case { kept, grad, images, slope, .. } = *case;
    let (c, count) = (kept.c, (images * kept.h * kept.w) as f64);
    let kernel = NormGrad::new(kept, grad, source, slope, isa).unwrap();
    let mut scratch = vec![Line::ZERO; kernel.scratch(pool.threads())];
    let mut found = dy.to_vec();
    let (mut weight_grad, mut bias_grad) = (vec![f32::NAN; c], vec![f32::NAN; c]);
    let io = NormGradIo {
        kept: stored,
        grad: &mut found,
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
        let pairs: Vec<(f64, f64)> = places(kept, images, k)
            .zip(places(grad, images, k))
            .map(|(from, to)| {
                let value = f64::from(stored[from].to_f32());
                let u = match source {
                    NormSource::Input => (value - f64::from(mean[k])) / std * w + b,
                    NormSource::Output if value > 0.0 => value,
                    NormSource::Output => value / f64::from(slope),
                };
                let g = f64::from(dy[to].to_f32()) * if u > 0.0 { 1.0 } else { f64::from(slope) };
                (g, (u - b) / w)
            })
            .collect();
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
        let values: Vec<f64> = places(grad, images, k).map(|p| f64::from(found[p].to_f32())).collect();
        let rounding = if T::DTYPE == DType::Bf16 { 8e-3 } else { 2e-4 };
        close(
            &format!("{isa} {source:?} {case:?}: input gradient of channel {k}"),
            &values,
            &expected,
            rounding,
        );
    }
    let mut inside = vec![false; found.len()];
    (0..c).flat_map(|k| places(grad, images, k)).for_each(|place| inside[place] = true);
    let outside = |(place, _): &(usize, &T)| !inside[*place];
    assert!(
        found.iter().enumerate().filter(outside).all(|(place, x)| *x == dy[place]),
        "the halo was written"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn statistics_and_gradients_are_the_definition(case in cases()) {
        check::<f32>(&case);
        check::<Bf16>(&case);
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
    assert!(NormGrad::new(map, Map::new(2, 3, 4), NormSource::Input, 0.0, Isa::best()).is_err());
}
