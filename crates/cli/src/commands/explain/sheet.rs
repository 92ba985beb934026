//! One picture explained, as a PNG: the picture with the crop's frame, the overlay, the classes as bars, and what the
//! attention chose.

use super::attention::{BINS, Column, Unit, caption, columns};
use super::canvas::{Canvas, LINE, fitted, text_width};
use super::overlay::viridis;
use super::{Explanation, Picture};

const INK: [u8; 3] = [27, 31, 36];
const SOFT: [u8; 3] = [87, 96, 106];
const FAINT: [u8; 3] = [225, 229, 234];
const BAR: [u8; 3] = [31, 95, 168];
const CHOSEN: [u8; 3] = [194, 65, 12];
const GAP: usize = 16;
const BARS: usize = 300;
/// A column of the attention's chart, and its room below for the stages' names.
const BOX: [usize; 2] = [10, 6];

/// Draws it.
pub(super) fn draw(explanation: &Explanation, picture: &Picture) -> anyhow::Result<Vec<u8>> {
    let Picture { shown, crop, overlay } = picture;
    let (width, height) = (shown.width() as usize, shown.height() as usize);
    let attention = &explanation.attention;
    let chart = if attention.is_empty() { 0 } else { GAP + 2 * LINE + BINS * BOX[1] + LINE };
    let bars = LINE + explanation.outcome.predictions.len() * (LINE + 14) + LINE;
    let top = GAP + LINE + 8;
    let body = height.max(bars);
    let chart_width = placed(attention).1.max(text_width(&caption(attention)));
    let total = (4 * GAP + 2 * width + BARS).max(2 * GAP + chart_width);
    let mut canvas = Canvas::new(total, top + body + LINE + 8 + chart + GAP, [255; 3]);
    let title = fitted(&explanation.title(), total - 2 * GAP);
    canvas.text([GAP, GAP], &title, INK);
    canvas.picture([GAP, top], shown.pixels(), width);
    let edge = |offset: usize, length: f64, most: usize| {
        offset as i64 + (length.round() as i64).clamp(0, most as i64)
    };
    let (left, right) = (edge(GAP, crop.x, width), edge(GAP, crop.x + crop.width, width));
    let (upper, lower) = (edge(top, crop.y, height), edge(top, crop.y + crop.height, height));
    canvas.frame([left, upper, right - left, lower - upper], [255; 3]);
    canvas.picture([2 * GAP + width, top], overlay, width);
    let below = top + height + 2;
    canvas.text([GAP, below], &fitted("what the network saw is framed", width), SOFT);
    canvas.text([2 * GAP + width, below], &fitted(&explanation.subtitle(), width), SOFT);
    draw_bars(&mut canvas, [3 * GAP + 2 * width, top], explanation);
    if chart > 0 {
        draw_attention(&mut canvas, [GAP, top + body + LINE + 8 + GAP], attention);
    }
    canvas.png()
}

fn draw_bars(canvas: &mut Canvas, [x, y]: [usize; 2], explanation: &Explanation) {
    canvas.text([x, y], "likeliest classes", SOFT);
    for (place, prediction) in explanation.outcome.predictions.iter().enumerate() {
        let y = y + LINE + place * (LINE + 14);
        let share = format!("{:.1} %", prediction.probability * 100.0);
        canvas.text([x, y], &fitted(&prediction.name, BARS - 70), INK);
        canvas.text([x + BARS - text_width(&share), y], &share, INK);
        let (row, length) = ((y + LINE) as i64, (prediction.probability * BARS as f32).round() as i64);
        canvas.fill([x as i64, row, BARS as i64, 8], FAINT);
        let colour = if prediction.class == explanation.class { CHOSEN } else { BAR };
        canvas.fill([x as i64, row, length.max(1), 8], colour);
    }
}

/// A column of boxes for each block, from weight 0 at the bottom to 1 at the top; the brighter, the more channels.
fn draw_attention(canvas: &mut Canvas, [x, y]: [usize; 2], units: &[Unit]) {
    canvas.text([x, y], &caption(units), SOFT);
    let top = y + LINE + 6;
    for (column, left) in placed(units).0 {
        let left = x + left;
        if column.starts_stage {
            canvas.text([left, top + BINS * BOX[1] + 2], &column.unit.stage, SOFT);
        }
        for (bin, share) in column.shares.iter().enumerate() {
            let row = top + (BINS - 1 - bin) * BOX[1];
            let cell = [left as i64, row as i64, BOX[0] as i64 - 1, BOX[1] as i64 - 1];
            canvas.fill(cell, if *share == 0.0 { FAINT } else { viridis(share.sqrt()) });
        }
    }
}

/// The chart's columns, where each begins, and how wide the chart is: a stage has room for its name.
fn placed(units: &[Unit]) -> (Vec<(Column<'_>, usize)>, usize) {
    let (mut left, mut least) = (0, 0);
    let mut place = |column: &Column<'_>| {
        if column.starts_stage {
            left = if left == 0 { 0 } else { (left + GAP).max(least) };
            least = left + text_width(&column.unit.stage) + GAP;
        }
        left += BOX[0];
        left - BOX[0]
    };
    let columns = columns(units).into_iter();
    let columns: Vec<_> = columns
        .map(|column| {
            let at = place(&column);
            (column, at)
        })
        .collect();
    (columns, left.max(least))
}
