//! `cardinal data check` and `stats` through the binary.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use support::{asset, cardinal};
use tempfile::{TempDir, tempdir};

/// Two splits of two classes; one image of each split is broken.
fn photos() -> TempDir {
    let folder = tempdir().unwrap();
    for (name, photo) in [
        ("train/cat/1.jpg", "chelsea.jpg"),
        ("train/cat/2.jpg", "chelsea.jpg"),
        ("train/rocket/1.jpg", "rocket.jpg"),
        ("val/cat/3.jpg", "chelsea.jpg"),
    ] {
        write(&folder, name, &fs::read(asset(photo)).unwrap());
    }
    let half = fs::read(asset("rocket.jpg")).unwrap();
    write(&folder, "train/rocket/half.jpg", &half[..half.len() / 2]);
    write(&folder, "val/rocket/empty.png", b"");
    folder
}

fn write(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    path
}

fn run(command: &str, path: &Path, more: &[&str]) -> support::Run {
    cardinal(&[&["data", command, path.to_str().unwrap()], more].concat())
}

#[test]
fn every_split_is_read_and_broken_images_are_named() {
    let folder = photos();
    let check = run("check", folder.path(), &["-j", "3"]);
    check.fails(
        3,
        &[
            "rocket/half.jpg: truncated JPEG file",
            "rocket/empty.png: the file is empty",
            "2 of 6 images cannot be read",
        ],
    );
    for text in [
        "split 'train': 4 images, 2 classes\n1 of them cannot be read",
        "split 'val': 2 images",
        "1  rocket       2",
    ] {
        assert!(check.stdout.contains(text), "'{text}' is not in {}", check.stdout);
    }
    assert!(!check.stdout.contains("mean"));
    fs::remove_file(folder.path().join("val/rocket/empty.png")).unwrap();
    assert!(run("check", folder.path(), &["--split", "val"]).ok().contains("all of them can be read"));
    let json = run("check", folder.path(), &["--json"]);
    assert_eq!(json.code, 3);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    let train = &json["splits"][0];
    assert_eq!((train["split"].as_str(), train["images"].as_u64()), (Some("train"), Some(4)));
    assert_eq!(train["classes"][1]["images"], 2);
    assert!(train["broken"][0]["file"].as_str().unwrap().ends_with("train/rocket/half.jpg"));
    assert_eq!(json["splits"][1]["broken"], serde_json::json!([]));
}

#[test]
fn stats_of_the_digits_are_those_of_numpy() {
    let text = cardinal(&["data", "stats"]).ok();
    for expected in [
        "split 'train': 1442 images, 10 classes",
        "split 'test': 355 images",
        "width 8 to 8, median 8",
        "8 x 8 (1442)",
    ] {
        assert!(text.contains(expected), "'{expected}' is not in {text}");
    }
    let json: Value = serde_json::from_str(&cardinal(&["data", "stats", "--json", "-j", "1"]).ok()).unwrap();
    // x = np.floor(digits.images / 16 * 255 + 0.5) / 255 over the images that are not held out; x.mean(), x.std()
    let close = |value: &Value, expected: f64| {
        assert!((value.as_f64().unwrap() - expected).abs() < 5e-6, "{value} {expected}");
    };
    let train = &json["splits"][0];
    for channel in 0..3 {
        close(&train["mean"][channel], MEAN);
        close(&train["std"][channel], STD);
    }
    assert_eq!((json["data"].as_str(), train["width"]["max"].as_u64()), (None, Some(8)));
    assert_eq!(train["shorter_side"], serde_json::json!([{ "up_to": 8, "images": 1442 }]));
    assert_eq!(train["frequent_sizes"][0]["images"], 1442);
}

const MEAN: f64 = 0.305183;
const STD: f64 = 0.375994;

