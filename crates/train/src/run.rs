//! The loop.

use crate::TrainError;
use crate::checkpoint::{About, Checkpoint, Folder, Meter, Progress, Score};
use crate::device::DeviceKind;
use crate::evaluate::{Evaluation, Evaluator, best_metric};
use crate::loss::Loss;
use crate::network;
use crate::observe::{BatchReport, EpochReport, Event, Observer, Start};
use crate::optim::OptimizerSettings;
use crate::pipeline;
use crate::recipe::{EvalMetric, Recipe, StepKind};
use crate::schedule::{LrSchedule, Rates};
use crate::step::{
    CompiledOptions, CompiledStep, EagerStep, Step, StepInput, StepOutput, StepSettings, dtype,
};
use cardinal_data::{Batch, Dataset, Loader, Preprocess, Random, Task};
use cardinal_models::registry::{Pretrained, Variant};
use cardinal_weights::NamedTensors;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What a run needs to begin.
pub struct RunOptions<'a> {
    /// All settings, checked.
    pub recipe: Recipe,
    /// Where the run is kept.
    pub folder: Folder,
    /// The checkpoint to continue from.
    pub resume: Option<Checkpoint>,
    /// The network.
    pub variant: &'static Variant,
    /// How images are prepared where the recipe is silent.
    pub published: Pretrained,
    /// Weights to start from, under timm's names; the classifier may be another.
    pub initial: Option<NamedTensors>,
    /// Where steps are computed.
    pub device: DeviceKind,
    /// Threads of a compiled step and of the evaluation.
    pub threads: usize,
    /// Set from outside to stop after the next update.
    pub stop: &'a AtomicBool,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// How far it came.
    pub progress: Progress,
    /// The last evaluation: of the plain weights, and of their average.
    pub evaluations: Vec<Evaluation>,
    /// Images that could not be read, by what was wrong with them; each once.
    pub skipped: Vec<String>,
    /// Whether it was stopped before its end; `last` has where.
    pub stopped: bool,
}

/// Trains, evaluates and saves, epoch by epoch.
///
/// # Errors
///
/// The data, the network or the disk refuse, or the loss is not finite. The last checkpoint is as it was.
pub fn run(options: RunOptions<'_>, observer: &mut dyn Observer) -> Result<Outcome, TrainError> {
    let (mut run, mut loader) = Run::prepare(options)?;
    run.announce(observer)?;
    while run.progress.epoch < run.epochs {
        if run.train_epoch(&mut loader, observer)? == Ended::Stopped {
            run.folder.save(&run.checkpoint()?)?;
            return Ok(run.outcome(true));
        }
        // The workers go on while the network is evaluated.
        if run.progress.epoch + 1 < run.epochs {
            loader.begin(run.progress.epoch as u64 + 1, 0);
        }
        let lr = run.rates(run.batches - 1).lr;
        let is_best = run.evaluate(observer)?;
        let meter = std::mem::take(&mut run.progress.meter);
        // Before the checkpoint: what is logged behind a checkpoint is forgotten when the run continues, so that no
        // epoch is missing or there twice, wherever the run is killed.
        run.report_epoch(meter, lr, is_best, observer)?;
        run.folder.save(&run.checkpoint()?)?;
    }
    Ok(run.outcome(false))
}

#[derive(PartialEq, Eq)]
enum Ended {
    Epoch,
    Stopped,
}

struct Run<'a> {
    recipe: Recipe,
    folder: Folder,
    about: About,
    variant: &'static Variant,
    preprocess: Preprocess,
    train: Arc<dyn Dataset>,
    metric: EvalMetric,
    evaluator: Evaluator,
    step: Box<dyn Step>,
    parameters: usize,
    schedule: LrSchedule,
    epochs: usize,
    batches: usize,
    /// Updates in an epoch.
    updates: u64,
    progress: Progress,
    resumed: bool,
    evaluations: Vec<Evaluation>,
    skipped: Vec<String>,
    saved: Instant,
    stop: &'a AtomicBool,
}

