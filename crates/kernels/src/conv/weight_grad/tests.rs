//! The gradient on emulated tiles with the vectors of every level, and on the processor's own where it has them, against
//! the definition.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../tests/windows/mod.rs"]
mod random;

use super::amx::OnTiles;
use super::windows::{BLOCK, BLOCKS};
use super::*;
use crate::conv::amx::software::Software;
use crate::conv::amx::tests::common;
use crate::simd::{Kernel, Simd};
use crate::x86::amx::{TILE, Tiles, paired};
use crate::{Bf16, Level};
use proptest::prelude::*;
use random::{Numbers, each_product, spec, specs};
use std::marker::PhantomData;

const NAN: Bf16 = Bf16(0x7fc1);

struct Case {
    spec: ConvSpec,
    images: usize,
    input: Vec<Bf16>,
    grad: Vec<Bf16>,
}

impl Case {
    /// Numbers in all pixels that count: the padding is zero, and what is beside an output NaN.
    fn new(spec: ConvSpec, images: usize, seed: u64) -> Self {
        let mut input = vec![Bf16::default(); images * spec.input.image()];
        let mut grad = vec![NAN; images * spec.output.image()];
        each_product(&spec, images, |to, from, _| {
            input[from] = Bf16(1);
            grad[to] = Bf16(1);
        });
        let mut numbers = Numbers(seed);
        for x in input.iter_mut().chain(&mut grad).filter(|x| **x == Bf16(1)) {
            *x = numbers.vec(1)[0];
        }
        // Pixels whose window is padding alone.
        for image in 0..images {
            for (y, x) in (0..spec.output.h).flat_map(|y| (0..spec.output.w).map(move |x| (y, x))) {
                let at = image * spec.output.image() + spec.output.at(y as isize, x as isize);
                let pixel = &mut grad[at..][..spec.output.c];
                pixel.iter_mut().filter(|x| **x == NAN).for_each(|x| *x = Bf16::default());
            }
        }
        Self { spec, images, input, grad }
    }

    fn run<K: Tiles>(&self, isa: Isa, threads: usize) -> Vec<f32> {
        let kernel = ByWindows::new(&self.spec, isa, Product::Tiles).unwrap();
        let pool = Pool::new(threads, false);
        let mut scratch = vec![Line::ZERO; kernel.scratch(threads)];
        // A line of 0xff is NaN in every format.
        crate::as_bf16_mut(&mut scratch).fill(Bf16(0xffff));
        let mut weight = vec![f32::NAN; self.spec.weights()];
        // Slices start at an odd element, between numbers that must not be read.
        let [input, grad] = [&self.input, &self.grad].map(|map| [&[NAN][..], map, &[NAN; 64]].concat());
        let io = WeightGradIo {
            input: &input[1..=self.input.len()],
            grad: &grad[1..=self.grad.len()],
            weight: &mut weight,
            scratch: &mut scratch,
        };
        kernel.gradient::<Bf16, OnTiles<K>>(&pool, self.images, io);
        weight
    }

    /// Compares with the definition, on emulated tiles with the vectors of each level.
    fn check(&self, threads: usize) {
        let mut expected = vec![(0.0, 0.0); self.spec.weights()];
        each_product(&self.spec, self.images, |to, from, tap| {
            let product = f64::from(self.input[from].to_f32()) * f64::from(self.grad[to].to_f32());
            expected[tap].0 += product;
            expected[tap].1 += product.abs();
        });
        let alone = self.run::<Software>(Isa::best(), 1);
        for (index, (found, (sum, magnitude))) in alone.iter().zip(&expected).enumerate() {
            let error = (f64::from(*found) - sum).abs();
            assert!(error <= 2e-5 * magnitude + 1e-6, "weight {index}: {found}, not {sum}; {:?}", self.spec);
        }
        for &isa in Isa::available() {
            assert_eq!(
                self.run::<Software>(isa, threads),
                alone,
                "{isa}, {threads} threads; {:?}",
                self.spec
            );
        }
        if let Some(isa) = Isa::get(Level::Amx) {
            assert_eq!(self.run::<Hardware>(isa, threads), alone, "real and emulated tiles; {:?}", self.spec);
        }
    }
}

/// Square windows.
fn window(kernel: usize, stride: usize) -> ([usize; 2], [usize; 2], [usize; 2]) {
    ([kernel; 2], [stride; 2], [1; 2])
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 100, ..common::cases(100) })]

    #[test]
    fn any_gradient_is_the_definition(spec in specs(), images in 1_usize..4, threads in 1_usize..5, seed: u64) {
        // Emulation takes microseconds for a product.
        prop_assume!(spec.macs() * images < 2_000_000);
        Case::new(spec, images, seed).check(threads);
    }
}

