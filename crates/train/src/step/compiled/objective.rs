//! The loss between the two passes of a compiled step: read from the outputs, and turned into their gradients.

use super::triplet::triplet;
use crate::TrainError;
use crate::loss::{Asymmetric, Loss, LossKind};
use crate::step::StepInput;
use cardinal_engine::Pool;
use cardinal_engine::train::{LogitLoss, LossIo, LossRule};

/// What [`crate::loss`] defines, by kernels.
pub(super) struct Objective {
    kind: LossKind,
    triplet: f64,
    classes: usize,
    rule: LogitLoss,
    losses: Vec<f32>,
    /// Of the logits, and of the embeddings if the triplet loss reads them.
    gradients: Vec<Vec<f32>>,
}

impl Objective {
    pub(super) fn new(loss: Loss, classes: usize) -> Result<Self, TrainError> {
        let rule = match loss.kind {
            LossKind::CrossEntropy => LossRule::CrossEntropy,
            LossKind::BinaryCrossEntropy { threshold } => {
                LossRule::BinaryCrossEntropy { threshold: threshold.map(|threshold| threshold as f32) }
            }
            LossKind::Asymmetric(Asymmetric { positive, negative, margin }) => {
                LossRule::Asymmetric { positive, negative, margin }
            }
        };
        let rule = LogitLoss::new(rule, classes).map_err(failed)?;
        let gradients = vec![Vec::new(); 1 + usize::from(loss.needs_embeddings())];
        Ok(Self { kind: loss.kind, triplet: loss.triplet, classes, rule, losses: Vec::new(), gradients })
    }

    /// The loss of the outputs (logits, and embeddings if they are read); [`Objective::gradients`] has their gradients
    /// afterwards.
    pub(super) fn run(
        &mut self,
        pool: &Pool,
        outputs: &[Vec<f32>],
        batch: StepInput<'_>,
    ) -> Result<f64, TrainError> {
        for (gradient, output) in self.gradients.iter_mut().zip(outputs) {
            gradient.clear();
            gradient.resize(output.len(), 0.0);
        }
        let images = batch.size[0];
        self.losses.resize(images, 0.0);
        let scale = match self.kind {
            LossKind::CrossEntropy => 1.0 / images as f64,
            LossKind::BinaryCrossEntropy { .. } => 1.0 / (images * self.classes) as f64,
            LossKind::Asymmetric(_) => 1.0,
        };
        let io = LossIo {
            logits: &outputs[0],
            targets: batch.targets,
            scale,
            losses: &mut self.losses,
            grad: &mut self.gradients[0],
        };
        let mut loss = self.rule.run(pool, images, io).map_err(failed)? * scale;
        if let [_, embeddings] = outputs {
            loss += self.triplet * triplet(embeddings, batch.labels, self.triplet, &mut self.gradients[1]);
        }
        Ok(loss)
    }

    /// Whether [`StepInput::labels`] are read.
    pub(super) fn needs_labels(&self) -> bool {
        self.gradients.len() > 1
    }

    /// The gradient of each output.
    pub(super) fn gradients(&self) -> Vec<&[f32]> {
        self.gradients.iter().map(Vec::as_slice).collect()
    }
}

fn failed(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> TrainError {
    TrainError::Device(source.into().to_string())
}
