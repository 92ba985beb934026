//! Element-wise functions that kernels apply while a result is still in registers.

use crate::simd::Simd;

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `x`.
    Identity,
    /// `max(x, 0)`.
    Relu,
    /// `x` where positive, else `slope * x`, for a slope from 0 to 1.
    LeakyRelu(f32),
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `x * sigmoid(x)`.
    Silu,
    /// `min(max(x + 3, 0), 6) / 6`.
    HardSigmoid,
    /// `x * hard_sigmoid(x)`.
    HardSwish,
}

impl Activation {
    /// The name in texts, such as `leaky_relu`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Relu => "relu",
            Self::LeakyRelu(_) => "leaky_relu",
            Self::Relu6 => "relu6",
            Self::Sigmoid => "sigmoid",
            Self::Silu => "silu",
            Self::HardSigmoid => "hard_sigmoid",
            Self::HardSwish => "hard_swish",
        }
    }

    /// The function of one number: the definition that every kernel is checked against.
    #[must_use]
    pub fn eval(self, x: f32) -> f32 {
        match self {
            Self::Identity => x,
            Self::Relu => x.max(0.0),
            Self::LeakyRelu(slope) => x.max(slope * x),
            Self::Relu6 => x.clamp(0.0, 6.0),
            Self::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Self::Silu => x / (1.0 + (-x).exp()),
            Self::HardSigmoid => (x + 3.0).clamp(0.0, 6.0) / 6.0,
            Self::HardSwish => x * ((x + 3.0).clamp(0.0, 6.0) / 6.0),
        }
    }

    /// The function of a vector.
    ///
    /// # Safety
    ///
    /// The processor has the level of `S`.
    #[inline(always)]
    pub(crate) unsafe fn apply<S: Simd>(self, x: S::V) -> S::V {
        // SAFETY: the same contract.
        unsafe {
            let zero = S::splat(0.0);
            match self {
                Self::Identity => x,
                Self::Relu => S::max(x, zero),
                Self::LeakyRelu(slope) => S::max(x, S::mul(x, S::splat(slope))),
                Self::Relu6 => S::min(S::max(x, zero), S::splat(6.0)),
                Self::Sigmoid => S::div(S::splat(1.0), Self::one_plus_exp_neg::<S>(x)),
                Self::Silu => S::div(x, Self::one_plus_exp_neg::<S>(x)),
                Self::HardSigmoid => Self::hard_sigmoid::<S>(x),
                Self::HardSwish => S::mul(x, Self::hard_sigmoid::<S>(x)),
            }
        }
    }

    /// # Safety
    ///
    /// The processor has the level of `S`.
    #[inline(always)]
    unsafe fn one_plus_exp_neg<S: Simd>(x: S::V) -> S::V {
        // SAFETY: the same contract.
        unsafe { S::add(S::splat(1.0), S::exp(S::sub(S::splat(0.0), x))) }
    }

    /// # Safety
    ///
    /// The processor has the level of `S`.
    #[inline(always)]
    unsafe fn hard_sigmoid<S: Simd>(x: S::V) -> S::V {
        // SAFETY: the same contract.
        unsafe {
            let shifted = S::add(x, S::splat(3.0));
            S::mul(S::min(S::max(shifted, S::splat(0.0)), S::splat(6.0)), S::splat(1.0 / 6.0))
        }
    }
}
