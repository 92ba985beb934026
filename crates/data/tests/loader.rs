//! The loader: the same batches whatever the workers do, exact restart, bounded memory, broken images, panics.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cardinal_data::{
    Batch, DataError, DataErrorKind, Dataset, Decoder, Label, Loader, LoaderError, LoaderOptions, Mix,
    Picture, Prepare, Preprocess, Random, RgbImage, Sample, Task,
};
use proptest::prelude::*;

/// Images of one pixel that say their number.
#[derive(Default)]
struct Numbers {
    len: usize,
    classes: Vec<String>,
    broken: BTreeSet<usize>,
    many: bool,
    shards: Vec<Range<usize>>,
}

impl Numbers {
    fn new(len: usize) -> Self {
        Self { len, classes: (0..4).map(|class| format!("class {class}")).collect(), ..Self::default() }
    }
}

impl Dataset for Numbers {
    fn len(&self) -> usize {
        self.len
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn task(&self) -> Task {
        if self.many { Task::MultiLabel } else { Task::SingleLabel }
    }

    fn read(&self, index: usize) -> Result<Sample, DataError> {
        let picture = if self.broken.contains(&index) {
            Picture::Encoded { name: PathBuf::from(format!("{index}.jpg")), bytes: vec![1, 2, 3] }
        } else {
            Picture::Pixels(RgbImage::new(1, 1, vec![index as u8, (index >> 8) as u8, 0]).unwrap())
        };
        Ok(Sample { picture, label: self.label(index) })
    }

    fn label(&self, index: usize) -> Label {
        if self.many { Label::Many(vec![1, 3]) } else { Label::One((index % 4) as u32) }
    }

    fn name(&self, index: usize) -> String {
        format!("{index}.jpg")
    }

    fn describe(&self) -> String {
        "numbers".into()
    }

    fn shards(&self) -> Vec<Range<usize>> {
        if self.shards.is_empty() { std::iter::once(0..self.len).collect() } else { self.shards.clone() }
    }
}

/// Writes the pixel and random numbers, and takes its time; counts images in hand.
#[derive(Default)]
struct Slow {
    panics_at: Option<u8>,
    sleep: bool,
    prepared: AtomicUsize,
}

impl Prepare for Slow {
    fn output_size(&self) -> (usize, usize) {
        (2, 3)
    }

