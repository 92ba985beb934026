//! The network of a run, and whether it suits the data.

use crate::TrainError;
use crate::recipe::{self, Recipe};
use burn::tensor::Device;
use cardinal_data::{Dataset, Task};
use cardinal_models::registry::{Arch, Variant};
use cardinal_models::weights::{Classifier, load, set_values, values};
use cardinal_models::{Model, ModelOptions};
use cardinal_weights::NamedTensors;

/// Whether the recipe suits the data, and its two splits each other.
///
/// # Errors
///
/// They do not; says what to change.
pub(crate) fn check_data(recipe: &Recipe, train: &dyn Dataset, val: &dyn Dataset) -> Result<(), TrainError> {
    let fail = |text: String| Err(TrainError::DataFit(text));
    if train.classes() != val.classes() {
        let differs = train.classes().iter().find(|class| !val.classes().contains(class));
        let differs = differs.or_else(|| val.classes().iter().find(|class| !train.classes().contains(class)));
        let which = differs.map(|class| format!(" ('{class}' is in one only)")).unwrap_or_default();
        return fail(format!(
            "{} has {} classes and {} has {}{which}; give both the same with class_map",
            train.describe(),
            train.classes().len(),
            val.describe(),
            val.classes().len()
        ));
    }
    let multi = train.task() == Task::MultiLabel;
    if multi && recipe.loss.loss == recipe::Loss::CrossEntropy {
        return fail(
            "the data has several labels an image: use --recipe multi-label, or --set loss=bce".into(),
        );
    }
    if multi && recipe.loss.triplet > 0.0 {
        return fail("the triplet loss is for one class an image: --set triplet=0".into());
    }
    Ok(())
}

/// Builds the network with `classes` outputs on `device`. Its weights are drawn from the recipe's seed, on the processor,
/// so that a seed means the same weights on every device; `initial` takes their place, but for a classifier of another
/// size.
///
/// # Errors
///
/// The images are too small, or the weights are not the network's.
pub(crate) fn build(
    recipe: &Recipe,
    variant: &'static Variant,
    classes: usize,
    initial: Option<&NamedTensors>,
    device: &Device,
) -> Result<Model, TrainError> {
    let options = ModelOptions::new()
        .with_num_classes(classes)
        .with_drop_rate(recipe.regularization.drop)
        .with_drop_path_rate(recipe.regularization.drop_path)
        .with_drop_block_rate(recipe.regularization.drop_block)
        .with_zero_init_last(recipe.model.zero_init_last);
    let processor = Device::flex().autodiff();
    processor.seed(recipe.run.seed);
    let mut model = Model::new(variant, &options, &processor);
    let side = recipe.model.img_size;
    model.check_input(&[1, model.in_chans(), side, side])?;
    if let Some(tensors) = initial {
        model = load(model, tensors, Classifier::MayDiffer)?.0;
    }
    if *device == processor {
        return Ok(model);
    }
    let mut placed = Model::new(variant, &options, device);
    for buffers in [false, true] {
        let drawn = values(&model, buffers)?;
        placed = set_values(placed, drawn.iter().map(|(name, values)| (name.as_str(), values.as_slice())));
    }
    Ok(placed)
}

/// Whether the parameter or switch of this name belongs to the parts of the backbone that the recipe freezes: stem and
/// stages, counted from the input.
pub(crate) fn frozen(recipe: &Recipe, variant: &'static Variant) -> impl Fn(&str) -> bool + use<> {
    let parts = recipe.model.freeze;
    let (classifier, arch) = (variant.arch.classifier(), variant.arch);
    move |name: &str| {
        let in_classifier = name.strip_prefix(classifier).is_some_and(|rest| rest.starts_with('.'));
        if parts == 0 || in_classifier || name.starts_with("head.") {
            return false;
        }
        part(&arch, name) < parts
    }
}

/// The part of the backbone that a parameter belongs to: 0 is the stem, 1 to 4 are the stages, with what comes behind
/// the last.
fn part(arch: &Arch, name: &str) -> usize {
    let (prefix, stages): (_, &[usize]) = match arch {
        Arch::ResNet(_) => ("layer", &[0, 1, 2, 3, 4]),
        Arch::TResNet(_) => ("body.layer", &[0, 1, 2, 3, 4]),
        Arch::RegNet(_) => ("s", &[0, 1, 2, 3, 4]),
        // Seven groups of blocks, of which the first and those without a stride belong to the one beside them.
        Arch::EfficientNet(_) | Arch::FbNet(_) => ("blocks.", &[1, 1, 2, 3, 3, 4, 4]),
    };
    let number = name.strip_prefix(prefix).and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
    let behind = ["conv_head", "bn2", "final_conv"].iter().any(|layer| name.starts_with(layer));
    match number {
        Some(number) => stages.get(number).copied().unwrap_or(4),
        None if behind => 4,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cardinal_models::registry::find;
    use cardinal_models::weights::entries;

    fn frozen_of(model: &str, parts: usize) -> Vec<String> {
        let variant = find(model).unwrap();
        let mut recipe = Recipe::default();
        recipe.model.freeze = parts;
        let frozen = frozen(&recipe, variant);
        let model = Model::new(variant, &ModelOptions::new(), &Device::flex());
        entries(&model).into_iter().map(|entry| entry.name).filter(|name| frozen(name)).collect()
    }

    #[test]
    fn parts_are_frozen_from_the_input_on() {
        for model in ["resnest14d", "tresnet_m", "regnety_032", "tf_efficientnet_b0", "fbnetv2_l1"] {
            let Ok(variant) = find(model) else { continue };
            let counts: Vec<usize> = (0..=5).map(|parts| frozen_of(model, parts).len()).collect();
            assert_eq!(counts[0], 0, "{model}");
            assert!(counts.windows(2).all(|pair| pair[0] < pair[1]), "{model}: {counts:?}");
            let all = entries(&Model::new(variant, &ModelOptions::new(), &Device::flex()));
            let classifier = variant.arch.classifier();
            let rest: Vec<_> =
                all.iter().filter(|entry| !frozen_of(model, 5).contains(&entry.name)).collect();
            assert!(rest.iter().all(|entry| entry.name.starts_with(classifier)), "{model}: {rest:?}");
        }
        assert!(
            frozen_of("resnest14d", 1)
                .iter()
                .all(|name| name.starts_with("conv1") || name.starts_with("bn1"))
        );
    }
}
