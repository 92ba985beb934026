//! From a recipe's tables to the data crate's datasets, transforms and loaders.

use crate::TrainError;
use crate::recipe::{
    Augmentation, CropMode, MixMode, MixPairing, PolicyPlace, Recipe, RecipeError, RemoveMode,
    TrainInterpolation,
};
use cardinal_data::{
    AutoAugment, ColorJitter, Crop, CropFilter, Cutout, Dataset, EraseMode, Interpolation, Loader,
    LoaderOptions, Mix, OpenOptions, Pairing, PcaLighting, Preprocess, RandAugment, RandomErasing, Split,
    TrainTransform, open,
};
use cardinal_models::registry::{self, Pretrained};
use std::path::Path;
use std::sync::Arc;

/// Opens the split called `split` of the recipe's data.
///
/// # Errors
///
/// The data is not there, not recognised, or contradicts itself.
pub fn dataset(recipe: &Recipe, split: &str) -> Result<Arc<dyn Dataset>, TrainError> {
    let options =
        OpenOptions { class_map: recipe.data.class_map.as_ref().map(Into::into), ..OpenOptions::default() };
    let path = recipe.data.data_dir.as_ref().map(Path::new);
    Ok(open(path, &Split::from_name(split), &options)?.into())
}

/// How images are prepared for evaluation: as the recipe says, and where it is silent as `published`, the network's own
/// weights, were made for.
///
/// # Errors
///
/// A name in the recipe is unknown.
pub fn preprocess(recipe: &Recipe, published: &Pretrained) -> Result<Preprocess, TrainError> {
    let data = &recipe.data;
    let unknown =
        |key: &str, message: &str| RecipeError::Invalid { key: key.into(), message: message.into() };
    let triple = |given: Option<[f64; 3]>, own: [f32; 3]| given.map_or(own, |list| list.map(|v| v as f32));
    let side = recipe.model.img_size as u32;
    Ok(Preprocess {
        size: (side, side),
        crop_pct: data.crop_pct.unwrap_or(published.crop_pct),
        crop_mode: match &data.crop_mode {
            Some(name) => cardinal_data::CropMode::from_name(name)
                .ok_or_else(|| unknown("data.crop_mode", "must be center, squash or border"))?,
            None => match published.crop_mode {
                registry::CropMode::Center => cardinal_data::CropMode::Center,
                registry::CropMode::Squash => cardinal_data::CropMode::Squash,
                registry::CropMode::Border => cardinal_data::CropMode::Border,
            },
        },
        interpolation: match data.interpolation.as_deref() {
            Some("nearest") => Interpolation::Nearest,
            Some("bilinear") => Interpolation::Bilinear,
            Some("bicubic") => Interpolation::Bicubic,
            Some("lanczos") => Interpolation::Lanczos,
            Some(_) => {
                return Err(
                    unknown("data.interpolation", "must be nearest, bilinear, bicubic or lanczos").into()
                );
            }
            None => match published.interpolation {
                registry::Interpolation::Bilinear => Interpolation::Bilinear,
                registry::Interpolation::Bicubic => Interpolation::Bicubic,
            },
        },
        mean: triple(data.mean, published.mean),
        std: triple(data.std, published.std),
    })
}

/// What happens to a training image.
pub fn transform(recipe: &Recipe, preprocess: &Preprocess) -> TrainTransform {
    let augment = &recipe.augment;
    let (scale, ratio) = (augment.scale, augment.ratio);
    let [brightness, contrast, saturation, hue] = augment.color_jitter;
    let mut transform = TrainTransform {
        size: preprocess.size,
        crop: match augment.train_crop_mode {
            CropMode::Rrc => Crop::RandomResized { scale, ratio },
            CropMode::ShorterSide => {
                let [min, max] = augment.shorter_side;
                Crop::ShorterSide { min, max }
            }
            CropMode::Squash => Crop::Squash,
            CropMode::Pad => Crop::Pad { padding: augment.pad },
        },
        interpolation: match augment.train_interpolation {
            TrainInterpolation::Random => CropFilter::Random,
            TrainInterpolation::Bilinear => CropFilter::Bilinear,
            TrainInterpolation::Bicubic => CropFilter::Bicubic,
        },
        hflip: augment.hflip,
        vflip: augment.vflip,
        cutout: (augment.cutout > 0.0).then(|| Cutout { factor: augment.cutout, ..Cutout::default() }),
        color_jitter: (augment.color_jitter != [0.0; 4]).then_some(ColorJitter {
            brightness,
            contrast,
            saturation,
            hue,
        }),
        pca_lighting: (augment.pca_lighting > 0.0).then_some(PcaLighting { std: augment.pca_lighting }),
        random_erasing: (augment.reprob > 0.0).then(|| RandomErasing {
            probability: augment.reprob,
            mode: match augment.remode {
                RemoveMode::Const => EraseMode::Const,
                RemoveMode::Rand => EraseMode::Rand,
                RemoveMode::Pixel => EraseMode::Pixel,
            },
            count: augment.recount,
            ..RandomErasing::default()
        }),
        policy_place: match augment.aa_place {
            PolicyPlace::After => cardinal_data::PolicyPlace::AfterCrop,
            PolicyPlace::Before => cardinal_data::PolicyPlace::BeforeCrop,
        },
        mean: preprocess.mean,
        std: preprocess.std,
        ..TrainTransform::default()
    };
    policy(&augment.aa, &mut transform);
    transform
}

