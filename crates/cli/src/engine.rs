//! How the engine runs: format, threads, instruction set.

use crate::exit::Usage;
use cardinal_engine::{DType, Isa, Level};
use clap::ValueEnum;
use std::num::NonZero;

/// The format of feature maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    F32,
    Bf16,
}

impl From<Format> for DType {
    fn from(format: Format) -> Self {
        match format {
            Format::F32 => Self::F32,
            Format::Bf16 => Self::Bf16,
        }
    }
}

/// The level of that name.
pub(crate) fn level(text: &str) -> Result<Level, String> {
    Level::ALL.into_iter().find(|level| level.name() == text).ok_or_else(|| {
        let names: Vec<_> = Level::ALL.iter().map(|level| level.name()).collect();
        format!("the levels are {}", names.join(", "))
    })
}

/// The cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// The instruction set of `level`, or the best, if this processor has it.
pub(crate) fn isa(level: Option<Level>) -> anyhow::Result<Isa> {
    let Some(level) = level else { return Ok(Isa::best()) };
    Isa::get(level).ok_or_else(|| {
        let names: Vec<_> = Isa::available().iter().map(ToString::to_string).collect();
        Usage(format!("this processor has no {level}; it has {}", names.join(", "))).into()
    })
}
