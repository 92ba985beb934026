//! Parameter names: which code base wrote a state dict, and its names as timm's.
//!
//! The official ResNeSt files use timm's names already. Official TResNet, the SENets of Cadene's collection
//! and the detectron2 backbones of ResNeSt do not, and TResNet's values differ too (see [`Naming`]).

mod detectron;
mod senet;
mod tresnet;

use crate::error::{Result, WeightsError, WeightsErrorKind};
use crate::tensor::{NamedTensors, Tensor};
use std::fmt;

/// The naming schemes of published weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// timm's names; also those of the official ResNeSt files, and of anything that is not recognised.
    Timm,
    /// TResNet as its authors publish it. Batch norm's gammas are those of in-place activated batch norm,
    /// which uses `|gamma| + 1e-5`, so converting changes the values as well.
    OfficialTResNet,
    /// SENet-154 and SE-ResNeXt of `pretrained-models.pytorch`, in timm as `legacy_senet154`.
    LegacySenet,
    /// A ResNeSt backbone of detectron2, alone or inside a detector.
    Detectron2ResNeSt,
}

impl fmt::Display for Naming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timm => "timm",
            Self::OfficialTResNet => "official TResNet",
            Self::LegacySenet => "legacy SENet",
            Self::Detectron2ResNeSt => "detectron2 ResNeSt",
        })
    }
}

/// Tensors under new names.
#[derive(Debug, Clone)]
pub struct Converted {
    /// The scheme that the names were in, or for [`from_timm`] are in now.
    pub naming: Naming,
    /// The tensors.
    pub tensors: NamedTensors,
    /// Names that have no counterpart and were left out: fixed filters, and the other parts of a detector.
    pub dropped: Vec<String>,
    /// What the names do not tell and the user should know.
    pub note: Option<&'static str>,
}

/// Tells the naming scheme; [`Naming::Timm`] if no other is recognised.
pub fn detect<'a>(names: impl IntoIterator<Item = &'a str>) -> Naming {
    let mut naming = Naming::Timm;
    for name in names {
        if name == "body.conv1.0.weight" {
            return Naming::OfficialTResNet;
        }
        if name == "layer0.conv1.weight" {
            return Naming::LegacySenet;
        }
        let inner = name.strip_prefix(detectron::PREFIX).unwrap_or(name);
        if inner == "stem.conv1_1.weight" || inner == "res2.0.conv1.norm.weight" {
            naming = Naming::Detectron2ResNeSt;
        }
    }
    naming
}

/// Converts to timm's names from whatever scheme [`detect`] finds. Under timm's names nothing changes.
///
/// # Errors
/// Two names become one, or the scheme stands for a network that timm's names would compute differently.
pub fn to_timm(tensors: NamedTensors) -> std::result::Result<Converted, WeightsError> {
    let naming = detect(tensors.names());
    let converted = match naming {
        Naming::Timm => Ok(Converted::plain(naming, tensors)),
        Naming::OfficialTResNet => tresnet::to_timm(tensors),
        Naming::LegacySenet => senet::to_timm(tensors),
        Naming::Detectron2ResNeSt => detectron::to_timm(tensors),
    };
    converted.map_err(|kind| kind.at(format!("{naming} names")))
}

/// Converts from timm's names. The tensors must be of a network that the scheme has names for.
///
/// # Errors
/// The names are not those of such a network, or a gamma has no counterpart in in-place batch norm.
pub fn from_timm(tensors: NamedTensors, naming: Naming) -> std::result::Result<Converted, WeightsError> {
    let converted = match naming {
        Naming::Timm => Ok(Converted::plain(naming, tensors)),
        Naming::OfficialTResNet => tresnet::from_timm(tensors),
        Naming::LegacySenet => senet::from_timm(tensors),
        Naming::Detectron2ResNeSt => detectron::from_timm(tensors),
    };
    converted.map_err(|kind| kind.at(format!("conversion to {naming} names")))
}

impl Converted {
    fn plain(naming: Naming, tensors: NamedTensors) -> Self {
        Self { naming, tensors, dropped: Vec::new(), note: None }
    }
}

/// Renames every tensor; `None` drops it.
fn rename(
    naming: Naming,
    tensors: NamedTensors,
    new_name: impl Fn(&str) -> Option<String>,
) -> Result<Converted> {
    let mut out = Converted::plain(naming, NamedTensors::new());
    for (name, tensor) in tensors {
        match new_name(&name) {
            None => out.dropped.push(name),
            Some(new) if out.tensors.contains(&new) => {
                return Err(WeightsErrorKind::Naming(format!("two tensors would be named '{new}'")));
            }
            Some(new) => drop(out.tensors.insert(new, tensor)),
        }
    }
    Ok(out)
}

/// Changes the values of the tensors that `applies` selects by name; they become F32.
fn change_values(
    tensors: NamedTensors,
    applies: impl Fn(&str) -> bool,
    change: impl Fn(&str, f32) -> Result<f32>,
) -> Result<NamedTensors> {
    let mut out = NamedTensors::new();
    for (name, tensor) in tensors {
        let tensor = if applies(&name) {
            let values = tensor.to_f32().into_iter().map(|v| change(&name, v)).collect::<Result<Vec<_>>>()?;
            Tensor::from_f32(tensor.shape().to_vec(), &values).map_err(|e| e.kind)?
        } else {
            tensor
        };
        out.insert(name, tensor);
    }
    Ok(out)
}

/// An error for tensors that are not of the network that a scheme names.
fn not_a<T>(network: &str, lacking: &str) -> Result<T> {
    Err(WeightsErrorKind::Naming(format!(
        "these are not the weights of a {network}: there is no '{lacking}'"
    )))
}