#[test]
fn layers_in_small() {
    for (size, channels, window, padding, images) in [
        // A stem, whole and odd tiles and panels, narrow ones, groups, one pixel.
        ([14, 14], [1, 3, 32], window(7, 2), 3, 1),
        ([14, 14], [1, 64, 64], window(3, 1), 1, 1),
        ([9, 11], [1, 40, 56], window(1, 1), 0, 2),
        ([7, 7], [1, 48, 16], window(3, 2), 1, 3),
        ([12, 12], [1, 16, 48], window(1, 1), 0, 2),
        ([8, 8], [4, 4, 4], window(3, 1), 1, 2),
        ([8, 8], [2, 33, 17], window(3, 1), 1, 1),
        ([1, 1], [1, 96, 40], window(1, 1), 0, 1),
        ([1, 1], [1, 96, 40], window(1, 1), 0, 33),
    ] {
        Case::new(spec(size, channels, window, [padding; 2], 1), images, 7).check(3);
    }
}

#[test]
fn several_stretches_parts_and_chunks() {
    let case = |size, channels, images| {
        let spec = spec(size, channels, window(1, 1), [0; 2], 0);
        let plan = ByWindows::new(&spec, Isa::best(), Product::Tiles).unwrap();
        (Case::new(spec, images, 3), plan)
    };
    let (many_pixels, plan) = case([75, 60], [1, 20, 24], 1);
    assert!(plan.parts == BLOCKS && plan.blocks() * BLOCK < 75 * 60, "several parts and stretches");
    many_pixels.check(2);
    let (few_blocks, plan) = case([20, 30], [1, 200, 40], 1);
    assert!((3..BLOCKS).contains(&plan.parts), "parts without a block");
    few_blocks.check(4);
    let (many_outputs, plan) = case([9, 9], [1, 40, 1100], 8);
    assert!(plan.chunks(1) == 2 && plan.parts == 1 && plan.blocks() * BLOCK < 8 * 81, "chunks");
    many_outputs.check(2);
}

#[test]
fn tiles_are_for_bf16() {
    for &isa in Isa::available() {
        let amx = isa.level() == Level::Amx;
        assert_eq!(Product::of(DType::Bf16, isa) == Product::Tiles, amx);
        assert_eq!(Product::of(DType::F32, isa), Product::Vectors);
    }
}

/// What packing writes, with numbers behind it that must stay.
struct Packed<'a, K> {
    rows: &'a [u16],
    counts: [usize; 2],
    tiles: PhantomData<K>,
}

impl<K: Tiles> Kernel for Packed<'_, K> {
    type Output = [Vec<u16>; 3];

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> Self::Output {
        let mut to = [(); 3].map(|()| vec![0xabcd; 2 * TILE]);
        let mut offsets = [0; 32];
        offsets.iter_mut().enumerate().for_each(|(i, offset)| *offset = i * 7 % 32 * 17);
        // SAFETY: the rows hold 32 times 17 numbers, and there is room for two tiles.
        unsafe {
            let rows = [self.rows.as_ptr(), self.rows.as_ptr().add(33)];
            K::interleave::<true>(to[0].as_mut_ptr(), rows, self.counts);
            K::interleave::<false>(to[1].as_mut_ptr(), rows, self.counts);
            K::transpose(to[2].as_mut_ptr(), self.rows.as_ptr(), &offsets);
        }
        to
    }
}

#[test]
fn real_packing_does_what_the_emulated_does() {
    let rows: Vec<u16> = Numbers(5).vec::<Bf16>(32 * 17).into_iter().map(|x| x.0).collect();
    for counts in [[32, 32], [32, 0], [0, 0], [16, 16], [7, 7], [21, 21], [5, 0]] {
        let packed = |isa: Isa, real: bool| {
            // SAFETY: real packing is called on levels with AVX-512 alone.
            unsafe {
                if real {
                    isa.call(Packed { rows: &rows, counts, tiles: PhantomData::<Hardware> })
                } else {
                    isa.call(Packed { rows: &rows, counts, tiles: PhantomData::<Software> })
                }
            }
        };
        let emulated = packed(Isa::best(), false);
        for pair in 0..32 {
            let of = |i: usize| if pair < counts[i] { rows[33 * i + pair] } else { 0 };
            let at = paired(pair, true);
            let at = at / 16 * TILE + at % 16 * 2;
            assert_eq!(emulated[0][at..at + 2], [of(0), of(1)], "pair {pair}");
        }
        for column in 0..16 {
            let expected: Vec<u16> = (0..32).map(|i| rows[i * 7 % 32 * 17 + column]).collect();
            assert_eq!(emulated[2][column * 32..][..32], expected, "column {column}");
        }
        for level in [Level::Avx512, Level::Avx512Bf16, Level::Amx] {
            if let Some(isa) = Isa::get(level) {
                assert_eq!(packed(isa, true), emulated, "{isa}, {counts:?}");
            }
        }
    }
}
