//! `--format onnx`.

use super::{Written, batch, mebibytes, notes};
use crate::network::{Loaded, Network};
use crate::output::shape;
use anyhow::{Context, ensure};
use cardinal_bridge::onnx::{self, Options, Sizes, check, run};
use cardinal_data::Random;
use cardinal_engine::graph::{Batch, Graph};
use cardinal_engine::plan::Plan;
use cardinal_engine::run::Session;
use cardinal_engine::{DType, Isa, passes, plan};
use serde_json::{Value, json};
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// What only an ONNX file can be asked for.
#[derive(clap::Args)]
pub(super) struct Flags {
    /// Images at a time: a number, or 'dynamic' for any [default: dynamic]
    #[arg(short, long, value_name = "N", value_parser = batch, help_heading = "ONNX")]
    batch: Option<Batch>,
    /// Let the file take images of any height and width. Networks whose padding or pooling was fixed for one size are
    /// refused
    #[arg(long, help_heading = "ONNX")]
    dynamic_size: bool,
    /// The operator set, 17 to 21 [default: 17]
    #[arg(long, value_name = "N", help_heading = "ONNX")]
    opset: Option<u16>,
    /// Write the weights to a second file, FILE.data, beside it; needed above 2 GiB
    #[arg(long, help_heading = "ONNX")]
    external_data: bool,
    /// Write the engine's optimized graph, with batch norms folded into convolutions, instead of the network layer by
    /// layer. Runtimes fold for themselves
    #[arg(long, help_heading = "ONNX")]
    optimize: bool,
    /// Read the file again, check its structure, compute it node by node and compare the logits with the engine's
    #[arg(long, help_heading = "ONNX")]
    check: bool,
}

impl Flags {
    /// One of these flags that was given.
    pub(super) fn given(&self) -> Option<&'static str> {
        let flags = [
            (self.batch.is_some(), "--batch"),
            (self.dynamic_size, "--dynamic-size"),
            (self.opset.is_some(), "--opset"),
            (self.external_data, "--external-data"),
            (self.optimize, "--optimize"),
            (self.check, "--check"),
        ];
        flags.into_iter().find_map(|(given, name)| given.then_some(name))
    }

    /// The graph in the form in which it is written.
    fn form(&self, graph: Graph) -> anyhow::Result<Graph> {
        Ok(if self.optimize { passes::optimize(graph)?.graph } else { passes::tidy(graph)? })
    }
}

/// Relative L2 error of the logits that `--check` allows.
const TOLERANCE: f64 = 1e-4;

pub(super) fn write(
    loaded: Loaded,
    source: Option<String>,
    size: usize,
    flags: &Flags,
    path: &Path,
) -> anyhow::Result<Written> {
    let chans = loaded.network.in_chans();
    let others = if flags.dynamic_size { other_sizes(&loaded.network, chans, size)? } else { Vec::new() };
    let mut witnesses = Vec::new();
    for [h, w] in others {
        witnesses.push(flags.form(loaded.network.clone().graph([chans, h, w])?)?);
    }
    let batch = flags.batch.unwrap_or_default();
    let opset = flags.opset.unwrap_or(*onnx::OPSETS.start());
    let notes = notes::Notes::new(&loaded, size, source)?;
    let captured = loaded.network.graph([chans, size, size])?;
    let graph = flags.form(captured.clone())?;
    let options = Options {
        opset,
        batch,
        sizes: if flags.dynamic_size { Sizes::Free(witnesses) } else { Sizes::Fixed },
        outputs: vec!["logits".into()],
        metadata: notes.metadata(),
        doc: notes.model(),
        input_doc: notes.input(),
    };
    let model = onnx::export(&graph, &options).map_err(usage)?;
    let name = graph.name.clone();
    drop((graph, options));
    let saved = if flags.external_data { model.save_external(path)? } else { model.save(path)? };

    let images = match batch {
        Batch::Free => "any number of images".to_owned(),
        Batch::Fixed(1) => "one image".to_owned(),
        Batch::Fixed(count) => format!("{count} images"),
    };
    let pixels = if flags.dynamic_size { "any size".to_owned() } else { format!("{size}x{size}") };
    let mut lines = vec![format!(
        "{}: {name} for {images} of {pixels}, opset {opset}, {}",
        path.display(),
        mebibytes(saved.bytes)
    )];
    if let Some((data, bytes)) = &saved.data {
        lines.push(format!("{}: its weights, {}", data.display(), mebibytes(*bytes)));
    }
    let mut json = json!({
        "model": name,
        "format": "onnx",
        "output": path,
        "bytes": saved.bytes,
        "data": saved.data.as_ref().map(|(path, _)| path),
        "data_bytes": saved.data.as_ref().map(|(_, bytes)| bytes),
        "opset": opset,
        "batch": match batch { Batch::Free => Value::Null, Batch::Fixed(count) => count.into() },
        "img_size": if flags.dynamic_size { Value::Null } else { size.into() },
    });
    if flags.check {
        let count = match batch {
            Batch::Free => 2,
            Batch::Fixed(count) => count,
        };
        let checked = compare(path, captured, count)?;
        lines.extend(checked.lines);
        json["check"] = checked.json;
    }
    Ok(Written { lines, json })
}

