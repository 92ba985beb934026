//! Where a network comes from: a compiled file, or in the full build a name or a checkpoint.

use crate::classes;
use crate::exit::Usage;
use crate::package::{self, Notes};
use anyhow::Context;
use cardinal_data::Preprocess;
use cardinal_engine::graph::{Graph, Package};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A network that can be planned.
pub(super) struct Network {
    pub(super) graph: Graph,
    pub(super) preprocess: Preprocess,
    /// A name for each class.
    pub(super) classes: Vec<String>,
    /// Whether an image may be of several.
    pub(super) multi_label: bool,
    /// Before compilation, where that is known.
    pub(super) param_count: Option<u64>,
    pub(super) macs: Option<u64>,
    pub(super) file_bytes: Option<u64>,
}

/// Something to load a network from, more than once.
pub(super) enum Source {
    /// A file of 'cardinal compile'.
    Compiled(PathBuf),
    /// A module that is captured: a name with weights from the hub or a file.
    #[cfg(feature = "networks")]
    Captured { choice: Box<crate::network::Choice>, file: Option<PathBuf> },
}

/// What a file's change shows in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp(SystemTime, u64);

/// `NAME=WHAT`, or `WHAT` alone, and the flags beside it.
pub(super) struct Wish<'a> {
    pub(super) model: &'a str,
    #[cfg(feature = "networks")]
    pub(super) checkpoint: Option<&'a Path>,
    #[cfg(feature = "networks")]
    pub(super) untrained: bool,
}

impl Wish<'_> {
    /// The name to serve it under, and the source.
    pub(super) fn resolve(&self) -> anyhow::Result<(String, Source)> {
        let (name, what) = match self.model.split_once('=') {
            Some((name, what)) => (Some(name), what),
            None => (None, self.model),
        };
        let path = Path::new(what);
        let default = if path.is_file() { path.file_stem() } else { path.file_name() };
        let name =
            name.map_or_else(|| default.unwrap_or_default().to_string_lossy().into_owned(), str::to_owned);
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
            let text = format!(
                "'{name}' cannot be part of an address: give the model a name of letters, digits, '.', '_' and '-', \
                 as in --model cats=FILE"
            );
            return Err(Usage(text).into());
        }
        Ok((name, self.source(what, path)?))
    }

    #[cfg(feature = "networks")]
    fn source(&self, what: &str, path: &Path) -> anyhow::Result<Source> {
        use crate::network::Choice;
        if path.is_file() && self.checkpoint.is_none() {
            if is_compiled(path) {
                return Ok(Source::Compiled(path.to_owned()));
            }
            let choice = Box::new(Choice::new(None, Some(path.to_owned()), false));
            return Ok(Source::Captured { choice, file: Some(path.to_owned()) });
        }
        let file = self.checkpoint.map(Path::to_owned);
        let untrained = self.untrained && file.is_none();
        let choice = Box::new(Choice::new(Some(what.to_owned()), file.clone(), untrained));
        Ok(Source::Captured { choice, file })
    }

    #[cfg(not(feature = "networks"))]
    fn source(&self, what: &str, path: &Path) -> anyhow::Result<Source> {
        if !path.is_file() {
            let text = format!(
                "there is no file '{what}'; this build serves files that 'cardinal compile --output FILE' wrote"
            );
            return Err(Usage(text).into());
        }
        Ok(Source::Compiled(path.to_owned()))
    }
}

impl Source {
    /// Reads everything; `size` chooses among input sizes.
    pub(super) fn load(&self, size: Option<usize>) -> anyhow::Result<Network> {
        match self {
            Self::Compiled(path) => compiled(path, size),
            #[cfg(feature = "networks")]
            Self::Captured { choice, file } => captured(choice, file.as_deref(), size),
        }
    }

    /// The file that is watched.
    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Self::Compiled(path) => Some(path),
            #[cfg(feature = "networks")]
            Self::Captured { file, .. } => file.as_deref(),
        }
    }

    /// The file's state now.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        let metadata = std::fs::metadata(self.file()?).ok()?;
        Some(Stamp(metadata.modified().ok()?, metadata.len()))
    }
}

fn compiled(path: &Path, size: Option<usize>) -> anyhow::Result<Network> {
    let (Package { graphs, .. }, Notes { preprocess, classes, facts, multi_label }) = package::read(path)?;
    let side = |graph: &Graph| graph.shape(graph.inputs[0])[2..].to_vec();
    let index = match size {
        None => 0,
        Some(size) => graphs.iter().position(|graph| side(graph) == [size, size]).ok_or_else(|| {
            let sides: Vec<_> = graphs.iter().map(|graph| side(graph)[0].to_string()).collect();
            let sides = sides.join(", ");
            Usage(format!("{}: compiled for images of {sides} pixels, not {size}", path.display()))
        })?,
    };
    let graph = graphs.into_iter().nth(index).context("the file has that graph")?;
    let classes = classes::names(classes, last_size(&graph))?;
    let preprocess = match size {
        Some(size) => Preprocess { size: (size as u32, size as u32), ..preprocess },
        None => preprocess,
    };
    Ok(Network {
        graph,
        preprocess,
        classes,
        multi_label,
        param_count: facts.as_ref().map(|facts| facts.param_count),
        macs: facts.and_then(|facts| facts.macs.get(index).copied()),
        file_bytes: std::fs::metadata(path).ok().map(|metadata| metadata.len()),
    })
}

#[cfg(feature = "networks")]
fn captured(
    choice: &crate::network::Choice,
    file: Option<&Path>,
    size: Option<usize>,
) -> anyhow::Result<Network> {
    let crate::network::Loaded { network, preprocessing, classes, multi_label } = choice.load()?;
    let side = size.unwrap_or(preprocessing.size);
    let crate::network::Captured { optimized, cost, .. } = network.optimized([3, side, side])?;
    let graph = optimized.graph;
    Ok(Network {
        classes: classes::names(classes, last_size(&graph))?,
        multi_label,
        preprocess: crate::network::preprocess(&preprocessing, side as u32),
        param_count: Some(cost.parameters),
        macs: Some(cost.macs),
        file_bytes: file.and_then(|file| Some(std::fs::metadata(file).ok()?.len())),
        graph,
    })
}

/// Classes of a classifier.
fn last_size(graph: &Graph) -> usize {
    graph.outputs.first().and_then(|output| graph.shape(*output).last().copied()).unwrap_or(0)
}

/// Whether a file says that it is a compiled one; a checkpoint in safetensors has the same container.
#[cfg(feature = "networks")]
fn is_compiled(path: &Path) -> bool {
    use std::io::Read;
    #[derive(serde::Deserialize)]
    struct Header {
        #[serde(rename = "__metadata__")]
        metadata: Option<std::collections::BTreeMap<String, String>>,
    }
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let mut length = [0; 8];
        file.read_exact(&mut length)?;
        let mut header = Vec::new();
        file.take(u64::from_le_bytes(length).min(100 << 20)).read_to_end(&mut header)?;
        Ok(header)
    };
    let header = read().ok().and_then(|text| serde_json::from_slice::<Header>(&text).ok());
    let format = header.and_then(|header| header.metadata?.remove("format"));
    format.as_deref() == Some("cardinal-graph")
}
