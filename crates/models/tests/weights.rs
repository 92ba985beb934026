//! Checkpoints: loaded whole or not at all, recognised, and written back as they were read.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use cardinal_models::burn::tensor::Device;
use cardinal_models::registry::variants;
use cardinal_models::weights::{Classifier, LoadReport, entries, load, sniff, state_dict};
use cardinal_models::{Model, ModelOptions, create};
use cardinal_weights::{NamedTensors, Tensor};
use common::{rule_model, rule_weights};

fn model(name: &str, classes: usize) -> Model {
    create(name, &ModelOptions::new().with_num_classes(classes), &Device::flex()).unwrap()
}

#[test]
fn what_is_saved_is_what_was_loaded() {
    let loaded = rule_model("resnest14d", &ModelOptions::default(), &Device::flex());
    let state = state_dict(&loaded).unwrap();
    for (name, tensor) in rule_weights(&loaded).iter() {
        assert_eq!(state.get(name), Some(tensor), "{name}");
    }
    let counters = state.names().filter(|name| name.ends_with("num_batches_tracked")).count();
    assert_eq!(state.len(), entries(&loaded).len() + counters);
    assert_eq!(state.len(), 152, "as many entries as timm's state dict");
    assert!(state.get("bn1.num_batches_tracked").unwrap().shape().is_empty());
}

#[test]
fn a_checkpoint_that_does_not_fit_loads_nothing() {
    let source = model("resnet18", 1000);
    let mut tensors = rule_weights(&source);
    tensors.insert("extra.weight", Tensor::from_f32(vec![1], &[0.0]).unwrap());
    tensors.insert("conv1.weight", Tensor::from_f32(vec![2], &[0.0; 2]).unwrap());
    let tensors: NamedTensors = tensors.into_iter().filter(|(name, _)| name != "bn1.bias").collect();
    let error = load(source, &tensors, Classifier::MustFit).unwrap_err().to_string();
    for text in ["resnet18", "bn1.bias", "extra.weight", "conv1.weight", "[64, 3, 7, 7]", "[2]"] {
        assert!(error.contains(text), "'{text}' is not in: {error}");
    }
}

#[test]
fn a_new_number_of_classes_keeps_the_backbone_and_says_so() {
    let tensors = rule_weights(&model("tresnet_m", 1000));
    assert!(load(model("tresnet_m", 5), &tensors, Classifier::MustFit).is_err());
    let (loaded, report) = load(model("tresnet_m", 5), &tensors, Classifier::MayDiffer).unwrap();
    assert_eq!(report, LoadReport { loaded: entries(&loaded).len() - 2, new_classifier: Some((1000, 5)) });
    assert_eq!(loaded.num_classes(), 5);
    let state = state_dict(&loaded).unwrap();
    assert_eq!(state.get("body.conv1.conv.weight"), tensors.get("body.conv1.conv.weight"));
    let backbone: NamedTensors =
        tensors.clone().into_iter().filter(|(name, _)| !name.starts_with("head")).collect();
    assert!(load(model("tresnet_m", 5), &backbone, Classifier::MustFit).is_err());
    let report = load(model("tresnet_m", 5), &backbone, Classifier::MayDiffer).unwrap().1;
    assert_eq!(report.new_classifier, Some((0, 5)));
    let same = load(model("tresnet_m", 1000), &tensors, Classifier::MayDiffer).unwrap().1;
    assert_eq!(same.new_classifier, None);
}

#[test]
fn every_network_is_recognised_by_its_parameters() {
    for variant in variants() {
        let options = ModelOptions::new().with_num_classes(12).with_in_chans(4);
        let model = Model::new(variant, &options, &Device::flex());
        // Shapes are all that counts: a tensor of zeros would take the memory of a network.
        if entries(&model).iter().map(|e| e.shape.iter().product::<usize>()).sum::<usize>() > 30_000_000 {
            continue;
        }
        let sniffed = sniff(&rule_weights(&model)).unwrap();
        assert!(
            sniffed.candidates.iter().any(|candidate| candidate.arch == variant.arch),
            "{}",
            variant.name
        );
        assert_eq!((sniffed.num_classes, sniffed.in_chans), (12, 4), "{}", variant.name);
    }
}

#[test]
fn an_unknown_file_names_the_closest_network() {
    let tensors: NamedTensors =
        rule_weights(&model("resnet18", 10)).into_iter().filter(|(name, _)| name != "fc.bias").collect();
    assert_eq!(sniff(&NamedTensors::new()).unwrap_err().to_string(), "no known model has these parameters");
    let error = sniff(&tensors).unwrap_err().to_string();
    assert!(error.contains("resnet18") && error.contains("101 of its 102"), "{error}");
}
