//! Errors become one message on standard error and an exit code.

use crate::hub::HubError;
use cardinal_data::DataError;
use cardinal_models::ModelError;
use cardinal_train::TrainError;
use cardinal_train::recipe::RecipeError;
use cardinal_weights::WeightsError;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

/// Wrong names or values on the command line, found after clap.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// Some of the inputs failed; they were listed already.
#[derive(Debug, thiserror::Error)]
#[error("{failed} of {total} images could not be classified")]
pub(crate) struct SomeFailed {
    pub(crate) failed: usize,
    pub(crate) total: usize,
}

/// Some of a dataset's images cannot be read; they were listed already.
#[derive(Debug, thiserror::Error)]
#[error("{broken} of {total} images cannot be read")]
pub(crate) struct Broken {
    pub(crate) broken: usize,
    pub(crate) total: usize,
}

const FAILURE: u8 = 1;
const USAGE: u8 = 2;
const DATA: u8 = 3;
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
    for cause in error.chain() {
        if cause.is::<Usage>() {
            return USAGE;
        }
        if cause.is::<DataError>() || cause.is::<SomeFailed>() || cause.is::<Broken>() {
            return DATA;
        }
        if cause.is::<WeightsError>() {
            return WEIGHTS;
        }
        match cause.downcast_ref::<TrainError>() {
            Some(TrainError::Recipe(_) | TrainError::NoDevice(_)) => return USAGE,
            Some(TrainError::Data(_) | TrainError::DataFit(_)) => return DATA,
            Some(TrainError::Weights(_) | TrainError::Checkpoint { .. } | TrainError::State(_)) => {
                return WEIGHTS;
            }
            Some(TrainError::Model(error)) => return of_model(error).unwrap_or(FAILURE),
            _ => {}
        }
        if cause.is::<RecipeError>() {
            return USAGE;
        }
        if cause.is::<HubError>() {
            return FAILURE;
        }
        if let Some(code) = cause.downcast_ref::<ModelError>().and_then(of_model) {
            return code;
        }
    }
    FAILURE
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
