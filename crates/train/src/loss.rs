//! The losses of both papers' recipes, as Burn computes and differentiates them.
//!
//! All read logits `[n, classes]` and targets `[n, classes]`: a distribution over the classes (one-hot, smoothed by
//! ResNeSt's equation 4, mixed), or 0 and 1 for each class where images have many labels.

use crate::recipe::{self, Recipe};
use burn::tensor::activation::{log_sigmoid, log_softmax, sigmoid, softplus};
use burn::tensor::{Int, Tensor, TensorData};

/// What is minimised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// The loss on the logits.
    pub kind: LossKind,
    /// What [`triplet`] on the embeddings counts beside it, for fine-grained classes (TResNet section 4.1); 0 leaves it
    /// out.
    pub triplet: f64,
}

/// The loss on the logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LossKind {
    /// `-sum(t log softmax(x))`, averaged over the images.
    CrossEntropy,
    /// `-t log s(x) - (1 - t) log(1 - s(x))` with the sigmoid `s`, averaged over images and classes.
    BinaryCrossEntropy {
        /// Targets above this count as 1, others as 0.
        threshold: Option<f64>,
    },
    /// The asymmetric focal loss, for images with many labels.
    Asymmetric(Asymmetric),
}

impl From<LossKind> for Loss {
    fn from(kind: LossKind) -> Self {
        Self { kind, triplet: 0.0 }
    }
}

/// The two-gamma focal loss of TResNet's section 4.2, in its authors' published form.
///
/// With `p = s(x)` and `q = min(1 - p + margin, 1)`, the sum over images and classes of
/// `-t (1 - p)^positive log p - (1 - t) (1 - q)^negative log q`. As in the authors' training script no gradient flows
/// through the two powers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asymmetric {
    /// Gamma of the labels that are there.
    pub positive: f64,
    /// Gamma of the labels that are not.
    pub negative: f64,
    /// Probabilities up to this count as 0 where the label is not there.
    pub margin: f64,
}

impl Default for Asymmetric {
    /// The authors' values for MS-COCO: 0, 4 and 0.05.
    fn default() -> Self {
        Self { positive: 0.0, negative: 4.0, margin: 0.05 }
    }
}

/// What a loss reads.
#[derive(Clone, Debug)]
pub struct LossInput<'a> {
    /// `[n, classes]`
    pub logits: Tensor<2>,
    /// `[n, classes]`
    pub targets: Tensor<2>,
    /// `[n, features]`, the pooled features before the classifier; read by the triplet loss only.
    pub embeddings: Option<Tensor<2>>,
    /// The class of each image, for the triplet loss.
    pub labels: &'a [u32],
}

impl Loss {
    /// The loss of a recipe.
    pub fn from_recipe(recipe: &Recipe) -> Self {
        let table = &recipe.loss;
        let kind = match table.loss {
            recipe::Loss::CrossEntropy => LossKind::CrossEntropy,
            recipe::Loss::Bce => LossKind::BinaryCrossEntropy { threshold: table.bce_target_thresh },
            recipe::Loss::Asymmetric => LossKind::Asymmetric(Asymmetric {
                positive: table.gamma_pos,
                negative: table.gamma_neg,
                margin: table.prob_shift,
            }),
        };
        Self { kind, triplet: table.triplet }
    }

    /// Whether [`LossInput::embeddings`] and [`LossInput::labels`] are read.
    pub fn needs_embeddings(&self) -> bool {
        self.triplet > 0.0
    }

    /// The loss, one number.
    ///
    /// # Panics
    ///
    /// If the triplet loss gets no embeddings.
    pub fn forward(&self, input: LossInput<'_>) -> Tensor<1> {
        let LossInput { logits, targets, embeddings, labels } = input;
        let loss = match self.kind {
            LossKind::CrossEntropy => cross_entropy(logits, targets),
            LossKind::BinaryCrossEntropy { threshold } => {
                let hard = |threshold| targets.clone().greater_elem(threshold).float();
                binary_cross_entropy(logits, threshold.map_or(targets.clone(), hard))
            }
            LossKind::Asymmetric(settings) => asymmetric(logits, targets, settings),
        };
        if !self.needs_embeddings() {
            return loss;
        }
        let embeddings = embeddings.expect("the triplet loss reads embeddings");
        loss + triplet(embeddings, labels) * self.triplet
    }
}

