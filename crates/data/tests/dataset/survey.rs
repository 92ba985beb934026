//! Statistics of a dataset against a plain loop over its decoded images.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use cardinal_data::{Decoder, OpenOptions, Split, open, survey};

use crate::support::Folder;

fn asset(name: &str) -> Vec<u8> {
    std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets").join(name)).unwrap()
}

#[test]
fn all_pixels_count_whatever_the_number_of_threads() {
    let folder = Folder::with(&["b/broken.png"]);
    folder.write("a/1.jpg", asset("rocket.jpg"));
    folder.write("a/2.jpg", asset("coffee.jpg"));
    folder.write("b/3.jpg", asset("chelsea.jpg"));
    folder.write("b/4.jpg", asset("chelsea.jpg"));
    let dataset = folder.open("all").unwrap();
    let decoder = Decoder::default();
    let calls = AtomicUsize::new(0);
    let run = |workers| {
        let done = || {
            calls.fetch_add(1, Ordering::Relaxed);
        };
        survey(dataset.as_ref(), &decoder, NonZeroUsize::new(workers).unwrap(), &done)
    };
    let (one, many) = (run(1), run(7));
    assert_eq!(calls.into_inner(), 10);
    assert_eq!((one.mean(), one.std(), &one.sizes), (many.mean(), many.std(), &many.sizes));
    assert_eq!(
        one.sizes.iter().map(|(size, n)| (*size, *n)).collect::<Vec<_>>(),
        [((451, 300), 2), ((600, 400), 1), ((640, 427), 1)]
    );
    assert_eq!((one.whole(), one.broken.len()), (4, 1));
    assert!(one.broken[&4].to_string().contains("b/broken.png: not an image"), "{}", one.broken[&4]);
    let images: Vec<Vec<u8>> = (0..4)
        .map(|i| dataset.read(i).unwrap().picture.decode(&decoder).unwrap().pixels().to_vec())
        .collect();
    for channel in 0..3 {
        let values: Vec<f64> = images
            .iter()
            .flat_map(|pixels| pixels.iter().skip(channel).step_by(3))
            .map(|&value| f64::from(value) / 255.0)
            .collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64;
        assert!(
            (one.mean()[channel] - mean).abs() < 1e-9 && (one.std()[channel] - variance.sqrt()).abs() < 1e-9
        );
    }
}

#[test]
fn the_digits_have_the_known_mean() {
    // numpy: (x / 16).mean() over the images of the training split is 0.3052.
    let train = open(None, &Split::Train, &OpenOptions::default()).unwrap();
    let found = survey(train.as_ref(), &Decoder::default(), NonZeroUsize::MIN, &|| {});
    assert!((found.mean()[0] - 0.3052).abs() < 2e-3, "{:?}", found.mean());
    assert_eq!(found.mean()[0], found.mean()[2]);
}
