//! An order for an epoch that reads each shard's file nearly from front to back.

use std::ops::Range;

use crate::Random;

/// All indices of `shards` in a random order that stays near the order in the files.
///
/// The shards come in a random order, and their images one after the other pass through a buffer of `buffer`
/// images, of which a random one leaves when the next one enters, as WebDataset's shuffle does: at any time the
/// images that are read lie within about `buffer` of each other. With a `buffer` as large as the dataset, or a single
/// shard, the order is a plain random permutation.
#[must_use]
pub fn sharded_order(shards: &[Range<usize>], buffer: usize, random: &mut Random) -> Vec<u32> {
    let total: usize = shards.iter().map(ExactSizeIterator::len).sum();
    let mut order: Vec<Range<usize>> = shards.to_vec();
    random.shuffle(&mut order);
    let mut stream: Vec<u32> = order.into_iter().flatten().map(|index| index as u32).collect();
    let buffer = if shards.len() < 2 { total } else { buffer.clamp(1, total.max(1)) };
    if buffer >= total {
        random.shuffle(&mut stream);
        return stream;
    }
    let mut waiting: Vec<u32> = stream[..buffer].to_vec();
    let mut result = Vec::with_capacity(total);
    for next in &stream[buffer..] {
        let leaving = &mut waiting[random.below(buffer as u64) as usize];
        result.push(std::mem::replace(leaving, *next));
    }
    random.shuffle(&mut waiting);
    result.extend(waiting);
    result
}
