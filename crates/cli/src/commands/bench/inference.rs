//! Inference: how long a step of a network takes.

use super::Args;
use crate::compute::{Format, Path, noise};
use crate::machine;
use crate::network::{self, Network};
use crate::output::{Align, table};
use anyhow::Context;
use cardinal_data::{Decoder, Preprocess};
use cardinal_models::burn::tensor::Device;
use cardinal_models::registry::Variant;
use cardinal_models::summary::summarize;
use cardinal_models::{Model, ModelOptions};
use serde_json::{Value, json};
use std::io::{Write, stdout};
use std::path::Path as FilePath;
use std::time::{Duration, Instant};

impl Args {
    /// Measures inference with each of `chosen`, and prints it.
    pub(super) fn infer(&self, chosen: &[&'static Variant]) -> anyhow::Result<()> {
        let mut results = Vec::new();
        for variant in chosen {
            for &batch in &self.batch {
                results.push(self.measure(variant, usize::from(batch))?);
            }
        }
        let mut out = stdout().lock();
        if self.json {
            let list: Vec<_> = results.iter().map(|result| self.as_json(result)).collect();
            writeln!(out, "{}", serde_json::to_string_pretty(&list)?)?;
            return Ok(());
        }
        let head = [
            ("model", Align::Left),
            ("batch", Align::Right),
            ("size", Align::Right),
            ("images/s", Align::Right),
            ("best", Align::Right),
            ("ms per step", Align::Right),
            ("spread", Align::Right),
            ("GFLOP/s", Align::Right),
            ("peak MiB", Align::Right),
        ];
        let rows: Vec<_> = results.iter().map(Measured::as_row).collect();
        table(&mut out, &head, &rows)?;
        writeln!(out, "\n{}", self.setting())?;
        Ok(())
    }

    fn measure(&self, variant: &'static Variant, batch: usize) -> anyhow::Result<Measured> {
        let size = self.size.map_or(variant.size, usize::from);
        let summary = summarize(variant, &ModelOptions::new(), [size; 2])?;
        machine::reset_peak_memory();
        let device = Device::flex();
        device.seed(0);
        let model = Model::new(variant, &ModelOptions::new(), &device);
        let mut runner = self.compute.prepare(Network::Module(Box::new(model)), batch, [3, size, size])?;
        let mut input = noise(batch * 3 * size * size);
        let preprocess = network::preprocess(&variant.preprocessing(), u32::try_from(size)?);
        let picture = self.picture.as_deref().map(Picture::read).transpose()?;
        let threads = self.compute.threads();
        let steps = time(Duration::from_secs_f64(self.seconds), || {
            if let Some(picture) = &picture {
                picture.prepare(&preprocess, &mut input, threads)?;
            }
            runner.run(&input, batch).map(drop)
        })?;
        Ok(Measured {
            variant,
            batch,
            size,
            params: summary.params,
            macs: summary.macs,
            steps,
            compile: runner.compile_time(),
            planned: runner.session().map(|session| session.plan().memory_bytes()),
            peak: machine::peak_memory(),
        })
    }

    fn as_json(&self, result: &Measured) -> Value {
        let per_second = |step: Duration| result.batch as f64 / step.as_secs_f64();
        json!({
            "model": result.variant.name,
            "infer_samples_per_sec": per_second(result.median()),
            "infer_samples_per_sec_best": per_second(result.best()),
            "infer_step_time": result.median().as_secs_f64() * 1e3,
            "infer_batch_size": result.batch,
            "infer_img_size": result.size,
            "infer_gmacs": result.macs as f64 / 1e9,
            "param_count": result.params as f64 / 1e6,
            "steps": result.steps.len(),
            "picture": self.picture,
            "dtype": self.dtype(),
            "threads": self.threads(),
            "path": self.path(),
            "device": machine::cpu_name(),
            "kernels": self.kernels(),
            "compile_seconds": result.compile.as_secs_f64(),
            "planned_memory_bytes": result.planned,
            "peak_memory_bytes": result.peak,
        })
    }

    pub(super) fn dtype(&self) -> &'static str {
        match self.compute.dtype {
            Format::F32 => "f32",
            Format::Bf16 => "bf16",
        }
    }

