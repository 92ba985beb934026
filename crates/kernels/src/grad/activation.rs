//! The gradient of an activation by itself.

use super::{Write, put};
use crate::pointwise::loads;
use crate::simd::{Kernel, Simd};
use crate::work::{In, Out, Work, check_length, check_same};
use crate::{Activation, Element, Isa, KernelError, Map, Part, Pool};

const NAME: &str = "activation gradient";

/// What the backward pass reads of the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivationSource {
    /// The activation's input.
    Input,
    /// Its output: not for SiLU and hard swish, which have the same output for two inputs.
    Output,
}

/// The gradient of an [`Activation`]: the output's times the slope, which at a kink is that of the left side, and zero
/// at both ends of what is clamped.
#[derive(Clone, Debug)]
pub struct ActivationGrad {
    kept: Map,
    grad: Map,
    result: Map,
    activation: Activation,
    source: ActivationSource,
    isa: Isa,
}

/// The memory of one call of [`ActivationGrad`].
#[derive(Debug)]
pub struct ActivationGradIo<'a, T> {
    /// The activation's input or output.
    pub kept: &'a [T],
    /// The gradient of the output; without it that is what `result` holds, for which both maps must be equal.
    pub grad: Option<&'a [T]>,
    /// The gradient of the input.
    pub result: &'a mut [T],
    /// Whether to add to `result`.
    pub write: Write,
}

impl ActivationGrad {
    /// For maps that were kept, gradients of the output, and gradients of the input.
    ///
    /// # Errors
    ///
    /// The sizes differ, or the slope does not follow from the output.
    pub fn new(
        [kept, grad, result]: [Map; 3],
        activation: Activation,
        source: ActivationSource,
        isa: Isa,
    ) -> Result<Self, KernelError> {
        check_same(NAME, &kept, &grad)?;
        check_same(NAME, &kept, &result)?;
        let lost = match activation {
            Activation::Silu | Activation::HardSwish => true,
            Activation::LeakyRelu(slope) => slope < 0.0,
            _ => false,
        };
        if lost && source == ActivationSource::Output {
            return Err(KernelError::spec(
                NAME,
                format!("the output of {} says too little", activation.name()),
            ));
        }
        Ok(Self { kept, grad, result, activation, source, isa })
    }

    /// Computes the gradient of `images` images.
    ///
    /// # Errors
    ///
    /// A slice is too short.
    pub fn run<T: Element>(
        &self,
        pool: &Pool,
        images: usize,
        io: ActivationGradIo<'_, T>,
    ) -> Result<(), KernelError> {
        let ActivationGradIo { kept, grad, result, write } = io;
        let to = &self.result;
        check_length(NAME, "kept map", kept.len(), images, self.kept.image())?;
        check_length(NAME, "result", result.len(), images, to.image())?;
        let (kept, dx) = (In::new(kept), Out::new(result));
        let dy = match grad {
            Some(grad) => {
                check_length(NAME, "gradient", grad.len(), images, self.grad.image())?;
                In::new(grad)
            }
            None if self.grad == *to && write == Write::Replace => In::of(dx),
            None => return Err(KernelError::spec(NAME, "in place with another map, or in addition")),
        };
        let work = Work::new(pool, &Part::whole(images, to.h), to, 2 * to.c * size_of::<T>());
        work.run(pool, |share| {
            for segment in share {
                // SAFETY: the lengths were checked, so every segment lies in each slice, and each is written by one
                // worker.
                unsafe {
                    T::activation_grad(
                        self.isa,
                        Slopes {
                            kept: kept.at(segment.start(&self.kept)),
                            dy: dy.at(segment.start(&self.grad)),
                            dx: dx.at(segment.start(to)),
                            count: segment.pixels * to.c,
                            activation: self.activation,
                            source: self.source,
                            write,
                        },
                    );
                }
            }
        });
        Ok(())
    }
}

