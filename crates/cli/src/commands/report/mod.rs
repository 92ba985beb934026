//! `cardinal report`: the papers' figures and tables from measured results.

mod figures;
mod measure;
mod page;
mod plot;
mod published;
mod results;
mod tables;

use super::bench::{check_seconds, matching};
use crate::exit::Usage;
use crate::output::write_file;
use anyhow::Context;
use figures::{Figure, figures};
use results::Results;
use serde_json::{Value, json};
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use tables::{Table, tables};

const EXAMPLES: &str = "\
Examples:
  cardinal report bench/results/*.json
  cardinal report bench.json eval.json --output report/
  cardinal report --run 'tresnet*' --run resnet50 --batch 1 --batch 16 --seconds 2
  cardinal report bench/results/*.json --run 'resnest*' --machine 'AMD EPYC'

Results are those of 'cardinal bench --json', 'cardinal eval --json', 'cardinal report --run', bench/peers.py and
bench/train_peers.py. An own accuracy goes before a published one. Numbers that were not measured are left out.";

/// Draws the figures and tables of the ResNeSt and TResNet papers from measured results: speed against accuracy, largest
/// batches and ablations, as SVG files and one page.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Files of results
    #[arg(value_name = "RESULTS", required_unless_present = "run")]
    results: Vec<PathBuf>,
    /// The folder for index.html, the figures and report.json
    #[arg(short, long, value_name = "DIR", default_value = "report")]
    output: PathBuf,
    /// Measure these networks first, where the results have them not: names of 'cardinal models' or wildcards; repeatable
    #[arg(long, value_name = "NAME")]
    run: Vec<String>,
    /// Images per step of --run; repeatable
    #[arg(short, long, value_name = "N", default_values_t = [1, 16], requires = "run",
          value_parser = clap::value_parser!(u16).range(1..=4096))]
    batch: Vec<u16>,
    /// How long --run measures each
    #[arg(long, value_name = "S", default_value_t = 2.0, requires = "run")]
    seconds: f64,
    /// Threads of --run [default: the cores that the process may use]
    #[arg(long, value_name = "N", requires = "run", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// --run measures steps of training
    #[arg(long, requires = "run")]
    train: bool,
    /// Which machine's results to show, if there are several: a part of its processor's name
    #[arg(long, value_name = "TEXT")]
    machine: Option<String>,
    /// Which results to show: f32 or bf16
    #[arg(long, value_name = "FORMAT", default_value = "f32", value_parser = ["f32", "bf16"])]
    dtype: String,
    /// Print the points and rows as JSON, as in report.json
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        check_seconds(self.seconds)?;
        let models = matching(&self.run)?;
        let mut results = Results::default();
        for path in &self.results {
            results.read(path)?;
        }
        std::fs::create_dir_all(&self.output).with_context(|| self.output.display().to_string())?;
        if !models.is_empty() {
            let plan = measure::Plan {
                models,
                batches: self.batch.clone(),
                seconds: self.seconds,
                dtype: if self.dtype == "bf16" { "bf16" } else { "f32" },
                threads: self.threads,
                train: self.train,
            };
            let file = self.output.join(if self.train { "measured-train.json" } else { "measured.json" });
            if plan.run(&results, &file)? {
                results.read(&file)?;
            }
        }
        let machine = self.machine(&results)?;
        results.keep(&machine, &self.dtype);
        let accuracies = published::accuracies(&results.own);
        let (figures, tables) = (figures(&results, &accuracies, &machine), tables(&results));
        if figures.is_empty() && tables.is_empty() {
            let text = format!(
                "nothing to show: the results have no network of the papers' figures or tables in {} on {machine}",
                self.dtype
            );
            return Err(Usage(text).into());
        }
        let page = page::draw(&machine, &results, &figures, &tables);
        let document = document(&machine, &figures, &tables);
        let text = serde_json::to_string_pretty(&document)? + "\n";
        let mut written = Vec::new();
        let mut write = |name: String, content: &str| {
            let path = self.output.join(name);
            written.push(path.clone());
            write_file(&path, content.as_bytes())
        };
        for figure in &figures {
            write(format!("{}.svg", figure.file), &(figure.plot.draw(true) + "\n"))?;
        }
        write("index.html".into(), &page)?;
        write("report.json".into(), &text)?;
        let mut out = stdout().lock();
        if self.json {
            write!(out, "{text}")?;
        } else {
            for path in &written {
                writeln!(out, "written: {}", path.display())?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The machine whose results are shown: figures never mix two.
    fn machine(&self, results: &Results) -> anyhow::Result<String> {
        let all = results.machines();
        let wanted = self.machine.as_deref().map(str::to_lowercase);
        let fits = |name: &&String| wanted.as_ref().is_none_or(|wanted| name.to_lowercase().contains(wanted));
        let found: Vec<&String> = all.iter().filter(fits).collect();
        match found[..] {
            [machine] => Ok(machine.clone()),
            [] if all.is_empty() => {
                Err(Usage("the results have no speeds; give some of 'cardinal bench --json'".into()).into())
            }
            [] => {
                let text = format!(
                    "--machine '{}': the results are of {}",
                    self.machine.as_deref().unwrap_or_default(),
                    all.join(", ")
                );
                Err(Usage(text).into())
            }
            _ => {
                let names: Vec<&str> = found.iter().map(|name| name.as_str()).collect();
                let text = format!(
                    "the results are of several machines ({}); choose one with --machine",
                    names.join(", ")
                );
                Err(Usage(text).into())
            }
        }
    }
}

/// All points and rows, with where they come from.
fn document(machine: &str, figures: &[Figure], tables: &[Table]) -> Value {
    let points = |figure: &Figure| -> Vec<Value> {
        let point = |(accuracy, speed, x): &(published::Accuracy, results::Speed, f64)| {
            json!({
                "model": accuracy.model,
                "label": accuracy.label,
                "family": accuracy.family,
                "img_size": accuracy.size,
                "top1": accuracy.top1,
                "top1_source": accuracy.source,
                "top1_is_own": accuracy.own,
                "x": x,
                "batch_size": speed.batch,
                "samples_per_sec": speed.rate,
                "command": speed.origin.command,
                "machine": speed.origin.machine,
                "date": speed.origin.date,
            })
        };
        figure.points.iter().map(point).collect()
    };
    let figure = |figure: &Figure| {
        json!({ "figure": figure.file, "caption": figure.caption, "x": figure.plot.x, "points": points(figure),
                "not_measured": figure.missing })
    };
    let row = |row: &tables::Row| {
        let cell = |cell: &tables::Cell| {
            json!({ "text": cell.text, "command": cell.origin.as_ref().map(|origin| &origin.command),
                    "date": cell.origin.as_ref().map(|origin| &origin.date) })
        };
        json!({ "label": row.label, "model": row.model, "cells": row.cells.iter().map(cell).collect::<Vec<_>>() })
    };
    let table = |table: &Table| {
        json!({ "table": table.title, "note": table.note, "head": table.head,
                "rows": table.rows.iter().map(row).collect::<Vec<_>>() })
    };
    json!({
        "machine": machine,
        "figures": figures.iter().map(figure).collect::<Vec<_>>(),
        "tables": tables.iter().map(table).collect::<Vec<_>>(),
    })
}
