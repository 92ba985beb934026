//! The command line, and the start.

use super::http::auth::Digest;
use super::http::body::Budget;
use super::http::ids::Ids;
use super::http::page::Page;
use super::http::{self, AccessLog, Connections};
use super::live::{Settings, Slot};
use super::source::Wish;
use super::turn::Turns;
use super::{Limits, Server, probe, watch};
use crate::engine::{self, Format};
use crate::exit::Usage;
use crate::memory::parse_size;
use anyhow::Context;
use cardinal_engine::Level;
use cardinal_engine::plan::Options;
use std::future::Future;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
#[cfg(feature = "networks")]
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use tracing::warn;

#[cfg(feature = "networks")]
const EXAMPLES: &str = "\
Examples:
  cardinal serve --model resnest50d
  cardinal serve --model resnet50 --checkpoint runs/cats/best.safetensors
  cardinal compile --model tresnet_m --output tresnet_m.safetensors
  cardinal serve --model tresnet_m.safetensors --model cats=runs/cats.safetensors --max-batch 16
  curl --data-binary @photo.jpg 'http://127.0.0.1:8080/predictions/resnest50d?topk=3'

docs/serve.md has every address, limit and metric. Put a proxy in front for TLS.";
#[cfg(not(feature = "networks"))]
const EXAMPLES: &str = "\
Examples:
  cardinal serve --model tresnet_m.safetensors --model cats=models/cats.safetensors --max-batch 16
  curl --data-binary @photo.jpg 'http://127.0.0.1:8080/predictions/tresnet_m?topk=3'

Models are files that 'cardinal compile --output FILE' wrote. Put a proxy in front for TLS.";

/// Answers over HTTP: the classes of pictures, the Open Inference Protocol's tensors, Prometheus' metrics, and a page
/// to try it at '/'. Requests of a moment go through the network together. A changed file is loaded again without
/// losing a request; SIGTERM and Ctrl-C end the server after everything accepted is answered.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// What to serve: [NAME=]FILE of 'cardinal compile' or of weights, or [NAME=]MODEL of 'cardinal models'; repeatable
    #[cfg(feature = "networks")]
    #[arg(short, long, value_name = "MODEL", required_unless_present_any = ["checkpoint", "probe"])]
    model: Vec<String>,
    /// What to serve: [NAME=]FILE of 'cardinal compile'; repeatable
    #[cfg(not(feature = "networks"))]
    #[arg(short, long, value_name = "FILE", required_unless_present = "probe")]
    model: Vec<String>,
    /// Weights of the one --model, or of the network that they tell
    #[cfg(feature = "networks")]
    #[arg(short, long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Take random weights for models that are names; the classes that they name mean nothing
    #[cfg(feature = "networks")]
    #[arg(long, conflicts_with = "checkpoint")]
    untrained: bool,
    /// Side of the square input in pixels [default: the weights', or the file's first]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u16).range(1..=8192))]
    img_size: Option<u16>,
    /// Address to listen on; 0.0.0.0 or :: for all of the machine's
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// Port to listen on; 0 for any that is free
    #[arg(short, long, default_value_t = 8080)]
    port: u16,
    #[command(flatten)]
    running: Running,
    #[command(flatten)]
    bounds: Bounds,
    /// Token that requests must bear ('Authorization: Bearer TOKEN'); the page and health stay open. Other users of the
    /// machine see arguments: prefer the variable
    #[arg(long, env = "CARDINAL_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Load no changed files
    #[arg(long)]
    no_reload: bool,
    /// Instead of serving: ask the server at that address whether it is ready; exit code 0 or 1
    #[arg(long, value_name = "HOST:PORT", exclusive = true)]
    probe: Option<String>,
}

/// How networks are run.
#[derive(clap::Args)]
#[command(next_help_heading = "Running")]
struct Running {
    /// Images of one run, at most
    #[arg(short = 'b', long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    max_batch: u16,
    /// How long the first image of a batch waits for others
    #[arg(long, value_name = "MS", default_value_t = 2.0, value_parser = milliseconds)]
    batch_delay_ms: f64,
    /// Format of the feature maps; sums are kept in f32 either way
    #[arg(long, value_enum, default_value_t = Format::F32)]
    dtype: Format,
    /// Threads that share the work of a run [default: the cores that the process may use]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Threads that decode and resize [default: as --threads]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    decoders: Option<u16>,
    /// Instruction set of the kernels: portable, neon, avx2, avx512, avx512-bf16 or amx [default: the best there is]
    #[arg(long, value_name = "LEVEL", value_parser = engine::level)]
    kernels: Option<Level>,
}

/// What requests may cost.
#[derive(clap::Args)]
#[command(next_help_heading = "Limits")]
struct Bounds {
    /// Images on their way through one network; beyond, requests are answered 503 with Retry-After
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    queue: u16,
    /// Seconds from a request's head to its answer; beyond, it is answered 504
    #[arg(long, value_name = "S", default_value_t = 30.0, value_parser = seconds)]
    timeout: f64,
    /// Size of one request's body
    #[arg(long, value_name = "SIZE", default_value = "32MiB", value_parser = parse_size)]
    body_limit: usize,
    /// Size of all bodies together, at a time
    #[arg(long, value_name = "SIZE", default_value = "512MiB", value_parser = parse_size)]
    bodies_limit: usize,
    /// Millions of pixels of one picture, by its header
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1024))]
    megapixels: u16,
    /// Connections at a time; more wait to be taken
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Seconds that running requests have after SIGTERM
    #[arg(long, value_name = "S", default_value_t = 30.0, value_parser = seconds)]
    drain: f64,
}

