//! Attention against its definition, on every level that this processor has.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod maps;

use cardinal_kernels::*;
use maps::*;
use proptest::prelude::*;

/// The vector `exp` is good to about one unit in the last place; dividing and weighing cost a few more.
const UNITS: f64 = 16.0 * f32::EPSILON as f64;

#[derive(Clone, Debug)]
struct Case {
    way: Way,
    size: [usize; 2],
    group: usize,
    cardinality: usize,
    radix: usize,
    halos: [Halo; 3],
    activation: Activation,
}

fn case() -> impl Strategy<Value = Case> {
    let size = [1..8_usize, 1..14];
    let activation =
        prop::sample::select(vec![Activation::Identity, Activation::Relu, Activation::LeakyRelu(0.1)]);
    (way(), size, channels(), 1..4_usize, 1..5_usize, [halo(), halo(), halo()], activation).prop_map(
        |(way, size, group, cardinality, radix, halos, activation)| Case {
            way,
            size,
            group,
            cardinality,
            radix,
            halos,
            activation,
        },
    )
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn split_attention<T: Element>(case: &Case) {
    let Case { way, size: [h, w], group, cardinality, radix, halos, activation } = case;
    let c = group * cardinality;
    let x_map = Map::new(*h, *w, radix * c).with_halo(halos[0]);
    let y_map = Map::new(*h, *w, c).with_halo(halos[1]);
    let mut random = way.random();
    let x = way.map::<T>(&x_map, &mut random);
    // Large ones too, whose exponential would overflow.
    let logits: Vec<_> = random.numbers(way.images * radix * c).iter().map(|x| x * x * x * 20.0).collect();
    let mut logits_slice = way.vector(&logits);
    let logit = |image: usize, r: usize, k: usize| {
        f64::from(logits[image * radix * c + (k / group * radix + r) * group + k % group])
    };
    let weight = |image: usize, r: usize, k: usize| {
        if *radix == 1 {
            return sigmoid(logit(image, 0, k));
        }
        let largest = (0..*radix).map(|r| logit(image, r, k)).fold(f64::MIN, f64::max);
        let e = |r: usize| (logit(image, r, k) - largest).exp();
        e(r) / (0..*radix).map(e).sum::<f64>()
    };
    for &isa in levels() {
        let kernel = SplitAttention::new(x_map, y_map, *radix, *cardinality, *activation, isa).unwrap();
        let mut memory = scratch(kernel.scratch(way.threads));
        let mut y = Images::filled(way, &y_map, 7.0);
        for part in way.bands(*h) {
            let before = y.clone();
            let io = SplitIo {
                input: x.slice(),
                logits: logits_slice.slice(),
                output: y.slice_mut(),
                scratch: &mut memory,
            };
            kernel.run(way.pool(), &part, io).unwrap();
            y.check(&part, &before, |[image, row, column, k]| {
                let terms = (0..*radix).map(|r| x.get(image, row, column, r * c + k) * weight(image, r, k));
                let magnitude: f64 = terms.clone().map(f64::abs).sum();
                let value = f64::from(activation.eval(terms.sum::<f64>() as f32));
                // A weight below the smallest that `exp` returns is that one.
                (value, UNITS * (magnitude + value.abs()) + 1e-36)
            });
        }
    }
}

fn gate<T: Element>(case: &Case, hard: bool, with_residual: bool, in_place: bool) {
    let Case { way, size: [h, w], halos, activation, group: c, .. } = case;
    let map = |halo| Map::new(*h, *w, *c).with_halo(halo);
    let (y_map, residual_map) = (map(halos[1]), map(halos[2]));
    let x_map = if in_place { y_map } else { map(halos[0]) };
    let mut random = way.random();
    let x = way.map::<T>(&x_map, &mut random);
    let residual = way.map::<T>(&residual_map, &mut random);
    let logits: Vec<_> = random.numbers(way.images * c).iter().map(|x| x * 3.0).collect();
    let mut logits_slice = way.vector(&logits);
    for &isa in levels() {
        let kernel =
            Gate::new(x_map, y_map, with_residual.then_some(residual_map), hard, *activation, isa).unwrap();
        let mut memory = scratch(kernel.scratch(way.threads));
        let mut y = if in_place { x.clone() } else { Images::filled(way, &y_map, 7.0) };
        for part in way.bands(*h) {
            let before = y.clone();
            let io = GateIo {
                input: (!in_place).then_some(x.slice()),
                logits: logits_slice.slice(),
                residual: with_residual.then_some(residual.slice()),
                output: y.slice_mut(),
                scratch: &mut memory,
            };
            kernel.run(way.pool(), &part, io).unwrap();
            y.check(&part, &before, |[image, row, column, k]| {
                let logit = f64::from(logits[image * c + k]);
                let weight = if hard { (logit / 6.0 + 0.5).clamp(0.0, 1.0) } else { sigmoid(logit) };
                let product = x.get(image, row, column, k) * weight;
                let added = if with_residual { residual.get(image, row, column, k) } else { 0.0 };
                let value = f64::from(activation.eval((product + added) as f32));
                // The hard sigmoid's error is relative to 1, not to the weight.
                let magnitude = x.get(image, row, column, k).abs() + added.abs();
                (value, UNITS * (magnitude + value.abs()))
            });
        }
    }
}

proptest! {
    #![proptest_config(common::cases(96))]

    #[test]
    fn split_attention_follows_the_definition(case in case()) {
        both_formats!(split_attention(&case));
    }

    #[test]
    fn gates_follow_the_definition(case in case(), switches in any::<[bool; 3]>()) {
        both_formats!(gate(&case, switches[0], switches[1], switches[2]));
    }

    #[test]
    fn softmax_follows_the_definition(way in way(), c in 1..80_usize, scale in 0.0..60.0_f32) {
        let mut random = way.random();
        let x: Vec<_> = random.numbers(way.images * c).iter().map(|x| x * scale).collect();
        for &isa in levels() {
            let mut y = way.vector(&x);
            Softmax::new(c, isa).unwrap().run(way.pool(), way.images, y.slice()).unwrap();
            for (x, y) in x.chunks(c).zip(y.slice().chunks(c)) {
                let largest = x.iter().copied().fold(f32::MIN, f32::max);
                let e: Vec<_> = x.iter().map(|x| f64::from(x - largest).exp()).collect();
                let sum: f64 = e.iter().sum();
                for (e, y) in e.iter().zip(y) {
                    // Adding up c exponentials costs c units at most.
                    let tolerance = (c as f64 * f64::from(f32::EPSILON) + UNITS) * e / sum + 1e-36;
                    prop_assert!((f64::from(*y) - e / sum).abs() <= tolerance, "{y}, not {}", e / sum);
                }
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let (isa, pool, identity) = (Isa::best(), Pool::new(2, false), Activation::Identity);
    let map = Map::new(2, 3, 8);
    assert!(SplitAttention::new(map, Map::new(2, 3, 5), 2, 1, identity, isa).is_err());
    assert!(SplitAttention::new(map, Map::new(2, 3, 4), 2, 3, identity, isa).is_err());
    assert!(SplitAttention::new(map, Map::new(3, 2, 4), 2, 1, identity, isa).is_err());
    assert!(SplitAttention::new(map, map, 0, 1, identity, isa).is_err());
    assert!(Gate::new(map, Map::new(2, 4, 8), None, false, identity, isa).is_err());
    assert!(Softmax::new(0, isa).is_err());
    assert!(Softmax::new(3, isa).unwrap().run(&pool, 2, &mut [0.0; 5]).is_err());
    let gate = Gate::new(map, map, Some(map), false, identity, isa).unwrap();
    let x = vec![0.0_f32; map.image()];
    let (mut y, mut memory) = (x.clone(), scratch(gate.scratch(2)));
    let mut run = |input, logits, residual, lines| {
        let io = GateIo { input, logits, residual, output: &mut y, scratch: &mut memory[..lines] };
        gate.run::<f32>(&pool, &Part::whole(1, 2), io)
    };
    let lines = gate.scratch(2);
    assert!(run(None, &[0.0; 8], Some(&x), lines).is_ok());
    assert!(run(None, &[0.0; 8], None, lines).is_err());
    assert!(run(None, &[0.0; 7], Some(&x), lines).is_err());
    assert!(run(Some(&x[1..]), &[0.0; 8], Some(&x), lines).is_err());
    assert!(run(None, &[0.0; 8], Some(&x), lines - 1).is_err());
}
