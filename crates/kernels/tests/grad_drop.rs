//! Random masks against their definition, on every level that this processor has.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod maps;

use cardinal_kernels::*;
use maps::*;
use proptest::prelude::*;

/// 1 where a number stays and 0 where not, for an image of `map`.
fn mask(map: &Map, dropped: Dropped, image: usize, key: DropKey, rate: f64) -> Vec<f64> {
    let Map { h, w, c, .. } = *map;
    let stays = |index: usize, rate: f64| f64::from(u8::from(!key.below(index as u64, rate)));
    let all = 0..h * w * c;
    match dropped {
        Dropped::Numbers => all.map(|at| stays(image * h * w * c + at, rate)).collect(),
        Dropped::Images => all.map(|_| stays(image, rate)).collect(),
        Dropped::Squares(side) => {
            let side = side.min(h).min(w);
            let gamma =
                rate * (h * w) as f64 / ((side * side) as f64 * ((h - side + 1) * (w - side + 1)) as f64);
            // A max pooling with a window of the side, stride 1 and half the side as padding, of the squares' places.
            let window = |at: usize, size: usize| {
                let first = at as isize - (side / 2) as isize;
                (first..first + side as isize).filter(move |at| (0..size as isize).contains(at))
            };
            all.map(|at| {
                let (y, x, k) = (at / c / w, at / c % w, at % c);
                let hit = window(y, h)
                    .flat_map(|y| window(x, w).map(move |x| (y as usize, x as usize)))
                    .any(|(y, x)| key.below(((y * w + x) * c + k) as u64, gamma));
                f64::from(u8::from(!hit))
            })
            .collect()
        }
    }
}

fn check<T: Element>(
    way: &Way,
    map: &Map,
    halos: [Halo; 2],
    dropped: Dropped,
    key: DropKey,
    rate: f64,
    in_place: bool,
) {
    let output = map.with_halo(halos[1]);
    let input = if in_place { output } else { map.with_halo(halos[0]) };
    let x = way.map::<T>(&input, &mut way.random());
    let mut first: Option<Images<T>> = None;
    for &isa in levels() {
        let kernel = RandomDrop::new(input, output, dropped, isa).unwrap();
        let before = if in_place { x.clone() } else { Images::filled(way, &output, 7.0) };
        let mut y = before.clone();
        let io = RandomDropIo {
            input: (!in_place).then_some(x.slice()),
            output: y.slice_mut(),
            scratch: &mut scratch(kernel.scratch()),
        };
        kernel.run(way.pool(), way.images, key, rate, io).unwrap();
        let masks: Vec<_> = (0..way.images).map(|image| mask(map, dropped, image, key, rate)).collect();
        let share = match dropped {
            Dropped::Squares(_) => (masks[0].iter().sum::<f64>() / masks[0].len() as f64).max(1e-7),
            Dropped::Numbers | Dropped::Images => 1.0 - rate,
        };
        y.check(&Part::whole(way.images, map.h), &before, |[image, row, column, k]| {
            let stays = masks[image][(row * map.w + column) * map.c + k];
            let value = x.get(image, row, column, k) * stays / share;
            (value, 2.0 * f64::from(f32::EPSILON) * value.abs())
        });
        let same = first.get_or_insert_with(|| y.clone());
        let bits =
            |images: &Images<T>| images.slice().iter().map(|x| x.to_f32().to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(same), bits(&y), "{isa} drops otherwise than the first level");
    }
}

