//! A network that answers, and the place that holds its newest version.

use super::counters::Counters;
use super::queue::Queue;
use super::refusal::Refusal;
use super::source::{Network, Source};
use super::turn::Turns;
use super::worker::Worker;
use anyhow::{Context, ensure};
use cardinal_data::Preprocess;
use cardinal_engine::explain::ClassMaps;
use cardinal_engine::plan::{Options, Plan};
use cardinal_engine::run::Session;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{error, info};

/// How networks are run.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) options: Options,
    pub(super) delay: Duration,
    /// Images that may be on their way through one network.
    pub(super) slots: usize,
    /// Side of the input, where a source has several.
    pub(super) size: Option<usize>,
    pub(super) turns: Arc<Turns>,
}

/// One version of a network, with its worker. The worker ends when the last request lets go of it.
pub(super) struct Live {
    /// 1 for the first, and one more for each reload.
    pub(super) version: u64,
    pub(super) architecture: String,
    pub(super) preprocess: Preprocess,
    pub(super) classes: Vec<String>,
    /// Whether an image may be of several.
    pub(super) multi_label: bool,
    pub(super) plan: Arc<Plan>,
    /// Where the evidence for a class lies, for networks that end in pooling and a linear layer.
    pub(super) maps: Option<ClassMaps>,
    pub(super) param_count: Option<u64>,
    pub(super) macs: Option<u64>,
    pub(super) file_bytes: Option<u64>,
    pub(super) counters: Arc<Counters>,
    pub(super) queue: Arc<Queue>,
    slots: Arc<Semaphore>,
    all_slots: usize,
}

impl Live {
    /// Plans the network, tries it on a full batch, and starts its worker.
    ///
    /// # Errors
    ///
    /// It is no classifier of colour pictures, has an operator without a kernel, or computes nothing finite.
    pub(super) fn start(network: Network, version: u64, settings: &Settings) -> anyhow::Result<Arc<Self>> {
        let Network { mut graph, preprocess, classes, multi_label, param_count, macs, file_bytes } = network;
        let architecture = graph.name.clone();
        let maps = ClassMaps::attach(&mut graph);
        let maps =
            maps.inspect_err(|error| info!("{architecture} has no class-activation maps: {error}")).ok();
        let plan = Arc::new(Plan::new(graph, &settings.options)?);
        let ([input], [output, ..]) = (plan.inputs(), plan.outputs()) else {
            anyhow::bail!("{architecture} does not have one input and an output");
        };
        ensure!(
            input.elements == preprocess.output_len() && input.shape.get(1) == Some(&3),
            "{architecture} takes {:?}, and pictures have 3 channels",
            input.shape
        );
        ensure!(output.elements == classes.len(), "{architecture} is no classifier");
        let mut session = Session::new(Arc::clone(&plan), true);
        let zeros = vec![0.0; input.elements * plan.batch()];
        let finite = session.run(&[&zeros])?.get(0).iter().all(|value| value.is_finite());
        ensure!(finite, "{architecture} gives no finite numbers: are the weights damaged?");
        info!("{}", plan.summary());
        cardinal_engine::trim_heap();
        let (counters, queue) = (Arc::new(Counters::default()), Arc::new(Queue::default()));
        let worker = Worker {
            plan: Arc::clone(&plan),
            features: maps.as_ref().map(ClassMaps::output),
            queue: Arc::clone(&queue),
            counters: Arc::clone(&counters),
            turns: Arc::clone(&settings.turns),
            delay: settings.delay,
        };
        std::thread::Builder::new()
            .name(architecture.clone())
            .spawn(move || worker.run(session))
            .context("starting a thread")?;
        Ok(Arc::new(Self {
            version,
            architecture,
            preprocess,
            classes,
            multi_label,
            plan,
            maps,
            param_count,
            macs,
            file_bytes,
            counters,
            queue,
            slots: Arc::new(Semaphore::new(settings.slots)),
            all_slots: settings.slots,
        }))
    }

    /// Slots for `images` images.
    pub(super) fn admit(&self, images: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        self.fits(images.saturating_sub(1))?;
        let slots = Arc::clone(&self.slots).try_acquire_many_owned(images as u32);
        slots.map_err(|_| {
            self.counters.rejected.fetch_add(1, Relaxed);
            let text = format!("all {} places are taken; try again", self.all_slots);
            Refusal::busy(text, self.counters.expected(self.all_slots))
        })
    }

    /// Whether one image more than `images` could ever have a slot.
    pub(super) fn fits(&self, images: usize) -> Result<(), Refusal> {
        if images < self.all_slots {
            return Ok(());
        }
        let text =
            format!("more images at once than the {} places that there are; see --queue", self.all_slots);
        Err(Refusal::too_large(text))
    }

    /// Images on their way: being prepared, waiting, or in the network.
    pub(super) fn pending(&self) -> usize {
        self.all_slots - self.slots.available_permits()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// A name, what it is loaded from, and its newest version.
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) source: Source,
    settings: Settings,
    live: RwLock<Arc<Live>>,
    pub(super) reloads: AtomicU64,
    pub(super) failed_reloads: AtomicU64,
}

impl Slot {
    /// Loads the first version.
    pub(super) fn load(name: String, source: Source, settings: Settings) -> anyhow::Result<Self> {
        let live = Live::start(source.load(settings.size)?, 1, &settings).with_context(|| name.clone())?;
        let (reloads, failed_reloads) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { name, source, settings, live: RwLock::new(live), reloads, failed_reloads })
    }

    /// The newest version.
    pub(super) fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Loads the source again and puts it in the old one's place; whatever is wrong with it, the old one stays.
    pub(super) fn reload(&self) {
        let version = self.live().version + 1;
        let load = || Live::start(self.source.load(self.settings.size)?, version, &self.settings);
        match load() {
            Ok(live) => {
                *self.live.write().unwrap_or_else(PoisonError::into_inner) = live;
                self.reloads.fetch_add(1, Relaxed);
                info!("{}: version {version} answers from now on", self.name);
            }
            Err(error) => {
                self.failed_reloads.fetch_add(1, Relaxed);
                error!(
                    "{}: the changed file is not used, version {} stays: {error:#}",
                    self.name,
                    version - 1
                );
            }
        }
    }
}
