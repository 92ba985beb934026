//! The gradient of a convolution's weight: `dW[o][i][tap] = sum over pixels of dY[pixel][o] * X[window + tap][i]`.
//!
//! A matrix product whose long axis is the pixels. For each stretch of pixels, whose packed gradients fit the last cache:
//!
//! ```text
//! pack dY                          [block][tile of outputs][pixel][R]        all workers, then they meet
//! for each chunk of tiles, for each panel of W elements of the window:       whoever is free
//!     for each block of the stretch:
//!         pack X                   [pixel][W]                                stays in the first cache
//!         for each tile:           dW[panel][tile][R][W] += dY[tile]ᵀ X[panel]       in registers
//! ```
//!
//! For bf16 on a processor with tile registers, the pixels are packed as tiles and multiplied as they are (`amx.rs`).
//! Everywhere else bf16 is widened as it is packed: also with `vdpbf16ps`, whose pairs of pixels would need another packing
//! on both sides.
//!
//! Elements of a window that lie next to each other in memory (a row of taps with all channels) are one run, which is cut
//! into panels; so a stem of three channels fills its vectors too. Each sum has one owner and a fixed order: the result
//! does not depend on the number of threads.
//!
//! A 3x3 kernel of stride 1 has a faster way (`winograd.rs`): tiles in place of windows, and a quarter of the products.
//!
//! The input may be what came before a norm and its activation, which are then computed again as it is packed, and
//! multiplied as vectors of `f32` in either format.

#[cfg(target_arch = "x86_64")]
mod amx;
mod call;
#[cfg(all(test, target_arch = "x86_64"))]
mod tests;
mod tile;
mod unpack;
mod winograd;
mod work;

use super::direct::window_runs;
use super::method::is_small;
use super::{ConvSpec, LARGEST};
use crate::error::at_least;
#[cfg(target_arch = "x86_64")]
use crate::x86::amx::Hardware;
use crate::{DType, Element, Isa, KernelError, Level, Line, Pool};
use call::Vectors;
use tile::{Ask, Shape};
use winograd::Winograd;

const NAME: &str = "weight gradient";

/// Pixels of a block: a panel and a tile of them fit the first cache (16 and 6 KiB on AVX2, 16 KiB each
/// on AMX).
const BLOCK: usize = 256;

/// Bytes of packed gradients of a stretch, and the most blocks of one. With more of them the workers meet less often.
const STRETCH: usize = 1 << 20;
const BLOCKS: usize = 16;

/// Tiles of packed gradients that share the second cache with a panel: 6 KiB each on AVX2.
const CACHED_TILES: usize = 48;

/// Bytes behind a packed tile: vectors are written whole, and an odd number of lines from one tile to the next spreads
/// them over the sets of the cache.
const SLACK: usize = Line::BYTES;

/// What sums up the pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Product {
    /// Vectors of `f32`.
    Vectors,
    /// Tiles of bf16.
    #[cfg(target_arch = "x86_64")]
    Tiles,
}

impl Product {
    /// The fastest one.
    fn of(dtype: DType, isa: Isa, norm: bool) -> Self {
        // What a norm gives would have to be rounded again.
        let tiles = dtype == DType::Bf16 && isa.level() == Level::Amx && !norm;
        match tiles {
            #[cfg(target_arch = "x86_64")]
            true => Self::Tiles,
            _ => Self::Vectors,
        }
    }

    /// Bytes of a packed number.
    fn bytes(self) -> usize {
        match self {
            Self::Vectors => size_of::<f32>(),
            #[cfg(target_arch = "x86_64")]
            Self::Tiles => DType::Bf16.bytes(),
        }
    }

    /// Pixels that are packed and multiplied together.
    fn step(self) -> usize {
        match self {
            Self::Vectors => 1,
            #[cfg(target_arch = "x86_64")]
            Self::Tiles => amx::STEP,
        }
    }