fn dropped() -> impl Strategy<Value = Dropped> {
    prop_oneof![Just(Dropped::Numbers), Just(Dropped::Images), (1..9_usize).prop_map(Dropped::Squares)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn masks_follow_their_definition(
        way in way(), size in [1..12_usize, 1..16], c in channels(), halos in [halo(), halo()],
        dropped in dropped(), key: [u64; 3], rate in 0.0..0.9, in_place: bool,
    ) {
        let map = Map::new(size[0], size[1], c);
        let key = DropKey::new(key[0], key[1], key[2]);
        both_formats!(check(&way, &map, halos, dropped, key, rate, in_place));
    }
}

/// Masks are part of what a run can be repeated from: these numbers must not change.
#[test]
fn streams_stay_what_they_are() {
    let key = DropKey::new(1, 2, 3);
    let found: Vec<u32> = [0, 1, u64::from(u32::MAX), u64::MAX].map(|index| key.draw(index)).to_vec();
    assert_eq!(found, EXPECTED);
}

const EXPECTED: [u32; 4] = [558_713_863, 1_878_268_363, 1_179_900_258, 53_811_380];

/// Shares and neighbours of near keys and near indices are those of chance, within five standard deviations.
#[test]
fn streams_look_random() {
    const COUNT: usize = 1 << 16;
    let near = |count: usize, probability: f64| {
        let mean = COUNT as f64 * probability;
        assert!((count as f64 - mean).abs() < 5.0 * (mean * (1.0 - probability)).sqrt(), "{count} of {mean}");
    };
    for key in [[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [u64::MAX, 7, 9]] {
        let [seed, step, layer] = key;
        let key = DropKey::new(seed, step, layer);
        let others = [DropKey::new(seed, step + 1, layer), DropKey::new(seed, step, layer + 1)];
        for rate in [0.01, 0.2, 0.5] {
            let below = |key: DropKey, at: usize| key.below(at as u64, rate);
            near((0..COUNT).filter(|&at| below(key, at)).count(), rate);
            near((0..COUNT).filter(|&at| below(key, at) && below(key, at + 1)).count(), rate * rate);
            for other in others {
                near((0..COUNT).filter(|&at| below(key, at) && below(other, at)).count(), rate * rate);
            }
        }
    }
}

#[test]
fn squares_drop_about_their_rate_and_keep_the_mean() {
    let way = Way { images: 2, threads: 3, seed: 0, shift: 0, cut: 1.0 };
    let map = Map::new(14, 14, 256);
    let x = Images::<f32>::filled(&way, &map, 1.0);
    let mut y = x.clone();
    let kernel = RandomDrop::new(map, map, Dropped::Squares(3), Isa::best()).unwrap();
    let io = RandomDropIo {
        input: Some(x.slice()),
        output: y.slice_mut(),
        scratch: &mut scratch(kernel.scratch()),
    };
    kernel.run(way.pool(), 2, DropKey::new(5, 6, 7), 0.1, io).unwrap();
    let zeros = y.slice().iter().filter(|x| **x == 0.0).count() as f64 / y.slice().len() as f64;
    let mean = y.slice().iter().map(|x| f64::from(*x)).sum::<f64>() / y.slice().len() as f64;
    assert!((0.07..0.13).contains(&zeros) && (mean - 1.0).abs() < 1e-5, "{zeros} are zero, mean {mean}");
    let images = y.slice().split_at(map.image());
    assert_eq!(images.0, images.1, "the mask is shared by the batch");
}

#[test]
fn what_does_not_fit_is_an_error() {
    let (isa, pool, map) = (Isa::best(), Pool::new(1, false), Map::new(2, 3, 4));
    assert!(RandomDrop::new(map, Map::new(2, 3, 5), Dropped::Numbers, isa).is_err());
    assert!(RandomDrop::new(map, map, Dropped::Squares(0), isa).is_err());
    let kernel = RandomDrop::new(map, map, Dropped::Squares(2), isa).unwrap();
    let key = DropKey::new(0, 0, 0);
    let run = |input: usize, output: usize, lines: usize, rate: f64| {
        let io = RandomDropIo {
            input: Some(&vec![0.0_f32; input]),
            output: &mut vec![0.0; output],
            scratch: &mut scratch(lines),
        };
        kernel.run(&pool, 1, key, rate, io)
    };
    let lines = kernel.scratch();
    assert!(run(24, 24, lines, 0.5).is_ok());
    assert!(run(23, 24, lines, 0.5).is_err());
    assert!(run(24, 23, lines, 0.5).is_err());
    assert!(run(24, 24, lines - 1, 0.5).is_err());
    for rate in [1.0, -0.1, f64::NAN] {
        assert!(run(24, 24, lines, rate).is_err());
    }
}
