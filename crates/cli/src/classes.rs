//! What classes are called, and which of them are the likeliest.

use crate::exit::Usage;
use serde::Serialize;

const IMAGENET: &str = include_str!("../../../assets/imagenet1k.txt");

/// A class and how likely it is.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Prediction {
    pub(crate) class: usize,
    pub(crate) name: String,
    pub(crate) probability: f32,
}

/// The `count` likeliest classes, the likeliest first; of equals the first.
pub(crate) fn best(probabilities: &[f32], names: &[String], count: usize) -> Vec<Prediction> {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]).then(a.cmp(&b)));
    let row =
        |class: usize| Prediction { class, name: names[class].clone(), probability: probabilities[class] };
    order.into_iter().take(count).map(row).collect()
}

/// Logits to probabilities, in place: of classes that exclude each other, or, with several labels per image, of each
/// class by itself.
pub(crate) fn probabilities(row: &mut [f32], multi_label: bool) {
    if multi_label {
        row.iter_mut().for_each(|value| *value = 1.0 / (1.0 + (-*value).exp()));
        return;
    }
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|value| *value = (*value - largest).exp());
    let sum: f32 = row.iter().sum();
    row.iter_mut().for_each(|value| *value /= sum);
}

/// The names of `classes` classes: the given ones, ImageNet's if there are a thousand, or numbers.
pub(crate) fn names(given: Option<Vec<String>>, classes: usize) -> anyhow::Result<Vec<String>> {
    match given {
        Some(names) if names.len() == classes => Ok(names),
        Some(names) => {
            let text =
                format!("{} class names are given, but the network has {classes} classes", names.len());
            Err(Usage(text).into())
        }
        None if classes == 0 => Err(Usage("the network has no classifier".into()).into()),
        None if classes == 1000 => Ok(IMAGENET.lines().map(str::to_owned).collect()),
        None => Ok((0..classes).map(|class| format!("class {class}")).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_exclude_each_other_or_not() {
        let mut row = [0.0, 2.0_f32.ln()];
        probabilities(&mut row, false);
        assert!((row[0] - 1.0 / 3.0).abs() < 1e-6 && (row[1] - 2.0 / 3.0).abs() < 1e-6, "{row:?}");
        let mut row = [0.0, 3.0_f32.ln()];
        probabilities(&mut row, true);
        assert!((row[0] - 0.5).abs() < 1e-6 && (row[1] - 0.75).abs() < 1e-6, "{row:?}");
    }

    #[test]
    fn imagenet_has_a_thousand_names() {
        let names = names(None, 1000).unwrap();
        assert_eq!(names.len(), 1000);
        assert!(names[281].contains("tabby"), "{}", names[281]);
    }

    #[test]
    fn a_wrong_number_of_names_is_refused() {
        let error = names(Some(vec!["cat".into()]), 2).unwrap_err().to_string();
        assert_eq!(error, "1 class names are given, but the network has 2 classes");
        assert!(names(None, 0).is_err());
        assert_eq!(names(None, 2).unwrap()[1], "class 1");
    }
}
