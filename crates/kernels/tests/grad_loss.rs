//! Losses against their definitions, and their gradients against finite differences.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use cardinal_kernels::{LogitLoss, LossIo, LossRule, Pool};
use proptest::prelude::*;

/// From -1 to 1.
fn numbers(seed: &mut u64, count: usize) -> Vec<f32> {
    let next = |_| {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(next).collect()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The loss of one image by its formula, with the powers of the asymmetric loss held at `held`.
fn definition(rule: LossRule, x: &[f64], t: &[f64], held: &[f64]) -> f64 {
    let pairs = || x.iter().zip(t).map(|(x, t)| (*x, *t));
    match rule {
        LossRule::CrossEntropy => {
            let largest = x.iter().copied().fold(f64::MIN, f64::max);
            let all = x.iter().map(|x| (x - largest).exp()).sum::<f64>().ln() + largest;
            pairs().map(|(x, t)| t * (all - x)).sum()
        }
        LossRule::BinaryCrossEntropy { threshold } => pairs()
            .map(|(x, t)| {
                let t = threshold.map_or(t, |limit| if t > f64::from(limit) { 1.0 } else { 0.0 });
                -t * sigmoid(x).ln() - (1.0 - t) * sigmoid(-x).ln()
            })
            .sum(),
        LossRule::Asymmetric { positive, negative, margin } => pairs()
            .zip(held)
            .map(|((x, t), held)| {
                let q = |x: f64| (1.0 - sigmoid(x) + margin).min(1.0);
                let focus = [(1.0 - sigmoid(*held)).powf(positive), (1.0 - q(*held)).powf(negative)];
                -t * focus[0] * sigmoid(x).ln() - (1.0 - t) * focus[1] * q(x).ln()
            })
            .sum(),
    }
}

fn rules() -> impl Strategy<Value = LossRule> {
    prop_oneof![
        Just(LossRule::CrossEntropy),
        prop::sample::select(vec![None, Some(0.2)])
            .prop_map(|threshold| LossRule::BinaryCrossEntropy { threshold }),
        prop::sample::select(vec![[0.0, 4.0, 0.05], [1.0, 2.0, 0.0]])
            .prop_map(|[positive, negative, margin]| LossRule::Asymmetric { positive, negative, margin }),
    ]
}

fn run(
    rule: LossRule,
    threads: usize,
    [x, t]: [&[f32]; 2],
    classes: usize,
    scale: f64,
) -> (f64, Vec<f32>, Vec<f32>) {
    let kernel = LogitLoss::new(rule, classes).unwrap();
    let images = x.len() / classes;
    let (mut losses, mut grad) = (vec![f32::NAN; images], vec![f32::NAN; x.len()]);
    let io = LossIo { logits: x, targets: t, scale, losses: &mut losses, grad: &mut grad };
    let sum = kernel.run(&Pool::new(threads, false), images, io).unwrap();
    (sum, losses, grad)
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn losses_follow_their_definitions(
        rule in rules(), images in 1..5_usize, threads in 1..5_usize, classes in 1..60_usize, scale in 0.1..2.0,
        mut seed: u64,
    ) {
        let x: Vec<_> = numbers(&mut seed, images * classes).iter().map(|x| x * 6.0).collect();
        let t: Vec<_> = numbers(&mut seed, images * classes).iter().map(|x| x / 2.0 + 0.5).collect();
        let (sum, losses, grad) = run(rule, threads, [&x, &t], classes, scale);
        let mut total = 0.0;
        for image in 0..images {
            let row = image * classes..(image + 1) * classes;
            let (logits, targets) = (wide(&x[row.clone()]), wide(&t[row.clone()]));
            let loss = definition(rule, &logits, &targets, &logits);
            total += f64::from(losses[image]);
            prop_assert!((f64::from(losses[image]) - loss).abs() <= 1e-6 * loss.abs() + 1e-12);
            for k in 0..classes {
                let step = 1e-5;
                let at = |step: f64| {
                    let mut moved = logits.clone();
                    moved[k] += step;
                    definition(rule, &moved, &targets, &logits)
                };
                let slope = (at(step) - at(-step)) / (2.0 * step) * scale;
                let found = f64::from(grad[row.start + k]);
                let off = (found - slope).abs();
                // A difference across the asymmetric loss's kink is neither slope.
                let kink = matches!(rule, LossRule::Asymmetric { margin, .. } if (sigmoid(logits[k]) - margin).abs() < 1e-4);
                prop_assert!(off <= 1e-6 * (1.0 + slope.abs()) || kink, "{}: {} not {}", k, found, slope);
            }
        }
        prop_assert_eq!(sum, total);
        prop_assert_eq!(run(rule, 1, [&x, &t], classes, scale), (sum, losses, grad));
    }
}

#[test]
fn large_logits_neither_overflow_nor_vanish() {
    let (x, t) = ([3e4, -3e4, 2.9e4], [0.0, 1.0, 0.0]);
    let (loss, _, grad) = run(LossRule::CrossEntropy, 1, [&x, &t], 3, 1.0);
    assert_eq!((loss, grad), (6e4, vec![1.0, -1.0, 0.0]));
    let rule = LossRule::BinaryCrossEntropy { threshold: None };
    let (loss, _, grad) = run(rule, 1, [&x, &t], 3, 0.5);
    assert_eq!((loss, grad), (89000.0, vec![0.5, -0.5, 0.5]));
    let rule = LossRule::Asymmetric { positive: 0.0, negative: 4.0, margin: 0.0 };
    let (loss, _, grad) = run(rule, 1, [&x, &t], 3, 1.0);
    assert!((loss - 3.0 * 1e8_f64.ln()).abs() < 1e-5 && grad.iter().all(|x| x.is_finite()));
}

#[test]
fn what_does_not_fit_is_an_error() {
    assert!(LogitLoss::new(LossRule::CrossEntropy, 0).is_err());
    let kernel = LogitLoss::new(LossRule::CrossEntropy, 3).unwrap();
    let pool = Pool::new(1, false);
    for short in 0..5 {
        let len = |index: usize, all: usize| all - usize::from(index == short);
        let io = LossIo {
            logits: &vec![0.0; len(0, 6)],
            targets: &vec![0.0; len(1, 6)],
            scale: 1.0,
            losses: &mut vec![0.0; len(2, 2)],
            grad: &mut vec![0.0; len(3, 6)],
        };
        assert_eq!(kernel.run(&pool, 2, io).is_err(), short < 4);
    }
}
