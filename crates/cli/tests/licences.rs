//! The licences of everything that is built into the program, as their manifests state them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::Command;

/// Licences under which code may be built into a program with Cardinal's own terms: they ask to be named and to keep their
/// text, and MPL-2.0 that changes to its own files stay open.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Name and version, licence and source of all that is linked into the program or builds it, on any platform.
fn dependencies() -> BTreeMap<String, (String, String)> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--edges", "normal,build", "--target", "all", "--prefix", "none"])
        .args([
            "--format",
            "{p}|{l}|{r}",
            "--manifest-path",
            concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let rows = text.lines().filter(|line| !line.starts_with("cardinal-") && !line.is_empty());
    let row = |line: &str| {
        let mut parts = line.trim_end_matches(" (*)").split('|').map(str::to_owned);
        let mut part = || parts.next().unwrap_or_default();
        let name = part().replace(" (proc-macro)", "");
        (name, (part(), part()))
    };
    rows.map(row).collect()
}

#[test]
fn every_dependency_has_a_licence_that_allows_what_ours_allow() {
    let table = dependencies();
    let mut refused = Vec::new();
    for (name, (licence, _)) in &table {
        let allowed = spdx::Expression::parse_mode(licence, spdx::ParseMode::LAX).is_ok_and(|expression| {
            let is_ours = |id: spdx::LicenseId| ALLOWED.contains(&id.name);
            expression.evaluate(|requirement| requirement.license.id().is_some_and(is_ours))
        });
        if !allowed {
            refused.push(format!("{name}: '{licence}'"));
        }
    }
    assert!(table.len() > 50, "only {} dependencies were found", table.len());
    assert!(refused.is_empty(), "not in the list of licences: {}", refused.join(", "));
    // 'just dist' puts the list beside the program.
    if let Some(path) = std::env::var_os("CARDINAL_LICENCES") {
        let mut text = String::from("What is built into Cardinal, under which licence, and from where.\n\n");
        for (name, (licence, source)) in table {
            writeln!(text, "{name}\t{licence}\t{source}").unwrap();
        }
        std::fs::write(path, text).unwrap();
    }
}
