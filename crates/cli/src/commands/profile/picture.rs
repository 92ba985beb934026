//! The picture of memory over one training step, as SVG.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 40.0;
/// The backward pass takes about twice as long.
const FORWARD: f64 = 1.0 / 3.0;
// Plain rules, since not every viewer knows variables; the dark ones only replace colours.
const STYLE: &str = "\
svg text{font:12px system-ui,sans-serif;fill:#1b1f24}svg .title{font-size:14px;font-weight:600}\
svg .ground{fill:#ffffff}svg .grid{stroke:#d8dde3;fill:none}\
svg .line{fill:none;stroke-width:1.8;stroke-linejoin:round}\
svg .c0{stroke:#c2410c}svg .c1{stroke:#1f5fa8}svg .c2{stroke:#15803d}\
svg .end{text-anchor:end}svg .middle{text-anchor:middle}\
@media(prefers-color-scheme:dark){svg text{fill:#e6e9ed}svg .ground{fill:#15181c}svg .grid{stroke:#3a4149}\
svg .c0{stroke:#f59e63}svg .c1{stroke:#6aa9f0}svg .c2{stroke:#67c587}}";

/// Bytes that are in memory during each step of one plan.
pub(super) struct Curve {
    pub(super) name: &'static str,
    pub(super) forward: Vec<usize>,
    pub(super) backward: Vec<usize>,
}

impl Curve {
    fn peak(&self) -> usize {
        self.forward.iter().chain(&self.backward).copied().max().unwrap_or(0)
    }

    /// The curve's stairs: the share of the training step that is over at the end of each, and its bytes.
    fn stairs(&self) -> Vec<(f64, usize)> {
        let mut stairs: Vec<(f64, usize)> = Vec::new();
        for (steps, start, length) in
            [(&self.forward, 0.0, FORWARD), (&self.backward, FORWARD, 1.0 - FORWARD)]
        {
            for (index, &bytes) in steps.iter().enumerate() {
                let end = start + length * (index + 1) as f64 / steps.len() as f64;
                match stairs.last_mut() {
                    Some(last) if last.1 == bytes => last.0 = end,
                    _ => stairs.push((end, bytes)),
                }
            }
        }
        stairs
    }
}

/// The curves over each other; the first third is the forward pass.
pub(super) fn picture(title: &str, curves: &[Curve]) -> String {
    let most = curves.iter().map(Curve::peak).max().unwrap_or(0).max(1) as f64;
    let unit = unit(most);
    let column = |share: f64| LEFT + share * (WIDTH - LEFT - RIGHT);
    let row = |bytes: f64| HEIGHT - BOTTOM - bytes / most * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\
         <style>{STYLE}</style><rect class=\"ground\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\
         <text class=\"title\" x=\"{LEFT}\" y=\"20\">{title}, MiB</text>"
    );
    // Writing into a string cannot fail.
    let mut tick = 0.0;
    while tick <= most {
        let (y, right) = (row(tick), WIDTH - RIGHT);
        let _ = write!(
            svg,
            "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/><text class=\"end\" x=\"{:.0}\" y=\"{:.1}\">{:.0}</text>",
            LEFT - 6.0,
            y + 4.0,
            tick / MIB
        );
        tick += unit;
    }
    let (border, bottom) = (column(FORWARD), HEIGHT - BOTTOM);
    let _ = write!(svg, "<path class=\"grid\" d=\"M{border:.1} {TOP}V{bottom}\"/>");
    for (name, from, to) in [("forward", 0.0, FORWARD), ("backward", FORWARD, 1.0)] {
        let (x, y) = (column((from + to) / 2.0), bottom + 20.0);
        let _ = write!(svg, "<text class=\"middle\" x=\"{x:.0}\" y=\"{y:.0}\">{name}</text>");
    }
    let mut legend = LEFT;
    for (colour, curve) in curves.iter().enumerate() {
        let text = format!("{} ({:.0})", curve.name, curve.peak() as f64 / MIB);
        let line = format!("<path class=\"line c{}\" d=\"", colour % 3);
        let _ = write!(
            svg,
            "{line}M{legend:.0} 40h16\"/><text x=\"{:.0}\" y=\"44\">{text}</text>",
            legend + 21.0
        );
        legend += 40.0 + 6.3 * text.len() as f64;
        svg += &line;
        let _ = write!(svg, "M{LEFT} {bottom}");
        for (end, bytes) in curve.stairs() {
            let _ = write!(svg, "V{:.1}H{:.1}", row(bytes as f64), column(end));
        }
        let _ = write!(svg, "V{bottom}");
        svg += "\"/>";
    }
    svg + "</svg>\n"
}

const MIB: f64 = 1_048_576.0;

/// Bytes between two lines of the grid: 1, 2 or 5 times a power of ten of MiB, for four to ten lines.
fn unit(most: f64) -> f64 {
    let power = 10_f64.powf((most / MIB / 4.0).log10().floor());
    let step = [5.0, 2.0, 1.0].into_iter().find(|step| step * power * 4.0 <= most / MIB).unwrap_or(1.0);
    step * power * MIB
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_has_four_to_ten_lines() {
        for most in [1.0, 3.0, 7.5, 99.0, 1234.0, 50_000.0] {
            let lines = most * MIB / unit(most * MIB);
            assert!((4.0..=10.0).contains(&lines), "{lines} lines for {most} MiB");
        }
    }

    #[test]
    fn each_step_is_a_stair_in_its_third() {
        let curve = Curve { name: "all", forward: vec![1, 3], backward: vec![2] };
        let stairs: Vec<_> = curve.stairs().iter().map(|(x, y)| ((x * 6.0).round() as i32, *y)).collect();
        assert_eq!(stairs, [(1, 1), (2, 3), (6, 2)]);
        let svg = picture("net", &[curve]);
        assert!(svg.contains("all (0)") && svg.contains(">backward<") && svg.ends_with("</svg>\n"));
    }
}
