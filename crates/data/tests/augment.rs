//! Every operation with its arguments fixed, against Pillow, torchvision and timm: the values in
//! `fixtures/augment`, written by `tools/augment_fixtures.py`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use cardinal_data::{
    Canvas, ColorJitter, Decoder, Interpolation, Operation, RgbImage, SourceBox, resize_box, sample_pairing,
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/augment")
}

fn load(name: &str) -> RgbImage {
    Decoder::default().decode_file(folder().join(format!("{name}.png"))).unwrap()
}

/// CRC-32 as zlib has it, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
    !bytes.iter().fold(u32::MAX, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

fn operation(name: &str, args: &[f64]) -> Option<Operation> {
    Some(match (name, args) {
        ("auto_contrast", []) => Operation::AutoContrast,
        ("equalize", []) => Operation::Equalize,
        ("invert", []) => Operation::Invert,
        ("solarize", &[threshold]) => Operation::Solarize(threshold),
        ("solarize_add", &[add]) => Operation::SolarizeAdd(add as u8),
        ("posterize", &[bits]) => Operation::Posterize(bits as u8),
        ("brightness", &[factor]) => Operation::Brightness(factor),
        ("contrast", &[factor]) => Operation::Contrast(factor),
        ("color", &[factor]) => Operation::Color(factor),
        ("sharpness", &[factor]) => Operation::Sharpness(factor),
        ("shear_x", &[factor]) => Operation::ShearX(factor),
        ("shear_y", &[factor]) => Operation::ShearY(factor),
        ("translate_x", &[pixels]) => Operation::TranslateX(pixels),
        ("translate_y", &[pixels]) => Operation::TranslateY(pixels),
        ("rotate", &[degrees]) => Operation::Rotate(degrees),
        _ => return None,
    })
}

fn run(name: &str, args: &[f64], canvas: &Canvas, source: &RgbImage) -> RgbImage {
    let mut image = source.clone();
    match (name, args) {
        ("hue", &[turn]) => ColorJitter::turn_hue(&mut image, turn),
        ("resized_crop", &[left, top, width, height, side]) => {
            // torchvision crops first, so the filter must not see beyond the box.
            let part = SourceBox { left, top, width, height };
            let cropped =
                resize_box(&image, part, width as u32, height as u32, Interpolation::Nearest).unwrap();
            let whole = SourceBox::whole(&cropped);
            image = resize_box(&cropped, whole, side as u32, side as u32, canvas.interpolation).unwrap();
        }
        _ => operation(name, args).unwrap_or_else(|| panic!("{name} {args:?}")).apply(&mut image, canvas),
    }
    image
}

#[test]
fn operations_equal_pillow_torchvision_and_timm() {
    let text = std::fs::read_to_string(folder().join("cases.txt")).unwrap();
    let mut sources: HashMap<String, RgbImage> = HashMap::new();
    let mut wrong = Vec::new();
    let mut cases = 0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let [name, args, filter, fill, source, crc] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let args: Vec<f64> =
            args.split(',').filter(|arg| *arg != "-").map(|arg| arg.parse().unwrap()).collect();
        let fill: Vec<u8> = fill.split(',').map(|level| level.parse().unwrap()).collect();
        let interpolation = Interpolation::from_name(filter).unwrap_or_default();
        let canvas = Canvas { fill: fill.try_into().unwrap(), interpolation };
        let image = sources.entry(source.to_owned()).or_insert_with(|| load(source));
        let result = run(name, &args, &canvas, image);
        cases += 1;
        if format!("{:08x}", crc32(result.pixels())) != crc {
            wrong.push(line.to_owned());
        }
    }
    assert!(cases > 800, "only {cases} cases");
    assert!(wrong.is_empty(), "{} of {cases}: {wrong:#?}", wrong.len());
}

/// The same as above for two of them, but a failure shows where.
#[test]
fn whole_pictures_equal_pillows() {
    let cases =
        [("rotate-24-coffee", Operation::Rotate(24.0)), ("sharpness-1.9-coffee", Operation::Sharpness(1.9))];
    for (file, operation) in cases {
        let (mut ours, theirs) = (load("coffee"), load(file));
        operation.apply(&mut ours, &Canvas::default());
        let differences = ours.pixels().iter().zip(theirs.pixels()).filter(|(a, b)| a != b).count();
        assert_eq!(differences, 0, "{file}");
    }
}

#[test]
fn cutout_fills_what_lies_inside() {
    let mut image = RgbImage::new(4, 3, vec![9; 36]).unwrap();
    let canvas = Canvas { fill: [1, 2, 3], ..Canvas::default() };
    Operation::Cutout { left: -1, top: 1, width: 3, height: 9 }.apply(&mut image, &canvas);
    let (old, new) = ([9; 3], [1, 2, 3]);
    let expected = [[old, old, old, old], [new, new, old, old], [new, new, old, old]];
    assert_eq!(image.pixels(), expected.as_flattened().as_flattened());
    for (left, top) in [(i64::MIN, 0), (i64::MAX, i64::MAX), (4, 3)] {
        let before = image.clone();
        Operation::Cutout { left, top, width: 2, height: 2 }.apply(&mut image, &canvas);
        assert!(image == before, "outside");
    }
}

#[test]
fn sample_pairing_is_a_blend() {
    let [a, b] = [0, 200].map(|level| RgbImage::new(2, 1, vec![level; 6]).unwrap());
    assert_eq!(sample_pairing(&a, &b, 0.4).unwrap().pixels(), [80; 6]);
    assert!(sample_pairing(&a, &load("tiny"), 0.4).is_none());
}

#[test]
fn ordinary_jpeg_files_have_pillows_pixels() {
    let text = std::fs::read_to_string(folder().join("jpeg.txt")).unwrap();
    let wrong: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter(|line| {
            let (file, crc) = line.split_once(' ').unwrap();
            let image = Decoder::default().decode_file(folder().join(file)).unwrap();
            format!("{:08x}", crc32(image.pixels())) != crc
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
