//! CIFAR's and MNIST's binary files.

use std::fs;
use std::io::Write;

use cardinal_data::{Dataset, OpenOptions, RgbImage};

use crate::support::{Folder, fails, fixture, json, listing};

fn image(dataset: &dyn Dataset, index: usize) -> RgbImage {
    dataset.read(index).unwrap().picture.decode(&Default::default()).unwrap().into_owned()
}

/// A record of CIFAR: labels, then planes whose values tell the number, the channel and the place.
fn record(labels: &[u8], number: usize) -> Vec<u8> {
    let planes = (0..3072_usize).map(|at| (number * 7 + at / 1024 * 50 + at % 1024) as u8);
    labels.iter().copied().chain(planes).collect()
}

fn ten() -> Folder {
    let folder = Folder::with(&[]);
    for batch in 1..=5 {
        let records = [record(&[batch], 2 * usize::from(batch)), record(&[9], 2 * usize::from(batch) + 1)];
        folder.write(&format!("cifar-10-batches-bin/data_batch_{batch}.bin"), records.concat());
    }
    folder.write("cifar-10-batches-bin/test_batch.bin", record(&[0], 0));
    folder
}

#[test]
fn cifar_10_is_read_record_by_record() {
    let folder = ten();
    let train = folder.open("train").unwrap();
    assert_eq!(
        (train.len(), train.classes()[9].as_str(), train.describe().as_str()),
        (10, "truck", "CIFAR-10, split 'train'")
    );
    assert_eq!(train.label(2).classes(), [2]);
    assert_eq!((train.name(2), train.name(9)), ("data_batch_2.bin[0]".into(), "data_batch_5.bin[1]".into()));
    for index in 0..10 {
        let image = image(train.as_ref(), index);
        assert_eq!((image.width(), image.height()), (32, 32));
        for (at, pixel) in image.pixels().chunks_exact(3).enumerate() {
            let expected: [u8; 3] = std::array::from_fn(|c| ((index + 2) * 7 + c * 50 + at) as u8);
            assert_eq!(pixel, expected, "image {index}, pixel {at}");
        }
    }
    assert_eq!(listing(folder.open("val").unwrap().as_ref()), "test_batch.bin[0]=0");
    folder.write("cifar-10-batches-bin/batches.meta.txt", "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n");
    assert_eq!(folder.open("test").unwrap().classes().concat(), "abcdefghij");
}

#[test]
fn cifar_100_takes_the_fine_label() {
    let folder = Folder::with(&[]);
    folder.write("train.bin", [record(&[3, 99], 0), record(&[0, 1], 1)].concat());
    folder.write("test.bin", record(&[19, 50], 0));
    assert_eq!(listing(folder.open("train").unwrap().as_ref()), "train.bin[0]=99 train.bin[1]=1");
    let test = folder.open("test").unwrap();
    assert_eq!((test.classes().len(), test.describe().as_str()), (100, "CIFAR-100, split 'test'"));
    assert_eq!(image(test.as_ref(), 0).pixels()[..3], [0, 50, 100]);
    folder.write("fine_label_names.txt", "apple\nbear\n");
    fails(folder.open("train"), &["train.bin", "record 0: label 99 is out of range: 2 classes are known"]);
}

#[test]
fn cifar_files_of_a_wrong_length_or_label_are_named() {
    let folder = ten();
    let path = "cifar-10-batches-bin/data_batch_3.bin";
    folder.write(path, &record(&[0], 0)[1..]);
    fails(folder.open("train"), &["data_batch_3.bin: is 3072 bytes long", "records of 3073"]);
    folder.write(path, "");
    fails(folder.open("train"), &["data_batch_3.bin: is 0 bytes long"]);
    folder.write(path, [record(&[0], 0), record(&[10], 0)].concat());
    fails(folder.open("train"), &["data_batch_3.bin: record 1: label 10 is out of range: 10 classes"]);
    fs::remove_file(folder.path().join(path)).unwrap();
    fails(folder.open("train"), &["data_batch_3.bin: there is no such file"]);
    assert_eq!(folder.open("test").unwrap().len(), 1);
}

fn idx(shape: &[u32], values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, shape.len() as u8];
    shape.iter().for_each(|side| bytes.extend(side.to_be_bytes()));
    bytes.extend(values);
    bytes
}

