//! A network's answers to the images of a split.
//!
//! Weights do not change while they are evaluated, so on the processor the network is compiled: that takes a fraction
//! of a second and runs several times faster than Burn. Other devices run the plain module.

use crate::TrainError;
use crate::device::DeviceKind;
use burn::tensor::{Device, Shape, Tensor, TensorData};
use cardinal_bridge::capture;
use cardinal_engine::passes::optimize;
use cardinal_engine::plan::{Options, Plan};
use cardinal_engine::run::Session;
use cardinal_engine::{DType, Isa};
use cardinal_models::registry::Variant;
use cardinal_models::weights::{Classifier, load, options_in, tensor_names};
use cardinal_models::{Backbone, Model, ModelError};
use cardinal_weights::NamedTensors;
use std::sync::Arc;

/// A network whose weights stay as they are.
pub struct Frozen {
    size: [usize; 3],
    batch: usize,
    kind: Kind,
}

enum Kind {
    Compiled(Box<Session>),
    Eager(Box<Model>, Device),
}

impl Frozen {
    /// `variant` with the weights `tensors`, for batches of at most `batch` images of `[channels, height, width]`; on
    /// the processor with `threads` threads, whose number the last bits of the results depend on.
    ///
    /// # Errors
    ///
    /// The weights are not the network's, or the device is not there.
    pub fn new(
        variant: &'static Variant,
        tensors: &NamedTensors,
        batch: usize,
        size: [usize; 3],
        device: DeviceKind,
        threads: usize,
    ) -> Result<Self, TrainError> {
        let place = device.open()?;
        let model = Model::new(variant, &options_in(variant, tensors), &place);
        let (model, _) = load(model, tensors, Classifier::MustFit)?;
        let [c, h, w] = size;
        model.check_input(&[1, c, h, w])?;
        if device != DeviceKind::Cpu {
            return Ok(Self { size, batch, kind: Kind::Eager(Box::new(model), place) });
        }
        let forward = |model: &Model, x| model.forward(x);
        let graph = capture(variant.name, model, [1, c, h, w], tensor_names, forward)
            .map_err(|error| ModelError::Capture { model: variant.name.into(), reason: error.to_string() })?;
        let options = Options { batch, dtype: DType::F32, threads, isa: Isa::best() };
        let plan = Plan::new(optimize(graph)?.graph, &options)?;
        Ok(Self { size, batch, kind: Kind::Compiled(Box::new(Session::new(Arc::new(plan), false))) })
    }

    /// The logits of `images`, `[n, channels, height, width]` with any `n`: `[n, classes]`.
    ///
    /// # Errors
    ///
    /// The device fails.
    pub fn run(&mut self, images: &[f32]) -> Result<Vec<f32>, TrainError> {
        let image: usize = self.size.iter().product();
        let mut logits = Vec::new();
        for group in images.chunks(self.batch * image) {
            match &mut self.kind {
                Kind::Compiled(session) => logits.extend_from_slice(session.run(&[group])?.get(0)),
                Kind::Eager(model, device) => {
                    let [c, h, w] = self.size;
                    let shape = Shape::from([group.len() / image, c, h, w]);
                    let x = Tensor::<4>::from_data(TensorData::new(group.to_vec(), shape), &*device);
                    let fail = |error: String| TrainError::Device(error);
                    let data = model.forward(x).try_into_data().map_err(|error| fail(error.to_string()))?;
                    let data = data.convert::<f32>().try_to_vec::<f32>();
                    logits.extend(data.map_err(|error| fail(format!("{error:?}")))?);
                }
            }
        }
        Ok(logits)
    }
}
