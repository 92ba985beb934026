//! Pooling against plain loops, on every level that this processor has.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod maps;

use cardinal_kernels::*;
use maps::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Case {
    way: Way,
    spec: PoolSpec,
    include_padding: bool,
}

/// One axis: input size, kernel, stride, dilation, padding, output size; every window has a tap inside.
fn axis() -> impl Strategy<Value = [usize; 6]> {
    let kernel = prop_oneof![Just(2_usize), Just(3), 1..6_usize];
    (1..20_usize, kernel, 1..4_usize, 1..3_usize, 0..3_usize, any::<bool>()).prop_map(
        |(size, kernel, stride, dilation, padding, ceil)| {
            let dilation = if kernel <= 3 { 1 } else { dilation };
            let extent = (kernel - 1) * dilation + 1;
            let padding = padding.min(extent / 2);
            let inside = |at: usize| {
                (0..kernel).any(|tap| {
                    let place = at * stride + tap * dilation;
                    place >= padding && place - padding < size
                })
            };
            let room = (size + 2 * padding).saturating_sub(extent);
            let count = 1 + if ceil { room.div_ceil(stride) } else { room / stride };
            let count = (0..count).take_while(|&at| inside(at)).count();
            [size, kernel, stride, dilation, padding, count]
        },
    )
}

fn case() -> impl Strategy<Value = Case> {
    let axes = [axis(), axis()].prop_filter("a window lies outside", |axes| axes.iter().all(|a| a[5] > 0));
    (way(), axes, channels(), [halo(), halo()], any::<bool>()).prop_map(
        |(way, [y, x], c, halos, include_padding)| {
            let spec = PoolSpec {
                input: Map::new(y[0], x[0], c).with_halo(halos[0]),
                output: Map::new(y[5], x[5], c).with_halo(halos[1]),
                kernel: [y[1], x[1]],
                stride: [y[2], x[2]],
                dilation: [y[3], x[3]],
                padding: [y[4], x[4]],
            };
            Case { way, spec, include_padding }
        },
    )
}

impl Case {
    /// Where the taps of an output lie on one axis, in the input or not.
    fn places(&self, axis: usize, at: usize) -> impl Iterator<Item = isize> {
        let s = &self.spec;
        let (stride, dilation, padding) = (s.stride[axis], s.dilation[axis], s.padding[axis] as isize);
        (0..s.kernel[axis]).map(move |tap| (at * stride + tap * dilation) as isize - padding)
    }

    /// The numbers in the window of an output.
    fn window<T: Element>(&self, x: &Images<T>, [image, row, column, k]: [usize; 4]) -> Vec<f64> {
        let Map { h, w, .. } = self.spec.input;
        let inside = |place: &isize, size: usize| (0..size as isize).contains(place);
        self.places(0, row)
            .filter(|y| inside(y, h))
            .flat_map(|y| self.places(1, column).filter(move |x| inside(x, w)).map(move |x| (y, x)))
            .map(|(row, column)| x.get(image, row as usize, column as usize, k))
            .collect()
    }

    /// Taps of the window of an output inside the padded input.
    fn padded(&self, row: usize, column: usize) -> usize {
        let count = |axis: usize, at: usize| {
            let size = [self.spec.input.h, self.spec.input.w][axis] + self.spec.padding[axis];
            self.places(axis, at).filter(|&place| place < size as isize).count()
        };
        count(0, row) * count(1, column)
    }
}

fn windows<T: Element>(case: &Case) {
    let Case { way, spec, include_padding } = case;
    let x = way.map::<T>(&spec.input, &mut way.random());
    for &isa in levels() {
        let max = MaxPool::new(spec.clone(), isa).unwrap();
        let mean = AvgPool::new(spec.clone(), *include_padding, isa).unwrap();
        let mut largest = Images::<T>::filled(way, &spec.output, 7.0);
        let mut average = largest.clone();
        for part in way.bands(spec.output.h) {
            let before = largest.clone();
            max.run(way.pool(), &part, x.slice(), largest.slice_mut()).unwrap();
            largest.check(&part, &before, |place| {
                (case.window(&x, place).into_iter().fold(f64::NEG_INFINITY, f64::max), 0.0)
            });
            let before = average.clone();
            mean.run(way.pool(), &part, x.slice(), average.slice_mut()).unwrap();
            average.check(&part, &before, |place| {
                let window = case.window(&x, place);
                let count = if *include_padding { case.padded(place[1], place[2]) } else { window.len() };
                let magnitude: f64 = window.iter().map(|x| x.abs()).sum();
                let count = count as f64;
                (window.iter().sum::<f64>() / count, sum_tolerance(window.len(), magnitude / count))
            });
        }
    }
}

fn global<T: Element>(way: &Way, map: &Map, radix: usize) {
    let x = way.map::<T>(map, &mut way.random());
    let c = map.c / radix;
    for &isa in levels() {
        let kernel = GlobalPool::new(*map, radix, isa).unwrap();
        let mut memory = scratch(kernel.scratch(way.threads));
        let mut y = way.vector(&vec![f32::NAN; way.images * c]);
        for part in way.bands(map.h) {
            kernel.run(way.pool(), &part, x.slice(), y.slice(), &mut memory).unwrap();
        }
        for (at, &found) in y.slice().iter().enumerate() {
            let (image, k) = (at / c, at % c);
            let all = (0..map.h).flat_map(|row| (0..map.w).map(move |column| (row, column)));
            let all = all.flat_map(|(row, column)| (0..radix).map(move |r| (row, column, r * c + k)));
            let all: Vec<_> = all.map(|(row, column, k)| x.get(image, row, column, k)).collect();
            let pixels = (map.h * map.w) as f64;
            let expected = all.iter().sum::<f64>() / pixels;
            let magnitude = all.iter().map(|x| x.abs()).sum::<f64>() / pixels;
            let tolerance = sum_tolerance(all.len(), magnitude);
            assert!((f64::from(found) - expected).abs() <= tolerance, "{at}: {found}, not {expected}");
        }
    }
}

