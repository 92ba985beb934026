//! One epoch's work, cut into batches and images that any thread can do at any time.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::order::{self, purpose};
use super::{Batch, LoaderError, LoaderOptions, Prepare, targets};
use crate::{DataError, DataErrorKind, Dataset, Label, Random};

/// How many broken images in a row may be replaced, as in timm.
const RETRIES: usize = 50;

/// What all threads know: the images, and what to do with them.
pub(super) struct Job {
    pub(super) dataset: Arc<dyn Dataset>,
    pub(super) prepare: Arc<dyn Prepare>,
    pub(super) options: LoaderOptions,
    /// Columns of the targets.
    pub(super) classes: usize,
    /// Numbers of one prepared image, `3 * height * width`.
    pub(super) image_len: usize,
    pub(super) size: [usize; 2],
    /// Whether broken images are replaced by others; else they are left out.
    pub(super) replace: bool,
}

impl Job {
    /// Batches of every epoch.
    pub(super) fn batches(&self) -> usize {
        let (images, batch) = (self.dataset.len(), self.options.batch_size);
        if self.options.drop_last { images / batch } else { images.div_ceil(batch) }
    }

    /// Bytes of a whole prepared batch.
    pub(super) fn batch_bytes(&self) -> usize {
        (self.options.batch_size * (self.image_len + self.classes)).saturating_mul(size_of::<f32>())
    }
}

/// The order of one epoch.
pub(super) struct Plan {
    pub(super) job: Arc<Job>,
    epoch: u64,
    order: Vec<u32>,
}

impl Plan {
    pub(super) fn new(job: Arc<Job>, epoch: u64) -> Self {
        let order = order::of_epoch(job.dataset.as_ref(), &job.options, epoch);
        Self { job, epoch, order }
    }

    /// The batch with this number, with no image in it yet.
    pub(super) fn open(self: &Arc<Self>, number: usize) -> OpenBatch {
        let size = self.job.options.batch_size;
        let start = (number * size).min(self.order.len());
        let images = size.min(self.order.len() - start);
        OpenBatch { plan: Arc::clone(self), number, start, images, filling: Mutex::new(Filling::new(images)) }
    }
}

/// A batch whose images are being prepared.
pub(super) struct OpenBatch {
    plan: Arc<Plan>,
    number: usize,
    /// The place of its first image in the epoch's order.
    start: usize,
    pub(super) images: usize,
    filling: Mutex<Filling>,
}

struct Filling {
    /// `[images, 3, height, width]`; allocated with the first image.
    pixels: Vec<f32>,
    slots: Vec<Slot>,
    done: usize,
}

#[derive(Default)]
struct Slot {
    /// The image that stands here, which may have replaced another.
    image: Option<(u32, Label)>,
    skipped: Vec<DataError>,
    failed: Option<DataError>,
}

impl Filling {
    fn new(images: usize) -> Self {
        Self { pixels: Vec::new(), slots: (0..images).map(|_| Slot::default()).collect(), done: 0 }
    }
}

impl OpenBatch {
    /// Prepares the image at `slot`, in `scratch` first so that threads meet only for the copy. Gives the whole batch
    /// to the thread that prepared its last image.
    pub(super) fn prepare(&self, slot: usize, scratch: &mut Vec<f32>) -> Option<Result<Batch, DataError>> {
        let job = &self.plan.job;
        scratch.resize(job.image_len, 0.0);
        let index = self.plan.order[self.start + slot];
        let filled = self
            .guarded(index, || self.read(index, scratch))
            .unwrap_or_else(|error| Slot { failed: Some(error), ..Slot::default() });
        let complete = {
            let mut filling = self.filling.lock().unwrap_or_else(PoisonError::into_inner);
            let filling = &mut *filling;
            if filled.image.is_some() {
                if filling.pixels.is_empty() {
                    filling.pixels = vec![0.0; self.images * job.image_len];
                }
                filling.pixels[slot * job.image_len..][..job.image_len].copy_from_slice(scratch);
            }
            filling.slots[slot] = filled;
            filling.done += 1;
            filling.done == self.images
        };
        complete.then(|| self.guarded(index, || self.finish()).and_then(|batch| batch))
    }

