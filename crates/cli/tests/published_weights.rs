//! Published weights through the built binary, from a server on loopback that speaks the hub's routes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../models/tests/common/mod.rs"]
mod common;
#[allow(dead_code, reason = "the hub's own tests use the rest")]
#[path = "../src/hub/tests/server.rs"]
mod server;
mod support;

use cardinal_models::ModelOptions;
use cardinal_models::burn::tensor::Device;
use cardinal_models::weights::state_dict;
use cardinal_weights::write_safetensors;
use common::rule_model;
use serde_json::{Value, json};
use server::{Reply, Request, Server};
use std::collections::BTreeMap;
use support::{asset, cardinal, cardinal_with_env};
use tempfile::tempdir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The rule's weights of a small network as a file's bytes.
fn weights(model: &str, classes: usize) -> Vec<u8> {
    let folder = tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let model = rule_model(model, &ModelOptions::new().with_num_classes(classes), &Device::flex());
    write_safetensors(&path, &state_dict(&model).unwrap(), &BTreeMap::new()).unwrap();
    std::fs::read(path).unwrap()
}

/// A hub with the given files, each `(repository, name, bytes)`.
fn hub(files: Vec<(&'static str, &'static str, Vec<u8>)>) -> Server {
    Server::start(move |request: &Request| {
        let wanted = |(repo, name, _): &&(&str, &str, Vec<u8>)| {
            request
                .path
                .strip_prefix(&format!("/{repo}/resolve/"))
                .is_some_and(|rest| rest.ends_with(&format!("/{name}")))
        };
        match files.iter().find(wanted) {
            Some((_, name, bytes)) => Reply::ranged(request, bytes)
                .with("X-Repo-Commit", COMMIT)
                .with("ETag", format!("\"{name}-{}\"", bytes.len())),
            None => Reply::status(404).with("X-Error-Code", "EntryNotFound"),
        }
    })
}

#[test]
fn default_weights_are_fetched_once_and_then_found_offline() {
    let server = hub(vec![("timm/resnet18.a1_in1k", "model.safetensors", weights("resnet18", 1000))]);
    let cache = tempdir().unwrap();
    let photo = asset("rocket.jpg");
    let args = ["predict", "--model", "resnet18", "--json", photo.to_str().unwrap()];
    let home = cache.path().to_str().unwrap();
    let online = [("HF_ENDPOINT", server.url.as_str()), ("HF_HOME", home), ("HF_HUB_OFFLINE", "0")];
    let first = cardinal_with_env(&args, &online).ok();
    let asked = server.requests().len();
    assert!(asked > 0);
    let offline = [("HF_ENDPOINT", server.url.as_str()), ("HF_HOME", home), ("HF_HUB_OFFLINE", "1")];
    assert_eq!(cardinal_with_env(&args, &offline).ok(), first);
    assert_eq!(server.requests().len(), asked, "offline opened a connection");
    // The same weights as a file give the same classes, prepared as for the default tag.
    let file = cache.path().join("file.safetensors");
    std::fs::write(&file, weights("resnet18", 1000)).unwrap();
    let from_file = [&args[..], &["--checkpoint", file.to_str().unwrap()]].concat();
    assert_eq!(cardinal(&from_file).ok(), first);
}

#[test]
fn any_repository_in_timms_format_works() {
    let config = json!({
        "architecture": "resnet18",
        "num_classes": 3,
        "label_names": ["red", "green", "blue"],
        "pretrained_cfg": { "input_size": [3, 96, 96], "crop_pct": 1.0, "interpolation": "bicubic" },
    });
    let server = hub(vec![
        ("someone/colours", "config.json", serde_json::to_vec(&config).unwrap()),
        ("someone/colours", "model.safetensors", weights("resnet18", 3)),
        ("someone/odd", "config.json", b"{\"architecture\": \"vit_huge\"}".to_vec()),
    ]);
    let cache = tempdir().unwrap();
    let home = cache.path().to_str().unwrap();
    let online = [("HF_ENDPOINT", server.url.as_str()), ("HF_HOME", home), ("HF_HUB_OFFLINE", "0")];
    let photo = asset("rocket.jpg");
    let run = |model: &str| {
        cardinal_with_env(&["predict", "-m", model, "-k", "3", "--json", photo.to_str().unwrap()], &online)
    };
    let outcome: Value = serde_json::from_str(&run("hf-hub:someone/colours").ok()).unwrap();
    let names: Vec<&str> =
        outcome[0]["predictions"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert!(["red", "green", "blue"].iter().all(|name| names.contains(name)), "{names:?}");
    run("hf-hub:someone/odd").fails(2, &["someone/odd", "unknown model 'vit_huge'"]);
    run("hf-hub:someone/absent").fails(1, &["someone/absent"]);
    run("tresnet_m").fails(1, &["timm/tresnet_m.miil_in21k_ft_in1k"]);
}
