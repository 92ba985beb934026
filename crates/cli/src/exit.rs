//! Errors become one message on standard error and an exit code.

use cardinal_data::DataError;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

/// Wrong names or values on the command line, found after clap.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// Some of the inputs failed; they were listed already.
#[cfg(feature = "networks")]
#[derive(Debug, thiserror::Error)]
#[error("{failed} of {total} images could not be classified")]
pub(crate) struct SomeFailed {
    pub(crate) failed: usize,
    pub(crate) total: usize,
}

/// Some of a dataset's images cannot be read; they were listed already.
#[cfg(feature = "networks")]
#[derive(Debug, thiserror::Error)]
#[error("{broken} of {total} images cannot be read")]
pub(crate) struct Broken {
    pub(crate) broken: usize,
    pub(crate) total: usize,
}

const FAILURE: u8 = 1;
const USAGE: u8 = 2;
const DATA: u8 = 3;
#[cfg(feature = "networks")]
const WEIGHTS: u8 = 4;

/// Prints `error` and gives its exit code. A reader that closed the pipe has what it wanted.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let broken_pipe = |cause: &&std::io::Error| cause.kind() == ErrorKind::BrokenPipe;
    if error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).any(|e| broken_pipe(&e)) {
        return ExitCode::SUCCESS;
    }
    // Nothing is left to do if standard error is closed too.
    let _ = writeln!(std::io::stderr(), "error: {}", text(error));
    ExitCode::from(code(error))
}

/// The chain of causes on one line, less those whose text the one before repeats.
fn text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(of_cause).unwrap_or(FAILURE)
}

fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if cause.is::<Usage>() {
        return Some(USAGE);
    }
    if cause.is::<DataError>() {
        return Some(DATA);
    }
    #[cfg(feature = "networks")]
    return networks::code(cause);
    #[cfg(not(feature = "networks"))]
    None
}

/// The errors of what the server alone does not have.
#[cfg(feature = "networks")]
mod networks {
    use super::{Broken, DATA, FAILURE, SomeFailed, USAGE, WEIGHTS};
    use crate::hub::HubError;
    use cardinal_models::ModelError;
    use cardinal_train::TrainError;
    use cardinal_train::recipe::RecipeError;
    use cardinal_weights::WeightsError;

    pub(super) fn code(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
        if cause.is::<SomeFailed>() || cause.is::<Broken>() {
            return Some(DATA);
        }
        if cause.is::<WeightsError>() {
            return Some(WEIGHTS);
        }
        if cause.is::<RecipeError>() {
            return Some(USAGE);
        }
        if cause.is::<HubError>() {
            return Some(FAILURE);
        }
        match cause.downcast_ref::<TrainError>() {
            Some(TrainError::Recipe(_) | TrainError::NoDevice(_)) => Some(USAGE),
            Some(TrainError::Data(_) | TrainError::DataFit(_)) => Some(DATA),
            Some(TrainError::Weights(_) | TrainError::Checkpoint { .. } | TrainError::State(_)) => {
                Some(WEIGHTS)
            }
            Some(TrainError::Model(error)) => Some(of_model(error).unwrap_or(FAILURE)),
            _ => cause.downcast_ref::<ModelError>().and_then(of_model),
        }
    }

    fn of_model(error: &ModelError) -> Option<u8> {
        match error {
            ModelError::Unknown { .. } | ModelError::UnknownTag { .. } => Some(USAGE),
            ModelError::Input { .. } => Some(DATA),
            ModelError::Mismatch { .. } | ModelError::Unrecognised { .. } | ModelError::Weights(_) => {
                Some(WEIGHTS)
            }
            _ => None,
        }
    }
}