fn cross_entropy(logits: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    -(targets * log_softmax(logits, 1)).sum_dim(1).mean()
}

fn binary_cross_entropy(logits: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    let absent = (-targets.clone() + 1.0) * log_sigmoid(-logits.clone());
    -(targets * log_sigmoid(logits) + absent).mean()
}

fn asymmetric(logits: Tensor<2>, targets: Tensor<2>, settings: Asymmetric) -> Tensor<1> {
    const LEAST: f64 = 1e-8;
    let present = sigmoid(logits);
    let absent = (-present.clone() + (1.0 + settings.margin)).clamp_max(1.0);
    let not = -targets.clone() + 1.0;
    let power = |base: Tensor<2>, gamma: f64| {
        let base = (-base + 1.0).detach();
        if gamma == 0.0 { base.ones_like() } else { base.powf_scalar(gamma as f32) }
    };
    let focus = targets.clone() * power(present.clone(), settings.positive)
        + not.clone() * power(absent.clone(), settings.negative);
    let terms = targets * present.clamp_min(LEAST).log() + not * absent.clamp_min(LEAST).log();
    -(terms * focus).sum()
}

/// The weighted soft-margin triplet loss (Ristani and Tomasi 2018, on Hermans et al. 2017): hard pairs count most.
///
/// For each image, `softplus(sum_p w_p d_p - sum_n w_n d_n)` over the other images `p` of its class and the images `n`
/// of other classes, with Euclidean distances `d`, `w_p` their softmax over the positives and `w_n` the softmax of `-d`
/// over the negatives. The mean over the images that have both; 0 if none has. The weights carry no gradient.
///
/// # Shapes
///
/// - `embeddings`: `[n, features]`; `labels`: `n` classes
///
/// # Panics
///
/// If there is not one label for each embedding.
pub fn triplet(embeddings: Tensor<2>, labels: &[u32]) -> Tensor<1> {
    let [n, _] = embeddings.dims();
    assert_eq!(labels.len(), n, "one label for each embedding");
    let device = embeddings.device();
    let pairs = |of: &dyn Fn(usize, usize) -> bool| {
        let mask: Vec<f32> = (0..n * n).map(|i| f32::from(u8::from(of(i / n, i % n)))).collect();
        Tensor::<2>::from_data(TensorData::new(mask, [n, n]), &device)
    };
    let positive = pairs(&|a, b| a != b && labels[a] == labels[b]);
    let negative = pairs(&|a, b| labels[a] != labels[b]);
    let complete: Vec<i64> = (0..n)
        .filter(|&a| {
            let same = labels.iter().filter(|&&label| label == labels[a]).count();
            (2..n).contains(&same)
        })
        .map(|a| a as i64)
        .collect();
    if complete.is_empty() {
        return embeddings.sum() * 0.0;
    }
    let distances = distances(embeddings);
    let hardest = |mask: Tensor<2>, sign: f64| {
        let weights = masked_softmax(distances.clone().detach() * sign, mask);
        (distances.clone() * weights).sum_dim(1)
    };
    let margins = hardest(positive, 1.0) - hardest(negative, -1.0);
    let count = complete.len();
    let rows = Tensor::<1, Int>::from_data(TensorData::new(complete, [count]), &device);
    softplus(margins.select(0, rows), 1.0).mean()
}

/// Euclidean distances between all rows, `[n, features]` -> `[n, n]`.
fn distances(x: Tensor<2>) -> Tensor<2> {
    let squares = (x.clone() * x.clone()).sum_dim(1);
    let square = squares.clone() + squares.transpose() - x.clone().matmul(x.transpose()) * 2.0;
    // The root has no derivative at 0, where an image meets itself.
    square.clamp_min(1e-12).sqrt()
}

/// The softmax of each row over the places where `mask` is 1, and 0 elsewhere.
fn masked_softmax(x: Tensor<2>, mask: Tensor<2>) -> Tensor<2> {
    let hidden = (-mask.clone() + 1.0) * -1e9;
    let x = x * mask.clone() + hidden;
    let largest = x.clone().max_dim(1);
    let exp = (x - largest).exp() * mask;
    exp.clone() / exp.sum_dim(1).clamp_min(1e-12)
}
