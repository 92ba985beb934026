//! The forward pass of a batch norm in training, given the statistics.

use crate::error::at_least;
use crate::pointwise::{Combine, Run};
use crate::work::{In, Out, Work, check_length, check_same};
use crate::{Activation, Element, Isa, KernelError, Map, Part, Pool};
use std::ptr::null;

const NAME: &str = "batch norm";

/// `y = act(x * scale + shift)` or `y = act(x * scale + shift + residual)`, with a scale and a shift for each channel
/// that are known when it runs, and a leaky ReLU (slope 1 is none, slope 0 ReLU).
#[derive(Clone, Debug)]
pub struct NormApply {
    input: Map,
    output: Map,
    residual: Option<Map>,
    activation: Activation,
    isa: Isa,
}

/// The memory of one call.
#[derive(Debug)]
pub struct NormApplyIo<'a, T> {
    /// The images `x`; without it the output holds them, for which both maps must have the same halo.
    pub input: Option<&'a [T]>,
    /// The images `y`; their halo is left alone.
    pub output: &'a mut [T],
    /// What is added before the activation, if the kernel was built for it.
    pub residual: Option<&'a [T]>,
    /// One number per channel.
    pub scale: &'a [f32],
    /// One number per channel.
    pub shift: &'a [f32],
}

impl NormApply {
    /// From maps of `input` to maps of `output`, which differ in their halos at most, with a slope from 0 to 1.
    ///
    /// # Errors
    ///
    /// The sizes differ, or the slope is another.
    pub fn new(input: Map, output: Map, slope: f32, isa: Isa) -> Result<Self, KernelError> {
        check_same(NAME, &input, &output)?;
        let activation = match slope {
            1.0 => Activation::Identity,
            0.0 => Activation::Relu,
            slope if (0.0..1.0).contains(&slope) => Activation::LeakyRelu(slope),
            _ => return Err(KernelError::spec(NAME, format!("a slope of {slope}, not from 0 to 1"))),
        };
        Ok(Self { input, output, residual: None, activation, isa })
    }

    /// The same with a residual map of the same size, whatever its halo.
    ///
    /// # Errors
    ///
    /// The sizes differ.
    pub fn with_residual(self, map: Map) -> Result<Self, KernelError> {
        check_same(NAME, &self.output, &map)?;
        Ok(Self { residual: Some(map), ..self })
    }

    /// Computes `images` images.
    ///
    /// # Errors
    ///
    /// A slice is missing or too short.
    pub fn run<T: Element>(
        &self,
        pool: &Pool,
        images: usize,
        io: NormApplyIo<'_, T>,
    ) -> Result<(), KernelError> {
        let NormApplyIo { input, output, residual, scale, shift } = io;
        check_length(NAME, "output", output.len(), images, self.output.image())?;
        at_least(NAME, "scale", scale.len(), self.output.c)?;
        at_least(NAME, "shift", shift.len(), self.output.c)?;
        let y = Out::new(output);
        let x = match input {
            Some(input) => {
                check_length(NAME, "input", input.len(), images, self.input.image())?;
                In::new(input)
            }
            None if self.input == self.output => In::of(y),
            None => return Err(KernelError::spec(NAME, "in place with another halo")),
        };
        let residual = match &self.residual {
            Some(map) => {
                let residual = residual.unwrap_or(&[]);
                check_length(NAME, "residual", residual.len(), images, map.image())?;
                Some((map, In::new(residual)))
            }
            None => None,
        };
        let (scale, shift) = (In::new(scale), In::new(shift));
        let part = Part::whole(images, self.output.h);
        let work = Work::new(pool, &part, &self.output, self.output.c * size_of::<T>());
        work.run(pool, |share| {
            for segment in share {
                // SAFETY: the lengths were checked, so every segment lies in its slices, and each is written by one
                // worker; there is a scale and a shift for each channel.
                unsafe {
                    let (x, y) = (x.at(segment.start(&self.input)), y.at(segment.start(&self.output)));
                    let other = residual.map_or(null(), |(map, other)| other.at(segment.start(map)));
                    let run = Run {
                        scale: scale.at(0),
                        shift: shift.at(0),
                        other,
                        combine: if other.is_null() { Combine::First } else { Combine::Add },
                        activation: self.activation,
                        ..Run::copy(x, y, segment.pixels, self.output.c)
                    };
                    T::pointwise(self.isa, run);
                }
            }
        });
        Ok(())
    }
}

/// The scale and the shift of a batch norm, from its weight and bias and the batch's means and biased variances:
/// `scale = weight / sqrt(var + epsilon)`, `shift = bias - mean * scale`, in `f64` and then rounded.
///
/// # Panics
///
/// If the slices differ in length.
pub fn scale_shift(
    weight: &[f32],
    bias: &[f32],
    mean: &[f32],
    var: &[f32],
    epsilon: f32,
    scale: &mut [f32],
    shift: &mut [f32],
) {
    let c = scale.len();
    assert!(
        [weight.len(), bias.len(), mean.len(), var.len(), shift.len()] == [c; 5],
        "not one number per channel"
    );
    for k in 0..c {
        let factor = f64::from(weight[k]) / (f64::from(var[k]) + f64::from(epsilon)).sqrt();
        scale[k] = factor as f32;
        shift[k] = (f64::from(bias[k]) - f64::from(mean[k]) * factor) as f32;
    }
}
