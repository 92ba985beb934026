//! The papers' tables, with our measured numbers beside the published ones. What was not measured stays empty.

use super::figures::rounded;
use super::results::{Largest, Origin, Results, Speed, Task};
use std::rc::Rc;

/// A table of the report.
pub(super) struct Table {
    pub(super) title: &'static str,
    pub(super) note: &'static str,
    pub(super) head: Vec<&'static str>,
    pub(super) rows: Vec<Row>,
}

/// One network.
pub(super) struct Row {
    pub(super) label: &'static str,
    /// Ours, or none where the registry has no such network.
    pub(super) model: Option<&'static str>,
    pub(super) cells: Vec<Cell>,
}

/// A number as it is shown, and where it comes from if it is measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) origin: Option<Rc<Origin>>,
}

impl Cell {
    fn published(value: Option<f64>) -> Self {
        Self { text: value.map_or_else(String::new, |value| value.to_string()), origin: None }
    }

    /// An accuracy, with one digit or two, as the papers have them.
    fn percent(value: f64) -> Self {
        let two = format!("{value:.2}");
        Self { text: two.strip_suffix('0').map_or(two.clone(), str::to_owned), origin: None }
    }

    fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), origin: None }
    }

    fn rate(speed: Option<&Speed>) -> Self {
        speed.map_or_else(Self::default, |speed| Self {
            text: format!("{} (batch {})", rounded(speed.rate), speed.batch),
            origin: Some(Rc::clone(&speed.origin)),
        })
    }

    fn largest(largest: Option<&Largest>) -> Self {
        largest.map_or_else(Self::default, |row| Self {
            text: format!("{} in {}", row.batch, row.limit),
            origin: Some(Rc::clone(&row.origin)),
        })
    }

    fn measured(speed: Option<&Speed>, value: impl Fn(&Speed) -> Option<String>) -> Self {
        speed
            .and_then(|speed| Some((value(speed)?, Rc::clone(&speed.origin))))
            .map_or_else(Self::default, |(text, origin)| Self { text, origin: Some(origin) })
    }

    /// A measured speed divided by that of the table's first row.
    fn ratio(speed: Option<&Speed>, first: Option<&Speed>) -> Self {
        Self::measured(speed, |speed| first.map(|first| ratio(Some(speed.rate), Some(first.rate))))
    }

    fn gmacs(speed: Option<&Speed>) -> Self {
        Self::measured(speed, |speed| speed.gmacs.map(|gmacs| format!("{gmacs:.2}")))
    }

    /// In millions.
    fn params(speed: Option<&Speed>) -> Self {
        Self::measured(speed, |speed| speed.params.map(|params| format!("{params:.1}")))
    }
}

/// A speed divided by that of the table's first row, as `0.95x`.
fn ratio(value: Option<f64>, first: Option<f64>) -> String {
    match (value, first) {
        (Some(value), Some(first)) if first > 0.0 => format!("{:.2}x", value / first),
        _ => String::new(),
    }
}

/// All tables that have at least one measured cell.
pub(super) fn tables(results: &Results) -> Vec<Table> {
    let all = [
        tresnet_design(results),
        tresnet_models(results),
        tresnet_ablation(results),
        resnest_improvements(results),
        resnest_radix(results),
        resnest_comparison(results),
    ];
    let measured =
        |table: &Table| table.rows.iter().any(|row| row.cells.iter().any(|cell| cell.origin.is_some()));
    all.into_iter().filter(measured).collect()
}

/// Label, model, and the paper's training and inference speed, top-1 and GFLOPs.
const DESIGN: [(&str, &str, usize, [f64; 4]); 7] = [
    ("ResNet50", "resnet50", 224, [805.0, 2830.0, 79.0, 4.1]),
    ("ResNet50-D", "resnet50d", 224, [600.0, 2670.0, 79.3, 4.4]),
    ("ResNeXt50", "resnext50_32x4d", 224, [490.0, 1940.0, 79.4, 4.3]),
    ("EfficientNetB1", "efficientnet_b1", 240, [480.0, 2740.0, 79.2, 0.6]),
    ("SEResNeXt50", "seresnext50_32x4d", 224, [400.0, 1770.0, 79.9, 4.3]),
    ("MixNet-L", "mixnet_l", 224, [400.0, 1400.0, 79.0, 0.5]),
    ("TResNet-M", "tresnet_m", 224, [730.0, 2930.0, 80.8, 5.5]),
];

