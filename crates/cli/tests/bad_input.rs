//! Bad input gets one clear line that names the thing, and a non-zero exit code; good input beside it its results.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use cardinal_weights::{NamedTensors, Tensor, write_safetensors};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use support::{asset, cardinal, cardinal_with_env, cardinal_with_input};
use tempfile::tempdir;

const UNTRAINED: [&str; 4] = ["predict", "--model", "mixnet_s", "--untrained"];

fn predict(image: &Path) -> support::Run {
    let image = image.to_str().unwrap();
    cardinal(&[UNTRAINED.as_slice(), &["--img-size", "64", image]].concat())
}

#[test]
fn bad_images_are_named_with_what_is_wrong() {
    let folder = tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let photo = fs::read(asset("rocket.jpg")).unwrap();
    predict(&folder.path().join("absent.jpg")).fails(3, &["absent.jpg", "no such file"]);
    predict(&write("empty.jpg", b"")).fails(3, &["empty.jpg", "empty"]);
    predict(&write("half.jpg", &photo[..photo.len() / 2])).fails(3, &["half.jpg", "truncated JPEG"]);
    predict(&write("notes.jpg", b"not an image at all")).fails(3, &["notes.jpg", "not an image"]);
    predict(&write("giant.png", &giant_png())).fails(3, &["giant.png", "pixels"]);
    let empty = folder.path().join("folder");
    fs::create_dir(&empty).unwrap();
    predict(&empty).fails(3, &["folder"]);
    cardinal(&[UNTRAINED.as_slice(), &["nothing/*.png"]].concat()).fails(3, &["nothing/*.png"]);
    cardinal_with_input(&[UNTRAINED.as_slice(), &["-"]].concat(), b"junk").fails(3, &["standard input"]);
}

/// A PNG whose header claims 100,000 x 100,000 pixels.
fn giant_png() -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    png.extend([0, 1, 0x86, 0xA0, 0, 1, 0x86, 0xA0, 8, 2, 0, 0, 0]);
    png.extend(crc32(&png[12..29]).to_be_bytes());
    png
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 },
        )
    })
}

#[test]
fn good_images_get_their_results_and_bad_ones_are_listed_at_the_end() {
    let folder = tempdir().unwrap();
    fs::copy(asset("rocket.jpg"), folder.path().join("a.jpg")).unwrap();
    fs::write(folder.path().join("b.jpg"), b"").unwrap();
    fs::copy(asset("chelsea.jpg"), folder.path().join("c.jpg")).unwrap();
    fs::write(folder.path().join("d.jpg"), b"junk").unwrap();
    let path = folder.path().to_str().unwrap();
    let run = cardinal(&[UNTRAINED.as_slice(), &["--img-size", "64", "--csv", "--topk", "1", path]].concat());
    run.fails(3, &["b.jpg", "d.jpg", "2 of 4 images could not be classified"]);
    let rows: Vec<&str> = run.stdout.lines().skip(1).collect();
    assert_eq!(rows.len(), 2);
    assert!(rows[0].contains("a.jpg,1,") && rows[1].contains("c.jpg,1,"), "{rows:?}");
}

#[test]
fn unknown_names_suggest_the_nearest() {
    cardinal(&["predict", "--model", "resnest51d", "--untrained", "x.jpg"]).fails(3, &["x.jpg"]);
    let image = asset("rocket.jpg");
    let image = image.to_str().unwrap();
    cardinal(&["predict", "--model", "resnest51d", image])
        .fails(2, &["unknown model 'resnest51d'", "resnest50d"]);
    cardinal(&["info", "tresnet_n"]).fails(2, &["did you mean 'tresnet_m'"]);
    cardinal(&["predict", "--model", "resnest50d.foo", image])
        .fails(2, &["no published weights 'foo'", "in1k"]);
    cardinal(&["predict", "--model", "tresnet_ablation_se", image]).fails(2, &["--checkpoint FILE"]);
    cardinal(&["models", "nope*"]).fails(2, &["no model matches 'nope*'"]);
}

