//! Reading safetensors: a little-endian header length, a JSON header, then the data.
//!
//! The `safetensors` crate parses and validates the header. Its own entry point wants the whole file in
//! memory; here each tensor is read from its place, so the peak is one file, not two.

use crate::error::{Result, WeightsErrorKind, damaged, unsupported};
use crate::source::Source;
use crate::tensor::{DType, NamedTensors, Tensor};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use std::collections::BTreeMap;

/// The format's own limit on its header.
const MAX_HEADER: u64 = 100_000_000;

/// Whether the file opens with a header length and the `{` of its JSON.
pub(crate) fn sniff(head: &[u8]) -> bool {
    head.first_chunk::<8>().is_some_and(|n| u64::from_le_bytes(*n) <= MAX_HEADER)
        && head.get(8) == Some(&b'{')
}

/// Reads all tensors, in the order of their data, and the `__metadata__` entries.
pub(crate) fn read(source: &Source<'_>) -> Result<(NamedTensors, BTreeMap<String, String>)> {
    let length = source.read_at(0, 8)?;
    let n = u64::from_le_bytes(*length.first_chunk().unwrap_or(&[0; 8]));
    if n > MAX_HEADER {
        return damaged(format!("its header claims {n} bytes"));
    }
    let header = source.read_at(8, n)?;
    let metadata: Metadata =
        serde_json::from_slice(&header).or_else(|e| damaged(format!("its header is invalid: {e}")))?;
    let data = 8 + n;
    let end = metadata.data_len() as u64;
    if data.checked_add(end) != Some(source.len()) {
        let found = source.len() - data;
        return damaged(format!("its header describes {end} bytes of data, {found} are there"));
    }
    let mut tensors = NamedTensors::new();
    for name in metadata.offset_keys() {
        if let Some(info) = metadata.info(&name) {
            let tensor =
                read_tensor(source, data, info).map_err(|e| e.inside(&format!("tensor '{name}'")))?;
            tensors.insert(name, tensor);
        }
    }
    let texts = metadata.metadata().iter().flatten();
    Ok((tensors, texts.map(|(key, value)| (key.clone(), value.clone())).collect()))
}

fn read_tensor(source: &Source<'_>, data: u64, info: &TensorInfo) -> Result<Tensor> {
    let Some(dtype) = element_type(info.dtype) else {
        return unsupported(format!("{:?} elements; convert the file to F32 or F16", info.dtype));
    };
    let (start, end) = info.data_offsets;
    let bytes = source.read_at(data + start as u64, (end - start) as u64)?;
    Tensor::new(dtype, info.shape.clone(), bytes).map_err(|e| WeightsErrorKind::Damaged(e.to_string()))
}

fn element_type(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::I16 => DType::I16,
        Dtype::I8 => DType::I8,
        Dtype::U64 => DType::U64,
        Dtype::U32 => DType::U32,
        Dtype::U16 => DType::U16,
        Dtype::U8 => DType::U8,
        Dtype::BOOL => DType::Bool,
        _ => return None, // the format has 4-, 6- and 8-bit floats and complex numbers too
    })
}
