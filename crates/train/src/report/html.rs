//! The report as one page: no script, no other file, light and dark.

use std::fmt::Write;

use super::chart::{self, Chart};

use super::picture::Picture;
use super::record::{EpochRow, value};
use super::svg::{base64, escape};
use super::{About, Results};

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--faint:#d8dde3;--ground:#fff}\
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ed;--soft:#a3acb6;--faint:#3a4149;--ground:#15181c}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--ground);max-width:1080px;margin:2rem auto;\
padding:0 1rem}h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin-top:2rem}p.soft{color:var(--soft);margin-top:0}\
table{border-collapse:collapse}th,td{padding:.2rem .8rem .2rem 0;text-align:right;border-bottom:1px solid var(--faint)}\
th{color:var(--soft);font-weight:500}th:first-child,td:first-child{text-align:left}tr.best td{font-weight:600}\
svg,img{max-width:100%;height:auto}pre{overflow:auto;border:1px solid var(--faint);padding:.8rem;border-radius:6px}\
.scroll{overflow-x:auto}dl{display:grid;grid-template-columns:max-content auto;gap:.2rem 1.2rem}dt{color:var(--soft)}dd{margin:0}\
summary{cursor:pointer}";

/// All that the page shows.
pub(super) struct Page<'a> {
    pub(super) about: &'a About,
    pub(super) recipe: &'a str,
    pub(super) epochs: &'a [EpochRow],
    pub(super) charts: &'a [Chart],
    pub(super) results: Option<&'a Results>,
    pub(super) picture: Option<&'a Picture>,
    pub(super) skipped: &'a [String],
}

impl Page<'_> {
    pub(super) fn html(&self) -> String {
        let title = escape(&self.about.title);
        let mut html = format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\"><title>{title}</title><style>{STYLE}{}</style></head><body><h1>{title}</h1>",
            chart::STYLE
        );
        html += &self.headline();
        html += "<dl>";
        for (name, text) in &self.about.facts {
            let _ = write!(html, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(text));
        }
        html += "</dl>";
        if !self.charts.is_empty() {
            let _ = write!(html, "<h2>Curves</h2>{}", chart::charts(self.charts, false));
        }
        html += &self.epochs_table();
        html += &self.results_part();
        if let Some(picture) = self.picture {
            let _ = write!(
                html,
                "<h2>First batch, as the network sees it</h2><img alt=\"a grid of augmented training images\" \
                 src=\"data:image/png;base64,{}\">",
                base64(&picture.png)
            );
        }
        if !self.skipped.is_empty() {
            html += "<h2>Images that could not be read</h2><ul>";
            for text in self.skipped {
                let _ = write!(html, "<li>{}</li>", escape(text));
            }
            html += "</ul>";
        }
        let _ = writeln!(html, "<h2>Recipe</h2><pre>{}</pre></body></html>", escape(self.recipe));
        html
    }

    fn headline(&self) -> String {
        let Some(last) = self.epochs.last() else {
            return "<p class=\"soft\">No epoch is over yet.</p>".into();
        };
        let mut parts = vec![format!("{} epochs", last.epoch + 1)];
        if let Some(best) = self.epochs.iter().rev().find(|row| row.best) {
            let scores = ["eval_top1", "eval_top5", "eval_mAP", "eval_loss"].into_iter();
            let scores = scores.filter_map(|name| value(&best.values, name).map(|score| (name, score)));
            let scores: Vec<String> = scores
                .map(|(name, score)| format!("{} {}", name.trim_start_matches("eval_"), short(score)))
                .collect();
            parts.push(format!("best after epoch {}: {}", best.epoch + 1, scores.join(", ")));
        }
        format!("<p class=\"soft\">{}</p>", escape(&parts.join("; ")))
    }

    fn epochs_table(&self) -> String {
        let mut columns: Vec<&str> = Vec::new();
        for (name, _) in self.epochs.iter().flat_map(|row| &row.values) {
            if !columns.contains(&name.as_str()) {
                columns.push(name);
            }
        }
        if columns.is_empty() {
            return String::new();
        }
        let mut html = String::from("<h2>Epochs</h2><div class=\"scroll\"><table><tr><th>epoch</th>");
        for column in &columns {
            let _ = write!(html, "<th>{}</th>", escape(&column.replace('_', " ")));
        }
        html += "</tr>";
        let best = self.epochs.iter().rev().find(|row| row.best).map(|row| row.epoch);
        for row in self.epochs {
            let class = if Some(row.epoch) == best { " class=\"best\"" } else { "" };
            let _ = write!(html, "<tr{class}><td>{}</td>", row.epoch + 1);
            for column in &columns {
                let text = value(&row.values, column).map(short).unwrap_or_default();
                let _ = write!(html, "<td>{text}</td>");
            }
            html += "</tr>";
        }
        html + "</table></div>"
    }

    fn results_part(&self) -> String {
        let name = |class: usize| {
            self.about.classes.get(class).map_or_else(|| class.to_string(), |name| escape(name))
        };
        match self.results {
            None => String::new(),
            Some(Results::Single(confusion)) => {
                let mut html = String::from("<h2>Classes, last evaluation</h2>");
                if let Some(svg) = chart::confusion(confusion, &self.about.classes, false) {
                    html += &svg;
                }
                let worst = confusion.worst(10);
                if !worst.is_empty() {
                    html += "<p>Most frequent mistakes:</p><table><tr><th>true class</th><th>taken for</th><th>images</th></tr>";
                    for (actual, predicted, count) in worst {
                        let _ = write!(
                            html,
                            "<tr><td>{}</td><td>{}</td><td>{count}</td></tr>",
                            name(actual),
                            name(predicted)
                        );
                    }
                    html += "</table>";
                }
                html += "<details><summary>Precision and recall by class</summary><table><tr><th>class</th>\
                         <th>precision</th><th>recall</th><th>F1</th><th>images</th></tr>";
                for (class, score) in confusion.scores().iter().enumerate() {
                    let _ = write!(
                        html,
                        "<tr><td>{}</td><td>{:.1}</td><td>{:.1}</td><td>{:.1}</td><td>{}</td></tr>",
                        name(class),
                        score.precision,
                        score.recall,
                        score.f1,
                        score.support
                    );
                }
                html + "</table></details>"
            }
            Some(Results::Multi(scores)) => {
                let mut html = String::from(
                    "<h2>Classes, last evaluation</h2><table><tr><th>class</th><th>average precision</th></tr>",
                );
                for (class, score) in scores.average_precision.iter().enumerate() {
                    let _ = write!(html, "<tr><td>{}</td><td>{score:.1}</td></tr>", name(class));
                }
                html + "</table>"
            }
        }
    }
}

/// A number of the table in few digits.
fn short(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() || (size != 0.0 && !(1e-3..1e7).contains(&size)) {
        format!("{value:.2e}")
    } else if size >= 1000.0 {
        format!("{value:.0}")
    } else {
        let decimals = 4 - [1.0, 10.0, 100.0].iter().filter(|power| size >= **power).count();
        let text = format!("{value:.decimals$}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}