    fn prepare(&self, picture: &Picture, random: &mut Random, out: &mut [f32]) -> Result<(), DataError> {
        let image = picture.decode(&Decoder::default())?;
        let number = image.pixels()[0];
        assert_ne!(Some(number), self.panics_at, "a bug in a decoder");
        if self.sleep && number % 8 == 3 {
            // Lets threads overtake each other.
            std::thread::sleep(Duration::from_micros(200));
        }
        out.fill_with(|| f32::from(number) + random.unit() as f32 / 2.0);
        self.prepared.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn options(batch_size: usize, workers: usize) -> LoaderOptions {
    LoaderOptions { batch_size, workers, smoothing: 0.1, ..LoaderOptions::default() }
}

fn slow() -> Arc<dyn Prepare> {
    Arc::new(Slow { sleep: true, ..Slow::default() })
}

/// All that a batch holds but the waiting time.
type Contents = (Vec<u32>, [usize; 4], Vec<u32>, Vec<Label>, Vec<u64>, Vec<String>);

fn contents(batch: Result<Batch, DataError>) -> Contents {
    let batch = batch.unwrap();
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    let skipped = batch.skipped.iter().map(ToString::to_string).collect();
    (bits(&batch.images), batch.size, bits(&batch.targets), batch.labels, batch.indices, skipped)
}

fn epoch(loader: &mut Loader, epoch: u64, first: usize) -> Vec<Contents> {
    loader.epoch(epoch, first).map(contents).collect()
}

fn failure(result: Result<Loader, DataError>) -> String {
    result.err().unwrap().to_string()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn any_number_of_workers_gives_the_same_batches(
        len in 1_usize..200,
        batch in 1_usize..40,
        seed in any::<u64>(),
        broken in proptest::collection::btree_set(0_usize..200, 0..20),
        shuffle in any::<bool>(),
        drop_last in any::<bool>(),
        sharded in any::<bool>(),
        prefetch in 1_usize..5000,
        first in 0_usize..8,
    ) {
        let batch = batch.min(len);
        let broken: BTreeSet<usize> = broken.into_iter().filter(|index| *index > 0 && *index < len).collect();
        let make = |workers| {
            let shards = if sharded { vec![0..len / 3, len / 3..len] } else { Vec::new() };
            let data = Numbers { broken: broken.clone(), shards, ..Numbers::new(len) };
            let options = LoaderOptions {
                seed, shuffle, drop_last, prefetch_bytes: prefetch, shuffle_buffer: 16, ..options(batch, workers)
            };
            Loader::with(Arc::new(data), slow(), options).unwrap()
        };
        let mut alone = make(0);
        let expected: Vec<_> = (0..2).map(|number| epoch(&mut alone, number, 0)).collect();
        prop_assert_eq!(expected[0].len(), alone.batches_per_epoch());
        for workers in [1, 2, 5] {
            let mut loader = make(workers);
            for number in [0, 1, 0] {
                prop_assert_eq!(&epoch(&mut loader, number as u64, 0), &expected[number]);
            }
            let first = first.min(expected[1].len());
            prop_assert_eq!(&epoch(&mut loader, 1, first), &expected[1][first..], "restart at {}", first);
            prop_assert!(loader.peak_bytes() <= prefetch.max(batch * (18 + 4) * 4));
        }
    }
}

#[test]
fn an_epoch_holds_every_image_once_and_each_epoch_has_its_own_order() {
    let make = |len| Loader::with(Arc::new(Numbers::new(len)), slow(), options(7, 2)).unwrap();
    let mut loader = make(70);
    let orders: Vec<Vec<u64>> = (0..3)
        .map(|number| epoch(&mut loader, number, 0).into_iter().flat_map(|batch| batch.4).collect())
        .collect();
    for order in &orders {
        assert_eq!(order.iter().copied().collect::<BTreeSet<_>>(), (0..70).collect());
    }
    assert!(orders[0] != orders[1] && orders[1] != orders[2]);
    // The numbers of an image depend on the epoch, not on its place.
    let values = |number| {
        let mut images: Vec<(u64, Vec<u32>)> = epoch(&mut make(70), number, 0)
            .into_iter()
            .flat_map(|batch| {
                batch.4.into_iter().zip(batch.0.chunks(18).map(<[u32]>::to_vec).collect::<Vec<_>>())
            })
            .collect();
        images.sort();
        images
    };
    assert!(values(0).iter().zip(values(1)).all(|(a, b)| a.0 == b.0 && a.1 != b.1));
    assert_eq!(make(75).batches_per_epoch(), 10, "the last 5 images fill no batch");
}

#[test]
fn targets_are_smoothed_as_equation_4_says_and_multi_hot_for_many_labels() {
    let mut loader = Loader::with(Arc::new(Numbers::new(8)), slow(), options(4, 1)).unwrap();
    let batch = loader.epoch(0, 0).next().unwrap().unwrap();
    for (label, row) in batch.labels.iter().zip(batch.targets.chunks(4)) {
        let Label::One(class) = label else { panic!("one class") };
        for (column, value) in row.iter().enumerate() {
            let expected = if column == *class as usize { 0.9 } else { 0.1 / 3.0 };
            assert!((value - expected).abs() < 1e-7, "{row:?}");
        }
    }
    let data = Numbers { many: true, ..Numbers::new(8) };
    let wider = LoaderOptions { classes: Some(6), ..options(4, 1) };
    let mut loader = Loader::with(Arc::new(data), slow(), wider).unwrap();
    let batch = loader.epoch(0, 0).next().unwrap().unwrap();
    assert_eq!(batch.targets[..6], [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]);
    assert_eq!((batch.targets.len(), loader.classes()), (24, 6));
}

#[test]
fn mixing_depends_on_the_batch_and_ends_where_it_shall() {
    let make = |workers| {
        let mix = Mix { mixup_alpha: 0.2, ..Mix::default() };
        let options = LoaderOptions { mix: Some(mix), mix_until: Some(2), ..options(8, workers) };
        Loader::with(Arc::new(Numbers::new(64)), slow(), options).unwrap()
    };
    let (mut one, mut four) = (make(1), make(4));
    for number in 0..3 {
        let expected = epoch(&mut one, number, 0);
        assert_eq!(epoch(&mut four, number, 0), expected);
        assert_eq!(epoch(&mut four, number, 5), expected[5..]);
        let is_pure = |batch: &Contents| {
            batch.2.iter().all(|bits| [0.9_f32, 0.1 / 3.0].contains(&f32::from_bits(*bits)))
        };
        assert_eq!(expected.iter().all(is_pure), number == 2, "epoch {number}");
    }
}

#[test]
fn classes_can_stand_together() {
    let grouped = LoaderOptions { samples_per_class: 4, ..options(8, 1) };
    let mut loader = Loader::with(Arc::new(Numbers::new(64)), slow(), grouped).unwrap();
    let mut seen = BTreeSet::new();
    for batch in loader.epoch(3, 0) {
        let batch = batch.unwrap();
        assert!(batch.labels.chunks(4).all(|labels| labels.iter().all(|label| *label == labels[0])));
        seen.extend(batch.indices);
    }
    assert_eq!(seen.len(), 64);
}

#[test]
fn a_broken_image_is_replaced_in_training_and_left_out_of_evaluation() {
    let data = || Arc::new(Numbers { broken: BTreeSet::from([2, 3, 9]), ..Numbers::new(10) });
    let in_order = LoaderOptions { shuffle: false, ..options(5, 2) };
    let mut loader = Loader::with(data(), slow(), in_order).unwrap();
    let batches: Vec<Batch> = loader.epoch(0, 0).map(Result::unwrap).collect();
    assert_eq!((&batches[0].indices[..], batches[0].size[0]), (&[0, 1, 4, 4, 4][..], 5));
    assert_eq!(batches[0].skipped.len(), 3, "2, then 3 on the way; and 3 itself");
    assert_eq!(batches[0].skipped[0].path, PathBuf::from("2.jpg"));
    assert_eq!(batches[1].indices, [5, 6, 7, 8, 0], "behind the last image comes the first");
    assert_eq!(batches[0].labels[2], Label::One(0), "the label is the replacement's");

    let preprocess = Preprocess { size: (2, 3), ..Preprocess::default() };
    let mut loader = Loader::eval(data(), preprocess.clone(), options(4, 2)).unwrap();
    let batches: Vec<Batch> = loader.epoch(0, 0).map(Result::unwrap).collect();
    let indices: Vec<_> = batches.iter().map(|batch| batch.indices.clone()).collect();
    assert_eq!(indices, [vec![0, 1], vec![4, 5, 6, 7], vec![8]]);
    assert_eq!(batches[0].size, [2, 3, 2, 3]);
    let expected = preprocess.run(&RgbImage::new(1, 1, vec![5, 0, 0]).unwrap()).unwrap();
    assert_eq!(batches[1].images[18..36], expected, "left-out images leave no gap");
    assert_eq!(batches[0].targets, [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0], "no smoothing");

    let last = Numbers { broken: BTreeSet::from([4]), ..Numbers::new(5) };
    let mut loader = Loader::eval(Arc::new(last), Preprocess::default(), options(4, 1)).unwrap();
    let batches: Vec<Batch> = loader.epoch(0, 0).map(Result::unwrap).collect();
    assert_eq!((batches[1].size[0], batches[1].skipped.len()), (0, 1));
}

#[test]
fn strict_stops_at_the_first_broken_image() {
    for workers in [0, 3] {
        let data = Numbers { broken: BTreeSet::from([12, 13, 30]), ..Numbers::new(40) };
        let strict = LoaderOptions { strict: true, shuffle: false, ..options(5, workers) };
        let mut loader = Loader::with(Arc::new(data), slow(), strict).unwrap();
        let mut batches = loader.epoch(0, 0);
        assert!(batches.next().unwrap().is_ok() && batches.next().unwrap().is_ok());
        let error = batches.next().unwrap().unwrap_err();
        assert!(error.to_string().starts_with("12.jpg: not an image"), "{error}");
        assert!(batches.next().is_none(), "an error ends the epoch");
    }
}

#[test]
fn data_without_a_readable_image_is_an_error() {
    let data = Numbers { broken: (0..10).collect(), ..Numbers::new(10) };
    let mut loader = Loader::with(Arc::new(data), slow(), options(5, 2)).unwrap();
    let error = loader.epoch(0, 0).next().unwrap().unwrap_err().to_string();
    assert!(error.starts_with("numbers: 10 images in a row cannot be read; the first problem: "), "{error}");
}

#[test]
fn a_panic_in_a_worker_becomes_an_error_and_the_loader_lives_on() {
    for workers in [0, 2] {
        let prepare = Arc::new(Slow { panics_at: Some(17), ..Slow::default() });
        let in_order = LoaderOptions { shuffle: false, ..options(5, workers) };
        let mut loader = Loader::with(Arc::new(Numbers::new(40)), prepare, in_order).unwrap();
        for _ in 0..3 {
            let results: Vec<_> = loader.epoch(0, 0).collect();
            assert_eq!(results.len(), 4);
            let error = results.into_iter().next_back().unwrap().unwrap_err();
            assert!(
                matches!(&error.kind, DataErrorKind::Loader(LoaderError::Panic(words)) if words.contains("bug"))
            );
            assert!(error.to_string().starts_with("17.jpg: preparing this image failed"), "{error}");
        }
        assert_eq!(loader.epoch(0, 4).count(), 4, "the rest is fine");
    }
}

#[test]
fn leaving_an_epoch_early_ends_cleanly() {
    let prepare = Arc::new(Slow { sleep: true, ..Slow::default() });
    let mut loader =
        Loader::with(Arc::new(Numbers::new(10_000)), Arc::clone(&prepare) as _, options(10, 3)).unwrap();
    for number in 0..20 {
        let mut batches = loader.epoch(number, 0);
        assert!(batches.next().unwrap().is_ok());
    }
    drop(loader.epoch(20, 0));
    drop(loader);
    let prepared = prepare.prepared.load(Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(prepare.prepared.load(Ordering::Relaxed), prepared, "no thread works on");
}

#[test]
fn batches_wait_in_bounded_memory() {
    let prepare = Arc::new(Slow::default());
    let bytes = 10 * (18 + 4) * 4;
    let bounded = LoaderOptions { prefetch_bytes: 3 * bytes + 1, ..options(10, 4) };
    let mut loader = Loader::with(Arc::new(Numbers::new(1000)), Arc::clone(&prepare) as _, bounded).unwrap();
    loader.begin(0, 0);
    let start = Instant::now();
    while prepare.prepared.load(Ordering::Relaxed) < 30 && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(prepare.prepared.load(Ordering::Relaxed), 30, "begun without being asked, up to the limit");
    let mut batches = loader.epoch(0, 0);
    let first = batches.next().unwrap().unwrap();
    assert!(first.waited < Duration::from_millis(50), "it was ready: {:?}", first.waited);
    assert_eq!(batches.count(), 99);
    assert_eq!(loader.peak_bytes(), 3 * bytes);
    assert_eq!(prepare.prepared.load(Ordering::Relaxed), 1000, "what was begun was not thrown away");
}

#[test]
fn options_that_do_not_fit_are_refused_in_one_line() {
    let with = |options| failure(Loader::with(Arc::new(Numbers::new(10)), slow(), options));
    assert_eq!(
        with(options(16, 1)),
        "numbers: holds 10 images, fewer than one batch of 16; lower the batch size to 10 or less"
    );
    assert_eq!(with(options(0, 1)), "numbers: the batch size must be at least 1");
    let few = LoaderOptions { classes: Some(3), ..options(5, 1) };
    assert_eq!(with(few), "numbers: has 4 classes, but the network only 3; give it as many as the data has");
    let huge = LoaderOptions { drop_last: false, ..options(usize::MAX / 4, 1) };
    assert!(with(huge).contains("is too large; lower the batch size"));
    let eval = Loader::eval(Arc::new(Numbers::new(10)), Preprocess::default(), options(16, 1)).unwrap();
    assert_eq!(eval.batches_per_epoch(), 1, "evaluation may have a batch larger than the data");
}
