//! A folder per class.

use cardinal_data::{OpenOptions, Split, open, splits};

use crate::support::{Folder, bytes, fails, json, listing, samples};

#[test]
fn classes_and_order_are_those_of_torchvision() {
    for (number, case) in json("folders.json").as_array().unwrap().iter().enumerate() {
        let folder = Folder::with(&[]);
        for file in case["files"].as_array().unwrap() {
            folder.write(file.as_str().unwrap(), file.as_str().unwrap());
        }
        let found = folder.open("all").unwrap();
        let expected: Vec<(String, u32)> = serde_json::from_value(case["samples"].clone()).unwrap();
        assert_eq!(serde_json::json!(found.classes()), case["classes"], "case {number}");
        assert_eq!(samples(found.as_ref()), expected, "case {number}");
        for (index, (name, _)) in expected.iter().enumerate() {
            assert_eq!(bytes(found.as_ref(), index), name.as_bytes());
        }
    }
}

const SPLIT: [&str; 6] = [
    "train/cat/1.jpg",
    "train/dog/1.jpg",
    "train/emu/1.jpg",
    "val/dog/2.png",
    "val/emu/3.png",
    "test/emu/4.gif",
];

#[test]
fn splits_are_folders_and_share_the_training_splits_classes() {
    let folder = Folder::with(&SPLIT);
    let found = folder.open("train").unwrap();
    assert_eq!(
        (found.classes().join(" "), found.describe()),
        ("cat dog emu".into(), "image folder, split 'train'".into())
    );
    assert_eq!(listing(found.as_ref()), "cat/1.jpg=0 dog/1.jpg=1 emu/1.jpg=2");
    for name in ["val", "validation", "Val"] {
        let found = folder.open(name).unwrap();
        assert_eq!((found.classes().len(), listing(found.as_ref())), (3, "dog/2.png=1 emu/3.png=2".into()));
    }
    assert_eq!(listing(folder.open("test").unwrap().as_ref()), "emu/4.gif=2");
    assert_eq!(splits(Some(folder.path()), &OpenOptions::default()).unwrap(), ["train", "test", "val"]);
    fails(folder.open("other"), &["has no split 'other'", "train, test, val"]);
    fails(folder.open("all"), &["has no split 'all'"]);
    // The path of one split's folder is as good.
    let val = |split: &str| {
        open(Some(&folder.path().join("val")), &Split::from_name(split), &OpenOptions::default())
    };
    assert_eq!((val("val").unwrap().classes().len(), val("all").unwrap().len()), (3, 2));
    fails(val("train"), &["has no split 'train'", "it has val"]);
}

#[test]
fn a_folder_of_any_name_is_a_split_beside_train() {
    let folder = Folder::with(&SPLIT);
    folder.write("night/cat/5.jpg", "x");
    assert_eq!(listing(folder.open("night").unwrap().as_ref()), "cat/5.jpg=0");
}

#[test]
fn only_test_beside_train_is_what_val_means() {
    let folder = Folder::with(&["training/a/1.jpg", "training/b/1.jpg", "test/a/2.jpg"]);
    assert_eq!(listing(folder.open("val").unwrap().as_ref()), "a/2.jpg=0");
}

#[test]
fn folders_named_as_splits_may_be_classes() {
    let folder = Folder::with(&["test/1.jpg", "practice/1.jpg"]);
    assert_eq!(listing(folder.open("all").unwrap().as_ref()), "practice/1.jpg=0 test/1.jpg=1");
}

