//! Class names, and results as text, JSON or CSV.

use crate::classes::{Prediction, best};
use crate::output::csv_field;
use anyhow::Context;
use cardinal_data::DataError;
use serde::Serialize;
use serde_json::json;
use std::io::Write;
use std::path::Path;

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Text,
    Json,
    Csv,
}

/// The classes of one image, the likeliest first.
#[derive(Clone, Debug, Serialize)]
pub(in crate::commands) struct Outcome {
    pub(in crate::commands) file: String,
    pub(in crate::commands) predictions: Vec<Prediction>,
}

impl Outcome {
    pub(in crate::commands) fn new(
        file: String,
        probabilities: &[f32],
        names: &[String],
        topk: usize,
    ) -> Self {
        Self { file, predictions: best(probabilities, names, topk) }
    }
}

/// Reads class names from a text file or a JSON list.
pub(in crate::commands) fn read_names(path: &Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(&text)
            .with_context(|| format!("{}: not a JSON list of names", path.display()));
    }
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// Prints the results; JSON also tells of the images that gave none.
pub(super) fn print(
    out: &mut impl Write,
    style: Style,
    outcomes: &[Outcome],
    failures: &[DataError],
) -> anyhow::Result<()> {
    match style {
        Style::Text => {
            for outcome in outcomes {
                writeln!(out, "{}", outcome.file)?;
                for p in &outcome.predictions {
                    writeln!(out, "  {:6.2} %  {}", p.probability * 100.0, p.name)?;
                }
            }
        }
        Style::Csv => {
            writeln!(out, "file,rank,class,name,probability")?;
            for outcome in outcomes {
                for (rank, p) in outcome.predictions.iter().enumerate() {
                    let (file, name) = (csv_field(&outcome.file), csv_field(&p.name));
                    writeln!(out, "{file},{},{},{name},{:.6}", rank + 1, p.class, p.probability)?;
                }
            }
        }
        Style::Json => {
            let mut list: Vec<serde_json::Value> = outcomes.iter().map(|o| json!(o)).collect();
            let failed =
                |e: &DataError| json!({ "file": e.path.display().to_string(), "error": e.kind.to_string() });
            list.extend(failures.iter().map(failed));
            writeln!(out, "{}", serde_json::to_string_pretty(&list)?)?;
        }
    }
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_sorted_and_cut() {
        let names: Vec<String> = ["a", "b", "c"].map(String::from).into();
        let outcome = Outcome::new("x.png".into(), &[0.2, 0.5, 0.3], &names, 2);
        let order: Vec<_> = outcome.predictions.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(order, ["b", "c"]);
    }
}
