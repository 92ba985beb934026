//! The gradients of activations, of sums and of biases against their definitions, on every level of this processor.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod maps;

use cardinal_kernels::*;
use maps::*;
use proptest::prelude::*;

const START: f32 = 0.5;

const ACTIVATIONS: [Activation; 8] = [
    Activation::Identity,
    Activation::Relu,
    Activation::LeakyRelu(0.01),
    Activation::Relu6,
    Activation::Sigmoid,
    Activation::Silu,
    Activation::HardSigmoid,
    Activation::HardSwish,
];

fn inside(x: f64, low: f64, high: f64, slope: f64) -> f64 {
    if low < x && x < high { slope } else { 0.0 }
}

fn slope_at_input(activation: Activation, x: f64) -> f64 {
    let s = 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::Identity => 1.0,
        Activation::Relu => inside(x, 0.0, f64::INFINITY, 1.0),
        Activation::LeakyRelu(slope) => {
            if x > 0.0 {
                1.0
            } else {
                f64::from(slope)
            }
        }
        Activation::Relu6 => inside(x, 0.0, 6.0, 1.0),
        Activation::Sigmoid => s * (1.0 - s),
        Activation::Silu => s * (1.0 + x * (1.0 - s)),
        Activation::HardSigmoid => inside(x, -3.0, 3.0, 1.0 / 6.0),
        Activation::HardSwish => {
            if x >= 3.0 {
                1.0
            } else {
                inside(x, -3.0, 3.0, x / 3.0 + 0.5)
            }
        }
    }
}

fn slope_at_output(activation: Activation, y: f64) -> f64 {
    match activation {
        Activation::Sigmoid => y * (1.0 - y),
        Activation::HardSigmoid => inside(y, 0.0, 1.0, 1.0 / 6.0),
        _ => slope_at_input(activation, y),
    }
}

#[derive(Clone, Debug)]
struct Case {
    way: Way,
    map: Map,
    halos: [Halo; 3],
    write: Write,
}

fn case() -> impl Strategy<Value = Case> {
    let write = prop::sample::select(vec![Write::Replace, Write::Add]);
    (way(), [1..8_usize, 1..14], channels(), [halo(), halo(), halo()], write)
        .prop_map(|(way, [h, w], c, halos, write)| Case { way, map: Map::new(h, w, c), halos, write })
}

fn activation<T: Element>(case: &Case, activation: Activation, source: ActivationSource, in_place: bool) {
    let Case { way, map, halos, write } = case;
    let halos = if in_place { [halos[0], halos[1], halos[1]] } else { *halos };
    let maps = halos.map(|halo| map.with_halo(halo));
    let mut random = way.random();
    let mut kept = Images::<T>::filled(way, &maps[0], f32::NAN);
    for image in 0..way.images {
        for at in 0..map.h * map.w * map.c {
            let (y, x) = (at / map.c / map.w, at / map.c % map.w);
            // Some numbers at the kinks, and some outputs that are clamped.
            let x_in = (random.number() * 4.0 * 16.0).round() / 16.0;
            let value = if source == ActivationSource::Input { x_in } else { activation.eval(x_in) };
            kept.set(image, y as isize, x as isize, at % map.c, value);
        }
    }
    let dy = way.map::<T>(&maps[1], &mut random);
    for &isa in levels() {
        let kernel = ActivationGrad::new(maps, activation, source, isa).unwrap();
        let before = if in_place { dy.clone() } else { Images::filled(way, &maps[2], START) };
        let mut dx = before.clone();
        let io = ActivationGradIo {
            kept: kept.slice(),
            grad: (!in_place).then_some(dy.slice()),
            result: dx.slice_mut(),
            write: *write,
        };
        let done = kernel.run(way.pool(), way.images, io);
        if in_place && *write == Write::Add {
            assert!(done.is_err());
            continue;
        }
        done.unwrap();
        dx.check(&Part::whole(way.images, map.h), &before, |[image, row, column, k]| {
            let kept = kept.get(image, row, column, k);
            let slope = match source {
                ActivationSource::Input => slope_at_input(activation, kept),
                ActivationSource::Output => slope_at_output(activation, kept),
            };
            let start = if *write == Write::Add { f64::from(START) } else { 0.0 };
            let g = dy.get(image, row, column, k);
            // Near one, the vector `exp` leaves a few units of one.
            (slope * g + start, 32.0 * f64::from(f32::EPSILON) * (g.abs() * (1.0 + kept.abs()) + start))
        });
    }
}