/// Neighbouring numbers.
pub struct Slopes<T> {
    kept: *const T,
    dy: *const T,
    dx: *mut T,
    count: usize,
    activation: Activation,
    source: ActivationSource,
    write: Write,
}

// SAFETY of the blocks below: the caller of `Kernel::run` promises that the pointers are valid for `count` numbers and
// that no other thread touches those of `dx`; offsets are below `count` by the loops' bounds. In place, a number is read
// before it is written.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Kernel for Slopes<T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        unsafe { through_channels!(self.step(), self.count) }
    }
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<T: Element> Slopes<T> {
    #[inline(always)]
    unsafe fn step<S: Simd, const N: usize, const FULL: bool>(&self, k: usize, count: usize) {
        unsafe {
            let kept = loads::<S, T, N, FULL>(self.kept.add(k), count);
            let dy = loads::<S, T, N, FULL>(self.dy.add(k), count);
            for i in 0..N {
                let slope = match self.source {
                    ActivationSource::Input => of_input::<S>(self.activation, kept[i]),
                    ActivationSource::Output => of_output::<S>(self.activation, kept[i]),
                };
                let value = S::mul(dy[i], slope);
                put::<S, T, FULL>(self.dx.add(k + i * S::LANES), value, count, self.write);
            }
        }
    }
}

/// `inside` where `low < x < high`, and zero elsewhere.
///
/// # Safety
///
/// The processor has the level of `S`.
#[inline(always)]
unsafe fn between<S: Simd>(low: f32, x: S::V, high: f32, inside: f32) -> S::V {
    // SAFETY: the same contract.
    unsafe {
        let (above, below) = (S::sub(x, S::splat(low)), S::sub(S::splat(high), x));
        let inside = S::where_positive(below, S::splat(inside), S::splat(0.0));
        S::where_positive(above, inside, S::splat(0.0))
    }
}

/// The slope at input `x`.
///
/// # Safety
///
/// The processor has the level of `S`.
#[inline(always)]
unsafe fn of_input<S: Simd>(activation: Activation, x: S::V) -> S::V {
    // SAFETY: the same contract.
    unsafe {
        let one = S::splat(1.0);
        match activation {
            Activation::Identity => one,
            Activation::Relu => S::where_positive(x, one, S::splat(0.0)),
            Activation::LeakyRelu(slope) => S::where_positive(x, one, S::splat(slope)),
            Activation::Relu6 => between::<S>(0.0, x, 6.0, 1.0),
            Activation::Sigmoid => {
                let y = Activation::Sigmoid.apply::<S>(x);
                S::mul(y, S::sub(one, y))
            }
            Activation::Silu => {
                let y = Activation::Sigmoid.apply::<S>(x);
                S::mul(y, S::fma(x, S::sub(one, y), one))
            }
            Activation::HardSigmoid => between::<S>(-3.0, x, 3.0, 1.0 / 6.0),
            Activation::HardSwish => {
                let middle = S::fma(x, S::splat(1.0 / 3.0), S::splat(0.5));
                let right = S::where_positive(S::sub(S::splat(3.0), x), middle, one);
                S::where_positive(S::add(x, S::splat(3.0)), right, S::splat(0.0))
            }
        }
    }
}

/// The slope where the output is `y`.
///
/// # Safety
///
/// The processor has the level of `S`.
#[inline(always)]
unsafe fn of_output<S: Simd>(activation: Activation, y: S::V) -> S::V {
    // SAFETY: the same contract.
    unsafe {
        match activation {
            Activation::Sigmoid => S::mul(y, S::sub(S::splat(1.0), y)),
            Activation::HardSigmoid => between::<S>(0.0, y, 1.0, 1.0 / 6.0),
            // Positive where the input is, and clamped where it is. The last two were refused.
            Activation::Identity
            | Activation::Relu
            | Activation::LeakyRelu(_)
            | Activation::Relu6
            | Activation::Silu
            | Activation::HardSwish => of_input::<S>(activation, y),
        }
    }
}
