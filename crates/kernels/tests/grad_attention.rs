//! The gradients of attention against their definition, on every level that this processor has.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod maps;

use cardinal_kernels::*;
use maps::*;
use proptest::prelude::*;

/// The vector `exp` is good to about one unit in the last place; dividing and weighing cost a few more.
const UNITS: f64 = 32.0 * f32::EPSILON as f64;

const START: f32 = 0.75;

#[derive(Clone, Debug)]
struct Case {
    way: Way,
    size: [usize; 2],
    group: usize,
    cardinality: usize,
    radix: usize,
    hard: bool,
    /// Of the input, the output's gradient, the input's gradient and the output.
    halos: [Halo; 4],
    /// Of the leaky ReLU behind, if there is one.
    slope: Option<f32>,
    means: bool,
    write: Write,
}

fn case() -> impl Strategy<Value = Case> {
    let size = [1..8_usize, 1..14];
    let slope = prop::sample::select(vec![None, Some(0.0), Some(0.1)]);
    let write = prop::sample::select(vec![Write::Replace, Write::Add]);
    let counts = (channels(), 1..4_usize, 1..5_usize);
    let rest = (any::<bool>(), slope, any::<bool>(), write);
    (way(), size, counts, [halo(), halo(), halo(), halo()], rest).prop_map(
        |(way, size, (group, cardinality, radix), halos, (hard, slope, means, write))| Case {
            way,
            size,
            group,
            cardinality,
            radix,
            hard,
            halos,
            slope,
            means,
            write,
        },
    )
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

impl Case {
    fn channels(&self) -> usize {
        self.group * self.cardinality
    }

    fn map(&self, splits: usize, halo: usize) -> Map {
        Map::new(self.size[0], self.size[1], splits * self.channels()).with_halo(self.halos[halo])
    }

    fn place(&self, image: usize, r: usize, k: usize) -> usize {
        let Self { group, radix, .. } = self;
        image * radix * self.channels() + (k / group * radix + r) * group + k % group
    }

    fn weight(&self, logits: &[f32], image: usize, r: usize, k: usize) -> f64 {
        let logit = |r: usize| f64::from(logits[self.place(image, r, k)]);
        if self.hard {
            return (logit(0) + 3.0).clamp(0.0, 6.0) / 6.0;
        }
        if self.radix == 1 {
            return sigmoid(logit(0));
        }
        let largest = (0..self.radix).map(logit).fold(f64::MIN, f64::max);
        let e = |r: usize| (logit(r) - largest).exp();
        e(r) / (0..self.radix).map(e).sum::<f64>()
    }
}

struct Data<T> {
    x: Images<T>,
    y: Images<T>,
    dy: Images<T>,
    logits: Vec<f32>,
    means: Vec<f32>,
}

fn gradients<T: Element>(case: &Case) {
    let way = &case.way;
    let mut random = way.random();
    let c = case.channels();
    let data = Data {
        x: way.map::<T>(&case.map(case.radix, 0), &mut random),
        dy: way.map::<T>(&case.map(1, 1), &mut random),
        y: way.map::<T>(&case.map(1, 3), &mut random),
        logits: random.numbers(way.images * case.radix * c).iter().map(|x| x * x * x).collect(),
        means: random.numbers(way.images * c),
    };
    for &isa in levels() {
        let maps = [data.x.map, data.dy.map, case.map(case.radix, 2)];
        let kernel = if case.hard {
            AttentionGrad::gate(maps, true, isa)
        } else {
            AttentionGrad::split(maps, case.radix, case.cardinality, isa)
        };
        let mut kernel = kernel.unwrap();
        if let Some(slope) = case.slope {
            kernel = kernel.with_output(data.y.map, slope).unwrap();
        }
        logits(case, &kernel, &data);
        input(case, &kernel, &data);
    }
}

/// The gradient before the leaky ReLU.
fn before<T: Element>(case: &Case, data: &Data<T>, [image, row, column, k]: [usize; 4]) -> f64 {
    let positive = data.y.get(image, row, column, k) > 0.0;
    let slope = case.slope.filter(|_| !positive).map_or(1.0, f64::from);
    data.dy.get(image, row, column, k) * slope
}

fn logits<T: Element>(case: &Case, kernel: &AttentionGrad, data: &Data<T>) {
    let (way, c) = (&case.way, case.channels());
    let mut memory = scratch(kernel.scratch(way.threads));
    let mut found = vec![f32::NAN; data.logits.len()];
    let io = LogitsGradIo {
        input: data.x.slice(),
        grad: data.dy.slice(),
        output: case.slope.map(|_| data.y.slice()),
        logits: &data.logits,
        result: &mut found,
        scratch: &mut memory,
    };
    kernel.logits(way.pool(), way.images, io).unwrap();
    for (image, k) in (0..way.images).flat_map(|image| (0..c).map(move |k| (image, k))) {
        // The gradient of each weight, and the magnitude of what was added up.
        let sum = |r: usize| {
            let pixels = (0..case.size[0]).flat_map(|row| (0..case.size[1]).map(move |column| (row, column)));
            pixels.fold((0.0, 0.0), |(sum, magnitude), (row, column)| {
                let x = data.x.get(image, row, column, r * c + k);
                let product = x * before(case, data, [image, row, column, k]);
                (sum + product, magnitude + product.abs())
            })
        };
        let sums: Vec<(f64, f64)> = (0..case.radix).map(sum).collect();
        let weight = |r: usize| case.weight(&data.logits, image, r, k);
        let all: f64 = (0..case.radix).map(|r| weight(r) * sums[r].0).sum();
        let magnitude: f64 = sums.iter().map(|(_, magnitude)| magnitude).sum();
        for r in 0..case.radix {
            let logit = f64::from(data.logits[case.place(image, r, k)]);
            let expected = if case.hard {
                sums[0].0 * if logit.abs() < 3.0 { 1.0 / 6.0 } else { 0.0 }
            } else if case.radix == 1 {
                sums[0].0 * weight(0) * (1.0 - weight(0))
            } else {
                weight(r) * (sums[r].0 - all)
            };
            let terms = case.size[0] * case.size[1];
            let tolerance = UNITS * magnitude + sum_tolerance(terms, magnitude);
            let found = f64::from(found[case.place(image, r, k)]);
            assert!((found - expected).abs() <= tolerance, "{image} {r} {k}: {found}, not {expected}");
        }
    }
}

fn input<T: Element>(case: &Case, kernel: &AttentionGrad, data: &Data<T>) {
    let (way, c) = (&case.way, case.channels());
    let map = case.map(case.radix, 2);
    let mut memory = scratch(kernel.scratch(way.threads));
    let filled = Images::<T>::filled(way, &map, START);
    let mut found = filled.clone();
    let io = InputGradIo {
        grad: Some(data.dy.slice()),
        output: case.slope.map(|_| data.y.slice()),
        logits: &data.logits,
        means: case.means.then_some(&data.means),
        result: found.slice_mut(),
        write: case.write,
        scratch: &mut memory,
    };
    kernel.input(way.pool(), way.images, io).unwrap();
    let expected = |start: f32, [image, row, column, channel]: [usize; 4]| {
        let (r, k) = (channel / c, channel % c);
        let g = before(case, data, [image, row, column, k]) * case.weight(&data.logits, image, r, k);
        let pixels = (case.size[0] * case.size[1]) as f64;
        let mean = if case.means { f64::from(data.means[image * c + k]) / pixels } else { 0.0 };
        let start = if case.write == Write::Add { f64::from(start) } else { 0.0 };
        (g + mean + start, UNITS * (g.abs() + mean.abs() + start) + 1e-36)
    };
    let part = Part::whole(way.images, map.h);
    found.check(&part, &filled, |place| expected(START, place));
    // In place where the maps are the same.
    if data.dy.map != map {
        return;
    }
    let mut found = data.dy.clone();
    let mut io = InputGradIo {
        grad: None,
        output: case.slope.map(|_| data.y.slice()),
        logits: &data.logits,
        means: case.means.then_some(&data.means),
        result: found.slice_mut(),
        write: case.write,
        scratch: &mut memory,
    };
    if case.write == Write::Add {
        assert!(kernel.input(way.pool(), way.images, io).is_err());
        return;
    }
    io.write = Write::Replace;
    kernel.input(way.pool(), way.images, io).unwrap();
    found.check(&part, &data.dy, |place| expected(0.0, place));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn split_attention_follows_the_definition(case in case()) {
        both_formats!(gradients(&Case { hard: false, ..case.clone() }));
    }

    #[test]
    fn gates_follow_the_definition(case in case(), in_place: bool) {
        let mut case = Case { cardinality: 1, radix: 1, ..case };
        if in_place {
            case.halos[2] = case.halos[1];
        }
        both_formats!(gradients(&case));
    }
}

/// Large enough that several workers share an image; the result is the same each time.
#[test]
fn sums_are_deterministic() {
    let way = Way { images: 3, threads: 4, seed: 1, shift: 0, cut: 1.0 };
    let map = Map::new(13, 57, 64);
    let (x, dy) = (way.map::<f32>(&map, &mut way.random()), way.map::<f32>(&map, &mut Random(9)));
    let kernel = FactorGrad::new(map, map, 1, Isa::best()).unwrap();
    let mut memory = scratch(kernel.scratch(4));
    let mut sums = || {
        let mut result = vec![f32::NAN; 3 * 64];
        let io = FactorGradIo {
            input: x.slice(),
            grad: dy.slice(),
            output: None,
            result: &mut result,
            scratch: &mut memory,
        };
        kernel.run(way.pool(), 3, io).unwrap();
        result
    };
    let first = sums();
    for (at, found) in first.iter().enumerate() {
        let places = (0..13).flat_map(|row| (0..57).map(move |column| (row, column)));
        let product =
            |(row, column)| x.get(at / 64, row, column, at % 64) * dy.get(at / 64, row, column, at % 64);
        let expected: f64 = places.map(product).sum();
        assert!((f64::from(*found) - expected).abs() < 1e-3, "{at}: {found}, not {expected}");
    }
    (0..20).for_each(|_| assert_eq!(sums(), first));
}

#[test]
fn what_does_not_fit_is_an_error() {
    let (isa, pool) = (Isa::best(), Pool::new(1, false));
    let (map, wide) = (Map::new(2, 3, 4), Map::new(2, 3, 8));
    assert!(AttentionGrad::split([wide, map, map], 2, 1, isa).is_err());
    assert!(AttentionGrad::split([wide, wide, wide], 2, 1, isa).is_err());
    assert!(AttentionGrad::split([wide, map, wide], 2, 3, isa).is_err());
    assert!(AttentionGrad::split([wide, map, wide], 0, 1, isa).is_err());
    assert!(AttentionGrad::split([wide, Map::new(3, 2, 4), wide], 2, 1, isa).is_err());
    let kernel = AttentionGrad::split([wide, map, wide], 2, 1, isa).unwrap();
    assert!(kernel.clone().with_output(wide, 0.0).is_err());
    assert!(kernel.clone().with_output(map, -0.1).is_err());
    let kernel = kernel.with_output(map, 0.0).unwrap();
    let lengths = [48, 24, 24, 8, 8, kernel.scratch(1)];
    for short in 0..7 {
        let len = |index: usize| lengths[index] - usize::from(index == short);
        let io = LogitsGradIo {
            input: &vec![0.0_f32; len(0)],
            grad: &vec![0.0; len(1)],
            output: Some(&vec![0.0; len(2)]),
            logits: &vec![0.0; len(3)],
            result: &mut vec![0.0; len(4)],
            scratch: &mut scratch(len(5)),
        };
        assert_eq!(kernel.logits(&pool, 1, io).is_err(), short < 6);
    }
    let lengths = [24, 24, 8, 4, 48, kernel.scratch(1)];
    for short in 0..7 {
        let len = |index: usize| lengths[index] - usize::from(index == short);
        let io = InputGradIo {
            grad: Some(&vec![0.0_f32; len(0)]),
            output: Some(&vec![0.0; len(1)]),
            logits: &vec![0.0; len(2)],
            means: Some(&vec![0.0; len(3)]),
            result: &mut vec![0.0; len(4)],
            write: Write::Replace,
            scratch: &mut scratch(len(5)),
        };
        assert_eq!(kernel.input(&pool, 1, io).is_err(), short < 6);
    }
}
