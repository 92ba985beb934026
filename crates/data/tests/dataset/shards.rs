//! Tar shards.

use std::fs;
use std::path::Path;

use cardinal_data::{OpenOptions, Split, Task, open, splits};
use proptest::prelude::*;

use crate::support::{Folder, bytes, fails, fixture, json, listing};

/// A tar file by the format's own definition.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn add(mut self, name: &str, data: &[u8]) -> Self {
        self.entry(name, b'0', data);
        self
    }

    fn entry(&mut self, name: &str, kind: u8, data: &[u8]) {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
        header[156] = kind;
        header[257..265].copy_from_slice(b"ustar\x0000");
        seal(&mut header);
        self.0.extend(header);
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

fn seal(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A shard with samples of these keys and classes.
fn shard(samples: &[(&str, &str)]) -> Vec<u8> {
    let add = |tar: Tar, (key, class): &(&str, &str)| {
        tar.add(&format!("{key}.jpg"), key.as_bytes()).add(&format!("{key}.cls"), class.as_bytes())
    };
    samples.iter().fold(Tar::default(), add).end()
}

#[test]
fn every_form_of_header_is_read_as_python_reads_it() {
    for case in json("shard.json").as_array().unwrap() {
        let path = fixture(case["file"].as_str().unwrap());
        let found = open(Some(&path), &Split::All, &OpenOptions::default()).unwrap();
        let text = |name: &str, index: usize| case[name][index].as_str().unwrap().to_owned();
        let number = |name: &str, index: usize| case[name][index].as_u64().unwrap();
        assert_eq!(found.classes().join(" "), "0 1 2 10");
        assert_eq!(found.len(), case["names"].as_array().unwrap().len());
        for index in 0..found.len() {
            let name = format!("{}/{}", case["file"].as_str().unwrap(), text("names", index));
            assert_eq!(found.name(index), name);
            assert_eq!(found.classes()[found.label(index).classes()[0] as usize], text("labels", index));
            let bytes = bytes(found.as_ref(), index);
            assert_eq!(bytes.len() as u64, number("sizes", index));
            assert_eq!(bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>(), number("sums", index));
        }
    }
}

#[test]
fn shards_are_read_in_the_order_of_their_names_and_know_their_stretches() {
    let folder = Folder::with(&[]);
    for (number, samples) in
        [(0, &[("a", "0"), ("b", "1")][..]), (1, &[]), (2, &[("c", "1")]), (10, &[("d", "2")])]
    {
        folder.write(&format!("shard-{number:03}.tar"), shard(samples));
    }
    let found = folder.open("all").unwrap();
    let expected = "shard-000.tar/a.jpg=0 shard-000.tar/b.jpg=1 shard-002.tar/c.jpg=1 shard-010.tar/d.jpg=2";
    assert_eq!((listing(found.as_ref()).as_str(), found.describe().as_str()), (expected, "4 tar shards"));
    assert_eq!(found.shards(), [0..2, 2..2, 2..3, 3..4]);
    assert_eq!((bytes(found.as_ref(), 2), bytes(found.as_ref(), 3)), (b"c".to_vec(), b"d".to_vec()));
    let open = |name: &str| open(Some(&folder.path().join(name)), &Split::All, &OpenOptions::default());
    assert_eq!(open("shard-{000..002}.tar").unwrap().len(), 3);
    assert_eq!(open("shard-0*.tar").unwrap().len(), 4);
    assert_eq!(open("shard-000.tar").unwrap().describe(), "1 tar shard");
    fails(open("shard-{000..003}.tar"), &["shard-003.tar: there is no such file"]);
    fails(open("other-*.tar"), &["other-*.tar: no image matches this pattern"]);
    fails(open("shard-{002..000}.tar"), &["there is no such file"]);
}

#[test]
fn splits_are_in_names_or_folders_and_share_the_training_splits_classes() {
    let train = shard(&[("a", "0"), ("b", "1"), ("c", "2")]);
    let val = shard(&[("d", "2")]);
    for names in [["in1k-train-00.tar", "in1k-validation-00.tar"], ["train/x.tar", "val/x.tar"]] {
        let folder = Folder::with(&[]);
        folder.write(names[0], &train);
        folder.write(names[1], &val);
        assert_eq!(splits(Some(folder.path()), &OpenOptions::default()).unwrap()[0], "train");
        assert_eq!(folder.open("train").unwrap().len(), 3);
        let found = folder.open("val").unwrap();
        assert_eq!((found.classes().len(), found.label(0).classes()), (3, &[2][..]), "{names:?}");
        folder.write("classes.txt", "x\ny\nz\nw\n");
        assert_eq!(folder.open("val").unwrap().classes().join(""), "xyzw");
    }
    let folder = Folder::with(&[]);
    folder.write("train-0.tar", &train);
    folder.write("more-0.tar", &val);
    fails(folder.open("train"), &["shards of split train", "shards of no split", "more-0.tar"]);
}

#[test]
fn labels_are_class_files_json_or_text() {
    let folder = Folder::with(&[]);
    let tar = Tar::default()
        .add("a.jpg", b"")
        .add("a.json", br#"{"label": "cat", "width": 3}"#)
        .add("b.txt", b"dog\n")
        .add("b.json", br#"{"width": 3}"#)
        .add("b.png", b"")
        .add("c.txt", b"a caption")
        .add("c.cls", b" cat ")
        .add("c.seg.png", b"not the image")
        .add("c.webp", b"")
        .add("__worker.yaml", b"ignored");
    folder.write("x.tar", tar.end());
    let found = folder.open("all").unwrap();
    assert_eq!((found.classes().join(" "), found.task()), ("cat dog".into(), Task::SingleLabel));
    assert_eq!(listing(found.as_ref()), "x.tar/a.jpg=0 x.tar/b.png=1 x.tar/c.webp=0");
    let tar = Tar::default()
        .add("a.jpg", b"")
        .add("a.json", br#"{"labels": ["cat", 3]}"#)
        .add("b.jpg", b"")
        .add("b.json", b"[]")
        .add("c.jpg", b"")
        .add("c.txt", b"dog\ncat\n");
    folder.write("x.tar", tar.end());
    let found = folder.open("all").unwrap();
    assert_eq!((found.classes().join(" "), found.task()), ("3 cat dog".into(), Task::MultiLabel));
    assert_eq!(listing(found.as_ref()), "x.tar/a.jpg=0+1 x.tar/b.jpg= x.tar/c.jpg=1+2");
}

#[test]
fn samples_that_lack_a_part_or_repeat_it_are_named() {
    let check = |tar: Tar, texts: &[&str]| {
        let folder = Folder::with(&[]);
        folder.write("x.tar", tar.end());
        fails(folder.open("all"), &[&["x.tar"], texts].concat());
    };
    let tar =
        ["a", "b", "c", "d"].iter().fold(Tar::default(), |tar, key| tar.add(&format!("{key}.jpg"), b""));
    check(tar, &["samples without a label (.cls, .json or .txt with the image's name): a, b, c and 1 more"]);
    check(Tar::default().add("a.cls", b"0"), &["samples without an image", ": a"]);
    check(Tar::default().add("a.jpg", b"").add("a.png", b""), &["a.png: the sample has an image already"]);
    check(Tar::default().add("a.jpg", b"").add("a.json", b"{"), &["a.json: not JSON"]);
    check(Tar::default().add("a.jpg", b"").add("a.cls", b"\xFF"), &["a.cls: not text in UTF-8"]);
    check(
        Tar::default().add("a.jpg", b"").add("a.cls", &vec![b'0'; 1 << 21]),
        &["2097152 bytes are too many"],
    );
    check(Tar::default().add("a.jpg", b"").add("a.cls", b"0"), &["only one class (0)"]);
    check(
        Tar::default().add("a.jpg", b"").add("a.cls", b"\n"),
        &["images without exactly one label: x.tar/a.jpg"],
    );
    check(Tar::default(), &["names no image with a label"]);
    let folder = Folder::with(&[]);
    folder.write("x.tar", shard(&[("a", "0"), ("b", "5")]));
    folder.write("classes.txt", "x\ny\n");
    fails(folder.open("all"), &["x.tar/b.jpg: label 5 is out of range: 2 classes are known"]);
}

#[test]
fn damaged_files_are_refused_with_the_place() {
    let good = shard(&[("a", "0"), ("b", "1")]);
    let check = |bytes: &[u8], texts: &[&str]| {
        let folder = Folder::with(&[]);
        folder.write("x.tar", bytes);
        fails(folder.open("all"), &[&["x.tar: damaged tar file, at byte "], texts].concat());
    };
    check(b"not a tar file at all", &["0: the file ends inside a header"]);
    check(&[b'x'; 2000], &["0: it does not start as one"]);
    check(&good[..512], &["0: the file ends before this entry does"]);
    check(&good[..1100], &["1024: the file ends inside a header"]);
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    check(&with(&|b| b[1024] ^= 1), &["1024: a header's checksum does not fit"]);
    let header = |change: &dyn Fn(&mut [u8])| {
        with(&|bytes| {
            change(&mut bytes[..512]);
            seal(&mut bytes[..512]);
        })
    };
    check(
        &header(&|h| h[124..136].copy_from_slice(b"77777777777\0")),
        &["0: the file ends before this entry does"],
    );
    check(&header(&|h| h[124..136].fill(0xFF)), &["0: the entry's size is not a number"]);
    check(
        &header(&|h| h[124..136].copy_from_slice(b"\x80\0\0\0\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF")),
        &["0: the file ends before"],
    );
    check(&header(&|h| h[124] = b'9'), &["0: the entry's size is not a number"]);
    check(&header(&|h| h[156] = b'S'), &["sparse files are not read"]);
    check(&header(&|h| h[156] = b'x'), &["a pax header that makes no sense"]);
    let mut long = Tar::default();
    long.entry("././@LongLink", b'L', &vec![b'a'; (1 << 20) + 1]);
    check(&long.end(), &["a name of more than a megabyte"]);
    let mut pax = Tar::default();
    pax.entry("x", b'x', b"20 size=99999999999\n");
    check(&pax.add("a.jpg", b"x").end(), &["1024: the file ends before this entry does"]);
}

#[test]
fn a_missing_end_and_missing_padding_are_forgiven() {
    let good = shard(&[("a", "0"), ("b", "1")]);
    let folder = Folder::with(&[]);
    // The last block holds one byte of the last label.
    for length in [good.len() - 1024, good.len() - 1024 - 511] {
        folder.write("x.tar", &good[..length]);
        assert_eq!(folder.open("all").unwrap().len(), 2);
    }
}

#[test]
fn a_shard_that_changes_after_opening_gives_an_error_or_its_bytes() {
    let folder = Folder::with(&[]);
    let path = folder.write("x.tar", shard(&[("a", "0"), ("b", "1")]));
    let found = folder.open("all").unwrap();
    fs::write(&path, b"short").unwrap();
    assert!(bytes(found.as_ref(), 1).is_empty());
    fs::remove_file(&path).unwrap();
    assert!(found.read(1).unwrap_err().to_string().contains("x.tar: there is no such file"));
    let limit = OpenOptions { max_file_bytes: 0, ..OpenOptions::default() };
    fs::write(&path, shard(&[("a", "0"), ("b", "1")])).unwrap();
    let error = folder.open_with("all", &limit).unwrap().read(0).unwrap_err().to_string();
    assert!(error.contains("x.tar/a.jpg: larger than 0 bytes"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever the bytes are, opening ends, with an error or a dataset that can be read.
    #[test]
    fn flipped_bytes_never_break_the_reader(
        changes in prop::collection::vec((0_usize..3000, any::<u8>()), 1..4),
        cut in 0_usize..6000,
        seal_again: bool,
    ) {
        let mut pax = Tar::default();
        pax.entry("h", b'x', b"19 path=dir/c.jpg\n\n");
        pax.entry("l", b'L', b"dir/long.jpg\0");
        let mut bytes = pax.add("a.jpg", b"123").add("a.cls", b"1").add("b.jpg", b"1").add("b.cls", b"2").end();
        for (at, value) in changes {
            let length = bytes.len();
            bytes[at % length] = value;
        }
        if seal_again {
            let headers = bytes.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar");
            headers.for_each(seal);
        }
        bytes.truncate(cut.max(1));
        let folder = Folder::with(&[]);
        let path = folder.write("x.tar", &bytes);
        if let Ok(found) = open(Some(Path::new(&path)), &Split::All, &OpenOptions::default()) {
            for index in 0..found.len() {
                prop_assert!(found.read(index).is_ok());
            }
        }
    }
}
