//! Scatter plots of accuracy against speed, as SVG: a line for each family, labels that do not overlap, light and dark.

use cardinal_train::report::svg::{Axis, escape, number};
use std::fmt::Write;

/// Colours and lines. Families differ by marker too.
pub(super) const STYLE: &str = "\
svg.plot{--ink:#1b1f24;--soft:#57606a;--faint:#e3e7ec;--ground:#fff;--c0:#c2410c;--c1:#1f5fa8;--c2:#6b7280;--c3:#15803d;\
--c4:#7e22ce;--c5:#0e7490;--c6:#a16207;--c7:#be185d;--c8:#475569}\
@media(prefers-color-scheme:dark){svg.plot{--ink:#e6e9ed;--soft:#a3acb6;--faint:#2d333a;--ground:#15181c;--c0:#f59e63;\
--c1:#6aa9f0;--c2:#9ca3af;--c3:#67c587;--c4:#c99bf3;--c5:#5fc9dc;--c6:#e0b04f;--c7:#f07fb1;--c8:#94a3b8}}\
svg.plot text{font:12px system-ui,sans-serif;fill:var(--ink)}svg.plot .title{font-size:15px;font-weight:600}\
svg.plot .soft{fill:var(--soft)}svg.plot .grid{stroke:var(--faint);fill:none}svg.plot .line{fill:none;stroke-width:1.6;\
stroke-opacity:.55;stroke-linejoin:round}svg.plot .end{text-anchor:end}svg.plot .middle{text-anchor:middle}\
svg.plot .mark{stroke-width:2}";

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 520.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 20.0;
/// Above the plot area: title, subtitle and one line of the legend.
const TOP: f64 = 84.0;
const LEGEND_LINE: f64 = 18.0;
const BOTTOM: f64 = 52.0;
const COLOURS: usize = 9;
/// A letter's width and a line's height, near enough.
const LETTER: f64 = 6.7;
const LINE: f64 = 13.0;

/// A plot.
pub(super) struct Plot {
    pub(super) title: String,
    pub(super) subtitle: String,
    /// What x is, on a logarithmic axis.
    pub(super) x: String,
    pub(super) y: String,
    pub(super) families: Vec<Family>,
}

/// Points joined by a line, from left to right.
pub(super) struct Family {
    pub(super) name: String,
    /// Chooses its colour and its marker.
    pub(super) look: usize,
    pub(super) points: Vec<Point>,
}

impl Family {
    fn colour(&self) -> String {
        format!("var(--c{})", self.look % COLOURS)
    }
}

/// A point and what is known about it.
pub(super) struct Point {
    pub(super) label: String,
    pub(super) x: f64,
    pub(super) y: f64,
    /// Whether its accuracy is our own: such points are filled.
    pub(super) own: bool,
    /// All there is to tell, in lines.
    pub(super) facts: String,
}

