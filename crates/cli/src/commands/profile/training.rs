//! Training: the time of each step of a plan, and the picture of its memory.

use super::Args;
use super::picture::{Curve, picture};
use super::rows::{Row, Rows, Work};
use crate::machine;
use crate::memory::mebibytes;
use crate::training::{Subject, Trainer};
use anyhow::Context;
use cardinal_engine::roofline;
use cardinal_engine::train::Recompute;
use cardinal_models::registry::Variant;
use serde_json::json;
use std::io::{Write, stdout};
use std::path::Path;
use std::time::Instant;

impl Args {
    /// Times the steps of training `variant`, and prints them.
    pub(super) fn train(&self, variant: &'static Variant, size: usize) -> anyhow::Result<()> {
        let (batch, threads, isa) = (usize::from(self.batch), self.compute.threads(), self.compute.isa()?);
        let subject = Subject::new(variant, size, self.recompute, &self.compute)?;
        if let Some(file) = &self.svg {
            self.draw_memory(file, &subject, variant.name, batch)?;
        }
        let plan = subject.plan(batch, &self.compute)?;
        let planned = subject.memory(&plan);
        drop(subject);
        let before = roofline::measure(isa, threads);
        let mut trainer = Trainer::new(plan)?;
        trainer.step()?;
        let (steps, rest) = self.medians(&mut trainer)?;
        let roofline = before.or(&roofline::measure(isa, threads));
        let plan = trainer.session().plan();
        let forward = plan.forward_steps();
        let mut rows = Vec::with_capacity(steps.len() + 1);
        for (index, (step, &seconds)) in plan.steps().iter().zip(&steps).enumerate() {
            rows.push(Row::new(&Work::Train(step, index >= forward), seconds, batch, &roofline));
        }
        rows.push(Row::between("packing, loss, update", rest));
        let mut rows = Rows::new(rows, "pass");
        self.arrange(&mut rows);
        let mut out = stdout().lock();
        if self.json {
            let object = json!({
                "model": variant.name,
                "train_batch_size": batch,
                "train_img_size": size,
                "train_step_time": rows.total * 1e3,
                "recompute": self.recompute.name(),
                "device": machine::cpu_name(),
                "threads": threads,
                "peak_gflops": roofline.fma,
                "read_gb_per_sec": roofline.read,
                "planned_memory_mib": mebibytes(planned),
                "steps": rows.as_json(),
            });
            writeln!(out, "{}", serde_json::to_string_pretty(&object)?)?;
            return Ok(());
        }
        rows.print(&mut out)?;
        writeln!(
            out,
            "\n{:.1} ms for {batch} images, {:.2} images/s; {}, {threads} threads: {:.0} GFLOP/s, {:.0} GB/s; {} steps \
             ({forward} forward), {:.0} MiB",
            rows.total * 1e3,
            batch as f64 / rows.total,
            machine::cpu_name(),
            roofline.fma,
            roofline.read[2],
            plan.steps().len(),
            mebibytes(planned),
        )?;
        Ok(())
    }

    /// The median seconds of each step of the plan, and of what is done between them.
    fn medians(&self, trainer: &mut Trainer) -> anyhow::Result<(Vec<f64>, f64)> {
        let mut runs: Vec<Vec<f64>> = Vec::new();
        let mut rests = Vec::new();
        for _ in 0..self.runs() {
            trainer.session().observe(true);
            let start = Instant::now();
            trainer.step()?;
            let whole = start.elapsed().as_secs_f64();
            let times: Vec<f64> =
                trainer.session().times().iter().map(|step| step.time.as_secs_f64()).collect();
            rests.push((whole - times.iter().sum::<f64>()).max(0.0));
            runs.push(times);
        }
        let steps = runs.first().map_or(0, Vec::len);
        let of_step = |step: usize| median(runs.iter().map(|run| run[step]).collect());
        Ok(((0..steps).map(of_step).collect(), median(rests)))
    }

    /// Writes the picture of the memory over a step, a curve for each kind of recomputation.
    fn draw_memory(&self, file: &Path, subject: &Subject, name: &str, batch: usize) -> anyhow::Result<()> {
        let mut curves = Vec::new();
        for recompute in Recompute::ALL {
            let live = subject.plan_with(recompute, batch, &self.compute)?.memory_over_steps();
            let (forward, backward): (Vec<_>, Vec<_>) = live.into_iter().partition(|step| !step.backward);
            let bytes =
                |steps: Vec<cardinal_engine::train::Live>| steps.into_iter().map(|s| s.bytes).collect();
            curves.push(Curve { name: words(recompute), forward: bytes(forward), backward: bytes(backward) });
        }
        let title = format!("{name}, batch {batch}: maps in memory over one training step");
        std::fs::write(file, picture(&title, &curves)).with_context(|| file.display().to_string())
    }
}

/// What a kind of recomputation means, for a reader of the picture.
fn words(recompute: Recompute) -> &'static str {
    match recompute {
        Recompute::None => "norms' inputs kept",
        Recompute::Cheap => "norms in place or recomputed",
        Recompute::Expansions => "1x1 expansions too",
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
