//! One step of an optimizer over all parameters in one pass: the gradient's scale (clipping), weight decay, the rule, and
//! the running average of the parameters.
//!
//! Each number is updated by the operations that PyTorch does, in its order and each rounded by itself, so the result is
//! the same to the bit on every level and for every number of threads. The loops are plain: the compiler makes vectors of
//! them for the level that they are inlined into, and memory is what they wait for.

use crate::simd::{Kernel, Simd};
use crate::work::Out;
use crate::{Isa, KernelError, Line, Pool};

const NAME: &str = "update";

/// Numbers that are taken through all operations at once, in the first cache.
const BLOCK: usize = 1024;

/// The rule of an update. Rates are rounded to `f32` once, as Python does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UpdateRule {
    /// `b = momentum b + g`, `p -= lr b`; with Nesterov `p -= lr (g + momentum b)`. Without memory for `b` the momentum
    /// must be zero: `p -= lr g`.
    Sgd {
        /// Share of the last direction that is kept.
        momentum: f64,
        /// Step from where the momentum leads.
        nesterov: bool,
    },
    /// Adam with bias correction.
    Adam {
        /// Shares of the old first and second moment that are kept.
        betas: [f64; 2],
        /// Added to the square root of the second moment.
        epsilon: f64,
        /// Updates done, this one included.
        updates: u64,
    },
}

/// How weights are kept small.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decay {
    /// Not at all.
    None,
    /// The rate times the weight is added to the gradient.
    Coupled(f64),
    /// The weight shrinks by `lr` times the rate before the update (AdamW).
    Decoupled(f64),
}

/// One step of an optimizer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// The rule.
    pub rule: UpdateRule,
    /// The learning rate.
    pub lr: f64,
    /// Weight decay.
    pub decay: Decay,
    /// What gradients are multiplied by first: see [`clip_scale`].
    pub grad_scale: f32,
    /// Share of the running average that is kept.
    pub average: f64,
}

/// The memory of one [`Update`]: slices of one length, or empty where nothing is kept.
#[derive(Debug)]
pub struct UpdateIo<'a> {
    /// The parameters.
    pub values: &'a mut [f32],
    /// Their gradients.
    pub grad: &'a [f32],
    /// The momentum (SGD) or first moment (Adam).
    pub first: &'a mut [f32],
    /// The second moment; empty for SGD.
    pub second: &'a mut [f32],
    /// The running average of the parameters; may be empty.
    pub average: &'a mut [f32],
}

impl Update {
    /// Updates parameters and state.
    ///
    /// # Errors
    ///
    /// The lengths differ, or memory that the rule needs is missing.
    pub fn run(&self, pool: &Pool, isa: Isa, io: UpdateIo<'_>) -> Result<(), KernelError> {
        let UpdateIo { values, grad, first, second, average } = io;
        let count = values.len();
        let plain = matches!(self.rule, UpdateRule::Sgd { momentum: 0.0, .. });
        let adam = matches!(self.rule, UpdateRule::Adam { .. });
        let state = [("first", first.len(), plain), ("second", second.len(), !adam)];
        for (operand, found, optional) in
            [("gradient", grad.len(), false), ("average", average.len(), true)].into_iter().chain(state)
        {
            if found != count && !(optional && found == 0) {
                return Err(KernelError::Length { kernel: NAME, operand, found, expected: count });
            }
        }
        let numbers = Numbers::new(self);
        let lengths = [first.len(), second.len(), average.len()];
        let slices = [Out::new(values), Out::new(first), Out::new(second), Out::new(average)];
        pool.for_each(count.div_ceil(BLOCK), |block| {
            let (start, end) = (block * BLOCK, count.min((block + 1) * BLOCK));
            // SAFETY: a block lies in each slice that is not empty, and one worker has it.
            let slice = |index: usize, empty: bool| unsafe {
                let len = if empty { 0 } else { end - start };
                let first = slices[index].at(if empty { 0 } else { start });
                std::slice::from_raw_parts_mut(first, len)
            };
            let block = Block {
                values: slice(0, false),
                grad: &grad[start..end],
                first: slice(1, lengths[0] == 0),
                second: slice(2, lengths[1] == 0),
                average: slice(3, lengths[2] == 0),
                numbers: &numbers,
            };
            // SAFETY: the block holds slices of equal length or empty ones.
            unsafe { isa.call(block) };
        });
        Ok(())
    }
}

/// What an update multiplies with, rounded.
struct Numbers {
    scale: f32,
    coupled: Option<f32>,
    decoupled: Option<f32>,
    /// Of the average, what the new values count.
    share: f32,
    rule: Rule,
}

enum Rule {
    Sgd { lr: f32, momentum: f32, nesterov: bool },
    Adam { step: f32, root: f32, new1: f32, keep2: f32, new2: f32, epsilon: f32 },
}

