//! `train --batch auto`: the largest batch that fits into memory, and what is kept of it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use support::cardinal;
use tempfile::tempdir;

const RUN: [&str; 9] =
    ["train", "--recipe", "digits", "--model", "resnest14_digits", "--epochs", "1", "--threads", "1"];

#[test]
fn the_largest_batch_is_said_and_kept() {
    let folder = tempdir().unwrap();
    let output = folder.path().to_str().unwrap();
    let more = ["--batch", "auto", "--memory-limit", "40MiB", "--output", output, "--experiment", "run"];
    let run = cardinal(&[&RUN[..], &more].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    let said = run.stderr.lines().find_map(|line| line.strip_prefix("batch ")).unwrap();
    let (batch, _) = said.split_once(": the largest").unwrap();
    assert!(batch.parse::<usize>().unwrap() > 1, "{said}");
    let recipe = fs::read_to_string(folder.path().join("run/recipe.toml")).unwrap();
    assert!(recipe.lines().any(|line| line == format!("batch_size = {batch}")), "{recipe}");
}

#[test]
fn a_limit_that_is_too_small_is_named() {
    let small = ["--batch", "auto", "--memory-limit", "100KiB"];
    cardinal(&[&RUN[..], &small].concat()).fails(2, &["not even 1 images"]);
    cardinal(&[&RUN[..], &["--batch", "auto", "--memory-limit", "8GB"]].concat()).fails(2, &["8GiB"]);
}