    /// The most tiles of a chunk.
    fn cached_tiles(self) -> usize {
        match self {
            Self::Vectors => CACHED_TILES,
            #[cfg(target_arch = "x86_64")]
            Self::Tiles => amx::CACHED_TILES,
        }
    }
}

/// The gradient of a convolution's weight.
#[derive(Debug)]
pub struct WeightGrad {
    spec: ConvSpec,
    dtype: DType,
    isa: Isa,
    product: Product,
    shape: Shape,
    panels: Vec<Panel>,
    /// Panels of the same input channels, which are written to the weight together.
    sets: Vec<Vec<usize>>,
    /// Tiles of the outputs of one group.
    tiles: usize,
    /// Parts of each stretch with sums of their own.
    parts: usize,
    /// The slope of the activation that the input is read through.
    norm: Option<f32>,
    /// The way by tiles, where it is the faster one.
    winograd: Option<Winograd>,
}

/// Up to W neighbouring elements of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Panel {
    group: usize,
    /// The first one, from the start of the window.
    offset: usize,
    width: usize,
    /// Its tap, and its channel among those of the group.
    tap: [usize; 2],
    channel: usize,
}

/// The memory of one call.
#[derive(Debug)]
pub struct WeightGradIo<'a, T> {
    /// The input images of the forward pass, or what they were before the norm.
    pub input: &'a [T],
    /// The gradient of the output; its halo is not read.
    pub grad: &'a [T],
    /// The gradient of the weight, `[outputs, inputs / groups, rows, columns]`, which is overwritten.
    pub weight: &'a mut [f32],
    /// Memory for intermediate results.
    pub scratch: &'a mut [Line],
}

/// Where the parts of the scratch memory begin, in lines.
#[derive(Clone, Copy)]
struct Layout {
    taken: usize,
    /// Where the windows of a stretch's pixels start, and their places in the map.
    starts: usize,
    places: usize,
    grads: usize,
    /// Each worker's memory: a panel and, `partial` lines behind its start, the sums of tile products.
    panels: usize,
    partial: usize,
    worker: usize,
    sums: usize,
    end: usize,
}

impl WeightGrad {
    /// For the convolution `spec`, whose epilogue does not matter: its gradient is taken before this. Feature maps are in
    /// `dtype`; denormals of bf16 may count as zero. The method is the fastest for so many images, if the layer is not small.
    ///
    /// # Errors
    ///
    /// The description is inconsistent.
    pub fn new(spec: &ConvSpec, dtype: DType, isa: Isa, images: usize) -> Result<Self, KernelError> {
        let by_windows = Self::by_windows(spec, dtype, isa)?;
        if is_small(spec, images)
            || !super::winograd::Winograd::supports(spec)
            || by_windows.product != Product::Vectors
        {
            return Ok(by_windows);
        }
        let winograd = Winograd::new(spec, by_windows.shape, isa);
        let [here, others] = winograd.seconds(images);
        let fits = winograd.scratch(1) < LARGEST / Line::BYTES;
        Ok(if here < others && fits { Self { winograd: Some(winograd), ..by_windows } } else { by_windows })
    }

    /// The same with the windows as they are.
    ///
    /// # Errors
    ///
    /// The description is inconsistent.
    pub fn by_windows(spec: &ConvSpec, dtype: DType, isa: Isa) -> Result<Self, KernelError> {
        spec.check()?;
        Self::build(spec, dtype, isa, None, Product::of(dtype, isa, false))
    }

    /// The same by Winograd's minimal filtering.
    ///
    /// # Errors
    ///
    /// The description is inconsistent, or the kernel is not 3x3 with stride and dilation 1.
    pub fn by_winograd(spec: &ConvSpec, dtype: DType, isa: Isa) -> Result<Self, KernelError> {
        spec.check()?;
        if !super::winograd::Winograd::supports(spec) {
            return Err(KernelError::spec(NAME, "not a 3x3 kernel of stride and dilation 1"));
        }
        let this = Self::build(spec, dtype, isa, None, Product::Vectors)?;
        let winograd = Some(Winograd::new(spec, this.shape, isa));
        let this = Self { winograd, ..this };
        if this.scratch(1) >= LARGEST / Line::BYTES {
            return Err(KernelError::spec(NAME, "a size is too large"));
        }
        Ok(this)
    }