fn sums<T: Element>(case: &Case, [first_input, first_output, more]: [usize; 3], whole: bool) {
    let Case { way, map, halos, .. } = case;
    let count = map.c;
    let (firsts, more) = if whole { ([0, 0], 0) } else { ([first_input, first_output], more) };
    let input = Map { c: firsts[0] + count + more, ..*map }.with_halo(halos[0]);
    let output = Map { c: firsts[1] + count + more, ..*map }.with_halo(halos[1]);
    let mut random = way.random();
    let (x, start) = (way.map::<T>(&input, &mut random), way.map::<T>(&output, &mut random));
    for &isa in levels() {
        let kernel = AddChannels::new((input, firsts[0]), (output, firsts[1]), count, isa).unwrap();
        let mut found = start.clone();
        kernel.run(way.pool(), way.images, x.slice(), found.slice_mut()).unwrap();
        found.check(&Part::whole(way.images, map.h), &start, |[image, row, column, k]| {
            let start = start.get(image, row, column, k);
            let own = (firsts[1]..firsts[1] + count).contains(&k);
            let x = if own { x.get(image, row, column, k + firsts[0] - firsts[1]) } else { 0.0 };
            (start + x, if own { sum_tolerance(0, start.abs() + x.abs()) } else { 0.0 })
        });
    }
}

fn bias<T: Element>(case: &Case) {
    let Case { way, map, halos, .. } = case;
    let map = map.with_halo(halos[0]);
    let dy = way.map::<T>(&map, &mut way.random());
    for &isa in levels() {
        let kernel = BiasGrad::new(map, isa).unwrap();
        let mut found = vec![f32::NAN; map.c];
        let mut memory = scratch(kernel.scratch(way.images, way.threads));
        kernel.run(way.pool(), way.images, dy.slice(), &mut found, &mut memory).unwrap();
        for (k, found) in found.iter().enumerate() {
            let pixels = (0..way.images * map.h * map.w)
                .map(|at| dy.get(at / map.w / map.h, at / map.w % map.h, at % map.w, k));
            let (sum, magnitude) = pixels.clone().fold((0.0, 0.0), |(a, b), x| (a + x, b + x.abs()));
            let tolerance = sum_tolerance(map.h * map.w, magnitude);
            assert!((f64::from(*found) - sum).abs() <= tolerance, "{k}: {found}, not {sum}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn activations_have_their_slopes(case in case(), which in 0..8_usize, in_place: bool) {
        both_formats!(activation(&case, ACTIVATIONS[which], ActivationSource::Input, in_place));
        if !matches!(ACTIVATIONS[which], Activation::Silu | Activation::HardSwish) {
            both_formats!(activation(&case, ACTIVATIONS[which], ActivationSource::Output, in_place));
        }
    }

    #[test]
    fn channels_are_added(case in case(), firsts in [0..9_usize, 0..9, 0..9], whole: bool) {
        both_formats!(sums(&case, firsts, whole));
    }

    #[test]
    fn biases_get_the_sum(case in case()) {
        both_formats!(bias(&case));
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let (isa, pool, map) = (Isa::best(), Pool::new(1, false), Map::new(2, 3, 4));
    let other = Map::new(2, 4, 4);
    for activation in [Activation::Silu, Activation::HardSwish, Activation::LeakyRelu(-0.1)] {
        assert!(ActivationGrad::new([map; 3], activation, ActivationSource::Output, isa).is_err());
    }
    assert!(ActivationGrad::new([map, map, other], Activation::Relu, ActivationSource::Input, isa).is_err());
    let kernel = ActivationGrad::new([map; 3], Activation::Relu, ActivationSource::Output, isa).unwrap();
    for short in 0..4 {
        let zeros = |index: usize| vec![0.0_f32; 24 - usize::from(index == short)];
        let io = ActivationGradIo {
            kept: &zeros(0),
            grad: Some(&zeros(1)),
            result: &mut zeros(2),
            write: Write::Add,
        };
        assert_eq!(kernel.run(&pool, 1, io).is_err(), short < 3);
    }
    assert!(AddChannels::new((map, 0), (other, 0), 4, isa).is_err());
    assert!(AddChannels::new((map, 1), (map, 0), 4, isa).is_err());
    let add = AddChannels::new((map, 0), (map, 0), 4, isa).unwrap();
    assert!(add.run(&pool, 1, &[0.0_f32; 23], &mut [0.0; 24]).is_err());
    assert!(add.run(&pool, 1, &[0.0_f32; 24], &mut [0.0; 23]).is_err());
    let bias = BiasGrad::new(map, isa).unwrap();
    let mut memory = scratch(bias.scratch(1, 1));
    assert!(bias.run(&pool, 1, &[0.0_f32; 23], &mut [0.0; 4], &mut memory).is_err());
    assert!(bias.run(&pool, 1, &[0.0_f32; 24], &mut [0.0; 3], &mut memory).is_err());
    assert!(bias.run(&pool, 1, &[0.0_f32; 24], &mut [0.0; 4], &mut []).is_err());
    assert!(bias.run(&pool, 1, &[0.0_f32; 24], &mut [0.0; 4], &mut memory).is_ok());
}
