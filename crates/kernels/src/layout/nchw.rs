//! From and to a framework's order, channel by channel: `[images, channels, rows, columns]`.
//!
//! Both go through a small buffer, 64 pixels of 16 channels at most, which is transposed in plain loops in `f32` and
//! read or written as vectors on its other side.

use super::copy::convert;
use crate::simd::{Kernel, Simd};
use crate::work::{In, Out, Work, check_length, check_map, check_part};
use crate::{Element, Isa, KernelError, Map, Part, Pool};
use std::ptr::null;

const NCHW: &str = "layout";

/// Pixels and channels of the buffer.
const PIXELS: usize = 64;
const CHANNELS: usize = 16;

/// Brings `f32` images `[images, c, h, w]` into maps, each channel as `x * scale + shift` if wanted, and with squares
/// of pixels moved into channels if wanted ([`SpaceToDepth`](super::SpaceToDepth) by `block`).
#[derive(Clone, Debug)]
pub struct FromNchw {
    /// Channels of the images.
    c: usize,
    output: Map,
    block: usize,
    /// A scale and a shift for each channel, or nothing.
    affine: Vec<[f32; 2]>,
    isa: Isa,
}

impl FromNchw {
    /// Images of `output.c` channels, as large as the maps.
    ///
    /// # Errors
    ///
    /// The map is empty.
    pub fn new(output: Map, isa: Isa) -> Result<Self, KernelError> {
        Self::with_block(output, 1, isa)
    }

    /// Images `block` times as high and wide as the maps, with `output.c / block^2` channels.
    ///
    /// # Errors
    ///
    /// The channels are not a multiple of the square of `block`, or the block is larger than 16.
    pub fn with_block(output: Map, block: usize, isa: Isa) -> Result<Self, KernelError> {
        check_map(NCHW, &output)?;
        if !(1..=16).contains(&block) || !output.c.is_multiple_of(block * block) {
            let reason = format!("{} channels from blocks of {block}x{block}", output.c);
            return Err(KernelError::spec(NCHW, reason));
        }
        Ok(Self { c: output.c / (block * block), output, block, affine: Vec::new(), isa })
    }

    /// The same, and each channel of the images is scaled and shifted.
    ///
    /// # Errors
    ///
    /// A slice has not a number for each channel.
    pub fn with_affine(self, scale: &[f32], shift: &[f32]) -> Result<Self, KernelError> {
        for (operand, found) in [("scale", scale.len()), ("shift", shift.len())] {
            if found != self.c {
                return Err(KernelError::Length { kernel: NCHW, operand, found, expected: self.c });
            }
        }
        Ok(Self { affine: scale.iter().zip(shift).map(|(&a, &b)| [a, b]).collect(), ..self })
    }

    /// Fills the rows of `part`.
    ///
    /// # Errors
    ///
    /// A slice is too short.
    pub fn run<T: Element>(
        &self,
        pool: &Pool,
        part: &Part,
        input: &[f32],
        output: &mut [T],
    ) -> Result<(), KernelError> {
        let (map, block, c) = (&self.output, self.block, self.c);
        check_part(NCHW, part, map.h)?;
        let plane = map.h * map.w * block * block;
        check_length(NCHW, "input", input.len(), part.images, c * plane)?;
        check_length(NCHW, "output", output.len(), part.images, map.image())?;
        let (x, y) = (In::new(input), Out::new(output));
        let work = Work::new(pool, part, map, map.c * size_of::<f32>());
        work.run(pool, |share| {
            for segment in share {
                for dy in 0..block {
                    let row = (segment.y * block + dy) * map.w * block + segment.x * block;
                    // SAFETY: the lengths were checked, so the pixels lie in both slices, and each output is written
                    // by one worker.
                    unsafe {
                        T::gather(
                            self.isa,
                            Gather {
                                x: x.at(segment.image * c * plane + row),
                                plane,
                                affine: if self.affine.is_empty() { null() } else { self.affine.as_ptr() },
                                y: y.at(segment.start(map) + dy * block * c),
                                pixels: segment.pixels * block,
                                c,
                                block,
                                pitch: map.c,
                            },
                        );
                    }
                }
            }
        });
        Ok(())
    }
}

/// Neighbouring pixels of a row of the images.
pub struct Gather<T> {
    /// In the first plane.
    x: *const f32,
    /// From one channel to the next.
    plane: usize,
    /// Null, or one for each channel.
    affine: *const [f32; 2],
    y: *mut T,
    pixels: usize,
    c: usize,
    /// Pixels whose channels follow one another in `y`.
    block: usize,
    /// From one block to the next in `y`.
    pitch: usize,
}

