//! What an ONNX file says about the network: for programs as metadata, for people as documentation.

use crate::classes;
use crate::network::Loaded;
use crate::package::{MULTI_LABEL, PROBLEM_TYPE};
use cardinal_models::registry::{CropMode, Interpolation, Pretrained};
use serde_json::json;

pub(super) struct Notes {
    config: Pretrained,
    size: usize,
    chans: usize,
    classes: Vec<String>,
    multi_label: bool,
    name: String,
    source: Option<String>,
}

impl Notes {
    /// `source` says where published weights come from.
    pub(super) fn new(loaded: &Loaded, size: usize, source: Option<String>) -> anyhow::Result<Self> {
        let classes = match loaded.network.num_classes() {
            0 => Vec::new(),
            count => classes::names(loaded.classes.clone(), count)?,
        };
        Ok(Self {
            config: loaded.preprocessing.clone(),
            size,
            chans: loaded.network.in_chans(),
            classes,
            multi_label: loaded.multi_label,
            name: loaded.preprocessing.model.clone(),
            source,
        })
    }

    /// `metadata_props`, in the terms of timm's configurations; lists are JSON. docs/onnx.md has the table.
    pub(super) fn metadata(&self) -> Vec<(String, String)> {
        let config = &self.config;
        let mut metadata = vec![
            ("model_name", self.name.clone()),
            ("input_size", json!([self.chans, self.size, self.size]).to_string()),
            ("mean", format!("{:?}", config.mean)),
            ("std", format!("{:?}", config.std)),
            ("crop_pct", config.crop_pct.to_string()),
            ("crop_mode", self.crop_mode().into()),
            ("interpolation", self.interpolation().into()),
            ("num_classes", self.classes.len().to_string()),
            ("classes", json!(self.classes).to_string()),
            (PROBLEM_TYPE, if self.multi_label { MULTI_LABEL } else { "single_label_classification" }.into()),
        ];
        metadata.extend(self.source.iter().map(|source| ("source", source.clone())));
        metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// What the network is.
    pub(super) fn model(&self) -> String {
        let weights = self.source.as_ref().map_or_else(String::new, |source| format!(" ({source})"));
        let function = if self.multi_label { "sigmoid of each" } else { "softmax of all" };
        format!(
            "{}{weights}: image to logits of {} classes; the {function} gives probabilities. metadata_props has the class \
             names and how images are prepared.",
            self.name,
            self.classes.len()
        )
    }

    /// What the input must be.
    pub(super) fn input(&self) -> String {
        let Self { config, size, .. } = self;
        let filter = self.interpolation();
        let scaled = (*size as f64 / config.crop_pct).floor();
        let crop = match config.crop_mode {
            CropMode::Center => {
                format!(
                    "shorter side resized to {scaled} pixels ({filter}, antialiased), centre {size}x{size} cropped"
                )
            }
            CropMode::Squash => {
                format!(
                    "resized to {scaled}x{scaled} pixels whatever its proportions ({filter}, antialiased), centre {size}x{size} cropped"
                )
            }
            CropMode::Border => {
                format!(
                    "longer side resized to {scaled} pixels ({filter}, antialiased), centred in {size}x{size} with a border"
                )
            }
        };
        format!(
            "RGB image, planes in the order red, green, blue: {crop}; divided by 255, less the mean {:?}, divided by the \
             deviation {:?}.",
            config.mean, config.std
        )
    }

    fn crop_mode(&self) -> &'static str {
        match self.config.crop_mode {
            CropMode::Center => "center",
            CropMode::Squash => "squash",
            CropMode::Border => "border",
        }
    }

    fn interpolation(&self) -> &'static str {
        match self.config.interpolation {
            Interpolation::Bilinear => "bilinear",
            Interpolation::Bicubic => "bicubic",
        }
    }
}
