//! How a network is run: compiled or as the plain Burn module, in which format and on how many threads.

use crate::engine;
pub(crate) use crate::engine::Format;
use crate::exit::Usage;
use crate::network::Network;
use anyhow::Context;
use cardinal_engine::graph::Graph;
use cardinal_engine::passes::{self, Optimized};
use cardinal_engine::plan::{Options, Plan, Tuner};
use cardinal_engine::run::Session;
use cardinal_engine::{DType, Isa, Level};
use cardinal_models::burn::tensor::{Device, Shape, Tensor, TensorData};
use cardinal_models::{Backbone, Model};
use clap::ValueEnum;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{debug, info};

/// Flags that every command that runs a network takes.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Compute {
    /// Format of the feature maps; sums are kept in f32 either way
    #[arg(long, value_enum, default_value_t = Format::F32)]
    pub(crate) dtype: Format,
    /// Threads that share the work [default: the cores that the process may use]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Run the network compiled for this processor, or as the plain Burn module that defines it
    #[arg(long, value_enum, default_value_t = Path::Compiled)]
    pub(crate) path: Path,
    /// Instruction set of the kernels: portable, neon, avx2, avx512, avx512-bf16 or amx [default: the best there is]
    #[arg(long, value_name = "LEVEL", value_parser = engine::level)]
    pub(crate) kernels: Option<Level>,
    /// Choose kernels by measuring them once on this machine instead of by estimate; the choices are kept in the cache
    /// folder
    #[arg(long)]
    pub(crate) tune: bool,
}

/// Who runs the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Path {
    /// Burn, operation by operation
    Eager,
    /// Our engine
    Compiled,
}

impl Compute {
    /// How many threads to use.
    pub(crate) fn threads(&self) -> usize {
        self.threads.map_or_else(engine::cores, usize::from)
    }

    /// The instruction set, if this processor has it.
    pub(crate) fn isa(&self) -> anyhow::Result<Isa> {
        engine::isa(self.kernels)
    }

    /// Gets `network` ready for up to `batch` images of `[channels, height, width]` at a time.
    pub(crate) fn prepare(&self, network: Network, batch: usize, size: [usize; 3]) -> anyhow::Result<Runner> {
        if self.path == Path::Eager {
            return self.prepare_eager(network, batch, size);
        }
        let start = Instant::now();
        let Optimized { graph, remarks } = passes::optimize(network.graph(size)?)?;
        for remark in &remarks {
            debug!("{remark}");
        }
        let plan = self.plan(graph, batch)?;
        let compile = start.elapsed();
        info!("{}", plan.summary());
        let session = Session::new(Arc::new(plan), true);
        Ok(Runner { batch, size, kind: Kind::Compiled(Box::new(session)), compile })
    }

    fn prepare_eager(&self, network: Network, batch: usize, size: [usize; 3]) -> anyhow::Result<Runner> {
        if self.dtype != Format::F32 {
            return Err(Usage("--path eager computes in f32; leave --dtype out".into()).into());
        }
        if self.threads.is_some() || self.kernels.is_some() {
            let text = "--threads and --kernels are for --path compiled; Burn chooses its own";
            return Err(Usage(text.into()).into());
        }
        let [c, h, w] = size;
        network.check_input(&[1, c, h, w])?;
        match network {
            Network::Module(model) => {
                Ok(Runner { batch, size, kind: Kind::Eager(model), compile: Duration::ZERO })
            }
            Network::Graphs(_) => Err(Usage("a compiled file has no eager path".into()).into()),
        }
    }

    /// The format of feature maps.
    pub(crate) fn format(&self) -> DType {
        self.dtype.into()
    }

    /// The plan of `graph` for up to `batch` images.
    pub(crate) fn plan(&self, graph: Graph, batch: usize) -> anyhow::Result<Plan> {
        let options = self.options(batch)?;
        if !self.tune {
            return Ok(Plan::new(graph, &options)?);
        }
        let mut tuner = Tuner::open(&cache_folder()?.join("kernels.tsv"))?;
        let plan = Plan::tuned(graph, &options, &mut tuner)?;
        tuner.save()?;
        Ok(plan)
    }

    /// The options that the flags ask for.
    pub(crate) fn options(&self, batch: usize) -> anyhow::Result<Options> {
        Ok(Options { batch, dtype: self.format(), threads: self.threads(), isa: self.isa()? })
    }
}

/// Where measurements are kept: `$XDG_CACHE_HOME/cardinal`, or `~/.cache/cardinal`.
fn cache_folder() -> anyhow::Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    let missing = || Usage("--tune keeps its choices in a folder: set HOME or XDG_CACHE_HOME".into());
    Ok(cache.ok_or_else(missing)?.join("cardinal"))
}

/// A network that is ready for images of one size.
pub(crate) struct Runner {
    batch: usize,
    size: [usize; 3],
    kind: Kind,
    compile: Duration,
}

enum Kind {
    Eager(Box<Model>),
    Compiled(Box<Session>),
}

impl Runner {
    /// The outputs of `images` images, one after the other, in groups of the batch.
    pub(crate) fn run(&mut self, input: &[f32], images: usize) -> anyhow::Result<Vec<f32>> {
        let image: usize = self.size.iter().product();
        let mut output = Vec::new();
        for group in input[..images * image].chunks(self.batch * image) {
            match &mut self.kind {
                Kind::Eager(model) => {
                    let [c, h, w] = self.size;
                    let shape = Shape::from([group.len() / image, c, h, w]);
                    let x = Tensor::<4>::from_data(TensorData::new(group.to_vec(), shape), &Device::flex());
                    let y = model.forward(x).into_data();
                    output.extend(y.try_to_vec::<f32>().context("reading the network's output")?);
                }
                Kind::Compiled(session) => output.extend_from_slice(session.run(&[group])?.get(0)),
            }
        }
        Ok(output)
    }

    /// The session, if the network is compiled.
    pub(crate) fn session(&mut self) -> Option<&mut Session> {
        match &mut self.kind {
            Kind::Eager(_) => None,
            Kind::Compiled(session) => Some(session),
        }
    }

    /// How long the compilation took.
    pub(crate) fn compile_time(&self) -> Duration {
        self.compile
    }
}

/// Numbers like those of normalised images: spread over [-2, 2) by a multiplicative hash.
pub(crate) fn noise(count: usize) -> Vec<f32> {
    (0..count as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 22) as f32 - 2.0).collect()
}
