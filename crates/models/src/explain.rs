//! Grad-CAM (Selvaraju et al., arXiv:1610.02391): where in a feature map the evidence for a class lies, by the gradient
//! of the class's logit.

use crate::weights::freeze;
use crate::{Backbone, Model, ModelError};
use burn::module::Module;
use burn::tensor::{Device, Tensor};

/// A network from which Grad-CAMs are taken: on an autodiff device, with the norms of inference.
#[derive(Debug)]
pub struct GradCam {
    model: Model,
    device: Device,
}

/// A feature map of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The output of a stage, by its place in [`Backbone::feature_names`].
    Stage(usize),
    /// The map that is pooled for the classifier: the last stage's, behind the last convolution where there is one.
    Last,
}

/// The Grad-CAMs of a batch, before anything is scaled.
#[derive(Clone, Debug)]
pub struct GradMaps {
    /// `[n, h, w]`, never negative: the sum of the channels, each weighted by its mean gradient, and negative sums cut
    /// to 0 (equations 1 and 2).
    pub maps: Tensor<3>,
    /// `[n, classes]`.
    pub logits: Tensor<2>,
}

impl GradCam {
    /// Moves `model` to the autodiff device of `device`, and freezes it.
    pub fn new(model: Model, device: &Device) -> Self {
        let device = if device.is_autodiff() { device.clone() } else { device.clone().autodiff() };
        Self { model: freeze(model.to_device(&device), |_| true), device }
    }

    /// The network.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Where inputs must be.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The Grad-CAM of each image of `x`, `[n, in, h, w]`, for the class in `classes`, at `layer`.
    ///
    /// # Errors
    ///
    /// The network does not take such images, has no such class or no such stage, or there are not as many classes as
    /// images.
    pub fn run(&self, x: Tensor<4>, classes: &[usize], layer: Layer) -> Result<GradMaps, ModelError> {
        let shape = x.dims();
        let [n, ..] = self.model.check_input(&shape)?;
        let fail = |reason: String| ModelError::Input {
            model: self.model.variant().name.into(),
            shape: shape.to_vec(),
            reason,
        };
        let stages = self.model.feature_info().len();
        if let Layer::Stage(stage) = layer
            && stage >= stages
        {
            return Err(fail(format!("it has {stages} stages, and none of number {stage}")));
        }
        let count = self.model.num_classes();
        if classes.len() != n || classes.iter().any(|&class| class >= count) {
            return Err(fail(format!("each image needs a class below {count}; {classes:?} are given")));
        }
        let mut map = None;
        // What comes before the map needs no gradient, so the tape starts at a copy of it.
        let mut start = |x: Tensor<4>| {
            let leaf = x.detach().require_grad();
            map = Some(leaf.clone());
            leaf
        };
        let features = match layer {
            Layer::Stage(stage) => {
                let x = self.model.stages(x, &mut |place, x| if place == stage { start(x) } else { x });
                self.model.last_conv(x)
            }
            Layer::Last => start(self.model.forward_features(x)),
        };
        let logits = self.model.forward_head(features, false);
        let chosen = classes
            .iter()
            .enumerate()
            .map(|(image, &class)| logits.clone().slice([image..image + 1, class..class + 1]).reshape([1]));
        // Images do not touch each other, so the gradient of the sum is each one's own.
        let sum = Tensor::<1>::cat(chosen.collect(), 0).sum();
        let gradients = sum.backward();
        let map = map.ok_or_else(|| fail("its stages skip the chosen one".into()))?;
        let gradient =
            map.grad(&gradients).ok_or_else(|| fail("its logits do not depend on the map".into()))?;
        let map = map.inner();
        let [n, c, h, w] = map.dims();
        let weights = gradient.reshape([n, c, h * w]).mean_dim(2).reshape([n, c, 1, 1]);
        let maps = (map * weights).sum_dim(1).reshape([n, h, w]).clamp_min(0.0);
        Ok(GradMaps { maps, logits: logits.inner() })
    }
}
