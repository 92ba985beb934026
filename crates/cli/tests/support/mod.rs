//! Runs the built binary.
#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod http;

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What a run printed and how it ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    fn new(output: Output) -> Self {
        Self {
            code: output.status.code().expect("the program was not killed"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The standard output of a run that must have succeeded.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self.stdout
    }

    /// Checks that clap refused the arguments.
    pub(crate) fn fails_usage(&self) {
        assert_eq!(self.code, 2, "{self:?}");
        assert!(self.stderr.contains("Usage:"), "{}", self.stderr);
    }

    /// Checks that the run failed with `code` and one clear line that holds all of `texts`.
    pub(crate) fn fails(&self, code: i32, texts: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        let line = self.stderr.lines().find(|line| line.starts_with("error: "));
        let line = line.unwrap_or_else(|| panic!("no error line in {:?}", self.stderr));
        for text in texts {
            assert!(self.stderr.contains(text), "'{text}' is not in {:?} ({line})", self.stderr);
        }
    }
}

fn command<A: AsRef<OsStr>>(args: &[A]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cardinal"));
    // Nothing here may reach for the network.
    command.args(args).env("HF_HUB_OFFLINE", "1").env_remove("RUST_LOG").current_dir(root());
    command
}

pub(crate) fn cardinal<A: AsRef<OsStr>>(args: &[A]) -> Run {
    Run::new(command(args).output().unwrap())
}

/// The same with environment variables.
pub(crate) fn cardinal_with_env<A: AsRef<OsStr>>(args: &[A], variables: &[(&str, &str)]) -> Run {
    Run::new(command(args).envs(variables.iter().copied()).output().unwrap())
}

/// The same with bytes on standard input.
pub(crate) fn cardinal_with_input<A: AsRef<OsStr>>(args: &[A], input: &[u8]) -> Run {
    let mut command = command(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A program that refuses its arguments does not read.
    let _ = child.stdin.take().unwrap().write_all(input);
    Run::new(child.wait_with_output().unwrap())
}

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

pub(crate) fn asset(name: &str) -> PathBuf {
    root().join("assets").join(name)
}
