//! `cardinal export` with the built binary.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use std::path::Path;
use support::{asset, cardinal};
use tempfile::tempdir;

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

const SMALL: [&str; 6] = ["-m", "resnest14_digits", "--untrained", "--img-size", "64", "--output"];

/// Exports and checks; the report.
fn checked(flags: &[&str], file: &Path) -> Value {
    let args = [&["export", "--check", "--json"][..], flags, &SMALL, &[text(file)]].concat();
    serde_json::from_str(&cardinal(&args).ok()).unwrap()
}

#[test]
fn onnx_files_compute_what_the_network_does() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("net.onnx");
    for flags in [
        &[][..],
        &["--batch", "3"],
        &["--optimize"],
        &["--dynamic-size", "--opset", "21"],
        &["--external-data"],
    ] {
        let report = checked(flags, &file);
        let error = report["check"]["relative_error"].as_f64().unwrap();
        assert!(error < 1e-5, "{flags:?}: {error}");
        let images = if flags.contains(&"--batch") { 3 } else { 2 };
        assert_eq!(report["check"]["input"], serde_json::json!([images, 3, 64, 64]));
        let norms = report["check"]["operators"]["BatchNormalization"].as_u64();
        assert_eq!(norms.is_none(), flags.contains(&"--optimize"), "{flags:?}");
    }
    assert_eq!(names(folder.path()), ["net.onnx", "net.onnx.data"]);
    // Classes, preparation and where random weights do not come from.
    let bytes = std::fs::read(&file).unwrap();
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has("tench, Tinca tinca") && has("[0.485, 0.456, 0.406]") && has("single_label_classification"));
    assert!(has("layer1.0.conv1.weight") && !has("timm/resnest14d"));
}

#[test]
fn the_other_formats_are_those_of_the_other_commands() {
    let folder = tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (weights, again, ours, theirs) =
        (path("w.safetensors"), path("again.safetensors"), path("a"), path("b"));
    let said = cardinal(&["export", "-m", "resnet18", "--untrained", "-o", &weights]).ok();
    assert!(said.contains("resnet18, 122 tensors"), "{said}");
    cardinal(&["export", "--checkpoint", &weights, "-m", "resnet18", "-o", &again]).ok();
    assert_eq!(std::fs::read(&weights).unwrap(), std::fs::read(&again).unwrap());
    let sizes = ["--size", "64", "--size", "96", "-o"];
    let source = ["-m", "resnet18", "--checkpoint", &weights];
    cardinal(&[&["export", "--format", "engine"][..], &source, &sizes, &[&ours]].concat()).ok();
    cardinal(&[&["compile"][..], &source, &sizes, &[&theirs]].concat()).ok();
    assert_eq!(std::fs::read(&ours).unwrap(), std::fs::read(&theirs).unwrap());
    cardinal(&["predict", "--compiled", &ours, "--img-size", "96", text(&asset("chelsea.jpg"))]).ok();
    // A compiled file's graph can be exported, its weights and other sizes cannot.
    let onnx = path("net.onnx");
    cardinal(&["export", "--compiled", &ours, "--size", "96", "-o", &onnx, "--check"]).ok();
    cardinal(&["export", "--compiled", &ours, "-o", &path("c.safetensors")]).fails(2, &["folded"]);
    cardinal(&["export", "--compiled", &ours, "-o", &onnx, "--dynamic-size"]).fails(2, &["compiled file"]);
}

#[test]
fn wrong_wishes_are_refused_before_anything_is_written() {
    let folder = tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (onnx, weights) = (path("net.onnx"), path("net.safetensors"));
    let export = |flags: &[&str]| cardinal(&[&["export", "-m", "resnet18", "--untrained"], flags].concat());
    export(&["-o", &path("net.bin")]).fails(2, &["net.bin", "--format"]);
    export(&["-o", &weights, "--batch", "2"]).fails(2, &["--batch is for --format onnx"]);
    export(&["-o", &weights, "--img-size", "64"]).fails(2, &["--img-size"]);
    export(&["-o", &onnx, "--img-size", "64", "--img-size", "96"]).fails(2, &["--dynamic-size"]);
    export(&["-o", &onnx, "--opset", "16"]).fails(2, &["opset 16", "17 to 21"]);
    export(&["-o", &onnx, "--batch", "0"]).fails(2, &["dynamic"]);
    export(&["-o", &onnx, "--img-size", "9000"]).fails(2, &["9000"]);
    cardinal(&["export", "-m", "tresnet_m", "--untrained", "-o", &onnx, "--img-size", "65"])
        .fails(3, &["65"]);
    let classes = folder.path().join("classes.txt");
    std::fs::write(&classes, "cat\ndog\n").unwrap();
    export(&["-o", &onnx, "--class-file", text(&classes)]).fails(2, &["2 class names", "1000"]);
    export(&["-o", &path("no/folder/net.onnx")]).fails(1, &["no/folder/net.onnx"]);
    assert_eq!(names(folder.path()), ["classes.txt"]);
}
