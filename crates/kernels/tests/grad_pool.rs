//! The gradients of poolings and of moved pixels against plain loops, on every level that this processor has.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod maps;

use cardinal_kernels::*;
use maps::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Case {
    way: Way,
    spec: PoolSpec,
    result: Map,
    write: Write,
}

fn write() -> impl Strategy<Value = Write> {
    prop::sample::select(vec![Write::Replace, Write::Add])
}

/// One axis: input size, kernel, stride, dilation, padding, output size, with PyTorch's rule for the latter.
fn axis() -> impl Strategy<Value = [usize; 6]> {
    let kernel = prop_oneof![Just(2_usize), Just(3), 1..5_usize];
    (1..16_usize, kernel, 1..4_usize, 1..3_usize, 0..3_usize, any::<bool>())
        .prop_map(|(size, kernel, stride, dilation, padding, ceil)| {
            let padding = padding.min(kernel / 2);
            let room = (size + 2 * padding).checked_sub((kernel - 1) * dilation + 1);
            let count = room.map_or(0, |room| 1 + if ceil { room.div_ceil(stride) } else { room / stride });
            // Windows that begin behind the input are left out, and so are those without a tap inside.
            let inside = |at: &usize| {
                let place = |tap: usize| at * stride + tap * dilation;
                (0..kernel).any(|tap| (padding..padding + size).contains(&place(tap)))
            };
            [size, kernel, stride, dilation, padding, (0..count).take_while(inside).count()]
        })
        .prop_filter("no window", |axis| axis[5] > 0)
}

fn case() -> impl Strategy<Value = Case> {
    (way(), [axis(), axis()], channels(), [halo(), halo(), halo()], write()).prop_map(
        |(way, [y, x], c, halos, write)| {
            let spec = PoolSpec {
                input: Map::new(y[0], x[0], c).with_halo(halos[0]),
                output: Map::new(y[5], x[5], c).with_halo(halos[1]),
                kernel: [y[1], x[1]],
                stride: [y[2], x[2]],
                dilation: [y[3], x[3]],
                padding: [y[4], x[4]],
            };
            let result = spec.input.with_halo(halos[2]);
            Case { way, spec, result, write }
        },
    )
}

/// For each number of a gradient, what was added to it, the sum of magnitudes, and how many terms there were.
struct Sums {
    map: Map,
    sums: Vec<(f64, f64, usize)>,
}

impl Sums {
    fn new(way: &Way, map: &Map) -> Self {
        let map = Map::new(map.h, map.w, map.c);
        Self { map, sums: vec![(0.0, 0.0, 0); way.images * map.image()] }
    }

    fn at(&self, [image, y, x, k]: [usize; 4]) -> usize {
        image * self.map.image() + self.map.at(y as isize, x as isize) + k
    }

    fn add(&mut self, place: [usize; 4], value: f64) {
        let at = self.at(place);
        let (sum, magnitude, terms) = self.sums[at];
        self.sums[at] = (sum + value, magnitude + value.abs(), terms + 1);
    }

    /// Checks `found`, which held 1.5 everywhere.
    fn check<T: Element>(&self, way: &Way, found: &Images<T>, write: Write) {
        let before = Images::filled(way, &found.map, START);
        found.check(&Part::whole(way.images, found.map.h), &before, |place| {
            let (sum, magnitude, terms) = self.sums[self.at(place)];
            let start = if write == Write::Add { f64::from(START) } else { 0.0 };
            (sum + start, sum_tolerance(terms + 2, magnitude + start))
        });
    }
}

const START: f32 = 1.5;

/// All images, rows and columns of outputs, and channels.
fn each(images: usize, map: &Map) -> impl Iterator<Item = [usize; 4]> {
    let Map { h, w, c, .. } = *map;
    (0..images * h * w * c).map(move |at| [at / c / w / h, at / c / w % h, at / c % w, at % c])
}

impl Case {
    /// The taps of an output on one axis, in the input or not.
    fn places(&self, axis: usize, at: usize) -> impl Iterator<Item = isize> + Clone {
        let s = &self.spec;
        let (stride, dilation, padding) = (s.stride[axis], s.dilation[axis], s.padding[axis] as isize);
        (0..s.kernel[axis]).map(move |tap| (at * stride + tap * dilation) as isize - padding)
    }

