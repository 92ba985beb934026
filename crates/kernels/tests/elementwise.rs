//! Element-wise kernels against plain loops, on every level that this processor has.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod maps;

use cardinal_kernels::*;
use maps::*;
use proptest::prelude::*;

/// All activations grow at most as fast as 1.1 times their argument; the vector `exp` is good to about one unit, and
/// the functions around it to a few.
fn tolerance(magnitude: f64) -> f64 {
    8.0 * f64::from(f32::EPSILON) * (1.0 + magnitude)
}

fn activation() -> impl Strategy<Value = Activation> {
    use Activation::*;
    prop::sample::select(vec![Identity, Relu, LeakyRelu(0.01), Relu6, Sigmoid, Silu, HardSigmoid, HardSwish])
}

#[derive(Clone, Debug)]
struct Case {
    way: Way,
    size: [usize; 3],
    halos: [Halo; 3],
    activation: Activation,
    in_place: bool,
}

fn case() -> impl Strategy<Value = Case> {
    let size = (1..10_usize, 1..14_usize, channels()).prop_map(|(h, w, c)| [h, w, c]);
    (way(), size, [halo(), halo(), halo()], activation(), any::<bool>())
        .prop_map(|(way, size, halos, activation, in_place)| Case { way, size, halos, activation, in_place })
}

impl Case {
    fn map(&self, which: usize) -> Map {
        let which = if self.in_place { 2 } else { which };
        Map::new(self.size[0], self.size[1], self.size[2]).with_halo(self.halos[which])
    }
}

/// The kinds of the second operand.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Map,
    PerImage,
    PerChannel,
    Scalar,
}

fn map2<T: Element>(case: &Case, binary: Binary, kind: Kind, swapped: bool) {
    let (way, c) = (&case.way, case.size[2]);
    let mut random = way.random();
    let (a_map, b_map, y_map) = (case.map(0), case.map(1), case.map(2));
    let a = way.map::<T>(&a_map, &mut random);
    let b = way.map::<T>(&b_map, &mut random);
    let per_channel = random.numbers(c);
    let per_image = random.numbers(way.images * c);
    let mut per_image_slice = way.vector(&per_image);
    let side = match kind {
        Kind::Map => Side::Map(b_map),
        Kind::PerImage => Side::PerImage,
        Kind::PerChannel => Side::PerChannel(per_channel.clone()),
        Kind::Scalar => Side::Scalar(per_channel[0]),
    };
    for &isa in levels() {
        let mut y = Images::filled(way, &y_map, 7.0);
        if case.in_place {
            y = a.clone();
        }
        let sides = (Side::Map(a_map), side.clone());
        let sides = if swapped { (sides.1, sides.0) } else { sides };
        let kernel = Map2::new(binary, sides.0, sides.1, y_map, case.activation, isa).unwrap();
        for part in way.bands(y_map.h) {
            let before = y.clone();
            let first = if case.in_place { Operand::Output } else { Operand::Map(a.slice()) };
            let second = match kind {
                Kind::Map => Operand::Map(b.slice()),
                Kind::PerImage => Operand::PerImage(&*per_image_slice.slice()),
                Kind::PerChannel | Kind::Scalar => Operand::Constant,
            };
            let (left, right) = if swapped { (second, first) } else { (first, second) };
            kernel.run(way.pool(), &part, left, right, y.slice_mut()).unwrap();
            y.check(&part, &before, |[image, row, x, k]| {
                let first = a.get(image, row, x, k);
                let second = match kind {
                    Kind::Map => b.get(image, row, x, k),
                    Kind::PerImage => f64::from(per_image[image * c + k]),
                    Kind::PerChannel => f64::from(per_channel[k]),
                    Kind::Scalar => f64::from(per_channel[0]),
                };
                let (l, r) = if swapped { (second, first) } else { (first, second) };
                let value = match binary {
                    Binary::Add => l + r,
                    Binary::Sub => l - r,
                    Binary::Mul => l * r,
                };
                let value = f64::from(case.activation.eval(value as f32));
                (value, tolerance(l.abs() + r.abs() + value.abs()))
            });
        }
    }
}

