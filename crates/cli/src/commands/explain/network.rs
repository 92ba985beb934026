//! A network that explains itself: its logits, its attention, and a map for a class.

use super::attention::Unit;
use super::choice::{LAST, layer};
use crate::exit::Usage;
use crate::network::Network;
use anyhow::Context;
use cardinal_engine::explain::{Attention, ClassMaps, normalise};
use cardinal_engine::passes;
use cardinal_engine::plan::{Options, Plan};
use cardinal_engine::run::Session;
use cardinal_models::burn::tensor::{Device, Shape, Tensor, TensorData};
use cardinal_models::explain::{GradCam, Layer};
use clap::ValueEnum;
use std::sync::Arc;

/// How the map is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Method {
    /// The classifier's weights on the last feature map; compiled, and as fast as a prediction
    Cam,
    /// The gradient of the class's logit at any layer (Grad-CAM); for networks of any head
    Gradcam,
}

impl Method {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cam => "cam",
            Self::Gradcam => "gradcam",
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Cam => "class-activation map",
            Self::Gradcam => "Grad-CAM",
        }
    }
}

/// A map over the network's input.
#[derive(Clone, Debug)]
pub(super) struct Map {
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// As computed: a class-activation map's mean and the bias are the logit.
    pub(super) raw: Vec<f32>,
    /// In [0, 1], for the picture.
    pub(super) values: Vec<f32>,
}

impl Map {
    fn new(rows: usize, columns: usize, raw: Vec<f32>) -> Self {
        let mut values = raw.clone();
        normalise(&mut values);
        Self { rows, columns, raw, values }
    }
}

/// A network ready for images of one size.
pub(super) struct Explainer {
    session: Session,
    maps: Option<ClassMaps>,
    attention: Vec<Attention>,
    gradients: Option<(GradCam, Layer)>,
    size: [usize; 3],
    /// What the map is of.
    pub(super) layer: String,
}

impl Explainer {
    /// Compiles `network` for one image of `size`, channels, height and width, with what `method` needs.
    pub(super) fn new(
        network: Network,
        size: [usize; 3],
        method: Method,
        wanted: Option<&str>,
        options: &Options,
    ) -> anyhow::Result<Self> {
        let mut layer_name = LAST.to_owned();
        let gradients = match (method, &network) {
            (Method::Cam, _) => None,
            (Method::Gradcam, Network::Graphs(_)) => {
                let text = "a compiled file has no gradients; use --method cam, or the network's own weights";
                return Err(Usage(text.into()).into());
            }
            (Method::Gradcam, Network::Module(model)) => {
                let layer = layer(wanted.unwrap_or(LAST), &**model)?;
                wanted.unwrap_or(LAST).clone_into(&mut layer_name);
                Some((GradCam::new(model.as_ref().clone(), &Device::flex()), layer))
            }
        };
        let mut graph = network.graph(size)?;
        let attention = Attention::attach(&mut graph);
        let maps = match method {
            Method::Cam => {
                let advice = "use --method gradcam, which needs no such head";
                Some(ClassMaps::attach(&mut graph).map_err(|error| Usage(format!("{error}; {advice}")))?)
            }
            Method::Gradcam => None,
        };
        let plan = Plan::new(passes::optimize(graph)?.graph, options)?;
        let session = Session::new(Arc::new(plan), true);
        Ok(Self { session, maps, attention, gradients, size, layer: layer_name })
    }

    /// The logits of one image, and what its attention chose.
    pub(super) fn look(&mut self, input: &[f32]) -> anyhow::Result<(Vec<f32>, Vec<Unit>)> {
        let outputs = self.session.run(&[input])?;
        let unit = |unit: &Attention| Ok(Unit::new(unit, &unit.weights(outputs.get(unit.output))?));
        let units = self.attention.iter().map(unit).collect::<anyhow::Result<_>>()?;
        Ok((outputs.get(0).to_vec(), units))
    }

    /// The map of `class` for one image.
    pub(super) fn map(&mut self, input: &[f32], class: usize) -> anyhow::Result<Map> {
        if let Some(maps) = &self.maps {
            let outputs = self.session.run(&[input])?;
            return Ok(Map::new(maps.height(), maps.width(), maps.map(outputs.get(maps.output()), class)?));
        }
        let (network, layer) = self.gradients.as_ref().context("one of the methods was chosen")?;
        let [c, h, w] = self.size;
        let data = TensorData::new(input.to_vec(), Shape::from([1, c, h, w]));
        let maps = network.run(Tensor::from_data(data, network.device()), &[class], *layer)?.maps;
        let [_, rows, columns] = maps.dims();
        let raw = maps.into_data().try_to_vec::<f32>().context("reading the map")?;
        Ok(Map::new(rows, columns, raw))
    }
}
