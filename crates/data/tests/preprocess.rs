//! Settings that cannot work, images of odd shapes, batches.

use cardinal_data::{CropMode, Interpolation, Preprocess, PreprocessError, RgbImage, SourceBox, resize_box};

fn image(width: u32, height: u32) -> RgbImage {
    let pixels = (0..width as usize * height as usize * 3).map(|i| (i * 31 % 251) as u8).collect();
    RgbImage::new(width, height, pixels).expect("the length fits the size")
}

#[test]
fn an_image_has_pixels_and_the_right_number_of_them() {
    assert!(RgbImage::new(2, 2, vec![0; 12]).is_some());
    assert!(RgbImage::new(2, 2, vec![0; 11]).is_none());
    assert!(RgbImage::new(0, 2, vec![]).is_none());
    assert!(RgbImage::new(u32::MAX, u32::MAX, vec![]).is_none());
}

#[test]
fn unusable_settings_are_errors() {
    let good = Preprocess::default();
    let check = |settings: Preprocess| settings.run(&image(3, 3)).expect_err("unusable");
    assert!(matches!(check(Preprocess { size: (0, 9), ..good.clone() }), PreprocessError::Size { .. }));
    assert!(matches!(check(Preprocess { size: (9, 20_000), ..good.clone() }), PreprocessError::Size { .. }));
    for crop_pct in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-300] {
        assert!(matches!(check(Preprocess { crop_pct, ..good.clone() }), PreprocessError::CropPct(_)));
    }
    for std in [[0.0, 1.0, 1.0], [1.0, f32::NAN, 1.0], [1.0, 1.0, -0.5]] {
        assert!(matches!(check(Preprocess { std, ..good.clone() }), PreprocessError::Normalization { .. }));
    }
    let short = good.run_into(&image(3, 3), &mut [0.0; 5]).expect_err("too short");
    assert_eq!(short.to_string(), "the output holds 5 values, but 150528 are needed");
}

/// A line of pixels would be resized to millions of columns if all of it were computed.
#[test]
fn any_aspect_ratio_works() {
    for (width, height) in [(1, 1), (1, 30_000), (30_000, 1), (2, 3), (5000, 7)] {
        for crop_mode in [CropMode::Center, CropMode::Squash, CropMode::Border] {
            for interpolation in [Interpolation::Nearest, Interpolation::Bilinear, Interpolation::Lanczos] {
                let settings = Preprocess {
                    size: (33, 48),
                    crop_pct: 0.9,
                    crop_mode,
                    interpolation,
                    ..Preprocess::default()
                };
                let values = settings.run(&image(width, height)).expect("any image will do");
                assert_eq!(values.len(), 3 * 33 * 48);
                assert!(values.iter().all(|value| value.is_finite()));
            }
        }
    }
}

/// A constant image stays constant, and the border has the colour of the mean, which normalises to
/// almost nothing.
#[test]
fn the_border_is_the_mean() {
    let white = RgbImage::new(20, 10, vec![255; 600]).expect("the length fits the size");
    let settings = Preprocess {
        size: (16, 16),
        crop_pct: 1.0,
        crop_mode: CropMode::Border,
        interpolation: Interpolation::Bicubic,
        ..Preprocess::default()
    };
    let crop = settings.crop(&white).expect("good settings");
    let row = |y: usize| &crop.pixels()[y * 48..y * 48 + 3];
    assert_eq!(row(0), [124, 116, 104]);
    assert_eq!(row(8), [255, 255, 255]);
    let values = settings.run(&white).expect("good settings");
    assert!(values[0].abs() < 0.5 / 255.0 / 0.225, "{}", values[0]);
}

#[test]
fn a_batch_is_its_images_one_by_one() {
    let settings = Preprocess { size: (20, 30), ..Preprocess::default() };
    let images = [image(40, 50), image(31, 20)];
    let mut batch = vec![0.0; 2 * settings.output_len()];
    settings.run_batch_into(&[&images[0], &images[1]], &mut batch).expect("good settings");
    let single: Vec<f32> =
        images.iter().flat_map(|image| settings.run(image).expect("good settings")).collect();
    assert_eq!(batch, single);
    settings.run_batch_into(&[], &mut []).expect("nothing to do");
}

#[test]
fn a_box_outside_is_an_error() {
    let photo = image(10, 10);
    let outside = |left, width| {
        let part = SourceBox { left, top: 0.0, width, height: 5.0 };
        resize_box(&photo, part, 4, 4, Interpolation::Bilinear)
    };
    assert!(outside(0.0, 10.0).is_ok());
    for (left, width) in [(0.5, 10.0), (-1.0, 4.0), (0.0, 0.0), (f64::NAN, 4.0), (0.0, f64::INFINITY)] {
        assert!(matches!(outside(left, width), Err(PreprocessError::SourceBox(_))), "{left} {width}");
    }
}
