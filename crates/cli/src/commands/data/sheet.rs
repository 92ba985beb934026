//! A contact sheet: some images of each class in one SVG file that needs no other.

use cardinal_data::{Dataset, Decoder, Interpolation, RgbImage, encode_png, resize};
use cardinal_train::report::svg::{base64, escape};
use std::fmt::Write;

/// The side of an image's cell, in pixels; the gap between cells; the width of the names.
const CELL: u32 = 64;
const GAP: u32 = 4;
const NAMES: u32 = 180;

/// Images per class, and classes; of more classes, as many are drawn, evenly spread.
const COLUMNS: usize = 10;
const ROWS: usize = 60;

/// Letters of a class's name that fit.
const LETTERS: usize = 26;

/// The sheet. Images that cannot be read are left out.
pub(super) fn draw(set: &dyn Dataset) -> anyhow::Result<String> {
    let classes = spread(set.classes().len(), ROWS);
    let members = members(set, &classes);
    let step = CELL + GAP;
    let (width, height) =
        (NAMES + COLUMNS as u32 * step + GAP, classes.len() as u32 * step + 2 * step / 3 + GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let title = format!("{}: {} images, {} classes", set.describe(), set.len(), set.classes().len());
    writeln!(svg, "<text x=\"{}\" y=\"24\" font-size=\"16\">{}</text>", 2 * GAP, escape(&title))?;
    for (row, (class, images)) in classes.iter().zip(&members).enumerate() {
        let y = row as u32 * step + 2 * step / 3;
        let name = &set.classes()[*class];
        let middle = y + CELL / 2;
        let (x, count) = (2 * GAP, images.len());
        writeln!(svg, "<text x=\"{x}\" y=\"{middle}\">{}</text>", escape(&shortened(name)))?;
        writeln!(svg, "<text x=\"{x}\" y=\"{}\" fill=\"#666\">{count} images</text>", middle + 15)?;
        let chosen = spread(images.len(), COLUMNS).into_iter().map(|at| images[at] as usize);
        for (column, (index, image)) in
            chosen.filter_map(|index| Some((index, thumbnail(set, index)?))).enumerate()
        {
            let (w, h) = (image.width(), image.height());
            let x = NAMES + column as u32 * step + (CELL - w) / 2;
            let y = y + (CELL - h) / 2;
            let data = base64(&encode_png(w, h, image.pixels())?);
            writeln!(
                svg,
                "<image x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" href=\"data:image/png;base64,{data}\">\
                 <title>{}</title></image>",
                escape(&set.name(index))
            )?;
        }
    }
    svg += "</svg>\n";
    Ok(svg)
}

/// At most `most` of the numbers 0..count, evenly spread.
fn spread(count: usize, most: usize) -> Vec<usize> {
    let shown = count.min(most);
    (0..shown).map(|place| place * count / shown).collect()
}

/// The images of each of these classes.
fn members(set: &dyn Dataset, classes: &[usize]) -> Vec<Vec<u32>> {
    let mut rows = vec![None; set.classes().len()];
    classes.iter().enumerate().for_each(|(row, class)| rows[*class] = Some(row));
    let mut members = vec![Vec::new(); classes.len()];
    for index in 0..set.len() {
        for class in set.label(index).classes() {
            if let Some(row) = rows[*class as usize] {
                members[row].push(index as u32);
            }
        }
    }
    members
}

/// The image with its longer side as long as a cell's.
fn thumbnail(set: &dyn Dataset, index: usize) -> Option<RgbImage> {
    let picture = set.read(index).ok()?.picture;
    let image = picture.decode(&Decoder::default()).ok()?;
    let longer = image.width().max(image.height());
    let scaled = |side: u32| (u64::from(side) * u64::from(CELL)).div_ceil(u64::from(longer)) as u32;
    // A few pixels made large are meant to be seen as such.
    let filter = if longer < CELL { Interpolation::Nearest } else { Interpolation::Bicubic };
    resize(&image, scaled(image.width()), scaled(image.height()), filter).ok()
}

fn shortened(name: &str) -> String {
    if name.chars().count() <= LETTERS {
        return name.into();
    }
    name.chars().take(LETTERS - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_spread_evenly() {
        assert_eq!(spread(3, 10), [0, 1, 2]);
        assert_eq!(spread(100, 4), [0, 25, 50, 75]);
        assert!(spread(0, 4).is_empty());
    }
}
