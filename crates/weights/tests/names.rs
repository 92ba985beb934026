//! Conversions between naming schemes, against timm's own where it has one.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use cardinal_weights::names::{Converted, Naming, detect, from_timm, to_timm};
use cardinal_weights::{NamedTensors, Tensor, read};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/weights").join(name)
}

/// One-element tensors, numbered.
fn named(names: &[&str]) -> NamedTensors {
    let tensor = |i: usize| Tensor::from_f32(vec![1], &[i as f32]).unwrap();
    names.iter().enumerate().map(|(i, name)| (*name, tensor(i + 1))).collect()
}

fn names(converted: &Converted) -> Vec<&str> {
    converted.tensors.names().collect()
}

#[test]
fn official_tresnet_becomes_what_timm_makes_of_it() {
    let official = read(&fixture("names_tresnet.pth")).unwrap();
    assert_eq!(official.naming(), Naming::OfficialTResNet);
    let converted = official.into_timm().unwrap();
    assert_eq!(converted.dropped, ["body.layer2.0.conv1.1.op.filt"]);
    let timm = read(&fixture("names_tresnet_timm.safetensors")).unwrap().tensors;
    assert_eq!(converted.tensors.len(), timm.len());
    for (name, tensor) in timm.iter() {
        assert_eq!(converted.tensors.get(name), Some(tensor), "{name}");
    }
}

#[test]
fn tresnet_makes_the_round_trip() {
    let timm = read(&fixture("names_tresnet_timm.safetensors")).unwrap().tensors;
    let official = from_timm(timm.clone(), Naming::OfficialTResNet).unwrap();
    for name in ["body.conv1.0.weight", "body.layer2.0.conv1.0.1.bias", "body.layer3.0.conv2.0.0.weight"] {
        assert!(official.tensors.contains(name), "{name}");
    }
    let back = to_timm(official.tensors).unwrap().tensors;
    assert_eq!(back.len(), timm.len());
    for (name, tensor) in timm.iter() {
        for (a, b) in back.get(name).unwrap().to_f32().iter().zip(tensor.to_f32()) {
            // Taking 1e-5 off and adding it again can move the last digit.
            assert!((a - b).abs() <= f32::EPSILON * b.abs().max(1e-5), "{name}: {a} against {b}");
        }
    }
}

#[test]
fn a_negative_gamma_has_no_official_form() {
    let mut timm = named(&["body.conv1.conv.weight"]);
    timm.insert("body.conv1.bn.weight", Tensor::from_f32(vec![2], &[0.5, -0.5]).unwrap());
    let error = from_timm(timm, Naming::OfficialTResNet).unwrap_err().to_string();
    assert!(error.contains("'body.conv1.bn.weight' has a gamma of -0.5"), "{error}");
}

#[test]
fn legacy_senets_become_timm_s() {
    let text = std::fs::read_to_string(fixture("names_senet.txt")).unwrap();
    for network in ["legacy_senet154", "legacy_seresnext50_32x4d"] {
        let (mut legacy, mut timm) = (NamedTensors::new(), NamedTensors::new());
        for line in text.lines() {
            let [model, old, new, shape] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            if model == network {
                // A last axis of length 0: the shape without the data.
                let shape = shape.split(',').chain(["0"]).filter_map(|n| n.parse().ok()).collect();
                let tensor = Tensor::from_f32(shape, &[]).unwrap();
                legacy.insert(old, tensor.clone());
                timm.insert(new, tensor);
            }
        }
        let converted = to_timm(legacy.clone()).unwrap();
        assert_eq!((converted.naming, converted.note.is_some()), (Naming::LegacySenet, true));
        assert_eq!(converted.tensors, timm);
        assert_eq!(from_timm(timm, Naming::LegacySenet).unwrap().tensors, legacy);
    }
}

#[test]
fn legacy_se_resnets_are_refused_for_their_other_stride() {
    let mut legacy = named(&["layer0.conv1.weight", "layer1.0.conv3.weight"]);
    legacy.insert("layer1.0.conv1.weight", Tensor::from_f32(vec![2, 1, 1, 1], &[0.0; 2]).unwrap());
    legacy.insert("layer1.0.conv2.weight", Tensor::from_f32(vec![1, 2, 1, 1], &[0.0; 2]).unwrap());
    assert!(to_timm(legacy).unwrap_err().to_string().contains("stride"));
}

/// Names of a detectron2 ResNeSt backbone, and timm's.
const DETECTRON: [(&str, &str); 16] = [
    ("stem.conv1_1.weight", "conv1.0.weight"),
    ("stem.conv1_1.norm.running_mean", "conv1.1.running_mean"),
    ("stem.conv1_2.weight", "conv1.3.weight"),
    ("stem.conv1_2.norm.bias", "conv1.4.bias"),
    ("stem.conv1_3.weight", "conv1.6.weight"),
    ("stem.conv1_3.norm.weight", "bn1.weight"),
    ("res2.0.conv1.weight", "layer1.0.conv1.weight"),
    ("res2.0.conv1.norm.weight", "layer1.0.bn1.weight"),
    ("res2.0.conv2.conv.weight", "layer1.0.conv2.conv.weight"),
    ("res2.0.conv2.bn0.weight", "layer1.0.conv2.bn0.weight"),
    ("res2.0.conv2.fc1.weight", "layer1.0.conv2.fc1.weight"),
    ("res2.0.conv3.norm.running_var", "layer1.0.bn3.running_var"),
    ("res2.0.shortcut.weight", "layer1.0.downsample.1.weight"),
    ("res2.0.shortcut.norm.weight", "layer1.0.downsample.2.weight"),
    ("res5.2.conv3.weight", "layer4.2.conv3.weight"),
    ("linear.weight", "fc.weight"),
];

#[test]
fn detectron2_backbones_make_the_round_trip() {
    let (detectron, timm): (Vec<&str>, Vec<&str>) = DETECTRON.into_iter().unzip();
    let converted = to_timm(named(&detectron)).unwrap();
    assert_eq!(converted.naming, Naming::Detectron2ResNeSt);
    assert_eq!(names(&converted), timm);
    let back = from_timm(converted.tensors, Naming::Detectron2ResNeSt).unwrap();
    assert_eq!(names(&back), detectron);
}

#[test]
fn a_detector_gives_up_its_backbone() {
    let detector =
        named(&["backbone.bottom_up.stem.conv1_1.weight", "backbone.fpn_output2.weight", "roi_heads.x"]);
    let converted = to_timm(detector).unwrap();
    assert_eq!(names(&converted), ["conv1.0.weight"]);
    assert_eq!(converted.dropped, ["backbone.fpn_output2.weight", "roi_heads.x"]);
}

#[test]
fn other_networks_are_refused_and_collisions_noticed() {
    for naming in [Naming::OfficialTResNet, Naming::LegacySenet, Naming::Detectron2ResNeSt] {
        let error = from_timm(named(&["conv1.weight"]), naming).unwrap_err().to_string();
        assert!(error.contains("there is no"), "{error}");
    }
    let both = named(&["layer0.conv1.weight", "conv1.weight"]);
    assert!(to_timm(both).unwrap_err().to_string().contains("two tensors"));
}

#[test]
fn timm_names_are_left_alone() {
    let timm = named(&["conv1.0.weight", "layer1.0.conv1.weight", "fc.bias"]);
    assert_eq!(detect(timm.names()), Naming::Timm);
    assert_eq!(to_timm(timm.clone()).unwrap().tensors, timm);
}
