//! Measured results: what the benchmarks wrote.

use anyhow::{Context, bail};
use cardinal_data::{DataError, DataErrorKind};
use serde_json::Value;
use std::path::Path;
use std::rc::Rc;

/// Who measures under this name is this program.
pub(super) const OURS: &str = "cardinal";

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Inference,
    Training,
}

/// Where a number comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) command: String,
    pub(super) machine: String,
    /// As the file tells it, or as its name begins.
    pub(super) date: String,
    pub(super) file: String,
}

/// How fast a network ran.
#[derive(Clone, Debug)]
pub(super) struct Speed {
    pub(super) model: String,
    pub(super) runner: String,
    pub(super) task: Task,
    pub(super) batch: usize,
    pub(super) size: usize,
    pub(super) dtype: String,
    /// Images per second: the median.
    pub(super) rate: f64,
    /// Millions of parameters and of multiply-adds by a thousand (GMACs), if the file has them.
    pub(super) params: Option<f64>,
    pub(super) gmacs: Option<f64>,
    pub(super) origin: Rc<Origin>,
}

/// The largest batch that trains within some memory.
#[derive(Clone, Debug)]
pub(super) struct Largest {
    pub(super) model: String,
    pub(super) runner: String,
    pub(super) batch: usize,
    pub(super) dtype: String,
    /// The memory, in words.
    pub(super) limit: String,
    pub(super) origin: Rc<Origin>,
}

/// An accuracy that `cardinal eval` found.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub(super) model: String,
    pub(super) size: usize,
    pub(super) top1: f64,
    pub(super) images: u64,
    pub(super) file: String,
}

/// All that was read.
#[derive(Default)]
pub(super) struct Results {
    pub(super) speeds: Vec<Speed>,
    pub(super) largest: Vec<Largest>,
    pub(super) own: Vec<Own>,
}

