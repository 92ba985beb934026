//! Line charts and the confusion matrix as SVG, for the page and for files of their own.

use std::fmt::Write;

use super::svg::{Axis, escape, number};
use crate::metrics::Confusion;

/// Colours and lines, for light and dark surroundings.
pub(super) const STYLE: &str = "\
svg{--ink:#1b1f24;--faint:#d8dde3;--ground:#ffffff;--heat:#1f5fa8;--c0:#1f5fa8;--c1:#c2410c;--c2:#15803d;--c3:#7e22ce}\
@media(prefers-color-scheme:dark){svg{--ink:#e6e9ed;--faint:#3a4149;--ground:#15181c;--heat:#6aa9f0;--c0:#6aa9f0;\
--c1:#f59e63;--c2:#67c587;--c3:#c99bf3}}\
svg text{font:12px system-ui,sans-serif;fill:var(--ink)}svg .title{font-size:14px;font-weight:600}\
svg .grid{stroke:var(--faint);fill:none}svg .line{fill:none;stroke-width:1.8;stroke-linejoin:round}\
svg .end{text-anchor:end}svg .middle{text-anchor:middle}";

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 54.0;
const BOTTOM: f64 = 40.0;
/// More points than the chart has columns show nothing more.
const MOST_POINTS: usize = 400;

/// A chart of some lines over the epochs.
pub(super) struct Chart {
    pub(super) title: &'static str,
    pub(super) unit: &'static str,
    pub(super) lines: Vec<Line>,
}

/// One line: its name and its points.
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) points: Vec<(f64, f64)>,
}

impl Chart {
    /// The chart without lines that have no point; `None` if nothing is left.
    pub(super) fn non_empty(mut self) -> Option<Self> {
        for line in &mut self.lines {
            line.points.retain(|(x, y)| x.is_finite() && y.is_finite());
            line.points = thinned(&line.points);
        }
        self.lines.retain(|line| !line.points.is_empty());
        (!self.lines.is_empty()).then_some(self)
    }

    /// What the axis has to reach: the largest value, but not what stands out far above nearly all others, as the first
    /// evaluation's loss may; it would press the curves to the ground.
    fn most(&self) -> f64 {
        const FAR: f64 = 3.0;
        let mut values: Vec<f64> =
            self.lines.iter().flat_map(|line| &line.points).map(|point| point.1).collect();
        values.sort_by(f64::total_cmp);
        let usual = values.get(values.len() * 19 / 20).copied().unwrap_or(f64::INFINITY);
        let within = |value: &&f64| usual <= 0.0 || **value <= FAR * usual;
        values.iter().rev().find(within).copied().unwrap_or(f64::INFINITY)
    }

    /// Its drawing at (`x`, `y`).
    fn draw(&self, x: f64, y: f64) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let most = self.most();
        let is_cut = points().any(|point| point.1 > most);
        // Epochs begin at 0.
        let xs = Axis::over(std::iter::once(0.0).chain(points().map(|point| point.0)));
        let ys = Axis::over(points().map(|point| point.1.min(most)));
        let column = |value: f64| LEFT + xs.share(value) * (WIDTH - LEFT - RIGHT);
        let row = |value: f64| HEIGHT - BOTTOM - ys.share(value).min(1.0) * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!("<g transform=\"translate({x} {y})\">");
        let mut unit = if self.unit.is_empty() { String::new() } else { format!(", {}", self.unit) };
        if is_cut {
            let largest = points().map(|point| point.1).fold(most, f64::max);
            unit += &format!(", cut off (up to {})", number(largest));
        }
        let _ =
            write!(svg, "<text class=\"title\" x=\"{LEFT}\" y=\"20\">{}{unit}</text>", escape(self.title));
        for tick in ys.ticks() {
            let at = row(tick);
            let _ = write!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{:.0}\"/><text class=\"end\" x=\"{:.0}\" y=\"{:.1}\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                number(tick)
            );
        }
        for tick in xs.ticks() {
            let (at, y) = (column(tick), HEIGHT - BOTTOM + 16.0);
            let _ = write!(svg, "<text class=\"middle\" x=\"{at:.1}\" y=\"{y:.0}\">{}</text>", number(tick));
        }
        let _ = write!(
            svg,
            "<text class=\"end\" x=\"{:.0}\" y=\"{:.0}\">epochs</text>",
            WIDTH - RIGHT,
            HEIGHT - 6.0
        );
        let mut legend = LEFT;
        for (colour, line) in self.lines.iter().enumerate() {
            let colour = colour % 4;
            let _ = write!(
                svg,
                "<path class=\"line\" style=\"stroke:var(--c{colour})\" d=\"M{legend:.0} 37h16\"/>\
                 <text x=\"{:.0}\" y=\"41\">{}</text><path class=\"line\" style=\"stroke:var(--c{colour})\" d=\"",
                legend + 21.0,
                escape(line.name)
            );
            legend += 40.0 + 6.6 * line.name.len() as f64;
            for (number, (x, y)) in line.points.iter().enumerate() {
                let _ =
                    write!(svg, "{}{:.1} {:.1}", if number == 0 { 'M' } else { 'L' }, column(*x), row(*y));
            }
            svg += "\"/>";
            if let [(x, y)] = line.points[..] {
                let (x, y) = (column(x), row(y));
                let _ = write!(
                    svg,
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" style=\"fill:var(--c{colour})\"/>"
                );
            }
        }
        svg + "</g>"
    }
}