impl Plot {
    /// The drawing. With `style` it is a file of its own; otherwise the page has [`STYLE`].
    pub(super) fn draw(&self, style: bool) -> String {
        let points = || self.families.iter().flat_map(|family| &family.points);
        let xs = LogAxis::over(points().map(|point| point.x));
        let ys = Axis::over(points().map(|point| point.y));
        let legend = self.legend();
        let top = TOP + legend.last().map_or(0.0, |place| place[1]);
        let column = |x: f64| LEFT + xs.share(x) * (WIDTH - LEFT - RIGHT);
        let row = |y: f64| HEIGHT - BOTTOM - ys.share(y) * (HEIGHT - top - BOTTOM);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"plot\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
             role=\"img\" aria-label=\"{}\">",
            escape(&self.title)
        );
        if style {
            let _ = write!(
                svg,
                "<style>{STYLE}</style><rect width=\"100%\" height=\"100%\" style=\"fill:var(--ground)\"/>"
            );
        }
        let _ = write!(
            svg,
            "<text class=\"title\" x=\"{LEFT}\" y=\"22\">{}</text><text class=\"soft\" x=\"{LEFT}\" y=\"40\">{}</text>",
            escape(&self.title),
            escape(&self.subtitle)
        );
        for tick in ys.ticks() {
            let at = row(tick);
            let _ = write!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{:.0}\"/><text class=\"end soft\" x=\"{:.0}\" y=\"{:.1}\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                at + 4.0,
                number(tick)
            );
        }
        for tick in xs.ticks() {
            let at = column(tick);
            let _ = write!(
                svg,
                "<path class=\"grid\" d=\"M{at:.1} {top}V{:.0}\"/><text class=\"middle soft\" x=\"{at:.1}\" y=\"{:.0}\">{}</text>",
                HEIGHT - BOTTOM,
                HEIGHT - BOTTOM + 18.0,
                number(tick)
            );
        }
        let _ = write!(
            svg,
            "<text class=\"end\" x=\"{:.0}\" y=\"{:.0}\">{}</text><text x=\"{:.0}\" y=\"{:.0}\">{}</text>",
            WIDTH - RIGHT,
            HEIGHT - 12.0,
            escape(&self.x),
            LEFT,
            top - 8.0,
            escape(&self.y)
        );
        self.draw_lines(&mut svg, &legend, &column, &row);
        self.draw_marks(&mut svg, top, &column, &row);
        svg + "</svg>"
    }

    /// Where each family's entry begins: its column, and how far below the first line of the legend.
    fn legend(&self) -> Vec<[f64; 2]> {
        let (mut x, mut down) = (LEFT, 0.0);
        let mut places = Vec::with_capacity(self.families.len());
        for family in &self.families {
            let width = 32.0 + LETTER * family.name.chars().count() as f64;
            if x > LEFT && x + width > WIDTH {
                (x, down) = (LEFT, down + LEGEND_LINE);
            }
            places.push([x, down]);
            x += width;
        }
        places
    }

    fn draw_lines(
        &self,
        svg: &mut String,
        legend: &[[f64; 2]],
        column: &dyn Fn(f64) -> f64,
        row: &dyn Fn(f64) -> f64,
    ) {
        for (family, [x, down]) in self.families.iter().zip(legend) {
            let colour = family.colour();
            let mut sorted: Vec<&Point> = family.points.iter().collect();
            sorted.sort_by(|a, b| a.x.total_cmp(&b.x));
            let path: Vec<String> = sorted
                .iter()
                .enumerate()
                .map(|(i, p)| format!("{}{:.1} {:.1}", if i == 0 { 'M' } else { 'L' }, column(p.x), row(p.y)))
                .collect();
            let _ = write!(svg, "<path class=\"line\" style=\"stroke:{colour}\" d=\"{}\"/>", path.concat());
            let _ = write!(
                svg,
                "{}<text x=\"{:.0}\" y=\"{:.0}\">{}</text>",
                marker(family.look, [x + 6.0, 56.0 + down], &colour, true),
                x + 16.0,
                60.0 + down,
                escape(&family.name)
            );
        }
    }

    fn draw_marks(&self, svg: &mut String, top: f64, column: &dyn Fn(f64) -> f64, row: &dyn Fn(f64) -> f64) {
        let mut labels = Labels { top, taken: Vec::new() };
        for point in self.families.iter().flat_map(|family| &family.points) {
            labels.keep_free(column(point.x), row(point.y));
        }
        for family in &self.families {
            let colour = family.colour();
            for point in &family.points {
                let (x, y) = (column(point.x), row(point.y));
                let _ = write!(
                    svg,
                    "<g>{}<title>{}</title>",
                    marker(family.look, [x, y], &colour, point.own),
                    escape(&point.facts)
                );
                if let Some((x, y)) = labels.place(x, y, &point.label) {
                    let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escape(&point.label));
                }
                *svg += "</g>";
            }
        }
    }
}

/// A mark of a family at a point: hollow where the accuracy is a published one.
fn marker(look: usize, [x, y]: [f64; 2], colour: &str, filled: bool) -> String {
    let fill = if filled { colour } else { "var(--ground)" };
    let style = format!("class=\"mark\" style=\"stroke:{colour};fill:{fill}\"");
    match look % 4 {
        0 => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\" {style}/>"),
        1 => format!("<rect x=\"{:.1}\" y=\"{:.1}\" width=\"8\" height=\"8\" {style}/>", x - 4.0, y - 4.0),
        2 => format!("<path d=\"M{x:.1} {:.1}l5 9h-10z\" {style}/>", y - 5.5),
        _ => format!("<path d=\"M{x:.1} {:.1}l5.5 5.5l-5.5 5.5l-5.5 -5.5z\" {style}/>", y - 5.5),
    }
}

struct Labels {
    /// Where the plot area begins.
    top: f64,
    /// Rectangles that are taken: left, top, right, bottom.
    taken: Vec<[f64; 4]>,
}

impl Labels {
    /// Keeps labels off a mark.
    fn keep_free(&mut self, x: f64, y: f64) {
        self.taken.push([x - 6.0, y - 6.0, x + 6.0, y + 6.0]);
    }

