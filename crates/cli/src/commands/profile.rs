use crate::compute::{Compute, Path};
use crate::exit::Usage;
use crate::machine;
use crate::network::Network;
use crate::output::{Align, shape, table};
use cardinal_engine::plan::Step;
use cardinal_engine::roofline::{self, Roofline};
use cardinal_engine::run::StepTime;
use cardinal_models::burn::tensor::Device;
use cardinal_models::{Model, ModelOptions, registry};
use serde_json::{Value, json};
use std::io::{Write, stdout};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  cardinal profile --model resnest50d
  cardinal profile --model tresnet_m --batch 16 --top 10
  cardinal profile --model resnet50 --dtype bf16 --json";

/// Times every step of a compiled network: the layer, the kernel that was chosen, its time and rate, and which share
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
    #[arg(short, long, value_name = "PIXELS", visible_alias = "img-size")]
    size: Option<usize>,
    /// Runs, of which each step's median counts
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: u32,
    /// Only the N costliest steps, the costliest first
    #[arg(long, value_name = "N")]
    top: Option<usize>,
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
        let size = self.size.unwrap_or(variant.size);
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
        let mut times = session.profile(&[&input], self.runs as usize)?;
        let roofline = before.or(&roofline::measure(isa, threads));
        let total: f64 = times.iter().map(|step| step.time.as_secs_f64()).sum();
        if let Some(top) = self.top {
            times.sort_by_key(|step| std::cmp::Reverse(step.time));
            times.truncate(top);
        }
        let plan = session.plan();
        let rows: Vec<_> = times
            .iter()
            .map(|time| Row::new(&plan.steps()[time.step], time, batch, total, &roofline))
            .collect();
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
                "steps": rows.iter().map(Row::as_json).collect::<Vec<_>>(),
            });
            writeln!(out, "{}", serde_json::to_string_pretty(&object)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        let head = [
            ("layer", Align::Left),
            ("operator", Align::Left),
            ("output", Align::Left),
            ("kernel", Align::Left),
            ("ms", Align::Right),
            ("share", Align::Right),
            ("GFLOP/s", Align::Right),
            ("GB/s", Align::Right),
            ("roofline", Align::Right),
        ];
        table(&mut out, &head, &rows.iter().map(Row::as_text).collect::<Vec<_>>())?;
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
        Ok(ExitCode::SUCCESS)
    }
}

/// GB/s from the level of the memory that holds `bytes`.
fn read_rate(roofline: &Roofline, bytes: f64) -> f64 {
    let sizes = [1e6, 8e6, 64e6, f64::INFINITY];
    let level = sizes.iter().position(|&size| bytes <= size).unwrap_or(sizes.len() - 1);
    roofline.read[level]
}

struct Row<'a> {
    step: &'a Step,
    seconds: f64,
    share: f64,
    flops: f64,
    bytes: f64,
    /// The time that the roofline allows over the time taken.
    roofline: f64,
}

impl<'a> Row<'a> {
    fn new(step: &'a Step, time: &StepTime, batch: usize, total: f64, roofline: &Roofline) -> Self {
        let seconds = time.time.as_secs_f64().max(1e-9);
        let flops = 2.0 * (step.macs() * batch) as f64;
        let bytes = (step.map_bytes() * batch + step.weight_bytes()) as f64;
        let least = (flops / (roofline.fma * 1e9)).max(bytes / (read_rate(roofline, bytes) * 1e9));
        Self { step, seconds, share: seconds / total, flops, bytes, roofline: least / seconds }
    }

    fn as_text(&self) -> Vec<String> {
        let rate =
            |value: f64| if value == 0.0 { "-".into() } else { format!("{:.1}", value / self.seconds / 1e9) };
        vec![
            self.step.name().into(),
            self.step.operator().into(),
            shape(&self.step.output_shape()),
            self.step.kernel().into(),
            format!("{:.3}", self.seconds * 1e3),
            format!("{:.1} %", self.share * 100.0),
            rate(self.flops),
            rate(self.bytes),
            format!("{:.0} %", self.roofline * 100.0),
        ]
    }

    fn as_json(&self) -> Value {
        json!({
            "layer": self.step.name(),
            "operator": self.step.operator(),
            "output": self.step.output_shape(),
            "kernel": self.step.kernel(),
            "ms": self.seconds * 1e3,
            "share": self.share,
            "gflops": self.flops / self.seconds / 1e9,
            "bytes": self.bytes,
            "roofline": self.roofline,
        })
    }
}
