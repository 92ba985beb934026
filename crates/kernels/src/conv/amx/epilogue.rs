//! What follows the products: bias, residual, activation, sums for the means, bf16.

use super::share::{ACC_PIXEL, Share};
use super::steps::{PANEL, Panel};
use super::walk::{At, ROWS, Spot};
use crate::simd::Simd;
use crate::x86::amx::Tiles;
use crate::{Activation, Bf16};

/// A pair of tiles whose accumulators wait for their epilogue.
#[derive(Clone, Copy)]
pub(super) struct Pending {
    pub(super) spots: [Spot; 2],
    /// Where the spots' outputs are.
    pub(super) targets: [Target; 2],
    /// Tiles: one or two.
    pub(super) count: usize,
    pub(super) panel: usize,
    pub(super) acc: *const f32,
}

/// An output pixel: its image, and the elements where it begins.
#[derive(Clone, Copy, Default)]
pub(super) struct Target {
    image: usize,
    output: usize,
    residual: usize,
}

impl<T: Tiles> Share<'_, T> {
    /// The output of a walk's pixel; anything for a pixel between rows.
    #[inline(always)]
    pub(super) fn target(&self, at: At) -> Target {
        let (job, spec) = (self.job, &self.job.conv.spec);
        let (image, pixel) = match job.walk.view.images {
            1 => (at.image, at.pixel),
            images => (at.image + at.pixel % images, at.pixel / images),
        };
        let (y, x) = ((job.rows.start + at.y) as isize, pixel as isize);
        Target {
            image,
            output: image * spec.output.image() + spec.output.at(y, x),
            residual: spec.residual.map_or(0, |map| image * map.image() + map.at(y, x)),
        }
    }

    /// The epilogue of a pair.
    ///
    /// # Safety
    ///
    /// The job's pointers are valid; the accumulators were stored.
    #[inline(always)]
    pub(super) unsafe fn finish<S: Simd>(&self, pair: &Pending) {
        let walk = self.job.walk;
        for tile in 0..pair.count {
            let Spot { mut at, skip: mut row, .. } = pair.spots[tile];
            let mut target = pair.targets[tile];
            while row < walk.tile {
                if at.pixel >= walk.width {
                    row += walk.pitch - at.pixel;
                    at.next_row(walk.rows);
                } else {
                    // A row's pixels are neighbours in the output, unless images are interleaved.
                    let left = if walk.view.images > 1 { 1 } else { walk.width - at.pixel };
                    let count = left.min(walk.tile - row);
                    // SAFETY: the row lies in the buffer, and the outputs among those of the walk.
                    unsafe {
                        let acc = pair.acc.add((tile * ROWS + row) * ACC_PIXEL);
                        self.finish_run::<S>(pair.panel, acc, &target, count);
                    }
                    row += count;
                    at.pixel += count;
                    if at.pixel == walk.pitch {
                        at.next_row(walk.rows);
                    }
                }
                if row < walk.tile {
                    target = self.target(at);
                }
            }
        }
    }

    /// The epilogue of `count` neighbouring pixels.
    ///
    /// # Safety
    ///
    /// `acc` holds the pixels' rows; `target` and the pixels after it are outputs of the pass.
    #[inline(always)]
    unsafe fn finish_run<S: Simd>(&self, panel: usize, acc: *const f32, target: &Target, count: usize) {
        let (job, spec) = (self.job, &self.job.conv.spec);
        let &Panel { first, outputs, .. } = &job.conv.panels[panel];
        // SAFETY: the outputs, the residual and the sums hold the panel's channels of these pixels; a panel's bias is
        // padded to 32.
        unsafe {
            let run = Run {
                acc,
                count,
                channels: spec.output.c,
                bias: job.conv.bias.as_ptr().add(panel * PANEL),
                output: job.output.add(target.output + first),
                residual: job.residual.map(|residual| residual.add(target.residual + first)),
                sums: self.sums_of(target.image).map(|sums| sums.add(first)),
                activation: spec.activation,
            };
            // Activations that cost less than choosing them for each vector.
            match (spec.activation, run.residual.is_some()) {
                (Activation::Identity, false) => run.finish::<S, IDENTITY, false>(outputs),
                (Activation::Identity, true) => run.finish::<S, IDENTITY, true>(outputs),
                (Activation::Relu, false) => run.finish::<S, RELU, false>(outputs),
                (Activation::Relu, true) => run.finish::<S, RELU, true>(outputs),
                (_, false) => run.finish::<S, OTHER, false>(outputs),
                (_, true) => run.finish::<S, OTHER, true>(outputs),
            }
        }
    }

    /// The sums of an image.
    #[inline(always)]
    fn sums_of(&self, image: usize) -> Option<*mut f32> {
        let channels = self.job.conv.spec.output.c;
        let pooled = self.job.pooled?;
        Some(if image == self.shared[0] {
            self.sums
        } else if image == self.shared[1] {
            self.sums.wrapping_add(channels)
        } else {
            pooled.wrapping_add(image * channels)
        })
    }
}

