//! All explanations as one page: no script, no other file, light and dark.

use super::attention::{BINS, Unit, caption, columns};
use super::overlay::viridis;
use super::{Explanation, Picture};
use cardinal_data::encode_png;
use cardinal_train::report::svg::{base64, escape};
use std::fmt::Write;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--faint:#d8dde3;--ground:#fff;--bar:#1f5fa8;--chosen:#c2410c}\
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ed;--soft:#a3acb6;--faint:#3a4149;--ground:#15181c;--bar:#6aa9f0;\
--chosen:#f59e63}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--ground);max-width:1240px;margin:2rem auto;\
padding:0 1rem}h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin:2.5rem 0 .6rem;overflow-wrap:anywhere}\
p{margin:.3rem 0}.soft,figcaption{color:var(--soft)}.row{display:flex;flex-wrap:wrap;gap:1rem;align-items:flex-start}\
figure{margin:0}figcaption{font-size:.85rem;max-width:28rem}img{max-width:100%;height:auto;display:block}\
.seen{position:relative}.seen svg{position:absolute;inset:0;width:100%;height:100%}\
table{border-collapse:collapse;flex:1 1 18rem;max-width:26rem}td{padding:.15rem .5rem .15rem 0}\
td:nth-child(2){text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}\
.bar{display:block;height:.5rem;border-radius:2px;background:var(--bar);min-width:1px}.chosen .bar{background:var(--chosen)}\
.track{display:block;background:var(--faint);border-radius:2px}td small{display:block}\
svg text{font:12px system-ui,sans-serif;fill:var(--soft)}svg .empty{fill:var(--faint)}.scroll{overflow-x:auto}";

/// The page's beginning. `title` says which network explains, `notes` how.
pub(super) fn head(title: &str, notes: &[&str]) -> String {
    let title = escape(title);
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>"
    );
    for note in notes {
        let _ = write!(html, "<p class=\"soft\">{}</p>", escape(note));
    }
    let _ = write!(html, "<p class=\"soft\">{}</p>", key());
    html
}

/// The page's end.
pub(super) const END: &str = "</body></html>\n";

/// What the colours mean.
fn key() -> String {
    let mut stops = String::new();
    for step in 0..=8_u8 {
        let [r, g, b] = viridis(f32::from(step) / 8.0);
        let _ = write!(stops, "{}rgb({r} {g} {b})", if step == 0 { "" } else { "," });
    }
    format!(
        "no evidence <span style=\"display:inline-block;width:8rem;height:.7rem;border-radius:2px;\
         background:linear-gradient(90deg,{stops})\"></span> most evidence for the class"
    )
}

/// One picture's part of the page.
pub(super) fn section(explanation: &Explanation, picture: &Picture) -> anyhow::Result<String> {
    let mut html = String::new();
    let (width, height) = (picture.shown.width(), picture.shown.height());
    let image = |pixels: &[u8], text: &str| -> anyhow::Result<String> {
        let data = base64(&encode_png(width, height, pixels)?);
        let text = escape(text);
        Ok(format!(
            "<img width=\"{width}\" height=\"{height}\" alt=\"{text}\" src=\"data:image/png;base64,{data}\">"
        ))
    };
    let crop = &picture.crop;
    let _ = write!(
        &mut html,
        "<section><h2>{}</h2><div class=\"row\"><figure><div class=\"seen\">{}\
         <svg viewBox=\"0 0 {width} {height}\" aria-hidden=\"true\"><rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" \
         height=\"{:.1}\" fill=\"none\" stroke=\"#000\" stroke-width=\"4\" stroke-opacity=\".5\"/><rect x=\"{:.1}\" \
         y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"none\" stroke=\"#fff\" stroke-width=\"2\"/></svg></div>\
         <figcaption>what the network saw is framed</figcaption></figure><figure>{}<figcaption>{}</figcaption></figure>",
        escape(&explanation.outcome.file),
        image(picture.shown.pixels(), "the picture")?,
        crop.x,
        crop.y,
        crop.width,
        crop.height,
        crop.x,
        crop.y,
        crop.width,
        crop.height,
        image(&picture.overlay, &explanation.subtitle())?,
        escape(&explanation.subtitle()),
    );
    html += "<table><caption class=\"soft\">likeliest classes</caption>";
    for prediction in &explanation.outcome.predictions {
        let percent = prediction.probability * 100.0;
        let chosen = if prediction.class == explanation.class { " class=\"chosen\"" } else { "" };
        let _ = write!(
            &mut html,
            "<tr{chosen}><td>{}<span class=\"track\"><span class=\"bar\" style=\"width:{percent:.2}%\"></span></span></td>\
             <td>{percent:.1} %</td></tr>",
            escape(&prediction.name)
        );
    }
    html += "</table></div>";
    if !explanation.attention.is_empty() {
        let _ = write!(
            &mut html,
            "<p class=\"soft\">{}</p><div class=\"scroll\">{}</div>",
            escape(&caption(&explanation.attention)),
            attention(&explanation.attention)
        );
    }
    html += "</section>";
    Ok(html)
}

/// The chart of the attention: a column of boxes for each block, from weight 0 at the bottom to 1 at the top.
fn attention(units: &[Unit]) -> String {
    const WIDTH: f64 = 14.0;
    const BOX: f64 = 8.0;
    const GAP: f64 = 14.0;
    /// A letter's width, near enough.
    const LETTER: f64 = 6.6;
    let (mut left, mut least, mut body) = (26.0, 0.0_f64, String::new());
    let bottom = BINS as f64 * BOX;
    for column in columns(units) {
        if column.starts_stage {
            left = f64::max(left + if least > 0.0 { GAP } else { 0.0 }, least);
            least = left + LETTER * column.unit.stage.chars().count() as f64 + GAP;
            let _ = write!(
                body,
                "<text x=\"{left:.0}\" y=\"{:.0}\">{}</text>",
                bottom + 16.0,
                escape(&column.unit.stage)
            );
        }
        let unit = column.unit;
        let _ = write!(
            body,
            "<g><title>{}: split {} of {}, {} channels, mean weight {:.3}</title>",
            escape(&unit.module),
            column.split + 1,
            unit.radix,
            unit.channels,
            unit.mean[column.split]
        );
        for (bin, share) in column.shares.iter().enumerate() {
            let y = bottom - BOX * (bin + 1) as f64;
            let [r, g, b] = viridis(share.sqrt());
            let fill = match *share {
                0.0 => "class=\"empty\"".to_owned(),
                _ => format!("fill=\"rgb({r} {g} {b})\""),
            };
            let _ = write!(
                body,
                "<rect x=\"{left:.0}\" y=\"{y:.0}\" width=\"{:.0}\" height=\"{:.0}\" {fill}/>",
                WIDTH - 1.0,
                BOX - 1.0
            );
        }
        body += "</g>";
        left += WIDTH;
    }
    let (width, height) = (left.max(least), bottom + 22.0);
    format!(
        "<svg width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" \
         aria-label=\"attention of each block\"><text x=\"0\" y=\"{bottom:.0}\">0</text><text x=\"0\" y=\"10\">1</text>{body}</svg>"
    )
}
