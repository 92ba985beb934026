use crate::compute::{Compute, Path as Way};
use crate::exit::Usage;
use crate::network::{Captured, Choice, package};
use crate::output::{giga, millions, write_file};
use anyhow::Context;
use cardinal_engine::plan::Plan;
use serde_json::json;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const EXAMPLES: &str = "\
Examples:
  cardinal compile --model resnest50d --untrained
  cardinal compile --model tresnet_m --output tresnet_m.safetensors --size 224 --size 448
  cardinal compile --checkpoint resnest50.pth --batch 16 --svg graph.svg -v

The file is portable: it holds the optimized graph and its weights, and is compiled for the processor that loads it
('cardinal predict --compiled FILE').";

/// Compiles a network: captures its graph, folds and fuses it, and plans kernels and memory. Says what was fused, what
/// was not and why (-v), and writes the graph to a file or draws it.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    choice: Choice,
    /// Side of the square input in pixels [default: the weights']; repeatable: several sizes share one file
    #[arg(short, long, value_name = "PIXELS", visible_alias = "img-size", value_parser = clap::value_parser!(u16).range(1..=8192))]
    size: Vec<u16>,
    /// Images at a time that memory is planned for
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4096))]
    batch: u16,
    #[command(flatten)]
    compute: Compute,
    /// Write the optimized graph and its weights to one safetensors file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Draw the optimized graph
    #[arg(long, value_name = "FILE.svg")]
    svg: Option<PathBuf>,
    /// Write the optimized graph as text
    #[arg(long, value_name = "FILE.txt")]
    text: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// One input size, compiled.
struct Compiled {
    size: usize,
    captured: Captured,
    plan: Plan,
    time: Duration,
}

impl Args {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        if self.compute.path == Way::Eager {
            return Err(Usage("--path eager compiles nothing".into()).into());
        }
        let loaded = self.choice.load()?;
        let sizes = if self.size.is_empty() {
            vec![loaded.preprocessing.size]
        } else {
            self.size.iter().copied().map(usize::from).collect()
        };
        let mut results = Vec::new();
        for size in sizes {
            let start = Instant::now();
            let captured = loaded.network.clone().optimized([loaded.network.in_chans(), size, size])?;
            let plan = self.compute.plan(captured.optimized.graph.clone(), usize::from(self.batch))?;
            results.push(Compiled { size, captured, plan, time: start.elapsed() });
        }
        let first = &results[0].captured.optimized.graph;
        if let Some(path) = &self.svg {
            write_file(path, first.to_svg().as_bytes())?;
        }
        if let Some(path) = &self.text {
            write_file(path, first.to_text().as_bytes())?;
        }
        let bytes = match &self.output {
            Some(path) => {
                package(&loaded, results.iter().map(|result| result.captured.clone())).save(path)?;
                Some(std::fs::metadata(path).with_context(|| path.display().to_string())?.len())
            }
            None => None,
        };
        let mut out = stdout().lock();
        if self.json {
            let list: Vec<_> = results.iter().map(as_json).collect();
            writeln!(out, "{}", serde_json::to_string_pretty(&list)?)?;
        } else {
            for result in &results {
                print(&mut out, result)?;
            }
            if let (Some(path), Some(bytes)) = (&self.output, bytes) {
                writeln!(out, "{}: {:.1} MiB", path.display(), bytes as f64 / (1 << 20) as f64)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print(out: &mut impl Write, result: &Compiled) -> std::io::Result<()> {
    let Compiled { size, captured: Captured { optimized, nodes: before, cost }, plan, time } = result;
    let graph = &optimized.graph;
    writeln!(
        out,
        "{} at {size}x{size}: {} M parameters, {} GMACs; {before} operators became {} in {:.2} s",
        graph.name,
        millions(cost.parameters as usize),
        giga(cost.macs as usize),
        graph.nodes.len(),
        time.as_secs_f64(),
    )?;
    for remark in &optimized.remarks {
        writeln!(out, "  {remark}")?;
    }
    writeln!(out, "  {}", plan.summary())
}

fn as_json(result: &Compiled) -> serde_json::Value {
    let Compiled { size, captured: Captured { optimized, nodes: before, cost }, plan, time } = result;
    json!({
        "model": optimized.graph.name,
        "img_size": size,
        "param_count": cost.parameters,
        "macs": cost.macs,
        "operators_captured": before,
        "operators": optimized.graph.nodes.len(),
        "remarks": optimized.remarks.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "steps": plan.steps().len(),
        "planned_memory_bytes": plan.memory_bytes(),
        "packed_weight_bytes": plan.weight_bytes(),
        "compile_seconds": time.as_secs_f64(),
    })
}