    /// Where the label of the mark at (x, y) begins, if there is room beside it; its facts are in its title anyway.
    fn place(&mut self, x: f64, y: f64, label: &str) -> Option<(f64, f64)> {
        let width = LETTER * label.chars().count() as f64;
        let (right, left, middle) = (x + 9.0, x - 9.0 - width, x - width / 2.0);
        let baselines = [y - 9.0, y + 4.0, y + 19.0];
        let candidates = [
            (right, baselines[0]),
            (left, baselines[0]),
            (right, baselines[1]),
            (left, baselines[1]),
            (right, baselines[2]),
            (left, baselines[2]),
            (middle, y - 11.0),
            (middle, y + 22.0),
        ];
        let free = |&(x, y): &(f64, f64)| {
            let [l, t, r, b] = [x, y - LINE + 2.0, x + width, y + 2.0];
            let inside = l > LEFT && r < WIDTH - 2.0 && t > self.top && b < HEIGHT - BOTTOM + 2.0;
            inside && !self.taken.iter().any(|o| l < o[2] && r > o[0] && t < o[3] && b > o[1])
        };
        let (x, y) = candidates.into_iter().find(free)?;
        self.taken.push([x, y - LINE + 2.0, x + width, y + 2.0]);
        Some((x, y))
    }
}

/// A logarithmic axis with a little room at both ends.
struct LogAxis {
    low: f64,
    high: f64,
}

impl LogAxis {
    fn over(values: impl Iterator<Item = f64> + Clone) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min);
        let high = values.fold(0.0, f64::max);
        Self { low: low / 1.25, high: high * 1.25 }
    }

    fn share(&self, value: f64) -> f64 {
        (value / self.low).ln() / (self.high / self.low).ln()
    }

    /// 1, 2 and 5 times the powers of ten that lie on it; of very long axes the powers alone, of short ones more.
    fn ticks(&self) -> Vec<f64> {
        let powers = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let factors: &[f64] = match self.high / self.low {
            2000.0.. => &[1.0],
            6.0.. => &[1.0, 2.0, 5.0],
            _ => &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0],
        };
        powers
            .flat_map(|power| factors.iter().map(move |factor| factor * 10_f64.powi(power)))
            .filter(|tick| (self.low..=self.high).contains(tick))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_on_the_axis() {
        let axis = LogAxis::over([3.0, 40.0].into_iter());
        assert_eq!(axis.ticks(), [5.0, 10.0, 20.0, 50.0]);
        assert_eq!(LogAxis { low: 3.3, high: 6.9 }.ticks(), [4.0, 5.0, 6.0]);
        assert!(axis.share(3.0) > 0.0 && axis.share(40.0) < 1.0);
        assert!((LogAxis { low: 1.0, high: 100.0 }.share(10.0) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn labels_keep_off_each_other_and_off_marks() {
        let mut labels = Labels { top: TOP, taken: Vec::new() };
        for i in 0..40 {
            labels.keep_free(300.0 + f64::from(i % 8) * 14.0, 200.0 + f64::from(i / 8) * 10.0);
        }
        let marks = labels.taken.len();
        let placed = (0..40)
            .filter(|i| {
                labels
                    .place(300.0 + f64::from(i % 8) * 14.0, 200.0 + f64::from(i / 8) * 10.0, "a label")
                    .is_some()
            })
            .count();
        assert!(placed > 0);
        for (i, a) in labels.taken.iter().enumerate().skip(marks) {
            for b in labels.taken.iter().take(i) {
                assert!(a[0] >= b[2] || a[2] <= b[0] || a[1] >= b[3] || a[3] <= b[1], "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn a_long_legend_takes_another_line() {
        let family = |name: &str| Family { name: name.into(), look: 0, points: Vec::new() };
        let names = [
            "ResNeSt",
            "EfficientNet",
            "a family with a rather long name",
            "another family with a long name",
        ];
        let families: Vec<Family> = names.iter().chain(&names).map(|name| family(name)).collect();
        let plot = Plot {
            title: String::new(),
            subtitle: String::new(),
            x: String::new(),
            y: String::new(),
            families,
        };
        let places = plot.legend();
        for ([x, _], family) in places.iter().zip(&plot.families) {
            assert!(x + 16.0 + LETTER * family.name.len() as f64 <= WIDTH, "{} at {x}", family.name);
        }
        assert_eq!(places[0], [LEFT, 0.0]);
        assert_eq!(places.last().unwrap()[1], LEGEND_LINE);
    }
}
