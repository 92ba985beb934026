//! `--batch auto`: the largest batch that fits into memory.

use super::job::Place;
use crate::exit::Usage;
use crate::memory::{largest_batch, limit_or_free, mebibytes};
use crate::progress;
use cardinal_models::registry;
use cardinal_train::device::DeviceKind;
use cardinal_train::memory::StepMemory;
use cardinal_train::recipe::Recipe;
use cardinal_train::step::dtype;
use std::io::{Write, stderr};

/// Puts the largest batch whose planned step fits into the memory limit into `recipe`, and says so.
///
/// # Errors
///
/// Not even the smallest batch fits, or the step cannot be planned.
pub(crate) fn choose(recipe: &mut Recipe, place: &Place) -> anyhow::Result<()> {
    if place.device != DeviceKind::Cpu {
        return Err(Usage("--batch auto is for --device cpu: give a number".into()).into());
    }
    let limit = limit_or_free(place.memory_limit)?;
    let (variant, _) = registry::find_pretrained(&recipe.model.model)?;
    let memory = StepMemory::new(recipe, variant, dtype(recipe), place.threads())?;
    let found = largest_batch(limit, memory.images(), |batch| Ok(memory.bytes(batch)?))?;
    // Whole groups of images of one class.
    let group = recipe.data.samples_per_class.max(1);
    let batch = found.map_or(0, |batch| batch / group * group);
    if batch == 0 {
        let text = format!("not even {group} images fit into {:.0} MiB", mebibytes(limit));
        return Err(Usage(text).into());
    }
    recipe.data.batch_size = batch;
    recipe.check()?;
    if !progress::is_quiet() {
        let bytes = memory.bytes(batch)?;
        // Nothing is left to do if standard error is closed.
        let _ = writeln!(
            stderr(),
            "batch {batch}: the largest whose step ({:.0} MiB) fits into {:.0} MiB",
            mebibytes(bytes),
            mebibytes(limit)
        );
    }
    Ok(())
}
