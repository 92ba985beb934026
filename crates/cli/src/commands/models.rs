use crate::exit::Usage;
use crate::output::{Align, giga, millions, table};
use cardinal_models::ModelOptions;
use cardinal_models::registry::{Variant, variants};
use cardinal_models::summary::{Summary, summarize};
use glob::{MatchOptions, Pattern};
use serde_json::json;
use std::io::{Write, stdout};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  cardinal models
  cardinal models 'tresnet*' '*sknet*'
  cardinal models --pretrained --json";

/// Parameters are trainable ones; GMACs are multiply-adds of convolutions and linear layers and activations are the
/// elements that these write, both in units of 10^9 and 10^6 for one image of the default size.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Wildcards that names must match ('*', '?', '[...]'); a plain word matches any part of a name
    filter: Vec<String>,
    /// Only networks with published weights
    #[arg(long)]
    pretrained: bool,
    /// Print one JSON list of objects
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let chosen = self.chosen()?;
        let mut rows = Vec::with_capacity(chosen.len());
        for variant in chosen {
            rows.push((variant, summarize(variant, &ModelOptions::new(), [variant.size; 2])?));
        }
        let mut out = stdout().lock();
        if self.json {
            let list: Vec<_> = rows.iter().map(|(variant, summary)| as_json(variant, summary)).collect();
            writeln!(out, "{}", serde_json::to_string_pretty(&list)?)?;
        } else {
            let head = [
                ("model", Align::Left),
                ("params (M)", Align::Right),
                ("GMACs", Align::Right),
                ("activations (M)", Align::Right),
                ("size", Align::Right),
                ("published weights", Align::Left),
            ];
            let rows: Vec<_> = rows.iter().map(|(variant, summary)| as_row(variant, summary)).collect();
            table(&mut out, &head, &rows)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn chosen(&self) -> anyhow::Result<Vec<&'static Variant>> {
        let patterns: Vec<Pattern> =
            self.filter.iter().map(|text| pattern(text)).collect::<anyhow::Result<_>>()?;
        let wanted = |variant: &&Variant| {
            let named = patterns.is_empty()
                || patterns.iter().any(|p| p.matches_with(variant.name, MatchOptions::new()));
            named && (!self.pretrained || variant.pretrained().next().is_some())
        };
        let chosen: Vec<_> = variants().filter(wanted).collect();
        if chosen.is_empty() {
            let filter = self.filter.join("' or '");
            return Err(Usage(format!("no model matches '{filter}'; 'cardinal models' lists all")).into());
        }
        Ok(chosen)
    }
}

fn pattern(text: &str) -> anyhow::Result<Pattern> {
    let wild = if text.contains(['*', '?', '[']) { text.to_owned() } else { format!("*{text}*") };
    Pattern::new(&wild).map_err(|error| Usage(format!("'{text}' is not a valid wildcard: {error}")).into())
}

fn as_row(variant: &Variant, summary: &Summary) -> Vec<String> {
    let mut tags: Vec<String> = variant.pretrained().map(|row| row.tag.clone()).collect();
    if tags.len() > 3 {
        let more = tags.len() - 2;
        tags.truncate(2);
        tags.push(format!("and {more} more"));
    }
    vec![
        variant.name.into(),
        millions(summary.params),
        giga(summary.macs),
        millions(summary.activations),
        variant.size.to_string(),
        if tags.is_empty() { "-".into() } else { tags.join(", ") },
    ]
}

fn as_json(variant: &Variant, summary: &Summary) -> serde_json::Value {
    json!({
        "model": variant.name,
        "param_count": summary.params,
        "macs": summary.macs,
        "activations": summary.activations,
        "img_size": variant.size,
        "source": variant.source,
        "pretrained": variant.pretrained().map(|row| row.hub_id()).collect::<Vec<_>>(),
    })
}