    /// Method and level, for people.
    #[must_use]
    pub fn label(&self) -> String {
        let method = if self.winograd.is_some() { "winograd" } else { "product" };
        format!("{method} {}", self.isa)
    }

    /// The same with an input `z` of which the convolution read `leaky(z * scale + shift)` (slope 1 is no activation, 0
    /// ReLU; the padding stays zero, whatever the halo of `z` holds). So what a norm's activation gave need not be kept.
    ///
    /// # Errors
    ///
    /// The slope is not from 0 to 1.
    pub fn with_input_norm(self, slope: f32) -> Result<Self, KernelError> {
        if !(0.0..=1.0).contains(&slope) {
            return Err(KernelError::spec(NAME, format!("a slope of {slope}, not from 0 to 1")));
        }
        let product = Product::of(self.dtype, self.isa, true);
        Self::build(&self.spec, self.dtype, self.isa, Some(slope), product)
    }

    fn build(
        spec: &ConvSpec,
        dtype: DType,
        isa: Isa,
        norm: Option<f32>,
        product: Product,
    ) -> Result<Self, KernelError> {
        let shape = match product {
            // SAFETY: this kernel promises nothing.
            Product::Vectors => unsafe { isa.call(Ask) },
            #[cfg(target_arch = "x86_64")]
            Product::Tiles => amx::shape(spec),
        };
        let panels = panels(spec, shape, norm.is_some());
        let tiles = spec.group_outputs().div_ceil(shape.rows);
        let parts = match product {
            Product::Vectors => 1,
            #[cfg(target_arch = "x86_64")]
            Product::Tiles => amx::parts(panels.len() * tiles),
        };
        let sets = unpack::sets(&panels);
        let this = Self {
            spec: spec.clone(),
            dtype,
            isa,
            product,
            shape,
            sets,
            panels,
            tiles,
            parts,
            norm,
            winograd: None,
        };
        if this.layout(1).end >= LARGEST / Line::BYTES {
            return Err(KernelError::spec(NAME, "a size is too large"));
        }
        Ok(this)
    }

    /// Lines of scratch memory for `threads` workers.
    #[must_use]
    pub fn scratch(&self, threads: usize) -> usize {
        self.winograd.as_ref().map_or_else(|| self.layout(threads).end, |way| way.scratch(threads))
    }

    /// Multiply-adds for one image.
    #[must_use]
    pub fn macs(&self) -> usize {
        self.spec.macs()
    }

    fn layout(&self, threads: usize) -> Layout {
        let pixels = self.blocks() * BLOCK;
        let (number, float) = (self.product.bytes(), size_of::<f32>());
        let starts = threads;
        let places = starts + Line::count(pixels * size_of::<usize>());
        let grads = places + Line::count(pixels * size_of::<[i32; 2]>());
        let panels = grads + Line::count(self.blocks() * self.grad_block() * number);
        let partial = Line::count(BLOCK * self.shape.width * number);
        let worker = match self.product {
            Product::Vectors => partial,
            #[cfg(target_arch = "x86_64")]
            Product::Tiles => {
                let tiles = self.tiles.min(self.product.cached_tiles());
                partial + Line::count(tiles * self.tile_sums() * float)
            }
        };
        let sums = panels + threads * worker;
        let end = sums + Line::count(self.parts * self.part_sums() * float);
        Layout { taken: 0, starts, places, grads, panels, partial, worker, sums, end }
    }

    /// The most blocks of a stretch.
    fn blocks(&self) -> usize {
        (STRETCH / self.product.bytes() / self.grad_block()).clamp(1, BLOCKS)
    }