const IDENTITY: u8 = 0;
const RELU: u8 = 1;
const OTHER: u8 = 2;

/// The accumulators of neighbouring pixels, and where they go.
struct Run {
    acc: *const f32,
    count: usize,
    /// From one pixel to the next in the output and the residual.
    channels: usize,
    bias: *const f32,
    output: *mut Bf16,
    residual: Option<*const Bf16>,
    sums: Option<*mut f32>,
    activation: Activation,
}

impl Run {
    /// # Safety
    ///
    /// The pointers are valid for `outputs` channels of each pixel, and the constants say what the fields do; the
    /// processor has the level of `S`.
    #[inline(always)]
    unsafe fn finish<S: Simd, const ACTIVATION: u8, const RESIDUAL: bool>(&self, outputs: usize) {
        let mut column = 0;
        // SAFETY: the columns stay below `outputs`; accumulators and bias have 32.
        unsafe {
            while column + 2 * S::LANES <= outputs {
                self.two::<S, ACTIVATION, RESIDUAL>(column);
                column += 2 * S::LANES;
            }
            while column < outputs {
                self.part::<S, ACTIVATION, RESIDUAL>(column, S::LANES.min(outputs - column));
                column += S::LANES;
            }
        }
    }

    /// Two vectors of each pixel.
    ///
    /// # Safety
    ///
    /// As [`finish`](Self::finish); the columns exist.
    #[inline(always)]
    unsafe fn two<S: Simd, const ACTIVATION: u8, const RESIDUAL: bool>(&self, column: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let bias = [S::load(self.bias.add(column)), S::load(self.bias.add(column + S::LANES))];
            let mut sums = [S::splat(0.0); 2];
            for pixel in 0..self.count {
                let acc = self.acc.add(pixel * ACC_PIXEL + column);
                let at = pixel * self.channels + column;
                let mut low = S::add(S::load(acc), bias[0]);
                let mut high = S::add(S::load(acc.add(S::LANES)), bias[1]);
                if RESIDUAL && let Some(residual) = self.residual {
                    low = S::add(low, S::load_bf16(residual.add(at)));
                    high = S::add(high, S::load_bf16(residual.add(at + S::LANES)));
                }
                low = self.activate::<S, ACTIVATION>(low);
                high = self.activate::<S, ACTIVATION>(high);
                sums = [S::add(sums[0], low), S::add(sums[1], high)];
                S::store_bf16_two(self.output.add(at), low, high);
            }
            if let Some(to) = self.sums {
                for (i, sum) in sums.into_iter().enumerate() {
                    let to = to.add(column + i * S::LANES);
                    S::store(to, S::add(S::load(to), sum));
                }
            }
        }
    }

    /// The first `width` numbers of one vector of each pixel.
    ///
    /// # Safety
    ///
    /// As [`finish`](Self::finish); the columns exist.
    #[inline(always)]
    unsafe fn part<S: Simd, const ACTIVATION: u8, const RESIDUAL: bool>(&self, column: usize, width: usize) {
        // SAFETY: the caller's promise; whole vectors are read of accumulators and bias alone.
        unsafe {
            let bias = S::load(self.bias.add(column));
            let mut sum = S::splat(0.0);
            for pixel in 0..self.count {
                let at = pixel * self.channels + column;
                let mut value = S::add(S::load(self.acc.add(pixel * ACC_PIXEL + column)), bias);
                if RESIDUAL && let Some(residual) = self.residual {
                    value = S::add(value, S::load_bf16_part(residual.add(at), width));
                }
                value = self.activate::<S, ACTIVATION>(value);
                sum = S::add(sum, value);
                S::store_bf16_part(self.output.add(at), value, width);
            }
            if let Some(to) = self.sums {
                let to = to.add(column);
                S::store_part(to, S::add(S::load_part(to, width), sum), width);
            }
        }
    }

    /// # Safety
    ///
    /// The processor has the level of `S`.
    #[inline(always)]
    unsafe fn activate<S: Simd, const ACTIVATION: u8>(&self, x: S::V) -> S::V {
        // SAFETY: the same contract.
        unsafe {
            match ACTIVATION {
                IDENTITY => x,
                RELU => Activation::Relu.apply::<S>(x),
                _ => self.activation.apply::<S>(x),
            }
        }
    }
}
