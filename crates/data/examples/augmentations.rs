//! Writes a picture of every augmentation, for the sheet in `docs/augmentation.md`.
//!
//! ```text
//! cargo run --release -p cardinal-data --example augmentations -- PHOTO FOLDER
//! ```
//!
//! `tools/augmentation_sheet.py` puts them together (`just augmentation-sheet`). File names are labels.

use std::error::Error;
use std::fs::File;
use std::path::Path;

use cardinal_data::{
    AutoAugment, Canvas, ColorJitter, Crop, Cutout, Decoder, EraseMode, Interpolation, Mix, Operation,
    PcaLighting, Picture, Policy, RandAugment, Random, RandomErasing, RgbImage, TrainTransform, resize,
};

/// Pixels of a side.
const SIDE: u32 = 112;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (photo, folder) = args.next().zip(args.next()).ok_or("usage: augmentations PHOTO FOLDER")?;
    let photo = Decoder::default().decode_file(&photo)?;
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder)?;
    let mut number = 0;
    let mut save = |label: &str, image: &RgbImage| {
        number += 1;
        write_png(&folder.join(format!("{number:02} {label}.png")), image)
    };

    let plain =
        TrainTransform { size: (SIDE, SIDE), crop: Crop::Squash, hflip: 0.0, ..TrainTransform::default() };
    let square = resize(&photo, SIDE, SIDE, Interpolation::Bilinear)?;
    save("original", &square)?;
    for (label, operation) in operations() {
        let mut image = square.clone();
        operation.apply(&mut image, &Canvas::default());
        save(label, &image)?;
    }
    let mut turned = square.clone();
    ColorJitter::turn_hue(&mut turned, 0.15);
    save("hue 0.15", &turned)?;

    let erasing =
        |mode| Some(RandomErasing { probability: 1.0, mode, min_area: 0.15, ..RandomErasing::default() });
    let transforms = [
        ("random resized crop", TrainTransform { crop: Crop::default(), ..plain.clone() }),
        ("flip", TrainTransform { hflip: 1.0, ..plain.clone() }),
        (
            "shorter side + crop",
            TrainTransform { crop: Crop::ShorterSide { min: SIDE, max: 2 * SIDE }, ..plain.clone() },
        ),
        ("pad + crop", TrainTransform { crop: Crop::Pad { padding: 14 }, ..plain.clone() }),
        ("colour jitter", TrainTransform { color_jitter: Some(ColorJitter::default()), ..plain.clone() }),
        ("PCA lighting", TrainTransform { pca_lighting: Some(PcaLighting { std: 0.5 }), ..plain.clone() }),
        ("cutout", TrainTransform { cutout: Some(Cutout::default()), ..plain.clone() }),
        ("erasing const", TrainTransform { random_erasing: erasing(EraseMode::Const), ..plain.clone() }),
        ("erasing rand", TrainTransform { random_erasing: erasing(EraseMode::Rand), ..plain.clone() }),
        ("erasing pixel", TrainTransform { random_erasing: erasing(EraseMode::Pixel), ..plain.clone() }),
        (
            "AutoAugment",
            TrainTransform {
                auto_augment: Some(AutoAugment { policy: Policy::Original, magnitude_std: 0.0 }),
                ..plain.clone()
            },
        ),
        (
            "RandAugment",
            TrainTransform {
                rand_augment: Some(RandAugment { probability: 1.0, ..RandAugment::default() }),
                ..plain.clone()
            },
        ),
    ];
    let decoder = Decoder::default();
    let numbers = |transform: &TrainTransform, image: &RgbImage| {
        let mut out = vec![0.0; transform.output_len()];
        let mut random = Random::new(24, &[]);
        transform.apply(&Picture::Pixels(image.clone()), &mut random, &decoder, &mut out).map(|()| out)
    };
    for (label, transform) in transforms {
        save(label, &to_image(&transform, &numbers(&transform, &photo)?)?)?;
    }
    for (label, mix) in [
        ("mixup", Mix { mixup_alpha: 50.0, ..Mix::default() }),
        ("CutMix", Mix { mixup_alpha: 0.0, cutmix_alpha: 4.0, ..Mix::default() }),
    ] {
        let mut other = square.clone();
        Operation::Rotate(180.0).apply(&mut other, &Canvas::default());
        Operation::Invert.apply(&mut other, &Canvas::default());
        let mut batch = [numbers(&plain, &square)?, numbers(&plain, &other)?].concat();
        let shape = [3, SIDE as usize, SIDE as usize];
        mix.apply(&mut Random::new(5, &[]), &mut batch, 2, shape, &mut [1.0, 0.0, 0.0, 1.0]);
        save(label, &to_image(&plain, &batch[..plain.output_len()])?)?;
    }
    Ok(())
}

fn operations() -> Vec<(&'static str, Operation)> {
    vec![
        ("shear x 0.3", Operation::ShearX(0.3)),
        ("shear y 0.3", Operation::ShearY(0.3)),
        ("translate x", Operation::TranslateX(30.0)),
        ("translate y", Operation::TranslateY(30.0)),
        ("rotate 27", Operation::Rotate(27.0)),
        ("auto contrast", Operation::AutoContrast),
        ("invert", Operation::Invert),
        ("equalize", Operation::Equalize),
        ("solarize 128", Operation::Solarize(128.0)),
        ("solarize add 99", Operation::SolarizeAdd(99)),
        ("posterize 2", Operation::Posterize(2)),
        ("contrast 1.8", Operation::Contrast(1.8)),
        ("color 0.2", Operation::Color(0.2)),
        ("brightness 0.4", Operation::Brightness(0.4)),
        ("sharpness 1.9", Operation::Sharpness(1.9)),
    ]
}

/// Undoes the normalisation.
fn to_image(transform: &TrainTransform, values: &[f32]) -> Result<RgbImage, Box<dyn Error>> {
    let plane = values.len() / 3;
    let level = |at: usize| {
        let channel = at % 3;
        let value = values[channel * plane + at / 3] * transform.std[channel] + transform.mean[channel];
        (value * 255.0).round() as u8
    };
    RgbImage::new(SIDE, SIDE, (0..values.len()).map(level).collect()).ok_or_else(|| "another size".into())
}

fn write_png(path: &Path, image: &RgbImage) -> Result<(), Box<dyn Error>> {
    let mut encoder = png::Encoder::new(File::create(path)?, image.width(), image.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(image.pixels())?;
    Ok(())
}
