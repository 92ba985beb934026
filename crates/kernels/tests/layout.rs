//! Layout changes against plain loops, on every level that this processor has.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod maps;

use cardinal_kernels::*;
use maps::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Case {
    way: Way,
    h: usize,
    w: usize,
    c: usize,
    halos: [Halo; 2],
}

fn case() -> impl Strategy<Value = Case> {
    let w = prop_oneof![1..20_usize, 60..140_usize];
    let c = prop_oneof![Just(3), channels()];
    (way(), 1..6_usize, w, c, [halo(), halo()]).prop_map(|(way, h, w, c, halos)| Case { way, h, w, c, halos })
}

fn nchw<T: Element>(case: &Case, block: usize, affine: bool) {
    let Case { way, h, w, c, halos } = case;
    let map = Map::new(*h, *w, c * block * block).with_halo(halos[0]);
    let mut random = way.random();
    let (rows, columns) = (h * block, w * block);
    let images = random.numbers(way.images * c * rows * columns);
    let (scale, shift) = (random.numbers(*c), random.numbers(*c));
    let mut images_slice = way.vector(&images);
    for &isa in levels() {
        let mut from = FromNchw::with_block(map, block, isa).unwrap();
        if affine {
            from = from.with_affine(&scale, &shift).unwrap();
        }
        let mut y = Images::<T>::filled(way, &map, 7.0);
        for part in way.bands(*h) {
            let before = y.clone();
            from.run(way.pool(), &part, images_slice.slice(), y.slice_mut()).unwrap();
            y.check(&part, &before, |[image, row, column, k]| {
                let (by, bx, k) = (k / c / block, k / c % block, k % c);
                let (row, column) = (row * block + by, column * block + bx);
                let x = f64::from(images[((image * c + k) * rows + row) * columns + column]);
                if !affine {
                    return (x, 0.0);
                }
                let (product, shift) = (x * f64::from(scale[k]), f64::from(shift[k]));
                (product + shift, sum_tolerance(1, product.abs() + shift.abs()))
            });
        }
        let to = ToNchw::new(map, isa).unwrap();
        let plain = way.map::<T>(&map, &mut random);
        let mut back = way.vector(&vec![f32::NAN; way.images * map.h * map.w * map.c]);
        for part in way.bands(*h) {
            to.run(way.pool(), &part, plain.slice(), back.slice()).unwrap();
        }
        for (at, x) in back.slice().iter().enumerate() {
            let (row, column, k) = (at / w % h, at % w, at / w / h % map.c);
            assert_eq!(f64::from(*x), plain.get(at / (w * h * map.c), row, column, k));
        }
    }
}

fn space_to_depth<T: Element>(case: &Case, block: usize) {
    let Case { way, h, w, c, halos } = case;
    let x_map = Map::new(h * block, w * block, *c).with_halo(halos[0]);
    let y_map = Map::new(*h, *w, c * block * block).with_halo(halos[1]);
    let x = way.map::<T>(&x_map, &mut way.random());
    let kernel = SpaceToDepth::new(x_map, y_map, block).unwrap();
    let mut y = Images::filled(way, &y_map, 7.0);
    for part in way.bands(*h) {
        let before = y.clone();
        kernel.run(way.pool(), &part, x.slice(), y.slice_mut()).unwrap();
        y.check(&part, &before, |[image, row, column, k]| {
            let (by, bx, k) = (k / c / block, k / c % block, k % c);
            (x.get(image, row * block + by, column * block + bx, k), 0.0)
        });
    }
}

fn copy<A: Element, B: Element>(case: &Case, before: usize, after: usize, skipped: usize) {
    let Case { way, h, w, c, halos } = case;
    let x_map = Map::new(*h, *w, skipped + c).with_halo(halos[0]);
    let y_map = Map::new(*h, *w, before + c + after).with_halo(halos[1]);
    let mut random = way.random();
    let x = way.map::<A>(&x_map, &mut random);
    let old = way.map::<B>(&y_map, &mut random);
    for &isa in levels() {
        let kernel = CopyMap::channels(x_map, skipped, y_map, before, *c, isa).unwrap();
        let mut y = old.clone();
        for part in way.bands(*h) {
            let was = y.clone();
            kernel.run(way.pool(), &part, x.slice(), y.slice_mut()).unwrap();
            y.check(&part, &was, |[image, row, column, k]| {
                let copied = (before..before + c).contains(&k);
                let x = if copied {
                    x.get(image, row, column, k - before + skipped)
                } else {
                    was.get(image, row, column, k)
                };
                (x, 0.0)
            });
        }
    }
}

