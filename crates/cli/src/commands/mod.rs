//! One file per command.

mod bench;
mod compile;
mod completions;
mod convert;
mod data;
mod eval;
mod explain;
mod export;
mod finetune;
mod info;
mod man;
mod models;
mod predict;
mod profile;
mod report;
mod train;

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
    /// Show where in a picture the evidence for a class lies
    Explain(explain::Args),
    /// Train a network on labelled images
    Train(train::Args),
    /// Train published weights on other data
    Finetune(finetune::Args),
    /// Say how well a network does on labelled images
    #[command(visible_alias = "val")]
    Eval(eval::Args),
    /// Read a dataset: what is broken in it, what it holds
    Data(data::Args),
    /// Measure how fast networks run
    Bench(bench::Args),
    /// Compile a network: say what was fused, draw it, or write it to a file
    Compile(compile::Args),
    /// Time every step of a network
    Profile(profile::Args),
    /// Draw the papers' figures and tables from measured results
    Report(report::Args),
    /// Write a network for other programs: ONNX, the engine's file, or weights alone
    Export(export::Args),
    /// Convert a file of weights to safetensors, under timm's or another code base's names
    Convert(convert::Args),
    /// Print what completes commands in a shell
    Completions(completions::Args),
    /// Print manual pages, or write them to a folder
    Man(man::Args),
}

impl Command {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Models(args) => args.run(),
            Self::Info(args) => args.run(),
            Self::Predict(args) => args.run(),
            Self::Explain(args) => args.run(),
            Self::Train(args) => args.run(),
            Self::Finetune(args) => args.run(),
            Self::Eval(args) => args.run(),
            Self::Data(args) => args.run(),
            Self::Bench(args) => args.run(),
            Self::Compile(args) => args.run(),
            Self::Profile(args) => args.run(),
            Self::Report(args) => args.run(),
            Self::Export(args) => args.run(),
            Self::Convert(args) => args.run(),
            Self::Completions(args) => args.run(),
            Self::Man(args) => args.run(),
        }
    }
}