impl Numbers {
    fn new(update: &Update) -> Self {
        let Update { rule, lr, decay, grad_scale, average } = *update;
        let (coupled, decoupled) = match decay {
            Decay::None => (None, None),
            Decay::Coupled(rate) => (Some(rate as f32), None),
            Decay::Decoupled(rate) => (None, Some((1.0 - lr * rate) as f32)),
        };
        let rule = match rule {
            UpdateRule::Sgd { momentum, nesterov } => {
                Rule::Sgd { lr: lr as f32, momentum: momentum as f32, nesterov }
            }
            UpdateRule::Adam { betas: [beta1, beta2], epsilon, updates } => {
                let power = |beta: f64| 1.0 - beta.powf(updates as f64);
                Rule::Adam {
                    step: (lr / power(beta1)) as f32,
                    root: power(beta2).sqrt() as f32,
                    new1: (1.0 - beta1) as f32,
                    keep2: beta2 as f32,
                    new2: (1.0 - beta2) as f32,
                    epsilon: epsilon as f32,
                }
            }
        };
        Self { scale: grad_scale, coupled, decoupled, share: (1.0 - average) as f32, rule }
    }
}

struct Block<'a> {
    values: &'a mut [f32],
    grad: &'a [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
    average: &'a mut [f32],
    numbers: &'a Numbers,
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { values, grad, first, second, average, numbers } = self;
        let mut scaled = [0.0; BLOCK];
        let grads = &mut scaled[..grad.len()];
        for (to, g) in grads.iter_mut().zip(grad) {
            *to = g * numbers.scale;
        }
        if let Some(keep) = numbers.decoupled {
            for p in values.iter_mut() {
                *p *= keep;
            }
        }
        if let Some(rate) = numbers.coupled {
            for (g, p) in grads.iter_mut().zip(values.iter()) {
                *g += rate * p;
            }
        }
        match numbers.rule {
            Rule::Sgd { lr, .. } if first.is_empty() => {
                for (p, g) in values.iter_mut().zip(grads.iter()) {
                    *p -= lr * g;
                }
            }
            Rule::Sgd { lr, momentum, nesterov: false } => {
                for ((p, g), b) in values.iter_mut().zip(grads.iter()).zip(first) {
                    *b = momentum * *b + g;
                    *p -= lr * *b;
                }
            }
            Rule::Sgd { lr, momentum, nesterov: true } => {
                for ((p, g), b) in values.iter_mut().zip(grads.iter()).zip(first) {
                    *b = momentum * *b + g;
                    *p -= lr * (g + momentum * *b);
                }
            }
            Rule::Adam { step, root, new1, keep2, new2, epsilon } => {
                for (((p, g), m), v) in values.iter_mut().zip(grads.iter()).zip(first).zip(second) {
                    *m += new1 * (g - *m);
                    *v = keep2 * *v + new2 * g * g;
                    *p -= step * (*m / (v.sqrt() / root + epsilon));
                }
            }
        }
        for (a, v) in average.iter_mut().zip(values.iter()) {
            *a += numbers.share * (v - *a);
        }
    }
}

/// What gradients whose norm is `norm` are multiplied by so that it does not exceed `limit`: PyTorch's
/// `clip_grad_norm_`.
#[must_use]
pub fn clip_scale(norm: f64, limit: f64) -> f32 {
    (limit / (norm + 1e-6)).min(1.0) as f32
}

/// Numbers whose squares are one sum.
const SQUARES: usize = 1 << 14;

/// Lines of scratch memory for [`grad_norm`] of `count` numbers.
#[must_use]
pub fn grad_norm_scratch(count: usize) -> usize {
    Line::count(count.div_ceil(SQUARES) * size_of::<f64>())
}

/// The Euclidean norm of all of `grad`, in `f64`. The order of additions depends on the length alone; it is not that of
/// one long loop, from which the result may differ in the last digits of an `f64`.
///
/// # Errors
///
/// The scratch memory is too small.
pub fn grad_norm(pool: &Pool, isa: Isa, grad: &[f32], scratch: &mut [Line]) -> Result<f64, KernelError> {
    crate::error::at_least(NAME, "scratch", scratch.len(), grad_norm_scratch(grad.len()))?;
    let blocks = grad.len().div_ceil(SQUARES);
    let sums = Out::new(scratch);
    pool.for_each(blocks, |block| {
        let numbers = &grad[block * SQUARES..grad.len().min((block + 1) * SQUARES)];
        // SAFETY: there is room for a sum of each block, and one worker has it.
        unsafe { sums.at(0).cast::<f64>().add(block).write(isa.call(Squares(numbers))) };
    });
    // SAFETY: every sum was written, and the workers are done.
    let sums = unsafe { std::slice::from_raw_parts(sums.at(0).cast::<f64>().cast_const(), blocks) };
    Ok(sums.iter().sum::<f64>().sqrt())
}

struct Squares<'a>(&'a [f32]);

impl Kernel for Squares<'_> {
    type Output = f64;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f64 {
        let mut sums = [0.0; 32];
        let (chunks, rest) = self.0.as_chunks::<32>();
        for chunk in chunks {
            for i in 0..32 {
                let x = f64::from(chunk[i]);
                sums[i] += x * x;
            }
        }
        for (sum, x) in sums.iter_mut().zip(rest) {
            *sum += f64::from(*x) * f64::from(*x);
        }
        sums.iter().sum()
    }
}
