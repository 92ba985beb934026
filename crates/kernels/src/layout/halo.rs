//! Zeros around a map.

use crate::work::{Out, check_length, check_map, check_part};
use crate::{Element, KernelError, Map, Part, Pool, share};

const FILL: &str = "halo";

/// Zeroes the halo of maps, and nothing else.
#[derive(Clone, Debug)]
pub struct FillHalo {
    map: Map,
}

impl FillHalo {
    /// Of maps of `map`.
    ///
    /// # Errors
    ///
    /// The map is empty.
    pub fn new(map: Map) -> Result<Self, KernelError> {
        check_map(FILL, &map)?;
        Ok(Self { map })
    }

    /// Zeroes what lies beside the rows of `part`, and above the first row and below the last if the part has them.
    ///
    /// # Errors
    ///
    /// The slice is too short.
    pub fn run<T: Element>(&self, pool: &Pool, part: &Part, images: &mut [T]) -> Result<(), KernelError> {
        let map = &self.map;
        check_part(FILL, part, map.h)?;
        check_length(FILL, "images", images.len(), part.images, map.image())?;
        if part.rows.is_empty() {
            return Ok(());
        }
        let images = Out::new(images);
        // SAFETY: the spans below lie in an image, whose length was checked, and each image is one worker's.
        let zero = |from: usize, count: usize| unsafe { images.at(from).write_bytes(0, count) };
        let image = |index: usize| {
            let start = index * map.image();
            let (row, side) = (map.row(), (map.halo.left + map.halo.right) * map.c);
            if part.rows.start == 0 {
                zero(start, map.halo.top * row + map.halo.left * map.c);
            }
            // The right end of one row and the left end of the next are neighbours.
            let ends = part.rows.start..part.rows.end - 1;
            if part.rows.start > 0 {
                zero(
                    start + map.at(part.rows.start as isize, -(map.halo.left as isize)),
                    map.halo.left * map.c,
                );
            }
            if side > 0 {
                ends.for_each(|y| zero(start + map.at(y as isize, map.w as isize), side));
            }
            let last = start + map.at(part.rows.end as isize - 1, map.w as isize);
            if part.rows.end == map.h {
                zero(last, map.halo.right * map.c + map.halo.bottom * row);
            } else {
                zero(last, map.halo.right * map.c);
            }
        };
        let workers = pool.threads().min(part.images);
        // Halos are small: only a batch is worth a second worker.
        if workers <= 1 || part.images < 4 {
            (0..part.images).for_each(image);
        } else {
            pool.run(|worker| {
                if worker < workers {
                    share(part.images, workers, worker).for_each(image);
                }
            });
        }
        Ok(())
    }
}
