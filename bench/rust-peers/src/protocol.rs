//! The conversation with `bench/peers.py`.

use std::fs;
use std::io::{self, BufRead};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::json;

use crate::Args;
use crate::peers::{self, Peer};

/// Runs before a worker calls itself ready: the first allocates, the next find caches and branch predictors warm.
const WARM_UP_RUNS: usize = 3;
/// Fewer timed runs than this give no median worth the name.
const MIN_STEPS: usize = 3;

/// Loads the network, writes its first output, and then answers the commands on stdin until it ends.
pub(crate) fn serve(args: &Args) -> anyhow::Result<()> {
    let input = read_floats(&args.input)?;
    let rss_before_load = resident_bytes()?;
    let start = Instant::now();
    let mut peer = peers::load(args.peer, &args.onnx, &args.shape, &input, args.threads)?;
    let output = peer.run()?;
    let load_seconds = start.elapsed().as_secs_f64();
    write_floats(&args.output, &output)?;
    for _ in 1..WARM_UP_RUNS {
        peer.run()?;
    }
    let images = args.shape.first().copied().unwrap_or(1);
    say(&json!({
        "event": "ready", "load_seconds": load_seconds, "rss_before_load": rss_before_load, "images": images,
    }));
    for line in io::stdin().lock().lines() {
        let steps = measure(peer.as_mut(), parse_go(&line?)?)?;
        say(&json!({ "event": "steps", "seconds": steps }));
    }
    Ok(())
}

/// The duration of each run for `duration`, after one that is not counted: the worker may have been stopped for long.
fn measure(peer: &mut dyn Peer, duration: Duration) -> anyhow::Result<Vec<f64>> {
    peer.run()?;
    let mut steps = Vec::new();
    let start = Instant::now();
    while start.elapsed() < duration || steps.len() < MIN_STEPS {
        let step = Instant::now();
        std::hint::black_box(peer.run()?);
        steps.push(step.elapsed().as_secs_f64());
    }
    Ok(steps)
}

/// Seconds of a command `go SECONDS`.
fn parse_go(line: &str) -> anyhow::Result<Duration> {
    let Some(seconds) = line.strip_prefix("go ") else { bail!("unknown command {line:?}") };
    let seconds: f64 = seconds.trim().parse().with_context(|| format!("command {line:?}"))?;
    Duration::try_from_secs_f64(seconds).with_context(|| format!("command {line:?}"))
}

/// A line for the parent; stdout is line-buffered, so it leaves at once.
fn say(message: &serde_json::Value) {
    println!("{message}");
}

fn read_floats(path: &Path) -> anyhow::Result<Vec<f32>> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let (floats, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        bail!("{} is no array of 32-bit floats", path.display());
    }
    Ok(floats.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

fn write_floats(path: &Path, values: &[f32]) -> anyhow::Result<()> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}

/// Memory of this process that is resident now, in bytes.
fn resident_bytes() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS in /proc/self/status")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().context("VmRSS")?;
    Ok(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_seconds_or_errors() {
        assert_eq!(parse_go("go 1.5").unwrap(), Duration::from_millis(1500));
        for wrong in ["stop", "go", "go x", "go -1", "go inf"] {
            assert!(parse_go(wrong).unwrap_err().to_string().contains("command"), "{wrong}");
        }
    }

    #[test]
    fn this_process_takes_memory() {
        assert!(resident_bytes().unwrap() > 1 << 16);
    }
}