    /// The rows and columns inside the input of the window of an output, row by row.
    fn window(&self, row: usize, column: usize) -> impl Iterator<Item = [usize; 2]> + Clone {
        let Map { h, w, .. } = self.spec.input;
        let columns = self.places(1, column).filter(move |x| (0..w as isize).contains(x));
        let rows = self.places(0, row).filter(move |y| (0..h as isize).contains(y));
        rows.flat_map(move |y| columns.clone().map(move |x| [y as usize, x as usize]))
    }

    /// Taps inside the padded input.
    fn padded(&self, row: usize, column: usize) -> usize {
        let count = |axis: usize, at: usize| {
            let size = [self.spec.input.h, self.spec.input.w][axis] + self.spec.padding[axis];
            self.places(axis, at).filter(|&place| place < size as isize).count()
        };
        count(0, row) * count(1, column)
    }
}

fn max_pool<T: Element>(case: &Case) {
    let Case { way, spec, result, write } = case;
    let mut random = way.random();
    let mut x = way.map::<T>(&spec.input, &mut random);
    // Few values, so that many windows have several maxima.
    for [image, row, column, k] in each(way.images, &spec.input) {
        x.set(image, row as isize, column as isize, k, random.number().round());
    }
    let dy = way.map::<T>(&spec.output, &mut random);
    let mut expected = Sums::new(way, result);
    for [image, row, column, k] in each(way.images, &spec.output) {
        let value = |[y, x_]: [usize; 2]| x.get(image, y, x_, k);
        let largest = case.window(row, column).map(value).fold(f64::NEG_INFINITY, f64::max);
        let [y, x] = case.window(row, column).find(|&place| value(place) == largest).unwrap();
        expected.add([image, y, x, k], dy.get(image, row, column, k));
    }
    for &isa in levels() {
        let kernel = MaxPoolGrad::new(spec.clone(), *result, isa).unwrap();
        let mut dx = Images::<T>::filled(way, result, START);
        let io = MaxPoolGradIo {
            input: x.slice(),
            grad: dy.slice(),
            result: dx.slice_mut(),
            write: *write,
            scratch: &mut scratch(kernel.scratch(way.threads)),
        };
        kernel.run(way.pool(), way.images, io).unwrap();
        expected.check(way, &dx, *write);
    }
}

fn avg_pool<T: Element>(case: &Case, include_padding: bool) {
    let Case { way, spec, result, write } = case;
    let dy = way.map::<T>(&spec.output, &mut way.random());
    let mut expected = Sums::new(way, result);
    for [image, row, column, k] in each(way.images, &spec.output) {
        let inside = case.window(row, column).count();
        let count = if include_padding { case.padded(row, column) } else { inside };
        for [y, x] in case.window(row, column) {
            expected.add([image, y, x, k], dy.get(image, row, column, k) / count as f64);
        }
    }
    for &isa in levels() {
        let kernel = SpreadGrad::avg_pool(spec, include_padding, *result, isa).unwrap();
        let mut dx = Images::<T>::filled(way, result, START);
        kernel.run(way.pool(), way.images, dy.slice(), dx.slice_mut(), *write).unwrap();
        expected.check(way, &dx, *write);
    }
}

fn blur_pool<T: Element>(way: &Way, result: &Map, halo: Halo, write: Write) {
    let dy_map = Map::new(result.h.div_ceil(2), result.w.div_ceil(2), result.c).with_halo(halo);
    let dy = way.map::<T>(&dy_map, &mut way.random());
    let mirror = |place: isize, size: usize| {
        let place = place.unsigned_abs();
        if place >= size { 2 * size - 2 - place } else { place }
    };
    let mut expected = Sums::new(way, result);
    for [image, row, column, k] in each(way.images, &dy_map) {
        for (a, b) in (0..3).flat_map(|a| (0..3).map(move |b| (a, b))) {
            let y = mirror(2 * row as isize + a as isize - 1, result.h);
            let x = mirror(2 * column as isize + b as isize - 1, result.w);
            let filter = [1.0, 2.0, 1.0];
            expected.add([image, y, x, k], filter[a] * filter[b] / 16.0 * dy.get(image, row, column, k));
        }
    }
    for &isa in levels() {
        let kernel = SpreadGrad::blur_pool(dy_map, *result, isa).unwrap();
        let mut dx = Images::<T>::filled(way, result, START);
        kernel.run(way.pool(), way.images, dy.slice(), dx.slice_mut(), write).unwrap();
        expected.check(way, &dx, write);
    }
}

