//! Parameters, multiply-adds and activations: against timm's, and against the papers' where timm has no such network.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use cardinal_models::burn::tensor::{Device, Tensor};
use cardinal_models::registry::{find, variants};
use cardinal_models::summary::{Summary, summarize};
use cardinal_models::weights::parameter_count;
use cardinal_models::{Backbone, ModelOptions, create};
use common::json;

fn summary(name: &str, size: usize) -> Summary {
    summarize(find(name).unwrap(), &ModelOptions::default(), [size; 2]).unwrap()
}

#[test]
fn counts_agree_with_timm() {
    let golden = json("macs.json");
    let golden = golden.as_object().unwrap();
    assert!(golden.len() >= 40);
    for (name, expected) in golden {
        let summary = summary(name, 224);
        let number = |key: &str| expected[key].as_u64().unwrap() as usize;
        assert_eq!(summary.params, number("params"), "{name}: parameters");
        assert_eq!(summary.macs, number("macs"), "{name}: multiply-adds");
        assert_eq!(summary.activations, number("conv_acts") + number("linear_acts"), "{name}: activations");
        let layers: usize = summary.layers.iter().map(|layer| layer.params).sum();
        assert_eq!(layers, summary.params, "{name}: the layers' parameters add up");
    }
}

/// The table of docs/variants.md: parameters in millions and multiply-adds in billions (with 2 operations for each
/// element of a batch norm, as ResNeSt's and RegNet's authors count them, where said).
#[test]
fn networks_without_a_counterpart_have_the_papers_counts() {
    // name, input, our parameters, our multiply-adds in millions
    let table = [
        ("resnest50_fast_1s1x64d", 224, 26_217_896, 4329),
        ("resnest50_fast_2s1x64d", 224, 27_483_240, 4331),
        ("resnest50_fast_4s1x64d", 224, 31_912_712, 4335),
        ("resnest50_fast_1s2x40d", 224, 25_946_680, 4365),
        ("resnest50_fast_2s2x40d", 224, 26_943_792, 4366),
        ("regnety_040_paper", 224, 21_054_472, 3974),
        ("regnet_sa_50", 224, 21_663_614, 4007),
        ("fbnetv2_f1", 128, 6_024_744, 56),
        ("fbnetv2_f3", 192, 6_924_840, 121),
        ("fbnetv2_f4", 224, 7_022_880, 238),
        ("tresnet_ablation_resnet50", 224, 25_557_032, 4089),
        ("tresnet_ablation_aa", 224, 31_389_032, 5735),
    ];
    for (name, size, params, mega) in table {
        let summary = summary(name, size);
        assert_eq!(summary.params, params, "{name}: parameters");
        assert_eq!((summary.macs as f64 / 1e6).round() as usize, mega, "{name}: multiply-adds");
    }
}

#[test]
fn every_network_runs_at_its_smallest_size_and_gives_what_it_says() {
    let device = Device::flex();
    for variant in variants() {
        let mut model =
            create(variant.name, &ModelOptions::new().with_num_classes(7).with_in_chans(2), &device).unwrap();
        let size = if variant.size_multiple() == 4 { 20 } else { 8 };
        model.check_input(&[1, 2, size, size]).unwrap();
        if parameter_count(&model) > 40_000_000 {
            // Drawing the values of a large network takes its time, and it is otherwise like its smaller siblings.
            continue;
        }
        let x = Tensor::<4>::ones([1, 2, size, size], &device);
        let features = model.features(x.clone());
        let channels: Vec<usize> = features.iter().map(|map| map.dims()[1]).collect();
        let said: Vec<usize> = model.feature_info().iter().map(|info| info.channels).collect();
        assert_eq!(channels, said, "{}", variant.name);
        let last = model.forward_features(x);
        assert_eq!(model.forward_head(last.clone(), false).dims(), [1, 7], "{}", variant.name);
        let embedding = model.forward_head(last.clone(), true);
        assert_eq!(embedding.dims()[1], model.head().embedding_len(), "{}", variant.name);
        model.reset_classifier(3, &device);
        assert_eq!(model.forward_head(last.clone(), false).dims(), [1, 3]);
        model.reset_classifier(0, &device);
        assert_eq!(model.forward_head(last, false).dims(), embedding.dims());
    }
}

#[test]
fn inputs_that_a_network_cannot_take_are_refused() {
    let model = create("tresnet_m", &ModelOptions::default(), &Device::flex()).unwrap();
    for (shape, reason) in [
        (vec![1, 3, 224], "[images, channels, height, width]"),
        (vec![0, 3, 224, 224], "at least one image"),
        (vec![1, 1, 224, 224], "3 channels"),
        (vec![1, 3, 222, 224], "multiples of 4"),
        (vec![1, 3, 16, 224], "at least 20"),
    ] {
        let error = model.check_input(&shape).unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains("tresnet_m"), "{error}");
    }
}
