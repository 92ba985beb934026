//! Convolution, with what follows it while its results are in registers.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
mod cost;
pub(crate) mod data_grad;
pub(crate) mod depthwise;
mod direct;
mod method;
mod taken;
pub(crate) mod weight_grad;
pub(crate) mod weights;
pub(crate) mod winograd;

pub use method::{Conv, Method};

use crate::error::at_least;
use crate::{Activation, Element, KernelError, Line, Map, Part};

/// A convolution and its epilogue: `y = activation(conv(x) + bias + residual)`.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvSpec {
    /// The input; its halo covers the padding and is filled already.
    pub input: Map,
    /// The output; its halo is left alone.
    pub output: Map,
    /// Rows and columns of the kernel.
    pub kernel: [usize; 2],
    /// Rows and columns from one window to the next.
    pub stride: [usize; 2],
    /// Rows and columns from one tap to the next.
    pub dilation: [usize; 2],
    /// Rows above and columns left of the input that the first window starts at. What the last windows need below and
    /// to the right follows from the output's size.
    pub padding: [usize; 2],
    /// Groups; both channel counts are multiples of it.
    pub groups: usize,
    /// Applied last.
    pub activation: Activation,
    /// A map of the output's size (not necessarily its halo) that is added before the activation.
    pub residual: Option<Map>,
    /// Whether the mean of each output channel over all pixels is wanted as well.
    pub pooled: bool,
}

/// The memory of one call.
#[derive(Debug)]
pub struct ConvIo<'a, T> {
    /// The input images.
    pub input: &'a [T],
    /// The output images.
    pub output: &'a mut [T],
    /// The residual images, if the specification has one.
    pub residual: Option<&'a [T]>,
    /// The means, `[images, channels]`, if the specification wants them. They are complete after the call that
    /// computes the last row.
    pub pooled: Option<&'a mut [f32]>,
    /// Memory for intermediate results; its content means nothing between calls.
    pub scratch: &'a mut [Line],
}

const CONV: &str = "convolution";

/// Beyond any map or weight; below it, sums and products of two sizes do not overflow.
const LARGEST: usize = 1 << (usize::BITS / 2 - 1);

impl ConvSpec {
    /// Input channels of one group.
    #[must_use]
    pub fn group_inputs(&self) -> usize {
        self.input.c / self.groups
    }

    /// Output channels of one group.
    #[must_use]
    pub fn group_outputs(&self) -> usize {
        self.output.c / self.groups
    }

    /// Multiply-adds for one image.
    #[must_use]
    pub fn macs(&self) -> usize {
        self.output.h * self.output.w * self.output.c * self.group_inputs() * self.kernel[0] * self.kernel[1]
    }

    /// Elements of the weight `[outputs, inputs / groups, rows, columns]`.
    #[must_use]
    pub fn weights(&self) -> usize {
        self.output.c * self.group_inputs() * self.kernel[0] * self.kernel[1]
    }

    /// Checks that the numbers fit together and that every window lies inside the input and its halo.
    ///
    /// # Errors
    ///
    /// They do not.
    pub fn check(&self) -> Result<(), KernelError> {
        let fail = |reason: String| Err(KernelError::spec(CONV, reason));
        let Self { input, output, kernel, stride, dilation, padding, groups, .. } = self;
        let sizes = [input.h, input.w, input.c, output.h, output.w, output.c, *groups];
        if sizes.iter().chain(kernel).chain(stride).chain(dilation).any(|&size| size == 0) {
            return fail("a size is zero".into());
        }
        if input.c % groups != 0 || output.c % groups != 0 {
            return fail(format!(
                "{} and {} channels are not multiples of {groups} groups",
                input.c, output.c
            ));
        }
        let bytes = |map: &Map| {
            let rows = map.h.checked_add(map.halo.top)?.checked_add(map.halo.bottom)?;
            let columns = map.w.checked_add(map.halo.left)?.checked_add(map.halo.right)?;
            rows.checked_mul(columns)?.checked_mul(map.c)?.checked_mul(4).filter(|&bytes| bytes < LARGEST)
        };
        let weight = kernel.iter().try_fold(input.c / groups, |all, &size| all.checked_mul(size));
        let fits = weight.and_then(|weight| weight.checked_mul(output.c)).is_some_and(|all| all < LARGEST);
        let steps = stride.iter().chain(dilation).chain(padding).all(|&size| size < LARGEST);
        if !fits
            || !steps
            || [Some(input), Some(output), self.residual.as_ref()]
                .into_iter()
                .flatten()
                .any(|map| bytes(map).is_none())
        {
            return fail("a size is too large".into());
        }
        let before = [input.halo.top, input.halo.left];
        let after = [input.h + input.halo.bottom, input.w + input.halo.right];
        for axis in 0..2 {
            let last = ([output.h, output.w][axis] - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis];
            if padding[axis] > before[axis] || last >= after[axis] + padding[axis] {
                return fail(format!("the windows leave the input's halo on axis {axis}"));
            }
        }
        if let Some(residual) = self.residual
            && [residual.h, residual.w, residual.c] != [output.h, output.w, output.c]
        {
            return fail("the residual has another size than the output".into());
        }
        Ok(())
    }

    /// Checks the lengths of a weight and a bias.
    ///
    /// # Errors
    ///
    /// One does not fit.
    pub(crate) fn check_weights(&self, weight: &[f32], bias: Option<&[f32]>) -> Result<(), KernelError> {
        let length = |operand, found, expected| {
            (found == expected).then_some(()).ok_or(KernelError::Length {
                kernel: CONV,
                operand,
                found,
                expected,
            })
        };
        length("weight", weight.len(), self.weights())?;
        length("bias", bias.map_or(self.output.c, <[f32]>::len), self.output.c)
    }

    /// Checks the lengths of the slices of one call.
    ///
    /// # Errors
    ///
    /// One is too short, or missing.
    pub(crate) fn check_io<T: Element>(&self, part: &Part, io: &ConvIo<'_, T>) -> Result<(), KernelError> {
        if part.rows.end > self.output.h || part.rows.start > part.rows.end {
            return Err(KernelError::spec(CONV, format!("rows {:?} of {}", part.rows, self.output.h)));
        }
        at_least(CONV, "input", io.input.len(), part.images.saturating_mul(self.input.image()))?;
        at_least(CONV, "output", io.output.len(), part.images.saturating_mul(self.output.image()))?;
        if let Some(residual) = self.residual {
            let found = io.residual.map_or(0, <[T]>::len);
            at_least(CONV, "residual", found, part.images.saturating_mul(residual.image()))?;
        }
        if self.pooled {
            let found = io.pooled.as_ref().map_or(0, |pooled| pooled.len());
            at_least(CONV, "pooled", found, part.images.saturating_mul(self.output.c))?;
        }
        Ok(())
    }
}