    /// Numbers of a block of packed gradients, and of one tile.
    fn grad_block(&self) -> usize {
        self.spec.groups * self.tiles * self.grad_tile()
    }

    fn grad_tile(&self) -> usize {
        BLOCK * self.shape.rows + SLACK / self.product.bytes()
    }

    /// Sums of one tile of a panel, of a panel, and of a part.
    fn tile_sums(&self) -> usize {
        self.shape.rows * self.shape.width
    }

    fn panel_sums(&self) -> usize {
        self.tiles * self.tile_sums()
    }

    fn part_sums(&self) -> usize {
        self.panels.len() * self.panel_sums()
    }

    /// Computes the gradient from `images` images.
    ///
    /// # Errors
    ///
    /// A slice is too short, or the kernel was built for a norm or for another format.
    pub fn run<T: Element>(
        &self,
        pool: &Pool,
        images: usize,
        io: WeightGradIo<'_, T>,
    ) -> Result<(), KernelError> {
        if self.norm.is_some() {
            return Err(KernelError::spec(NAME, "the norm's scale and shift are missing"));
        }
        self.run_checked(pool, images, [&[]; 2], io)
    }

    /// The same through a norm with this scale and shift, one number for each input channel.
    ///
    /// # Errors
    ///
    /// A slice is too short, or the kernel was built without a norm or for another format.
    pub fn run_with_norm<T: Element>(
        &self,
        pool: &Pool,
        images: usize,
        norm: [&[f32]; 2],
        io: WeightGradIo<'_, T>,
    ) -> Result<(), KernelError> {
        if self.norm.is_none() {
            return Err(KernelError::spec(NAME, "built without a norm"));
        }
        for (operand, values) in ["scale", "shift"].into_iter().zip(norm) {
            at_least(NAME, operand, values.len(), self.spec.input.c)?;
        }
        self.run_checked(pool, images, norm, io)
    }

    /// Either of them; the norm's numbers were checked.
    fn run_checked<T: Element>(
        &self,
        pool: &Pool,
        images: usize,
        norm: [&[f32]; 2],
        io: WeightGradIo<'_, T>,
    ) -> Result<(), KernelError> {
        if T::DTYPE != self.dtype {
            let (built, called) = (self.dtype.name(), T::DTYPE.name());
            return Err(KernelError::spec(NAME, format!("built for {built}, called with {called}")));
        }
        match self.product {
            Product::Vectors => self.gradient::<T, Vectors>(pool, images, norm, io),
            #[cfg(target_arch = "x86_64")]
            Product::Tiles => self.gradient::<T, amx::OnTiles<Hardware>>(pool, images, norm, io),
        }
    }

    /// Into how many chunks the tiles are cut: enough items for the workers, each with tiles enough to be worth packing the
    /// panel, and no more than the second cache holds.
    fn chunks(&self, threads: usize) -> usize {
        let items = self.panels.len() * self.parts;
        let shared = (4 * threads).div_ceil(items).min(self.tiles.div_ceil(4)).max(1);
        shared.max(self.tiles.div_ceil(self.product.cached_tiles()))
    }
}

/// Cuts a window into panels; `within_taps` if none may hold elements of two taps.
fn panels(spec: &ConvSpec, shape: Shape, within_taps: bool) -> Vec<Panel> {
    let (inputs, input) = (spec.group_inputs(), &spec.input);
    let mut panels = Vec::new();
    for group in 0..spec.groups {
        for (offset, len) in window_runs(spec) {
            let mut start = 0;
            while start < len {
                let (y, rest) = ((offset + start) / input.row(), (offset + start) % input.row());
                let (x, channel) = (rest / input.c, rest % input.c);
                let most = if within_taps { inputs - channel } else { len - start };
                let width = most.min(len - start).min(shape.width);
                panels.push(Panel {
                    group,
                    offset: group * inputs + offset + start,
                    width,
                    tap: [y / spec.dilation[0], x / spec.dilation[1]],
                    channel,
                });
                start += width;
            }
        }
    }
    panels
}