/// The charts, two beside each other; `style` makes it a file of its own.
pub(super) fn charts(charts: &[Chart], style: bool) -> String {
    let rows = charts.len().div_ceil(2).max(1);
    let (width, height) = (WIDTH * charts.len().clamp(1, 2) as f64, HEIGHT * rows as f64);
    let mut svg = open(width, height, "curves of the run", style);
    for (number, chart) in charts.iter().enumerate() {
        svg += &chart.draw(WIDTH * (number % 2) as f64, HEIGHT * (number / 2) as f64);
    }
    svg + "</svg>"
}

/// The matrix, a row per true class; `None` for more classes than can be told apart.
pub(super) fn confusion(confusion: &Confusion, classes: &[String], style: bool) -> Option<String> {
    const MOST: usize = 100;
    let count = confusion.classes();
    if count == 0 || count > MOST {
        return None;
    }
    let cell = (640.0 / count as f64).clamp(6.0, 44.0);
    let side = cell * count as f64;
    let name =
        |class: usize| classes.get(class).map_or_else(|| class.to_string(), |name| shortened(name, 20));
    // Names stand beside the rows, and turned by 60 degrees below the columns.
    let longest = (0..count).map(|class| name(class).chars().count()).max().unwrap_or(0) as f64;
    let (left, top) = (14.0 + 6.6 * longest, 46.0);
    let bottom = if cell >= 12.0 { 18.0 + 6.0 * longest } else { 20.0 };
    // The title needs its room however few classes there are.
    let mut svg =
        open((left + side + 16.0).max(left + 310.0), top + side + bottom, "confusion matrix", style);
    let _ = write!(
        svg,
        "<text class=\"title\" x=\"{left}\" y=\"20\">true class (rows), predicted class (columns)</text>"
    );
    for (actual, row) in confusion.rows().enumerate() {
        let total = row.iter().sum::<u64>().max(1) as f64;
        let y = top + cell * actual as f64;
        if cell >= 9.0 {
            let at = y + cell / 2.0 + 4.0;
            let _ = write!(
                svg,
                "<text class=\"end\" x=\"{:.0}\" y=\"{at:.1}\">{}</text>",
                left - 6.0,
                escape(&name(actual))
            );
        }
        for (predicted, times) in row.iter().enumerate().filter(|(_, times)| **times > 0) {
            let (x, share) = (left + cell * predicted as f64, *times as f64 / total);
            let (actual, predicted) = (escape(&name(actual)), escape(&name(predicted)));
            let _ = write!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{cell:.1}\" height=\"{cell:.1}\" \
                 style=\"fill:var(--heat);fill-opacity:{:.2}\"><title>{actual} taken for {predicted}: {times}</title></rect>",
                0.1 + 0.8 * share
            );
            if cell >= 22.0 {
                let fill = if share > 0.5 { ";fill:var(--ground)" } else { "" };
                let (x, y) = (x + cell / 2.0, y + cell / 2.0 + 4.0);
                let _ = write!(
                    svg,
                    "<text class=\"middle\" x=\"{x:.1}\" y=\"{y:.1}\" style=\"pointer-events:none{fill}\">{times}</text>"
                );
            }
        }
    }
    let _ = write!(
        svg,
        "<rect class=\"grid\" x=\"{left}\" y=\"{top}\" width=\"{side:.1}\" height=\"{side:.1}\"/>"
    );
    if cell >= 12.0 {
        for class in 0..count {
            let (x, y) = (left + cell * (class as f64 + 0.5) + 4.0, top + side + 8.0);
            let _ = write!(
                svg,
                "<text class=\"end\" transform=\"translate({x:.1} {y:.1}) rotate(-60)\">{}</text>",
                escape(&name(class))
            );
        }
    }
    Some(svg + "</svg>")
}

fn open(width: f64, height: f64, label: &str, style: bool) -> String {
    let style = if style {
        format!("<style>{STYLE}</style><rect width=\"100%\" height=\"100%\" style=\"fill:var(--ground)\"/>")
    } else {
        String::new()
    };
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         role=\"img\" aria-label=\"{label}\">{style}"
    )
}

fn shortened(name: &str, most: usize) -> String {
    if name.chars().count() <= most {
        return name.to_owned();
    }
    name.chars().take(most - 1).chain(std::iter::once('…')).collect()
}

/// Means of neighbouring points, so that at most [`MOST_POINTS`] are left.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let together = points.len().div_ceil(MOST_POINTS).max(1);
    let mean = |group: &[(f64, f64)], part: fn(&(f64, f64)) -> f64| {
        group.iter().map(part).sum::<f64>() / group.len() as f64
    };
    points
        .chunks(together)
        .map(|group| (mean(group, |point| point.0), mean(group, |point| point.1)))
        .collect()
}
