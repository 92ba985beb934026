//! Random draws: their ranges and means, that they repeat, and settings that cannot work.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use cardinal_data::{
    AutoAugment, ColorJitter, Crop, CropFilter, Cutout, CutoutFill, Decoder, EraseMode, Mix, MixMode,
    Operation, Pairing, PcaLighting, Picture, Policy, PolicyPlace, RandAugment, RandAugmentStyle, Random,
    RandomErasing, RgbImage, TrainTransform,
};

fn image(width: u32, height: u32) -> RgbImage {
    let pixels = (0..width as usize * height as usize * 3).map(|i| (i * i / 7 % 251) as u8).collect();
    RgbImage::new(width, height, pixels).unwrap()
}

fn apply(transform: &TrainTransform, picture: &Picture, seed: u64) -> Vec<f32> {
    let mut out = vec![f32::NAN; transform.output_len()];
    transform.apply(picture, &mut Random::new(seed, &[]), &Decoder::default(), &mut out).unwrap();
    assert!(out.iter().all(|value| value.is_finite()));
    out
}

fn everything() -> TrainTransform {
    TrainTransform {
        size: (40, 32),
        interpolation: CropFilter::Random,
        vflip: 0.5,
        auto_augment: Some(AutoAugment { policy: Policy::V0, magnitude_std: 0.5 }),
        rand_augment: Some(RandAugment::default()),
        cutout: Some(Cutout::default()),
        color_jitter: Some(ColorJitter { hue: 0.1, ..ColorJitter::default() }),
        pca_lighting: Some(PcaLighting::default()),
        random_erasing: Some(RandomErasing { count: 3, ..RandomErasing::default() }),
        ..TrainTransform::default()
    }
}

#[test]
fn all_settings_together_repeat_by_seed() {
    let picture = Picture::Pixels(image(90, 61));
    for policy_place in [PolicyPlace::AfterCrop, PolicyPlace::BeforeCrop] {
        for crop in
            [Crop::default(), Crop::ShorterSide { min: 40, max: 70 }, Crop::Squash, Crop::Pad { padding: 4 }]
        {
            let transform = TrainTransform { crop, policy_place, ..everything() };
            for seed in 0..30 {
                assert_eq!(apply(&transform, &picture, seed), apply(&transform, &picture, seed));
            }
            assert_ne!(apply(&transform, &picture, 1), apply(&transform, &picture, 2));
        }
    }
}

#[test]
fn any_image_can_be_transformed() {
    for (width, height) in [(1, 1), (1, 3000), (3000, 1), (2, 2), (33, 5)] {
        let picture = Picture::Pixels(image(width, height));
        for crop in
            [Crop::default(), Crop::ShorterSide { min: 40, max: 41 }, Crop::Squash, Crop::Pad { padding: 9 }]
        {
            for seed in 0..4 {
                apply(&TrainTransform { crop, ..everything() }, &picture, seed);
            }
        }
    }
}

/// Without chance left it is Pillow's resize and torchvision's normalisation.
#[test]
fn a_squash_is_a_resize() {
    let photo = image(50, 41);
    let settings =
        TrainTransform { size: (24, 20), crop: Crop::Squash, hflip: 0.0, ..TrainTransform::default() };
    let ours = apply(&settings, &Picture::Pixels(photo.clone()), 0);
    let resized = cardinal_data::resize(&photo, 20, 24, cardinal_data::Interpolation::Bilinear).unwrap();
    let level = f32::from(resized.pixels()[5 * 3 + 1]) / 255.0;
    assert_eq!(ours[24 * 20 + 5], (level - 0.456) / 0.224);
    let flipped = apply(&TrainTransform { hflip: 1.0, ..settings }, &Picture::Pixels(photo), 0);
    assert_eq!(flipped[24 * 20 + 14], ours[24 * 20 + 5]);
}

/// TResNet's numbers are between 0 and 1.
#[test]
fn without_mean_and_std_values_are_shares() {
    let settings =
        TrainTransform { size: (24, 20), mean: [0.0; 3], std: [1.0; 3], ..TrainTransform::default() };
    let values = apply(&settings, &Picture::Pixels(image(50, 41)), 0);
    assert!(values.iter().all(|value| (0.0..=1.0).contains(value)));
}

