//! How kernels that are bound by memory share the pixels of a [`Part`] among workers.
//!
//! A worker gets a contiguous range of pixels, in the order of memory, and goes through it by [`Segment`]s of rows.

use crate::error::at_least;
use crate::{KernelError, Line, Map, Part, Pool, arena, share};
use std::ops::Range;

/// Bytes of output below which another worker costs more than it saves.
const GRAIN: usize = 16 << 10;

/// Elements of an image and sizes of windows stay below it, so that the product of two does not overflow.
pub(crate) const LARGEST: usize = 1 << (usize::BITS / 2 - 1);

/// Checks that `map` is not empty and that its sizes can be multiplied.
pub(crate) fn check_map(kernel: &'static str, map: &Map) -> Result<(), KernelError> {
    let Map { h, w, c, halo } = *map;
    let elements = || {
        let rows = h.checked_add(halo.top)?.checked_add(halo.bottom)?;
        let columns = w.checked_add(halo.left)?.checked_add(halo.right)?;
        rows.checked_mul(columns)?.checked_mul(c).filter(|&all| all < LARGEST)
    };
    if h == 0 || w == 0 || c == 0 {
        return Err(KernelError::spec(kernel, format!("a map of {h}x{w}x{c}")));
    }
    match elements() {
        Some(_) => Ok(()),
        None => Err(KernelError::spec(kernel, format!("a map of {h}x{w}x{c} is too large"))),
    }
}

/// Checks that two maps have the same size, whatever their halos.
pub(crate) fn check_same(kernel: &'static str, a: &Map, b: &Map) -> Result<(), KernelError> {
    check_map(kernel, a)?;
    check_map(kernel, b)?;
    if [a.h, a.w, a.c] != [b.h, b.w, b.c] {
        let sizes = format!("{}x{}x{} and {}x{}x{}", a.h, a.w, a.c, b.h, b.w, b.c);
        return Err(KernelError::spec(kernel, format!("maps of {sizes}")));
    }
    Ok(())
}

/// Checks that the rows of `part` are rows of a map of height `h`.
pub(crate) fn check_part(kernel: &'static str, part: &Part, h: usize) -> Result<(), KernelError> {
    if part.rows.start > part.rows.end || part.rows.end > h {
        return Err(KernelError::spec(kernel, format!("rows {:?} of {h}", part.rows)));
    }
    Ok(())
}

/// Checks that `found` elements hold `images` times `each`.
pub(crate) fn check_length(
    kernel: &'static str,
    operand: &'static str,
    found: usize,
    images: usize,
    each: usize,
) -> Result<(), KernelError> {
    at_least(kernel, operand, found, images.saturating_mul(each))
}

/// A pointer that workers write through, each to its own elements.
pub(crate) struct Out<T>(*mut T);

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Out<T> {}

// SAFETY: whoever uses it writes to elements that no other worker touches.
unsafe impl<T: Send> Send for Out<T> {}
// SAFETY: the same.
unsafe impl<T: Send> Sync for Out<T> {}

impl<T> Out<T> {
    pub(crate) fn new(slice: &mut [T]) -> Self {
        Self(slice.as_mut_ptr())
    }

    /// The address of element `index`; a method, so that closures capture the whole.
    ///
    /// # Safety
    ///
    /// The element lies in the slice, or right behind it.
    #[inline(always)]
    pub(crate) unsafe fn at(self, index: usize) -> *mut T {
        // SAFETY: the same contract.
        unsafe { self.0.add(index) }
    }
}

/// A pointer that workers read through: into a slice of its own, or into the output where a kernel works in place.
pub(crate) struct In<T>(*const T);

impl<T> Clone for In<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for In<T> {}

// SAFETY: whoever uses it reads elements that no other worker writes.
unsafe impl<T: Sync> Send for In<T> {}
// SAFETY: the same.
unsafe impl<T: Sync> Sync for In<T> {}

impl<T> In<T> {
    pub(crate) fn new(slice: &[T]) -> Self {
        Self(slice.as_ptr())
    }

    /// Reads what the output holds so far.
    pub(crate) fn of(output: Out<T>) -> Self {
        Self(output.0)
    }

    /// The address of element `index`.
    ///
    /// # Safety
    ///
    /// As [`Out::at`].
    #[inline(always)]
    pub(crate) unsafe fn at(self, index: usize) -> *const T {
        // SAFETY: the same contract.
        unsafe { self.0.add(index) }
    }
}

/// Neighbouring pixels of one row of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) image: usize,
    pub(crate) y: usize,
    /// The first column.
    pub(crate) x: usize,
    /// How many pixels there are.
    pub(crate) pixels: usize,
}

impl Segment {
    /// Where the segment begins in images of `map`.
    #[inline]
    pub(crate) fn start(&self, map: &Map) -> usize {
        self.image * map.image() + map.at(self.y as isize, self.x as isize)
    }
}

/// The pixels of a part, numbered through its rows and images.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    rows: Range<usize>,
    images: usize,
    w: usize,
    /// Pixels that stay together.
    unit: usize,
    workers: usize,
}

impl Work {
    /// Splits `part` of `output`, whose pixels count `bytes` each, over the workers of `pool`.
    pub(crate) fn new(pool: &Pool, part: &Part, output: &Map, bytes: usize) -> Self {
        let rows = part.images * part.rows.len();
        let most = rows.saturating_mul(output.w).saturating_mul(bytes) / GRAIN + 1;
        let workers = pool.threads().min(most);
        // Whole rows suit every kernel, unless that leaves the shares uneven.
        let whole = rows.is_multiple_of(workers) || rows >= 8 * workers;
        let unit = if whole { output.w } else { 1 };
        Self { rows: part.rows.clone(), images: part.images, w: output.w, unit, workers }
    }

