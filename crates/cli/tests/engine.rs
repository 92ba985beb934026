//! `compile`, `bench`, `profile`, and predictions through the engine, with the built binary.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use support::{asset, cardinal, cardinal_with_env};
use tempfile::tempdir;

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn predict(args: &[&str]) -> Vec<f64> {
    let image = asset("chelsea.jpg");
    let mut all = vec!["predict", "--json", "--img-size", "64", "--topk", "20"];
    all.extend(args);
    all.push(image.to_str().unwrap());
    let outcomes = parse(&cardinal(&all).ok());
    let predictions = outcomes[0]["predictions"].as_array().unwrap();
    let mut rows: Vec<_> = predictions
        .iter()
        .map(|p| (p["class"].as_u64().unwrap(), p["probability"].as_f64().unwrap()))
        .collect();
    rows.sort_by_key(|&(class, _)| class);
    rows.into_iter().map(|(_, probability)| probability).collect()
}

#[test]
fn every_path_predicts_the_same() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("net.safetensors");
    let file = file.to_str().unwrap();
    cardinal(&["compile", "-m", "resnet18", "--untrained", "--size", "64", "--size", "96", "-o", file]).ok();
    let model = ["-m", "resnet18", "--untrained"];
    let eager = predict(&[&model[..], &["--path", "eager"]].concat());
    for flags in [&[][..], &["--threads", "1"], &["--kernels", "portable"], &["--dtype", "bf16"]] {
        for source in [&model[..], &["--compiled", file]] {
            let found = predict(&[source, flags].concat());
            // The logits of random weights are small: bf16 moves them by a few percent.
            let tolerance = if flags.contains(&"bf16") { 0.1 } else { 1e-4 };
            for (a, b) in found.iter().zip(&eager) {
                assert!((a - b).abs() <= tolerance * b, "{flags:?} {source:?}: {a} and {b}");
            }
        }
    }
    cardinal(&["predict", "--compiled", file, asset("chelsea.jpg").to_str().unwrap(), "--img-size", "80"])
        .fails(2, &["compiled for images of 3x64x64, 3x96x96", "80"]);
}

#[test]
fn compile_says_what_it_did_and_draws_it() {
    let folder = tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (svg, text) = (path("graph.svg"), path("graph.txt"));
    let args = ["compile", "-m", "resnest14d", "--untrained", "--svg", &svg, "--text", &text];
    let said = cardinal(&args).ok();
    assert!(said.contains("10.61 M parameters, 2.749 GMACs"), "{said}");
    assert!(said.contains("fold_norms") && said.contains("MiB of maps"), "{said}");
    assert!(std::fs::read_to_string(svg).unwrap().contains("layer1.0.conv1"));
    assert!(std::fs::read_to_string(text).unwrap().starts_with("graph resnest14d"));
    let list = parse(&cardinal(&["compile", "-m", "resnest14d", "--untrained", "--json"]).ok());
    assert!(list[0]["operators"].as_u64().unwrap() < list[0]["operators_captured"].as_u64().unwrap());
}

#[test]
fn a_damaged_compiled_file_is_refused() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("net.safetensors");
    let name = file.to_str().unwrap();
    cardinal(&["compile", "-m", "resnet18", "--untrained", "--size", "64", "-o", name]).ok();
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let image = asset("chelsea.jpg");
    cardinal(&["predict", "--compiled", name, image.to_str().unwrap()]).fails(1, &["net.safetensors"]);
    let weights = asset("SOURCES.md");
    let args = ["predict", "--compiled", weights.to_str().unwrap(), image.to_str().unwrap()];
    cardinal(&args).fails(1, &["SOURCES.md"]);
}

#[test]
fn bench_prints_the_keys_of_timm() {
    let args = ["bench", "-m", "resnet18", "--size", "64", "--batch", "2", "--seconds", "0.05", "--json"];
    let list = parse(&cardinal(&args).ok());
    let row = &list[0];
    assert_eq!(row["model"], "resnet18");
    assert_eq!(row["infer_batch_size"], 2);
    assert_eq!(row["infer_img_size"], 64);
    assert!((row["param_count"].as_f64().unwrap() - 11.69).abs() < 0.01);
    let (median, best) = (&row["infer_samples_per_sec"], &row["infer_samples_per_sec_best"]);
    assert!(median.as_f64().unwrap() > 0.0 && best.as_f64().unwrap() >= median.as_f64().unwrap());
    let step = row["infer_step_time"].as_f64().unwrap();
    assert!((2000.0 / step - median.as_f64().unwrap()).abs() < 1e-6 * median.as_f64().unwrap());
    assert!(row["peak_memory_bytes"].as_u64().unwrap() > row["planned_memory_bytes"].as_u64().unwrap());
    let eager = ["bench", "-m", "resnet18", "--size", "32", "--seconds", "0.05", "--json", "--path", "eager"];
    assert_eq!(parse(&cardinal(&eager).ok())[0]["kernels"], "burn-flex");
    cardinal(&["bench", "-m", "resnat*", "--seconds", "0.05"]).fails(2, &["no model matches 'resnat*'"]);
    cardinal(&["bench", "-m", "resnet81"]).fails(2, &["resnet81"]);
}

#[test]
fn bench_counts_decoding_where_there_is_a_picture() {
    let args =
        ["bench", "-m", "resnet18", "--size", "64", "-b", "3", "--seconds", "0.05", "--json", "--picture"];
    let picture = asset("chelsea.jpg");
    let list = parse(&cardinal(&[&args[..], &[picture.to_str().unwrap()]].concat()).ok());
    assert!(list[0]["infer_samples_per_sec"].as_f64().unwrap() > 0.0);
    assert_eq!(list[0]["picture"], picture.to_str().unwrap());
    cardinal(&[&args[..], &["missing.jpg"]].concat()).fails(1, &["missing.jpg"]);
    cardinal(&[&args[..], &[asset("SOURCES.md").to_str().unwrap()]].concat()).fails(3, &["SOURCES.md"]);
}

