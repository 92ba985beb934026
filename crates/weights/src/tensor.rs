//! Tensors as bytes with a type and a shape, and ordered collections of them.

use crate::error::{WeightsError, WeightsErrorKind};
use half::{bf16, f16};
use std::collections::HashMap;
use std::fmt;

/// Element type of a [`Tensor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE double.
    F64,
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// The upper half of an IEEE single.
    BF16,
    /// Signed, 8 bytes.
    I64,
    /// Signed, 4 bytes.
    I32,
    /// Signed, 2 bytes.
    I16,
    /// Signed, 1 byte.
    I8,
    /// Unsigned, 8 bytes.
    U64,
    /// Unsigned, 4 bytes.
    U32,
    /// Unsigned, 2 bytes.
    U16,
    /// Unsigned, 1 byte.
    U8,
    /// One byte, 0 or 1.
    Bool,
}

impl DType {
    /// All types, in the order in which [`write_safetensors`](crate::write_safetensors) lays them out:
    /// widest first, so that every tensor is aligned to its element.
    pub const ALL: [Self; 13] = [
        Self::U64,
        Self::I64,
        Self::F64,
        Self::F32,
        Self::U32,
        Self::I32,
        Self::BF16,
        Self::F16,
        Self::U16,
        Self::I16,
        Self::I8,
        Self::U8,
        Self::Bool,
    ];

    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// The name that safetensors uses, such as `BF16`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::I64 => "I64",
            Self::I32 => "I32",
            Self::I16 => "I16",
            Self::I8 => "I8",
            Self::U64 => "U64",
            Self::U32 => "U32",
            Self::U16 => "U16",
            Self::U8 => "U8",
            Self::Bool => "BOOL",
        }
    }

    /// Whether the elements are floating-point numbers.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The byte length of a tensor, or `None` if it does not fit in memory.
pub(crate) fn byte_len(dtype: DType, shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(dtype.size(), |total, &dim| total.checked_mul(dim))
}

/// A tensor: element type, shape and contiguous row-major little-endian bytes.
#[derive(Clone, PartialEq)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl Tensor {
    /// A tensor from its bytes.
    ///
    /// # Errors
    /// The number of bytes is not what the type and the shape need.
    pub fn new(dtype: DType, shape: Vec<usize>, data: Vec<u8>) -> Result<Self, WeightsError> {
        if byte_len(dtype, &shape) == Some(data.len()) {
            return Ok(Self { dtype, shape, data });
        }
        let text = format!("{} bytes are given for a {dtype} tensor of shape {shape:?}", data.len());
        Err(WeightsErrorKind::Shape(text).at("tensor"))
    }

    /// An F32 tensor from its values.
    ///
    /// # Errors
    /// The number of values is not the product of the shape.
    pub fn from_f32(shape: Vec<usize>, values: &[f32]) -> Result<Self, WeightsError> {
        Self::new(DType::F32, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// An I64 scalar (shape `[]`), the form of batch norm's `num_batches_tracked`.
    pub fn scalar_i64(value: i64) -> Self {
        Self { dtype: DType::I64, shape: Vec::new(), data: value.to_le_bytes().to_vec() }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Extents, outermost first; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn num_elements(&self) -> usize {
        self.data.len() / self.dtype.size()
    }

    /// The elements: contiguous, row-major, little-endian.
    pub fn bytes(&self) -> &[u8] {
        &self.data
    }

    /// Shape and bytes, without a copy.
    pub fn into_parts(self) -> (DType, Vec<usize>, Vec<u8>) {
        (self.dtype, self.shape, self.data)
    }

    /// The elements as `f32`: half precision is widened exactly, wider types are rounded.
    pub fn to_f32(&self) -> Vec<f32> {
        let data = self.data.as_slice();
        match self.dtype {
            DType::F64 => map(data, |b| f64::from_le_bytes(b) as f32),
            DType::F32 => map(data, f32::from_le_bytes),
            DType::F16 => map(data, |b| f16::from_le_bytes(b).to_f32()),
            DType::BF16 => map(data, |b| bf16::from_le_bytes(b).to_f32()),
            DType::I64 => map(data, |b| i64::from_le_bytes(b) as f32),
            DType::I32 => map(data, |b| i32::from_le_bytes(b) as f32),
            DType::I16 => map(data, |b| f32::from(i16::from_le_bytes(b))),
            DType::I8 => map(data, |b| f32::from(i8::from_le_bytes(b))),
            DType::U64 => map(data, |b| u64::from_le_bytes(b) as f32),
            DType::U32 => map(data, |b| u32::from_le_bytes(b) as f32),
            DType::U16 => map(data, |b| f32::from(u16::from_le_bytes(b))),
            DType::U8 => map(data, |[b]: [u8; 1]| f32::from(b)),
            DType::Bool => map(data, |[b]: [u8; 1]| f32::from(u8::from(b != 0))),
        }
    }
}

fn map<const N: usize>(data: &[u8], f: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    data.as_chunks::<N>().0.iter().map(|&bytes| f(bytes)).collect()
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({} {:?})", self.dtype, self.shape)
    }
}

/// Tensors by name, in the order in which they were inserted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NamedTensors {
    entries: Vec<(String, Tensor)>,
    index: HashMap<String, usize>,
}

