//! Batches for a training loop, prepared by threads ahead of time.
//!
//! ```text
//! epoch's order ─► batches ─► images ─► any worker: read, decode, augment ─► whole batch: targets, mix ─► in order
//! ```
//!
//! 1. A batch is a function of (seed, epoch, its number): an image's randomness depends on its index, that of mixing on
//!    the batch's number. So any number of workers gives the same batches, and an epoch can start at any of them.
//! 2. Workers share single images, not batches, so the first batch comes early and the last is done by all.
//! 3. Finished and unfinished batches together take at most [`LoaderOptions::prefetch_bytes`] (or one batch); beside them
//!    every worker has one image in its hands.
//! 4. The workers live as long as the [`Loader`].

mod error;
mod order;
mod plan;
mod queue;
mod targets;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use error::LoaderError;

use crate::{
    DataError, DataErrorKind, Dataset, Decoder, Label, Mix, Picture, Preprocess, PreprocessError, Random,
    TrainTransform,
};
use plan::{Job, Plan, loader_error};
use queue::Queue;

/// What turns a picture into the numbers of one image. [`TrainTransform`] and [`Preprocess`] are the two that users need.
pub trait Prepare: Send + Sync {
    /// Height and width of what it makes.
    fn output_size(&self) -> (usize, usize);

    /// Writes `[3, height, width]` to `out`; all randomness comes from `random`.
    ///
    /// # Errors
    /// If the picture cannot be decoded.
    fn prepare(&self, picture: &Picture, random: &mut Random, out: &mut [f32]) -> Result<(), DataError>;
}

/// How a [`Loader`] works.
#[derive(Debug, Clone)]
pub struct LoaderOptions {
    /// Images per batch. Default 256.
    pub batch_size: usize,
    /// Threads; 0 prepares images in the thread that asks for them. Default: one per core.
    pub workers: usize,
    /// Seed of the order and of all augmentation. Default 42.
    pub seed: u64,
    /// The most bytes for batches in preparation or waiting; one batch is always allowed. Default 1 GiB.
    pub prefetch_bytes: usize,
    /// Leave out the images that fill no whole batch. [`Loader::train`] default: yes.
    pub drop_last: bool,
    /// A new random order every epoch; else the dataset's order.
    pub shuffle: bool,
    /// For data in shards, how far apart images may lie that are read at about the same time. Default 16,384 images; see
    /// [`sharded_order`](crate::sharded_order).
    pub shuffle_buffer: usize,
    /// So many images of one class follow each other, for losses that compare images; 0 shuffles freely. Default 0.
    pub samples_per_class: usize,
    /// Stop at the first broken image. Default: no.
    pub strict: bool,
    /// Label smoothing for data with one class per image (ResNeSt equation 4). Default 0.
    pub smoothing: f32,
    /// Columns of the targets; `None` for as many as the data has classes.
    pub classes: Option<usize>,
    /// Mixup and CutMix. Default none.
    pub mix: Option<Mix>,
    /// The epoch from which nothing is mixed any more.
    pub mix_until: Option<u64>,
}

impl Default for LoaderOptions {
    fn default() -> Self {
        Self {
            batch_size: 256,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            seed: 42,
            prefetch_bytes: 1 << 30,
            drop_last: true,
            shuffle: true,
            shuffle_buffer: 1 << 14,
            samples_per_class: 0,
            strict: false,
            smoothing: 0.0,
            classes: None,
            mix: None,
            mix_until: None,
        }
    }
}

/// Prepared images with their targets.
#[derive(Debug)]
pub struct Batch {
    /// `[n, 3, height, width]`.
    pub images: Vec<f32>,
    /// `[n, 3, height, width]`. `n` is below the batch size at the end of the data, and where evaluation left broken
    /// images out: then it may even be 0.
    pub size: [usize; 4],
    /// `[n, classes]`: one-hot or multi-hot, smoothed and mixed.
    pub targets: Vec<f32>,
    /// The labels, before smoothing and mixing.
    pub labels: Vec<Label>,
    /// The images' numbers in the dataset.
    pub indices: Vec<u64>,
    /// Broken images that were replaced (training) or left out (evaluation).
    pub skipped: Vec<DataError>,
    /// How long the one who asked had to wait for this batch.
    pub waited: Duration,
}

/// Makes batches out of a dataset, epoch by epoch.
pub struct Loader {
    job: Arc<Job>,
    queue: Queue,
    /// The epoch and first batch that [`Loader::begin`] started.
    begun: Option<(u64, usize)>,
}

impl Loader {
    /// Batches to train on: broken images are replaced by the next readable ones, so that batches keep their size.
    ///
    /// # Errors
    /// For a transform that cannot run, options that do not fit the dataset (a batch larger than it, too few classes),
    /// or without threads.
    pub fn train(
        dataset: Arc<dyn Dataset>,
        transform: TrainTransform,
        options: LoaderOptions,
    ) -> Result<Self, DataError> {
        transform.check().map_err(|error| unusable(dataset.as_ref(), error))?;
        Self::with(dataset, Arc::new(Train(transform, Decoder::default())), options)
    }

    /// Batches to evaluate on: the dataset's order, every image once, no smoothing and no mixing; broken images are left
    /// out.
    ///
    /// # Errors
    /// As [`Loader::train`], except that a batch may be larger than the dataset.
    pub fn eval(
        dataset: Arc<dyn Dataset>,
        preprocess: Preprocess,
        mut options: LoaderOptions,
    ) -> Result<Self, DataError> {
        preprocess.check().map_err(|error| unusable(dataset.as_ref(), error))?;
        options.shuffle = false;
        options.drop_last = false;
        options.smoothing = 0.0;
        options.mix = None;
        Self::build(dataset, Arc::new(Eval(preprocess, Decoder::default())), options, false)
    }

