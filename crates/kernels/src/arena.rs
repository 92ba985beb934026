//! The one block of memory that a session's feature maps live in.

use crate::{Bf16, Element, KernelError};
use std::ops::Range;

/// 64 bytes, a cache line, at an address that is a multiple of 64.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Line([u8; 64]);

impl Line {
    /// Bytes of a line.
    pub const BYTES: usize = 64;
    /// A line of zeros, which is zero in every format.
    pub const ZERO: Self = Self([0; 64]);

    /// How many lines hold `bytes`.
    #[must_use]
    pub fn count(bytes: usize) -> usize {
        bytes.div_ceil(Self::BYTES)
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Line")
    }
}

/// `count` lines of zeros, on large pages where the system has them: what a network reads once per run would otherwise
/// wait for a page's translation every 4 KiB.
#[must_use]
pub fn zeroed(count: usize) -> Vec<Line> {
    #[cfg(all(target_os = "linux", not(miri)))]
    if count * Line::BYTES >= 4 << 20
        && let Ok(layout) = std::alloc::Layout::array::<Line>(count)
    {
        // SAFETY: the layout's size is not zero.
        let start = unsafe { std::alloc::alloc_zeroed(layout) }.cast::<Line>();
        if start.is_null() {
            std::alloc::handle_alloc_error(layout);
        }
        let page = start.addr().next_multiple_of(4096) - start.addr();
        // SAFETY: the range lies in the allocation; the advice changes no content, and may be refused.
        unsafe { libc::madvise(start.byte_add(page).cast(), layout.size() - page, libc::MADV_HUGEPAGE) };
        // SAFETY: the global allocator gave the block for this layout, and zeros are valid lines.
        return unsafe { Vec::from_raw_parts(start, count, count) };
    }
    vec![Line::ZERO; count]
}

/// Gives memory that was freed back to the system, where the allocator would keep it for later. Worth it after a network was
/// built and captured, whose many values are neither small nor large enough to go back by themselves.
pub fn trim_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
    // SAFETY: the function touches only memory that is free, under the allocator's lock.
    unsafe {
        libc::malloc_trim(0)
    };
}

macro_rules! cast {
    ($shared:ident, $unique:ident, $type:ty) => {
        #[doc = concat!("The lines as numbers of type `", stringify!($type), "`.")]
        #[must_use]
        pub fn $shared(lines: &[Line]) -> &[$type] {
            let count = size_of_val(lines) / size_of::<$type>();
            // SAFETY: any bytes are valid numbers of the type, a line is aligned for it, and the length in bytes is
            // the same.
            unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), count) }
        }

        #[doc = concat!("The lines as numbers of type `", stringify!($type), "`.")]
        #[must_use]
        pub fn $unique(lines: &mut [Line]) -> &mut [$type] {
            let count = size_of_val(lines) / size_of::<$type>();
            // SAFETY: as above; any numbers of the type are valid bytes.
            unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), count) }
        }
    };
}

cast!(as_f32, as_f32_mut, f32);
cast!(as_bf16, as_bf16_mut, Bf16);

/// The lines as numbers of either format.
pub(crate) fn lines_as<T: Element>(lines: &mut [Line]) -> &mut [T] {
    let count = size_of_val(lines) / size_of::<T>();
    // SAFETY: both formats take any bytes, and a line is aligned for them.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), count) }
}

/// A step's memory: its outputs, which nothing else may overlap, and everything else for reading.
#[derive(Debug)]
pub struct Views<'a, const OUT: usize> {
    /// The outputs, in the order asked for.
    pub outputs: [&'a mut [Line]; OUT],
    rest: [(usize, &'a [Line]); 5],
}

impl<'a, const OUT: usize> Views<'a, OUT> {
    /// Splits `arena` into the ranges of `outputs` and the rest. At most four outputs.
    ///
    /// # Errors
    ///
    /// Two ranges overlap or one ends beyond the arena.
    pub fn new(arena: &'a mut [Line], outputs: &[Range<usize>; OUT]) -> Result<Self, KernelError> {
        const { assert!(OUT <= 4) }
        let mut order: [usize; OUT] = std::array::from_fn(|i| i);
        order.sort_unstable_by_key(|&i| (outputs[i].start, outputs[i].end));
        let mut rest = [const { (0, &[] as &[Line]) }; 5];
        let mut found: [Option<&'a mut [Line]>; OUT] = [const { None }; OUT];
        let (mut left, mut start) = (arena, 0);
        for (slot, &i) in order.iter().enumerate() {
            let range = outputs[i].clone();
            if range.start < start || range.end < range.start || range.end - start > left.len() {
                return Err(KernelError::Overlap { range });
            }
            let (before, from) = left.split_at_mut(range.start - start);
            let (output, after) = from.split_at_mut(range.len());
            rest[slot] = (start, before);
            found[i] = Some(output);
            (left, start) = (after, range.end);
        }
        rest[OUT] = (start, left);
        Ok(Self { outputs: found.map(|output| output.expect("every index is in the order once")), rest })
    }

    /// The lines of `range`, for reading.
    ///
    /// # Errors
    ///
    /// The range overlaps an output or ends beyond the arena.
    pub fn input(&self, range: Range<usize>) -> Result<&'a [Line], KernelError> {
        let part =
            self.rest.iter().find(|(start, part)| *start <= range.start && range.end <= start + part.len());
        match part {
            Some((start, part)) if range.start <= range.end => {
                Ok(&part[range.start - start..range.end - start])
            }
            _ => Err(KernelError::Overlap { range }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_apart_and_inputs_may_coincide() {
        let mut arena = vec![Line::ZERO; 10];
        let views = Views::new(&mut arena, &[6..8, 1..3]).expect("apart");
        as_f32_mut(views.outputs[0])[0] = 1.5;
        assert_eq!(views.outputs[1].len(), 2);
        assert_eq!(views.input(3..6).expect("free").len(), 3);
        assert_eq!(views.input(4..6).expect("free").len(), 2);
        assert_eq!(views.input(8..10).expect("free").len(), 2);
        for taken in [2..4, 7..8, 9..11, 0..10] {
            assert!(views.input(taken).is_err());
        }
        assert_eq!(as_f32(&arena)[6 * 16], 1.5);
    }

    #[test]
    fn overlapping_or_outlying_outputs_are_refused() {
        let mut arena = vec![Line::ZERO; 10];
        assert!(Views::new(&mut arena, &[0..3, 2..4]).is_err());
        assert!(Views::new(&mut arena, &[0..3, 3..11]).is_err());
        assert!(Views::new(&mut arena, &[0..3, 3..10]).is_ok());
    }
}