    fn path(&self) -> &'static str {
        match self.compute.path {
            Path::Eager => "eager",
            Path::Compiled => "compiled",
        }
    }

    fn threads(&self) -> Option<usize> {
        (self.compute.path == Path::Compiled).then(|| self.compute.threads())
    }

    fn kernels(&self) -> String {
        match self.compute.path {
            Path::Eager => "burn-flex".into(),
            Path::Compiled => self.compute.isa().map_or_else(|_| String::new(), |isa| isa.to_string()),
        }
    }

    /// What was measured, in one line.
    fn setting(&self) -> String {
        let threads = self.threads().map_or_else(String::new, |n| format!(", {n} threads"));
        let (path, dtype, kernels) = (self.path(), self.dtype(), self.kernels());
        let decoding = if self.picture.is_some() { ", decoding included" } else { "" };
        format!("{}; {path}, {dtype}, {kernels}{threads}{decoding}", machine::cpu_name())
    }
}

/// The steps of one network at one batch size.
struct Measured {
    variant: &'static Variant,
    batch: usize,
    size: usize,
    params: usize,
    macs: usize,
    /// Sorted.
    steps: Vec<Duration>,
    compile: Duration,
    planned: Option<usize>,
    peak: Option<usize>,
}

impl Measured {
    fn median(&self) -> Duration {
        self.steps[self.steps.len() / 2]
    }

    fn best(&self) -> Duration {
        self.steps[0]
    }

    fn as_row(&self) -> Vec<String> {
        let median = self.median().as_secs_f64();
        // Half of the steps lie between the quartiles.
        let quartile = |q: usize| self.steps[(self.steps.len() - 1) * q / 4].as_secs_f64();
        vec![
            self.variant.name.into(),
            self.batch.to_string(),
            self.size.to_string(),
            format!("{:.1}", self.batch as f64 / median),
            format!("{:.1}", self.batch as f64 / self.best().as_secs_f64()),
            format!("{:.2}", median * 1e3),
            format!("{:.0} %", (quartile(3) - quartile(1)) / median * 100.0),
            format!("{:.0}", 2.0 * (self.macs * self.batch) as f64 / median / 1e9),
            self.peak.map_or_else(|| "-".into(), |bytes| (bytes >> 20).to_string()),
        ]
    }
}

/// Times steps for `duration`, at least three, after a warm-up of two steps or a fifth of the time.
fn time(duration: Duration, mut step: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Vec<Duration>> {
    let warm_up = Instant::now();
    for _ in 0..2 {
        step()?;
    }
    while warm_up.elapsed() < duration / 5 {
        step()?;
    }
    let start = Instant::now();
    let mut steps = Vec::new();
    while steps.len() < 3 || start.elapsed() < duration {
        let before = Instant::now();
        step()?;
        steps.push(before.elapsed());
    }
    steps.sort_unstable();
    Ok(steps)
}

/// A picture's file, which each image of a step is made of anew.
struct Picture<'a> {
    path: &'a FilePath,
    bytes: Vec<u8>,
}

impl<'a> Picture<'a> {
    fn read(path: &'a FilePath) -> anyhow::Result<Self> {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        Ok(Self { path, bytes })
    }

    /// Decodes, resizes and normalises the picture for every image of `input`, on `threads` threads.
    fn prepare(&self, preprocess: &Preprocess, input: &mut [f32], threads: usize) -> anyhow::Result<()> {
        let image = preprocess.output_len();
        let share = (input.len() / image).div_ceil(threads) * image;
        std::thread::scope(|scope| {
            let work = |part: &mut [f32]| -> anyhow::Result<()> {
                part.chunks_exact_mut(image).try_for_each(|output| {
                    let decoded = Decoder::default().decode_bytes(&self.bytes, self.path)?;
                    Ok(preprocess.run_into(&decoded, output)?)
                })
            };
            let workers: Vec<_> =
                input.chunks_mut(share).map(|part| scope.spawn(move || work(part))).collect();
            workers.into_iter().try_for_each(|worker| {
                worker.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a decoding thread failed")))
            })
        })
    }
}