    /// As [`Loader::train`], with any preparation.
    ///
    /// # Errors
    /// As [`Loader::train`].
    pub fn with(
        dataset: Arc<dyn Dataset>,
        prepare: Arc<dyn Prepare>,
        options: LoaderOptions,
    ) -> Result<Self, DataError> {
        Self::build(dataset, prepare, options, true)
    }

    /// A [`Prepare`] that treats training images as evaluation's: no augmentation.
    #[must_use]
    pub fn plain(preprocess: Preprocess) -> Arc<dyn Prepare> {
        Arc::new(Eval(preprocess, Decoder::default()))
    }

    fn build(
        dataset: Arc<dyn Dataset>,
        prepare: Arc<dyn Prepare>,
        options: LoaderOptions,
        replace: bool,
    ) -> Result<Self, DataError> {
        let (height, width) = prepare.output_size();
        let data = dataset.classes().len();
        let classes = options.classes.unwrap_or(data);
        let problem = if options.batch_size == 0 {
            Some(LoaderError::EmptyBatch)
        } else if u32::try_from(dataset.len()).is_err() {
            Some(LoaderError::TooMany(dataset.len()))
        } else if options.drop_last && dataset.len() < options.batch_size {
            Some(LoaderError::BatchTooLarge { batch: options.batch_size, images: dataset.len() })
        } else if classes < data {
            Some(LoaderError::Classes { data, network: classes })
        } else if floats(options.batch_size, height, width).is_none() {
            Some(LoaderError::TooLarge { batch: options.batch_size, height, width })
        } else {
            None
        };
        if let Some(problem) = problem {
            return Err(loader_error(&dataset.describe(), problem));
        }
        let image_len = 3 * height * width;
        let job = Job { dataset, prepare, options, classes, image_len, size: [height, width], replace };
        let job = Arc::new(job);
        let queue = Queue::new(&job)?;
        Ok(Self { job, queue, begun: None })
    }

    /// Batches in every epoch.
    #[must_use]
    pub fn batches_per_epoch(&self) -> usize {
        self.job.batches()
    }

    /// Columns of the targets.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.job.classes
    }

    /// The dataset.
    #[must_use]
    pub fn dataset(&self) -> &Arc<dyn Dataset> {
        &self.job.dataset
    }

    /// The most bytes that prepared batches have taken so far.
    #[must_use]
    pub fn peak_bytes(&self) -> usize {
        self.queue.peak_bytes()
    }

    /// Lets the workers start on an epoch that [`Loader::epoch`] will ask for later, while something else goes on.
    pub fn begin(&mut self, epoch: u64, first_batch: usize) {
        if self.begun != Some((epoch, first_batch)) {
            let plan = Arc::new(Plan::new(Arc::clone(&self.job), epoch));
            self.queue.start(plan, first_batch, self.job.batches());
            self.begun = Some((epoch, first_batch));
        }
    }

    /// The batches of an epoch from `first_batch` on: exactly those that the whole epoch gives from there.
    pub fn epoch(&mut self, epoch: u64, first_batch: usize) -> Epoch<'_> {
        self.begin(epoch, first_batch);
        self.begun = None;
        Epoch { loader: self, over: false }
    }
}

fn unusable(dataset: &dyn Dataset, error: PreprocessError) -> DataError {
    DataError::new(Path::new(&dataset.describe()), DataErrorKind::Transform(error))
}

fn floats(images: usize, height: usize, width: usize) -> Option<usize> {
    let count = images.checked_mul(3)?.checked_mul(height)?.checked_mul(width)?;
    count.checked_mul(size_of::<f32>()).filter(|bytes| isize::try_from(*bytes).is_ok())
}

/// The batches of one epoch, in their order. It ends behind the last one, or behind the first error. Dropping it early
/// stops the work on the rest.
pub struct Epoch<'a> {
    loader: &'a mut Loader,
    over: bool,
}

impl Iterator for Epoch<'_> {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let start = Instant::now();
        let taken = self
            .loader
            .queue
            .take()
            .map(|taken| taken.map(|batch| Batch { waited: start.elapsed(), ..batch }));
        self.over = !matches!(taken, Some(Ok(_)));
        taken
    }
}

impl Drop for Epoch<'_> {
    fn drop(&mut self) {
        self.loader.queue.stop();
    }
}

struct Train(TrainTransform, Decoder);

impl Prepare for Train {
    fn output_size(&self) -> (usize, usize) {
        (self.0.size.0 as usize, self.0.size.1 as usize)
    }

    fn prepare(&self, picture: &Picture, random: &mut Random, out: &mut [f32]) -> Result<(), DataError> {
        self.0.apply(picture, random, &self.1, out)
    }
}

struct Eval(Preprocess, Decoder);

impl Prepare for Eval {
    fn output_size(&self) -> (usize, usize) {
        (self.0.size.0 as usize, self.0.size.1 as usize)
    }

    fn prepare(&self, picture: &Picture, _: &mut Random, out: &mut [f32]) -> Result<(), DataError> {
        let image = picture.decode(&self.1)?;
        self.0
            .run_into(&image, out)
            .map_err(|error| DataError::new(picture.name(), DataErrorKind::Transform(error)))
    }
}
