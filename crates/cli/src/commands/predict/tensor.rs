//! `--tensor IN.npy --output OUT.npy`: the network alone, to compare with another program.

use super::forward;
use anyhow::Context;
use cardinal_data::{NpyArray, write_npy};
use cardinal_models::Model;
use std::path::Path;

/// Writes the logits of `array` to `output`, `batch` images at a time.
pub(super) fn run(
    model: &Model,
    array: &NpyArray,
    input: &Path,
    output: &Path,
    batch: usize,
) -> anyhow::Result<()> {
    let [n, c, h, w] = model.check_input(&array.shape).with_context(|| input.display().to_string())?;
    let mut logits = Vec::with_capacity(n * model.num_classes());
    for values in array.data.chunks(batch * c * h * w) {
        let shape = [values.len() / (c * h * w), c, h, w];
        let rows = forward(model, values.to_vec(), shape)?;
        logits.extend(rows.into_data().try_to_vec::<f32>().context("reading the network's output")?);
    }
    write_npy(output, &[n, logits.len() / n], &logits)?;
    Ok(())
}
