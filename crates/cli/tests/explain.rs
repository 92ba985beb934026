//! `cardinal explain` through the built binary.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../models/tests/common/mod.rs"]
mod common;
mod support;

use cardinal_models::ModelOptions;
use cardinal_models::burn::tensor::Device;
use cardinal_models::weights::state_dict;
use cardinal_weights::write_safetensors;
use common::rule_model;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use support::{Run, asset, cardinal};
use tempfile::tempdir;

/// The rule's weights of `model` with some classes, in a file.
fn weights(folder: &Path, model: &str) -> String {
    let path = folder.join(format!("{model}.safetensors"));
    let options = ModelOptions::new().with_num_classes(6);
    let state = state_dict(&rule_model(model, &options, &Device::flex())).unwrap();
    let names = r#"["ant","bee","crane, bird","crane, machine","elk","fox"]"#;
    let metadata = BTreeMap::from([("label_names".to_owned(), names.to_owned())]);
    write_safetensors(&path, &state, &metadata).unwrap();
    path.to_str().unwrap().to_owned()
}

fn explain(weights: &str, args: &[&str]) -> Run {
    let mut all = vec!["explain", "-c", weights, "--img-size", "96"];
    all.extend(args);
    cardinal(&all)
}

fn json(run: Run) -> Vec<Value> {
    serde_json::from_str::<Value>(&run.ok()).unwrap().as_array().unwrap().clone()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

fn photo(name: &str) -> String {
    asset(name).to_str().unwrap().to_owned()
}

#[test]
fn a_map_adds_up_to_the_logit_and_gradcam_is_its_positive_part() {
    let folder = tempdir().unwrap();
    let (weights, photo) = (weights(folder.path(), "resnest14d"), photo("chelsea.jpg"));
    let found = json(explain(&weights, &[&photo, "--json"]));
    let [first] = &found[..] else { panic!("{found:?}") };
    // The likeliest class is explained.
    let class = first["class"].as_u64().unwrap();
    assert_eq!(first["predictions"][0]["class"], class);
    assert_eq!((&first["method"], &first["layer"]), (&Value::from("cam"), &Value::from("last")));
    let map = floats(&first["map"]["values"]);
    assert_eq!((first["map"]["rows"].as_u64(), first["map"]["columns"].as_u64()), (Some(3), Some(3)));
    let bias =
        state_dict(&rule_model("resnest14d", &ModelOptions::new().with_num_classes(6), &Device::flex()));
    let bias = bias.unwrap().get("fc.bias").unwrap().to_f32()[class as usize];
    let logit = first["logit"].as_f64().unwrap() as f32;
    assert!((map.iter().sum::<f32>() / 9.0 + bias - logit).abs() < 1e-4 * (1.0 + logit.abs()));
    // The other method, by Burn's gradients.
    let number = class.to_string();
    let args = [&photo, "--json", "--method", "gradcam", "--class", &number];
    let found = json(explain(&weights, &args)).remove(0);
    assert!((found["logit"].as_f64().unwrap() as f32 - logit).abs() < 1e-4 * (1.0 + logit.abs()));
    for (grad, cam) in floats(&found["map"]["values"]).iter().zip(&map) {
        assert!((grad - cam.max(0.0) / 9.0).abs() < 1e-3 * (1.0 + logit.abs()), "{grad} {cam}");
    }
    // 451 x 300: the middle square of 7/8 of the height.
    let crop = |key: &str| first["crop"][key].as_f64().unwrap();
    assert!((crop("height") - 262.5).abs() < 3.0 && (crop("x") + crop("width") / 2.0 - 225.5).abs() < 2.0);
}

#[test]
fn attention_is_told_for_every_block() {
    let folder = tempdir().unwrap();
    let weights = weights(folder.path(), "resnest14d");
    let found = json(explain(&weights, &[&photo("coffee.jpg"), "--json"])).remove(0);
    let units = found["attention"].as_array().unwrap();
    let modules: Vec<_> = units.iter().map(|unit| unit["module"].as_str().unwrap()).collect();
    assert_eq!(modules, ["layer1.0.conv2", "layer2.0.conv2", "layer3.0.conv2", "layer4.0.conv2"]);
    for unit in units {
        assert!((floats(&unit["mean"]).iter().sum::<f32>() - 1.0).abs() < 1e-4);
        for split in unit["histogram"].as_array().unwrap() {
            assert_eq!(floats(split).iter().sum::<f32>() as u64, unit["channels"].as_u64().unwrap());
        }
    }
}

#[test]
fn a_folder_gets_pictures_and_a_page_of_its_own() {
    let folder = tempdir().unwrap();
    let weights = weights(folder.path(), "resnest14d");
    let output = folder.path().join("out");
    let args =
        [&photo("chelsea.jpg"), &photo("coffee.jpg"), "--output", output.to_str().unwrap(), "--class", "BEE"];
    let text = explain(&weights, &args).ok();
    assert!(text.contains("written: ") && text.contains("bee"), "{text}");
    for name in ["chelsea.png", "coffee.png"] {
        let image = cardinal_data::Decoder::default().decode_file(output.join(name)).unwrap();
        assert!(image.width() > 1000 && image.height() > 300);
    }
    let page = std::fs::read_to_string(output.join("index.html")).unwrap();
    assert_eq!(page.matches("data:image/png;base64,").count(), 4);
    assert!(page.contains("for &#39;bee&#39;") || page.contains("for 'bee'"), "what is explained");
    assert!(page.contains("prefers-color-scheme:dark"));
    for outside in ["http:", "https:", "src=\"/", "<script", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert_eq!(std::fs::read_dir(&output).unwrap().count(), 3, "no temporary file is left");
}

#[test]
fn layers_are_chosen_by_name() {
    let folder = tempdir().unwrap();
    let weights = weights(folder.path(), "tresnet_m");
    let photo = photo("chelsea.jpg");
    let side = |layer: &str| {
        let args = [&photo, "--json", "--method", "gradcam", "--layer", layer];
        json(explain(&weights, &args))[0]["map"]["rows"].as_u64().unwrap()
    };
    assert_eq!([side("layer2"), side("body.layer3"), side("last")], [12, 6, 3]);
    let args = [&photo, "--method", "gradcam", "--layer", "layer9"];
    explain(&weights, &args).fails(2, &["--layer layer9", "body.layer1", "body.layer4 and last"]);
}

#[test]
fn compiled_files_are_explained_and_one_file_is_written() {
    let folder = tempdir().unwrap();
    let weights = weights(folder.path(), "resnest14d");
    let compiled = folder.path().join("compiled.safetensors");
    let compiled = compiled.to_str().unwrap();
    cardinal(&["compile", "-c", &weights, "--size", "96", "--output", compiled]).ok();
    let photo = photo("rocket.jpg");
    let expected = json(explain(&weights, &[&photo, "--json"])).remove(0);
    let png = folder.path().join("one.png");
    let args = ["explain", "--compiled", compiled, &photo, "--json", "--output", png.to_str().unwrap()];
    let found = json(cardinal(&args)).remove(0);
    assert_eq!(found["name"], expected["name"]);
    for (found, expected) in floats(&found["map"]["values"]).iter().zip(floats(&expected["map"]["values"])) {
        assert!((found - expected).abs() < 1e-3 * (1.0 + expected.abs()));
    }
    assert!(png.is_file());
    let args = ["explain", "--compiled", compiled, &photo, "--method", "gradcam"];
    cardinal(&args).fails(2, &["a compiled file has no gradients", "--method cam"]);
}

#[test]
fn a_head_that_is_not_linear_needs_gradcam() {
    let folder = tempdir().unwrap();
    let weights = weights(folder.path(), "fbnetv2_f1");
    let photo = photo("chelsea.jpg");
    explain(&weights, &[&photo, "--json"])
        .fails(2, &["between the pooling and the last linear", "--method gradcam"]);
    let found = json(explain(&weights, &[&photo, "--json", "--method", "gradcam"]));
    assert_eq!(found[0]["map"]["rows"], 3);
}

#[test]
fn bad_input_is_named() {
    let folder = tempdir().unwrap();
    let weights = weights(folder.path(), "resnest14d");
    let (photo, other) = (photo("chelsea.jpg"), photo("coffee.jpg"));
    explain(&weights, &[&photo, "--class", "foxx"])
        .fails(2, &["no class is called that; did you mean 'fox'?"]);
    explain(&weights, &[&photo, "--class", "6"]).fails(2, &["--class 6: the network's classes are 0 to 5"]);
    explain(&weights, &[&photo, "--class", "crane"]).fails(2, &["2 (crane, bird) and 3 (crane, machine)"]);
    explain(&weights, &[&photo, "--layer", "layer3"]).fails(2, &["--layer is for --method gradcam"]);
    explain(&weights, &[&photo, &other, "--output", "x.png"])
        .fails(2, &["x.png can hold one picture, not 2"]);
    explain(&weights, &[&photo, "--output", "x.jpg"]).fails(2, &["not .jpg"]);
    explain(&weights, &[&photo, "--path", "eager"]).fails(2, &["leave --path out"]);
    explain(&weights, &["missing.jpg"]).fails(3, &["missing.jpg"]);
    let missing = folder.path().join("no/such/x.html");
    explain(&weights, &[&photo, "--output", missing.to_str().unwrap()]).fails(1, &["x.html"]);
}

#[test]
fn a_bad_picture_does_not_stop_the_others() {
    let folder = tempdir().unwrap();
    let weights = weights(folder.path(), "resnest14d");
    let bad = folder.path().join("bad.jpg");
    std::fs::write(&bad, b"no picture").unwrap();
    let run = explain(&weights, &[bad.to_str().unwrap(), &photo("chelsea.jpg"), "--json"]);
    run.fails(3, &["bad.jpg", "1 of 2 images"]);
    let list: Value = serde_json::from_str(&run.stdout).unwrap();
    assert!(list[0]["file"].as_str().unwrap().ends_with("chelsea.jpg"));
    assert!(list[1]["error"].is_string());
}
