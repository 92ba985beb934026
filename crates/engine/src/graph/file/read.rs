//! Reads a portable file from front to back, each byte once.

use super::header::{Header, TensorInfo};
use super::{FORMAT, Package, Result, VERSION, checksum, is_own};
use crate::graph::Graph;
use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::sync::Arc;

/// The format's own limit on its header.
const MAX_HEADER: u64 = 100_000_000;

/// Lines in all graphs together: a line takes up to 30 times its bytes once it is read, and no network has as many.
const MAX_LINES: usize = 1 << 18;

/// Bytes of all graphs together, against lines of great length.
const MAX_TEXT: usize = 1 << 24;

/// Bytes that are turned into numbers at once: they stay in the cache.
const CHUNK: usize = 1 << 17;

/// A tensor's shape, numbers, and the checksum of its bytes.
struct Tensor {
    shape: Vec<usize>,
    data: Arc<[f32]>,
    checksum: u32,
}

pub(super) fn read(reader: &mut impl Read, length: u64) -> Result<Package> {
    let header = read_header(reader, length)?;
    let mut metadata = header.metadata;
    check_format(&metadata)?;
    let tensors = read_tensors(reader, header.tensors)?;
    let summed = tensors.iter().map(|(name, t)| (name.as_str(), t.shape.as_slice(), t.checksum));
    if metadata.get("checksum") != Some(&checksum(&metadata, summed)) {
        return Err("the file is damaged: its checksum is another".into());
    }
    let graphs = read_graphs(&metadata, &tensors)?;
    metadata.retain(|key, _| !is_own(key));
    Ok(Package { graphs, metadata })
}

/// The header, whose tensors lie one after the other from the data's start to the file's end.
fn read_header(reader: &mut impl Read, length: u64) -> Result<Header> {
    let mut size = [0; 8];
    if length < 8 {
        return Err(format!("a file of {length} bytes is no safetensors file"));
    }
    reader.read_exact(&mut size).map_err(|error| error.to_string())?;
    let size = u64::from_le_bytes(size);
    let space = length - 8;
    if size > MAX_HEADER || size > space {
        return Err(format!("its header claims {size} bytes of {space}; is it a safetensors file?"));
    }
    let mut json = vec![0; size as usize];
    reader.read_exact(&mut json).map_err(|error| error.to_string())?;
    let header: Header =
        serde_json::from_slice(&json).map_err(|error| format!("its header is invalid: {error}"))?;
    let mut extents: Vec<_> =
        header.tensors.iter().map(|(name, tensor)| (tensor.data_offsets, name)).collect();
    extents.sort_unstable();
    let mut end = 0;
    for ([start, next], name) in extents {
        if start != end || next < start {
            return Err(format!(
                "tensor `{name}` lies at {start}..{next}, where {end} is the next free byte"
            ));
        }
        end = next;
    }
    if end != space - size {
        return Err(format!("its header describes {end} bytes of data, {} are there", space - size));
    }
    Ok(header)
}

fn check_format(metadata: &BTreeMap<String, String>) -> Result<()> {
    match metadata.get("format").map(String::as_str) {
        Some(FORMAT) => {}
        Some(other) => return Err(format!("its format is `{other}`, not `{FORMAT}`")),
        None => return Err(format!("it holds no graph: its metadata have no `format` of `{FORMAT}`")),
    }
    match metadata.get("version").map(String::as_str) {
        Some(VERSION) => Ok(()),
        Some(other) => Err(format!("it has version {other} of the format; this program reads {VERSION}")),
        None => Err("it has no `version`".into()),
    }
}

/// The tensors by name, read in the order of their data.
fn read_tensors(
    reader: &mut impl Read,
    infos: BTreeMap<String, TensorInfo>,
) -> Result<HashMap<String, Tensor>> {
    let mut infos: Vec<_> = infos.into_iter().collect();
    infos.sort_by_key(|(_, info)| info.data_offsets);
    let mut buffer = vec![0; CHUNK];
    let mut tensors = HashMap::with_capacity(infos.len());
    for (name, info) in infos {
        let tensor =
            read_tensor(reader, info, &mut buffer).map_err(|reason| format!("tensor `{name}`: {reason}"))?;
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

fn read_tensor(reader: &mut impl Read, info: TensorInfo, buffer: &mut [u8]) -> Result<Tensor> {
    let TensorInfo { dtype, shape, data_offsets: [start, end] } = info;
    let shape = shape.0;
    if dtype != "F32" {
        return Err(format!("its numbers are {dtype}, not F32"));
    }
    let count = shape.iter().try_fold(1_u64, |product, &size| product.checked_mul(size as u64));
    let Some(count) = count.filter(|count| count.checked_mul(4) == Some(end - start)) else {
        return Err(format!("{} bytes for shape {shape:?}", end - start));
    };
    // The extents end where the file does, so this is no more than the file has.
    let mut data: Arc<[f32]> = std::iter::repeat_n(0.0, count as usize).collect();
    let mut hasher = crc32fast::Hasher::new();
    let numbers = Arc::get_mut(&mut data).ok_or("the numbers are shared already")?;
    for numbers in numbers.chunks_mut(buffer.len() / 4) {
        let bytes = &mut buffer[..numbers.len() * 4];
        reader.read_exact(bytes).map_err(|error| error.to_string())?;
        hasher.update(bytes);
        let (bytes, _) = bytes.as_chunks();
        numbers.iter_mut().zip(bytes).for_each(|(number, bytes)| *number = f32::from_le_bytes(*bytes));
    }
    Ok(Tensor { shape, data, checksum: hasher.finalize() })
}

/// `graph.0`, `graph.1` and so on, verified.
fn read_graphs(metadata: &BTreeMap<String, String>, tensors: &HashMap<String, Tensor>) -> Result<Vec<Graph>> {
    let mut lookup = |name: &str, shape: &[usize], key: Option<&str>| {
        let key = key.unwrap_or(name);
        let tensor = tensors.get(key).ok_or_else(|| format!("the file has no tensor `{key}`"))?;
        if tensor.shape != shape {
            return Err(format!("tensor `{key}` has shape {:?}, not {shape:?}", tensor.shape));
        }
        Ok(tensor.data.clone())
    };
    let texts: Vec<_> = (0..).map_while(|i| metadata.get(&format!("graph.{i}"))).collect();
    if texts.is_empty() || texts.len() != metadata.keys().filter(|key| key.starts_with("graph.")).count() {
        return Err("its graphs are not `graph.0`, `graph.1` and so on".into());
    }
    let lines: usize = texts.iter().map(|text| text.lines().count()).sum();
    let bytes: usize = texts.iter().map(|text| text.len()).sum();
    if bytes > MAX_TEXT {
        return Err(format!("its graphs have {bytes} bytes; {MAX_TEXT} are allowed"));
    }
    if lines > MAX_LINES {
        return Err(format!("its graphs have {lines} lines; {MAX_LINES} are allowed"));
    }
    let read = |(i, text): (usize, &&String)| {
        let graph = Graph::parse_with(text, &mut lookup).and_then(|graph| graph.verify().map(|()| graph));
        graph.map_err(|error| format!("graph {i}: {error}"))
    };
    texts.iter().enumerate().map(read).collect()
}
