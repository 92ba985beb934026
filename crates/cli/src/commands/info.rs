use crate::network::{WeightsFile, read_weights};
use crate::output::{Align, giga, millions, shape, table};
use cardinal_models::ModelOptions;
use cardinal_models::registry::{self, Variant};
use cardinal_models::summary::{Summary, summarize};
use cardinal_models::weights::options_in;
use serde_json::{Value, json};
use std::io::{Write, stdout};
use std::path::Path;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  cardinal info tresnet_m
  cardinal info resnest50d --img-size 320 --json
  cardinal info weights.pth";

/// For a network: every layer with its output, parameters and multiply-adds. For a file: its format, naming and
/// which network it is for, then the same.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A name of 'cardinal models' or a file of weights
    #[arg(value_name = "MODEL|FILE")]
    subject: String,
    /// Side of the square input in pixels [default: the network's]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u16).range(1..=8192))]
    img_size: Option<u16>,
    /// Classes [default: the file's, or 1000]
    #[arg(long, value_name = "N")]
    num_classes: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let path = Path::new(&self.subject);
        // A name is a name even where a file of that name lies about; a path says so by a slash or an extension.
        match registry::find(&self.subject) {
            Ok(variant) => self.describe(variant, ModelOptions::new(), None),
            Err(_) if path.exists() || self.subject.contains(['/', '\\']) || path.extension().is_some() => {
                let file = read_weights(path, false)?;
                let (variant, candidates) = file.variant()?;
                let facts = facts(path, &file, &candidates);
                self.describe(variant, options_in(variant, &file.tensors), Some(&facts))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn describe(
        &self,
        variant: &'static Variant,
        options: ModelOptions,
        facts: Option<&Value>,
    ) -> anyhow::Result<ExitCode> {
        let classes = self.num_classes.unwrap_or(options.num_classes);
        let options = options.with_num_classes(classes);
        let summary = summarize(variant, &options, [self.img_size.map_or(variant.size, usize::from); 2])?;
        let mut out = stdout().lock();
        if self.json {
            let mut object = as_json(variant, &options, &summary);
            if let Some(facts) = facts {
                object["file"] = facts.clone();
            }
            writeln!(out, "{}", serde_json::to_string_pretty(&object)?)?;
        } else {
            print(&mut out, variant, &options, &summary, facts)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn facts(path: &Path, file: &WeightsFile, candidates: &[&Variant]) -> Value {
    let info = &file.info;
    json!({
        "path": path.display().to_string(),
        "format": info.format.to_string(),
        "names": file.naming.to_string(),
        "tensors": file.tensors.len(),
        "under": info.wrapper,
        "prefix": info.prefix,
        "averaged": info.is_ema,
        "arch": info.arch,
        "epoch": info.epoch,
        "class_names": info.classes.as_ref().map(Vec::len),
        "left_out": file.dropped,
        "fits": candidates.iter().map(|variant| variant.name).collect::<Vec<_>>(),
    })
}

fn as_json(variant: &Variant, options: &ModelOptions, summary: &Summary) -> Value {
    let layers: Vec<Value> = summary
        .layers
        .iter()
        .map(|layer| {
            json!({
                "name": layer.name,
                "kind": layer.kind,
                "output": layer.output,
                "params": layer.params,
                "macs": layer.macs,
            })
        })
        .collect();
    json!({
        "model": variant.name,
        "source": variant.source,
        "input": summary.input,
        "num_classes": options.num_classes,
        "param_count": summary.params,
        "macs": summary.macs,
        "activations": summary.activations,
        "layers": layers,
    })
}

fn print(
    out: &mut impl Write,
    variant: &Variant,
    options: &ModelOptions,
    summary: &Summary,
    facts: Option<&Value>,
) -> anyhow::Result<()> {
    if let Some(Value::Object(facts)) = facts {
        for (key, value) in facts {
            let text = match value {
                Value::Null => continue,
                Value::Array(list) if list.is_empty() => continue,
                Value::String(text) if text.is_empty() => continue,
                Value::String(text) => text.clone(),
                Value::Array(list) => list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
                other => other.to_string(),
            };
            writeln!(out, "{:<12} {text}", key.replace('_', " "))?;
        }
        writeln!(out)?;
    }
    let head = [
        ("layer", Align::Left),
        ("kind", Align::Left),
        ("output", Align::Left),
        ("params", Align::Right),
        ("MMACs", Align::Right),
    ];
    let count = |n: usize, text: String| if n == 0 { String::new() } else { text };
    let rows: Vec<Vec<String>> = summary
        .layers
        .iter()
        .map(|layer| {
            let macs = count(layer.macs, format!("{:.2}", layer.macs as f64 / 1e6));
            let params = count(layer.params, layer.params.to_string());
            vec![layer.name.clone(), layer.kind.clone(), shape(&layer.output), params, macs]
        })
        .collect();
    table(out, &head, &rows)?;
    writeln!(
        out,
        "\n{} ({})\ninput {}, {} classes: {} M parameters, {} GMACs, {} M activations",
        variant.name,
        variant.source,
        shape(&summary.input),
        options.num_classes,
        millions(summary.params),
        giga(summary.macs),
        millions(summary.activations),
    )?;
    Ok(())
}
