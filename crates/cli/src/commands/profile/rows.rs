//! What the tables of 'profile' show: steps with their rates and their share of the roofline.

use crate::output::{Align, shape, table};
use cardinal_engine::plan::Step;
use cardinal_engine::roofline::Roofline;
use cardinal_engine::train::TrainStep;
use serde_json::{Value, json};
use std::io::{self, Write};

/// GB/s from the level of the memory that holds `bytes`.
fn read_rate(roofline: &Roofline, bytes: f64) -> f64 {
    let sizes = [1e6, 8e6, 64e6, f64::INFINITY];
    let level = sizes.iter().position(|&size| bytes <= size).unwrap_or(sizes.len() - 1);
    roofline.read[level]
}

/// What a step does.
pub(super) enum Work<'a> {
    Infer(&'a Step),
    /// A step of training, and whether it belongs to the backward pass.
    Train(&'a TrainStep, bool),
}

/// A step, or all steps of one operator.
#[derive(Clone, Debug)]
pub(super) struct Row {
    layer: String,
    operator: String,
    /// What it computes: its output's shape, or the pass that it belongs to.
    what: String,
    kernel: String,
    pub(super) seconds: f64,
    flops: f64,
    bytes: f64,
    /// The seconds that the roofline allows.
    least: f64,
}

impl Row {
    /// A step that took `seconds` for `batch` images.
    pub(super) fn new(work: &Work<'_>, seconds: f64, batch: usize, roofline: &Roofline) -> Self {
        let (name, operator, kernel, macs, maps) = match work {
            Work::Infer(s) => (s.name(), s.operator(), s.kernel(), s.macs(), s.map_bytes()),
            Work::Train(s, _) => (s.name(), s.operator(), s.kernel(), s.macs(), s.map_bytes()),
        };
        let (what, weights) = match work {
            Work::Infer(step) => (shape(&step.output_shape()), step.weight_bytes()),
            Work::Train(_, backward) => (if *backward { "backward" } else { "forward" }.into(), 0),
        };
        let (flops, bytes) = (2.0 * (macs * batch) as f64, (maps * batch + weights) as f64);
        Self {
            layer: name.into(),
            operator: operator.into(),
            what,
            kernel: kernel.into(),
            seconds: seconds.max(1e-9),
            flops,
            bytes,
            least: (flops / (roofline.fma * 1e9)).max(bytes / (read_rate(roofline, bytes) * 1e9)),
        }
    }

    /// What is measured between the steps of a plan.
    pub(super) fn between(what: &str, seconds: f64) -> Self {
        let (layer, operator, kernel) = (String::new(), what.to_owned(), String::new());
        let seconds = seconds.max(1e-9);
        Self { layer, operator, what: String::new(), kernel, seconds, flops: 0.0, bytes: 0.0, least: 0.0 }
    }

    fn as_text(&self, total: f64) -> Vec<String> {
        let rate =
            |value: f64| if value == 0.0 { "-".into() } else { format!("{:.1}", value / self.seconds / 1e9) };
        let roofline = self.least / self.seconds * 100.0;
        vec![
            self.layer.clone(),
            self.operator.clone(),
            self.what.clone(),
            self.kernel.clone(),
            format!("{:.3}", self.seconds * 1e3),
            format!("{:.1} %", self.seconds / total * 100.0),
            rate(self.flops),
            rate(self.bytes),
            if self.least == 0.0 { "-".into() } else { format!("{roofline:.0} %") },
        ]
    }

    fn as_json(&self, what: &str, total: f64) -> Value {
        json!({
            "layer": self.layer,
            "operator": self.operator,
            what: self.what,
            "kernel": self.kernel,
            "ms": self.seconds * 1e3,
            "share": self.seconds / total,
            "gflops": self.flops / self.seconds / 1e9,
            "bytes": self.bytes,
            "roofline": self.least / self.seconds,
        })
    }
}

/// The rows of one profile.
pub(super) struct Rows {
    rows: Vec<Row>,
    /// The heading of [`Row::what`].
    what: &'static str,
    /// Seconds of all steps.
    pub(super) total: f64,
}

impl Rows {
    pub(super) fn new(rows: Vec<Row>, what: &'static str) -> Self {
        let total = rows.iter().map(|row| row.seconds).sum();
        Self { rows, what, total }
    }

    /// One row for all steps of an operator, the costliest first.
    pub(super) fn by_operator(&mut self) {
        let mut groups: Vec<(Row, usize)> = Vec::new();
        for row in self.rows.drain(..) {
            match groups.iter_mut().find(|(group, _)| group.operator == row.operator) {
                Some((group, count)) => {
                    *count += 1;
                    group.seconds += row.seconds;
                    group.flops += row.flops;
                    group.bytes += row.bytes;
                    group.least += row.least;
                    if group.what != row.what {
                        group.what.clear();
                    }
                    if group.kernel != row.kernel {
                        group.kernel.clear();
                    }
                }
                None => groups.push((row, 1)),
            }
        }
        let named = |(group, count): (Row, usize)| Row { layer: format!("{count} steps"), ..group };
        self.rows = groups.into_iter().map(named).collect();
        self.costliest(usize::MAX);
    }

    /// Leaves the `count` costliest rows, the costliest first.
    pub(super) fn costliest(&mut self, count: usize) {
        self.rows.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        self.rows.truncate(count);
    }

    pub(super) fn as_json(&self) -> Vec<Value> {
        self.rows.iter().map(|row| row.as_json(self.what, self.total)).collect()
    }

    /// Writes the table.
    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let head = [
            ("layer", Align::Left),
            ("operator", Align::Left),
            (self.what, Align::Left),
            ("kernel", Align::Left),
            ("ms", Align::Right),
            ("share", Align::Right),
            ("GFLOP/s", Align::Right),
            ("GB/s", Align::Right),
            ("roofline", Align::Right),
        ];
        table(out, &head, &self.rows.iter().map(|row| row.as_text(self.total)).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(operator: &str, seconds: f64, least: f64) -> Row {
        Row { least, ..Row { operator: operator.into(), ..Row::between("", seconds) } }
    }

    #[test]
    fn steps_of_one_operator_are_added() {
        let mut rows = Rows::new(vec![row("a", 1.0, 0.5), row("b", 5.0, 0.0), row("a", 2.0, 1.0)], "pass");
        rows.by_operator();
        let found: Vec<_> = rows.rows.iter().map(|row| row.as_text(rows.total)).collect();
        let cells = |row: &Vec<String>| [0, 1, 4, 5, 8].map(|column| row[column].clone());
        assert_eq!(cells(&found[0]), ["1 steps", "b", "5000.000", "62.5 %", "-"]);
        assert_eq!(cells(&found[1]), ["2 steps", "a", "3000.000", "37.5 %", "50 %"]);
    }

    #[test]
    fn the_costliest_come_first_and_shares_stay() {
        let mut rows = Rows::new(vec![row("a", 1.0, 0.5), row("b", 3.0, 0.0)], "pass");
        rows.costliest(1);
        assert_eq!(rows.rows.len(), 1);
        assert_eq!(rows.as_json()[0]["share"], 0.75);
    }
}
