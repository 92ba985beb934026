//! From a storage's bytes to a tensor: check that the view fits, read what it spans, put it in order.

use super::pickle::TensorRef;
use crate::error::{Result, WeightsErrorKind, damaged, unsupported};
use crate::source::Source;
use crate::tensor::{Tensor, byte_len};
use std::collections::HashMap;

/// Where a storage's bytes are in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) len: u64,
    /// Checksum of the whole storage, if the container has one.
    pub(super) crc32: Option<u32>,
}

pub(super) fn read(
    source: &Source<'_>,
    storages: &HashMap<String, Place>,
    tensor: &TensorRef,
    budget: &mut u64,
) -> Result<Tensor> {
    let key = &tensor.storage.key;
    let Some(place) = storages.get(&**key) else {
        return damaged(format!("its storage '{key}' is missing"));
    };
    let shape: Vec<usize> = tensor.shape.iter().map(|&n| usize::try_from(n).unwrap_or(usize::MAX)).collect();
    let Some(bytes) = byte_len(tensor.dtype, &shape) else {
        return damaged(format!("its shape {shape:?} is impossible"));
    };
    let Some(left) = budget.checked_sub(bytes as u64) else {
        return unsupported(
            "its tensors overlap and repeat to far more than the file; save them with .clone()",
        );
    };
    *budget = left;
    let window = window(tensor, place)?;
    let data = source.read_at(place.offset + window.start, window.len)?;
    if window.len == place.len && place.crc32.is_some_and(|crc| crc32fast::hash(&data) != crc) {
        return damaged(format!("the checksum of storage '{key}' does not match"));
    }
    let data = if is_contiguous(tensor) { data } else { gather(tensor, &data, bytes) };
    Tensor::new(tensor.dtype, shape, data).map_err(|e| WeightsErrorKind::Damaged(e.to_string()))
}

/// The bytes of a storage from a view's first to its last element.
struct Window {
    start: u64,
    len: u64,
}

fn window(tensor: &TensorRef, place: &Place) -> Result<Window> {
    let size = tensor.dtype.size() as u64;
    let declared = tensor.storage.element_size.saturating_mul(tensor.storage.len);
    let ends = || -> Option<(u64, u64)> {
        let offset = tensor.offset.checked_add(tensor.storage.offset)?;
        let elements = span(&tensor.shape, &tensor.stride)?;
        Some((offset.checked_mul(size)?, elements.checked_mul(size)?))
    };
    match ends() {
        Some((_, 0)) => Ok(Window { start: 0, len: 0 }),
        Some((start, len)) if start.checked_add(len).is_some_and(|end| end <= declared.min(place.len)) => {
            Ok(Window { start, len })
        }
        _ => damaged(format!(
            "shape {:?} with strides {:?} reaches beyond the {} bytes of storage '{}'",
            tensor.shape, tensor.stride, place.len, tensor.storage.key
        )),
    }
}

/// Elements from the first to the last of a view; 0 for an empty one, `None` where it is impossible.
fn span(shape: &[u64], stride: &[u64]) -> Option<u64> {
    if shape.len() != stride.len() {
        return None;
    }
    if shape.contains(&0) {
        return Some(0);
    }
    let last =
        shape.iter().zip(stride).try_fold(0u64, |at, (&n, &step)| at.checked_add((n - 1).checked_mul(step)?));
    last?.checked_add(1)
}

fn is_contiguous(tensor: &TensorRef) -> bool {
    let mut expected = 1u64;
    tensor.shape.contains(&0)
        || tensor.shape.iter().zip(&tensor.stride).rev().all(|(&n, &step)| {
            let fits = n == 1 || step == expected;
            expected = expected.saturating_mul(n);
            fits
        })
}

/// Copies a view's elements in row-major order. `data` starts at its first element; [`window`] has checked
/// that the last one is in it.
fn gather(tensor: &TensorRef, data: &[u8], bytes: usize) -> Vec<u8> {
    let size = tensor.dtype.size();
    let mut out = Vec::with_capacity(bytes);
    let mut index = vec![0u64; tensor.shape.len()];
    let mut at = 0u64;
    while out.len() < bytes {
        let start = at as usize * size;
        out.extend_from_slice(&data[start..start + size]);
        // Counts up like an odometer, so that a step costs one addition.
        for axis in (0..index.len()).rev() {
            index[axis] += 1;
            at = at.wrapping_add(tensor.stride[axis]); // the stride of an axis of length 1 can be anything
            if index[axis] < tensor.shape[axis] {
                break;
            }
            at = at.wrapping_sub(tensor.stride[axis].wrapping_mul(tensor.shape[axis]));
            index[axis] = 0;
        }
    }
    out
}