// SAFETY of the blocks below: the caller of `Kernel::run` promises that `x` is valid for `pixels` numbers in each of
// `c` planes, and `y` for `pixels / block` pieces of `block * c` numbers that no other thread touches. The buffers hold
// `PIXELS * CHANNELS` numbers, and `some` is called for at most so many.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Kernel for Gather<T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // Whole blocks.
        let step = PIXELS / self.block * self.block;
        let mut pixel = 0;
        unsafe {
            while pixel < self.pixels {
                let pixels = step.min(self.pixels - pixel);
                let mut k = 0;
                while k < self.c {
                    let channels = CHANNELS.min(self.c - k);
                    // The count as a constant lets the compiler vectorise the transposition.
                    match channels {
                        3 => self.some::<S, 3>(pixel, pixels, k),
                        CHANNELS => self.some::<S, CHANNELS>(pixel, pixels, k),
                        _ => (0..channels).for_each(|i| self.some::<S, 1>(pixel, pixels, k + i)),
                    }
                    k += channels;
                }
                pixel += pixels;
            }
        }
    }
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Gather<T> {
    /// `C` channels from `k` of `pixels` pixels, whole blocks.
    #[inline(always)]
    unsafe fn some<S: Simd, const C: usize>(&self, pixel: usize, pixels: usize, k: usize) {
        let mut numbers = [[0.0_f32; C]; PIXELS];
        unsafe {
            for i in 0..C {
                let x = std::slice::from_raw_parts(self.x.add((k + i) * self.plane + pixel), pixels);
                let [scale, shift] = if self.affine.is_null() { [1.0, 0.0] } else { *self.affine.add(k + i) };
                for (to, x) in numbers.iter_mut().zip(x) {
                    to[i] = x * scale + shift;
                }
            }
            let mut converted = [[T::default(); C]; PIXELS];
            convert::<S, f32, T>(numbers.as_ptr().cast(), converted.as_mut_ptr().cast(), pixels * C);
            let y = self.y.add(pixel / self.block * self.pitch);
            let from = converted.as_ptr().cast::<T>();
            if C == self.c {
                // A block is contiguous, and without blocks everything is.
                let piece = self.block * C;
                if piece == self.pitch {
                    std::ptr::copy_nonoverlapping(from, y, pixels * C);
                    return;
                }
                for i in 0..pixels / self.block {
                    std::ptr::copy_nonoverlapping(from.add(i * piece), y.add(i * self.pitch), piece);
                }
            } else {
                for i in 0..pixels {
                    let to = y.add(i / self.block * self.pitch + i % self.block * self.c + k);
                    std::ptr::copy_nonoverlapping(from.add(i * C), to, C);
                }
            }
        }
    }
}

/// Brings maps into `f32` images `[images, c, h, w]`.
#[derive(Clone, Debug)]
pub struct ToNchw {
    input: Map,
    isa: Isa,
}

impl ToNchw {
    /// From maps of `input`.
    ///
    /// # Errors
    ///
    /// The map is empty.
    pub fn new(input: Map, isa: Isa) -> Result<Self, KernelError> {
        check_map(NCHW, &input)?;
        Ok(Self { input, isa })
    }

    /// Fills the rows of `part`.
    ///
    /// # Errors
    ///
    /// A slice is too short.
    pub fn run<T: Element>(
        &self,
        pool: &Pool,
        part: &Part,
        input: &[T],
        output: &mut [f32],
    ) -> Result<(), KernelError> {
        let map = &self.input;
        let plane = map.h * map.w;
        check_part(NCHW, part, map.h)?;
        check_length(NCHW, "input", input.len(), part.images, map.image())?;
        check_length(NCHW, "output", output.len(), part.images, map.c * plane)?;
        let (x, y) = (In::new(input), Out::new(output));
        let work = Work::new(pool, part, map, map.c * size_of::<f32>());
        work.run(pool, |share| {
            for segment in share {
                // SAFETY: the lengths were checked, so the pixels lie in both slices, and each output is written by one
                // worker.
                unsafe {
                    T::scatter(
                        self.isa,
                        Scatter {
                            x: x.at(segment.start(map)),
                            y: y.at(segment.image * map.c * plane + segment.y * map.w + segment.x),
                            plane,
                            pixels: segment.pixels,
                            c: map.c,
                        },
                    );
                }
            }
        });
        Ok(())
    }
}

/// Neighbouring pixels of a row of a map.
pub struct Scatter<T> {
    x: *const T,
    /// In the first plane.
    y: *mut f32,
    plane: usize,
    pixels: usize,
    c: usize,
}

// SAFETY of the blocks below: the caller of `Kernel::run` promises that `x` is valid for `pixels * c` numbers, and `y`
// for `pixels` numbers in each of `c` planes, which no other thread touches; the buffer holds `PIXELS * CHANNELS`.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Kernel for Scatter<T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut numbers = [[0.0_f32; CHANNELS]; PIXELS];
        let mut pixel = 0;
        while pixel < self.pixels {
            let pixels = PIXELS.min(self.pixels - pixel);
            let mut k = 0;
            while k < self.c {
                let channels = CHANNELS.min(self.c - k);
                unsafe {
                    for (i, to) in numbers[..pixels].iter_mut().enumerate() {
                        let x = self.x.add((pixel + i) * self.c + k);
                        convert::<S, T, f32>(x, to.as_mut_ptr(), channels);
                    }
                    for i in 0..channels {
                        let y = self.y.add((k + i) * self.plane + pixel);
                        let y = std::slice::from_raw_parts_mut(y, pixels);
                        for (y, x) in y.iter_mut().zip(&numbers) {
                            *y = x[i];
                        }
                    }
                }
                k += channels;
            }
            pixel += pixels;
        }
    }
}
