//! Held-out fifths, and orders by shard.

use cardinal_data::{OpenOptions, Random, Split, open, sharded_order, splits};
use proptest::prelude::*;

use crate::support::{Folder, fails, json, samples};

#[test]
fn the_embedded_digits_are_those_of_scikit_learn() {
    let expected = json("digits.json");
    let numbers = |name: &str| -> Vec<u64> { serde_json::from_value(expected[name].clone()).unwrap() };
    let (labels, sums, held_out) = (numbers("labels"), numbers("sums"), numbers("held_out"));
    assert_eq!(splits(None, &OpenOptions::default()).unwrap(), ["train", "test"]);
    let open = |split| open(None, &split, &OpenOptions::default()).unwrap();
    let (train, test) = (open(Split::Train), open(Split::Val));
    assert_eq!((train.len(), test.len()), (1442, 355));
    assert_eq!(train.classes().join(""), "0123456789");
    let (mut in_train, mut in_test) = (0, 0);
    for index in 0..labels.len() {
        let (set, at) =
            if held_out.contains(&(index as u64)) { (&test, &mut in_test) } else { (&train, &mut in_train) };
        assert_eq!(set.label(*at).classes(), [labels[index] as u32]);
        assert_eq!(set.name(*at), format!("digits[{index}]"));
        let picture = set.read(*at).unwrap().picture;
        let image = picture.decode(&Default::default()).unwrap().into_owned();
        assert_eq!((image.width(), image.height()), (8, 8));
        // 0 to 16 has become 0 to 255, three times.
        let sixteenths = |level: &u8| (f64::from(*level) * 16.0 / 255.0).round() as u64;
        assert_eq!(image.pixels().iter().map(sixteenths).sum::<u64>(), 3 * sums[index]);
        if index == 0 {
            let values: Vec<u64> = image.pixels().iter().step_by(3).map(sixteenths).collect();
            let first: Vec<Vec<u64>> = serde_json::from_value(expected["first"].clone()).unwrap();
            assert_eq!(values, first.concat());
        }
        *at += 1;
    }
    assert_eq!((in_train, in_test), (1442, 355));
    let error = cardinal_data::open(None, &Split::Name("dev".into()), &OpenOptions::default());
    fails(error, &["<digits>: has no split 'dev'; it has train, test"]);
}

fn numbered(counts: &[(&str, usize)]) -> Folder {
    let folder = Folder::with(&[]);
    for (class, count) in counts {
        for number in 0..*count {
            folder.write(&format!("{class}/{number:03}.jpg"), "x");
        }
    }
    folder
}

#[test]
fn a_fifth_of_each_class_is_held_out() {
    let folder = numbered(&[("a", 11), ("b", 4), ("c", 5)]);
    let names = |split| -> Vec<String> {
        samples(folder.open(split).unwrap().as_ref()).into_iter().map(|(name, _)| name).collect()
    };
    assert_eq!(names("val"), ["a/004.jpg", "a/009.jpg", "c/004.jpg"]);
    assert_eq!((names("train").len(), names("all").len()), (17, 20));
    assert!(names("train").iter().all(|name| !names("val").contains(name)));
    assert_eq!(folder.open("val").unwrap().describe(), "image folder, held-out fifth");
    let whole = OpenOptions { hold_out: false, ..OpenOptions::default() };
    assert_eq!(folder.open_with("train", &whole).unwrap().len(), 20);
    assert_eq!(folder.open_with("val", &whole).unwrap().len(), 20);
    fails(folder.open("test"), &["has no split 'test'; it has no splits: use 'all'"]);
    fails(numbered(&[("a", 4), ("b", 4)]).open("val"), &["too few images to hold out a fifth"]);
}

#[test]
fn train_alone_holds_out_too() {
    let folder = numbered(&[("train/a", 5), ("train/b", 5)]);
    assert_eq!((folder.open("train").unwrap().len(), folder.open("val").unwrap().len()), (8, 2));
    let whole = OpenOptions { hold_out: false, ..OpenOptions::default() };
    assert_eq!(folder.open_with("train", &whole).unwrap().len(), 10);
    fails(folder.open_with("val", &whole), &["has no split 'val'; it has train"]);
    assert_eq!(folder.open("all").unwrap().len(), 10);
}

proptest! {
    #[test]
    fn sharded_orders_are_permutations(
        sizes in prop::collection::vec(0_usize..40, 0..8),
        buffer in 0_usize..300,
        seed: u64,
    ) {
        let mut end = 0;
        let shards: Vec<_> = sizes.iter().map(|size| { end += size; end - size..end }).collect();
        let mut order = sharded_order(&shards, buffer, &mut Random::new(seed, &[]));
        prop_assert_eq!(&order, &sharded_order(&shards, buffer, &mut Random::new(seed, &[])));
        order.sort_unstable();
        prop_assert_eq!(order, (0..end as u32).collect::<Vec<_>>());
    }
}

#[test]
fn sharded_orders_stay_near_the_files() {
    let shards: Vec<_> = (0..100).map(|shard| shard * 100..(shard + 1) * 100).collect();
    let order = sharded_order(&shards, 200, &mut Random::new(1, &[]));
    assert_ne!(order[..100], sharded_order(&shards, 200, &mut Random::new(2, &[]))[..100]);
    // A thousand images in a row come from few shards, but are not in the files' order.
    for stretch in order.chunks(1000) {
        let mut touched: Vec<u32> = stretch.iter().map(|index| index / 100).collect();
        touched.sort_unstable();
        touched.dedup();
        assert!(touched.len() < 35, "{}", touched.len());
    }
    let in_order = order.windows(2).filter(|pair| pair[0] + 1 == pair[1]).count();
    assert!(in_order < 200, "{in_order}");
    // A buffer for everything is a plain shuffle.
    let plain = sharded_order(&shards, 10_000, &mut Random::new(1, &[]));
    assert!(
        plain[..1000].iter().map(|index| index / 100).collect::<std::collections::HashSet<_>>().len() > 95
    );
}
