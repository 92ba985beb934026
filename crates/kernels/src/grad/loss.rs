//! Losses on logits and their gradients, in one go.
//!
//! Logits are few beside feature maps, so the sums are taken in `f64` by plain loops: the loss keeps all its digits, and
//! is the same on every level and for every number of threads.

use crate::work::{In, LARGEST, Out, check_length};
use crate::{KernelError, Pool};

const NAME: &str = "loss";

/// What is minimised for an image with logits `x` and targets `t` over the classes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LossRule {
    /// `-sum(t log softmax(x))`, for targets of any sum.
    CrossEntropy,
    /// `-sum(t log s(x) + (1 - t) log(1 - s(x)))` with the sigmoid `s`.
    BinaryCrossEntropy {
        /// Targets above this count as 1, others as 0.
        threshold: Option<f32>,
    },
    /// `-sum(t (1 - p)^positive log p + (1 - t) (1 - q)^negative log q)` with `p = s(x)` and `q = min(1 - p + margin, 1)`,
    /// where no gradient flows through the two powers (TResNet section 4.2, as in its authors' training script).
    Asymmetric {
        /// Gamma of the labels that are there.
        positive: f64,
        /// Gamma of the labels that are not.
        negative: f64,
        /// Probabilities up to this count as 0 where the label is not there.
        margin: f64,
    },
}

/// A loss on logits `[images, classes]`.
#[derive(Clone, Debug)]
pub struct LogitLoss {
    rule: LossRule,
    classes: usize,
}

/// The memory of one call of [`LogitLoss`].
#[derive(Debug)]
pub struct LossIo<'a> {
    /// `[images, classes]`; finite.
    pub logits: &'a [f32],
    /// `[images, classes]`
    pub targets: &'a [f32],
    /// What the gradient is multiplied by: for the mean over images, one over their number.
    pub scale: f64,
    /// The loss of each image, `[images]`.
    pub losses: &'a mut [f32],
    /// The gradient of the logits, `[images, classes]`.
    pub grad: &'a mut [f32],
}

impl LogitLoss {
    /// Over `classes` classes.
    ///
    /// # Errors
    ///
    /// There are none, or too many.
    pub fn new(rule: LossRule, classes: usize) -> Result<Self, KernelError> {
        if classes == 0 || classes >= LARGEST {
            return Err(KernelError::spec(NAME, format!("{classes} classes")));
        }
        Ok(Self { rule, classes })
    }

    /// Computes losses and gradients of `images` images, and returns the sum of the losses, to which `scale` was not
    /// applied.
    ///
    /// # Errors
    ///
    /// A slice is too short.
    pub fn run(&self, pool: &Pool, images: usize, io: LossIo<'_>) -> Result<f64, KernelError> {
        let LossIo { logits, targets, scale, losses, grad } = io;
        check_length(NAME, "logits", logits.len(), images, self.classes)?;
        check_length(NAME, "targets", targets.len(), images, self.classes)?;
        check_length(NAME, "losses", losses.len(), images, 1)?;
        check_length(NAME, "gradient", grad.len(), images, self.classes)?;
        let (sums, rows) = (Out::new(losses), Out::new(grad));
        pool.for_each(images, |image| {
            let at = image * self.classes..(image + 1) * self.classes;
            // SAFETY: the lengths were checked, and each image is one worker's.
            let (grad, sum) =
                unsafe { (std::slice::from_raw_parts_mut(rows.at(at.start), self.classes), sums.at(image)) };
            let loss = self.row(&logits[at.clone()], &targets[at], scale, grad);
            // SAFETY: as above.
            unsafe { sum.write(loss as f32) };
        });
        // SAFETY: the length was checked, and the workers are done.
        let losses = unsafe { std::slice::from_raw_parts(In::of(sums).at(0), images) };
        Ok(losses.iter().map(|&loss| f64::from(loss)).sum())
    }

    fn row(&self, logits: &[f32], targets: &[f32], scale: f64, grad: &mut [f32]) -> f64 {
        let each = |term: &dyn Fn(f64, f64) -> (f64, f64), grad: &mut [f32]| {
            let mut loss = 0.0;
            for ((x, t), grad) in logits.iter().zip(targets).zip(grad) {
                let (term, slope) = term(f64::from(*x), f64::from(*t));
                loss += term;
                *grad = (slope * scale) as f32;
            }
            loss
        };
        match self.rule {
            LossRule::CrossEntropy => {
                let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
                let all: f64 = logits.iter().map(|&x| (f64::from(x) - largest).exp()).sum();
                let target: f64 = targets.iter().map(|&t| f64::from(t)).sum();
                let (share, log) = (target / all, all.ln());
                each(&|x, t| (t * (log + largest - x), share * (x - largest).exp() - t), grad)
            }
            LossRule::BinaryCrossEntropy { threshold } => each(
                &|x, t| {
                    let t = threshold.map_or(t, |threshold| f64::from(u8::from(t > f64::from(threshold))));
                    (x.max(0.0) - x * t + (-x.abs()).exp().ln_1p(), sigmoid(x) - t)
                },
                grad,
            ),
            LossRule::Asymmetric { positive, negative, margin } => {
                each(&|x, t| asymmetric(x, t, [positive, negative], margin), grad)
            }
        }
    }
}

/// Without overflow on either side.
fn sigmoid(x: f64) -> f64 {
    let e = (-x.abs()).exp();
    if x >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
}

/// One term of the asymmetric loss and its slope. Logarithms stop at 1e-8, where their slope is zero.
fn asymmetric(x: f64, t: f64, [positive, negative]: [f64; 2], margin: f64) -> (f64, f64) {
    const LEAST: f64 = 1e-8;
    let (p, absent) = (sigmoid(x), sigmoid(-x));
    let q = (absent + margin).min(1.0);
    let focus = [t * absent.powf(positive), (1.0 - t) * (1.0 - q).powf(negative)];
    let loss = -focus[0] * p.max(LEAST).ln() - focus[1] * q.max(LEAST).ln();
    let rise = if p > LEAST { absent } else { 0.0 };
    let fall = if q > LEAST && q < 1.0 { p * absent / q } else { 0.0 };
    (loss, focus[1] * fall - focus[0] * rise)
}
