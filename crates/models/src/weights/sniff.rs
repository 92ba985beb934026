use super::{Entry, entries};
use crate::registry::{self, Variant};
use crate::{Model, ModelError, ModelOptions};
use burn::tensor::Device;
use cardinal_weights::NamedTensors;
use std::collections::HashMap;

/// What a checkpoint is for.
#[derive(Clone, Debug)]
pub struct Sniffed {
    /// The models whose parameters have exactly these names and shapes, the likeliest first. Several when variants
    /// differ only in what has no parameters, such as padding or the place of a pooling.
    pub candidates: Vec<&'static Variant>,
    /// Classes of the classifier; 0 if there is none.
    pub num_classes: usize,
    /// Channels of the input image.
    pub in_chans: usize,
}

/// Finds the models that `tensors` (under timm's names) are the parameters of.
///
/// # Errors
///
/// [`ModelError::Unrecognised`] with the closest model if there is none.
pub fn sniff(tensors: &NamedTensors) -> Result<Sniffed, ModelError> {
    let found: HashMap<&str, &[usize]> = tensors
        .iter()
        .filter(|(name, _)| !name.ends_with("num_batches_tracked"))
        .map(|(name, tensor)| (name, tensor.shape()))
        .collect();
    let mut candidates = Vec::new();
    let mut closest = ("none", 0, 1);
    let mut sizes = (0, 3);
    for variant in registry::variants() {
        let (options, list) = expectation(variant, &found);
        let matched =
            list.iter().filter(|entry| found.get(entry.name.as_str()) == Some(&&entry.shape[..])).count();
        if matched == list.len() && found.len() == list.len() {
            // A row may be another's under a second name.
            if !candidates.iter().any(|known: &&Variant| known.arch == variant.arch) {
                candidates.push(variant);
            }
            sizes = (options.num_classes, options.in_chans);
        }
        // As shares, without division.
        if matched * closest.2 > closest.1 * list.len() {
            closest = (variant.name, matched, list.len());
        }
    }
    if candidates.is_empty() {
        let (nearest, matched, total) = closest;
        return Err(ModelError::Unrecognised { nearest: nearest.into(), matched, total });
    }
    Ok(Sniffed { candidates, num_classes: sizes.0, in_chans: sizes.1 })
}

/// The parameters that `variant` would have with the classes and input channels that the file shows.
fn expectation(variant: &'static Variant, found: &HashMap<&str, &[usize]>) -> (ModelOptions, Vec<Entry>) {
    let options = options_for(variant, |name| found.get(name).copied());
    let list = entries(&Model::new(variant, &options, &Device::flex()));
    (options, list)
}

/// The options with which `variant` has the classes and input channels of `tensors`.
pub fn options_in(variant: &'static Variant, tensors: &NamedTensors) -> ModelOptions {
    options_for(variant, |name| tensors.get(name).map(|tensor| tensor.shape()))
}

fn options_for<'a>(variant: &'static Variant, shape: impl Fn(&str) -> Option<&'a [usize]>) -> ModelOptions {
    let classifier = format!("{}.weight", variant.arch.classifier());
    let classes = shape(&classifier).and_then(|shape| shape.first()).copied().unwrap_or(0);
    let (first, per_channel) = variant.arch.first_conv();
    let inputs =
        shape(first).and_then(|shape| shape.get(1)).map_or(3, |inputs| (inputs / per_channel).max(1));
    // A file can claim anything; what is built to compare it with stays small.
    ModelOptions::new().with_num_classes(classes.min(1 << 20)).with_in_chans(inputs.min(1 << 10))
}
