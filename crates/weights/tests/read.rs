//! Every fixture that `tools/weights_fixtures.py` writes, read and compared with the values it stands for.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use cardinal_weights::{Checkpoint, DType, Format, NamedTensors, ReadOptions, Tensor, read, read_with};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/weights").join(name)
}

fn load(name: &str) -> Checkpoint {
    read(&fixture(name)).unwrap_or_else(|e| panic!("{e}"))
}

fn expected() -> NamedTensors {
    load("expected.safetensors").tensors
}

/// Same names, shapes and values; types may differ.
fn assert_same_values(case: &str, got: &NamedTensors, want: &NamedTensors, tolerance: f32) {
    let sorted = |all: &NamedTensors| {
        let mut names: Vec<String> = all.names().map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(sorted(got), sorted(want), "{case}");
    for (name, want) in want.iter() {
        let got = got.get(name).unwrap();
        assert_eq!(got.shape(), want.shape(), "{case}: {name}");
        for (a, b) in got.to_f32().iter().zip(want.to_f32()) {
            assert!((a - b).abs() <= tolerance * b.abs(), "{case}: {name}: {a} against {b}");
        }
    }
}

#[test]
fn every_container_and_layout_gives_the_same_tensors() {
    let exact = ["zip", "legacy", "protocol4", "legacy_protocol4", "parameters", "strided", "strided_legacy"];
    for case in exact.iter().chain(&["whole_model", "wrapped_net"]) {
        assert_same_values(case, &load(&format!("{case}.pth")).tensors, &expected(), 0.0);
    }
    // Half an f16 step is 2^-11, half a bf16 step 2^-8.
    for (case, tolerance) in
        [("half", 4.9e-4), ("bfloat16", 3.91e-3), ("double", 0.0), ("double_legacy", 0.0)]
    {
        assert_same_values(case, &load(&format!("{case}.pth")).tensors, &expected(), tolerance);
    }
}

#[test]
fn the_order_of_a_state_dict_is_kept() {
    let names = [
        "conv.weight",
        "bn.weight",
        "bn.bias",
        "bn.running_mean",
        "bn.running_var",
        "bn.num_batches_tracked",
    ];
    assert_eq!(load("zip.pth").tensors.names().collect::<Vec<_>>(), names);
    assert_eq!(load("legacy.pth").tensors.names().collect::<Vec<_>>(), names);
}

#[test]
fn formats_are_told_by_content() {
    assert_eq!(load("zip.pth").info.format, Format::TorchZip);
    assert_eq!(load("legacy.pth").info.format, Format::TorchLegacy);
    assert_eq!(load("bf16.safetensors").info.format, Format::Safetensors);
    let dir = tempfile::tempdir().unwrap();
    let misnamed = dir.path().join("model.safetensors");
    std::fs::copy(fixture("zip.pth"), &misnamed).unwrap();
    assert_eq!(read(&misnamed).unwrap().info.format, Format::TorchZip);
}

#[test]
fn wrappers_are_found_and_reported() {
    let cases: [(&str, &[&str], bool); 9] = [
        ("wrapped_state_dict", &["state_dict"], false),
        ("wrapped_model", &["model"], false),
        ("wrapped_net", &["net"], false),
        ("wrapped_ema", &["ema"], true),
        ("wrapped_state_dict_ema", &["state_dict_ema"], true),
        ("wrapped_model_ema", &["model_ema"], true),
        ("wrapped_unknown", &["generator"], false),
        ("wrapped_twice", &["ema", "module"], true),
        ("zip", &[], false),
    ];
    for (case, path, is_ema) in cases {
        let found = load(&format!("{case}.pth"));
        assert_same_values(case, &found.tensors, &expected(), 0.0);
        assert_eq!(found.info.wrapper, path, "{case}");
        assert_eq!(found.info.is_ema, is_ema, "{case}");
    }
}

#[test]
fn a_training_checkpoint_has_plain_and_averaged_weights() {
    for file in ["training.pth", "training_legacy.pth"] {
        let plain = load(file);
        assert_same_values(file, &plain.tensors, &expected(), 0.0);
        assert_eq!((plain.info.is_ema, plain.info.epoch), (false, Some(12)));
        assert_eq!(plain.info.arch.as_deref(), Some("resnest14d"));

        let ema = read_with(&fixture(file), &ReadOptions { ema: true, key: None }).unwrap();
        assert_eq!((ema.info.is_ema, ema.info.wrapper), (true, vec!["state_dict_ema".to_owned()]));
        let (a, b) =
            (ema.tensors.get("bn.bias").unwrap().to_f32(), plain.tensors.get("bn.bias").unwrap().to_f32());
        assert_eq!(a, b.iter().map(|b| b + 1.0).collect::<Vec<_>>());
    }
    assert!(!read_with(&fixture("zip.pth"), &ReadOptions { ema: true, key: None }).unwrap().info.is_ema);
}

#[test]
fn a_key_can_be_asked_for() {
    let key = |key: &str| ReadOptions { ema: false, key: Some(key.to_owned()) };
    let found = read_with(&fixture("training.pth"), &key("state_dict_ema")).unwrap();
    assert!(found.info.is_ema);
    let error = read_with(&fixture("training.pth"), &key("modle")).unwrap_err().to_string();
    assert!(error.contains("no 'modle'") && error.contains("state_dict, state_dict_ema"), "{error}");
}

#[test]
fn class_names_and_counts_are_read() {
    let info = load("asl.pth").info;
    assert_eq!(info.num_classes, Some(3));
    assert_eq!(info.classes.unwrap(), ["cat", "dog", "owl"]);
    let info = load("bf16.safetensors").info;
    assert_eq!((info.arch.as_deref(), info.num_classes), (Some("resnest14d"), Some(10)));
    assert_eq!(info.metadata["note"], "text");
}

#[test]
fn wrapper_prefixes_are_stripped() {
    for (case, prefix) in [
        ("prefix_module", "module."),
        ("prefix_compiled", "module._orig_mod."),
        ("prefix_averaged", "module."),
    ] {
        let found = load(&format!("{case}.pth"));
        assert_same_values(case, &found.tensors, &expected(), 0.0);
        assert_eq!(found.info.prefix, prefix, "{case}");
    }
}

#[test]
fn every_integer_type_is_read() {
    let found = load("integers.pth").tensors;
    for (name, last) in [
        ("int8", 100.0),
        ("uint8", 100.0),
        ("int16", 100.0),
        ("int32", 100.0),
        ("int64", 100.0),
        ("bool", 1.0),
        ("uint16", 100.0),
        ("uint32", 100.0),
    ] {
        assert_eq!(found.get(name).unwrap().to_f32(), [0.0, 1.0, last], "{name}");
    }
    assert_eq!(found.get("uint16").unwrap().dtype(), DType::U16);
}

#[test]
fn entries_that_are_no_tensors_are_skipped_and_listed() {
    let found = load("odd.pth");
    assert_eq!(found.tensors.len(), expected().len() + 2);
    assert_eq!(found.tensors.get("empty").unwrap().shape(), [0, 3]);
    assert_eq!(found.tensors.get("scalar").unwrap(), &Tensor::from_f32(vec![], &[1.5]).unwrap());
    let ignored: Vec<&str> = found.info.ignored.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(ignored, ["note", "shape", "complex"]);
}
