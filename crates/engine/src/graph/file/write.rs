//! Writes a portable file. Equal packages give equal bytes.

use super::{FORMAT, Package, Result, VERSION, checksum, is_own};
use crate::graph::{Graph, ValueId};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::sync::Arc;

/// Numbers that are turned into bytes at once.
const CHUNK: usize = 1 << 15;

pub(super) fn write(package: &Package, out: &mut impl Write) -> Result<()> {
    if package.graphs.is_empty() {
        return Err("there is no graph to write".into());
    }
    if let Some(key) = package.metadata.keys().find(|key| is_own(key)) {
        return Err(format!("the metadata key `{key}` is the format's own"));
    }
    let mut metadata = package.metadata.clone();
    metadata.insert("format".into(), FORMAT.into());
    metadata.insert("version".into(), VERSION.into());
    let mut tensors = Tensors::default();
    for (i, graph) in package.graphs.iter().enumerate() {
        graph.verify().map_err(|error| format!("graph {i}: {error}"))?;
        metadata.insert(format!("graph.{i}"), tensors.add(graph));
    }
    let summed = tensors.list.iter().map(|t| (t.name.as_str(), t.shape.as_slice(), t.checksum));
    let sum = checksum(&metadata, summed);
    metadata.insert("checksum".into(), sum);

    let text = |error: std::io::Error| error.to_string();
    let header = header(&metadata, &tensors.list).map_err(|error| error.to_string())?;
    out.write_all(&(header.len() as u64).to_le_bytes()).map_err(text)?;
    out.write_all(&header).map_err(text)?;
    tensors
        .list
        .iter()
        .try_for_each(|tensor| bytes(&tensor.data, |bytes| out.write_all(bytes)))
        .map_err(text)?;
    out.flush().map_err(text)
}

/// The JSON, padded so that the data starts aligned.
fn header(metadata: &BTreeMap<String, String>, tensors: &[Tensor]) -> serde_json::Result<Vec<u8>> {
    let mut header = format!("{{\"__metadata__\":{}", serde_json::to_string(metadata)?);
    let mut start = 0;
    for Tensor { name, shape, data, .. } in tensors {
        let end = start + data.len() * 4;
        let name = serde_json::to_string(name)?;
        header +=
            &format!(",{name}:{{\"dtype\":\"F32\",\"shape\":{shape:?},\"data_offsets\":[{start},{end}]}}");
        start = end;
    }
    header.push('}');
    let mut header = header.into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}

/// Hands over the little-endian bytes of `data`, piece by piece.
fn bytes<E>(
    data: &[f32],
    mut take: impl FnMut(&[u8]) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let mut buffer = Vec::with_capacity(4 * CHUNK.min(data.len()));
    for numbers in data.chunks(CHUNK) {
        buffer.clear();
        buffer.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        take(&buffer)?;
    }
    Ok(())
}

struct Tensor {
    name: String,
    shape: Vec<usize>,
    data: Arc<[f32]>,
    checksum: u32,
}

/// The constants of all graphs, each once.
#[derive(Default)]
struct Tensors {
    list: Vec<Tensor>,
    names: HashSet<String>,
    /// Places in `list` by shape and checksum: candidates for being equal.
    places: HashMap<(Vec<usize>, u32), Vec<usize>>,
}

impl Tensors {
    /// Adds the constants of `graph` and returns its text, which names them.
    fn add(&mut self, graph: &Graph) -> String {
        let ids = (0..graph.values.len()).map(ValueId);
        let places: HashMap<_, _> = ids.filter_map(|id| Some((id, self.place(graph, id)?))).collect();
        graph.to_text_with(&|id| {
            places.get(&id).map(|&place| self.list[place].name.clone()).unwrap_or_default()
        })
    }

    /// The place of a constant's tensor, which is added if no equal one is there.
    fn place(&mut self, graph: &Graph, id: ValueId) -> Option<usize> {
        let data = graph[id].constant()?;
        let shape = graph.shape(id).to_vec();
        let mut hasher = crc32fast::Hasher::new();
        let Ok(()) = bytes(data, |bytes| {
            hasher.update(bytes);
            Ok::<_, std::convert::Infallible>(())
        });
        let checksum = hasher.finalize();
        let places = self.places.entry((shape.clone(), checksum)).or_default();
        let equal = |&&place: &&usize| {
            let other = &self.list[place].data;
            Arc::ptr_eq(other, data) || other.iter().zip(data.iter()).all(|(a, b)| a.to_bits() == b.to_bits())
        };
        if let Some(&place) = places.iter().find(equal) {
            return Some(place);
        }
        places.push(self.list.len());
        let name = unused(&mut self.names, &graph[id].name);
        self.list.push(Tensor { name, shape, data: data.clone(), checksum });
        Some(self.list.len() - 1)
    }
}

/// `name`, or the first of `name#2`, `name#3` … that no tensor has.
fn unused(names: &mut HashSet<String>, name: &str) -> String {
    let first = if name.is_empty() || name == "__metadata__" { "constant" } else { name };
    let mut name = first.to_owned();
    let mut number = 2;
    while !names.insert(name.clone()) {
        name = format!("{first}#{number}");
        number += 1;
    }
    name
}
