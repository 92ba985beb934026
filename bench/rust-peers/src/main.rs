//! A worker of `bench/peers.py`: loads an ONNX file with tract or rten, then runs it for as long as it is told to.
//!
//! The protocol is the one of the Python workers: a JSON line `ready` (with the time to the first output) once the
//! first output is in the file `--output`, and then, for each line `go SECONDS` on stdin, a JSON line `steps` with the
//! duration of each run. The end of stdin ends the worker.

mod peers;
mod protocol;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::peers::PeerName;

/// One network for one peer.
#[derive(Parser)]
struct Args {
    /// Which library runs the network
    #[arg(long)]
    peer: PeerName,
    /// The network, an ONNX file with one input and one output of fixed shape
    #[arg(long)]
    onnx: PathBuf,
    /// The input, raw 32-bit floats
    #[arg(long)]
    input: PathBuf,
    /// Shape of the input
    #[arg(long, value_delimiter = ',')]
    shape: Vec<usize>,
    /// Where the first output goes, raw 32-bit floats
    #[arg(long)]
    output: PathBuf,
    /// Threads of the peer's pool
    #[arg(long)]
    threads: usize,
}

fn main() -> ExitCode {
    match protocol::serve(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The parent reads the reason from stdout, as from every worker.
            println!("{}", serde_json::json!({ "event": "cannot", "reason": format!("{error:#}") }));
            ExitCode::FAILURE
        }
    }
}
