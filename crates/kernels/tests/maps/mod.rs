//! What the tests of the kernels on maps share: random maps with poisoned halos, and a check of every output.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::print_stdout, reason = "levels that could not run are shown")]
#![allow(clippy::single_range_in_vec_init, reason = "bands of rows, of which there may be one")]

use cardinal_kernels::{Element, Halo, Isa, Level, Line, Map, Part, Pool};
use proptest::prelude::*;
use std::sync::{Mutex, Once, PoisonError};

/// Uniform numbers from a linear congruential generator.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// From -2 to 2.
    pub(crate) fn number(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 22) as f32 - 2.0
    }

    pub(crate) fn numbers(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.number()).collect()
    }
}

/// How a case is run, whatever the kernel.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) images: usize,
    pub(crate) threads: usize,
    pub(crate) seed: u64,
    /// Elements that every slice starts behind an aligned address.
    pub(crate) shift: usize,
    /// Share of the rows that the first of two bands has; 1 for a single band.
    pub(crate) cut: f64,
}

pub(crate) fn way() -> impl Strategy<Value = Way> {
    let cut = prop_oneof![Just(1.0), 0.0..1.0];
    (1..4_usize, 1..5_usize, any::<u64>(), 0..2_usize, cut)
        .prop_map(|(images, threads, seed, shift, cut)| Way { images, threads, seed, shift, cut })
}

impl Way {
    pub(crate) fn random(&self) -> Random {
        Random(self.seed)
    }

    /// The bands of a map of `h` rows.
    pub(crate) fn bands(&self, h: usize) -> Vec<Part> {
        let cut = ((h as f64 * self.cut) as usize).min(h);
        let bands = if cut == h { vec![0..h] } else { vec![0..cut, cut..h] };
        bands.into_iter().map(|rows| Part { images: self.images, rows }).collect()
    }

    pub(crate) fn pool(&self) -> &'static Pool {
        static POOLS: Mutex<[Option<&'static Pool>; 8]> = Mutex::new([None; 8]);
        let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
        pools[self.threads].get_or_insert_with(|| Box::leak(Box::new(Pool::new(self.threads, false))))
    }

    /// Random images of `map`, NaN in the halo, shifted.
    pub(crate) fn map<T: Element>(&self, map: &Map, random: &mut Random) -> Images<T> {
        let mut images = Images::filled(self, map, f32::NAN);
        for image in 0..self.images {
            for y in 0..map.h {
                for x in 0..map.w {
                    for k in 0..map.c {
                        images.set(image, y as isize, x as isize, k, random.number());
                    }
                }
            }
        }
        images
    }

