//! The server alone is built without Burn.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::process::Command;

#[test]
fn the_server_alone_links_no_burn_crate() {
    let tree = |features: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command.args(["tree", "-p", "cardinal-cli", "-e", "normal,build", "--prefix", "none", "--offline"]);
        let output = command.args(features).current_dir(support::root()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let burn = |tree: &str| tree.lines().filter(|line| line.starts_with("burn")).count();
    let alone = tree(&["--no-default-features", "--features", "serve"]);
    assert_eq!(burn(&alone), 0, "{alone}");
    for ours in ["bridge", "models", "train", "weights"] {
        assert!(!alone.contains(&format!("cardinal-{ours} ")), "{ours}");
    }
    assert!(burn(&tree(&[])) > 5, "the test finds Burn where it is");
}
