//! What was found, for people and for programs.

use crate::output::{Align, table};
use cardinal_data::{Dataset, Survey, Task};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;

/// Up to here, all classes are listed; beyond, only the smallest and the largest.
const LISTED: usize = 40;

/// How many of each are.
const EXTREMES: usize = 5;

/// One split.
pub(super) struct Report<'a> {
    split: &'a str,
    set: &'a dyn Dataset,
    /// Images per class; an image with several labels counts in each.
    counts: Vec<usize>,
    pub(super) survey: Survey,
}

impl<'a> Report<'a> {
    pub(super) fn new(split: &'a str, set: &'a dyn Dataset, survey: Survey) -> Self {
        let mut counts = vec![0; set.classes().len()];
        for index in 0..set.len() {
            for class in set.label(index).classes() {
                counts[*class as usize] += 1;
            }
        }
        Self { split, set, counts, survey }
    }

    /// Smallest, middle and largest of one side of the images, which must not be none.
    fn range(&self, side: impl Fn(&(u32, u32)) -> u32) -> [u32; 3] {
        let mut sides: Vec<(u32, u64)> =
            self.survey.sizes.iter().map(|(size, count)| (side(size), *count)).collect();
        sides.sort_unstable();
        let half = self.survey.whole().div_ceil(2);
        let mut seen = 0;
        let middle = sides.iter().find(|(_, count)| {
            seen += count;
            seen >= half
        });
        [sides.first(), middle, sides.last()].map(|entry| entry.map_or(0, |(side, _)| *side))
    }

    /// Images by their shorter side: at most so many pixels, how many. Powers of two, without empty ends.
    fn histogram(&self) -> Vec<(u32, u64)> {
        let bin = |(width, height): &(u32, u32)| {
            (*width).min(*height).checked_next_power_of_two().unwrap_or(u32::MAX)
        };
        let bins: Vec<(u32, u64)> =
            self.survey.sizes.iter().map(|(size, count)| (bin(size), *count)).collect();
        let (Some(first), Some(last)) = (bins.iter().map(|b| b.0).min(), bins.iter().map(|b| b.0).max())
        else {
            return Vec::new();
        };
        let count = |bin: u32| bins.iter().filter(|(other, _)| *other == bin).map(|(_, count)| count).sum();
        let powers = std::iter::successors(Some(first), |bin| bin.checked_mul(2));
        powers.take_while(|bin| *bin <= last).map(|bin| (bin, count(bin))).collect()
    }

    /// The sizes that most images have.
    fn common_sizes(&self) -> Vec<((u32, u32), u64)> {
        let mut sizes: Vec<_> = self.survey.sizes.iter().map(|(size, count)| (*size, *count)).collect();
        sizes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        sizes.truncate(EXTREMES);
        sizes
    }
}

pub(super) fn text(out: &mut impl Write, reports: &[Report<'_>], pixels: bool) -> anyhow::Result<()> {
    for (number, report) in reports.iter().enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        let kind = match report.set.task() {
            Task::SingleLabel => "",
            Task::MultiLabel => ", several labels per image",
        };
        let (images, classes) = (report.set.len(), report.set.classes().len());
        writeln!(out, "{}: {images} images, {classes} classes{kind}", report.set.describe())?;
        match report.survey.broken.len() {
            0 => writeln!(out, "all of them can be read")?,
            broken => writeln!(out, "{broken} of them cannot be read")?,
        }
        if pixels && report.survey.whole() > 0 {
            pixel_text(out, report)?;
        }
        writeln!(out)?;
        class_text(out, report)?;
    }
    Ok(())
}

