//! Published accuracies, and those of our own.

use super::results::Own;

/// A network's accuracy at one input size.
#[derive(Clone, Debug)]
pub(super) struct Accuracy {
    pub(super) model: String,
    pub(super) size: usize,
    /// The line of a figure that it belongs to.
    pub(super) family: String,
    /// What it is called in a figure.
    pub(super) label: String,
    /// Percent.
    pub(super) top1: f64,
    /// The paper's table, timm's results, or our own evaluation.
    pub(super) source: String,
    pub(super) own: bool,
}

/// All accuracies: our own where there are some, and published ones everywhere else.
pub(super) fn accuracies(own: &[Own]) -> Vec<Accuracy> {
    let replaced = |mut row: Accuracy| {
        if let Some(own) = own.iter().find(|own| own.model == row.model && own.size == row.size) {
            row.top1 = own.top1;
            row.own = true;
            row.source = format!("own, on {} images ({})", own.images, own.file);
        }
        row
    };
    include_str!("published.tsv").lines().filter_map(parse).map(replaced).collect()
}

fn parse(line: &str) -> Option<Accuracy> {
    let columns: Vec<&str> = line.split('\t').filter(|_| !line.starts_with('#')).collect();
    let &[model, size, family, label, top1, source] = columns.as_slice() else { return None };
    Some(Accuracy {
        model: model.into(),
        size: size.parse().ok()?,
        family: family.into(),
        label: label.into(),
        top1: top1.parse().ok()?,
        source: source.into(),
        own: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cardinal_models::registry;

    #[test]
    fn every_line_is_of_a_network() {
        let lines = include_str!("published.tsv").lines().filter(|line| !line.starts_with('#')).count();
        let rows = accuracies(&[]);
        assert_eq!(rows.len(), lines);
        for row in &rows {
            assert_eq!(registry::find(&row.model).unwrap().name, row.model);
            assert!((50.0..90.0).contains(&row.top1) && !row.own, "{row:?}");
        }
    }

    #[test]
    fn an_own_accuracy_goes_first() {
        let own = Own {
            model: "tresnet_m".into(),
            size: 224,
            top1: 80.5,
            images: 50_000,
            file: "eval.json".into(),
        };
        let rows = accuracies(&[own]);
        let row = rows.iter().find(|row| row.model == "tresnet_m" && row.size == 224).unwrap();
        assert!(row.own && row.top1 == 80.5 && row.source.contains("50000 images (eval.json)"));
        assert!(!rows.iter().find(|row| row.model == "tresnet_m" && row.size == 448).unwrap().own);
    }
}
