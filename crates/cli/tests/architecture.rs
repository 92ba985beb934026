//! The edges between crates that ARCHITECTURE.md allows, and no others.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

#[test]
fn crates_depend_only_where_the_architecture_lets_them() {
    let allowed = BTreeMap::from([
        ("data", BTreeSet::new()),
        ("weights", BTreeSet::new()),
        ("models", BTreeSet::from(["weights"])),
        ("kernels", BTreeSet::new()),
        ("engine", BTreeSet::from(["kernels"])),
        ("bridge", BTreeSet::from(["engine"])),
        ("train", BTreeSet::from(["models", "data", "bridge", "engine", "weights"])),
        ("cli", BTreeSet::from(["bridge", "data", "engine", "models", "train", "weights"])),
    ]);
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = BTreeMap::new();
    for folder in std::fs::read_dir(crates).unwrap() {
        let folder = folder.unwrap().path();
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        if ["data", "weights", "kernels", "engine"].contains(&name.as_str()) {
            assert!(!manifest.contains("burn"), "{name} must not depend on Burn");
        }
        found.insert(name, own_dependencies(&manifest));
    }
    for (name, dependencies) in &found {
        let allowed = allowed.get(name.as_str()).unwrap_or_else(|| panic!("crate {name} is not in the list"));
        let dependencies: BTreeSet<&str> = dependencies.iter().map(String::as_str).collect();
        assert!(
            dependencies.is_subset(allowed),
            "{name} depends on {dependencies:?}, allowed is {allowed:?}"
        );
    }
    assert_eq!(found.len(), allowed.len());
}

/// The workspace's crates that a manifest names as dependencies; what only tests use is free.
fn own_dependencies(manifest: &str) -> BTreeSet<String> {
    let shipped = manifest.split("[dev-dependencies]").next().unwrap_or_default();
    let lines = shipped.lines().filter(|line| line.starts_with("cardinal-"));
    let name =
        |line: &str| line["cardinal-".len()..].split(['.', ' ', '=']).next().unwrap_or_default().to_owned();
    lines.map(name).collect()
}