fn policy(aa: &Augmentation, transform: &mut TrainTransform) {
    let auto = |policy| Some(AutoAugment { policy, ..AutoAugment::default() });
    match *aa {
        Augmentation::Off => {}
        Augmentation::Auto(policy) => transform.auto_augment = auto(policy),
        Augmentation::Rand { operations, magnitude, deviation, increasing, probability } => {
            transform.rand_augment = Some(RandAugment {
                layers: operations,
                magnitude,
                magnitude_std: deviation,
                increasing,
                probability,
                ..RandAugment::default()
            });
        }
    }
}

/// The loader of training batches, for a network of `classes` outputs.
///
/// # Errors
///
/// The batch is larger than the data, or the data has more classes than the network.
pub fn train_loader(
    recipe: &Recipe,
    dataset: Arc<dyn Dataset>,
    preprocess: &Preprocess,
    classes: usize,
) -> Result<Loader, TrainError> {
    let augment = &recipe.augment;
    let mix = recipe.mixes().then_some(Mix {
        mixup_alpha: augment.mixup,
        cutmix_alpha: augment.cutmix,
        prob: augment.mixup_prob,
        switch_prob: augment.mixup_switch_prob,
        pairing: match augment.mixup_pairing {
            MixPairing::Reversed => Pairing::Reversed,
            MixPairing::Permuted => Pairing::Permuted,
        },
        mode: match augment.mixup_mode {
            MixMode::Batch => cardinal_data::MixMode::Batch,
            MixMode::Elem => cardinal_data::MixMode::Elem,
        },
    });
    let options = LoaderOptions {
        smoothing: recipe.regularization.smoothing as f32,
        samples_per_class: recipe.data.samples_per_class,
        mix,
        mix_until: Some(augment.mixup_off_epoch as u64).filter(|epoch| *epoch > 0),
        ..options(recipe, recipe.data.batch_size, classes)
    };
    Ok(if augment.no_aug {
        Loader::with(dataset, Loader::plain(preprocess.clone()), options)?
    } else {
        Loader::train(dataset, transform(recipe, preprocess), options)?
    })
}

/// The loader of evaluation batches.
///
/// # Errors
///
/// As [`train_loader`].
pub fn eval_loader(
    recipe: &Recipe,
    dataset: Arc<dyn Dataset>,
    preprocess: &Preprocess,
    classes: usize,
) -> Result<Loader, TrainError> {
    let batch = recipe.data.validation_batch_size.unwrap_or(recipe.data.batch_size);
    Ok(Loader::eval(dataset, preprocess.clone(), options(recipe, batch, classes))?)
}

fn options(recipe: &Recipe, batch_size: usize, classes: usize) -> LoaderOptions {
    let default = LoaderOptions::default();
    LoaderOptions {
        batch_size,
        workers: recipe.data.workers.unwrap_or(default.workers),
        seed: recipe.run.seed,
        prefetch_bytes: recipe.data.prefetch_mib << 20,
        strict: recipe.data.strict,
        classes: Some(classes),
        ..default
    }
}

/// How images are prepared, as JSON in timm's terms: what a checkpoint says to whoever predicts with it.
pub fn describe_preprocessing(model: &str, preprocess: &Preprocess) -> String {
    let (height, width) = preprocess.size;
    let interpolation = match preprocess.interpolation {
        Interpolation::Nearest => "nearest",
        Interpolation::Bilinear => "bilinear",
        Interpolation::Bicubic => "bicubic",
        Interpolation::Lanczos => "lanczos",
    };
    serde_json::json!({
        "architecture": model,
        "input_size": [3, height, width],
        "mean": preprocess.mean,
        "std": preprocess.std,
        "crop_pct": preprocess.crop_pct,
        "crop_mode": preprocess.crop_mode.name(),
        "interpolation": interpolation,
    })
    .to_string()
}
