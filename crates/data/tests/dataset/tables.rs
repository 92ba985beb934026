//! CSV and JSON-lines.

use std::path::Path;

use cardinal_data::{OpenOptions, Split, Task, open, splits};

use crate::support::{Folder, fails, listing};

const IMAGES: [&str; 4] = ["img/a.jpg", "img/b.jpg", "img/sub/c.png", "img/d.webp"];

#[test]
fn columns_are_found_by_their_usual_names_and_images_by_theirs() {
    let folder = Folder::with(&IMAGES);
    for text in [
        "filename,label\nimg/a.jpg,cat\nb,dog\nsub/c.png,cat\n\nd.webp,Ape\n",
        "Label;Path\ncat;\"a.jpg\"\ndog;b.jpg\ncat;c\n\"Ape\";./img/d.webp\n",
        "width\timage_id\tcategory\n1\ta\tcat\n2\tb\tdog\n3\tsub/c\tcat\n4\td\tApe\n",
    ] {
        folder.write("labels.csv", text);
        let found = folder.open("all").unwrap();
        assert_eq!(
            (found.classes().join(" "), found.task()),
            ("Ape cat dog".into(), Task::SingleLabel),
            "{text}"
        );
        assert_eq!(listing(found.as_ref()), "img/a.jpg=1 img/b.jpg=2 img/sub/c.png=1 img/d.webp=0");
        assert_eq!(found.describe(), "table labels.csv");
    }
    // The table itself is a path too.
    let table = folder.write("any.csv", "file,class\na.jpg,0\nb.jpg,1\n");
    let found = open(Some(&table), &Split::All, &OpenOptions::default()).unwrap();
    assert_eq!(listing(found.as_ref()), "img/a.jpg=0 img/b.jpg=1");
    let options = OpenOptions {
        labels: Some(folder.write("odd.tsv", "x\ty\tlabel\n1\ta.jpg\t7\n0\tb.jpg\t7\n")),
        image_column: Some("y".into()),
        label_column: Some("x".into()),
        ..OpenOptions::default()
    };
    assert_eq!(listing(folder.open_with("all", &options).unwrap().as_ref()), "img/a.jpg=1 img/b.jpg=0");
}

#[test]
fn numbers_sort_by_value_and_index_a_list() {
    let folder = Folder::with(&IMAGES);
    folder.write("labels.csv", "file,label\na,10\nb,9\nc,100\n");
    let found = folder.open("all").unwrap();
    assert_eq!(
        (found.classes().join(" "), listing(found.as_ref())),
        ("9 10 100".into(), "img/a.jpg=1 img/b.jpg=0 img/sub/c.png=2".into())
    );
    // Where classes are numbers, no other number is taken for an index.
    folder.write("classes.txt", "9\n10\n");
    folder.write("labels.csv", "file,label\na,10\nb,9\nc,1\n");
    fails(folder.open("all"), &["line 4: label 1 is out of range: 2 classes are known"]);
    folder.write("classes.txt", "x\ny\nz\n");
    folder.write("labels.csv", "file,label\na,2\nb,x\n");
    assert_eq!(listing(folder.open("all").unwrap().as_ref()), "img/a.jpg=2 img/b.jpg=0");
    folder.write("labels.csv", "file,label\na,2\nb,3\n");
    fails(folder.open("all"), &["labels.csv: line 3: label 3 is out of range: 3 classes are known"]);
    folder.write("labels.csv", "file,label\na,-1\nb,1\n");
    fails(folder.open("all"), &["line 2: label -1 is out of range"]);
    folder.write("labels.csv", "file,label\na,x\nb,w\n");
    fails(folder.open("all"), &["classes.txt does not have: w; add them to it"]);
}

#[test]
fn several_labels_are_told_by_separators_lists_and_columns() {
    let folder = Folder::with(&IMAGES);
    let expected = "img/a.jpg=0+2 img/b.jpg= img/sub/c.png=1";
    let csv = |text: &str, options: OpenOptions| {
        let options = OpenOptions { labels: Some(folder.write("t.csv", text)), ..options };
        let found = folder.open_with("all", &options).unwrap();
        assert_eq!((found.task(), found.classes().join(" ")), (Task::MultiLabel, "beach sky tree".into()));
        assert_eq!(listing(found.as_ref()), expected, "{text}");
    };
    csv("file,tags\na,tree|beach|tree\nb,\nc,sky\n", OpenOptions::default());
    csv("file,tags\na,tree; beach\nb,\nc,sky\n", OpenOptions::default());
    csv("file;tags\na;tree|beach\nb;\nc;sky\n", OpenOptions::default());
    csv(
        "file,tags\na,beach tree\nb,\nc,sky\n",
        OpenOptions { label_separator: Some(' '), ..OpenOptions::default() },
    );
    csv("file,beach,sky,tree\na,1,0,1\nb,0,0,0\nc,0,1.0,0\n", OpenOptions::default());
    let jsonl = r#"{"file_name": "a.jpg", "labels": ["tree", "beach"], "width": 3}
        {"file_name": "b.jpg", "labels": []}

        {"file_name": "sub/c.png", "labels": ["sky"]}"#;
    let options = OpenOptions { labels: Some(folder.write("t.jsonl", jsonl)), ..OpenOptions::default() };
    let found = folder.open_with("all", &options).unwrap();
    assert_eq!((found.task(), listing(found.as_ref())), (Task::MultiLabel, expected.into()));
    // One label each, and several possible all the same.
    let options = OpenOptions {
        labels: Some(folder.write("t.csv", "file,tags\na,x\nb,y\n")),
        task: Some(Task::MultiLabel),
        ..OpenOptions::default()
    };
    assert_eq!(folder.open_with("all", &options).unwrap().task(), Task::MultiLabel);
}

