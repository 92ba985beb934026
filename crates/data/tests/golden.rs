//! Against Pillow, torchvision and timm: the values in `fixtures/preprocess`, written by
//! `tools/preprocess_fixtures.py`.
//!
//! `CARDINAL_PREPROCESS_FIXTURES` names another folder of the same form, for larger measurements; run
//! with `--nocapture` to see the largest difference per case.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cardinal_data::{
    CropMode, Decoder, Interpolation, Preprocess, RgbImage, SourceBox, read_npy, resize_box,
};

/// How far two images lie apart, in grey levels.
#[derive(Debug, Default, Clone, Copy)]
struct Difference {
    max: u8,
    mean: f64,
}

fn folder() -> PathBuf {
    std::env::var_os("CARDINAL_PREPROCESS_FIXTURES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/preprocess"),
        PathBuf::from,
    )
}

/// The cases of a manifest: words by line, comments left out.
fn cases(manifest: &str) -> Vec<Vec<String>> {
    let path = folder().join(manifest);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let cases: Vec<_> = lines.map(|line| line.split(' ').map(str::to_owned).collect()).collect();
    assert!(!cases.is_empty(), "{} is empty", path.display());
    cases
}

fn load(file: impl AsRef<Path>) -> RgbImage {
    Decoder::default().decode_file(folder().join(file)).unwrap_or_else(|error| panic!("{error}"))
}

fn difference(name: &str, ours: &RgbImage, theirs: &RgbImage) -> Difference {
    let size = |image: &RgbImage| (image.width(), image.height());
    assert_eq!(size(ours), size(theirs), "size of {name}");
    let each = ours.pixels().iter().zip(theirs.pixels()).map(|(a, b)| a.abs_diff(*b));
    let sum: u64 = each.clone().map(u64::from).sum();
    Difference { max: each.max().unwrap_or(0), mean: sum as f64 / ours.pixels().len() as f64 }
}

fn number<T: std::str::FromStr>(word: &str) -> T {
    word.parse().ok().unwrap_or_else(|| panic!("{word} is not a number"))
}

#[test]
fn resizes_as_pillow_does() {
    let mut worst: BTreeMap<String, Difference> = BTreeMap::new();
    for case in cases("resize/cases.txt") {
        let [source, width, height, filter, left, top, box_width, box_height, expected] = &case[..] else {
            panic!("{case:?}")
        };
        let interpolation = Interpolation::from_name(filter).expect("a filter's name");
        let part = SourceBox {
            left: number(left),
            top: number(top),
            width: number(box_width),
            height: number(box_height),
        };
        let ours = resize_box(&load(source), part, number(width), number(height), interpolation)
            .expect("the box lies inside");
        let difference = difference(expected, &ours, &load(format!("resize/{expected}")));
        println!("{expected}: {difference:?}");
        let entry = worst.entry(filter.clone()).or_default();
        entry.max = entry.max.max(difference.max);
        entry.mean = entry.mean.max(difference.mean);
    }
    println!("worst: {worst:#?}");
    assert!(worst.values().all(|worst| worst.max == 0), "{worst:?}");
}

fn preprocess(size: [&str; 2], crop_pct: &str, mode: &str, filter: &str) -> Preprocess {
    Preprocess {
        size: (number(size[0]), number(size[1])),
        crop_pct: number(crop_pct),
        crop_mode: CropMode::from_name(mode).expect("a mode's name"),
        interpolation: Interpolation::from_name(filter).expect("a filter's name"),
        ..Preprocess::default()
    }
}

#[test]
fn crops_as_timm_does() {
    let mut worst = Difference::default();
    for case in cases("transform/cases.txt") {
        let [source, height, width, crop_pct, mode, filter, expected] = &case[..] else { panic!("{case:?}") };
        let settings = preprocess([height, width], crop_pct, mode, filter);
        let ours = settings.crop(&load(source)).expect("the settings are good");
        let difference = difference(expected, &ours, &load(format!("transform/{expected}")));
        println!("{expected} {height}x{width} {crop_pct} {filter}: {difference:?}");
        worst.max = worst.max.max(difference.max);
        worst.mean = worst.mean.max(difference.mean);
    }
    println!("worst: {worst:?}");
    assert_eq!(worst.max, 0, "{worst:?}");
}

#[test]
fn places_the_crop_where_timm_does() {
    for case in cases("geometry.txt") {
        let [image_width, image_height, height, width, crop_pct, mode, numbers @ ..] = &case[..] else {
            panic!("{case:?}")
        };
        let settings = preprocess([height, width], crop_pct, mode, "bilinear");
        let ours =
            settings.geometry(number(image_width), number(image_height)).expect("the settings are good");
        let theirs: Vec<i64> = numbers.iter().map(|word| number(word)).collect();
        assert_eq!(vec![ours.resized.0, ours.resized.1, ours.top, ours.left], theirs, "{case:?}");
    }
}

#[test]
fn normalizes_as_torchvision_does() {
    let expected = read_npy(folder().join("transform/chelsea-96-normalized.npy")).expect("a fixture");
    assert_eq!(expected.shape, [3, 96, 96]);
    let settings = preprocess(["96", "96"], "0.95", "center", "bicubic");
    let ours = settings.run(&load("chelsea.png")).expect("the settings are good");
    assert_eq!(ours, expected.data, "bit for bit: the same operations in the same precision");
}

/// From a JPEG file to the crop. The resize averages over decoded pixels, and their differences with
/// them, so less is left of those than [`decode_tolerance`] allows.
#[test]
fn decodes_and_crops_as_pillow_and_timm_do() {
    let photo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/rocket.jpg");
    let image = Decoder::default().decode_file(photo).expect("an asset");
    let ours = preprocess(["128", "128"], "0.95", "center", "bicubic").crop(&image).expect("good settings");
    let difference = difference("rocket.jpg", &ours, &load("transform/rocket-jpg-128.png"));
    println!("rocket.jpg: {difference:?}");
    assert!(difference.max <= 2 && difference.mean < 0.2, "{difference:?}");
}

/// Only JPEG leaves room: it lets a decoder choose its roundings. Here the inverse transform ends within
/// a level of libjpeg-turbo's; where colour is stored at half size, enlarging it rounds after each axis
/// instead of once, and the step to RGB multiplies what is left by up to 1.8. Means stay far below 1.
fn decode_tolerance(file: &str) -> (u8, f64) {
    if file.ends_with(".jpg") { (4, 0.5) } else { (0, 0.0) }
}

#[test]
fn decodes_as_pillow_does() {
    let mut wrong = Vec::new();
    for case in cases("decode/cases.txt") {
        let [file, expected] = &case[..] else { panic!("{case:?}") };
        let ours = load(format!("decode/{file}"));
        let difference = difference(file, &ours, &load(format!("decode/{expected}")));
        println!("{file}: {difference:?}");
        let (max, mean) = decode_tolerance(file);
        if difference.max > max || difference.mean > mean {
            wrong.push(format!("{file}: {difference:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