fn pad<T: Element>(way: &Way, result: &Map, halo: Halo, [before, after]: [[usize; 2]; 2], write: Write) {
    let grown = |size: usize, axis: usize| size + before[axis] + after[axis];
    let dy_map = Map::new(grown(result.h, 0), grown(result.w, 1), result.c).with_halo(halo);
    let dy = way.map::<T>(&dy_map, &mut way.random());
    let mut expected = Sums::new(way, result);
    for [image, y, x, k] in each(way.images, result) {
        expected.add([image, y, x, k], dy.get(image, y + before[0], x + before[1], k));
    }
    for &isa in levels() {
        let kernel = SpreadGrad::pad(dy_map, *result, before, isa).unwrap();
        let mut dx = Images::<T>::filled(way, result, START);
        kernel.run(way.pool(), way.images, dy.slice(), dx.slice_mut(), write).unwrap();
        expected.check(way, &dx, write);
    }
}

fn global<T: Element>(way: &Way, result: &Map, radix: usize, write: Write) {
    let channels = result.c / radix;
    let dy = way.random().numbers(way.images * channels);
    let mut expected = Sums::new(way, result);
    for [image, y, x, k] in each(way.images, result) {
        let share = f64::from(dy[image * channels + k % channels]) / (result.h * result.w) as f64;
        expected.add([image, y, x, k], share);
    }
    let mut shifted = way.vector(&dy);
    for &isa in levels() {
        let kernel = GlobalPoolGrad::new(*result, radix, isa).unwrap();
        let mut dx = Images::<T>::filled(way, result, START);
        kernel.run(way.pool(), way.images, shifted.slice(), dx.slice_mut(), write).unwrap();
        expected.check(way, &dx, write);
    }
}

