use cardinal_weights::{Comparison, WeightsError};
use thiserror::Error;

/// What can go wrong with a model.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ModelError {
    /// No variant has this name.
    #[error("unknown model '{name}'{}", suggest(.nearest))]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// The most similar names.
        nearest: Vec<&'static str>,
    },
    /// The model has no published weights with this tag.
    #[error("model '{model}' has no published weights '{tag}'; it has {}", list(.known))]
    UnknownTag {
        /// The model.
        model: String,
        /// The tag that was asked for.
        tag: String,
        /// The tags that it has.
        known: Vec<String>,
    },
    /// The model cannot take an input of this shape.
    #[error("{model} cannot take an input of shape {shape:?}: {reason}")]
    Input {
        /// The model.
        model: String,
        /// The input's shape.
        shape: Vec<usize>,
        /// What it would have to be.
        reason: String,
    },
    /// A checkpoint does not fit the model.
    #[error("the checkpoint does not fit {model}\n{comparison}")]
    Mismatch {
        /// The model.
        model: String,
        /// Where the two differ.
        comparison: Box<Comparison>,
    },
    /// A tensor of a checkpoint cannot be used.
    #[error("{0}")]
    Weights(#[from] WeightsError),
    /// No model in the registry has these parameters.
    #[error("no known model has these parameters{}", closest(.nearest, *.matched, *.total))]
    Unrecognised {
        /// The model with the largest share of matching tensors.
        nearest: String,
        /// How many match.
        matched: usize,
        /// How many it has.
        total: usize,
    },
    /// A tensor could not be read back from its device.
    #[error("{name} cannot be read back from the device: {reason}")]
    Read {
        /// The parameter.
        name: String,
        /// What Burn says.
        reason: String,
    },
    /// The graph could not be recorded.
    #[error("{model} could not be captured: {reason}")]
    Capture {
        /// The model.
        model: String,
        /// What Burn says.
        reason: String,
    },
}

fn closest(nearest: &str, matched: usize, total: usize) -> String {
    if matched == 0 {
        return String::new();
    }
    format!("; the closest is {nearest} ({matched} of its {total} tensors match)")
}

fn suggest(nearest: &[&'static str]) -> String {
    if nearest.is_empty() {
        return "; 'cardinal models' lists all".into();
    }
    format!("; did you mean {}?", list(nearest))
}

fn list<S: AsRef<str>>(names: &[S]) -> String {
    match names {
        [] => "none".into(),
        names => names.iter().map(|name| format!("'{}'", name.as_ref())).collect::<Vec<_>>().join(", "),
    }
}