impl<'a> Run<'a> {
    fn prepare(options: RunOptions<'a>) -> Result<(Self, Loader), TrainError> {
        let RunOptions { recipe, folder, resume, variant, published, initial, device, threads, stop } =
            options;
        let preprocess = pipeline::preprocess(&recipe, &published)?;
        let train = pipeline::dataset(&recipe, &recipe.data.train_split)?;
        let val = pipeline::dataset(&recipe, &recipe.data.val_split)?;
        network::check_data(&recipe, train.as_ref(), val.as_ref())?;
        let metric = best_metric(&recipe, train.task())?;
        let classes = recipe.model.num_classes.unwrap_or(train.classes().len());
        let loader = pipeline::train_loader(&recipe, Arc::clone(&train), &preprocess, classes)?;
        let evaluator = Evaluator::new(&recipe, variant, val, &preprocess, classes, device, threads)?;
        let place = device.open()?.autodiff();
        let model = network::build(&recipe, variant, classes, initial.as_ref(), &place)?;
        let parameters = cardinal_models::weights::parameter_count(&model);
        let loss = Loss::from_recipe(&recipe);
        let settings = OptimizerSettings::from_recipe(&recipe);
        let frozen = network::frozen(&recipe, variant);
        let average = recipe.ema.model_ema;
        let kind = if device == DeviceKind::Cpu { recipe.run.step } else { StepKind::Eager };
        let mut step: Box<dyn Step> = match kind {
            StepKind::Eager => Box::new(EagerStep::new(model, &place, loss, settings, average, frozen)?),
            StepKind::Compiled => {
                let (height, width) = preprocess.size;
                let options = CompiledOptions {
                    batch: recipe.data.batch_size,
                    size: [model.in_chans(), height as usize, width as usize],
                    dtype: dtype(&recipe),
                    threads,
                };
                Box::new(CompiledStep::new(model, loss, settings, average, frozen, &options)?)
            }
        };
        let batches = loader.batches_per_epoch();
        let updates = batches.div_ceil(recipe.optimizer.grad_accum_steps);
        let images = train.len();
        let mut progress = Progress { batches_per_epoch: batches, images, ..Progress::default() };
        let resumed = resume.is_some();
        if let Some(checkpoint) = resume {
            let fail = |reason| TrainError::Checkpoint { path: folder.path().into(), reason };
            if (checkpoint.progress.batches_per_epoch, checkpoint.progress.images) != (batches, images) {
                let Progress { batches_per_epoch, images: then, .. } = checkpoint.progress;
                return Err(fail(format!(
                    "the run had {then} training images in {batches_per_epoch} batches, now there are {images} in \
                     {batches}: give it the same data and batch size"
                )));
            }
            step.restore(&checkpoint.state).map_err(|error| match error {
                TrainError::State(reason) => fail(reason),
                other => other,
            })?;
            progress = checkpoint.progress;
            folder.settle(&progress)?;
        }
        let about = About {
            model: variant.name.into(),
            classes: train.classes().to_vec(),
            multi_label: train.task() == Task::MultiLabel,
            preprocessing: pipeline::describe_preprocessing(variant.name, &preprocess),
        };
        let run = Self {
            schedule: LrSchedule::new(&recipe, updates),
            epochs: recipe.run_epochs(),
            updates: updates as u64,
            evaluations: Vec::new(),
            skipped: Vec::new(),
            saved: Instant::now(),
            recipe,
            folder,
            about,
            variant,
            preprocess,
            train,
            metric,
            evaluator,
            step,
            parameters,
            batches,
            progress,
            resumed,
            stop,
        };
        Ok((run, loader))
    }

    fn announce(&self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let val = self.evaluator.dataset();
        observer.event(&Event::Start(&Start {
            recipe: &self.recipe,
            folder: self.folder.path(),
            model: self.variant.name,
            parameters: self.parameters,
            train: self.train.describe(),
            train_images: self.train.len(),
            val: val.describe(),
            val_images: val.len(),
            classes: self.train.classes(),
            step: self.step.describe(),
            batches: self.batches,
            epochs: self.epochs,
            resumed: self.resumed.then_some((self.progress.epoch, self.progress.batch)),
        }))
    }