fn depth<T: Element>(way: &Way, small: &Map, block: usize, halo: Halo) {
    let large = Map::new(small.h * block, small.w * block, small.c).with_halo(halo);
    let deep = Map { c: small.c * block * block, ..*small };
    let dy = way.map::<T>(&deep, &mut way.random());
    let mut dx = Images::<T>::filled(way, &large, START);
    DepthToSpace::new(deep, large, block)
        .unwrap()
        .run(way.pool(), way.images, dy.slice(), dx.slice_mut())
        .unwrap();
    let mut expected = Sums::new(way, &large);
    for [image, y, x, k] in each(way.images, &large) {
        let channel = (y % block * block + x % block) * small.c + k;
        expected.add([image, y, x, k], dy.get(image, y / block, x / block, channel));
    }
    expected.check(way, &dx, Write::Replace);
    let mut back = Images::<T>::filled(way, &deep, 0.0);
    let forward = SpaceToDepth::new(large, deep, block).unwrap();
    forward.run(way.pool(), &Part::whole(way.images, deep.h), dx.slice(), back.slice_mut()).unwrap();
    let all = each(way.images, &deep);
    all.for_each(|[i, y, x, k]| assert_eq!(back.get(i, y, x, k), dy.get(i, y, x, k)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn windows_give_their_gradients_back(case in case(), include_padding: bool) {
        both_formats!(max_pool(&case));
        both_formats!(avg_pool(&case, include_padding));
    }

    #[test]
    fn blur_gives_its_gradient_back(
        way in way(), h in 2..14_usize, w in 2..24_usize, c in channels(), halos in [halo(), halo()],
        write in write(),
    ) {
        let map = Map::new(h, w, c).with_halo(halos[0]);
        both_formats!(blur_pool(&way, &map, halos[1], write));
    }

    #[test]
    fn means_and_borders_give_their_gradients_back(
        way in way(), size in [1..9_usize, 1..20], c in channels(), radix in 1..4_usize,
        halos in [halo(), halo()], border in [[0..3_usize, 0..3], [0..3, 0..3]], write in write(),
    ) {
        let map = Map::new(size[0], size[1], c).with_halo(halos[0]);
        both_formats!(pad(&way, &map, halos[1], border, write));
        both_formats!(global(&way, &Map { c: c * radix, ..map }, radix, write));
    }

    #[test]
    fn depth_goes_back_to_space(
        way in way(), size in [1..6_usize, 1..9], c in 1..20_usize, block in 1..5_usize,
        halos in [halo(), halo()],
    ) {
        let map = Map::new(size[0], size[1], c).with_halo(halos[0]);
        both_formats!(depth(&way, &map, block, halos[1]));
    }
}

/// Large enough that several workers share an image, and rows too, with the windows of ResNet's stem.
#[test]
fn whole_layers() {
    for (threads, h, w) in [(1, 28, 28), (4, 28, 29), (4, 3, 301)] {
        let way = Way { images: 1, threads, seed: 3, shift: 0, cut: 1.0 };
        let spec = PoolSpec {
            input: Map::new(h, w, 32),
            output: Map::new(h.div_ceil(2), w.div_ceil(2), 32),
            kernel: [3; 2],
            stride: [2; 2],
            dilation: [1; 2],
            padding: [1; 2],
        };
        let case = Case { way, result: spec.input, spec, write: Write::Replace };
        both_formats!(max_pool(&case));
        both_formats!(avg_pool(&case, true));
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let (isa, pool) = (Isa::best(), Pool::new(1, false));
    let map = Map::new(4, 4, 8);
    let half = Map::new(2, 2, 8);
    let spec = PoolSpec {
        input: map,
        output: half,
        kernel: [2; 2],
        stride: [2; 2],
        dilation: [1; 2],
        padding: [0; 2],
    };
    assert!(MaxPoolGrad::new(spec.clone(), half, isa).is_err());
    assert!(MaxPoolGrad::new(PoolSpec { output: map, ..spec.clone() }, map, isa).is_err());
    assert!(SpreadGrad::avg_pool(&spec, true, half, isa).is_err());
    assert!(SpreadGrad::blur_pool(map, map, isa).is_err());
    assert!(SpreadGrad::pad(map, half, [3, 0], isa).is_err());
    assert!(SpreadGrad::pad(map, half, [0, usize::MAX], isa).is_err());
    assert!(DepthToSpace::new(map, half, 2).is_err());
    assert!(GlobalPoolGrad::new(map, 3, isa).is_err());
    let kernel = MaxPoolGrad::new(spec, map, isa).unwrap();
    let lengths = [map.image(), half.image(), map.image(), kernel.scratch(1)];
    for short in 0..5 {
        let len = |index: usize| lengths[index] - usize::from(index == short);
        let io = MaxPoolGradIo {
            input: &vec![0.0_f32; len(0)],
            grad: &vec![0.0; len(1)],
            result: &mut vec![0.0; len(2)],
            write: Write::Replace,
            scratch: &mut scratch(len(3)),
        };
        assert_eq!(kernel.run(&pool, 1, io).is_err(), short < 4);
    }
    let spread = SpreadGrad::blur_pool(half, map, isa).unwrap();
    let mut dx = vec![0.0_f32; 128];
    assert!(spread.run(&pool, 1, &[0.0; 31], &mut dx, Write::Add).is_err());
    assert!(spread.run(&pool, 1, &[0.0; 32], &mut dx[1..], Write::Add).is_err());
    assert!(spread.run(&pool, 2, &[0.0; 64], &mut dx, Write::Add).is_err());
    let global = GlobalPoolGrad::new(map, 1, isa).unwrap();
    assert!(global.run(&pool, 1, &[0.0; 7], &mut dx, Write::Add).is_err());
    let depth = DepthToSpace::new(Map::new(2, 2, 32), map, 2).unwrap();
    assert!(depth.run(&pool, 1, &[0.0; 127], &mut dx).is_err());
}