fn tresnet_design(results: &Results) -> Table {
    let of = |model, size, task| results.fastest(model, size, task);
    let (base_train, base) = (of("resnet50", 224, Task::Training), of("resnet50", 224, Task::Inference));
    let rows = DESIGN.iter().map(|&(label, model, size, [train, infer, top1, flops])| {
        let (ours_train, ours) = (of(model, size, Task::Training), of(model, size, Task::Inference));
        let cells = vec![
            Cell::published(Some(train)),
            Cell::text(ratio(Some(train), Some(DESIGN[0].3[0]))),
            Cell::rate(ours_train),
            Cell::ratio(ours_train, base_train),
            Cell::published(Some(infer)),
            Cell::text(ratio(Some(infer), Some(DESIGN[0].3[1]))),
            Cell::rate(ours),
            Cell::ratio(ours, base),
            Cell::percent(top1),
            Cell::published(Some(flops)),
            Cell::gmacs(ours),
        ];
        Row { label, model: Some(model), cells }
    });
    Table {
        title: "TResNet table 1: ResNet50 and modern networks of similar accuracy",
        note: "The paper's speeds: NVIDIA V100, mixed precision, 90 % of the largest batch. Ratios are to ResNet50.",
        head: vec![
            "network",
            "training, paper",
            "",
            "training, ours",
            "",
            "inference, paper",
            "",
            "inference, ours",
            "",
            "top-1, paper",
            "GFLOPs, paper",
            "GMACs, ours",
        ],
        rows: rows.collect(),
    }
}

/// Label, model, and the paper's training and inference speed, largest batch and top-1.
const MODELS: [(&str, &str, [f64; 4]); 4] = [
    ("ResNet50", "resnet50", [805.0, 2830.0, 288.0, 79.0]),
    ("TResNet-M", "tresnet_m", [730.0, 2930.0, 512.0, 80.8]),
    ("TResNet-L", "tresnet_l", [345.0, 1390.0, 316.0, 81.5]),
    ("TResNet-XL", "tresnet_xl", [250.0, 1060.0, 240.0, 82.0]),
];

fn tresnet_models(results: &Results) -> Table {
    let of = |model, task| results.fastest(model, 224, task);
    let (base_train, base) = (of("resnet50", Task::Training), of("resnet50", Task::Inference));
    let rows = MODELS.iter().map(|&(label, model, [train, infer, batch, top1])| {
        let (ours_train, ours) = (of(model, Task::Training), of(model, Task::Inference));
        let cells = vec![
            Cell::published(Some(train)),
            Cell::rate(ours_train),
            Cell::ratio(ours_train, base_train),
            Cell::published(Some(infer)),
            Cell::rate(ours),
            Cell::ratio(ours, base),
            Cell::published(Some(batch)),
            Cell::largest(results.largest(model)),
            Cell::percent(top1),
        ];
        Row { label, model: Some(model), cells }
    });
    Table {
        title: "TResNet table 3: accuracy, throughput and largest batch",
        note: "The paper's speeds and batches: NVIDIA V100 (16 GB), mixed precision. Ratios are to ResNet50.",
        head: vec![
            "network",
            "training, paper",
            "training, ours",
            "",
            "inference, paper",
            "inference, ours",
            "",
            "largest batch, paper",
            "largest batch, ours",
            "top-1, paper",
        ],
        rows: rows.collect(),
    }
}

const ABLATION: [(&str, &str, [f64; 2]); 6] = [
    ("Original ResNet50", "tresnet_ablation_resnet50", [79.0, 2830.0]),
    ("+ stem: SpaceToDepth", "tresnet_ablation_stem", [79.1, 2950.0]),
    ("+ block-type selection", "tresnet_ablation_blocks", [79.4, 3320.0]),
    ("+ Inplace-ABN", "tresnet_ablation_abn", [79.5, 3470.0]),
    ("+ optimized SE layers", "tresnet_ablation_se", [80.3, 3280.0]),
    ("+ anti-alias downsampling", "tresnet_ablation_aa", [80.8, 2930.0]),
];

