//! What is written can be read, and nothing half written is left.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use cardinal_weights::{DType, NamedTensors, Tensor, read, write_safetensors};
use std::collections::BTreeMap;
use std::fs;

fn tensors() -> NamedTensors {
    let half = Tensor::new(DType::F16, vec![3], vec![0, 0x3c, 0, 0x40, 0, 0x42]).unwrap();
    let mut all = NamedTensors::new();
    all.insert("fc.weight", Tensor::from_f32(vec![2, 3], &[1., 2., 3., 4., 5., 6.]).unwrap());
    all.insert("odd \"name\"\u{e9}", half);
    all.insert("bn1.num_batches_tracked", Tensor::scalar_i64(5));
    all.insert("empty", Tensor::from_f32(vec![0, 4], &[]).unwrap());
    all
}

fn metadata() -> BTreeMap<String, String> {
    BTreeMap::from([("arch".to_owned(), "resnest14d".to_owned())])
}

#[test]
fn a_written_file_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    write_safetensors(&path, &tensors(), &metadata()).unwrap();
    let back = read(&path).unwrap();
    assert_eq!(back.tensors.len(), 4);
    for (name, tensor) in tensors().iter() {
        assert_eq!(back.tensors.get(name), Some(tensor), "{name}");
    }
    assert_eq!(back.info.arch.as_deref(), Some("resnest14d"));
    assert_eq!(back.info.metadata["format"], "pt");
}

#[test]
fn equal_tensors_give_equal_bytes_and_replace_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    fs::write(&path, "old").unwrap();
    write_safetensors(&path, &tensors(), &metadata()).unwrap();
    let first = fs::read(&path).unwrap();
    let reversed: NamedTensors = tensors().into_iter().rev().collect();
    write_safetensors(&path, &reversed, &metadata()).unwrap();
    assert_eq!(first, fs::read(&path).unwrap());
    let header = u64::from_le_bytes(*first.first_chunk().unwrap());
    assert_eq!(header % 8, 0, "the data starts aligned");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_failed_write_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let taken = dir.path().join("model.safetensors");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("file"), "").unwrap();
    let error = write_safetensors(&taken, &tensors(), &metadata()).unwrap_err();
    assert_eq!(error.place, taken.display().to_string());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "only the folder that was in the way");

    let absent = dir.path().join("absent/model.safetensors");
    assert!(write_safetensors(&absent, &tensors(), &metadata()).is_err());
}

#[test]
fn the_reserved_name_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let all: NamedTensors = [("__metadata__", Tensor::scalar_i64(0))].into_iter().collect();
    assert!(write_safetensors(&dir.path().join("x"), &all, &metadata()).is_err());
}