fn milliseconds(text: &str) -> Result<f64, String> {
    number(text, 0.0, 60_000.0)
}

fn seconds(text: &str) -> Result<f64, String> {
    number(text, 0.001, 86_400.0)
}

fn number(text: &str, least: f64, most: f64) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("a number from {least} to {most} is needed"))
}

impl Args {
    pub(crate) fn run(self, quiet: bool) -> anyhow::Result<ExitCode> {
        if let Some(address) = &self.probe {
            probe::probe(address)?;
            return Ok(ExitCode::SUCCESS);
        }
        let token = match self.token.as_deref() {
            Some("") => return Err(Usage("the token is empty; leave it out to need none".into()).into()),
            token => token.map(Digest::of),
        };
        let address = SocketAddr::new(self.host, self.port);
        if !self.host.is_loopback() && token.is_none() {
            warn!("whoever reaches {address} may ask: there is no --token");
        }
        // Before minutes of loading, not after.
        let listener = std::net::TcpListener::bind(address).with_context(|| address.to_string())?;
        let (models, stamps) = self.load()?;
        let bounds = &self.bounds;
        let server = Arc::new(Server {
            models,
            limits: Limits {
                body: bounds.body_limit,
                pixels: u64::from(bounds.megapixels) * 1_000_000,
                timeout: Duration::from_secs_f64(bounds.timeout),
            },
            token,
            draining: AtomicBool::new(false),
            bodies: Budget::new(bounds.bodies_limit.max(bounds.body_limit)),
            page: Page::new(),
            ids: Ids::new(),
            started: Instant::now(),
        });
        if !self.no_reload {
            watch::start(&server, stamps)?;
        }
        let access = if quiet { AccessLog::none() } else { AccessLog::start()? };
        let limits = Connections {
            most: usize::from(bounds.connections),
            drain: Duration::from_secs_f64(bounds.drain),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(self.running.decoders.map_or_else(|| self.threads(), usize::from))
            .build()?;
        let clean = runtime.block_on(async {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let stop = stop()?;
            if !quiet {
                let names: Vec<_> = server.models.iter().map(|slot| slot.name.as_str()).collect();
                let address = listener.local_addr()?;
                writeln!(std::io::stderr(), "serving {} at http://{address}", names.join(", "))?;
            }
            let router = http::router(Arc::clone(&server), access.clone());
            anyhow::Ok(http::serve(listener, router, server, limits, stop).await)
        })?;
        // Decoders may still be at work for those who left.
        runtime.shutdown_background();
        access.finish();
        anyhow::ensure!(clean, "requests were still running {} s after the signal", self.bounds.drain);
        Ok(ExitCode::SUCCESS)
    }

    fn threads(&self) -> usize {
        self.running.threads.map_or_else(engine::cores, usize::from)
    }

    /// Every network, and how its file was when it was read.
    fn load(&self) -> anyhow::Result<(Vec<Slot>, Vec<Option<super::source::Stamp>>)> {
        let running = &self.running;
        let settings = Settings {
            options: Options {
                batch: usize::from(running.max_batch),
                dtype: running.dtype.into(),
                threads: self.threads(),
                isa: engine::isa(running.kernels)?,
            },
            delay: Duration::from_secs_f64(running.batch_delay_ms / 1e3),
            slots: usize::from(self.bounds.queue),
            size: self.img_size.map(usize::from),
            turns: Arc::new(Turns::default()),
        };
        let sources = self.wishes()?.iter().map(Wish::resolve).collect::<anyhow::Result<Vec<_>>>()?;
        for (index, (name, _)) in sources.iter().enumerate() {
            if sources[..index].iter().any(|(other, _)| other == name) {
                let text = format!("two models are called '{name}'; name one: --model OTHER=...");
                return Err(Usage(text).into());
            }
        }
        let (mut models, mut stamps) = (Vec::new(), Vec::new());
        for (name, source) in sources {
            stamps.push(source.stamp());
            models.push(Slot::load(name, source, settings.clone())?);
        }
        Ok((models, stamps))
    }

    #[cfg(feature = "networks")]
    fn wishes(&self) -> anyhow::Result<Vec<Wish<'_>>> {
        let checkpoint = self.checkpoint.as_deref();
        match (checkpoint, self.model.as_slice()) {
            (Some(file), []) => {
                let model = file.to_str().ok_or_else(|| Usage("the file's name is no text".into()))?;
                Ok(vec![Wish { model, checkpoint: None, untrained: false }])
            }
            (Some(_), [_, _, ..]) => {
                let text = "--checkpoint is for one --model; give the others as --model NAME=FILE";
                Err(Usage(text.into()).into())
            }
            (_, models) => {
                let untrained = self.untrained;
                Ok(models.iter().map(|model| Wish { model, checkpoint, untrained }).collect())
            }
        }
    }

    #[cfg(not(feature = "networks"))]
    fn wishes(&self) -> anyhow::Result<Vec<Wish<'_>>> {
        Ok(self.model.iter().map(|model| Wish { model }).collect())
    }
}

/// Ends at SIGTERM or Ctrl-C.
fn stop() -> anyhow::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    Ok(async move {
        #[cfg(unix)]
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    })
}