#[test]
fn offline_says_what_is_missing_and_how_to_get_it() {
    let folder = tempdir().unwrap();
    let image = asset("rocket.jpg");
    let args = ["predict", "--model", "resnest14d", image.to_str().unwrap()];
    cardinal_with_env(&args, &[("HF_HOME", folder.path().to_str().unwrap())])
        .fails(1, &["timm/resnest14d.gluon_in1k", "HF_HUB_OFFLINE"]);
}

#[test]
fn weights_that_do_not_fit_are_refused_whole() {
    let folder = tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let image = asset("rocket.jpg");
    let predict = |weights: &str| {
        cardinal(&["predict", "--model", "resnest14d", "--checkpoint", weights, image.to_str().unwrap()])
    };
    fs::write(file("junk.pth"), b"junk").unwrap();
    predict(&file("junk.pth")).fails(4, &["junk.pth"]);
    fs::write(file("empty.safetensors"), b"").unwrap();
    predict(&file("empty.safetensors")).fails(4, &["empty.safetensors"]);
    predict(&file("absent.pth")).fails(4, &["absent.pth"]);
    let tensors: NamedTensors = [
        ("conv1.0.weight", Tensor::from_f32(vec![32, 3, 3, 3], &[0.5; 864]).unwrap()),
        ("conv1.3.weight", Tensor::from_f32(vec![3], &[0.5; 3]).unwrap()),
        ("strange.weight", Tensor::from_f32(vec![1], &[0.5]).unwrap()),
    ]
    .into_iter()
    .collect();
    write_safetensors(Path::new(&file("part.safetensors")), &tensors, &BTreeMap::new()).unwrap();
    let texts = ["part.safetensors", "resnest14d", "strange.weight", "conv1.3.weight", "missing"];
    predict(&file("part.safetensors")).fails(4, &texts);
    cardinal(&["info", &file("part.safetensors")]).fails(4, &["no known model"]);
    let bytes = fs::read(file("part.safetensors")).unwrap();
    fs::write(file("cut.safetensors"), &bytes[..bytes.len() - 9]).unwrap();
    predict(&file("cut.safetensors")).fails(4, &["cut.safetensors"]);
}

#[test]
fn wrong_tensors_and_places_to_write_are_named() {
    let folder = tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let run = |input: &str, output: &str| {
        cardinal(&["predict", "--model", "tresnet_m", "--untrained", "--tensor", input, "--output", output])
    };
    let write = |name: &str, shape: &[usize]| {
        let data = vec![0.0; shape.iter().product()];
        cardinal_data::write_npy(file(name), shape, &data).unwrap();
    };
    write("flat.npy", &[3, 32, 32]);
    run(&file("flat.npy"), &file("out.npy"))
        .fails(3, &["flat.npy", "[3, 32, 32]", "[images, channels, height, width]"]);
    write("odd.npy", &[1, 3, 30, 32]);
    run(&file("odd.npy"), &file("out.npy")).fails(3, &["multiples of 4"]);
    write("grey.npy", &[1, 1, 32, 32]);
    run(&file("grey.npy"), &file("out.npy")).fails(3, &["3 channels"]);
    fs::write(file("junk.npy"), b"junk").unwrap();
    run(&file("junk.npy"), &file("out.npy")).fails(3, &["junk.npy"]);
    assert!(!Path::new(&file("out.npy")).exists());
    write("good.npy", &[1, 3, 32, 32]);
    run(&file("good.npy"), &file("no/such/folder/out.npy")).fails(3, &["no/such/folder/out.npy"]);
    run(&file("good.npy"), &file("out.npy")).ok();
    assert_eq!(cardinal_data::read_npy(file("out.npy")).unwrap().shape, [1, 1000]);
}

#[test]
fn wrong_usage_has_its_own_code() {
    cardinal(&["predict", "--model", "resnet18"]).fails(2, &["IMAGE"]);
    cardinal(&["predict", "--frobnicate"]).fails(2, &["--frobnicate"]);
    cardinal(&["convert", "a.safetensors", "b.pth"]).fails(2, &["only .safetensors files can be written"]);
    let image = asset("rocket.jpg");
    let image = image.to_str().unwrap();
    cardinal(&[UNTRAINED.as_slice(), &["--crop-pct", "1.5", image]].concat()).fails(2, &["--crop-pct"]);
}
