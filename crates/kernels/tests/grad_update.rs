//! Updates of parameters against PyTorch's rules, to the bit, on every level that this processor has.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use cardinal_kernels::{
    Decay, Isa, Line, Pool, Update, UpdateIo, UpdateRule, clip_scale, grad_norm, grad_norm_scratch,
};
use proptest::prelude::*;

#[derive(Clone, Debug, PartialEq)]
struct State {
    values: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
    average: Vec<f32>,
}

/// One number after the other, one operation after the other.
fn definition(update: &Update, state: &mut State, grad: &[f32]) {
    let lr = update.lr;
    for i in 0..grad.len() {
        let mut g = grad[i] * update.grad_scale;
        let p = &mut state.values[i];
        match update.decay {
            Decay::None => {}
            Decay::Coupled(rate) => g += rate as f32 * *p,
            Decay::Decoupled(rate) => *p *= (1.0 - lr * rate) as f32,
        }
        match update.rule {
            UpdateRule::Sgd { .. } if state.first.is_empty() => *p -= lr as f32 * g,
            UpdateRule::Sgd { momentum, nesterov } => {
                let (b, momentum) = (&mut state.first[i], momentum as f32);
                *b = momentum * *b + g;
                *p -= lr as f32 * if nesterov { g + momentum * *b } else { *b };
            }
            UpdateRule::Adam { betas: [beta1, beta2], epsilon, updates } => {
                let power = |beta: f64| 1.0 - beta.powf(updates as f64);
                let (m, v) = (&mut state.first[i], &mut state.second[i]);
                *m += (1.0 - beta1) as f32 * (g - *m);
                *v = beta2 as f32 * *v + (1.0 - beta2) as f32 * g * g;
                let root = v.sqrt() / power(beta2).sqrt() as f32;
                *p -= (lr / power(beta1)) as f32 * (*m / (root + epsilon as f32));
            }
        }
        if let Some(a) = state.average.get_mut(i) {
            *a += (1.0 - update.average) as f32 * (*p - *a);
        }
    }
}

/// From -1 to 1.
fn numbers(seed: &mut u64, count: usize) -> Vec<f32> {
    let next = |_| {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(next).collect()
}

fn updates() -> impl Strategy<Value = Update> {
    let rule = prop_oneof![
        (prop::sample::select(vec![0.0, 0.9]), any::<bool>())
            .prop_map(|(momentum, nesterov)| UpdateRule::Sgd { momentum, nesterov }),
        (1..1000_u64).prop_map(|updates| UpdateRule::Adam { betas: [0.9, 0.999], epsilon: 1e-8, updates }),
    ];
    let decay = prop_oneof![
        Just(Decay::None),
        (1e-5..1e-1).prop_map(Decay::Coupled),
        (1e-5..1e-1).prop_map(Decay::Decoupled),
    ];
    (rule, decay, 1e-4..1.0, prop::sample::select(vec![1.0, 0.3_f32]), 0.9..1.0)
        .prop_map(|(rule, decay, lr, grad_scale, average)| Update { rule, lr, decay, grad_scale, average })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn updates_are_the_rule_to_the_bit(
        update in updates(), count in prop_oneof![0..40_usize, 900..5000_usize], threads in 1..5_usize,
        averaged: bool, mut seed: u64,
    ) {
        let adam = matches!(update.rule, UpdateRule::Adam { .. });
        let kept = adam || !matches!(update.rule, UpdateRule::Sgd { momentum: 0.0, .. });
        let grad = numbers(&mut seed, count);
        let start = State {
            values: numbers(&mut seed, count),
            first: numbers(&mut seed, if kept { count } else { 0 }),
            second: numbers(&mut seed, if adam { count } else { 0 }).iter().map(|x| x.abs()).collect(),
            average: numbers(&mut seed, if averaged { count } else { 0 }),
        };
        let mut expected = start.clone();
        definition(&update, &mut expected, &grad);
        let pool = Pool::new(threads, false);
        for &isa in Isa::available() {
            let mut found = start.clone();
            let State { values, first, second, average } = &mut found;
            update.run(&pool, isa, UpdateIo { values, grad: &grad, first, second, average }).unwrap();
            prop_assert_eq!(&found, &expected, "{}", isa);
        }
    }

    #[test]
    fn norms_are_the_same_everywhere(
        count in prop_oneof![0..100_usize, 30_000..70_000_usize], threads in 1..5_usize, mut seed: u64,
    ) {
        let grad = numbers(&mut seed, count);
        let expected = grad.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let mut scratch = vec![Line::ZERO; grad_norm_scratch(count)];
        let alone = grad_norm(&Pool::new(1, false), Isa::available()[0], &grad, &mut scratch).unwrap();
        prop_assert!((alone - expected).abs() <= 1e-12 * expected, "{} not {}", alone, expected);
        let pool = Pool::new(threads, false);
        for &isa in Isa::available() {
            let found = grad_norm(&pool, isa, &grad, &mut scratch).unwrap();
            prop_assert_eq!(found.to_bits(), alone.to_bits(), "{}", isa);
        }
    }
}

#[test]
fn clipping_is_pytorchs() {
    assert_eq!(clip_scale(0.5, 1.0), 1.0);
    assert_eq!(clip_scale(0.0, 1.0), 1.0);
    assert_eq!(clip_scale(4.0, 1.0), (1.0 / (4.0 + 1e-6)) as f32);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let pool = Pool::new(1, false);
    let sgd = |momentum| UpdateRule::Sgd { momentum, nesterov: false };
    let adam = UpdateRule::Adam { betas: [0.9, 0.999], epsilon: 1e-8, updates: 1 };
    let run = |rule, [grad, first, second, average]: [usize; 4]| {
        let update = Update { rule, lr: 0.1, decay: Decay::None, grad_scale: 1.0, average: 0.9 };
        let io = UpdateIo {
            values: &mut [0.0; 3],
            grad: &vec![0.0; grad],
            first: &mut vec![0.0; first],
            second: &mut vec![0.0; second],
            average: &mut vec![0.0; average],
        };
        update.run(&pool, Isa::best(), io).is_ok()
    };
    assert!(run(sgd(0.0), [3, 0, 0, 0]) && run(sgd(0.9), [3, 3, 0, 3]) && run(adam, [3, 3, 3, 0]));
    assert!(!run(sgd(0.9), [3, 0, 0, 0]), "no memory for the momentum");
    assert!(!run(adam, [3, 3, 0, 0]), "no memory for the second moment");
    for lengths in [[2, 3, 3, 3], [3, 2, 3, 3], [3, 3, 2, 3], [3, 3, 3, 2], [4, 3, 3, 3]] {
        assert!(!run(adam, lengths));
    }
    assert!(grad_norm(&pool, Isa::best(), &[0.0; 3], &mut []).is_err());
}
