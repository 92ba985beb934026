//! Checkpoints as files: which one a run continues from, which are kept, and what damaged ones are told.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use cardinal_train::TrainError;
use cardinal_train::checkpoint::{About, BEST, Checkpoint, Folder, LAST, Progress, Score};
use cardinal_train::recipe::Recipe;
use cardinal_train::step::StepState;
use cardinal_weights::{NamedTensors, Tensor, read_with, write_safetensors};
use std::fs;
use std::path::Path;
use tempfile::tempdir;

fn tensors(value: f32) -> NamedTensors {
    [("fc.weight", Tensor::from_f32(vec![2, 2], &[value; 4]).unwrap())].into_iter().collect()
}

fn at(epoch: usize, batch: usize, value: f32) -> Checkpoint {
    Checkpoint {
        state: StepState {
            model: tensors(value),
            ema: Some(tensors(-value)),
            optimizer: [("first.fc.weight", Tensor::from_f32(vec![2, 2], &[0.5; 4]).unwrap())]
                .into_iter()
                .collect(),
            updates: 7,
        },
        progress: Progress { epoch, batch, seconds: 0.1 + 0.2, ..Progress::default() },
        recipe: Recipe::load("digits").unwrap(),
        about: About {
            model: "m".into(),
            classes: vec!["a".into(), "b \"q\"".into()],
            multi_label: true,
            preprocessing: "{}".into(),
        },
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_checkpoint_reads_back_and_serves_as_plain_weights() {
    let folder = tempdir().unwrap();
    let path = folder.path().join(LAST);
    let written = at(3, 4, 1.5);
    written.write(&path).unwrap();
    assert_eq!(Checkpoint::read(&path).unwrap(), written);
    for (ema, value) in [(false, 1.5), (true, -1.5)] {
        let options = cardinal_weights::ReadOptions { ema, key: None };
        let weights = read_with(&path, &options).unwrap();
        assert_eq!(weights.tensors, tensors(value));
        assert_eq!(
            (weights.info.is_ema, weights.info.epoch, weights.info.num_classes),
            (ema, Some(3), Some(2))
        );
        assert_eq!(weights.info.classes.as_ref(), Some(&written.about.classes));
    }
}

#[test]
fn a_run_continues_from_its_furthest_checkpoint() {
    let place = tempdir().unwrap();
    let folder = Folder::create(&place.path().join("run")).unwrap();
    assert!(!folder.has_checkpoint());
    assert!(matches!(Folder::resume(folder.path()), Err(TrainError::Checkpoint { .. })));
    folder.save_recovery(&at(0, 3, 1.0)).unwrap();
    folder.save_recovery(&at(0, 12, 2.0)).unwrap();
    assert_eq!(names(folder.path()), ["recovery-0-12.safetensors"]);
    assert_eq!(Folder::resume(folder.path()).unwrap().1, at(0, 12, 2.0));
    folder.save(&at(1, 0, 3.0)).unwrap();
    assert_eq!(names(folder.path()), [LAST], "the end of an epoch makes recovery needless");
    folder.save_recovery(&at(1, 2, 4.0)).unwrap();
    at(1, 1, 3.5).write(&folder.path().join("recovery-1-1.safetensors")).unwrap();
    // Killed again as soon as it goes on, the run loses nothing.
    for _ in 0..2 {
        let (folder, found) = Folder::resume(folder.path()).unwrap();
        assert_eq!(found, at(1, 2, 4.0));
        folder.settle(&found.progress).unwrap();
        assert_eq!(names(folder.path()), [LAST, "recovery-1-2.safetensors"]);
    }
    let last = folder.path().join(LAST);
    assert_eq!(Folder::resume(&last).unwrap().1, at(1, 0, 3.0), "a file that is named is taken");
}

#[test]
fn the_best_are_kept_also_if_the_run_is_stopped_before_it_has_settled() {
    let place = tempdir().unwrap();
    let folder = Folder::create(place.path()).unwrap();
    let score = |epoch, value| Score { epoch, value, averaged: false };
    let with = |epoch, kept: Vec<Score>| {
        let mut checkpoint = at(epoch, 0, epoch as f32);
        checkpoint.progress.best = kept.first().copied();
        checkpoint.progress.kept = kept;
        checkpoint
    };
    folder.save(&with(1, vec![score(1, 50.0)])).unwrap();
    folder.save(&with(2, vec![score(2, 70.0), score(1, 50.0)])).unwrap();
    folder.save(&with(3, vec![score(2, 70.0), score(3, 60.0)])).unwrap();
    let three = ["checkpoint-2.safetensors", "checkpoint-3.safetensors", LAST, BEST];
    assert_eq!(names(folder.path()), three);
    assert_eq!(Checkpoint::read(&folder.path().join(BEST)).unwrap().progress.epoch, 2);
    // Killed between the write of 'last' and the rest.
    with(4, vec![score(4, 80.0), score(2, 70.0)]).write(&folder.path().join(LAST)).unwrap();
    let (folder, found) = Folder::resume(folder.path()).unwrap();
    folder.settle(&found.progress).unwrap();
    let four = ["checkpoint-2.safetensors", "checkpoint-4.safetensors", LAST, BEST];
    assert_eq!(names(folder.path()), four);
    assert_eq!(Checkpoint::read(&folder.path().join(BEST)).unwrap().progress.epoch, 4);
}

#[test]
fn what_is_no_checkpoint_is_told_apart() {
    let folder = tempdir().unwrap();
    let path = folder.path().join(LAST);
    let error = || Checkpoint::read(&path).unwrap_err();
    assert!(error().to_string().contains(LAST), "a missing file is named");
    at(1, 0, 1.0).write(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    for length in [0, 7, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = error();
        assert!(matches!(error, TrainError::Weights(_)), "{length}: {error}");
        assert!(error.to_string().contains(LAST), "{error}");
    }
    write_safetensors(&path, &tensors(1.0), &Default::default()).unwrap();
    assert!(error().to_string().contains("no run to continue"), "{}", error());
}

#[test]
fn a_checkpoint_that_cannot_be_written_leaves_the_old_one() {
    let place = tempdir().unwrap();
    let folder = Folder::create(&place.path().join("run")).unwrap();
    folder.save(&at(1, 0, 1.0)).unwrap();
    // A folder in the way of the new name fails as late as can be: at the rename.
    let path = place.path().join("taken");
    fs::create_dir_all(path.join("inside")).unwrap();
    let error = at(2, 0, 2.0).write(&path).unwrap_err();
    assert!(matches!(error, TrainError::Save(_)) && error.to_string().contains("taken"), "{error}");
    assert_eq!(names(place.path()), ["run", "taken"], "nothing temporary is left");
    assert_eq!(Folder::resume(folder.path()).unwrap().1, at(1, 0, 1.0));
}
