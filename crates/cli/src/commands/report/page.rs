//! The report as one page: no script, no other file, light and dark.

use super::figures::Figure;
use super::plot;
use super::results::{OURS, Origin, Results, Task};
use super::tables::{Cell, Table};
use cardinal_train::report::svg::escape;
use std::fmt::Write;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--faint:#d8dde3;--ground:#fff}\
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ed;--soft:#a3acb6;--faint:#3a4149;--ground:#15181c}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--ground);max-width:1080px;margin:2rem auto;\
padding:0 1rem}h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin-top:2.5rem;margin-bottom:.3rem}\
p{margin:.3rem 0}.soft{color:var(--soft)}table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.6rem 0}\
th,td{padding:.2rem .9rem .2rem 0;text-align:right;border-bottom:1px solid var(--faint);vertical-align:bottom}\
th{color:var(--soft);font-weight:500}th:first-child,td:first-child{text-align:left}td{white-space:nowrap}svg{max-width:100%;height:auto}\
.scroll{overflow-x:auto}sup{color:var(--soft)}sup a{color:inherit;text-decoration:none}li{margin:.3rem 0}\
code{font-size:.85rem;overflow-wrap:anywhere}small{color:var(--soft)}";

/// Commands in the order in which they are first cited.
#[derive(Default)]
struct Commands<'a>(Vec<&'a Origin>);

impl<'a> Commands<'a> {
    /// The number under which a command stands in the list.
    fn number(&mut self, origin: &'a Origin) -> usize {
        let place = self.0.iter().position(|known| *known == origin).unwrap_or_else(|| {
            self.0.push(origin);
            self.0.len() - 1
        });
        place + 1
    }
}

/// The page.
pub(super) fn draw(machine: &str, results: &Results, figures: &[Figure], tables: &[Table]) -> String {
    let mut commands = Commands::default();
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>Cardinal: speed and accuracy</title><style>{STYLE}{}</style></head><body>\
         <h1>Speed and accuracy</h1><p class=\"soft\">The figures and tables of the ResNeSt and TResNet papers, with what \
         was measured on {}. Numbers that were not measured are left out.</p>",
        plot::STYLE,
        escape(machine)
    );
    for figure in figures {
        let _ = write!(
            html,
            "<h2>{}</h2><p class=\"soft\">{}</p>{}",
            escape(&figure.plot.title),
            escape(&figure.caption),
            figure.plot.draw(false)
        );
        points(&mut html, figure, &mut commands);
    }
    for table in tables {
        draw_table(&mut html, table, &mut commands);
    }
    runners(&mut html, results, &mut commands);
    let _ = write!(html, "<h2 id=\"commands\">Commands</h2><ol>");
    for (place, origin) in commands.0.iter().enumerate() {
        let _ = write!(
            html,
            "<li id=\"c{}\"><code>{}</code><br><small>{}, {}, {}</small></li>",
            place + 1,
            escape(&origin.command),
            escape(&origin.machine),
            escape(&origin.date),
            escape(&origin.file)
        );
    }
    html + "</ol></body></html>\n"
}

/// The points of a figure as a table that can be unfolded, and what is missing.
fn points<'a>(html: &mut String, figure: &'a Figure, commands: &mut Commands<'a>) {
    *html += "<details><summary>the points</summary><div class=\"scroll\"><table><tr><th>network</th><th>size</th>\
              <th>top-1, %</th><th>source</th><th>batch</th><th>images/s</th></tr>";
    for (accuracy, speed, _) in &figure.points {
        let number = commands.number(&speed.origin);
        let _ = write!(
            html,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}{}</td></tr>",
            escape(&accuracy.label),
            accuracy.size,
            accuracy.top1,
            escape(&accuracy.source),
            speed.batch,
            super::figures::rounded(speed.rate),
            cite(number)
        );
    }
    *html += "</table></div></details>";
    if !figure.missing.is_empty() {
        let _ = write!(
            html,
            "<p class=\"soft\">Not measured, so not shown: {}.</p>",
            escape(&figure.missing.join(", "))
        );
    }
}

fn cite(number: usize) -> String {
    format!(" <sup><a href=\"#c{number}\">[{number}]</a></sup>")
}

fn draw_table<'a>(html: &mut String, table: &'a Table, commands: &mut Commands<'a>) {
    let _ = write!(
        html,
        "<h2>{}</h2><p class=\"soft\">{}</p><div class=\"scroll\"><table><tr>",
        escape(table.title),
        escape(table.note)
    );
    for head in &table.head {
        let _ = write!(html, "<th>{}</th>", escape(head));
    }
    *html += "</tr>";
    for row in &table.rows {
        let _ = write!(html, "<tr><td>{}</td>", escape(row.label));
        // One citation for neighbours that share a command.
        let mut last = None;
        for Cell { text, origin } in &row.cells {
            let number = origin.as_ref().map(|origin| commands.number(origin));
            let mark = number.filter(|_| number != last).map_or_else(String::new, cite);
            last = number.or(last);
            let _ = write!(html, "<td>{}{mark}</td>", escape(text));
        }
        *html += "</tr>";
    }
    *html += "</table></div>";
}

/// Other programs beside us, where they were measured in the same run.
fn runners<'a>(html: &mut String, results: &'a Results, commands: &mut Commands<'a>) {
    for (task, title) in [(Task::Inference, "Inference"), (Task::Training, "Training")] {
        let peers = results.speeds.iter().filter(|speed| speed.task == task && speed.runner != OURS);
        let mut jobs: Vec<(&str, usize, usize, &Origin)> = Vec::new();
        let mut names: Vec<&str> = Vec::new();
        for speed in peers {
            let job = (speed.model.as_str(), speed.size, speed.batch, speed.origin.as_ref());
            if !jobs.contains(&job) {
                jobs.push(job);
            }
            if !names.contains(&speed.runner.as_str()) {
                names.push(&speed.runner);
            }
        }
        if jobs.is_empty() {
            continue;
        }
        let _ = write!(
            html,
            "<h2>{title} beside other programs</h2><p class=\"soft\">Images per second on the same cores, measured in \
             alternation (bench/README.md).</p><div class=\"scroll\"><table><tr><th>network</th><th>size</th><th>batch</th>\
             <th>{OURS}</th>"
        );
        for name in &names {
            let _ = write!(html, "<th>{}</th>", escape(name));
        }
        *html += "</tr>";
        for (model, size, batch, origin) in jobs {
            let number = commands.number(origin);
            let _ =
                write!(html, "<tr><td>{}{}</td><td>{size}</td><td>{batch}</td>", escape(model), cite(number));
            for name in std::iter::once(&OURS).chain(&names) {
                let found = results.speeds.iter().find(|speed| {
                    speed.task == task
                        && speed.runner == *name
                        && (speed.model.as_str(), speed.size, speed.batch) == (model, size, batch)
                        && *speed.origin == *origin
                });
                let text = found.map_or_else(String::new, |speed| super::figures::rounded(speed.rate));
                let _ = write!(html, "<td>{text}</td>");
            }
            *html += "</tr>";
        }
        *html += "</table></div>";
    }
}
