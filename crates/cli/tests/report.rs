//! `cardinal report` through the built binary.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use support::{Run, cardinal, root};
use tempfile::tempdir;

fn row(model: &str, batch: usize, size: usize, rate: f64) -> Value {
    json!({ "model": model, "infer_samples_per_sec": rate, "infer_batch_size": batch, "infer_img_size": size,
            "infer_gmacs": 4.0, "param_count": 25.0, "dtype": "f32", "threads": 2, "device": "A processor" })
}

fn write(folder: &Path, name: &str, value: &Value) -> String {
    let path = folder.join(name);
    std::fs::write(&path, value.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Runs the command on `files`, with the output in a folder of its own.
fn report(folder: &Path, files: &[&str], more: &[&str]) -> (Run, PathBuf) {
    let output = folder.join("out");
    let mut args = vec!["report", "--output", output.to_str().unwrap()];
    args.extend(files);
    args.extend(more);
    (cardinal(&args), output)
}

fn results(folder: &Path) -> String {
    let rows = json!([
        row("resnet50", 1, 224, 20.0),
        row("resnet50", 16, 224, 25.0),
        row("tresnet_m", 1, 224, 18.0),
        row("tresnet_m", 16, 224, 24.0),
        row("resnest101e", 1, 256, 7.0),
        row("resnest50d", 1, 320, 9.0),
    ]);
    write(folder, "2026-01-02-processor.json", &rows)
}

/// Whether every element of an XML text is closed in its order, and attributes are quoted.
fn check_xml(text: &str) {
    let mut open = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        assert!(!rest[..start].contains('>'), "a stray > before {}", &rest[start..start + 20]);
        let end = start + rest[start..].find('>').expect("every tag ends");
        let tag = &rest[start + 1..end];
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        assert!(!tag.contains('<'), "{tag}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(tag.split(' ').next().unwrap());
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty(), "{open:?} are never closed");
    let entity = |part: &str| ["amp;", "lt;", "gt;", "quot;"].iter().any(|name| part.starts_with(name));
    assert!(text.split('&').skip(1).all(entity), "a stray &");
}

#[test]
fn figures_and_tables_are_drawn_and_every_point_names_its_command() {
    let folder = tempdir().unwrap();
    let (run, output) = report(folder.path(), &[&results(folder.path())], &[]);
    let text = run.ok();
    for name in ["accuracy-latency.svg", "accuracy-throughput.svg", "index.html", "report.json"] {
        assert!(text.contains(name) && output.join(name).is_file(), "{name}");
    }
    assert!(!output.join("accuracy-training.svg").exists(), "nothing was trained");
    let svg = std::fs::read_to_string(output.join("accuracy-throughput.svg")).unwrap();
    check_xml(&svg);
    assert!(
        svg.contains("cardinal bench --model tresnet_m --batch 16 --size 224"),
        "the faster batch's command"
    );
    assert!(svg.contains("80.8 % top-1 (published: TResNet table 3)"));
    assert!(svg.contains("prefers-color-scheme:dark"));
    let page = std::fs::read_to_string(output.join("index.html")).unwrap();
    for outside in ["http:", "https:", "src=", "<script", "@import", "url("] {
        let page = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(
        page.contains("TResNet table 3") && page.contains("25.0 (batch 16)") && page.contains("2026-01-02")
    );
    // ResNeSt-50 was measured at another size than its accuracy's, and TResNet-L not at all.
    assert!(page.contains("Not measured, so not shown: ") && page.contains("ResNeSt-50 (224 px)"));
}

#[test]
fn the_json_has_every_number_and_its_origin() {
    let folder = tempdir().unwrap();
    let (run, _) = report(folder.path(), &[&results(folder.path())], &["--json"]);
    let found: Value = serde_json::from_str(&run.ok()).unwrap();
    let points = found["figures"][0]["points"].as_array().unwrap();
    assert_eq!(points.len(), 3, "ResNet-50, TResNet-M and ResNeSt-101");
    for point in points {
        assert!(point["command"].as_str().unwrap().starts_with("cardinal bench"));
        assert_eq!((&point["machine"], &point["date"]), (&json!("A processor"), &json!("2026-01-02")));
        assert_eq!(point["top1_is_own"], false);
    }
    let latency = points.iter().find(|point| point["model"] == "resnet50").unwrap();
    assert_eq!(latency["x"], 50.0);
    let titles: Vec<_> = found["tables"].as_array().unwrap().iter().map(|table| &table["table"]).collect();
    assert!(titles.iter().any(|title| title.as_str().unwrap().starts_with("ResNeSt table 4")), "{titles:?}");
}

#[test]
fn an_own_accuracy_replaces_the_published_one() {
    let folder = tempdir().unwrap();
    let own = json!({ "model": "tresnet_m", "top1": 79.9, "img_size": 224, "images": 50000 });
    let own = write(folder.path(), "eval.json", &own);
    let (run, output) = report(folder.path(), &[&results(folder.path()), &own], &[]);
    run.ok();
    let svg = std::fs::read_to_string(output.join("accuracy-latency.svg")).unwrap();
    assert!(svg.contains("79.9 % top-1 (own, on 50000 images (eval.json))"));
}

#[test]
fn the_repositorys_own_results_are_read() {
    let folder = tempdir().unwrap();
    let results = root().join("bench/results");
    // Of data, of the server and of accuracy beside PyTorch: there are no networks' speeds in these.
    let others = ["-data", "-serve", "-train-parity"];
    let mut files: Vec<String> = std::fs::read_dir(results)
        .unwrap()
        .map(|entry| entry.unwrap().path().to_str().unwrap().to_owned())
        .filter(|name| name.ends_with(".json") && !others.iter().any(|other| name.contains(other)))
        .collect();
    files.sort();
    let names: Vec<&str> = files.iter().map(String::as_str).collect();
    let (run, output) = report(folder.path(), &names, &["--machine", "EPYC"]);
    run.ok();
    for name in ["accuracy-latency.svg", "accuracy-throughput.svg"] {
        check_xml(&std::fs::read_to_string(output.join(name)).unwrap());
    }
    let page = std::fs::read_to_string(output.join("index.html")).unwrap();
    assert!(page.contains("Inference beside other programs") && page.contains("onnxruntime"));
}

#[test]
fn missing_networks_are_measured() {
    let folder = tempdir().unwrap();
    let more = [
        "--run",
        "fbnetv2_f1",
        "--run",
        "sa_fbnetv2_f1",
        "--batch",
        "1",
        "--seconds",
        "0.05",
        "--threads",
        "2",
    ];
    let (run, output) = report(folder.path(), &[], &more);
    run.ok();
    let measured: Value =
        serde_json::from_slice(&std::fs::read(output.join("measured.json")).unwrap()).unwrap();
    let command = measured["runs"][0]["command"].as_str().unwrap();
    assert_eq!(
        command,
        "cardinal bench --model fbnetv2_f1 --batch 1 --seconds 0.05 --dtype f32 --threads 2 --json"
    );
    assert!(std::fs::read_to_string(output.join("accuracy-latency.svg")).unwrap().contains("FBNetV2-F1"));
    // What is there is not measured again.
    let before = std::fs::read(output.join("measured.json")).unwrap();
    let file = folder.path().join("kept.json");
    std::fs::copy(output.join("measured.json"), &file).unwrap();
    std::fs::remove_file(output.join("measured.json")).unwrap();
    let (run, output) = report(folder.path(), &[file.to_str().unwrap()], &more);
    run.ok();
    assert!(!output.join("measured.json").exists() && std::fs::read(&file).unwrap() == before);
}

#[test]
fn bad_results_are_named() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    let refused = |name: &str, content: &str, texts: &[&str]| {
        let file = path.join(name);
        std::fs::write(&file, content).unwrap();
        let run = report(path, &[file.to_str().unwrap()], &[]).0;
        run.fails(3, &[&[name][..], texts].concat());
    };
    let whole = std::fs::read_to_string(results(path)).unwrap();
    refused("cut.json", &whole[..whole.len() / 2], &["not JSON"]);
    refused("empty.json", "", &["not JSON"]);
    refused("other.json", r#"{"a": 1}"#, &["it holds no results of 'cardinal bench --json'"]);
    refused(
        "size.json",
        r#"[{"model": "resnet50", "infer_batch_size": 1}]"#,
        &["resnet50 has no image size"],
    );
    report(path, &["no-such.json"], &[]).0.fails(3, &["no-such.json"]);
    cardinal(&["report"]).fails(2, &["RESULTS"]);
}

#[test]
fn wrong_choices_are_refused() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    let results = results(path);
    let mut other = row("resnet50", 1, 224, 5.0);
    other["device"] = "Another".into();
    let other = write(path, "other.json", &json!([other]));
    let refused = |files: &[&str], more: &[&str], texts: &[&str]| report(path, files, more).0.fails(2, texts);
    refused(
        &[&results, &other],
        &[],
        &["several machines (A processor, Another); choose one with --machine"],
    );
    refused(&[&results], &["--machine", "ZX"], &["--machine 'ZX': the results are of A processor"]);
    refused(&[&results], &["--dtype", "bf16"], &["nothing to show", "bf16 on A processor"]);
    refused(&[], &["--run", "resnest51d"], &["unknown model 'resnest51d'", "resnest50d"]);
    refused(&[], &["--run", "zzz*"], &["no model matches 'zzz*'"]);
    refused(&[&results], &["--seconds", "0", "--run", "resnet50"], &["--seconds must be above 0"]);
}
