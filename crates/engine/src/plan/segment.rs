//! How many images go through a stretch of the network at once.
//!
//! Early maps are large and their weights small: one image after the other keeps what a layer writes in the cache for
//! the next. Late maps are small and their weights large: all images share each load of the weights. So the steps are
//! cut into segments, each of which runs for groups of images of its own size.

use std::ops::Range;

/// Consecutive steps that run for one group of images after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The steps.
    pub steps: Range<usize>,
    /// Images of a group.
    pub images: usize,
}

/// Cuts steps that touch `bytes[i]` bytes of maps per image, for a batch and a cache of `budget` bytes.
pub(crate) fn segments(bytes: &[usize], batch: usize, budget: usize) -> Vec<Segment> {
    // The largest power of two of images whose maps fit, and never more than what a later step can take: going back
    // to fewer images would keep the whole batch's maps for nothing.
    let mut images: Vec<_> =
        bytes.iter().map(|&bytes| floor_power(budget / bytes.max(1)).min(batch)).collect();
    for i in (0..images.len().saturating_sub(1)).rev() {
        images[i] = images[i].min(images[i + 1]);
    }
    let mut segments: Vec<Segment> = Vec::new();
    for (step, &images) in images.iter().enumerate() {
        match segments.last_mut() {
            Some(last) if last.images == images => last.steps.end = step + 1,
            _ => segments.push(Segment { steps: step..step + 1, images }),
        }
    }
    segments
}

fn floor_power(value: usize) -> usize {
    1 << value.max(1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_grow_as_maps_shrink() {
        let segments = segments(&[100, 800, 800, 400, 400, 90, 90], 16, 1600);
        let expected = [(0..3, 2), (3..5, 4), (5..7, 16)];
        assert_eq!(segments, expected.map(|(steps, images)| Segment { steps, images }));
    }

    #[test]
    fn a_batch_of_one_is_one_segment() {
        assert_eq!(segments(&[100, 5, 100_000], 1, 1000).len(), 1);
    }

    #[test]
    fn a_batch_that_fits_is_one_segment() {
        assert_eq!(segments(&[10, 20, 5], 3, 1000), [Segment { steps: 0..3, images: 3 }]);
    }
}