#[test]
fn a_class_list_orders_the_classes() {
    let folder = Folder::with(&["cat/1.jpg", "dog/1.jpg"]);
    folder.write("classes.txt", "\u{FEFF}dog\r\nemu\r\ncat\r\n\r\n");
    let found = folder.open("all").unwrap();
    assert_eq!(
        (found.classes().join(" "), listing(found.as_ref())),
        ("dog emu cat".into(), "cat/1.jpg=2 dog/1.jpg=0".into())
    );
    for json in [r#"["dog", "cat"]"#, r#"{"cat": 1, "dog": 0}"#] {
        let class_map = Some(folder.write("map.json", json));
        let found = folder.open_with("all", &OpenOptions { class_map, ..OpenOptions::default() }).unwrap();
        assert_eq!(found.classes().join(" "), "dog cat");
    }
    let wrong = |text: &str, texts: &[&str]| {
        let class_map = Some(folder.write("map.json", text));
        fails(folder.open_with("all", &OpenOptions { class_map, ..OpenOptions::default() }), texts);
    };
    wrong(r#"{"cat": 1, "dog": 2}"#, &["map.json", "dog: 2 is not an index"]);
    wrong(r#"{"cat": 0, "dog": 0}"#, &["is not an index that is used once"]);
    wrong("[1, 2]", &["1 is not a name"]);
    wrong("3", &["neither a list"]);
    wrong("[", &["not a usable class list"]);
    folder.write("classes.txt", "dog\ndog");
    fails(folder.open("all"), &["classes.txt: line 2", "dog was named before"]);
    folder.write("classes.txt", "dog\n\ncat");
    fails(folder.open("all"), &["line 2", "missing"]);
    folder.write("classes.txt", "\n");
    fails(folder.open("all"), &["names no class"]);
    folder.write("classes.txt", "dog\nemu\n");
    fails(folder.open("all"), &["classes that ", "classes.txt does not have: cat"]);
}

#[test]
fn what_cannot_be_a_dataset_is_named() {
    fails(Folder::with(&[]).open("train"), &["the folder is empty", "docs/data.md"]);
    fails(Folder::with(&["cat/notes.txt", "dog/notes.txt"]).open("train"), &["holds no image"]);
    fails(Folder::with(&["notes.txt"]).open("train"), &["holds no image"]);
    fails(Folder::with(&["cat/1.jpg"]).open("all"), &["has only one class (cat)"]);
    fails(Folder::with(&["train/cat/1.jpg", "val/cat/1.jpg"]).open("train"), &["only one class (cat)"]);
    fails(
        Folder::with(&["cat/1.jpg", "dog/1.txt", "emu/1.jpg", "eel/.x.jpg"]).open("all"),
        &["class folders without any image: dog, eel;"],
    );
    let stray = ["cat/1.jpg", "dog/1.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg"];
    fails(Folder::with(&stray).open("all"), &["have no class: 1.jpg, 2.jpg, 3.jpg and 1 more"]);
    fails(
        Folder::with(&["train/cat/1.jpg", "train/dog/1.jpg", "val/cow/1.jpg"]).open("val"),
        &["classes that the training split does not have: cow"],
    );
    let nowhere = std::path::Path::new("/no/such/folder");
    fails(
        open(Some(nowhere), &Split::Train, &OpenOptions::default()),
        &["/no/such/folder: there is no such"],
    );
    let folder = Folder::with(&["data.zip", "notes.md", "data_batch_1.bin", "x.tar.gz"]);
    for (name, text) in [
        ("data.zip", "unpack it first"),
        ("x.tar.gz", "unpack it first"),
        ("notes.md", "a single file"),
        ("data_batch_1.bin", "give the folder"),
    ] {
        let path = folder.path().join(name);
        fails(
            open(Some(&path), &Split::Train, &OpenOptions::default()),
            &[name, text, "it reads a folder of images"],
        );
    }
}

#[test]
fn two_layouts_in_one_folder_are_refused() {
    let images = ["cat/1.jpg", "dog/1.jpg"];
    let mixed = |file: &str, texts: &[&str]| {
        let folder = Folder::with(&images);
        folder.write(file, "x");
        fails(folder.open("train"), &[&["holds two kinds of data", "1.jpg"], texts].concat());
    };
    mixed("a.tar", &["tar shards (a.tar)"]);
    mixed("data_batch_1.bin", &["CIFAR-10's binary files"]);
    mixed("train-images-idx3-ubyte.gz", &["IDX files (train-images-idx3-ubyte.gz)"]);
    fails(Folder::with(&["a.tar", "test_batch.bin"]).open("train"), &["CIFAR-10's", "tar shards (a.tar)"]);
}

#[test]
fn a_file_over_the_limit_and_a_vanished_one_are_named() {
    let folder = Folder::with(&["cat/1.jpg", "dog/1.jpg"]);
    let options = OpenOptions { max_file_bytes: 4, ..OpenOptions::default() };
    let found = folder.open_with("all", &options).unwrap();
    let message = found.read(0).unwrap_err().to_string();
    assert!(message.contains("cat/1.jpg: larger than 4 bytes"), "{message}");
    std::fs::remove_file(folder.path().join("dog/1.jpg")).unwrap();
    assert!(found.read(1).unwrap_err().to_string().contains("dog/1.jpg: there is no such file"));
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_circles_end() {
    let folder = Folder::with(&["cat/1.jpg", "dog/1.jpg", "dog/.hidden/2.jpg"]);
    std::os::unix::fs::symlink(folder.path().join("cat"), folder.path().join("dog/more")).unwrap();
    std::os::unix::fs::symlink(folder.path(), folder.path().join("cat/circle")).unwrap();
    let found = folder.open("all").unwrap();
    assert!(found.len() < 12, "{}", listing(found.as_ref()));
    assert!(listing(found.as_ref()).contains("dog/more/1.jpg=1"));
}