fn affine<T: Element>(case: &Case) {
    let (way, c) = (&case.way, case.size[2]);
    let mut random = way.random();
    let (x_map, y_map) = (case.map(0), case.map(2));
    let x = way.map::<T>(&x_map, &mut random);
    let (scale, shift) = (random.numbers(c), random.numbers(c));
    for &isa in levels() {
        let affine = Affine::new(x_map, y_map, &scale, &shift, case.activation, isa).unwrap();
        let activate = Activate::new(x_map, y_map, case.activation, isa).unwrap();
        let start = if case.in_place { x.clone() } else { Images::filled(way, &y_map, 7.0) };
        let (mut y, mut z) = (start.clone(), start);
        let input = (!case.in_place).then_some(x.slice());
        for part in way.bands(y_map.h) {
            let before = y.clone();
            affine.run(way.pool(), &part, input, y.slice_mut()).unwrap();
            y.check(&part, &before, |[image, row, column, k]| {
                let product = x.get(image, row, column, k) * f64::from(scale[k]);
                let value = product + f64::from(shift[k]);
                let magnitude = product.abs() + f64::from(shift[k].abs());
                (f64::from(case.activation.eval(value as f32)), tolerance(magnitude))
            });
            let before = z.clone();
            activate.run(way.pool(), &part, input, z.slice_mut()).unwrap();
            z.check(&part, &before, |[image, row, column, k]| {
                let x = x.get(image, row, column, k);
                (f64::from(case.activation.eval(x as f32)), tolerance(x.abs()))
            });
        }
    }
}

proptest! {
    #![proptest_config(common::cases(96))]

    #[test]
    fn binary_operations_follow_the_definition(
        case in case(),
        binary in prop::sample::select(vec![Binary::Add, Binary::Sub, Binary::Mul]),
        kind in prop::sample::select(vec![Kind::Map, Kind::PerImage, Kind::PerChannel, Kind::Scalar]),
        swapped in any::<bool>(),
    ) {
        both_formats!(map2(&case, binary, kind, swapped));
    }

    #[test]
    fn affine_maps_and_activations_follow_the_definition(case in case()) {
        both_formats!(affine(&case));
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let (isa, pool) = (Isa::best(), Pool::new(1, false));
    let (map, other) = (Map::new(4, 4, 8), Map::new(4, 5, 8));
    let identity = Activation::Identity;
    assert!(Map2::new(Binary::Add, Side::Map(map), Side::Map(other), map, identity, isa).is_err());
    assert!(Map2::new(Binary::Add, Side::Scalar(1.0), Side::PerImage, map, identity, isa).is_err());
    assert!(
        Map2::new(Binary::Add, Side::Map(map), Side::PerChannel(vec![0.0; 7]), map, identity, isa).is_err()
    );
    assert!(Affine::new(map, map, &[0.0; 8], &[0.0; 9], identity, isa).is_err());
    let huge = Map::new(usize::MAX / 2, usize::MAX / 2, 4);
    assert!(Activate::new(huge, huge, identity, isa).is_err());
    let kernel = Activate::new(map, map, identity, isa).unwrap();
    let mut y = vec![0.0_f32; map.image()];
    assert!(kernel.run(&pool, &Part::whole(1, 4), Some(&y.clone()[1..]), &mut y).is_err());
    assert!(kernel.run(&pool, &Part::whole(2, 4), None, &mut y).is_err());
    assert!(kernel.run(&pool, &Part::whole(usize::MAX, 4), None, &mut y).is_err());
    assert!(kernel.run(&pool, &Part::whole(1, 5), None, &mut y).is_err());
    assert!(kernel.run(&pool, &Part::whole(1, 4), None, &mut y).is_ok());
    let sum = Map2::new(Binary::Add, Side::Map(map), Side::PerImage, map, identity, isa).unwrap();
    let x = y.clone();
    let run = |left, right, y: &mut [f32]| sum.run(&pool, &Part::whole(1, 4), left, right, y);
    assert!(run(Operand::Map(&x), Operand::Constant, &mut y).is_err());
    assert!(run(Operand::Constant, Operand::PerImage(&x), &mut y).is_err());
    assert!(run(Operand::Map(&x), Operand::PerImage(&x[..7]), &mut y).is_err());
    assert!(run(Operand::Map(&x), Operand::PerImage(&x), &mut y).is_ok());
}
