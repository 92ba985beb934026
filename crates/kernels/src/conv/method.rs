//! The ways to compute a convolution behind one type.

#[cfg(target_arch = "x86_64")]
use super::amx::Amx;
use super::depthwise::Depthwise;
use super::direct::Direct;
use super::weights::Weights;
use super::winograd::{Tile, Winograd};
use super::{CONV, ConvIo, ConvSpec, cost};
use crate::error::same_format;
use crate::{Bf16, DType, Element, Isa, KernelError, Level, NormStats, Part, Pool};
use std::fmt;

/// A way to compute a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// The matrix product of the windows, read in place: any convolution.
    Direct,
    /// Fewer multiplications with larger weights, less exact: `f32`, 3x3, stride 1.
    Winograd(Tile),
    /// One input per group.
    Depthwise,
    /// Tile products of bf16.
    Amx,
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 5] =
        [Self::Direct, Self::Winograd(Tile::Two), Self::Winograd(Tile::Four), Self::Depthwise, Self::Amx];

    /// The name that reports print.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Winograd(Tile::Two) => "winograd2",
            Self::Winograd(Tile::Four) => "winograd4",
            Self::Depthwise => "depthwise",
            Self::Amx => "amx",
        }
    }

    /// Whether it can compute `spec`, which is consistent.
    fn can(self, spec: &ConvSpec, dtype: DType, isa: Isa) -> bool {
        match self {
            Self::Direct => true,
            Self::Winograd(_) => dtype == DType::F32 && Winograd::supports(spec),
            Self::Depthwise => Depthwise::supports(spec),
            #[cfg(target_arch = "x86_64")]
            Self::Amx => dtype == DType::Bf16 && isa.level() == Level::Amx && Amx::supports(spec),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Amx => false,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A convolution with packed weights, ready to run.
#[derive(Debug)]
pub struct Conv {
    dtype: DType,
    isa: Isa,
    packed: Packed,
}

#[derive(Debug)]
enum Packed {
    Direct(Box<Direct>),
    Winograd(Winograd),
    Depthwise(Depthwise),
    #[cfg(target_arch = "x86_64")]
    Amx(Amx),
}

/// The same expression for whichever it is.
macro_rules! each {
    ($packed:expr, $conv:ident => $value:expr) => {
        match $packed {
            Packed::Direct($conv) => $value,
            Packed::Winograd($conv) => $value,
            Packed::Depthwise($conv) => $value,
            #[cfg(target_arch = "x86_64")]
            Packed::Amx($conv) => $value,
        }
    };
}

/// Whether a layer is so small that Winograd's rounding is not worth its time in training.
pub(crate) fn is_small(spec: &ConvSpec, images: usize) -> bool {
    images.saturating_mul(spec.macs()) < 100_000_000
}

impl Conv {
    /// Packs `weight`, `[outputs, inputs / groups, rows, columns]`, for `method`.
    ///
    /// # Errors
    ///
    /// The specification contradicts itself, the method cannot compute it, or a length does not fit.
    pub fn new(
        spec: &ConvSpec,
        weight: &[f32],
        bias: Option<&[f32]>,
        dtype: DType,
        isa: Isa,
        method: Method,
    ) -> Result<Self, KernelError> {
        spec.check()?;
        spec.check_weights(weight, bias)?;
        Self::of(spec, Weights::plain(spec, weight), bias, dtype, isa, method)
    }

    /// The same for weights wherever they are; lengths were checked.
    pub(crate) fn of(
        spec: &ConvSpec,
        weights: Weights<'_>,
        bias: Option<&[f32]>,
        dtype: DType,
        isa: Isa,
        method: Method,
    ) -> Result<Self, KernelError> {
        spec.check()?;
        let cannot =
            || KernelError::spec(CONV, format!("{method} cannot compute this in {} on {isa}", dtype.name()));
        if !method.can(spec, dtype, isa) {
            return Err(cannot());
        }
        let packed = match method {
            Method::Direct => Packed::Direct(Box::new(Direct::new(spec, weights, bias, dtype, isa))),
            Method::Winograd(tile) => Packed::Winograd(Winograd::of(spec, tile, weights, bias, isa)),
            Method::Depthwise => Packed::Depthwise(Depthwise::new(spec, weights, bias, dtype, isa)),
            #[cfg(target_arch = "x86_64")]
            Method::Amx => Packed::Amx(Amx::of(spec, weights, bias, isa)),
            #[cfg(not(target_arch = "x86_64"))]
            Method::Amx => return Err(cannot()),
        };
        Ok(Self { dtype, isa, packed })
    }

    /// Packs other weights and another bias in the place of those that it was built with, without allocating; the
    /// result is that of [`new`](Self::new). Training does so in every step.
    ///
    /// # Errors
    ///
    /// A length does not fit.
    pub fn repack(&mut self, pool: &Pool, weight: &[f32], bias: Option<&[f32]>) -> Result<(), KernelError> {
        let spec = each!(&self.packed, conv => conv.spec());
        spec.check_weights(weight, bias)?;
        let weights = Weights::plain(spec, weight);
        self.repack_from(pool, weights, bias);
        Ok(())
    }

    /// The same for weights wherever they are, of the same convolution.
    pub(crate) fn repack_from(&mut self, pool: &Pool, weights: Weights<'_>, bias: Option<&[f32]>) {
        match &mut self.packed {
            Packed::Direct(direct) => direct.repack(pool, weights, bias),
            Packed::Winograd(winograd) => winograd.repack(pool, weights, bias),
            Packed::Depthwise(depthwise) => depthwise.repack(weights, bias),
            #[cfg(target_arch = "x86_64")]
            Packed::Amx(amx) => amx.repack(pool, weights, bias),
        }
    }

    /// The methods that can compute `spec` in `dtype` on `isa`; none if it contradicts itself.
    #[must_use]
    pub fn methods(spec: &ConvSpec, dtype: DType, isa: Isa) -> Vec<Method> {
        if spec.check().is_err() {
            return Vec::new();
        }
        Method::ALL.into_iter().filter(|method| method.can(spec, dtype, isa)).collect()
    }

    /// The method that is likely the fastest for `images` images on `threads` threads.
    #[must_use]
    pub fn choose(spec: &ConvSpec, dtype: DType, isa: Isa, images: usize, threads: usize) -> Method {
        let seconds = |&method: &Method| cost::seconds(spec, dtype, isa, method, images, threads);
        let methods = Self::methods(spec, dtype, isa);
        methods.into_iter().min_by(|a, b| seconds(a).total_cmp(&seconds(b))).unwrap_or(Method::Direct)
    }

    /// The same for training: layers of fewer than 100 million multiply-adds in a batch do without Winograd. Its transforms
    /// round some more, which a fraction of a millisecond is not worth, and small networks stay close to other frameworks.
    #[must_use]
    pub fn choose_in_training(
        spec: &ConvSpec,
        dtype: DType,
        isa: Isa,
        images: usize,
        threads: usize,
    ) -> Method {
        match Self::choose(spec, dtype, isa, images, threads) {
            Method::Winograd(_) if is_small(spec, images) => Method::Direct,
            method => method,
        }
    }

    /// Computes `part`.
    ///
    /// # Errors
    ///
    /// A slice is too short, or `T` is not the format that the convolution was built for.
    pub fn run<T: Element>(&self, pool: &Pool, part: &Part, io: ConvIo<'_, T>) -> Result<(), KernelError> {
        same_format::<T>(CONV, self.dtype)?;
        // Generic code is compiled by the crate that calls it, with that crate's settings; the kernels are not.
        match T::DTYPE {
            DType::F32 => self.run_f32(pool, part, io.cast()?),
            DType::Bf16 => self.run_bf16(pool, part, io.cast()?),
        }
    }

    fn run_f32(&self, pool: &Pool, part: &Part, io: ConvIo<'_, f32>) -> Result<(), KernelError> {
        match &self.packed {
            Packed::Direct(direct) => direct.run(pool, part, io),
            Packed::Winograd(winograd) => winograd.run(pool, part, io),
            Packed::Depthwise(depthwise) => depthwise.run(pool, part, io),
            #[cfg(target_arch = "x86_64")]
            Packed::Amx(_) => Err(KernelError::spec(CONV, "tile products are of bf16")),
        }
    }

    fn run_bf16(&self, pool: &Pool, part: &Part, io: ConvIo<'_, Bf16>) -> Result<(), KernelError> {
        match &self.packed {
            Packed::Direct(direct) => direct.run(pool, part, io),
            Packed::Winograd(_) => Err(KernelError::spec(CONV, "winograd is for f32")),
            Packed::Depthwise(depthwise) => depthwise.run(pool, part, io),
            #[cfg(target_arch = "x86_64")]
            Packed::Amx(amx) => amx.run(pool, part, io),
        }
    }

    /// Computes whole images, and the mean and biased variance of each output channel over all their pixels: the batch
    /// statistics of a norm that follows. The direct method sums what it writes while that is in the cache; the others
    /// read the outputs once more.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run), with [`statistics_scratch`](Self::statistics_scratch) lines of scratch memory; there is
    /// no image.
    pub fn run_with_statistics<T: Element>(
        &self,
        pool: &Pool,
        images: usize,
        mut io: ConvIo<'_, T>,
        statistics: [&mut [f32]; 2],
    ) -> Result<(), KernelError> {
        if images == 0 {
            return Err(KernelError::spec(CONV, "no images"));
        }
        if let Packed::Direct(direct) = &self.packed {
            same_format::<T>(CONV, self.dtype)?;
            return match T::DTYPE {
                DType::F32 => direct.run_with_statistics::<f32>(pool, images, io.cast()?, statistics),
                DType::Bf16 => direct.run_with_statistics::<Bf16>(pool, images, io.cast()?, statistics),
            };
        }
        let output = each!(&self.packed, conv => conv.spec()).output;
        let ConvIo { input, residual, .. } = io;
        let part = Part::whole(images, output.h);
        let (scratch, pooled) = (&mut *io.scratch, io.pooled.as_deref_mut());
        self.run(pool, &part, ConvIo { input, output: &mut *io.output, residual, pooled, scratch })?;
        NormStats::new(output, self.isa)?.run(pool, images, io.output, statistics, io.scratch)
    }

    /// Lines of scratch memory for [`run_with_statistics`](Self::run_with_statistics) on `images` images.
    #[must_use]
    pub fn statistics_scratch(&self, images: usize, threads: usize) -> usize {
        match &self.packed {
            Packed::Direct(direct) => direct.statistics_scratch(images, threads),
            packed => {
                let channels = each!(packed, conv => conv.spec()).output.c;
                self.scratch(threads).max(NormStats::scratch_of(channels, threads))
            }
        }
    }

    /// Lines of scratch memory for `threads` workers.
    #[must_use]
    pub fn scratch(&self, threads: usize) -> usize {
        each!(&self.packed, conv => conv.scratch(threads))
    }

    /// How it is computed.
    #[must_use]
    pub fn method(&self) -> Method {
        match &self.packed {
            Packed::Direct(_) => Method::Direct,
            Packed::Winograd(winograd) => Method::Winograd(winograd.tile()),
            Packed::Depthwise(_) => Method::Depthwise,
            #[cfg(target_arch = "x86_64")]
            Packed::Amx(_) => Method::Amx,
        }
    }

    /// How it is computed in words, such as `direct 6x16 avx2`.
    #[must_use]
    pub fn label(&self) -> String {
        match &self.packed {
            Packed::Direct(direct) => {
                let [rows, width] = direct.tile();
                format!("direct {rows}x{width} {}", self.isa)
            }
            _ => format!("{} {}", self.method(), self.isa),
        }
    }

    /// Bytes of the packed weights.
    #[must_use]
    pub fn packed_bytes(&self) -> usize {
        each!(&self.packed, conv => conv.packed_bytes())
    }
}

impl<'a, T: Element> ConvIo<'a, T> {
    /// The same memory, if `T` and `U` are the same type.
    fn cast<U: Element>(self) -> Result<ConvIo<'a, U>, KernelError> {
        if T::DTYPE != U::DTYPE {
            return Err(KernelError::spec(CONV, format!("called with {}", T::DTYPE.name())));
        }
        let shared = |slice: &'a [T]| {
            // SAFETY: `Element` has one type for each `DTYPE`, so `T` is `U`.
            unsafe { std::slice::from_raw_parts(slice.as_ptr().cast::<U>(), slice.len()) }
        };
        let unique = |slice: &'a mut [T]| {
            // SAFETY: as above.
            unsafe { std::slice::from_raw_parts_mut(slice.as_mut_ptr().cast::<U>(), slice.len()) }
        };
        Ok(ConvIo {
            input: shared(self.input),
            output: unique(self.output),
            residual: self.residual.map(shared),
            pooled: self.pooled,
            scratch: self.scratch,
        })
    }
}
