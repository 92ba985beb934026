//! One file per command.

mod convert;
mod info;
mod models;
mod predict;

use clap::Subcommand;
use std::process::ExitCode;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// List the networks
    #[command(visible_alias = "list")]
    Models(models::Args),
    /// Describe a network layer by layer, or say what a file of weights holds
    Info(info::Args),
    /// Classify images
    #[command(visible_alias = "infer")]
    Predict(predict::Args),
    /// Convert a file of weights to safetensors, under timm's or another code base's names
    Convert(convert::Args),
}

impl Command {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Models(args) => args.run(),
            Self::Info(args) => args.run(),
            Self::Predict(args) => args.run(),
            Self::Convert(args) => args.run(),
        }
    }
}
