//! The ways to compute a convolution behind one type.

use super::direct::Direct;
use super::winograd::Winograd;
use super::{CONV, ConvIo, ConvSpec};
use crate::{DType, Element, Isa, KernelError, Part, Pool};
use std::fmt;

/// A way to compute a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// The matrix product of the windows, read in place: any convolution.
    Direct,
    /// Fewer multiplications, less exact: `f32`, 3x3, stride 1.
    Winograd,
    /// One input and one output per group.
    Depthwise,
    /// Tile products of bf16.
    Amx,
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 4] = [Self::Direct, Self::Winograd, Self::Depthwise, Self::Amx];

    /// The name that reports print.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Winograd => "winograd",
            Self::Depthwise => "depthwise",
            Self::Amx => "amx",
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
    Direct(Direct),
    Winograd(Winograd),
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
        if !Self::methods(spec, dtype, isa).contains(&method) {
            let reason = format!("{method} cannot compute this in {} on {isa}", dtype.name());
            return Err(KernelError::spec(CONV, reason));
        }
        let packed = match method {
            Method::Direct => Packed::Direct(Direct::new(spec, weight, bias, dtype, isa)?),
            Method::Winograd => Packed::Winograd(Winograd::new(spec, weight, bias, isa)?),
            Method::Depthwise | Method::Amx => return Err(KernelError::spec(CONV, "not there")),
        };
        Ok(Self { dtype, isa, packed })
    }

    /// The methods that can compute `spec` in `dtype` on `isa`; none if it contradicts itself.
    #[must_use]
    pub fn methods(spec: &ConvSpec, dtype: DType, isa: Isa) -> Vec<Method> {
        let able = |method| match method {
            Method::Direct => true,
            Method::Winograd => dtype == DType::F32 && Winograd::supports(spec),
            Method::Depthwise | Method::Amx => false,
        };
        let _ = isa;
        if spec.check().is_err() {
            return Vec::new();
        }
        Method::ALL.into_iter().filter(|&method| able(method)).collect()
    }

    /// The method that is likely the fastest for `images` images on `threads` threads.
    #[must_use]
    pub fn choose(spec: &ConvSpec, dtype: DType, isa: Isa, images: usize, threads: usize) -> Method {
        let _ = (spec, dtype, isa, images, threads);
        Method::Direct
    }

    /// Computes `part`.
    ///
    /// # Errors
    ///
    /// A slice is too short, or `T` is not the format that the convolution was built for.
    pub fn run<T: Element>(&self, pool: &Pool, part: &Part, io: ConvIo<'_, T>) -> Result<(), KernelError> {
        if T::DTYPE != self.dtype {
            let reason = format!("built for {}, called with {}", self.dtype.name(), T::DTYPE.name());
            return Err(KernelError::spec(CONV, reason));
        }
        match &self.packed {
            Packed::Direct(direct) => direct.run(pool, part, io),
            Packed::Winograd(winograd) => winograd.run(pool, part, io.cast()?),
        }
    }

    /// Lines of scratch memory for `threads` workers.
    #[must_use]
    pub fn scratch(&self, threads: usize) -> usize {
        match &self.packed {
            Packed::Direct(direct) => direct.scratch(threads),
            Packed::Winograd(winograd) => winograd.scratch(threads),
        }
    }

    /// How it is computed.
    #[must_use]
    pub fn method(&self) -> Method {
        match &self.packed {
            Packed::Direct(_) => Method::Direct,
            Packed::Winograd(_) => Method::Winograd,
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
            Packed::Winograd(_) => format!("winograd {}", self.isa),
        }
    }

    /// Bytes of the packed weights.
    #[must_use]
    pub fn packed_bytes(&self) -> usize {
        match &self.packed {
            Packed::Direct(direct) => direct.packed_bytes(),
            Packed::Winograd(winograd) => winograd.packed_bytes(),
        }
    }
}

impl<'a, T: Element> ConvIo<'a, T> {
    /// The same memory, if `T` and `U` are the same type.
    fn cast<U: Element>(self) -> Result<ConvIo<'a, U>, KernelError> {
        if T::DTYPE != U::DTYPE {
            return Err(KernelError::spec(CONV, format!("called with {}", T::DTYPE.name())));
        }
        // SAFETY of both: `Element` has one type for each `DTYPE`, so `T` is `U`.
        let shared = |slice: &'a [T]| unsafe { std::slice::from_raw_parts(slice.as_ptr().cast::<U>(), slice.len()) };
        let unique = |slice: &'a mut [T]| unsafe {
            std::slice::from_raw_parts_mut(slice.as_mut_ptr().cast::<U>(), slice.len())
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
