//! The papers' figures from what was measured: accuracy against latency (ResNeSt figure 1), against inference throughput
//! (TResNet figure 4) and against training throughput (TResNet figure 5).

use super::plot::{Family, Plot, Point};
use super::published::Accuracy;
use super::results::{Results, Speed, Task};

/// A figure, the file that it gets, and the points that it has.
pub(super) struct Figure {
    pub(super) file: &'static str,
    pub(super) plot: Plot,
    pub(super) caption: String,
    /// The points, for the JSON: the accuracy, the speed, and x.
    pub(super) points: Vec<(Accuracy, Speed, f64)>,
    /// Networks with an accuracy that were not measured.
    pub(super) missing: Vec<String>,
}

/// The figures that have at least two points.
pub(super) fn figures(results: &Results, accuracies: &[Accuracy], machine: &str) -> Vec<Figure> {
    let latency = |row: &Accuracy| {
        let all = results.ours(&row.model, row.size, Task::Inference);
        let one = all.into_iter().find(|speed| speed.batch == 1)?;
        Some((one.clone(), 1e3 / one.rate))
    };
    let rate = |task: Task| {
        move |row: &Accuracy| {
            let speed = results.fastest(&row.model, row.size, task)?;
            Some((speed.clone(), speed.rate))
        }
    };
    let mut families: Vec<&str> = Vec::new();
    for row in accuracies {
        if !families.contains(&row.family.as_str()) {
            families.push(&row.family);
        }
    }
    let make = |file, title: &str, x: &str, caption: &str, of: &dyn Fn(&Accuracy) -> Option<(Speed, f64)>| {
        let found: Vec<_> =
            accuracies.iter().filter_map(|row| of(row).map(|(speed, x)| (row.clone(), speed, x))).collect();
        let missing = accuracies.iter().filter(|row| of(row).is_none());
        let missing = missing.map(|row| format!("{} ({} px)", row.label, row.size)).collect();
        (found.len() >= 2).then(|| Figure {
            file,
            plot: plot(title, x, machine, &families, &found),
            caption: caption.into(),
            points: found,
            missing,
        })
    };
    let figures = [
        make(
            "accuracy-latency",
            "Accuracy against latency",
            "milliseconds for one image (logarithmic)",
            "ResNeSt figure 1: top-1 accuracy against the time of a single image (batch 1), each network at the input \
             size of its accuracy. Left and up is better.",
            &latency,
        ),
        make(
            "accuracy-throughput",
            "Accuracy against inference throughput",
            "images per second (logarithmic)",
            "TResNet figure 4: top-1 accuracy against images per second, at the fastest of the batches that were \
             measured. Right and up is better.",
            &rate(Task::Inference),
        ),
        make(
            "accuracy-training",
            "Accuracy against training throughput",
            "images per second in training (logarithmic)",
            "TResNet figure 5: top-1 accuracy against images per second in training, at the fastest of the batches that \
             were measured. Right and up is better.",
            &rate(Task::Training),
        ),
    ];
    figures.into_iter().flatten().collect()
}

/// Of `all` families those that have a point; each looks the same in every figure.
fn plot(title: &str, x: &str, machine: &str, all: &[&str], found: &[(Accuracy, Speed, f64)]) -> Plot {
    let point = |(row, speed, x): &(Accuracy, Speed, f64)| Point {
        label: row.label.clone(),
        x: *x,
        y: row.top1,
        own: row.own,
        facts: facts(row, speed),
    };
    let family = |(look, name): (usize, &&str)| {
        let points: Vec<Point> = found.iter().filter(|(row, _, _)| row.family == *name).map(point).collect();
        (!points.is_empty()).then(|| Family { name: (*name).to_owned(), look, points })
    };
    let families = all.iter().enumerate().filter_map(family).collect();
    let dtype = &found[0].1.dtype;
    let hollow = if found.iter().all(|(row, _, _)| row.own) {
        "accuracies are our own"
    } else {
        "hollow: published accuracy, filled: our own"
    };
    Plot {
        title: title.into(),
        subtitle: format!("Cardinal on {machine}, {dtype}; {hollow}"),
        x: x.into(),
        y: "top-1 on ImageNet, %".into(),
        families,
    }
}

/// What a point's title says.
fn facts(row: &Accuracy, speed: &Speed) -> String {
    let origin = &speed.origin;
    format!(
        "{} ({}, {} px): {} % top-1 ({}{})\n{} images/s at batch {}, {:.1} ms for a batch\n{}\n{}, {} ({})",
        row.label,
        row.model,
        row.size,
        row.top1,
        if row.own { "" } else { "published: " },
        row.source,
        rounded(speed.rate),
        speed.batch,
        speed.batch as f64 / speed.rate * 1e3,
        origin.command,
        origin.machine,
        origin.date,
        origin.file
    )
}

/// Three digits, or all before the point.
pub(super) fn rounded(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}