fn fill_halo<T: Element>(case: &Case) {
    let Case { way, h, w, c, halos } = case;
    let map = Map::new(*h, *w, *c).with_halo(halos[0]);
    let x = way.map::<T>(&map, &mut way.random());
    let mut y = x.clone();
    for part in way.bands(*h) {
        FillHalo::new(map).unwrap().run(way.pool(), &part, y.slice_mut()).unwrap();
    }
    assert_eq!(y.slice(), x.padded().slice());
}

proptest! {
    #![proptest_config(common::cases(64))]

    #[test]
    fn nchw_there_and_back(case in case(), block in 1..5_usize, affine in any::<bool>()) {
        both_formats!(nchw(&case, block, affine));
    }

    #[test]
    fn space_to_depth_follows_the_definition(case in case(), block in 1..5_usize) {
        both_formats!(space_to_depth(&case, block));
    }

    #[test]
    fn copies_change_nothing_else(case in case(), around in [0..9_usize, 0..9, 0..9]) {
        let [before, after, skipped] = around;
        copy::<f32, f32>(&case, before, after, skipped);
        copy::<f32, Bf16>(&case, before, after, skipped);
        copy::<Bf16, f32>(&case, before, after, skipped);
        copy::<Bf16, Bf16>(&case, before, after, skipped);
        copy::<Bf16, f32>(&case, 0, 0, 0);
        copy::<f32, f32>(&case, 0, 0, 0);
    }

    #[test]
    fn halos_become_zero_and_nothing_else(case in case()) {
        both_formats!(fill_halo(&case));
    }
}

/// A band in the middle has neither the rows above nor those below.
#[test]
fn a_band_fills_its_own_sides_alone() {
    let map = Map::new(4, 2, 1).with_halo(Halo::even(1));
    let mut x = vec![1.0_f32; map.image()];
    let pool = Pool::new(1, false);
    FillHalo::new(map).unwrap().run(&pool, &Part { images: 1, rows: 1..3 }, &mut x).unwrap();
    let zeros: Vec<_> = (0..x.len()).filter(|&at| x[at] == 0.0).collect();
    assert_eq!(zeros, [8, 11, 12, 15]);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let (isa, pool) = (Isa::best(), Pool::new(1, false));
    let map = Map::new(4, 4, 8);
    assert!(CopyMap::channels(map, 1, map, 0, 8, isa).is_err());
    assert!(CopyMap::channels(map, usize::MAX, map, 0, 8, isa).is_err());
    assert!(CopyMap::new(map, Map::new(4, 5, 8), isa).is_err());
    assert!(SpaceToDepth::new(map, Map::new(2, 2, 31), 2).is_err());
    assert!(SpaceToDepth::new(map, Map::new(4, 4, 8), 0).is_err());
    assert!(FromNchw::with_block(map, 3, isa).is_err());
    assert!(FromNchw::with_block(map, 0, isa).is_err());
    assert!(FromNchw::new(map, isa).unwrap().with_affine(&[1.0; 8], &[1.0; 7]).is_err());
    assert!(FillHalo::new(Map::new(0, 1, 1)).is_err());
    let mut y = vec![0.0_f32; 128];
    assert!(FromNchw::new(map, isa).unwrap().run(&pool, &Part::whole(1, 4), &[0.0; 127], &mut y).is_err());
    let to = ToNchw::new(map, isa).unwrap();
    assert!(to.run(&pool, &Part::whole(1, 4), &[0.0_f32; 127], &mut y).is_err());
    assert!(to.run(&pool, &Part::whole(2, 4), &[0.0_f32; 256], &mut y).is_err());
    assert!(FillHalo::new(map).unwrap().run(&pool, &Part::whole(2, 4), &mut y).is_err());
}