    /// Trains on the rest of the epoch, unless it is stopped.
    fn train_epoch(&mut self, loader: &mut Loader, observer: &mut dyn Observer) -> Result<Ended, TrainError> {
        let mut start = Instant::now();
        for batch in loader.epoch(self.progress.epoch as u64, self.progress.batch) {
            let batch = batch?;
            self.note_skipped(&batch, observer)?;
            if self.progress.epoch == 0 && self.progress.batch == 0 {
                let normalization = [self.preprocess.mean, self.preprocess.std];
                observer.event(&Event::FirstBatch {
                    images: &batch.images,
                    size: batch.size,
                    normalization,
                })?;
            }
            let settings = self.settings();
            let output = self.train_batch(&batch, &settings)?;
            self.count(&batch, &output, start.elapsed());
            observer.event(&Event::Batch(&self.batch_report(&batch, &output, &settings, start.elapsed())))?;
            start = Instant::now();
            if settings.update {
                if self.stop.load(Ordering::Relaxed) {
                    return Ok(Ended::Stopped);
                }
                self.save_recovery(observer)?;
            }
        }
        Ok(Ended::Epoch)
    }

    /// The rates of the update that the batch with this number in the epoch belongs to.
    fn rates(&self, batch: usize) -> Rates {
        let update = batch / self.recipe.optimizer.grad_accum_steps;
        self.schedule.at(self.progress.epoch as u64 * self.updates + update as u64)
    }

    /// How the next batch is trained on: a function of the recipe and of how far the run is.
    fn settings(&self) -> StepSettings {
        let Progress { epoch, batch, .. } = self.progress;
        let update = epoch as u64 * self.updates + (batch / self.recipe.optimizer.grad_accum_steps) as u64;
        let words = [DROP, epoch as u64, batch as u64];
        StepSettings {
            rates: self.rates(batch),
            ema_decay: self.recipe.ema_decay(update),
            drop_block: self.recipe.drop_block_rate(epoch),
            seed: Random::new(self.recipe.run.seed, &words).next_u64(),
            update: (batch + 1).is_multiple_of(self.recipe.optimizer.grad_accum_steps)
                || batch + 1 == self.batches,
        }
    }

    fn train_batch(&mut self, batch: &Batch, settings: &StepSettings) -> Result<StepOutput, TrainError> {
        let labels: Vec<u32> =
            batch.labels.iter().filter_map(|label| label.classes().first().copied()).collect();
        let (images, targets) = (&batch.images, &batch.targets);
        let input = StepInput { images, size: batch.size, targets, labels: &labels };
        let output = self.step.train(input, settings)?;
        if !output.loss.is_finite() {
            return Err(self.diverged("the loss", batch));
        }
        if output.gradient_norm.is_some_and(|norm| !norm.is_finite()) {
            return Err(self.diverged("the norm of the gradients", batch));
        }
        Ok(output)
    }

    fn diverged(&self, what: &'static str, batch: &Batch) -> TrainError {
        const SHOWN: usize = 8;
        let names = batch.indices.iter().take(SHOWN).map(|index| self.train.name(*index as usize));
        let mut images = names.collect::<Vec<_>>().join(", ");
        if batch.indices.len() > SHOWN {
            images += &format!(", and {} more", batch.indices.len() - SHOWN);
        }
        let advice = if self.folder.has_checkpoint() {
            "The last checkpoint is kept: continue with --resume and a lower --lr, or clip_grad"
        } else {
            "Try a lower --lr, a longer warm-up, or clip_grad"
        };
        let Progress { epoch, batch, .. } = self.progress;
        TrainError::Diverged { what, epoch, batch, images, advice: advice.into() }
    }

    fn note_skipped(&mut self, batch: &Batch, observer: &mut dyn Observer) -> Result<(), TrainError> {
        for error in &batch.skipped {
            let text = error.to_string();
            if !self.skipped.contains(&text) {
                self.skipped.push(text);
                observer.event(&Event::Skipped(error))?;
            }
        }
        Ok(())
    }

    fn count(&mut self, batch: &Batch, output: &StepOutput, time: Duration) {
        let (images, seconds) = (batch.indices.len(), time.as_secs_f64());
        let meter = &mut self.progress.meter;
        meter.images += images;
        meter.loss += output.loss * images as f64;
        meter.skipped += batch.skipped.len();
        meter.seconds += seconds;
        meter.waited += batch.waited.as_secs_f64();
        let classes = batch.targets.len() / images.max(1);
        let rows = output.logits.chunks_exact(classes).zip(batch.targets.chunks_exact(classes));
        meter.correct += rows.filter(|(logits, targets)| largest(logits) == largest(targets)).count();
        self.progress.seconds += seconds;
        self.progress.batch += 1;
    }

