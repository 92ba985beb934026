//! The gradient of a convolution's weight: `dW[o][i][tap] = sum over pixels of dY[pixel][o] * X[window + tap][i]`.
//!
//! By windows (`windows.rs`) this is a matrix product whose long axis is the pixels. A 3x3 kernel of stride 1 has a faster way
//! (`winograd.rs`): tiles in place of windows, and a quarter of the products.

#[cfg(target_arch = "x86_64")]
mod amx;
mod call;
#[cfg(all(test, target_arch = "x86_64"))]
mod tests;
mod tile;
mod unpack;
mod windows;
mod winograd;
mod work;

use super::method::is_small;
use super::winograd::Winograd as Forward;
use super::{ConvSpec, LARGEST};
use crate::error::{at_least, same_format};
#[cfg(target_arch = "x86_64")]
use crate::x86::amx::Hardware;
use crate::{DType, Element, Isa, KernelError, Line, Pool};
use call::Vectors;
use windows::{ByWindows, Product};
use winograd::Winograd;

const NAME: &str = "weight gradient";

/// The gradient of a convolution's weight.
#[derive(Debug)]
pub struct WeightGrad {
    spec: ConvSpec,
    dtype: DType,
    isa: Isa,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Windows(ByWindows),
    Winograd(Winograd),
}

/// The memory of one call.
#[derive(Debug)]
pub struct WeightGradIo<'a, T> {
    /// The input images of the forward pass.
    pub input: &'a [T],
    /// The gradient of the output; its halo is not read.
    pub grad: &'a [T],
    /// The gradient of the weight, `[outputs, inputs / groups, rows, columns]`, which is overwritten.
    pub weight: &'a mut [f32],
    /// Memory for intermediate results.
    pub scratch: &'a mut [Line],
}

impl WeightGrad {
    /// For the convolution `spec`, whose epilogue does not matter: its gradient is taken before this. Feature maps are in
    /// `dtype`; denormals of bf16 may count as zero. The method is the fastest for so many images, if the layer is not small.
    ///
    /// # Errors
    ///
    /// The description is inconsistent.
    pub fn new(spec: &ConvSpec, dtype: DType, isa: Isa, images: usize) -> Result<Self, KernelError> {
        spec.check()?;
        if !is_small(spec, images)
            && Product::of(dtype, isa) == Product::Vectors
            && let Ok(winograd) = Self::winograd(spec, isa)
        {
            let [here, by_windows] = winograd.seconds(images);
            if here < by_windows {
                return Ok(Self { spec: spec.clone(), dtype, isa, way: Way::Winograd(winograd) });
            }
        }
        Self::by_windows(spec, dtype, isa)
    }

    /// The same with the windows as they are.
    ///
    /// # Errors
    ///
    /// The description is inconsistent.
    pub fn by_windows(spec: &ConvSpec, dtype: DType, isa: Isa) -> Result<Self, KernelError> {
        spec.check()?;
        let way = Way::Windows(ByWindows::new(spec, isa, Product::of(dtype, isa))?);
        Ok(Self { spec: spec.clone(), dtype, isa, way })
    }

    /// The same by Winograd's minimal filtering.
    ///
    /// # Errors
    ///
    /// The description is inconsistent, or the kernel is not 3x3 with stride and dilation 1.
    pub fn by_winograd(spec: &ConvSpec, dtype: DType, isa: Isa) -> Result<Self, KernelError> {
        spec.check()?;
        let way = Way::Winograd(Self::winograd(spec, isa)?);
        Ok(Self { spec: spec.clone(), dtype, isa, way })
    }

    fn winograd(spec: &ConvSpec, isa: Isa) -> Result<Winograd, KernelError> {
        if !Forward::supports(spec) {
            return Err(KernelError::spec(NAME, "not a 3x3 kernel of stride and dilation 1"));
        }
        let winograd = Winograd::new(spec, isa);
        if winograd.scratch(1) >= LARGEST / Line::BYTES {
            return Err(KernelError::spec(NAME, "a size is too large"));
        }
        Ok(winograd)
    }

    /// Method and level, for people.
    #[must_use]
    pub fn label(&self) -> String {
        let method = match self.way {
            Way::Windows(_) => "product",
            Way::Winograd(_) => "winograd",
        };
        format!("{method} {}", self.isa)
    }

    /// Lines of scratch memory for `threads` workers.
    #[must_use]
    pub fn scratch(&self, threads: usize) -> usize {
        match &self.way {
            Way::Windows(way) => way.scratch(threads),
            Way::Winograd(way) => way.scratch(threads),
        }
    }

    /// Multiply-adds for one image.
    #[must_use]
    pub fn macs(&self) -> usize {
        self.spec.macs()
    }

    /// Computes the gradient from `images` images.
    ///
    /// # Errors
    ///
    /// A slice is too short, or the kernel was built for another format.
    pub fn run<T: Element>(
        &self,
        pool: &Pool,
        images: usize,
        io: WeightGradIo<'_, T>,
    ) -> Result<(), KernelError> {
        same_format::<T>(NAME, self.dtype)?;
        let spec = &self.spec;
        at_least(NAME, "input", io.input.len(), images.saturating_mul(spec.input.image()))?;
        at_least(NAME, "gradient", io.grad.len(), images.saturating_mul(spec.output.image()))?;
        at_least(NAME, "weight", io.weight.len(), spec.weights())?;
        at_least(NAME, "scratch", io.scratch.len(), self.scratch(pool.threads()))?;
        if images * spec.output.h * spec.output.w == 0 {
            io.weight[..spec.weights()].fill(0.0);
            return Ok(());
        }
        match &self.way {
            Way::Winograd(way) => way.gradient(pool, images, io),
            Way::Windows(way) => match way.product {
                Product::Vectors => way.gradient::<T, Vectors>(pool, images, io),
                #[cfg(target_arch = "x86_64")]
                Product::Tiles => way.gradient::<T, amx::OnTiles<Hardware>>(pool, images, io),
            },
        }
        Ok(())
    }
}
