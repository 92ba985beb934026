//! The commands on good input, through the built binary.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../models/tests/common/mod.rs"]
mod common;
mod support;

use cardinal_data::{read_npy, write_npy};
use cardinal_models::burn::tensor::Device;
use cardinal_models::weights::state_dict;
use cardinal_models::{Backbone, ModelOptions};
use cardinal_weights::{names, names::Naming, read, write_safetensors};
use common::{json, numbers, relative_error, rule_input, rule_model};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use support::{asset, cardinal, cardinal_with_input};
use tempfile::tempdir;

/// Writes the rule's weights of `model` and gives the path.
fn weights_file(folder: &Path, model: &str, options: &ModelOptions) -> String {
    let path = folder.join(format!("{model}.safetensors"));
    let state = state_dict(&rule_model(model, options, &Device::flex())).unwrap();
    write_safetensors(&path, &state, &BTreeMap::new()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The whole way of a picture, from the file to the classes, against timm with the same weights.
#[test]
fn photographs_are_classified_as_by_timm() {
    let golden = json("predict.json");
    let folder = tempdir().unwrap();
    for (model, golden) in golden["models"].as_object().unwrap() {
        let weights = weights_file(folder.path(), model, &ModelOptions::default());
        let images: Vec<String> = golden["images"].as_object().unwrap().keys().cloned().collect();
        let paths = images.iter().map(|image| asset(image).to_str().unwrap().to_owned());
        let config = &golden["config"];
        let crop_pct = config["crop_pct"].to_string();
        let interpolation = config["interpolation"].as_str().unwrap();
        let mut args = vec!["predict", "-m", model, "-c", &weights, "--json"]
            .into_iter()
            .map(String::from)
            .collect::<Vec<_>>();
        // The golden values are of the default weights' settings, which are also ours: passing them checks the flags.
        args.extend(["--crop-pct", &crop_pct, "--interpolation", interpolation].map(String::from));
        args.extend(paths);
        let outcomes = parse(&cardinal(&args).ok());
        for (outcome, image) in outcomes.as_array().unwrap().iter().zip(&images) {
            check_image(outcome, &golden["images"][image], &format!("{model} {image}"));
        }
    }
}

fn check_image(outcome: &Value, golden: &Value, what: &str) {
    let ours = outcome["predictions"].as_array().unwrap();
    let timm = golden["top5"].as_array().unwrap();
    assert_eq!(ours.len(), 5, "{what}");
    // JPEG decoders differ by a grey level here and there, which moves these random weights' logits by a little:
    // the order is only sure where timm's own logits lie further apart than that.
    let noise = golden["noise_change"].as_f64().unwrap();
    let sure = golden["smallest_gap"].as_f64().unwrap() > 2.0 * noise;
    for (ours, timm) in ours.iter().zip(timm) {
        if sure {
            assert_eq!(ours["class"], timm["index"], "{what}");
        }
        let (p, q) = (ours["probability"].as_f64().unwrap(), timm["probability"].as_f64().unwrap());
        assert!((p - q).abs() <= (4.0 * noise).max(0.02) * q, "{what}: probability {p}, timm {q}");
    }
}

#[test]
fn results_come_as_text_json_and_csv_from_files_folders_patterns_and_standard_input() {
    let photo = asset("rocket.jpg");
    let photo = photo.to_str().unwrap();
    let base = ["predict", "--model", "mixnet_s", "--untrained", "--img-size", "64"];
    let run = |more: &[&str]| cardinal(&[&base, more].concat()).ok();
    let text = run(&[photo]);
    assert_eq!(text.lines().count(), 6);
    assert!(text.starts_with(photo) && text.contains(" %  "), "{text}");
    let list = parse(&run(&["--json", "--topk", "2", "assets"]));
    let files: Vec<&str> = list.as_array().unwrap().iter().map(|o| o["file"].as_str().unwrap()).collect();
    assert_eq!(files, ["assets/chelsea.jpg", "assets/coffee.jpg", "assets/letters.png", "assets/rocket.jpg"]);
    assert_eq!(list[0]["predictions"].as_array().unwrap().len(), 2);
    let csv = run(&["--csv", "-k", "1", "assets/c*.jpg"]);
    assert_eq!(csv.lines().next(), Some("file,rank,class,name,probability"));
    assert_eq!(csv.lines().count(), 3);
    let bytes = std::fs::read(photo).unwrap();
    let piped = cardinal_with_input(&[&base[..], &["--json", "-"]].concat(), &bytes).ok();
    let from_file = run(&["--json", photo]);
    assert_eq!(parse(&piped)[0]["predictions"], parse(&from_file)[0]["predictions"]);
    // The number of images that go together changes nothing.
    let one_by_one = run(&["--json", "--topk", "2", "--batch-size", "1", "assets"]);
    for (a, b) in list.as_array().unwrap().iter().zip(parse(&one_by_one).as_array().unwrap()) {
        assert_eq!(a["predictions"][0]["class"], b["predictions"][0]["class"]);
    }
}

#[test]
fn class_names_come_from_a_file() {
    let folder = tempdir().unwrap();
    let options = ModelOptions::new().with_num_classes(3);
    let weights = weights_file(folder.path(), "resnet18", &options);
    let names = folder.path().join("names.txt");
    std::fs::write(&names, "red\ngreen\nblue\n").unwrap();
    let photo = asset("rocket.jpg");
    let args = ["predict", "-c", &weights, "-k", "3", photo.to_str().unwrap()];
    assert!(cardinal(&args).ok().contains("class 2"));
    let named = [&args[..], &["--class-file", names.to_str().unwrap()]].concat();
    let text = cardinal(&named).ok();
    assert!(["red", "green", "blue"].iter().all(|name| text.contains(name)), "{text}");
    std::fs::write(&names, "red\ngreen\n").unwrap();
    cardinal(&named).fails(2, &["2 class names are given, but the network has 3 classes"]);
}

#[test]
fn tensors_go_through_the_network_as_they_are() {
    let folder = tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let options = ModelOptions::new().with_num_classes(10).with_in_chans(4);
    let weights = weights_file(folder.path(), "tresnet_m", &options);
    let shape = [3, 4, 64, 96];
    let input = rule_input(shape, &Device::flex());
    write_npy(file("in.npy"), &shape, &numbers(input.clone())).unwrap();
    let args = ["--tensor", &file("in.npy"), "--output", &file("out.npy"), "--batch-size", "2"];
    cardinal(&[&["predict", "--model", "tresnet_m", "--checkpoint", &weights][..], &args].concat()).ok();
    let output = read_npy(file("out.npy")).unwrap();
    let expected = numbers(rule_model("tresnet_m", &options, &Device::flex()).forward(input));
    assert_eq!(output.shape, [3, 10]);
    assert!(relative_error(&output.data, &expected) < 1e-6);
}

#[test]
fn conversion_keeps_every_value_and_names_what_it_writes() {
    let folder = tempdir().unwrap();
    let weights = weights_file(folder.path(), "tresnet_m", &ModelOptions::default());
    let official = folder.path().join("official.safetensors");
    let back = folder.path().join("back.safetensors");
    let paths = [official.to_str().unwrap(), back.to_str().unwrap()];
    cardinal(&["convert", &weights, paths[0], "--names", "official-tresnet"]).ok();
    let written = read(&official).unwrap();
    assert_eq!(names::detect(written.tensors.names()), Naming::OfficialTResNet);
    let line = cardinal(&["convert", paths[0], paths[1]]).ok();
    assert!(line.contains("tresnet_m") && line.contains("434 tensors"), "{line}");
    let (before, after) = (read(weights.as_ref()).unwrap().tensors, read(&back).unwrap().tensors);
    assert_eq!(before.len(), after.len());
    for (name, tensor) in before.iter() {
        let after = after.get(name).unwrap().to_f32();
        // Gammas went through |gamma| - 1e-5 + 1e-5.
        assert!(tensor.to_f32().iter().zip(after).all(|(a, b)| (a - b).abs() <= 1e-6), "{name}");
    }
    let unwritable = folder.path().join("no/folder/x.safetensors");
    cardinal(&["convert", &weights, unwritable.to_str().unwrap()]).fails(4, &["no/folder/x.safetensors"]);
    let info = parse(&cardinal(&["info", paths[0], "--json"]).ok());
    assert_eq!(info["model"], "tresnet_m");
    assert_eq!(info["file"]["names"], "official TResNet");
    assert_eq!(info["param_count"], 31_389_032);
}

#[test]
fn networks_are_listed_and_described() {
    let list = parse(&cardinal(&["models", "--json"]).ok());
    let list = list.as_array().unwrap();
    assert!(list.len() > 75);
    let resnest = list.iter().find(|row| row["model"] == "resnest50d").unwrap();
    assert_eq!(resnest["param_count"], 27_483_240);
    assert_eq!(resnest["pretrained"][0], "timm/resnest50d.in1k");
    let table = cardinal(&["models", "tresnet_?", "sknet"]).ok();
    assert!(
        table.contains("tresnet_m ") && !table.contains("tresnet_xl") && table.contains("5.735"),
        "{table}"
    );
    let published = cardinal(&["models", "--pretrained", "tresnet*"]).ok();
    assert!(!published.contains("ablation"), "{published}");
    let info = cardinal(&["info", "resnest14d", "--img-size", "97"]).ok();
    for text in ["layer2.0.conv2.conv", "conv 3x3 g2", "split_attention", "1x2048x4x4", "10.61 M parameters"]
    {
        assert!(info.contains(text), "'{text}' is not in {info}");
    }
    let info = parse(&cardinal(&["info", "tresnet_m", "--num-classes", "5", "--json"]).ok());
    assert_eq!(info["layers"].as_array().unwrap().last().unwrap()["output"], serde_json::json!([1, 5]));
    cardinal(&["info", "tresnet_m", "--img-size", "30"]).fails(3, &["multiples of 4"]);
}

#[test]
fn help_has_examples_and_the_exit_codes() {
    let help = cardinal(&["--help"]).ok();
    assert!(help.contains("Examples:") && help.contains("Exit codes:"));
    for command in ["models", "info", "predict", "convert"] {
        assert!(cardinal(&[command, "--help"]).ok().contains("Examples:"), "{command}");
    }
}

#[test]
fn shells_and_readers_of_manuals_get_every_command() {
    let commands = ["train", "predict", "bench", "completions"];
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = cardinal(&["completions", shell]).ok();
        assert!(commands.iter().all(|name| script.contains(name)), "{shell}");
    }
    cardinal(&["completions", "csh"]).fails(2, &["bash"]);
    let page = cardinal(&["man", "data", "check"]).ok();
    assert!(page.contains(".TH cardinal-data-check 1") && page.contains("workers"), "{page}");
    cardinal(&["man", "trian"]).fails(2, &["trian", "train"]);
    let folder = tempdir().unwrap();
    let said = cardinal(&["man", "--output", folder.path().to_str().unwrap()]).ok();
    let written = std::fs::read_dir(folder.path()).unwrap().count();
    assert!(said.starts_with(&format!("{written} pages")), "{said}");
    for name in ["cardinal.1", "cardinal-train.1", "cardinal-data-check.1"] {
        assert!(folder.path().join(name).exists(), "{name}");
    }
}
