//! The libraries that are measured, behind one trait.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use clap::ValueEnum;
use rten::{RunOptions, ThreadPool, ValueOrView};
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;
use tract_linalg::multithread::{Executor, set_default_executor};
use tract_onnx::prelude::*;

/// The libraries, by the names of their crates.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum PeerName {
    Tract,
    Rten,
}

/// A loaded network with its input.
pub(crate) trait Peer {
    /// Runs the network once on the input given at loading, and returns the values of its output.
    fn run(&mut self) -> anyhow::Result<Vec<f32>>;
}

/// Loads the network of file `onnx` with the peer's optimisations on, and keeps `input` for every run.
pub(crate) fn load(
    peer: PeerName,
    onnx: &Path,
    shape: &[usize],
    input: &[f32],
    threads: usize,
) -> anyhow::Result<Box<dyn Peer>> {
    let shape: [usize; 4] =
        shape.try_into().map_err(|_| anyhow!("--shape wants batch,channels,height,width, got {shape:?}"))?;
    match peer {
        PeerName::Tract => Ok(Box::new(Tract::load(onnx, shape, input, threads)?)),
        PeerName::Rten => Ok(Box::new(Rten::load(onnx, shape, input, threads)?)),
    }
}

struct Tract {
    plan: Arc<TypedRunnableModel>,
    input: TValue,
}

impl Tract {
    fn load(onnx: &Path, shape: [usize; 4], input: &[f32], threads: usize) -> anyhow::Result<Self> {
        if threads > 1 {
            set_default_executor(Executor::multithread(threads));
        }
        let plan = tract_onnx::onnx()
            .model_for_path(onnx)
            .with_context(|| format!("tract: reading {}", onnx.display()))?
            .with_input_fact(0, f32::fact(shape).into())?
            .into_optimized()
            .context("tract: optimising")?
            .into_runnable()?;
        Ok(Self { plan, input: Tensor::from_shape(&shape, input)?.into_tvalue() })
    }
}

impl Peer for Tract {
    fn run(&mut self) -> anyhow::Result<Vec<f32>> {
        let outputs = self.plan.run(tvec!(self.input.clone()))?;
        Ok(outputs[0].to_plain_array_view::<f32>()?.iter().copied().collect())
    }
}

struct Rten {
    model: rten::Model,
    input: NdTensor<f32, 4>,
    options: RunOptions,
}

impl Rten {
    fn load(onnx: &Path, shape: [usize; 4], input: &[f32], threads: usize) -> anyhow::Result<Self> {
        let mut settings = rten::ModelOptions::with_all_ops();
        settings.enable_optimization(true).prepack_weights(true);
        let model = settings.load_file(onnx).with_context(|| format!("rten: loading {}", onnx.display()))?;
        let pool = Arc::new(ThreadPool::with_num_threads(threads));
        let options = RunOptions::default().with_thread_pool(Some(pool));
        Ok(Self { model, input: NdTensor::from_data(shape, input.to_vec()), options })
    }
}

impl Peer for Rten {
    fn run(&mut self) -> anyhow::Result<Vec<f32>> {
        let input = ValueOrView::from(self.input.view());
        let output = self.model.run_one(input, Some(self.options.clone()))?;
        let output: rten_tensor::Tensor<f32> =
            output.try_into().map_err(|_| anyhow!("rten: output is not f32"))?;
        Ok(output.to_vec())
    }
}