    /// A shifted vector.
    pub(crate) fn vector(&self, numbers: &[f32]) -> Shifted {
        let mut data = vec![f32::NAN; self.shift];
        data.extend_from_slice(numbers);
        Shifted { data, shift: self.shift }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Shifted {
    data: Vec<f32>,
    shift: usize,
}

impl Shifted {
    pub(crate) fn slice(&mut self) -> &mut [f32] {
        &mut self.data[self.shift..]
    }
}

/// Images of a map.
#[derive(Clone, Debug)]
pub(crate) struct Images<T> {
    pub(crate) map: Map,
    images: usize,
    data: Vec<T>,
    shift: usize,
}

impl<T: Element> Images<T> {
    pub(crate) fn filled(way: &Way, map: &Map, value: f32) -> Self {
        let data = vec![T::from_f32(value); way.images * map.image() + way.shift];
        Self { map: *map, images: way.images, data, shift: way.shift }
    }

    pub(crate) fn slice(&self) -> &[T] {
        &self.data[self.shift..]
    }

    pub(crate) fn slice_mut(&mut self) -> &mut [T] {
        &mut self.data[self.shift..]
    }

    pub(crate) fn set(&mut self, image: usize, y: isize, x: isize, k: usize, value: f32) {
        let at = self.shift + image * self.map.image() + self.map.at(y, x) + k;
        self.data[at] = T::from_f32(value);
    }

    pub(crate) fn get(&self, image: usize, y: usize, x: usize, k: usize) -> f64 {
        let at = image * self.map.image() + self.map.at(y as isize, x as isize) + k;
        f64::from(self.slice()[at].to_f32())
    }

    /// Zeroes the halo.
    pub(crate) fn padded(mut self) -> Self {
        for at in self.shift..self.data.len() {
            if self.place(at - self.shift).is_none() {
                self.data[at] = T::default();
            }
        }
        self
    }

    /// Image, row, column and channel of element `at`, unless it lies in the halo.
    pub(crate) fn place(&self, at: usize) -> Option<[usize; 4]> {
        let Map { h, w, c, halo } = self.map;
        let (image, at) = (at / self.map.image(), at % self.map.image());
        let (y, at) = (at / self.map.row(), at % self.map.row());
        let y = y.checked_sub(halo.top).filter(|&y| y < h)?;
        let x = (at / c).checked_sub(halo.left).filter(|&x| x < w)?;
        Some([image, y, x, at % c])
    }

    /// Checks that the rows of `part` hold what `expected` says for `[image, row, column, channel]`: a number and by
    /// how much it may be off before it is rounded to `T`. Everything else must be as in `before`.
    pub(crate) fn check(&self, part: &Part, before: &Self, expected: impl Fn([usize; 4]) -> (f64, f64)) {
        for (at, (found, was)) in self.data.iter().zip(&before.data).enumerate() {
            let place = at.checked_sub(self.shift).and_then(|at| self.place(at));
            match place.filter(|place| place[0] < part.images && part.rows.contains(&place[1])) {
                Some(place) => {
                    let (value, tolerance) = expected(place);
                    let found = f64::from(found.to_f32());
                    // Half a unit in the last place; a little more, because a number may be off across a tie.
                    let rounding =
                        if size_of::<T>() == 2 { 0.502 / 128.0 * (value.abs() + tolerance) } else { 0.0 };
                    let off = (found - value).abs();
                    assert!(
                        off <= tolerance + rounding,
                        "{place:?}: {found}, not {value} ({off:e} > {tolerance:e})"
                    );
                }
                None => {
                    let (found, was) = (found.to_f32().to_bits(), was.to_f32().to_bits());
                    assert_eq!(found, was, "element {at}, {place:?}, was overwritten");
                }
            }
        }
    }
}

pub(crate) fn halo() -> impl Strategy<Value = Halo> {
    let some = (0..3_usize, 0..3_usize, 0..3_usize, 0..3_usize).prop_map(|(top, left, bottom, right)| Halo {
        top,
        left,
        bottom,
        right,
    });
    prop_oneof![Just(Halo::default()), some]
}

/// Channel counts: mostly small, some of several vectors with and without a rest.
pub(crate) fn channels() -> impl Strategy<Value = usize> {
    prop_oneof![1..20_usize, prop::sample::select(vec![24, 32, 33, 48, 63, 64, 80, 129])]
}

/// Every level of this processor; says once which levels are not tested.
pub(crate) fn levels() -> &'static [Isa] {
    static SAY: Once = Once::new();
    SAY.call_once(|| {
        let missing: Vec<_> = Level::ALL.into_iter().filter(|&level| Isa::get(level).is_none()).collect();
        let missing: Vec<_> = missing.iter().map(|level| level.name()).collect();
        println!("not tested, because this processor lacks them: {}", missing.join(", "));
    });
    Isa::available()
}

pub(crate) fn scratch(lines: usize) -> Vec<Line> {
    vec![Line::ZERO; lines]
}

/// Rounding errors of a sum of `terms` numbers whose magnitudes add up to `magnitude`: half a unit for each, the
/// textbook bound, and as much again for the reference's own roundings to `f32`.
pub(crate) fn sum_tolerance(terms: usize, magnitude: f64) -> f64 {
    (terms + 2) as f64 * f64::from(f32::EPSILON) * magnitude
}

/// Calls a generic test for both formats.
macro_rules! both_formats {
    ($test:ident($($argument:expr),*)) => {
        $test::<f32>($($argument),*);
        $test::<cardinal_kernels::Bf16>($($argument),*);
    };
}
pub(crate) use both_formats;

/// A number as the format keeps it.
pub(crate) fn rounded<T: Element>(x: f32) -> f64 {
    f64::from(T::from_f32(x).to_f32())
}