fn tresnet_ablation(results: &Results) -> Table {
    let base = results.fastest(ABLATION[0].1, 224, Task::Inference);
    let rows = ABLATION.iter().map(|&(label, model, [top1, infer])| {
        let ours = results.fastest(model, 224, Task::Inference);
        let cells = vec![
            Cell::percent(top1),
            Cell::published(Some(infer)),
            Cell::text(ratio(Some(infer), Some(ABLATION[0].2[1]))),
            Cell::rate(ours),
            Cell::ratio(ours, base),
            Cell::gmacs(ours),
        ];
        Row { label, model: Some(model), cells }
    });
    Table {
        title: "TResNet table 4: ablation",
        note: "Each row adds to the one above. Images per second of inference; the paper's on NVIDIA V100 in mixed precision.",
        head: vec![
            "refinement",
            "top-1, paper",
            "inference, paper",
            "",
            "inference, ours",
            "",
            "GMACs, ours",
        ],
        rows: rows.collect(),
    }
}

/// Label, model, and the paper's parameters (M), GFLOPs and top-1. Mixup and AutoAugment change training alone.
const IMPROVEMENTS: [(&str, &str, [f64; 3]); 5] = [
    ("ResNetD-50", "resnet50d", [25.6, 4.34, 78.31]),
    ("+ mixup", "resnet50d", [25.6, 4.34, 79.15]),
    ("+ autoaug", "resnet50d", [25.6, 4.34, 79.41]),
    ("ResNeSt-50-fast", "resnest50_fast_2s1x64d", [27.5, 4.34, 80.64]),
    ("ResNeSt-50", "resnest50d", [27.5, 5.39, 81.13]),
];

fn resnest_improvements(results: &Results) -> Table {
    let base = results.fastest(IMPROVEMENTS[0].1, 224, Task::Inference);
    let rows = IMPROVEMENTS.iter().map(|&(label, model, [params, flops, top1])| {
        let ours = results.fastest(model, 224, Task::Inference);
        let cells = vec![
            Cell::published(Some(params)),
            Cell::params(ours),
            Cell::published(Some(flops)),
            Cell::gmacs(ours),
            Cell::rate(ours),
            Cell::ratio(ours, base),
            Cell::percent(top1),
        ];
        Row { label, model: Some(model), cells }
    });
    Table {
        title: "ResNeSt table 3, left: breakdown of improvements",
        note: "Images per second of inference. Mixup and AutoAugment change the training, not the network. The paper counts \
               batch norms as operations, we count multiply-adds of layers.",
        head: vec![
            "step",
            "M parameters, paper",
            "ours",
            "GFLOPs, paper",
            "GMACs, ours",
            "inference, ours",
            "",
            "top-1, paper",
        ],
        rows: rows.collect(),
    }
}

const RADIX: [(&str, &str, [f64; 4]); 5] = [
    ("0s1x64d", "resnet50d", [25.6, 4.34, 688.2, 79.41]),
    ("1s1x64d", "resnest50_fast_1s1x64d", [26.3, 4.34, 617.6, 80.35]),
    ("2s1x64d", "resnest50_fast_2s1x64d", [27.5, 4.34, 533.0, 80.64]),
    ("4s1x64d", "resnest50_fast_4s1x64d", [31.9, 4.35, 458.3, 80.90]),
    ("2s2x40d", "resnest50_fast_2s2x40d", [26.9, 4.38, 481.8, 81.00]),
];

fn resnest_radix(results: &Results) -> Table {
    let base = results.fastest(RADIX[0].1, 224, Task::Inference);
    let rows = RADIX.iter().map(|&(label, model, [params, flops, infer, top1])| {
        let ours = results.fastest(model, 224, Task::Inference);
        let cells = vec![
            Cell::published(Some(params)),
            Cell::params(ours),
            Cell::published(Some(flops)),
            Cell::gmacs(ours),
            Cell::published(Some(infer)),
            Cell::text(ratio(Some(infer), Some(RADIX[0].2[2]))),
            Cell::rate(ours),
            Cell::ratio(ours, base),
            Cell::percent(top1),
        ];
        Row { label, model: Some(model), cells }
    });
    Table {
        title: "ResNeSt table 3, right: radix against cardinality",
        note: "2s2x40d: radix 2, cardinality 2, width 40; 0s is the plain ResNet-D block. The paper's images per second are \
               on NVIDIA V100. Ratios are to 0s1x64d.",
        head: vec![
            "variant",
            "M parameters, paper",
            "ours",
            "GFLOPs, paper",
            "GMACs, ours",
            "inference, paper",
            "",
            "inference, ours",
            "",
            "top-1, paper",
        ],
        rows: rows.collect(),
    }
}