    /// Reads and prepares the image `index`, or the next one after it that can be read.
    fn read(&self, index: u32, out: &mut [f32]) -> Slot {
        let job = &self.plan.job;
        let len = job.dataset.len();
        let mut slot = Slot::default();
        for step in 0..=RETRIES.min(len - 1) {
            let index = ((index as usize + step) % len) as u32;
            match self.read_one(index, out) {
                Ok(label) => {
                    slot.image = Some((index, label));
                    return slot;
                }
                Err(error) if job.options.strict => {
                    slot.failed = Some(error);
                    return slot;
                }
                Err(error) => slot.skipped.push(error),
            }
            if !job.replace {
                return slot;
            }
        }
        let first = slot.skipped.first().map(ToString::to_string).unwrap_or_default();
        let error = LoaderError::NothingReadable { tried: slot.skipped.len(), first };
        slot.failed = Some(loader_error(&job.dataset.describe(), error));
        slot
    }

    fn read_one(&self, index: u32, out: &mut [f32]) -> Result<Label, DataError> {
        let job = &self.plan.job;
        let sample = job.dataset.read(index as usize)?;
        let mut random = Random::new(job.options.seed, &[purpose::SAMPLE, self.plan.epoch, u64::from(index)]);
        job.prepare.prepare(&sample.picture, &mut random, out)?;
        Ok(sample.label)
    }

    /// Puts the prepared images together, and mixes them.
    fn finish(&self) -> Result<Batch, DataError> {
        let job = &self.plan.job;
        let filling = std::mem::replace(
            &mut *self.filling.lock().unwrap_or_else(PoisonError::into_inner),
            Filling::new(0),
        );
        let Filling { pixels: mut images, slots, .. } = filling;
        let [height, width] = job.size;
        let mut batch = Batch {
            images: Vec::new(),
            size: [0, 3, height, width],
            targets: Vec::new(),
            labels: Vec::with_capacity(slots.len()),
            indices: Vec::with_capacity(slots.len()),
            skipped: Vec::new(),
            waited: Duration::ZERO,
        };
        for (place, slot) in slots.into_iter().enumerate() {
            if let Some(error) = slot.failed {
                return Err(error);
            }
            batch.skipped.extend(slot.skipped);
            if let Some((index, label)) = slot.image {
                let count = batch.labels.len();
                if count < place {
                    // An image before this one was left out.
                    let start = place * job.image_len;
                    images.copy_within(start..start + job.image_len, count * job.image_len);
                }
                batch.indices.push(u64::from(index));
                batch.labels.push(label);
            }
        }
        let count = batch.labels.len();
        images.truncate(count * job.image_len);
        batch.images = images;
        batch.size[0] = count;
        batch.targets = vec![0.0; count * job.classes];
        for (label, row) in batch.labels.iter().zip(batch.targets.chunks_exact_mut(job.classes)) {
            targets::write(label, job.options.smoothing, row);
        }
        self.mix(&mut batch);
        Ok(batch)
    }

    fn mix(&self, batch: &mut Batch) {
        let options = &self.plan.job.options;
        let on = options.mix_until.is_none_or(|epoch| self.plan.epoch < epoch);
        if let Some(mix) = options.mix.as_ref().filter(|_| on) {
            let words = [purpose::MIX, self.plan.epoch, self.number as u64];
            let [n, channels, height, width] = batch.size;
            mix.apply(
                &mut Random::new(options.seed, &words),
                &mut batch.images,
                n,
                [channels, height, width],
                &mut batch.targets,
            );
        }
    }

    /// Runs code that may meet a bug in a decoder: a panic becomes an error that names the image.
    fn guarded<T>(&self, index: u32, run: impl FnOnce() -> T) -> Result<T, DataError> {
        catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
            let name = self.plan.job.dataset.name(index as usize);
            loader_error(&name, LoaderError::Panic(words_of(panic.as_ref())))
        })
    }
}

pub(super) fn loader_error(name: &str, error: LoaderError) -> DataError {
    DataError::new(Path::new(name), DataErrorKind::Loader(error))
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<&str>().copied();
    words.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic").to_owned()
}