#[test]
fn idx_files_are_read_as_torchvision_reads_them() {
    let folder = Folder::with(&[]);
    for name in ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"] {
        folder.write(&format!("MNIST/raw/{name}"), fs::read(fixture(name)).unwrap());
    }
    let expected = json("idx.json");
    let images: Vec<Vec<Vec<u8>>> = serde_json::from_value(expected["images"].clone()).unwrap();
    let labels: Vec<u32> = serde_json::from_value(expected["labels"].clone()).unwrap();
    let found = folder.open("all").unwrap();
    assert_eq!(found.classes().join(" "), "1 2 3 4 5 9");
    for (index, (expected, label)) in images.iter().zip(&labels).enumerate() {
        let image = image(found.as_ref(), index);
        assert_eq!((image.width(), image.height()), (4, 5));
        let grey: Vec<u8> = expected.concat().into_iter().flat_map(|value| [value; 3]).collect();
        assert_eq!(image.pixels(), grey);
        assert_eq!(found.classes()[found.label(index).classes()[0] as usize], label.to_string());
    }
    assert_eq!(found.name(6), "train-images-idx3-ubyte.gz[6]");
}

#[test]
fn idx_splits_share_classes_and_may_lie_unpacked_beside_their_archives() {
    let folder = Folder::with(&[]);
    folder.write("train-images-idx3-ubyte", idx(&[3, 1, 2], &[1, 2, 3, 4, 5, 6]));
    folder.write("train-images-idx3-ubyte.gz", "left over");
    folder.write("train-labels-idx1-ubyte", idx(&[3], &[0, 2, 1]));
    folder.write("t10k-images.idx3-ubyte", idx(&[1, 1, 2], &[7, 8]));
    folder.write("t10k-labels.idx1-ubyte", idx(&[1], &[2]));
    assert_eq!(folder.open("train").unwrap().len(), 3);
    let test = folder.open("val").unwrap();
    assert_eq!(
        (test.classes().len(), test.label(0).classes(), test.describe().as_str()),
        (3, &[2][..], "IDX files, split 'test'")
    );
    folder.write("t10k-labels.idx1-ubyte", idx(&[1], &[3]));
    fails(folder.open("val"), &["t10k-labels.idx1-ubyte: image 0: label 3 is out of range: 3 classes"]);
}

#[test]
fn idx_files_that_are_wrong_are_named() {
    let good_labels = idx(&[2], &[0, 1]);
    let check = |images: &[u8], labels: &[u8], texts: &[&str]| {
        let folder = Folder::with(&[]);
        folder.write("train-images-idx3-ubyte", images);
        folder.write("train-labels-idx1-ubyte", labels);
        fails(folder.open("all"), texts);
    };
    let images = idx(&[2, 1, 1], &[5, 6]);
    check(&images[..17], &good_labels, &["train-images", "is 17 bytes long where 18 by its header are due"]);
    check(&[&images[..], b"xyz"].concat(), &good_labels, &["is 21 bytes long where 18"]);
    check(&images[..9], &good_labels, &["train-images", "ends inside its header"]);
    check(b"", &good_labels, &["ends inside its header"]);
    check(b"\x89PNG....", &good_labels, &["not a usable IDX file (it does not start as one)"]);
    check(b"\0\0\x0D\x01\0\0\0\0", &good_labels, &["values of type 13, only bytes are read"]);
    check(&idx(&[u32::MAX, u32::MAX, u32::MAX], &[]), &good_labels, &["its header promises"]);
    check(&idx(&[30_000, 300, 200], &[]), &good_labels, &["is 16 bytes long where 1800000016"]);
    check(&images, &idx(&[3], &[0, 1, 0]), &["train-labels", "3 labels for 2 images"]);
    check(&images, &idx(&[2], &[4, 4]), &["train-labels", "only one class (4)"]);
    check(&images, &images, &["labels have 1 axis, these 3"]);
    check(&good_labels, &good_labels, &["images have 3 axes, these 1"]);
    check(&idx(&[0, 28, 28], &[]), &idx(&[0], &[]), &["holds no image"]);
    let folder = Folder::with(&[]);
    folder.write("train-images-idx3-ubyte.gz", "not gzip");
    fails(folder.open("all"), &["train-images-idx3-ubyte.gz", "ends inside its header"]);
    let whole = idx(&[2, 1, 1], &[5, 6]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&whole).unwrap();
    folder.write("train-images-idx3-ubyte.gz", gzip.finish().unwrap());
    fails(folder.open("all"), &["train-labels-idx1-ubyte: there is no such file"]);
    folder.write("train-labels-idx1-ubyte", good_labels);
    assert_eq!(folder.open_with("all", &OpenOptions::default()).unwrap().len(), 2);
}
