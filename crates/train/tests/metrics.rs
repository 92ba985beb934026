//! Metrics beside scikit-learn's, and beside plain loops.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use cardinal_train::metrics::{Mean, MultiLabel, SingleLabel, average_precision, rank};
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    single_label: Single,
    multi_label: Vec<Many>,
}

#[derive(Deserialize)]
struct Single {
    classes: usize,
    labels: Vec<u32>,
    scores: Vec<f32>,
    top1: f64,
    top5: f64,
    confusion: Vec<Vec<u64>>,
    precision: Vec<f64>,
    recall: Vec<f64>,
    f1: Vec<f64>,
    support: Vec<u64>,
    r#macro: [f64; 3],
}

#[derive(Deserialize)]
#[allow(non_snake_case, reason = "the names of the metrics")]
struct Many {
    classes: usize,
    scores: Vec<f32>,
    labels: Vec<Vec<u32>>,
    average_precision: Vec<f64>,
    mAP: f64,
    CP: f64,
    CR: f64,
    CF1: f64,
    OP: f64,
    OR: f64,
    OF1: f64,
    macro_f1: f64,
    absent: usize,
}

/// tools/train_fixtures.py
fn golden() -> Golden {
    serde_json::from_str(include_str!("../../../fixtures/train/metrics.json")).unwrap()
}

fn close(ours: f64, theirs: f64) {
    assert!((ours - theirs).abs() < 1e-9, "{ours} instead of {theirs}");
}

fn all_close(ours: impl IntoIterator<Item = f64>, theirs: &[f64]) {
    let ours: Vec<f64> = ours.into_iter().collect();
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).for_each(|(ours, theirs)| close(*ours, *theirs));
}

#[test]
fn accuracy_and_confusion_are_scikit_learns() {
    let golden = golden().single_label;
    let mut seen = SingleLabel::new(golden.classes);
    // In uneven batches, as an epoch ends.
    for (scores, labels) in golden.scores.chunks(13 * golden.classes).zip(golden.labels.chunks(13)) {
        seen.update(scores, labels);
    }
    assert_eq!(seen.seen(), golden.labels.len() as u64);
    close(seen.top1(), golden.top1);
    close(seen.top5(), golden.top5);
    let confusion = seen.confusion();
    assert_eq!(confusion.rows().map(<[u64]>::to_vec).collect::<Vec<_>>(), golden.confusion);
    let scores = confusion.scores();
    all_close(scores.iter().map(|score| score.precision), &golden.precision);
    all_close(scores.iter().map(|score| score.recall), &golden.recall);
    all_close(scores.iter().map(|score| score.f1), &golden.f1);
    assert_eq!(scores.iter().map(|score| score.support).collect::<Vec<_>>(), golden.support);
    let average = confusion.macro_average();
    all_close([average.precision, average.recall, average.f1], &golden.r#macro);
    let worst = confusion.worst(3);
    assert!(worst.len() == 3 && worst[0].2 >= worst[1].2 && worst.iter().all(|(a, b, _)| a != b));
}

#[test]
fn the_multi_label_set_is_scikit_learns() {
    for golden in golden().multi_label {
        let mut seen = MultiLabel::new(golden.classes);
        for (scores, labels) in golden.scores.chunks(8 * golden.classes).zip(golden.labels.chunks(8)) {
            seen.update(scores, labels.iter().map(Vec::as_slice));
        }
        assert_eq!(seen.seen(), golden.labels.len());
        let scores = seen.scores();
        all_close(scores.average_precision.clone(), &golden.average_precision);
        let ours =
            [scores.map, scores.cp, scores.cr, scores.cf1, scores.op, scores.or, scores.of1, scores.macro_f1];
        let theirs =
            [golden.mAP, golden.CP, golden.CR, golden.CF1, golden.OP, golden.OR, golden.OF1, golden.macro_f1];
        all_close(ours, &theirs);
        assert_eq!(scores.absent, golden.absent);
    }
    let names = serde_json::to_value(MultiLabel::new(2).scores()).unwrap();
    for name in ["mAP", "CP", "CR", "CF1", "OP", "OR", "OF1"] {
        assert_eq!(names[name], 0.0, "{name} of nothing");
    }
}

#[test]
fn the_papers_cf1_is_the_harmonic_mean_of_its_cp_and_cr() {
    // TResNet table 8: CP 88.4, CR 77.3, CF1 82.5; OP 88.7, OR 80.0, OF1 84.1.
    let harmonic = |p: f64, r: f64| (20.0 * p * r / (p + r)).round() / 10.0;
    assert_eq!((harmonic(88.4, 77.3), harmonic(88.7, 80.0)), (82.5, 84.1));
}

#[test]
fn odd_scores_count_as_wrong() {
    assert_eq!(rank(&[0.1, 0.9, 0.5], 1), 0);
    assert_eq!(rank(&[0.5, 0.5, 0.5], 2), 2, "of equal scores the first wins");
    assert_eq!(rank(&[f32::NAN, 0.9], 0), usize::MAX);
    assert_eq!(rank(&[0.1], 7), usize::MAX, "a class that is not there");
    let mut seen = SingleLabel::new(3);
    seen.update(&[f32::NAN; 6], &[0, 2]);
    assert_eq!((seen.top1(), seen.top5(), seen.seen()), (0.0, 0.0, 2));
    assert_eq!(SingleLabel::new(3).top1(), 0.0);
    assert_eq!(average_precision(&[f32::NAN, 0.5], &[true, false]), 0.5);
    let mut mean = Mean::default();
    mean.add(2.0, 3);
    mean.add(4.0, 1);
    assert_eq!((mean.value(), Mean::default().value()), (2.5, 0.0));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ranks_are_those_of_a_stable_sort(scores in proptest::collection::vec(0_u8..6, 1..12), class in 0_usize..12) {
        let class = class % scores.len();
        let scores: Vec<f32> = scores.iter().map(|score| f32::from(*score)).collect();
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        prop_assert_eq!(rank(&scores, class as u32), order.iter().position(|index| *index == class).unwrap());
    }

    #[test]
    fn average_precision_is_that_of_a_plain_loop(
        images in proptest::collection::vec((0.0_f32..1.0, any::<bool>()), 1..40),
    ) {
        let (scores, labels): (Vec<f32>, Vec<bool>) = images.into_iter().unzip();
        // For each image of the class: the share of its images among those that score as high or higher.
        let shown: Vec<usize> = (0..labels.len()).filter(|index| labels[*index]).collect();
        let precision = |image: &usize| {
            let above: Vec<usize> = (0..scores.len()).filter(|other| scores[*other] >= scores[*image]).collect();
            above.iter().filter(|other| labels[**other]).count() as f64 / above.len() as f64
        };
        let expected = shown.iter().map(precision).sum::<f64>() / shown.len().max(1) as f64;
        prop_assert!((average_precision(&scores, &labels) - expected).abs() < 1e-12);
    }
}
