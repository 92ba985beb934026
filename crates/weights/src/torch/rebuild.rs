//! The calls that a checkpoint makes to rebuild its tensors, done without calling anything.

use super::machine::Machine;
use super::pickle::{Node, StorageRef, TensorRef, Value};
use crate::error::{Result, damaged, unsupported};
use crate::tensor::DType;

/// Values below are copied on each use, so they must be small: a class name or storage key, a shape, and
/// all the pairs that `OrderedDict` calls are given.
const MAX_NAME: usize = 512;
const MAX_RANK: usize = 32;
const MAX_COPIED_PAIRS: usize = 1 << 20;

impl Machine<'_> {
    /// Stands for a function call: rebuilds tensors and plain containers, and nothing else.
    pub(super) fn call(&mut self, mut function: Value, mut args: Value) -> Result<()> {
        // `_rebuild_from_type_v2(function, type, args, state)` is a tensor subclass around another call;
        // `_rebuild_parameter(tensor, ...)` is that tensor. A forged chain of them is no longer than this.
        for _ in 0..8 {
            let Some(Node::Global(name)) = self.node_of(function) else { return self.opaque(function) };
            let fields = match self.node_of(args) {
                Some(Node::Tuple(fields)) => fields.as_slice(),
                _ => &[],
            };
            match (&**name, fields) {
                ("torch._tensor._rebuild_from_type_v2", [inner, _, inner_args, ..]) => {
                    (function, args) = (*inner, *inner_args);
                }
                (
                    "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state",
                    [tensor, ..],
                ) => {
                    let tensor = *tensor;
                    self.stack.push(tensor);
                    return Ok(());
                }
                ("torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2", _) => {
                    let tensor = self.rebuild(fields, None)?;
                    return self.finish(tensor, function);
                }
                ("torch._utils._rebuild_tensor_v3", [_, _, _, _, _, _, dtype, ..]) => {
                    let tensor = self.rebuild(fields, Some(*dtype))?;
                    return self.finish(tensor, function);
                }
                ("collections.OrderedDict", _) => {
                    let items = self.ordered_dict(fields.first().copied().unwrap_or(Value::None))?;
                    self.copied_pairs += items.len();
                    return self.node(Node::Dict(items));
                }
                ("collections.defaultdict" | "builtins.dict" | "__builtin__.dict", _) => {
                    return self.node(Node::Dict(Vec::new()));
                }
                _ => return self.opaque(function),
            }
        }
        damaged("its pickle wraps a tensor too many times")
    }

    fn finish(&mut self, tensor: Option<TensorRef>, function: Value) -> Result<()> {
        match tensor {
            Some(tensor) => self.node(Node::Tensor(Box::new(tensor))),
            None => self.opaque(function),
        }
    }

    /// `(storage, offset, shape, stride, ...)`; `None` where the element type has no [`DType`].
    fn rebuild(&self, fields: &[Value], dtype: Option<Value>) -> Result<Option<TensorRef>> {
        let [storage, offset, shape, stride, ..] = fields else {
            return damaged("a tensor of its pickle lacks fields");
        };
        let Some(Node::Storage(storage)) = self.node_of(*storage) else {
            return damaged("a tensor of its pickle has no storage");
        };
        let dtype = match dtype.map(|dtype| self.node_of(dtype)) {
            None => storage.dtype,
            Some(Some(Node::Global(name))) => torch_dtype(name),
            Some(_) => return damaged("a tensor of its pickle has no type"),
        };
        let Some(dtype) = dtype else { return Ok(None) };
        let (offset, shape, stride) = (natural(*offset)?, self.naturals(*shape)?, self.naturals(*stride)?);
        Ok(Some(TensorRef { storage: storage.clone(), dtype, offset, shape, stride }))
    }

    fn naturals(&self, value: Value) -> Result<Vec<u64>> {
        match self.node_of(value) {
            Some(Node::Tuple(items) | Node::List(items)) if items.len() <= MAX_RANK => {
                items.iter().map(|item| natural(*item)).collect()
            }
            _ => damaged("a tensor of its pickle has no shape"),
        }
    }

    /// `OrderedDict()` or `OrderedDict([(key, value), ...])`.
    fn ordered_dict(&self, items: Value) -> Result<Vec<(Value, Value)>> {
        let Some(Node::List(items)) = self.node_of(items) else { return Ok(Vec::new()) };
        if items.len() > MAX_COPIED_PAIRS - self.copied_pairs {
            return unsupported("its pickle copies too many dict entries; save the state dict alone");
        }
        let pair = |item: &Value| match self.node_of(*item) {
            Some(Node::Tuple(pair) | Node::List(pair)) if pair.len() == 2 => Ok((pair[0], pair[1])),
            _ => damaged("a dict of its pickle holds something else than pairs"),
        };
        items.iter().map(pair).collect()
    }

    /// `('storage', class, key, device, length[, view])`, the only persistent id that `torch.save` writes.
    pub(super) fn storage(&self, id: Value) -> Result<StorageRef> {
        let Some(Node::Tuple(fields)) = self.node_of(id) else {
            return damaged("its pickle has an id that is no tuple");
        };
        let [tag, class, key, _, len, view @ ..] = fields.as_slice() else {
            return damaged("a storage of its pickle lacks fields");
        };
        let text = |value: Value| match self.node_of(value) {
            Some(Node::Str(text) | Node::Global(text)) => short(text),
            _ => damaged("a storage of its pickle lacks a name"),
        };
        if text(*tag)? != "storage" {
            return damaged("its pickle has an id that names no storage");
        }
        let (dtype, element_size) = storage_class(text(*class)?);
        // (key, first element, length); the length adds nothing, as the tensor is checked anyway.
        let offset = match view.first().map(|view| self.node_of(*view)) {
            Some(Some(Node::Tuple(view))) => view.get(1).map_or(Ok(0), |offset| natural(*offset))?,
            _ => 0,
        };
        Ok(StorageRef { key: text(*key)?.into(), dtype, element_size, len: natural(*len)?, offset })
    }
}