fn blur<T: Element>(way: &Way, x_map: &Map, halo: Halo) {
    let x = way.map::<T>(x_map, &mut way.random());
    let y_map = Map::new(x_map.h.div_ceil(2), x_map.w.div_ceil(2), x_map.c).with_halo(halo);
    let mirror = |place: isize, size: usize| {
        let place = place.unsigned_abs();
        if place >= size { 2 * size - 2 - place } else { place }
    };
    for &isa in levels() {
        let kernel = BlurPool::new(*x_map, y_map, isa).unwrap();
        let mut y = Images::<T>::filled(way, &y_map, 7.0);
        for part in way.bands(y_map.h) {
            let before = y.clone();
            kernel.run(way.pool(), &part, x.slice(), y.slice_mut()).unwrap();
            y.check(&part, &before, |[image, row, column, k]| {
                let (mut sum, mut magnitude) = (0.0, 0.0);
                for (a, b) in (0..3).flat_map(|a| (0..3).map(move |b| (a, b))) {
                    let filter = [1.0, 2.0, 1.0];
                    let row = mirror(2 * row as isize + a as isize - 1, x_map.h);
                    let column = mirror(2 * column as isize + b as isize - 1, x_map.w);
                    let term = filter[a] * filter[b] / 16.0 * x.get(image, row, column, k);
                    sum += term;
                    magnitude += term.abs();
                }
                (sum, sum_tolerance(9, magnitude))
            });
        }
    }
}

proptest! {
    #![proptest_config(common::cases(96))]

    #[test]
    fn windows_follow_the_definition(case in case()) {
        both_formats!(windows(&case));
    }

    #[test]
    fn global_means_follow_the_definition(
        way in way(), h in 1..10_usize, w in 1..20_usize, c in channels(), radix in 1..4_usize, halo in halo(),
    ) {
        let map = Map::new(h, w, c * radix).with_halo(halo);
        both_formats!(global(&way, &map, radix));
    }

    #[test]
    fn blur_follows_the_definition(
        way in way(), h in 2..14_usize, w in 2..24_usize, c in channels(), halos in [halo(), halo()],
    ) {
        let map = Map::new(h, w, c).with_halo(halos[0]);
        both_formats!(blur(&way, &map, halos[1]));
    }
}

/// A mean does not depend on which worker was faster.
#[test]
fn means_are_deterministic() {
    let way = Way { images: 3, threads: 4, seed: 1, shift: 0, cut: 1.0 };
    let map = Map::new(13, 57, 64);
    let x = way.map::<f32>(&map, &mut way.random());
    let kernel = GlobalPool::new(map, 1, Isa::best()).unwrap();
    let mut memory = scratch(kernel.scratch(4));
    let mut means = || {
        let mut y = vec![0.0; 3 * 64];
        kernel.run(way.pool(), &Part::whole(3, 13), x.slice(), &mut y, &mut memory).unwrap();
        y
    };
    let first = means();
    (0..20).for_each(|_| assert_eq!(means(), first));
}

#[test]
fn what_does_not_fit_is_an_error() {
    let (isa, pool) = (Isa::best(), Pool::new(1, false));
    let map = Map::new(4, 4, 8);
    let spec = PoolSpec {
        input: map,
        output: Map::new(2, 2, 8),
        kernel: [3, 3],
        stride: [2, 2],
        dilation: [1, 1],
        padding: [1, 1],
    };
    let fails = |change: fn(&mut PoolSpec)| {
        let mut spec = spec.clone();
        change(&mut spec);
        assert!(MaxPool::new(spec.clone(), isa).is_err(), "{spec:?}");
    };
    fails(|spec| spec.output.h = 4);
    fails(|spec| spec.output.c = 4);
    fails(|spec| spec.stride[1] = 0);
    fails(|spec| spec.kernel[0] = 0);
    fails(|spec| spec.padding[0] = 3);
    fails(|spec| spec.padding[0] = usize::MAX);
    fails(|spec| spec.stride[1] = usize::MAX);
    let max = MaxPool::new(spec, isa).unwrap();
    let (x, mut y) = (vec![0.0_f32; map.image()], vec![0.0_f32; 32]);
    assert!(max.run(&pool, &Part::whole(1, 2), &x[1..], &mut y).is_err());
    assert!(max.run(&pool, &Part::whole(1, 2), &x, &mut y[1..]).is_err());
    assert!(max.run(&pool, &Part::whole(1, 3), &x, &mut y).is_err());
    assert!(max.run(&pool, &Part::whole(1, 2), &x, &mut y).is_ok());
    assert!(BlurPool::new(Map::new(1, 4, 8), Map::new(1, 2, 8), isa).is_err());
    assert!(BlurPool::new(map, Map::new(2, 3, 8), isa).is_err());
    assert!(GlobalPool::new(map, 3, isa).is_err());
    assert!(GlobalPool::new(map, 0, isa).is_err());
    let global = GlobalPool::new(map, 1, isa).unwrap();
    assert!(global.run(&pool, &Part::whole(1, 4), &x, &mut y, &mut []).is_err());
}