#[test]
fn settings_are_read_and_typos_refused() {
    let read = |text: &str| serde_json::from_str::<TrainTransform>(text);
    assert_eq!(read("{}").unwrap(), TrainTransform::default());
    let text = r#"{"size": [32, 32], "crop": {"kind": "pad"}, "auto_augment": {"policy": "cifar10"},
        "interpolation": "bicubic", "random_erasing": {"mode": "const"}}"#;
    let settings = read(text).unwrap();
    assert_eq!((settings.size, settings.crop), ((32, 32), Crop::Pad { padding: 4 }));
    assert_eq!(settings.auto_augment.unwrap().policy, Policy::Cifar10);
    assert_eq!(settings.random_erasing.unwrap().mode, EraseMode::Const);
    for typo in
        [r#"{"hflips": 1}"#, r#"{"crop": {"kind": "pad", "scale": [1, 1]}}"#, r#"{"cutout": {"size": 1}}"#]
    {
        read(typo).expect_err(typo);
    }
    let all = everything();
    assert_eq!(read(&serde_json::to_string(&all).unwrap()).unwrap(), all);
}

#[test]
fn unusable_settings_name_themselves() {
    let good = TrainTransform::default();
    let cases = [
        (TrainTransform { hflip: 1.5, ..good.clone() }, "hflip"),
        (
            TrainTransform {
                crop: Crop::RandomResized { scale: [0.5, 0.2], ratio: [1.0, 1.0] },
                ..good.clone()
            },
            "scale",
        ),
        (
            TrainTransform {
                crop: Crop::RandomResized { scale: [0.5, 1.0], ratio: [0.0, 1.0] },
                ..good.clone()
            },
            "ratio",
        ),
        (TrainTransform { crop: Crop::ShorterSide { min: 200, max: 480 }, ..good.clone() }, "crop.min"),
        (TrainTransform { std: [0.0, 1.0, 1.0], ..good.clone() }, "std"),
        (TrainTransform { size: (0, 3), ..good.clone() }, "0 x 3"),
        (
            TrainTransform {
                color_jitter: Some(ColorJitter { hue: 0.6, ..Default::default() }),
                ..good.clone()
            },
            "hue",
        ),
        (
            TrainTransform { cutout: Some(Cutout { factor: f64::NAN, ..Default::default() }), ..good },
            "cutout",
        ),
    ];
    for (settings, part) in cases {
        let error = settings.check().expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
        let picture = Picture::Pixels(image(4, 4));
        let mut random = Random::new(0, &[]);
        assert!(settings.apply(&picture, &mut random, &Decoder::default(), &mut []).is_err());
    }
}

#[test]
fn policies_draw_as_often_as_they_say() {
    let mut random = Random::new(11, &[]);
    let draws = 20_000;
    // The paper's policy: the expected number of operations is the sum of all probabilities over 25.
    let count = |policy: Policy, random: &mut Random| {
        let auto = AutoAugment { policy, ..AutoAugment::default() };
        (0..draws).map(|_| auto.draw((224, 224), random).len()).sum::<usize>() as f64 / f64::from(draws)
    };
    assert!((count(Policy::Original, &mut random) - 31.0 / 25.0).abs() < 0.02);
    assert!((count(Policy::Cifar10, &mut random) - 26.5 / 25.0).abs() < 0.02);
    let rand = RandAugment::default();
    let mut inverted = 0;
    let mut applied = 0;
    let mut turned = (f64::MAX, f64::MIN);
    for _ in 0..draws {
        for operation in rand.draw((224, 224), &mut random) {
            applied += 1;
            match operation {
                Operation::Invert => inverted += 1,
                Operation::Rotate(degrees) => turned = (turned.0.min(degrees), turned.1.max(degrees)),
                Operation::TranslateX(pixels) => assert!(pixels.abs() <= 0.45 * 224.0),
                Operation::Posterize(bits) => assert!(bits <= 2, "4 - int(0.9 * 4) = 1, and noise"),
                _ => {}
            }
        }
    }
    assert!((f64::from(applied) / f64::from(draws) - 1.0).abs() < 0.02);
    assert!((f64::from(inverted) / f64::from(applied) - 1.0 / 15.0).abs() < 0.006);
    assert!(turned.0 >= -30.0 && turned.1 <= 30.0 && turned.0 < -28.0 && turned.1 > 28.0, "{turned:?}");
    let torchvision = RandAugment { style: RandAugmentStyle::Torchvision, ..rand };
    assert!((0..100).all(|_| torchvision.draw((224, 224), &mut random).len() == 2));
}

#[test]
fn erased_areas_are_in_range() {
    let (height, width) = (64, 48);
    let mut random = Random::new(2, &[]);
    let erasing = RandomErasing { probability: 0.5, mode: EraseMode::Rand, ..RandomErasing::default() };
    let mut areas = Vec::new();
    for _ in 0..4000 {
        let mut values = vec![9.0; 3 * 64 * 48];
        erasing.apply(&mut values, (height, width), &mut random);
        let erased = values[..64 * 48].iter().filter(|&&value| value != 9.0).count();
        assert_eq!(values.iter().filter(|&&value| value != 9.0).count(), 3 * erased);
        areas.push(erased as f64 / (64.0 * 48.0));
    }
    let hit: Vec<f64> = areas.iter().copied().filter(|&area| area > 0.0).collect();
    assert!((hit.len() as f64 / 4000.0 - 0.5).abs() < 0.03);
    assert!(hit.iter().all(|&area| area > 0.015 && area < 0.35));
    let mean = hit.iter().sum::<f64>() / hit.len() as f64;
    // timm's mean for this size over 20,000 draws: 0.1718.
    assert!((mean - 0.1718).abs() < 0.006, "{mean}");
}

