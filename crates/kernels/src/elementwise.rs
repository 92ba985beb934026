//! Kernels that treat every number by itself: what a compiler could not attach to a convolution.

use crate::pointwise::{Combine, Run};
use crate::work::{In, Out, Work, check_length, check_map, check_part, check_same};
use crate::{Activation, Element, Isa, KernelError, Map, Part, Pool};
use std::ptr::null;

/// What [`Map2`] does with two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binary {
    /// `left + right`.
    Add,
    /// `left - right`.
    Sub,
    /// `left * right`.
    Mul,
}

/// An operand of [`Map2`].
#[derive(Clone, Debug, PartialEq)]
pub enum Side {
    /// A feature map of the output's size, whatever its halo.
    Map(Map),
    /// A number for each image and channel, `[images, channels]`, given at each call.
    PerImage,
    /// A number for each channel.
    PerChannel(Vec<f32>),
    /// One number.
    Scalar(f32),
}

/// The memory of an operand in one call.
#[derive(Clone, Copy, Debug)]
pub enum Operand<'a, T> {
    /// The images of a [`Side::Map`].
    Map(&'a [T]),
    /// What the output holds so far, for a [`Side::Map`] with the output's halo.
    Output,
    /// The numbers of a [`Side::PerImage`].
    PerImage(&'a [f32]),
    /// None: a [`Side::PerChannel`] or [`Side::Scalar`].
    Constant,
}

const MAP2: &str = "binary operation";

/// `activation(left + right)`, or another operation; at least one of the two is a feature map.
#[derive(Clone, Debug)]
pub struct Map2 {
    /// The operand that is loaded first, always a map.
    first: Map,
    /// Whether `first` is the right operand.
    swapped: bool,
    second: Side,
    /// `second` for each channel, if it is constant.
    constant: Vec<f32>,
    combine: Combine,
    output: Map,
    activation: Activation,
    isa: Isa,
}

impl Map2 {
    /// An operation on `left` and `right` whose results go to maps of `output`.
    ///
    /// # Errors
    ///
    /// Neither operand is a map, or the sizes differ.
    pub fn new(
        binary: Binary,
        left: Side,
        right: Side,
        output: Map,
        activation: Activation,
        isa: Isa,
    ) -> Result<Self, KernelError> {
        check_map(MAP2, &output)?;
        let (first, second, swapped) = match (left, right) {
            (Side::Map(left), right) => (left, right, false),
            (left, Side::Map(right)) => (right, left, true),
            _ => return Err(KernelError::spec(MAP2, "neither operand is a map")),
        };
        check_same(MAP2, &first, &output)?;
        let constant = match &second {
            Side::Map(map) => {
                check_same(MAP2, map, &output)?;
                Vec::new()
            }
            Side::PerImage => Vec::new(),
            Side::PerChannel(values) if values.len() == output.c => values.clone(),
            Side::PerChannel(values) => {
                let (operand, found) = ("operand per channel", values.len());
                return Err(KernelError::Length { kernel: MAP2, operand, found, expected: output.c });
            }
            Side::Scalar(value) => vec![*value; output.c],
        };
        let combine = match binary {
            Binary::Add => Combine::Add,
            Binary::Sub if swapped => Combine::SubFrom,
            Binary::Sub => Combine::Sub,
            Binary::Mul => Combine::Mul,
        };
        Ok(Self { first, swapped, second, constant, combine, output, activation, isa })
    }

    /// Computes `part`.
    ///
    /// # Errors
    ///
    /// An operand is not what the kernel was built for, or a slice is too short.
    pub fn run<T: Element>(
        &self,
        pool: &Pool,
        part: &Part,
        left: Operand<'_, T>,
        right: Operand<'_, T>,
        output: &mut [T],
    ) -> Result<(), KernelError> {
        check_part(MAP2, part, self.output.h)?;
        check_length(MAP2, "output", output.len(), part.images, self.output.image())?;
        let output = Out::new(output);
        let (first, second) = if self.swapped { (right, left) } else { (left, right) };
        let x = self.map(&first, &self.first, part, output)?;
        let other = match &self.second {
            Side::Map(map) => Some((map, self.map(&second, map, part, output)?)),
            Side::PerImage | Side::PerChannel(_) | Side::Scalar(_) => None,
        };
        let others = match (&self.second, second) {
            (Side::PerImage, Operand::PerImage(values)) => {
                check_length(MAP2, "operand per image", values.len(), part.images, self.output.c)?;
                values
            }
            (Side::PerImage, _) => return Err(KernelError::spec(MAP2, "an operand per image is missing")),
            _ => &self.constant,
        };
        let work = Work::new(pool, part, &self.output, self.output.c * size_of::<T>());
        work.run(pool, |share| {
            for segment in share {
                // SAFETY: the lengths were checked, so every segment lies in each slice, and each is written by one
                // worker; `others` has a row for each image, or one for all.
                unsafe {
                    let (x, y) = (x.at(segment.start(&self.first)), output.at(segment.start(&self.output)));
                    T::pointwise(
                        self.isa,
                        Run {
                            other: other.map_or(null(), |(map, other)| other.at(segment.start(map))),
                            others: match &self.second {
                                Side::Map(_) => null(),
                                Side::PerImage => others.as_ptr().add(segment.image * self.output.c),
                                Side::PerChannel(_) | Side::Scalar(_) => others.as_ptr(),
                            },
                            combine: self.combine,
                            activation: self.activation,
                            ..Run::copy(x, y, segment.pixels, self.output.c)
                        },
                    );
                }
            }
        });
        Ok(())
    }

    /// Where a map's images are.
    fn map<T>(
        &self,
        operand: &Operand<'_, T>,
        map: &Map,
        part: &Part,
        output: Out<T>,
    ) -> Result<In<T>, KernelError> {
        match operand {
            Operand::Map(images) => {
                check_length(MAP2, "operand", images.len(), part.images, map.image())?;
                Ok(In::new(images))
            }
            Operand::Output if *map == self.output => Ok(In::of(output)),
            Operand::Output => Err(KernelError::spec(MAP2, "in place with another halo")),
            Operand::PerImage(_) | Operand::Constant => Err(KernelError::spec(MAP2, "a map is missing")),
        }
    }
}

const AFFINE: &str = "affine map";

/// `activation(x * scale + shift)` with a scale and a shift for each channel: a batch norm by itself.
#[derive(Clone, Debug)]
pub struct Affine {
    input: Map,
    output: Map,
    scale: Vec<f32>,
    shift: Vec<f32>,
    activation: Activation,
    isa: Isa,
}

impl Affine {
    /// From maps of `input` to maps of `output`, which differ in their halos at most.
    ///
    /// # Errors
    ///
    /// The sizes differ.
    pub fn new(
        input: Map,
        output: Map,
        scale: &[f32],
        shift: &[f32],
        activation: Activation,
        isa: Isa,
    ) -> Result<Self, KernelError> {
        check_same(AFFINE, &input, &output)?;
        for (operand, found) in [("scale", scale.len()), ("shift", shift.len())] {
            if found != input.c {
                return Err(KernelError::Length { kernel: AFFINE, operand, found, expected: input.c });
            }
        }
        Ok(Self { input, output, scale: scale.to_vec(), shift: shift.to_vec(), activation, isa })
    }

    /// Computes `part`; without an `input` in place, for which both halos must be equal.
    ///
    /// # Errors
    ///
    /// A slice is too short.
    pub fn run<T: Element>(
        &self,
        pool: &Pool,
        part: &Part,
        input: Option<&[T]>,
        output: &mut [T],
    ) -> Result<(), KernelError> {
        let run = Unary {
            kernel: AFFINE,
            input: self.input,
            output: self.output,
            scale: self.scale.as_ptr(),
            shift: self.shift.as_ptr(),
            activation: self.activation,
            isa: self.isa,
        };
        // SAFETY: there is a scale and a shift for each channel.
        unsafe { run.run(pool, part, input, output) }
    }
}

const ACTIVATE: &str = "activation";

/// `activation(x)` by itself.
#[derive(Clone, Debug)]
pub struct Activate {
    input: Map,
    output: Map,
    activation: Activation,
    isa: Isa,
}

impl Activate {
    /// From maps of `input` to maps of `output`, which differ in their halos at most.
    ///
    /// # Errors
    ///
    /// The sizes differ.
    pub fn new(input: Map, output: Map, activation: Activation, isa: Isa) -> Result<Self, KernelError> {
        check_same(ACTIVATE, &input, &output)?;
        Ok(Self { input, output, activation, isa })
    }

    /// Computes `part`; without an `input` in place, for which both halos must be equal.
    ///
    /// # Errors
    ///
    /// A slice is too short.
    pub fn run<T: Element>(
        &self,
        pool: &Pool,
        part: &Part,
        input: Option<&[T]>,
        output: &mut [T],
    ) -> Result<(), KernelError> {
        let (scale, shift) = (null(), null());
        let Self { input: from, output: to, activation, isa } = *self;
        let run = Unary { kernel: ACTIVATE, input: from, output: to, scale, shift, activation, isa };
        // SAFETY: there is neither scale nor shift.
        unsafe { run.run(pool, part, input, output) }
    }
}

/// `activation(x * scale + shift)`, with what may be null.
struct Unary {
    kernel: &'static str,
    input: Map,
    output: Map,
    scale: *const f32,
    shift: *const f32,
    activation: Activation,
    isa: Isa,
}

// SAFETY: the pointers are to numbers that nobody writes while this exists.
unsafe impl Sync for Unary {}

impl Unary {
    /// # Safety
    ///
    /// The pointers are null, or valid for one number per channel. The maps have the same size.
    unsafe fn run<T: Element>(
        &self,
        pool: &Pool,
        part: &Part,
        input: Option<&[T]>,
        output: &mut [T],
    ) -> Result<(), KernelError> {
        check_part(self.kernel, part, self.output.h)?;
        check_length(self.kernel, "output", output.len(), part.images, self.output.image())?;
        let y = Out::new(output);
        let x = match input {
            Some(input) => {
                check_length(self.kernel, "input", input.len(), part.images, self.input.image())?;
                In::new(input)
            }
            None if self.input == self.output => In::of(y),
            None => return Err(KernelError::spec(self.kernel, "in place with another halo")),
        };
        let work = Work::new(pool, part, &self.output, self.output.c * size_of::<T>());
        work.run(pool, |share| {
            for segment in share {
                // SAFETY: the lengths were checked, so every segment lies in both slices, and each is written by one
                // worker; the caller vouches for the rest.
                unsafe {
                    let (x, y) = (x.at(segment.start(&self.input)), y.at(segment.start(&self.output)));
                    T::pointwise(
                        self.isa,
                        Run {
                            scale: self.scale,
                            shift: self.shift,
                            activation: self.activation,
                            ..Run::copy(x, y, segment.pixels, self.output.c)
                        },
                    );
                }
            }
        });
        Ok(())
    }
}
