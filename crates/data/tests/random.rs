//! The generator's bits for ever, and the distributions that it draws from.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use cardinal_data::Random;

/// These values are part of what a seed means: a change here changes every recorded run.
#[test]
fn the_bits_never_change() {
    let mut random = Random::new(42, &[1, 2, 3]);
    let bits: Vec<u64> = (0..6).map(|_| random.next_u64()).collect();
    let numbers = [
        random.unit(),
        random.uniform(-3.0, 5.0),
        random.normal(),
        random.gamma(0.3),
        random.gamma(4.5),
        random.beta(0.2, 0.2),
    ];
    let expected = [
        0x33D9_F357_6106_0AFB,
        0xF1F4_F0EE_7166_7389,
        0xE953_6AE7_9A44_4996,
        0x105B_3981_1B18_6692,
        0x1FA6_0052_2F91_A567,
        0xF136_917C_E41B_C16A,
    ];
    assert_eq!(bits, expected);
    let expected: [u64; 6] = [
        0x3FE8_773F_8E62_DAEA,
        0xC000_103E_1E02_A7B6,
        0xBFED_8F8C_7376_67E8,
        0x3FDE_F6E4_CD4D_A1BA,
        0x3FF7_2BC2_3117_84BC,
        0x3F25_954D_820C_DBC5,
    ];
    assert_eq!(numbers.map(f64::to_bits), expected);
    assert_eq!(random.permutation(10), [6, 5, 2, 7, 9, 3, 4, 1, 8, 0]);
}

#[test]
fn every_word_counts() {
    let words: [&[u64]; 9] =
        [&[], &[0], &[1], &[0, 0], &[0, 1], &[1, 0], &[0, 0, 0], &[0, 0, 1], &[0, 0, 1, 0]];
    let all = words.map(|words| Random::new(0, words).next_u64());
    let distinct: std::collections::HashSet<u64> =
        all.into_iter().chain([Random::new(1, &[]).next_u64()]).collect();
    assert_eq!(distinct.len(), words.len() + 1);
}

const DRAWS: usize = 200_000;

/// Mean and variance of many draws.
fn moments(mut draw: impl FnMut(&mut Random) -> f64) -> (f64, f64) {
    let mut random = Random::new(7, &[9]);
    let values: Vec<f64> = (0..DRAWS).map(|_| draw(&mut random)).collect();
    let mean = values.iter().sum::<f64>() / DRAWS as f64;
    (mean, values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / DRAWS as f64)
}

#[track_caller]
fn check(found: (f64, f64), mean: f64, variance: f64) {
    // Five standard errors of the mean; the variance's depends on the kurtosis, 4 % is beyond it for all below.
    let error = 5.0 * (variance / DRAWS as f64).sqrt();
    assert!((found.0 - mean).abs() < error, "mean {} instead of {mean}", found.0);
    assert!((found.1 / variance - 1.0).abs() < 0.04, "variance {} instead of {variance}", found.1);
}

#[test]
fn distributions_have_their_moments() {
    check(moments(Random::unit), 0.5, 1.0 / 12.0);
    check(moments(|r| r.uniform(5.0, -3.0)), 1.0, 64.0 / 12.0);
    check(moments(|r| r.below(6) as f64), 2.5, 35.0 / 12.0);
    check(moments(|r| f64::from(u8::from(r.chance(0.3)))), 0.3, 0.21);
    check(moments(Random::normal), 0.0, 1.0);
    for shape in [0.2, 0.7, 1.0, 2.5, 40.0] {
        check(moments(|r| r.gamma(shape)), shape, shape);
    }
    for (a, b) in [(0.2, 0.2), (1.0, 1.0), (0.4, 3.0), (2.0, 0.5)] {
        let sum: f64 = a + b;
        check(moments(|r| r.beta(a, b)), a / sum, a * b / (sum * sum * (sum + 1.0)));
    }
}

/// Kolmogorov and Smirnov's distance to a distribution function.
fn distance(mut draw: impl FnMut(&mut Random) -> f64, below: impl Fn(f64) -> f64) -> f64 {
    let mut random = Random::new(8, &[1, 2]);
    let mut values: Vec<f64> = (0..DRAWS).map(|_| draw(&mut random)).collect();
    values.sort_by(f64::total_cmp);
    let step = |(i, &value): (usize, &f64)| {
        let expected = below(value);
        (i as f64 / DRAWS as f64 - expected).abs().max(((i + 1) as f64 / DRAWS as f64 - expected).abs())
    };
    values.iter().enumerate().map(step).fold(0.0, f64::max)
}

#[test]
fn distributions_have_their_shapes() {
    let bound = 1.95 / (DRAWS as f64).sqrt(); // reached once in a thousand
    assert!(distance(Random::unit, |x| x) < bound);
    assert!(distance(|r| r.gamma(1.0), |x| 1.0 - (-x).exp()) < bound);
    assert!(distance(|r| r.beta(1.0, 3.0), |x| 1.0 - (1.0 - x).powi(3)) < bound);
    assert!(distance(|r| r.beta(0.5, 0.5), |x| x.sqrt().asin() * 2.0 / std::f64::consts::PI) < bound);
    // The square of a normal number is twice a gamma variable of shape 1/2.
    assert!(
        distance(|r| r.gamma(0.5) - r.normal().powi(2) / 2.0, |x| 0.5 + x.signum() * symmetric(x.abs()))
            < bound
    );
}

/// P(0 < |X - Y| < x) / 2 for X, Y gamma of shape 1/2, by the midpoint rule over X - Y's density K0(x) / pi.
fn symmetric(x: f64) -> f64 {
    // The integral of exp(-x cosh t) over t is K0(x); integrated over x, (1 - exp(-x cosh t)) / cosh t.
    const STEPS: usize = 200;
    const END: f64 = 20.0;
    let step = END / STEPS as f64;
    let terms = (0..STEPS).map(|i| ((i as f64 + 0.5) * step).cosh()).map(|c| (1.0 - (-x * c).exp()) / c);
    terms.sum::<f64>() * step / std::f64::consts::PI
}

#[test]
fn extreme_arguments_give_numbers() {
    let mut random = Random::new(0, &[]);
    for shape in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-300, 1e300] {
        assert!(random.gamma(shape) >= 0.0);
        for _ in 0..100 {
            assert!((0.0..=1.0).contains(&random.beta(shape, shape)), "{shape}");
            assert!((0.0..=1.0).contains(&random.beta(shape, 1.0)), "{shape}");
        }
    }
    assert_eq!((random.below(0), random.below(1)), (0, 0));
    assert!(random.below(u64::MAX) < u64::MAX);
    assert!((0..100).all(|_| random.chance(1.0) && !random.chance(0.0)));
    assert!(random.permutation(0).is_empty());
}

#[test]
fn permutations_are_uniform() {
    let mut counts = std::collections::BTreeMap::new();
    let mut random = Random::new(3, &[]);
    for _ in 0..24_000 {
        *counts.entry(random.permutation(4)).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 24);
    let chi: f64 = counts.values().map(|&n| f64::from(n - 1000).powi(2) / 1000.0).sum();
    assert!(chi < 49.7, "chi squared {chi} of 23 degrees is reached once in a thousand");
}