/// Refuses a name that is too long to be copied.
pub(super) fn short(name: &str) -> Result<&str> {
    if name.len() <= MAX_NAME { Ok(name) } else { damaged("its pickle has an endless name") }
}

fn natural(value: Value) -> Result<u64> {
    match value {
        Value::Int(n) if n >= 0 => Ok(n as u64),
        _ => damaged("its pickle has a size that is no natural number"),
    }
}

/// Element type of a storage class, and its size in bytes: 0 where even that is not known.
fn storage_class(name: &str) -> (Option<DType>, u64) {
    let dtype = match name.rsplit('.').next().unwrap_or_default() {
        "DoubleStorage" => DType::F64,
        "FloatStorage" => DType::F32,
        "HalfStorage" => DType::F16,
        "BFloat16Storage" => DType::BF16,
        "LongStorage" => DType::I64,
        "IntStorage" => DType::I32,
        "ShortStorage" => DType::I16,
        "CharStorage" => DType::I8,
        "ByteStorage" => DType::U8,
        "BoolStorage" => DType::Bool,
        "UntypedStorage" | "QInt8Storage" | "QUInt8Storage" => return (None, 1),
        "QInt32Storage" => return (None, 4),
        "ComplexFloatStorage" => return (None, 8),
        "ComplexDoubleStorage" => return (None, 16),
        _ => return (None, 0),
    };
    (Some(dtype), dtype.size() as u64)
}

fn torch_dtype(name: &str) -> Option<DType> {
    Some(match name.strip_prefix("torch.")? {
        "float64" => DType::F64,
        "float32" => DType::F32,
        "float16" => DType::F16,
        "bfloat16" => DType::BF16,
        "int64" => DType::I64,
        "int32" => DType::I32,
        "int16" => DType::I16,
        "int8" => DType::I8,
        "uint64" => DType::U64,
        "uint32" => DType::U32,
        "uint16" => DType::U16,
        "uint8" => DType::U8,
        "bool" => DType::Bool,
        _ => return None,
    })
}
