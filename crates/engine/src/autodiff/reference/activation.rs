//! Activations and their slopes.

use crate::Activation;

/// The function of one number.
pub(super) fn value(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Identity => x,
        Activation::Relu => x.max(0.0),
        Activation::LeakyRelu(slope) => x.max(f64::from(slope) * x),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::Sigmoid => sigmoid(x),
        Activation::Silu => x * sigmoid(x),
        Activation::HardSigmoid => hard_sigmoid(x),
        Activation::HardSwish => x * hard_sigmoid(x),
    }
}

pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

pub(super) fn hard_sigmoid(x: f64) -> f64 {
    (x + 3.0).clamp(0.0, 6.0) / 6.0
}

/// The slope at input `x`: at a kink that of the left side, and zero at both ends of what is clamped.
pub(super) fn slope_at_input(activation: Activation, x: f64) -> f64 {
    let inside = |low: f64, high: f64, slope: f64| if low < x && x < high { slope } else { 0.0 };
    match activation {
        Activation::Identity => 1.0,
        Activation::Relu => inside(0.0, f64::INFINITY, 1.0),
        Activation::LeakyRelu(_) if x > 0.0 => 1.0,
        Activation::LeakyRelu(slope) => f64::from(slope),
        Activation::Relu6 => inside(0.0, 6.0, 1.0),
        Activation::Sigmoid => sigmoid(x) * (1.0 - sigmoid(x)),
        Activation::Silu => sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x))),
        Activation::HardSigmoid => inside(-3.0, 3.0, 1.0 / 6.0),
        Activation::HardSwish if x >= 3.0 => 1.0,
        Activation::HardSwish => inside(-3.0, 3.0, x / 3.0 + 0.5),
    }
}

/// The slope where the output is `y`, for activations whose output says it; not a number for the others.
pub(super) fn slope_at_output(activation: Activation, y: f64) -> f64 {
    match activation {
        // Positive where the input is, and clamped where it is.
        Activation::Identity | Activation::Relu | Activation::LeakyRelu(_) | Activation::Relu6 => {
            slope_at_input(activation, y)
        }
        Activation::Sigmoid => y * (1.0 - y),
        Activation::HardSigmoid if 0.0 < y && y < 1.0 => 1.0 / 6.0,
        Activation::HardSigmoid => 0.0,
        Activation::Silu | Activation::HardSwish => f64::NAN,
    }
}