impl Results {
    /// Adds what a file holds: a list of `cardinal bench --json`, one of `cardinal eval --json`, runs that this command
    /// measured, or the results of `bench/peers.py` and `bench/train_peers.py`.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is none of these.
    pub(super) fn read(&mut self, path: &Path) -> anyhow::Result<()> {
        let file =
            path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into());
        let error = |error: std::io::Error| DataError { path: path.into(), kind: DataErrorKind::Io(error) };
        let broken = |reason: String| error(std::io::Error::other(reason));
        let bytes = std::fs::read(path).map_err(error)?;
        let value: Value =
            serde_json::from_slice(&bytes).map_err(|error| broken(format!("not JSON: {error}")))?;
        Ok(self.add(&value, &file).map_err(|error| broken(format!("{error:#}")))?)
    }

    fn add(&mut self, value: &Value, file: &str) -> anyhow::Result<()> {
        let known = "it holds no results of 'cardinal bench --json', 'cardinal eval --json', 'cardinal report --run', \
                     bench/peers.py or bench/train_peers.py";
        let before = self.speeds.len() + self.largest.len() + self.own.len();
        let date = text(value, "date").or_else(|| date_of(file)).unwrap_or_else(|| "not recorded".into());
        // The day is enough.
        let date = date.split('T').next().unwrap_or(&date).to_owned();
        if let Some(rows) = value.as_array() {
            for row in rows {
                self.add_row(row, None, &date, file)?;
            }
        } else if let Some(runs) = value.get("runs").and_then(Value::as_array) {
            for run in runs {
                let command = text(run, "command");
                let rows = run.get("results").and_then(Value::as_array);
                for row in rows.context("a run has no results")? {
                    self.add_row(row, command.as_deref(), &date, file)?;
                }
            }
        } else if value.get("cells").is_some() {
            self.add_peers(value, &date, file)?;
        } else if value.get("top1").is_some() {
            self.own.push(Own {
                model: text(value, "model").context("it has a top1, but no model")?,
                size: count(value, "img_size").context("it has a top1, but no img_size")?,
                top1: number(value, "top1").context("its top1 is no number")?,
                images: value.get("images").and_then(Value::as_u64).unwrap_or(0),
                file: file.into(),
            });
        } else {
            bail!("{known}");
        }
        if before == self.speeds.len() + self.largest.len() + self.own.len() {
            bail!("{known}");
        }
        Ok(())
    }

    /// A row of `cardinal bench --json`.
    fn add_row(&mut self, row: &Value, command: Option<&str>, date: &str, file: &str) -> anyhow::Result<()> {
        let (task, prefix) = match row.get("infer_batch_size") {
            Some(_) => (Task::Inference, "infer"),
            None => (Task::Training, "train"),
        };
        let key = |name: &str| format!("{prefix}_{name}");
        let model = text(row, "model").context("a row has no model")?;
        let batch = count(row, &key("batch_size")).with_context(|| format!("{model} has no batch size"))?;
        let size = count(row, &key("img_size")).with_context(|| format!("{model} has no image size"))?;
        let dtype = text(row, "dtype").unwrap_or_else(|| "f32".into());
        let is_largest = row.get("max_batch").and_then(Value::as_bool) == Some(true);
        let rebuilt = || {
            let train = if task == Task::Training { "--train " } else { "" };
            let batch = if is_largest { "--max-batch".into() } else { format!("--batch {batch}") };
            let threads = count(row, "threads").map_or_else(String::new, |n| format!(" --threads {n}"));
            format!(
                "cardinal bench {train}--model {model} {batch} --size {size} --dtype {dtype}{threads} --json"
            )
        };
        let origin = Rc::new(Origin {
            command: command.map_or_else(rebuilt, str::to_owned),
            machine: text(row, "device").unwrap_or_else(|| "unknown machine".into()),
            date: date.into(),
            file: file.into(),
        });
        if is_largest {
            let limit = number(row, "memory_limit_mib").map(|mib| format!("{:.1} GiB", mib / 1024.0));
            self.largest.push(Largest {
                model: model.clone(),
                runner: OURS.into(),
                batch,
                dtype: dtype.clone(),
                limit: limit.unwrap_or_else(|| "four fifths of the free memory".into()),
                origin: Rc::clone(&origin),
            });
        }
        // A dry run took no step.
        let Some(rate) = number(row, &key("samples_per_sec")) else { return Ok(()) };
        self.speeds.push(Speed {
            model,
            runner: OURS.into(),
            task,
            batch,
            size,
            dtype,
            rate,
            params: number(row, "param_count"),
            gmacs: number(row, "infer_gmacs"),
            origin,
        });
        Ok(())
    }

    /// Results of the peer benchmarks: cells of speeds, and for training rows of memory.
    fn add_peers(&mut self, value: &Value, date: &str, file: &str) -> anyhow::Result<()> {
        let settings = &value["settings"];
        let memory = value.get("memory").and_then(Value::as_array);
        let task = if memory.is_some() { Task::Training } else { Task::Inference };
        let origin = Rc::new(Origin {
            command: text(value, "command").context("it does not say its command")?,
            machine: text(&value["machine"], "cpu").unwrap_or_else(|| "unknown machine".into()),
            date: date.into(),
            file: file.into(),
        });
        let size = count(settings, "size").context("its settings have no size")?;
        for cell in value["cells"].as_array().into_iter().flatten() {
            let model = text(cell, "model").context("a cell has no model")?;
            let batch = count(cell, "batch").with_context(|| format!("a cell of {model} has no batch"))?;
            let gmacs = cell["results"][OURS]["answers"][0].get("infer_gmacs").and_then(Value::as_f64);
            for (runner, result) in cell["results"].as_object().into_iter().flatten() {
                let Some(rate) = number(result, "median") else { continue };
                self.speeds.push(Speed {
                    model: model.clone(),
                    runner: runner.clone(),
                    task,
                    batch,
                    size,
                    dtype: text(cell, "dtype").unwrap_or_else(|| "f32".into()),
                    rate,
                    params: number(cell, "parameters").map(|count| count / 1e6),
                    gmacs,
                    origin: Rc::clone(&origin),
                });
            }
        }
        let limit = number(settings, "memory_limit").map_or_else(
            || "unknown memory".into(),
            |bytes| format!("{:.1} GiB", bytes / f64::from(1 << 30)),
        );
        for row in memory.into_iter().flatten() {
            let model = text(row, "model").context("a row of memory has no model")?;
            for (runner, result) in row["results"].as_object().into_iter().flatten() {
                let Some(batch) = count(&result["max_batch"], "batch") else { continue };
                self.largest.push(Largest {
                    model: model.clone(),
                    runner: runner.clone(),
                    batch,
                    dtype: text(row, "dtype").unwrap_or_else(|| "f32".into()),
                    limit: limit.clone(),
                    origin: Rc::clone(&origin),
                });
            }
        }
        Ok(())
    }

    /// The machines on which anything was measured.
    pub(super) fn machines(&self) -> Vec<String> {
        let all = self.speeds.iter().map(|speed| &speed.origin);
        let mut machines: Vec<String> = all
            .chain(self.largest.iter().map(|row| &row.origin))
            .map(|origin| origin.machine.clone())
            .collect();
        machines.sort();
        machines.dedup();
        machines
    }

    /// Keeps what was measured on `machine` in `dtype`.
    pub(super) fn keep(&mut self, machine: &str, dtype: &str) {
        self.speeds.retain(|speed| speed.origin.machine == machine && speed.dtype == dtype);
        self.largest.retain(|row| row.origin.machine == machine && row.dtype == dtype);
    }

    /// Our newest measurements of a network at one input size, one for each batch.
    pub(super) fn ours(&self, model: &str, size: usize, task: Task) -> Vec<&Speed> {
        let mut found: Vec<&Speed> = Vec::new();
        let fits = |speed: &&Speed| {
            speed.runner == OURS && speed.model == model && speed.size == size && speed.task == task
        };
        for speed in self.speeds.iter().filter(fits) {
            match found.iter_mut().find(|other| other.batch == speed.batch) {
                // Dates begin with the year, so later ones are larger.
                Some(other) if speed.origin.date >= other.origin.date => *other = speed,
                Some(_) => {}
                None => found.push(speed),
            }
        }
        found
    }

    /// The batch at which a network was fastest.
    pub(super) fn fastest(&self, model: &str, size: usize, task: Task) -> Option<&Speed> {
        self.ours(model, size, task).into_iter().max_by(|a, b| a.rate.total_cmp(&b.rate))
    }

    /// Our newest largest batch of a network.
    pub(super) fn largest(&self, model: &str) -> Option<&Largest> {
        let ours = self.largest.iter().filter(|row| row.model == model && row.runner == OURS);
        ours.max_by(|a, b| a.origin.date.cmp(&b.origin.date))
    }
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key)?.as_str().map(str::to_owned)
}