#[test]
fn cutout_covers_a_quarter_or_less() {
    let mut random = Random::new(4, &[]);
    let cutout = Cutout { fill: CutoutFill::Mean, ..Cutout::default() };
    let mut areas = 0;
    for _ in 0..2000 {
        let mut image = RgbImage::new(20, 20, vec![0; 1200]).unwrap();
        cutout.apply(&mut image, [255; 3], &mut random);
        let area = image.pixels().iter().filter(|&&level| level == 255).count() / 3;
        assert!((25..=100).contains(&area), "a corner's worth at least: {area}");
        areas += area;
    }
    // A side of 10 about each of 20 places covers 175 pixels in all, 8.75 on average.
    let mean = f64::from(areas as u32) / 2000.0;
    assert!((mean - 8.75 * 8.75).abs() < 1.5, "{mean}");
}

#[test]
fn lighting_is_alexnets() {
    // eigenvectors * (shares * eigenvalues), by hand for shares 0.1, -0.2, 0.3.
    let expected = [-0.014_506_f32, -0.013_714_0, -0.009_513];
    for (ours, expected) in PcaLighting::shift([0.1, -0.2, 0.3]).into_iter().zip(expected) {
        assert!((ours - expected).abs() < 2e-5, "{ours} {expected}");
    }
}

/// Four images of two values and their targets, mixed.
fn mixed(mix: &Mix, seed: u64) -> (Vec<f32>, Vec<f32>) {
    let mut images: Vec<f32> = (0..4).flat_map(|i| [i as f32; 3 * 6 * 4]).collect();
    let mut targets: Vec<f32> =
        (0..4).flat_map(|i| (0..4).map(move |j| f32::from(u8::from(i == j)))).collect();
    mix.apply(&mut Random::new(seed, &[]), &mut images, 4, [3, 6, 4], &mut targets);
    (images, targets)
}

/// Every image's mean is its target's mean of class numbers, whatever was mixed: the shares agree.
#[test]
fn targets_have_the_shares_of_the_pixels() {
    for (mixup_alpha, cutmix_alpha) in [(0.2, 0.0), (0.0, 1.0), (0.8, 1.0)] {
        for pairing in [Pairing::Reversed, Pairing::Permuted] {
            for mode in [MixMode::Batch, MixMode::Elem] {
                let mix = Mix { mixup_alpha, cutmix_alpha, pairing, mode, ..Mix::default() };
                let mut changed = 0;
                for seed in 0..60 {
                    let (images, targets) = mixed(&mix, seed);
                    for (i, (image, target)) in images.chunks(72).zip(targets.chunks(4)).enumerate() {
                        let mean = image.iter().sum::<f32>() / 72.0;
                        let class: f32 =
                            target.iter().zip(0_u8..).map(|(share, j)| share * f32::from(j)).sum();
                        assert!((target.iter().sum::<f32>() - 1.0).abs() < 1e-6);
                        assert!((mean - class).abs() < 1e-5, "{mix:?} {seed}: {mean} {class}");
                        changed += usize::from((mean - i as f32).abs() > 1e-3);
                        if pairing == Pairing::Reversed {
                            assert!((target[i] + target[3 - i] - 1.0).abs() < 1e-6);
                        }
                    }
                }
                assert!(changed > 60, "{mix:?}: {changed}");
            }
        }
    }
}

#[test]
fn mixing_can_be_off_and_takes_odd_batches() {
    let off = Mix { prob: 0.0, ..Mix::default() };
    assert_eq!(mixed(&off, 1), mixed(&Mix { mixup_alpha: 0.0, ..Mix::default() }, 2));
    let mut images = [1.0, 2.0, 3.0];
    let mut targets = [1.0, 0.0, 0.5, 0.5, 0.0, 1.0];
    Mix { mixup_alpha: 1.0, ..Mix::default() }.apply(
        &mut Random::new(5, &[]),
        &mut images,
        3,
        [1, 1, 1],
        &mut targets,
    );
    assert_eq!((images[1], &targets[2..4]), (2.0, &[0.5, 0.5][..]));
    assert!((images[0] + images[2] - 4.0).abs() < 1e-6 && images[0] != 1.0);
    Mix::default().apply(&mut Random::new(5, &[]), &mut [], 0, [3, 0, 0], &mut []);
}
