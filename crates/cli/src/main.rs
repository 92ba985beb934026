//! `cardinal`: networks from the command line.
//!
//! Three steps: clap checks the syntax, a command checks its values, then it works. Data goes to standard output,
//! everything else to standard error; this is the one place that exits.

mod classes;
#[cfg(feature = "networks")]
mod commands;
#[cfg(feature = "networks")]
mod compute;
mod engine;
mod exit;
#[cfg(feature = "networks")]
mod hub;
#[cfg_attr(not(feature = "networks"), allow(dead_code, reason = "the server needs a part of it"))]
mod machine;
#[cfg_attr(not(feature = "networks"), allow(dead_code, reason = "the server needs a part of it"))]
mod memory;
#[cfg(feature = "networks")]
mod network;
#[cfg(feature = "networks")]
mod output;
#[cfg_attr(not(feature = "serve"), allow(dead_code, reason = "only the server reads without Burn"))]
mod package;
#[cfg(feature = "networks")]
mod progress;
#[cfg(feature = "serve")]
mod serve;
#[cfg(feature = "networks")]
mod training;

use clap::{ArgAction, Parser, Subcommand};
use std::io::IsTerminal;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

#[cfg(feature = "networks")]
const EXAMPLES: &str = "\
Examples:
  cardinal models 'resnest*'                          list the ResNeSts
  cardinal predict --model resnest50d photo.jpg       classify a photograph with published weights
  cardinal predict --checkpoint weights.pth photos/   the same with a file's weights, for a folder
  cardinal explain --model resnest50d photo.jpg       show where in it the evidence for a class lies
  cardinal train                                      train two small networks on the embedded digits
  cardinal eval --checkpoint weights.pth --data d/    say how well a network does on labelled images
  cardinal data check photos/                         read every image of a dataset, name the broken ones
  cardinal info weights.safetensors                   say what a file holds
  cardinal bench --model 'tresnet*' --batch 16         measure how fast networks run here
  cardinal profile --model resnest50d                  time every layer
  cardinal report bench/results/*.json                draw speed against accuracy, from measured results
  cardinal export --model resnest50d -o net.onnx       write a network for other programs
  cardinal convert weights.pth weights.safetensors    change a file's format
  cardinal serve --model resnest50d                    answer over HTTP, with a page to try it at /

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 bad images or data, 4 weights that do not fit.";

#[cfg(not(feature = "networks"))]
const EXAMPLES: &str = "\
Examples:
  cardinal serve --model resnest50d.safetensors

This build holds the server alone, for files that 'cardinal compile --output FILE' wrote.";

/// ResNeSt, TResNet and their peers: list, inspect, convert and run them.
#[derive(Parser)]
#[command(name = "cardinal", version, after_help = EXAMPLES, propagate_version = true)]
#[cfg_attr(not(feature = "networks"), command(about = "Answers over HTTP with compiled networks"))]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    /// Say more on standard error (-v: what is loaded and how, -vv: details)
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    /// Say nothing on standard error but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
}

#[derive(Subcommand)]
enum Command {
    #[cfg(feature = "networks")]
    #[command(flatten)]
    Networks(commands::Command),
    /// Answer over HTTP: classes of pictures and outputs of networks, with a page to try it
    #[cfg(feature = "serve")]
    Serve(Box<serve::Args>),
}

fn main() -> ExitCode {
    let args = Args::parse();
    start_logging(args.verbose, args.quiet);
    let result = match args.command {
        #[cfg(feature = "networks")]
        Command::Networks(command) => {
            progress::set_quiet(args.quiet);
            command.run()
        }
        #[cfg(feature = "serve")]
        Command::Serve(serve) => serve.run(args.quiet),
    };
    match result {
        Ok(code) => code,
        Err(error) => exit::report(&error),
    }
}

fn start_logging(verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (false, 0) => "cardinal=warn,error",
        (false, 1) => "cardinal=info,warn",
        (false, _) => "cardinal=debug,info",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .init();
}