fn pixel_text(out: &mut impl Write, report: &Report<'_>) -> anyhow::Result<()> {
    let triple = |values: [f64; 3]| values.map(|value| format!("{value:.4}")).join(" ");
    writeln!(
        out,
        "mean {}   std {}   (red, green, blue in [0, 1])",
        triple(report.survey.mean()),
        triple(report.survey.std())
    )?;
    for (name, [smallest, middle, largest]) in
        [("width", report.range(|size| size.0)), ("height", report.range(|size| size.1))]
    {
        writeln!(out, "{name} {smallest} to {largest}, median {middle}")?;
    }
    let common = report.common_sizes();
    let sizes: Vec<String> = common.iter().map(|((w, h), count)| format!("{w} x {h} ({count})")).collect();
    writeln!(out, "most frequent sizes: {}", sizes.join(", "))?;
    let histogram = report.histogram();
    let most = histogram.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
    let bar = |count: u64| "#".repeat((count * 40).div_ceil(most) as usize);
    let rows: Vec<Vec<String>> = histogram
        .iter()
        .map(|(up_to, count)| vec![format!("<= {up_to}"), count.to_string(), bar(*count)])
        .collect();
    writeln!(out)?;
    Ok(table(out, &[("shorter side", Align::Right), ("images", Align::Right), ("", Align::Left)], &rows)?)
}

fn class_text(out: &mut impl Write, report: &Report<'_>) -> anyhow::Result<()> {
    let row = |class: &usize| {
        vec![class.to_string(), report.set.classes()[*class].clone(), report.counts[*class].to_string()]
    };
    let head = [("class", Align::Right), ("name", Align::Left), ("images", Align::Right)];
    let mut order: Vec<usize> = (0..report.counts.len()).collect();
    if order.len() <= LISTED {
        return Ok(table(out, &head, &order.iter().map(row).collect::<Vec<_>>())?);
    }
    order.sort_by_key(|class| report.counts[*class]);
    let mut rows: Vec<Vec<String>> = order[..EXTREMES].iter().map(row).collect();
    rows.push(vec!["...".into(), "(--json lists all)".into(), "...".into()]);
    rows.extend(order[order.len() - EXTREMES..].iter().map(row));
    Ok(table(out, &head, &rows)?)
}

pub(super) fn json(
    out: &mut impl Write,
    path: Option<&Path>,
    reports: &[Report<'_>],
    pixels: bool,
) -> anyhow::Result<()> {
    let splits: Vec<Value> = reports.iter().map(|report| as_json(report, pixels)).collect();
    let path = path.map(|path| path.display().to_string());
    writeln!(out, "{}", serde_json::to_string_pretty(&json!({ "data": path, "splits": splits }))?)?;
    Ok(())
}

fn as_json(report: &Report<'_>, pixels: bool) -> Value {
    let classes = report.set.classes().iter().zip(&report.counts);
    let classes: Vec<Value> =
        classes.map(|(name, images)| json!({ "name": name, "images": images })).collect();
    let broken = report.survey.broken.values();
    let broken: Vec<Value> = broken
        .map(|error| json!({ "file": error.path.display().to_string(), "error": error.kind.to_string() }))
        .collect();
    let mut value = json!({
        "split": report.split,
        "description": report.set.describe(),
        "task": match report.set.task() {
            Task::SingleLabel => "single-label",
            Task::MultiLabel => "multi-label",
        },
        "images": report.set.len(),
        "num_classes": report.set.classes().len(),
        "classes": classes,
        "broken": broken,
    });
    if pixels && report.survey.whole() > 0 {
        let range = |[min, median, max]: [u32; 3]| json!({ "min": min, "median": median, "max": max });
        let histogram = report.histogram().into_iter();
        let histogram: Vec<Value> =
            histogram.map(|(up_to, images)| json!({ "up_to": up_to, "images": images })).collect();
        let common = report.common_sizes().into_iter();
        let common: Vec<Value> =
            common.map(|((w, h), images)| json!({ "width": w, "height": h, "images": images })).collect();
        value["mean"] = json!(report.survey.mean());
        value["std"] = json!(report.survey.std());
        value["width"] = range(report.range(|size| size.0));
        value["height"] = range(report.range(|size| size.1));
        value["shorter_side"] = json!(histogram);
        value["frequent_sizes"] = json!(common);
    }
    value
}
