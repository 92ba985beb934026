//! Measures what is missing: this program's own `bench`, once for each network, so that no network's memory counts for
//! another's.

use super::results::{Results, Task};
use crate::machine;
use crate::output::write_file;
use anyhow::Context;
use cardinal_models::registry::Variant;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};

/// How networks are measured.
pub(super) struct Plan {
    pub(super) models: Vec<&'static Variant>,
    pub(super) batches: Vec<u16>,
    pub(super) seconds: f64,
    pub(super) dtype: &'static str,
    pub(super) threads: Option<u16>,
    pub(super) train: bool,
}

impl Plan {
    /// Measures what `results` have not, and writes all of it to `file` after each network. Whether anything was.
    pub(super) fn run(&self, results: &Results, file: &Path) -> anyhow::Result<bool> {
        let program = std::env::current_exe().context("finding this program")?;
        let task = if self.train { Task::Training } else { Task::Inference };
        let bar = crate::progress::items(self.models.len(), "networks");
        let mut runs: Vec<Value> = Vec::new();
        for variant in &self.models {
            let known = results.ours(variant.name, variant.size, task);
            let is_known = |batch: u16| known.iter().any(|speed| speed.batch == usize::from(batch));
            let missing: Vec<u16> = self.batches.iter().copied().filter(|&batch| !is_known(batch)).collect();
            if !missing.is_empty() {
                let arguments = self.arguments(variant.name, &missing);
                let output = Command::new(&program).args(&arguments).stderr(Stdio::inherit()).output();
                let output = output.context("starting 'cardinal bench'")?;
                anyhow::ensure!(output.status.success(), "'cardinal {}' failed", arguments.join(" "));
                let rows: Value =
                    serde_json::from_slice(&output.stdout).context("what 'cardinal bench' prints")?;
                runs.push(json!({ "command": format!("cardinal {}", arguments.join(" ")), "results": rows }));
                let document = json!({
                    "date": machine::today(),
                    "machine": { "cpu": machine::cpu_name() },
                    "runs": runs,
                });
                write_file(file, (serde_json::to_string_pretty(&document)? + "\n").as_bytes())?;
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(!runs.is_empty())
    }

    fn arguments(&self, model: &str, batches: &[u16]) -> Vec<String> {
        let mut arguments: Vec<String> = vec!["bench".into()];
        if self.train {
            arguments.push("--train".into());
        }
        arguments.extend(["--model".into(), model.into()]);
        for batch in batches {
            arguments.extend(["--batch".into(), batch.to_string()]);
        }
        arguments.extend(["--seconds".into(), self.seconds.to_string(), "--dtype".into(), self.dtype.into()]);
        if let Some(threads) = self.threads {
            arguments.extend(["--threads".into(), threads.to_string()]);
        }
        arguments.push("--json".into());
        arguments
    }
}