/// A number that is finite and above 0, as all measurements are.
fn number(value: &Value, key: &str) -> Option<f64> {
    value.get(key)?.as_f64().filter(|number| number.is_finite() && *number > 0.0)
}

fn count(value: &Value, key: &str) -> Option<usize> {
    usize::try_from(value.get(key)?.as_u64()?).ok().filter(|count| *count > 0)
}

/// `2026-11-22` of `2026-11-22-cpu.json`.
fn date_of(file: &str) -> Option<String> {
    let date = file.get(..10)?;
    let fits =
        |(at, byte): (usize, u8)| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() };
    date.bytes().enumerate().all(fits).then(|| date.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(batch: usize, rate: f64) -> Value {
        json!({ "model": "resnet50", "infer_samples_per_sec": rate, "infer_batch_size": batch, "infer_img_size": 224,
                "dtype": "f32", "threads": 2, "device": "cpu", "infer_gmacs": 4.1, "param_count": 25.6 })
    }

    #[test]
    fn rows_of_the_bench_are_read_and_newer_ones_count() {
        let mut results = Results::default();
        results.add(&json!([row(1, 10.0), row(8, 30.0)]), "2026-01-02-cpu.json").unwrap();
        results.add(&json!([row(8, 20.0)]), "2025-01-02-cpu.json").unwrap();
        let fastest = results.fastest("resnet50", 224, Task::Inference).unwrap();
        assert_eq!((fastest.batch, fastest.rate), (8, 30.0));
        let command = "cardinal bench --model resnet50 --batch 8 --size 224 --dtype f32 --threads 2 --json";
        assert_eq!((fastest.origin.command.as_str(), fastest.origin.date.as_str()), (command, "2026-01-02"));
        assert!(results.fastest("resnet50", 256, Task::Inference).is_none());
        assert_eq!(results.machines(), ["cpu"]);
        results.keep("cpu", "bf16");
        assert!(results.speeds.is_empty());
    }

    #[test]
    fn largest_batches_come_with_their_memory() {
        let mut results = Results::default();
        let row = json!({ "model": "tresnet_m", "train_samples_per_sec": null, "train_batch_size": 90,
                          "train_img_size": 224, "dtype": "f32", "device": "cpu", "max_batch": true,
                          "memory_limit_mib": 8192.0 });
        let value = json!([row]);
        results.add(&value, "x.json").unwrap();
        let largest = results.largest("tresnet_m").unwrap();
        assert_eq!((largest.batch, largest.limit.as_str()), (90, "8.0 GiB"));
        assert_eq!(
            largest.origin.command,
            "cardinal bench --train --model tresnet_m --max-batch --size 224 --dtype f32 --json"
        );
        assert!(results.speeds.is_empty(), "no step, no speed");
    }

    #[test]
    fn other_json_is_refused() {
        let refusal = |value: Value| Results::default().add(&value, "x.json").unwrap_err().to_string();
        for value in [json!({}), json!([]), json!({ "versions": {}, "ms": {} }), json!(3)] {
            assert!(refusal(value).contains("it holds no results of"));
        }
        assert!(
            refusal(json!([{ "model": "resnet50", "infer_batch_size": 1 }]))
                .contains("resnet50 has no image size")
        );
    }
}
