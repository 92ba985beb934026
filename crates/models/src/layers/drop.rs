//! Regularisers that are active in training only: the device is an autodiff device and the layer is not frozen.
//!
//! Elsewhere they are the identity, but leave a mark in a captured graph (`ops::mark_drop`) unless they are frozen.

use crate::ops::{self, Drop};
use burn::module::{Flag, Module, Param};
use burn::tensor::{Device, Distribution, Tensor};

/// Zeroes elements with a given probability and scales the rest.
#[derive(Module, Debug)]
pub struct Dropout {
    rate: f64,
    training: Param<Flag>,
}

impl Dropout {
    /// `rate`: the probability of zero, in `[0, 1)`.
    pub fn new(rate: f64) -> Self {
        Self { rate, training: Param::from_bool(true) }
    }

    /// Any shape; the output has the input's.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        if !active(self.rate, &self.training, &x.device()) {
            return mark(x, Drop::Elements, self.rate, &self.training);
        }
        let keep = 1.0 - self.rate;
        let mask = Tensor::random(x.dims(), Distribution::Bernoulli(keep), &x.device());
        x * mask / keep
    }
}

/// Drops the residual branch of whole samples ("drop path"), and scales the kept ones.
#[derive(Module, Debug)]
pub struct StochasticDepth {
    rate: f64,
    training: Param<Flag>,
}

impl StochasticDepth {
    /// `rate`: the probability of dropping the branch, in `[0, 1)`.
    pub fn new(rate: f64) -> Self {
        Self { rate, training: Param::from_bool(true) }
    }

    /// `[n, c, h, w]`; the output has the input's shape.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        if !active(self.rate, &self.training, &x.device()) {
            return mark(x, Drop::Samples, self.rate, &self.training);
        }
        let keep = 1.0 - self.rate;
        let mask = Tensor::random([x.dims()[0], 1, 1, 1], Distribution::Bernoulli(keep), &x.device());
        x * (mask / keep)
    }
}

/// DropBlock (ResNeSt section 5.2): zeroes square regions, with one mask per batch and channel as in the code that
/// trained the published weights.
#[derive(Module, Debug)]
pub struct DropBlock {
    rate: f64,
    block: usize,
    training: Param<Flag>,
}

impl DropBlock {
    /// `rate`: the share of elements to zero, in `[0, 1)`; `block`: the side of a region in elements.
    pub fn new(rate: f64, block: usize) -> Self {
        Self { rate, block, training: Param::from_bool(true) }
    }

    /// Sets the rate, which training raises over its epochs.
    pub fn set_rate(&mut self, rate: f64) {
        self.rate = rate;
    }

    /// `[n, c, h, w]`; the output has the input's shape.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        if !active(self.rate, &self.training, &x.device()) {
            return mark(x, Drop::Squares(self.block), self.rate, &self.training);
        }
        let [_, c, h, w] = x.dims();
        let block = self.block.min(h).min(w);
        let noise = Tensor::random([1, c, h, w], Distribution::Uniform(0.0, 1.0), &x.device());
        ops::drop_block(x, noise, seed_rate(self.rate, block, [h, w]), block)
    }
}

/// The probability of a seed that zeroes a share `rate` of an `h x w` map with blocks of side `block`.
fn seed_rate(rate: f64, block: usize, [h, w]: [usize; 2]) -> f64 {
    rate * (h * w) as f64 / ((block * block) * (h - block + 1) * (w - block + 1)) as f64
}

fn active(rate: f64, training: &Param<Flag>, device: &Device) -> bool {
    rate > 0.0 && training.is_enabled() && device.is_autodiff()
}

/// `x`, marked in a captured graph. DropBlock's rate is the schedule's, so a rate of 0 does not mean that it is absent.
fn mark<const D: usize>(x: Tensor<D>, what: Drop, rate: f64, training: &Param<Flag>) -> Tensor<D> {
    let present = rate > 0.0 || matches!(what, Drop::Squares(_));
    if present && training.is_enabled() && !x.device().is_autodiff() {
        ops::mark_drop(x, what, rate)
    } else {
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ones() -> Tensor<4> {
        let device = Device::flex().autodiff();
        device.seed(7);
        Tensor::ones([4, 64, 14, 14], &device)
    }

    fn shares(y: Tensor<4>) -> (f32, f32) {
        let values = y.into_data().try_to_vec::<f32>().unwrap();
        let zeros = values.iter().filter(|v| **v == 0.0).count() as f32 / values.len() as f32;
        (zeros, values.iter().map(|v| f64::from(*v)).sum::<f64>() as f32 / values.len() as f32)
    }

    #[test]
    fn drop_block_zeroes_about_its_rate_in_squares_and_keeps_the_mean() {
        let y = DropBlock::new(0.1, 3).forward(ones());
        let (zeros, mean) = shares(y.clone());
        assert!((0.07..0.13).contains(&zeros), "{zeros} of the elements were dropped");
        assert!((mean - 1.0).abs() < 1e-4, "mean {mean}");
        let first = y.clone().narrow(0, 0, 1).into_data();
        assert_eq!(first, y.narrow(0, 3, 1).into_data(), "the mask is shared by the batch");
    }

    #[test]
    fn stochastic_depth_drops_whole_samples() {
        let y = StochasticDepth::new(0.5).forward(ones());
        let per_sample = y.mean_dim(3).mean_dim(2).mean_dim(1).into_data().try_to_vec::<f32>().unwrap();
        assert!(per_sample.iter().all(|m| *m == 0.0 || (*m - 2.0).abs() < 1e-5), "{per_sample:?}");
    }

    #[test]
    fn dropout_zeroes_its_rate_and_keeps_the_mean() {
        let (zeros, mean) = shares(Dropout::new(0.2).forward(ones()));
        assert!((zeros - 0.2).abs() < 0.01 && (mean - 1.0).abs() < 0.02, "{zeros} {mean}");
    }

    #[test]
    fn nothing_is_dropped_outside_training() {
        let x = Tensor::<4>::ones([1, 2, 4, 4], &Device::flex());
        for y in [
            Dropout::new(0.9).forward(x.clone()),
            StochasticDepth::new(0.9).forward(x.clone()),
            DropBlock::new(0.9, 3).forward(x.clone()),
        ] {
            assert_eq!(y.into_data(), x.to_data());
        }
        let frozen = DropBlock::new(0.9, 3).freeze();
        assert_eq!(frozen.forward(ones()).into_data(), ones().into_data(), "frozen layers do not drop");
    }
}