#[test]
fn profile_times_every_step() {
    let args = ["profile", "-m", "resnet18", "--size", "64", "--runs", "2", "--json"];
    let profile = parse(&cardinal(&args).ok());
    let steps = profile["steps"].as_array().unwrap();
    let convolutions = steps.iter().filter(|step| step["operator"] == "conv2d").count();
    assert_eq!(convolutions, 20);
    let sum: f64 = steps.iter().map(|step| step["ms"].as_f64().unwrap()).sum();
    assert!((sum - profile["infer_step_time"].as_f64().unwrap()).abs() < 1e-3 * sum);
    cardinal(&["profile", "-m", "resnet18", "--path", "eager"]).fails(2, &["--path compiled"]);
}

#[test]
fn tuning_keeps_its_choices() {
    let folder = tempdir().unwrap();
    let cache = [("XDG_CACHE_HOME", folder.path().to_str().unwrap())];
    let args = ["bench", "-m", "resnet18", "--size", "64", "--seconds", "0.05", "--tune"];
    cardinal_with_env(&args, &cache).ok();
    let choices = std::fs::read_to_string(folder.path().join("cardinal/kernels.tsv")).unwrap();
    assert!(
        choices.lines().all(|line| line.contains("\tdirect") || line.contains("\twinograd")),
        "{choices}"
    );
    cardinal_with_env(&args, &cache).ok();
    assert_eq!(std::fs::read_to_string(folder.path().join("cardinal/kernels.tsv")).unwrap(), choices);
}

#[test]
fn a_level_that_the_processor_lacks_is_named() {
    let missing = if cfg!(target_arch = "aarch64") { "avx2" } else { "neon" };
    let image = asset("chelsea.jpg");
    let args = ["predict", "-m", "resnet18", "--untrained", "--kernels", missing, image.to_str().unwrap()];
    cardinal(&args).fails(2, &[missing, "portable"]);
    let args = ["predict", "-m", "resnet18", "--untrained", "--kernels", "mmx", image.to_str().unwrap()];
    cardinal(&args).fails(2, &["the levels are portable, neon, avx2"]);
}

#[test]
fn bench_times_training() {
    let args =
        ["bench", "--train", "-m", "resnet18", "--size", "64", "--batch", "2", "--seconds", "0.05", "--json"];
    let list = parse(&cardinal(&args).ok());
    let row = &list[0];
    assert_eq!((row["train_batch_size"].as_u64(), row["train_img_size"].as_u64()), (Some(2), Some(64)));
    let (median, best) = (&row["train_samples_per_sec"], &row["train_samples_per_sec_best"]);
    assert!(median.as_f64().unwrap() > 0.0 && best.as_f64().unwrap() >= median.as_f64().unwrap());
    let step = row["train_step_time"].as_f64().unwrap();
    assert!((2000.0 / step - median.as_f64().unwrap()).abs() < 1e-6 * median.as_f64().unwrap());
    assert!(row["peak_memory_mib"].as_f64().unwrap() > row["planned_memory_mib"].as_f64().unwrap());
    cardinal(&["bench", "--train", "-m", "resnet18", "--path", "eager"]).fails(2, &["--path"]);
    cardinal(&["bench", "-m", "resnet18", "--max-batch"]).fails(2, &["--train"]);
}

#[test]
fn the_largest_batch_fits_and_the_next_does_not() {
    let limit = 400.0;
    let args = ["bench", "--train", "-m", "resnet18", "--size", "64", "--dry-run", "--json"];
    let planned = |more: &[&str]| {
        let row = parse(&cardinal(&[&args[..], more].concat()).ok())[0].clone();
        assert!(row["train_step_time"].is_null() && row["peak_memory_mib"].is_null());
        (row["train_batch_size"].as_u64().unwrap(), row["planned_memory_mib"].as_f64().unwrap())
    };
    let (batch, mib) = planned(&["--max-batch", "--memory-limit", "400MiB"]);
    assert!(batch > 1 && mib <= limit, "{batch}: {mib}");
    let (_, more) = planned(&["--batch", &(2 * batch).to_string()]);
    assert!(more > limit, "{more}");
    let (plain, _) = planned(&["--max-batch", "--memory-limit", "400MiB", "--recompute", "none"]);
    assert!(plain < batch);
    let small = [&args[..], &["--max-batch", "--memory-limit", "1MiB"]].concat();
    cardinal(&small).fails(2, &["not even one image"]);
    let wrong = [&args[..], &["--max-batch", "--memory-limit", "8GB"]].concat();
    cardinal(&wrong).fails(2, &["8GiB"]);
}

#[test]
fn profile_times_the_passes_of_training_and_draws_their_memory() {
    let folder = tempdir().unwrap();
    let svg = folder.path().join("memory.svg");
    let args = ["profile", "--train", "-m", "resnet18", "--size", "64", "--runs", "1", "--json", "--svg"];
    let profile = parse(&cardinal(&[&args[..], &[svg.to_str().unwrap()]].concat()).ok());
    let steps = profile["steps"].as_array().unwrap();
    assert!(["forward", "backward"].iter().all(|pass| steps.iter().any(|step| step["pass"] == *pass)));
    assert!(std::fs::read_to_string(svg).unwrap().contains(">backward<"));
    let groups =
        ["profile", "--train", "-m", "resnet18", "--size", "64", "--runs", "1", "--json", "--by-operator"];
    let groups = parse(&cardinal(&groups).ok());
    assert!(groups["steps"].as_array().unwrap().len() < steps.len());
}