    /// Calls `task` once on each worker that has pixels.
    pub(crate) fn run(&self, pool: &Pool, task: impl Fn(Share) + Sync) {
        if self.workers == 1 {
            return task(self.share(0));
        }
        pool.run(|worker| {
            if worker < self.workers {
                task(self.share(worker));
            }
        });
    }

    /// How many workers have pixels.
    pub(crate) fn workers(&self) -> usize {
        self.workers
    }

    fn share(&self, worker: usize) -> Share {
        let image = self.rows.len() * self.w;
        let units = share(self.images * image / self.unit, self.workers, worker);
        let pixels = units.start * self.unit..units.end * self.unit;
        let within = (!pixels.is_empty() && pixels.start % image != 0).then(|| pixels.start / image);
        Share { worker, rows: self.rows.clone(), w: self.w, pixels, within }
    }
}

/// The pixels of one worker.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    pub(crate) worker: usize,
    rows: Range<usize>,
    w: usize,
    pixels: Range<usize>,
    /// The image that the share begins within, if another worker has pixels of that image before it.
    within: Option<usize>,
}

impl Iterator for Share {
    type Item = Segment;

    fn next(&mut self) -> Option<Segment> {
        if self.pixels.is_empty() {
            return None;
        }
        let (row, x) = (self.pixels.start / self.w, self.pixels.start % self.w);
        let pixels = (self.w - x).min(self.pixels.len());
        self.pixels.start += pixels;
        Some(Segment { image: row / self.rows.len(), y: self.rows.start + row % self.rows.len(), x, pixels })
    }
}

/// Sums over the pixels of each image and channel that become means, `[images, channels]`.
///
/// An image belongs to the worker that has its first pixel in the part, which adds to the result itself; a worker that
/// begins within an image keeps its share of that one apart. So the order of all additions is fixed.
pub(crate) struct Means {
    c: usize,
    pooled: Out<f32>,
    /// One row of sums for each worker.
    apart: Out<f32>,
    stride: usize,
}

impl Means {
    /// Lines of scratch memory.
    pub(crate) fn scratch(c: usize, threads: usize) -> usize {
        Line::count(4 * c) * threads
    }

    /// Clears the sums if the part begins with the first row. Both lengths must have been checked.
    pub(crate) fn new(c: usize, part: &Part, pooled: &mut [f32], scratch: &mut [Line]) -> Self {
        let pooled = &mut pooled[..part.images * c];
        if part.rows.start == 0 && !part.rows.is_empty() {
            pooled.fill(0.0);
        }
        let stride = Line::count(4 * c) * Line::BYTES / 4;
        Self { c, pooled: Out::new(pooled), apart: Out::new(arena::as_f32_mut(scratch)), stride }
    }

    /// Readies the memory of a worker.
    ///
    /// # Safety
    ///
    /// The worker itself calls it, and the scratch memory is as long as [`Means::scratch`] says.
    pub(crate) unsafe fn begin(&self, share: &Share) {
        // SAFETY: the row belongs to this worker alone.
        unsafe { self.apart.at(share.worker * self.stride).write_bytes(0, self.c) };
    }

    /// Where the worker adds what it finds in `image`.
    ///
    /// # Safety
    ///
    /// As [`Means::begin`].
    #[inline]
    pub(crate) unsafe fn at(&self, share: &Share, image: usize) -> *mut f32 {
        // SAFETY: the row belongs to this worker alone, or the image does.
        unsafe {
            if share.within == Some(image) {
                self.apart.at(share.worker * self.stride)
            } else {
                self.pooled.at(image * self.c)
            }
        }
    }

    /// Adds up what the workers found, and divides by the `pixels` of an image after its last row `h`.
    ///
    /// # Safety
    ///
    /// No worker runs any more.
    pub(crate) unsafe fn finish(self, work: &Work, h: usize) {
        for share in (0..work.workers).map(|worker| work.share(worker)) {
            if let Some(image) = share.within {
                // SAFETY: both rows exist and nobody else uses them now.
                unsafe {
                    let sums = std::slice::from_raw_parts_mut(self.pooled.at(image * self.c), self.c);
                    let apart = std::slice::from_raw_parts(self.apart.at(share.worker * self.stride), self.c);
                    sums.iter_mut().zip(apart).for_each(|(sum, x)| *sum += x);
                }
            }
        }
        if work.rows.end == h && !work.rows.is_empty() {
            // SAFETY: as above.
            let all = unsafe { std::slice::from_raw_parts_mut(self.pooled.at(0), work.images * self.c) };
            let scale = 1.0 / (h * work.w) as f32;
            all.iter_mut().for_each(|x| *x *= scale);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_the_part_once_and_in_order() {
        for (images, rows, w, threads) in [(1, 0..7, 7, 2), (3, 2..5, 5, 4), (2, 4..4, 3, 2), (1, 0..1, 9, 3)]
        {
            let pool = Pool::new(threads, false);
            let part = Part { images, rows: rows.clone() };
            let work = Work::new(&pool, &part, &Map::new(8, w, 4), 1 << 20);
            let found: Vec<_> = (0..work.workers)
                .flat_map(|worker| work.share(worker))
                .flat_map(|s| (s.x..s.x + s.pixels).map(move |x| (s.image, s.y, x)))
                .collect();
            let expected: Vec<_> = (0..images)
                .flat_map(|image| rows.clone().map(move |y| (image, y)))
                .flat_map(|(image, y)| (0..w).map(move |x| (image, y, x)))
                .collect();
            assert_eq!(found, expected);
        }
    }
}
