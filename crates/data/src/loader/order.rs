//! Which image comes when: a function of the seed and the epoch, whatever the workers do.

use std::collections::BTreeMap;

use crate::{Dataset, Random, Task, sharded_order};

use super::LoaderOptions;

/// What a stream of random numbers is for; see [`Random::new`].
pub(super) mod purpose {
    pub(in super::super) const ORDER: u64 = 1;
    pub(in super::super) const SAMPLE: u64 = 2;
    pub(in super::super) const MIX: u64 = 3;
}

/// All indices in the order of an epoch.
pub(super) fn of_epoch(dataset: &dyn Dataset, options: &LoaderOptions, epoch: u64) -> Vec<u32> {
    let len = dataset.len() as u32;
    if !options.shuffle {
        return (0..len).collect();
    }
    let mut random = Random::new(options.seed, &[purpose::ORDER, epoch]);
    if options.samples_per_class > 0 && dataset.task() == Task::SingleLabel {
        return by_class(dataset, options.samples_per_class, &mut random);
    }
    sharded_order(&dataset.shards(), options.shuffle_buffer, &mut random)
}

/// A random order in which `together` images of a class follow each other (fewer where a class runs out).
fn by_class(dataset: &dyn Dataset, together: usize, random: &mut Random) -> Vec<u32> {
    let mut classes: BTreeMap<Vec<u32>, Vec<u32>> = BTreeMap::new();
    for index in 0..dataset.len() {
        classes.entry(dataset.label(index).classes().to_vec()).or_default().push(index as u32);
    }
    let mut groups: Vec<Vec<u32>> = Vec::new();
    for images in classes.values_mut() {
        random.shuffle(images);
        groups.extend(images.chunks(together).map(<[u32]>::to_vec));
    }
    random.shuffle(&mut groups);
    groups.concat()
}