/// What cannot be exported as asked is the caller's to change.
fn usage(error: onnx::OnnxError) -> anyhow::Error {
    match error {
        onnx::OnnxError::Opset(_) | onnx::OnnxError::Size { .. } => {
            crate::exit::Usage(error.to_string()).into()
        }
        other => other.into(),
    }
}

/// Two other sizes that the network takes, with odd sides if it takes those, height and width not equal.
fn other_sizes(network: &Network, chans: usize, size: usize) -> anyhow::Result<Vec<[usize; 2]>> {
    if matches!(network, Network::Graphs(_)) {
        let text =
            "a compiled file is for its sizes; for --dynamic-size export the weights that it was made of";
        return Err(crate::exit::Usage(text.into()).into());
    }
    let steps = [[33, 65, 18, 47], [34, 66, 18, 48], [36, 68, 20, 12], [64, 32, 32, 96]];
    let sizes = steps.map(|[a, b, c, d]| [[size + a, size + b], [size + c, size + d]]);
    let takes = |&[h, w]: &[usize; 2]| network.check_input(&[1, chans, h, w]).is_ok();
    let found = sizes.into_iter().find(|sizes| sizes.iter().all(takes));
    Ok(found.context("the network takes one size only")?.to_vec())
}

/// The written file, read again and computed, beside the engine.
fn compare(path: &Path, captured: Graph, count: usize) -> anyhow::Result<Written> {
    let start = Instant::now();
    let wrong = |reason: String| anyhow::anyhow!("{}: the written file is wrong: {reason}", path.display());
    let file = onnx::read(path)?;
    let report = check::structure(&file).map_err(wrong)?;
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let input = captured.inputs.first().context("the graph has an input")?;
    let size = [&[count], &captured.shape(*input)[1..]].concat();
    let mut random = Random::new(0, &[]);
    let pixels: Vec<f32> = (0..size.iter().product()).map(|_| random.normal() as f32).collect();
    let theirs =
        run::evaluate(&file, run::Tensor::new(size.clone(), pixels.clone()).map_err(wrong)?, threads);
    let theirs = theirs.map_err(wrong)?;
    drop(file);

    let options = plan::Options { batch: count, dtype: DType::F32, threads, isa: Isa::best() };
    let plan = Plan::new(passes::optimize(captured)?.graph, &options)?;
    let mut session = Session::new(Arc::new(plan), false);
    let ours = session.run(&[&pixels])?;
    let logits = theirs.first().map(run::Tensor::floats).transpose().map_err(wrong)?.unwrap_or_default();
    let error = relative_error(logits, ours.get(0));
    ensure!(
        error <= TOLERANCE,
        "{}: the written file's logits are a relative error of {error:.1e} off the engine's",
        path.display()
    );
    let seconds = start.elapsed().as_secs_f64();
    let lines = vec![
        format!(
            "  structure: {} nodes of {} operators, {} constants; names unique, everything written before it is read",
            report.nodes(),
            report.operators.len(),
            report.initializers
        ),
        format!("  shapes: {} noted ones are those of a run on {}", report.noted, shape(&size)),
        format!(
            "  logits: computed node by node, within {error:.1e} of the engine's (relative L2), in {seconds:.1} s"
        ),
        "  not checked: other sizes, and what a runtime does with the file".into(),
    ];
    let json = json!({
        "nodes": report.nodes(),
        "operators": report.operators,
        "initializers": report.initializers,
        "shapes": report.noted,
        "input": size,
        "relative_error": error,
        "seconds": seconds,
    });
    Ok(Written { lines, json })
}

/// `|a - b| / |b|`; not a number in either is an infinite error.
fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() {
        return f64::INFINITY;
    }
    let square = |x: f64| x * x;
    let difference: f64 = a.iter().zip(b).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    let norm: f64 = b.iter().map(|&b| square(f64::from(b))).sum();
    let error = (difference / norm.max(f64::MIN_POSITIVE)).sqrt();
    if error.is_nan() { f64::INFINITY } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_is_no_number_is_infinite() {
        assert_eq!(relative_error(&[1.0, 2.0], &[1.0, 2.0]), 0.0);
        assert!((relative_error(&[3.0, 5.0], &[3.0, 4.0]) - 0.2).abs() < 1e-12);
        assert_eq!(relative_error(&[f32::NAN], &[1.0]), f64::INFINITY);
        assert_eq!(relative_error(&[1.0], &[1.0, 1.0]), f64::INFINITY);
    }

    #[test]
    fn a_batch_is_a_number_or_dynamic() {
        assert_eq!(batch("dynamic"), Ok(Batch::Free));
        assert_eq!(batch("8"), Ok(Batch::Fixed(8)));
        assert!(["0", "-1", "any", "100000", ""].iter().all(|text| batch(text).is_err()));
    }
}