impl NamedTensors {
    /// An empty collection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tensor. If the name is taken, the new tensor takes that place and the old one is returned.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) -> Option<Tensor> {
        let name = name.into();
        if let Some(&at) = self.index.get(&name) {
            return Some(std::mem::replace(&mut self.entries[at].1, tensor));
        }
        self.index.insert(name.clone(), self.entries.len());
        self.entries.push((name, tensor));
        None
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.index.get(name).map(|&at| &self.entries[at].1)
    }

    /// Whether there is a tensor of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Names and tensors, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Tensor)> {
        self.entries.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Names, in order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.entries.iter().map(|(name, _)| name.as_str())
    }

    /// Names and shapes, in order: what [`compare`](crate::compare) expects of a model.
    pub fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        self.iter().map(|(name, tensor)| (name.to_owned(), tensor.shape().to_vec())).collect()
    }
}

impl IntoIterator for NamedTensors {
    type Item = (String, Tensor);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

impl<S: Into<String>> FromIterator<(S, Tensor)> for NamedTensors {
    fn from_iter<I: IntoIterator<Item = (S, Tensor)>>(iter: I) -> Self {
        let mut all = Self::new();
        for (name, tensor) in iter {
            all.insert(name, tensor);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_widens_to_f32() {
        let case = |dtype, data: &[u8], want: f32| {
            assert_eq!(Tensor::new(dtype, vec![1], data.to_vec()).unwrap().to_f32(), [want], "{dtype}");
        };
        case(DType::F64, &(-2.5f64).to_le_bytes(), -2.5);
        case(DType::F32, &0.1f32.to_le_bytes(), 0.1);
        case(DType::F16, &0x3c01u16.to_le_bytes(), 1.000_976_6);
        case(DType::BF16, &0xbf80u16.to_le_bytes(), -1.0);
        case(DType::I64, &(-7i64).to_le_bytes(), -7.0);
        case(DType::I32, &(-7i32).to_le_bytes(), -7.0);
        case(DType::I16, &(-7i16).to_le_bytes(), -7.0);
        case(DType::I8, &(-7i8).to_le_bytes(), -7.0);
        case(DType::U64, &7u64.to_le_bytes(), 7.0);
        case(DType::U32, &7u32.to_le_bytes(), 7.0);
        case(DType::U16, &7u16.to_le_bytes(), 7.0);
        case(DType::U8, &[255], 255.0);
        case(DType::Bool, &[1], 1.0);
    }

    #[test]
    fn a_shape_that_overflows_is_an_error() {
        assert!(Tensor::new(DType::F32, vec![usize::MAX, 2], vec![]).is_err());
        assert!(Tensor::new(DType::F32, vec![2], vec![0; 7]).is_err());
        assert!(Tensor::new(DType::F32, vec![0, usize::MAX], vec![]).is_ok());
    }

    #[test]
    fn insertion_keeps_order_and_replaces_in_place() {
        let mut all = NamedTensors::new();
        for name in ["b", "a", "b"] {
            all.insert(name, Tensor::scalar_i64(all.len() as i64));
        }
        assert_eq!(all.names().collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(all.get("b").unwrap().to_f32(), [2.0]);
    }
}
