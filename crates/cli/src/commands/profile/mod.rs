mod picture;
mod rows;
mod training;

use crate::compute::{Compute, Path};
use crate::exit::Usage;
use crate::machine;
use crate::network::Network;
use crate::training::recompute;
use cardinal_engine::roofline;
use cardinal_engine::train::Recompute;
use cardinal_models::burn::tensor::Device;
use cardinal_models::registry::{self, Variant};
use cardinal_models::{Model, ModelOptions};
use rows::{Row, Rows, Work};
use serde_json::json;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  cardinal profile --model resnest50d
  cardinal profile --model tresnet_m --batch 16 --top 10
  cardinal profile --model resnet50 --dtype bf16 --json
  cardinal profile --train --model tresnet_m --batch 16 --by-operator --top 10 --svg memory.svg";

/// Times every step of a compiled network, in inference or training: the layer, the kernel that was chosen, its time and rate, and which share
/// that is of what this processor can do (the roofline: its peak rate, or the bandwidth of its memory).
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The network, with random weights: they are as fast as any
    #[arg(short, long, value_name = "NAME")]
    model: String,
    /// Images per run
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4096))]
    batch: u16,
    /// Side of the square input in pixels [default: the network's]
    #[arg(short, long, value_name = "PIXELS", visible_alias = "img-size", value_parser = clap::value_parser!(u16).range(1..=8192))]
    size: Option<u16>,
    /// Runs, of which each step's median counts [default: 20, in training 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: Option<u32>,
    /// Only the N costliest steps, the costliest first
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// One row for all steps of an operator
    #[arg(long)]
    by_operator: bool,
    /// Time the steps of training: the forward and the backward pass
    #[arg(long)]
    train: bool,
    /// What the backward pass computes again to save memory: none, cheap or expansions
    #[arg(long, value_name = "WHAT", default_value = "expansions", value_parser = recompute, requires = "train")]
    recompute: Recompute,
    /// Draw how much memory the maps take over a step of training, for each kind of --recompute
    #[arg(long, value_name = "FILE", requires = "train")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    compute: Compute,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        if self.compute.path != Path::Compiled {
            return Err(Usage("only --path compiled has steps to time".into()).into());
        }
        let variant = registry::find(&self.model)?;
        let size = self.size.map_or(variant.size, usize::from);
        if self.train {
            self.train(variant, size)?;
        } else {
            self.infer(variant, size)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn runs(&self) -> usize {
        self.runs.map_or(if self.train { 3 } else { 20 }, |runs| runs as usize)
    }

    /// The rows that were asked for.
    fn arrange(&self, rows: &mut Rows) {
        if self.by_operator {
            rows.by_operator();
        }
        if let Some(top) = self.top {
            rows.costliest(top);
        }
    }

    /// Times the steps of inference with `variant`, and prints them.
    fn infer(&self, variant: &'static Variant, size: usize) -> anyhow::Result<()> {
        let batch = usize::from(self.batch);
        let device = Device::flex();
        device.seed(0);
        let model = Model::new(variant, &ModelOptions::new(), &device);
        let mut runner = self.compute.prepare(Network::Module(Box::new(model)), batch, [3, size, size])?;
        let threads = self.compute.threads();
        let isa = self.compute.isa()?;
        let before = roofline::measure(isa, threads);
        let Some(session) = runner.session() else { unreachable!("the path is compiled") };
        let input = vec![0.5; batch * 3 * size * size];
        session.run(&[&input])?;
        let times = session.profile(&[&input], self.runs())?;
        let roofline = before.or(&roofline::measure(isa, threads));
        let plan = session.plan();
        let row = |time: &cardinal_engine::run::StepTime| {
            Row::new(&Work::Infer(&plan.steps()[time.step]), time.time.as_secs_f64(), batch, &roofline)
        };
        let mut rows = Rows::new(times.iter().map(row).collect(), "output");
        self.arrange(&mut rows);
        let total = rows.total;
        let mut out = stdout().lock();
        if self.json {
            let object = json!({
                "model": variant.name,
                "infer_batch_size": batch,
                "infer_img_size": size,
                "infer_step_time": total * 1e3,
                "device": machine::cpu_name(),
                "threads": threads,
                "peak_gflops": roofline.fma,
                "read_gb_per_sec": roofline.read,
                "steps": rows.as_json(),
            });
            writeln!(out, "{}", serde_json::to_string_pretty(&object)?)?;
            return Ok(());
        }
        rows.print(&mut out)?;
        writeln!(
            out,
            "\n{:.2} ms for {batch} images, {:.1} images/s; {}, {threads} threads: {:.0} GFLOP/s, {:.0} GB/s; {}",
            total * 1e3,
            batch as f64 / total,
            machine::cpu_name(),
            roofline.fma,
            roofline.read[2],
            plan.summary(),
        )?;
        Ok(())
    }
}