/// Label, our network, the crop, and the paper's parameters (M), images per second and top-1.
type Compared = (&'static str, Option<&'static str>, Option<usize>, f64, Option<f64>, f64);

const COMPARISON: [Compared; 12] = [
    ("ResNeSt-101", Some("resnest101e"), Some(256), 48.0, Some(291.3), 83.0),
    ("EfficientNet-B4", Some("tf_efficientnet_b4"), Some(380), 19.0, Some(149.3), 83.0),
    ("SENet-154", Some("senet154"), Some(320), 146.0, Some(133.8), 82.7),
    ("NASNet-A", None, Some(331), 89.0, Some(103.3), 82.7),
    ("AmoebaNet-A", None, Some(299), 87.0, None, 82.8),
    ("ResNeSt-200", Some("resnest200e"), Some(320), 70.0, Some(105.3), 83.9),
    ("EfficientNet-B5", Some("tf_efficientnet_b5"), Some(456), 30.0, Some(84.3), 83.7),
    ("AmoebaNet-C", None, Some(299), 155.0, None, 83.5),
    ("ResNeSt-269", Some("resnest269e"), Some(416), 111.0, Some(51.2), 84.5),
    ("GPipe", None, None, 557.0, None, 84.3),
    ("EfficientNet-B7", Some("tf_efficientnet_b7"), Some(600), 66.0, Some(34.9), 84.4),
    // Not in the paper's table, but in its figure 1.
    ("ResNeSt-50", Some("resnest50d"), Some(224), 27.5, None, 81.13),
];

fn resnest_comparison(results: &Results) -> Table {
    let of = |model: Option<&str>, size: Option<usize>| results.fastest(model?, size?, Task::Inference);
    let base = of(COMPARISON[0].1, COMPARISON[0].2);
    let rows = COMPARISON.iter().map(|&(label, model, size, params, infer, top1)| {
        let ours = of(model, size);
        let cells = vec![
            Cell::published(Some(params)),
            Cell::params(ours),
            Cell::text(size.map_or_else(String::new, |size| size.to_string())),
            Cell::published(infer),
            Cell::text(ratio(infer, COMPARISON[0].4)),
            Cell::rate(ours),
            Cell::ratio(ours, base),
            Cell::percent(top1),
        ];
        Row { label, model, cells }
    });
    Table {
        title: "ResNeSt table 4: comparison at larger crops",
        note: "The paper's images per second: NVIDIA V100, batch 16. Ratios are to ResNeSt-101. The paper's SENet-154 has \
               146M parameters, the published weights' network 115M. ResNeSt-50 stands in the paper's table 3.",
        head: vec![
            "network",
            "M parameters, paper",
            "ours",
            "crop",
            "inference, paper",
            "",
            "inference, ours",
            "",
            "top-1, paper",
        ],
        rows: rows.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cardinal_models::registry;

    #[test]
    fn every_network_of_the_tables_is_in_the_registry_and_rows_are_as_wide_as_heads() {
        let empty = Results::default();
        assert!(tables(&empty).is_empty(), "nothing is shown without measurements");
        let all = [
            tresnet_design(&empty),
            tresnet_models(&empty),
            tresnet_ablation(&empty),
            resnest_improvements(&empty),
            resnest_radix(&empty),
            resnest_comparison(&empty),
        ];
        for table in &all {
            for row in &table.rows {
                assert_eq!(row.cells.len() + 1, table.head.len(), "{}", table.title);
                if let Some(model) = row.model {
                    assert_eq!(registry::find(model).unwrap().name, model);
                }
            }
        }
    }

    #[test]
    fn accuracies_keep_a_digit_behind_the_point() {
        let text = |value| Cell::percent(value).text;
        assert_eq!([text(79.0), text(80.8), text(81.13)], ["79.0", "80.8", "81.13"]);
    }

    #[test]
    fn ratios_are_to_the_first_row() {
        assert_eq!(ratio(Some(50.0), Some(100.0)), "0.50x");
        assert_eq!(ratio(None, Some(100.0)), "");
    }
}