    fn batch_report(
        &self,
        batch: &Batch,
        output: &StepOutput,
        settings: &StepSettings,
        time: Duration,
    ) -> BatchReport {
        BatchReport {
            epoch: self.progress.epoch,
            epochs: self.epochs,
            batch: self.progress.batch,
            batches: self.batches,
            step: self.progress.epoch as u64 * self.updates
                + ((self.progress.batch - 1) / self.recipe.optimizer.grad_accum_steps) as u64,
            images: batch.indices.len(),
            loss: output.loss,
            meter: self.progress.meter,
            lr: settings.rates.lr,
            gradient_norm: output.gradient_norm,
            time,
            waited: batch.waited,
        }
    }

    /// Writes a checkpoint if it is time.
    fn save_recovery(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let minutes = self.recipe.run.recovery_minutes;
        if minutes == 0.0 || self.saved.elapsed().as_secs_f64() < 60.0 * minutes {
            return Ok(());
        }
        self.folder.save_recovery(&self.checkpoint()?)?;
        self.saved = Instant::now();
        let Progress { epoch, batch, .. } = self.progress;
        observer.event(&Event::Recovery { epoch, batch })
    }

    fn checkpoint(&self) -> Result<Checkpoint, TrainError> {
        Ok(Checkpoint {
            state: self.step.state()?,
            progress: self.progress.clone(),
            recipe: self.recipe.clone(),
            about: self.about.clone(),
        })
    }

    /// Ends the epoch: evaluates the weights and their average, if it is time, and notes how good they are; gives
    /// whether they are the best.
    fn evaluate(&mut self, observer: &mut dyn Observer) -> Result<bool, TrainError> {
        (self.progress.epoch, self.progress.batch) = (self.progress.epoch + 1, 0);
        self.evaluations.clear();
        let epoch = self.progress.epoch;
        if !epoch.is_multiple_of(self.recipe.run.val_interval) && epoch != self.epochs {
            return Ok(false);
        }
        let state = self.step.state()?;
        let total = self.evaluator.dataset().len();
        for weights in std::iter::once(&state.model).chain(&state.ema) {
            let evaluating = |done| observer.event(&Event::Evaluating { done, total });
            self.evaluations.push(self.evaluator.evaluate(weights, evaluating)?);
        }
        let metric = self.metric;
        let values = self.evaluations.iter().map(|evaluation| evaluation.metric(metric).unwrap_or(f64::NAN));
        let scores = values.enumerate().map(|(index, value)| Score { epoch, value, averaged: index > 0 });
        let better =
            |a: &Score, b: &Score| if metric.decreasing() { a.value < b.value } else { a.value > b.value };
        let Some(score) = scores.reduce(|best, next| if better(&next, &best) { next } else { best }) else {
            return Ok(false);
        };
        let is_best = self.progress.best.as_ref().is_none_or(|best| better(&score, best));
        if is_best {
            self.progress.best = Some(score);
        }
        let kept = &mut self.progress.kept;
        let place = kept.iter().position(|other| better(&score, other)).unwrap_or(kept.len());
        kept.insert(place, score);
        kept.truncate(self.recipe.run.checkpoint_hist);
        Ok(is_best)
    }

    fn report_epoch(
        &self,
        meter: Meter,
        lr: f64,
        is_best: bool,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        observer.event(&Event::Epoch(&EpochReport {
            epoch: self.progress.epoch,
            epochs: self.epochs,
            step: self.progress.epoch as u64 * self.updates,
            meter,
            lr,
            evaluation: self.evaluations.first(),
            evaluation_ema: self.evaluations.get(1),
            best: self.progress.best,
            is_best,
            seconds: self.progress.seconds,
        }))
    }

    fn outcome(self, stopped: bool) -> Outcome {
        let Self { progress, evaluations, skipped, .. } = self;
        Outcome { progress, evaluations, skipped, stopped }
    }
}

/// What a batch's seed is for, beside those of the loader.
const DROP: u64 = 0x6472_6f70;

fn largest(row: &[f32]) -> Option<usize> {
    row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(index, _)| index)
}
