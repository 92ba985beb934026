//! Times the training step of a captured graph: `train_bench FILE BATCH [STEPS] [none|cheap|expansions] [bf16]`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool for developers")]

use cardinal_engine::graph::Package;
use cardinal_engine::run::StepTime;
use cardinal_engine::train::{
    Decay, LogitLoss, LossIo, LossRule, Recompute, StepSeed, TrainOptions, TrainPlan, TrainSession,
    UpdateRule, UpdateSettings,
};
use cardinal_engine::{DType, Isa};
use std::collections::BTreeMap;
use std::time::Instant;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let graph = Package::load(&args[0]).unwrap().graphs.remove(0);
    let batch: usize = args[1].parse().unwrap();
    let steps: usize = args.get(2).map_or(3, |steps| steps.parse().unwrap());
    let recompute =
        Recompute::ALL.into_iter().find(|r| args.iter().any(|a| a == r.name())).unwrap_or_default();
    let dtype = if args.iter().any(|a| a == "bf16") { DType::Bf16 } else { DType::F32 };
    let threads = std::env::var("THREADS").map_or(2, |t| t.parse().unwrap());
    let options = TrainOptions { batch, dtype, threads, isa: Isa::best(), recompute, trained: &|_| true };
    let start = Instant::now();
    let plan = TrainPlan::new(&graph, &options).unwrap();
    println!(
        "planned in {:.2} s: {} steps, arena {:.1} MiB (least {:.1}), weights {:.1} MiB",
        start.elapsed().as_secs_f64(),
        plan.steps().len(),
        plan.arena_bytes() as f64 / 1048576.0,
        plan.least_arena_bytes() as f64 / 1048576.0,
        plan.packed_bytes() as f64 / 1048576.0,
    );
    if std::env::var("PLAN").is_ok() {
        return;
    }
    let classes = plan.outputs()[0].elements;
    let images: Vec<f32> = (0..batch * plan.inputs()[0].elements)
        .map(|i| ((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / (1 << 23) as f32 - 1.0)
        .collect();
    let targets: Vec<f32> =
        (0..batch * classes).map(|i| f32::from(u8::from(i % classes == i / classes))).collect();
    let mut session = TrainSession::new(plan, true);
    let loss = LogitLoss::new(LossRule::CrossEntropy, classes).unwrap();
    let (mut losses, mut gradient) = (vec![0.0; batch], vec![0.0; batch * classes]);
    let mut best: Vec<StepTime> = Vec::new();
    for step in 0..steps {
        session.observe(true);
        let start = Instant::now();
        let seed = StepSeed { seed: 1, step: step as u64, drop_block: 0.0 };
        let logits = session.forward(&[&images], seed).unwrap()[0].to_vec();
        let forward = start.elapsed();
        let io = LossIo {
            logits: &logits,
            targets: &targets,
            scale: 1.0 / batch as f64,
            losses: &mut losses,
            grad: &mut gradient,
        };
        let value = loss.run(session.pool(), batch, io).unwrap() / batch as f64;
        session.backward(&[&gradient]).unwrap();
        let backward = start.elapsed();
        session.keep_statistics();
        let settings = UpdateSettings {
            rule: UpdateRule::Sgd { momentum: 0.9, nesterov: false },
            lr: 0.01,
            decay: Decay::Coupled(1e-4),
            decay_vectors: false,
            clip_norm: None,
            average: 0.0,
        };
        let norm = session.update(&settings).unwrap();
        let time = start.elapsed();
        println!(
            "step {step}: loss {value:.5}, gradient norm {norm:.5}, forward {:.0} ms, backward {:.0} ms, update {:.0} ms: {:.2} images/s",
            forward.as_secs_f64() * 1e3,
            (backward - forward).as_secs_f64() * 1e3,
            (time - backward).as_secs_f64() * 1e3,
            batch as f64 / time.as_secs_f64()
        );
        // The least time of each step: what the host disturbs only adds.
        if best.is_empty() {
            best = session.times();
        }
        for (best, time) in best.iter_mut().zip(session.times()) {
            best.time = best.time.min(time.time);
        }
    }
    let mut kinds: BTreeMap<String, (f64, f64, f64, usize)> = BTreeMap::new();
    let mut rows = Vec::new();
    for time in best {
        let step = &session.plan().steps()[time.step];
        let seconds = time.time.as_secs_f64();
        let direction = if time.step < session.plan().forward_steps() { "f" } else { "b" };
        let kind =
            format!("{direction} {} {}", step.operator(), if step.macs() > 0 { step.kernel() } else { "" });
        let entry = kinds.entry(kind).or_default();
        entry.0 += seconds;
        entry.1 += (2 * step.macs() * batch) as f64;
        entry.2 += (step.map_bytes() * batch) as f64;
        entry.3 += 1;
        rows.push((seconds, time.step));
    }
    println!("together {:.0} ms", rows.iter().map(|(seconds, _)| seconds).sum::<f64>() * 1e3);
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
    for (kind, (seconds, flops, bytes, count)) in kinds {
        println!(
            "{:>8.1} ms {:>6.1} GFLOP/s {:>6.1} GB/s {count:>4} x {kind}",
            seconds * 1e3,
            flops / seconds / 1e9,
            bytes / seconds / 1e9
        );
    }
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (seconds, step) in rows.into_iter().take(20) {
        let step = &session.plan().steps()[step];
        println!(
            "{:>8.1} ms {:>6.1} GFLOP/s {:>6.1} GB/s {} {} {}",
            seconds * 1e3,
            (2 * step.macs() * batch) as f64 / seconds / 1e9,
            (step.map_bytes() * batch) as f64 / seconds / 1e9,
            step.name(),
            step.operator(),
            step.kernel()
        );
    }
}