#[test]
fn a_picture_shows_images_of_each_class() {
    let folder = photos();
    let picture = folder.path().join("sheet.svg");
    let stats = run("stats", folder.path(), &["--split", "train", "--picture", picture.to_str().unwrap()]);
    stats.fails(3, &["half.jpg"]);
    for text in [
        "width 451 to 640, median 451",
        "height 300 to 427, median 300",
        "451 x 300 (2), 640 x 427 (1)",
        "mean 0.",
    ] {
        assert!(stats.stdout.contains(text), "'{text}' is not in {}", stats.stdout);
    }
    let svg = fs::read_to_string(picture).unwrap();
    assert_eq!(svg.matches("<image").count(), 3);
    assert!(svg.contains(">rocket</text>") && svg.contains("<title>cat/2.jpg</title>"), "{svg}");
    assert_eq!(svg.matches("width=\"64\" height=\"43\"").count(), 3);
    run("stats", folder.path(), &["--picture", "sheet.png"]).fails(2, &["--picture", ".svg"]);
    run("stats", folder.path(), &["--split", "train", "--picture", "/no/such/folder/x.svg"])
        .fails(1, &["/no/such/folder/x.svg"]);
}

#[test]
fn what_cannot_be_opened_gets_one_clear_line() {
    let folder = tempdir().unwrap();
    let check = || run("check", folder.path(), &[]);
    check().fails(3, &["the folder is empty"]);
    run("check", Path::new("/no/such/folder"), &[])
        .fails(3, &["/no/such/folder: there is no such file or folder"]);
    let photo = fs::read(asset("chelsea.jpg")).unwrap();
    write(&folder, "cat/1.jpg", &photo);
    check().fails(3, &["has only one class (cat)"]);
    write(&folder, "dog/1.jpg", &photo);
    assert!(check().ok().contains("image folder: 2 images, 2 classes"));
    run("check", folder.path(), &["--split", "test"]).fails(3, &["has no split 'test'"]);
    let table = write(&folder, "extra/labels.csv", b"file,label\n1,cat\nx.jpg,dog\ny.jpg,dog\n");
    run("check", folder.path(), &["--labels", table.to_str().unwrap()])
        .fails(3, &["labels.csv: names images that do not exist"]);
    write(&folder, "more.tar", b"");
    check().fails(3, &["two kinds of data", "more.tar", "1.jpg"]);
    run("check", folder.path(), &["--workers", "0"]).fails(2, &["--workers"]);
}

#[test]
fn sources_that_need_a_word_get_it() {
    let folder = tempdir().unwrap();
    let photo = fs::read(asset("chelsea.jpg")).unwrap();
    for name in ["a.jpg", "b.jpg", "c.jpg"] {
        write(&folder, name, &photo);
    }
    write(&folder, "odd.csv", b"what,who\ntabby cat,a\ncat,b\ndog,c\n");
    let labels = folder.path().join("odd.csv");
    let args = ["--labels", labels.to_str().unwrap(), "--image-column", "who", "--label-column", "what"];
    assert!(run("check", folder.path(), &args).ok().contains("table odd.csv: 3 images, 3 classes\n"));
    let several = run("check", folder.path(), &[args.as_slice(), &["--label-separator", " "]].concat()).ok();
    assert!(several.contains("table odd.csv: 3 images, 3 classes, several labels per image"), "{several}");
    assert!(several.contains("cat         2"), "{several}");
    let classes = write(&folder, "names.json", br#"["dog", "cat", "tabby cat", "emu"]"#);
    let more = ["--class-map", classes.to_str().unwrap(), "--multi-label", "--json"];
    let json: Value =
        serde_json::from_str(&run("check", folder.path(), &[args.as_slice(), &more].concat()).ok()).unwrap();
    assert_eq!(
        (json["splits"][0]["task"].as_str(), json["splits"][0]["num_classes"].as_u64()),
        (Some("multi-label"), Some(4))
    );
    assert_eq!(json["splits"][0]["classes"][3], serde_json::json!({ "name": "emu", "images": 0 }));
}