#[test]
fn splits_are_a_column_or_a_table_each() {
    let folder = Folder::with(&IMAGES);
    folder.write(
        "metadata.csv",
        "file_name,label,split\na.jpg,x,TRAIN\nb.jpg,y,validation\nc.png,z,Train\nd.webp,x,extra\n",
    );
    assert_eq!(
        splits(Some(folder.path()), &OpenOptions::default()).unwrap(),
        ["train", "validation", "extra"]
    );
    // All rows make the list of classes.
    let found = folder.open("val").unwrap();
    assert_eq!((found.classes().len(), listing(found.as_ref())), (3, "img/b.jpg=1".into()));
    assert_eq!(listing(folder.open("train").unwrap().as_ref()), "img/a.jpg=0 img/sub/c.png=2");
    assert_eq!(folder.open("extra").unwrap().describe(), "table metadata.csv, split 'extra'");

    let folder = Folder::with(&["train/1.jpg", "train/2.jpg", "val/1.jpg"]);
    folder.write("train.csv", "file,label\n1.jpg,b|c\n2.jpg,a\n");
    folder.write("val.csv", "file,label\n1.jpg,c\n");
    assert_eq!(listing(folder.open("train").unwrap().as_ref()), "train/1.jpg=1+2 train/2.jpg=0");
    // Which classes there are, and that there may be several, the training split says.
    assert_eq!(listing(folder.open("val").unwrap().as_ref()), "val/1.jpg=2");
    assert_eq!(folder.open("val").unwrap().task(), Task::MultiLabel);
    folder.write("train.csv", "file,label\n1.jpg,8\n2.jpg,9\n");
    folder.write("val.csv", "file,label\n1.jpg,1\n");
    fails(folder.open("val"), &["val.csv: line 2: label 1 is out of range: 2 classes are known"]);

    let folder = Folder::with(&["train/1.jpg", "train/2.jpg", "test/1.jpg"]);
    folder.write(
        "train/metadata.jsonl",
        "{\"file_name\": \"1.jpg\", \"label\": 0}\n{\"file_name\": \"2.jpg\", \"label\": 1}",
    );
    folder.write("test/metadata.jsonl", "{\"file_name\": \"1.jpg\", \"label\": 1}");
    assert_eq!(listing(folder.open("train").unwrap().as_ref()), "1.jpg=0 2.jpg=1");
    assert_eq!(listing(folder.open("val").unwrap().as_ref()), "1.jpg=1");
}

#[test]
fn what_tables_get_wrong_is_named() {
    let folder = Folder::with(&IMAGES);
    let check = |text: &str, texts: &[&str]| {
        folder.write("labels.csv", text);
        fails(folder.open("all"), &[&["labels.csv: "], texts].concat());
    };
    check(
        "file,label\na,0\nq.jpg,1\nimg/r,1\ns.jpg,0\nt.jpg,1\n",
        &["names images that do not exist: q.jpg, img/r, s.jpg and 1 more;"],
    );
    check("file,label\na,0\nb,1\nimg/a.jpg,1\n", &["line 4: img/a.jpg was named before"]);
    check("file,label\na,0\nb\n", &["line 3: 1 cells where the header has 2"]);
    check("file,label\na,0\n,1\n", &["line 3: the image's name is missing"]);
    check("file,label\na,0\nb,\n", &["images without exactly one label: line 3"]);
    check("file,label\na,\"0\n", &["line 2: a quote is opened"]);
    check("file,label\na,0\nb,0\n", &["only one class (0)"]);
    check("file,label\n", &["names no image"]);
    check("", &["names no image"]);
    check(
        "picture,label\na,0\n",
        &["has no column named image, file_name", "its columns are picture, label"],
    );
    check("file,colour\na,0\n", &["has no column named label", "its columns are file, colour"]);
    check("file,colour,size\na,0,3\n", &["has no column named label"]);
    check("file,label,split\na,0,train\nb,1,\n", &["line 3: the split's name is missing"]);
    folder.write("labels.csv", b"file,label\na,0\nb,caf\xE9\n");
    fails(folder.open("all"), &["labels.csv: line 3: not text in UTF-8"]);
    std::fs::remove_file(folder.path().join("labels.csv")).unwrap();
    let json = |text: &str, texts: &[&str]| {
        folder.write("labels.jsonl", text);
        fails(folder.open("all"), &[&["labels.jsonl: "], texts].concat());
    };
    json("{\"file\": \"a\", \"label\": 0}\n[1]", &["line 2: not a JSON object"]);
    json("{\"file\": \"a\"}", &["line 1: has no column named label", "its columns are file"]);
    json("{\"label\": 1}", &["line 1: has no column named image"]);
    json("{\"file\": \"a\", \"label\": {\"x\": 1}}", &["is neither a class nor a list of classes"]);
    json("{\"file\": \"a\", \"label\": 0.5}", &["0.5 is neither a class"]);
    let options = OpenOptions { label_column: Some("breed".into()), ..OpenOptions::default() };
    json("{\"file\": \"a\", \"label\": 0}\n", &["only one class (0)"]);
    fails(folder.open_with("all", &options), &["has no column 'breed'"]);
    let missing = OpenOptions { labels: Some(Path::new("/no/table.csv").into()), ..OpenOptions::default() };
    fails(folder.open_with("all", &missing), &["/no/table.csv: there is no such file"]);
}
