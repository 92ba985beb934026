//! What changes over a run, each as a pure function of the step: nothing to save, nothing to restore.
//!
//! A step is one update of the weights, counted from 0 over the whole run; accumulated batches are one step. The values
//! are those that PyTorch's and timm's schedulers have before that update (timm's with `sched_on_updates`).

use std::f64::consts::PI;

use crate::recipe::{Recipe, Scaling, Schedule, ScheduleTable};

/// The learning rate of a run by step.
#[derive(Debug, Clone, PartialEq)]
pub struct LrSchedule {
    table: ScheduleTable,
    peak: f64,
    steps_per_epoch: u64,
}

/// What a step is taken with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// The learning rate.
    pub lr: f64,
    /// SGD's momentum or Adam's first beta, where the schedule moves it (`cycle_momentum`).
    pub momentum: Option<f64>,
}

impl Recipe {
    /// The peak learning rate: `lr`, or `lr_base` scaled with the batch (ResNeSt section 5.2: `batch / 256 * 0.1`), which
    /// counts accumulated batches, and in timm's way takes the square root of the ratio for Adam.
    #[must_use]
    pub fn peak_lr(&self) -> f64 {
        let optimizer = &self.optimizer;
        let batch = (self.data.batch_size * optimizer.grad_accum_steps) as f64;
        let ratio = batch / optimizer.lr_base_size as f64;
        let scaling = optimizer.lr_base_scale.unwrap_or(if optimizer.opt.is_adam() {
            Scaling::Sqrt
        } else {
            Scaling::Linear
        });
        optimizer.lr.unwrap_or(match scaling {
            Scaling::Linear => optimizer.lr_base * ratio,
            Scaling::Sqrt => optimizer.lr_base * ratio.sqrt(),
        })
    }

    /// The epochs that are run: the schedule's, or `stop_epoch` of them.
    #[must_use]
    pub fn run_epochs(&self) -> usize {
        match self.schedule.stop_epoch {
            0 => self.schedule.epochs,
            stop => stop.min(self.schedule.epochs),
        }
    }

    /// DropBlock's rate in an epoch: it rises linearly to `drop_block` in the last one (ResNeSt section 5.2 and its
    /// code, which counts epochs from 1).
    #[must_use]
    pub fn drop_block_rate(&self, epoch: usize) -> f64 {
        let epochs = self.schedule.epochs;
        self.regularization.drop_block * (epoch + 1).min(epochs) as f64 / epochs.max(1) as f64
    }

    /// The share of the old average that the moving average keeps at its `update`-th update, counted from 0: 0 at the
    /// first, so that it starts as a copy, then `model_ema_decay`, to which a warm-up rises as timm's does.
    #[must_use]
    pub fn ema_decay(&self, update: u64) -> f64 {
        let decay = self.ema.model_ema_decay;
        match update {
            0 => 0.0,
            _ if !self.ema.model_ema_warmup => decay,
            _ => (1.0 - (1.0 + update as f64).powf(-2.0 / 3.0)).min(decay),
        }
    }
}

impl LrSchedule {
    /// The schedule of a recipe, where an epoch has `steps_per_epoch` updates.
    #[must_use]
    pub fn new(recipe: &Recipe, steps_per_epoch: usize) -> Self {
        Self {
            table: recipe.schedule.clone(),
            peak: recipe.peak_lr(),
            steps_per_epoch: steps_per_epoch.max(1) as u64,
        }
    }

    /// The steps of the whole schedule (`stop_epoch` may end the run before).
    #[must_use]
    pub fn total_steps(&self) -> u64 {
        self.steps(self.table.epochs)
    }

    /// The rates of the step with this number, counted from 0. Behind the last step they stay as at the end.
    #[must_use]
    pub fn at(&self, step: u64) -> Rates {
        let table = &self.table;
        if table.sched == Schedule::Onecycle {
            return self.one_cycle(step);
        }
        let warmup = self.steps(table.warmup_epochs);
        if step < warmup {
            let rise = (self.peak - table.warmup_lr) / warmup as f64;
            return Rates { lr: table.warmup_lr + step as f64 * rise, momentum: None };
        }
        let start = if table.warmup_prefix { warmup } else { 0 };
        let length = self.total_steps().saturating_sub(self.steps(table.cooldown_epochs) + start).max(1);
        let progress = (step - start) as f64 / length as f64;
        let lr = match table.sched {
            Schedule::Constant | Schedule::Onecycle => self.peak,
            Schedule::Step => {
                let passed =
                    table.decay_milestones.iter().filter(|epoch| step >= self.steps(**epoch)).count();
                self.peak * table.decay_rate.powi(passed as i32)
            }
            Schedule::Cosine | Schedule::Poly if progress >= 1.0 => table.min_lr,
            Schedule::Cosine => {
                table.min_lr + 0.5 * (self.peak - table.min_lr) * (1.0 + (PI * progress).cos())
            }
            Schedule::Poly => table.min_lr + (self.peak - table.min_lr) * (1.0 - progress).powf(table.power),
        };
        Rates { lr, momentum: None }
    }

    /// PyTorch's `OneCycleLR` with cosine annealing.
    fn one_cycle(&self, step: u64) -> Rates {
        let table = &self.table;
        let total = self.total_steps() as f64;
        let step = (step as f64).min(total - 1.0);
        let start = self.peak / table.div_factor;
        let end = start / table.final_div_factor;
        // PyTorch's borders: the peak is reached at this step, which need not be whole.
        let top = table.pct_start * total - 1.0;
        let last = total - 1.0;
        let rising = step <= top;
        let progress =
            if rising { if top > 0.0 { step / top } else { 1.0 } } else { (step - top) / (last - top) };
        let between = |low: f64, peak: f64, last: f64| {
            if rising { anneal(low, peak, progress) } else { anneal(peak, last, progress) }
        };
        Rates {
            lr: between(start, self.peak, end),
            momentum: table
                .cycle_momentum
                .then(|| between(table.max_momentum, table.base_momentum, table.max_momentum)),
        }
    }

    fn steps(&self, epochs: usize) -> u64 {
        epochs as u64 * self.steps_per_epoch
    }
}

/// From `start` to `end` along half a cosine.
fn anneal(start: f64, end: f64, progress: f64) -> f64 {
    end + (start - end) / 2.0 * (1.0 + (PI * progress).cos())
}
