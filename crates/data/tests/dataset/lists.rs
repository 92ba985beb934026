//! Text files that list the images of a split.

use cardinal_data::OpenOptions;

use crate::support::{Folder, fails, listing};

const IMAGES: [&str; 5] =
    ["images/pie/1.jpg", "images/pie/2.jpg", "images/tart/1.jpg", "images/tart/3.png", "images/soup/9.jpg"];

#[test]
fn lists_name_images_with_or_without_folder_and_extension() {
    let folder = Folder::with(&IMAGES);
    folder.write("train.txt", "\u{FEFF}images/pie/1.jpg\r\n\r\ntart/3\r\nsoup/9.jpg\r\n");
    folder.write("test.txt", "./images/pie/2\ntart/1");
    let train = folder.open("train").unwrap();
    // The class is the folder below those that all images share.
    assert_eq!(train.classes().join(" "), "pie soup tart");
    assert_eq!(listing(train.as_ref()), "images/pie/1.jpg=0 images/tart/3.png=2 images/soup/9.jpg=1");
    assert_eq!(train.describe(), "list train.txt");
    assert_eq!(listing(folder.open("val").unwrap().as_ref()), "images/pie/2.jpg=0 images/tart/1.jpg=2");
}

#[test]
fn lists_may_give_labels() {
    let folder = Folder::with(&["a/one two.jpg", "a/1.jpg", "a/2.jpg"]);
    folder.write("train.txt", "a/one two.jpg 1\na/1.jpg 0\n");
    folder.write("val.txt", "a/2.jpg\t1");
    assert_eq!(listing(folder.open("train").unwrap().as_ref()), "a/one two.jpg=1 a/1.jpg=0");
    assert_eq!(listing(folder.open("val").unwrap().as_ref()), "a/2.jpg=1");
    folder.write("val.txt", "a/2.jpg 2");
    fails(folder.open("val"), &["val.txt: a/2.jpg: label 2 is out of range: 2 classes are known"]);
    folder.write("val.txt", "a/2.jpg 1\na/1.jpg");
    fails(folder.open("val"), &["val.txt: line 2: some lines have a label and some have none"]);
    folder.write("classes.txt", "x\ny\n");
    folder.write("val.txt", "a/2.jpg y");
    assert_eq!(listing(folder.open("val").unwrap().as_ref()), "a/2.jpg=1");
}

#[test]
fn a_given_list_is_the_split() {
    let folder = Folder::with(&IMAGES);
    let split_file = Some(folder.write("meta/mine.txt", "pie/1\nsoup/9\n"));
    let options = OpenOptions { split_file, ..OpenOptions::default() };
    for split in ["train", "val", "all"] {
        let found = folder.open_with(split, &options).unwrap();
        assert_eq!((found.len(), found.classes().len()), (2, 3));
    }
}

#[test]
fn what_lists_get_wrong_is_named() {
    let folder = Folder::with(&IMAGES);
    let check = |text: &str, texts: &[&str]| {
        folder.write("train.txt", text);
        fails(folder.open("train"), &[&["train.txt: "], texts].concat());
    };
    check(
        "pie/1\npie/7\nx\ny\n../z.jpg\nw 3",
        &["names images that do not exist: pie/7, x, y and 2 more; correct the names"],
    );
    check("1.jpg", &["do not exist", "1.jpg"]);
    check("pie/1\ntart/3\nimages/pie/1.jpg", &["line 3: images/pie/1.jpg was named before"]);
    check("\n \n", &["names no image"]);
}
