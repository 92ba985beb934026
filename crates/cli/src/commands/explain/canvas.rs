//! Pixels, rectangles and letters: what a PNG is drawn with.

use cardinal_data::encode_png;
use std::io::Cursor;
use std::sync::OnceLock;

/// A colour picture in memory.
pub(super) struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

/// Rows that a line of text takes.
pub(super) const LINE: usize = 20;

impl Canvas {
    pub(super) fn new(width: usize, height: usize, ground: [u8; 3]) -> Self {
        Self { width, height, pixels: ground.repeat(width * height) }
    }

    fn blend(&mut self, x: i64, y: i64, colour: [u8; 3], share: f32) {
        if (0..self.width as i64).contains(&x) && (0..self.height as i64).contains(&y) {
            let at = (y as usize * self.width + x as usize) * 3;
            for (pixel, colour) in self.pixels[at..at + 3].iter_mut().zip(colour) {
                let (old, new) = (f32::from(*pixel), f32::from(colour));
                *pixel = (old + (new - old) * share).round() as u8;
            }
        }
    }

    /// A filled rectangle; what stands out of the picture is cut off.
    pub(super) fn fill(&mut self, [x, y, width, height]: [i64; 4], colour: [u8; 3]) {
        for row in y..y + height {
            for column in x..x + width {
                self.blend(column, row, colour, 1.0);
            }
        }
    }

    /// The outline of a rectangle, two pixels wide, inside of it.
    pub(super) fn frame(&mut self, [x, y, width, height]: [i64; 4], colour: [u8; 3]) {
        let line = 2.min(width).min(height);
        self.fill([x, y, width, line], colour);
        self.fill([x, y + height - line, width, line], colour);
        self.fill([x, y, line, height], colour);
        self.fill([x + width - line, y, line, height], colour);
    }

    /// Pixels `[height, width, 3]`, with their top left corner at (x, y).
    pub(super) fn picture(&mut self, [x, y]: [usize; 2], pixels: &[u8], width: usize) {
        for (index, pixel) in pixels.chunks_exact(3).enumerate() {
            let (column, row) = (x + index % width, y + index / width);
            self.blend(column as i64, row as i64, [pixel[0], pixel[1], pixel[2]], 1.0);
        }
    }

    /// Text with its line's top left corner at (x, y); letters that the sheet lacks become question marks.
    pub(super) fn text(&mut self, [x, y]: [usize; 2], text: &str, colour: [u8; 3]) {
        let mut pen = x;
        for letter in text.chars() {
            let glyph = glyph(letter);
            for row in 1..CELL[1] {
                for column in 0..CELL[0] {
                    let share = f32::from(sheet()[(glyph[1] + row) * SHEET + glyph[0] + column]) / 255.0;
                    // A letter's cell has a column of room to its left.
                    if share > 0.0 {
                        self.blend((pen + column) as i64 - 1, (y + row) as i64, colour, share);
                    }
                }
            }
            pen += advance(glyph);
        }
    }

    /// The picture as a PNG file.
    pub(super) fn png(&self) -> anyhow::Result<Vec<u8>> {
        Ok(encode_png(self.width as u32, self.height as u32, &self.pixels)?)
    }
}

/// How many pixels wide a text is.
pub(super) fn text_width(text: &str) -> usize {
    text.chars().map(|letter| advance(glyph(letter))).sum()
}

/// The text, cut to `width` pixels.
pub(super) fn fitted(text: &str, width: usize) -> String {
    if text_width(text) <= width {
        return text.into();
    }
    let room = width.saturating_sub(text_width("…"));
    let mut taken = 0;
    let fits = |letter: &char| {
        taken += advance(glyph(*letter));
        taken <= room
    };
    let start: String = text.chars().take_while(fits).collect();
    format!("{}…", start.trim_end())
}

/// `assets/letters.png`, as `tools/letters.py` draws it.
const LETTERS: &[u8] = include_bytes!("../../../../../assets/letters.png");
const CELL: [usize; 2] = [16, 20];
const COLUMNS: usize = 16;
const SHEET: usize = CELL[0] * COLUMNS;
const GLYPHS: usize = 192;

/// The grey levels of the sheet of letters.
fn sheet() -> &'static [u8] {
    static SHEET_PIXELS: OnceLock<Vec<u8>> = OnceLock::new();
    SHEET_PIXELS.get_or_init(|| {
        let mut pixels = vec![0; SHEET * GLYPHS.div_ceil(COLUMNS) * CELL[1]];
        // The file is part of the program, and a test reads it. Without it there would be no letters.
        if let Ok(mut reader) = png::Decoder::new(Cursor::new(LETTERS)).read_info()
            && reader.output_buffer_size() == Some(pixels.len())
        {
            let _ = reader.next_frame(&mut pixels);
        }
        pixels
    })
}

/// Where a letter's cell begins in the sheet.
fn glyph(letter: char) -> [usize; 2] {
    let code = letter as usize;
    let place = match code {
        0x20..=0x7E => code - 0x20,
        0xA0..=0xFF => code - 0xA0 + 95,
        0x2026 => 191,
        _ => usize::from(b'?') - 0x20,
    };
    [place % COLUMNS * CELL[0], place / COLUMNS * CELL[1]]
}

/// The first pixel of a cell says how far the pen moves.
fn advance([x, y]: [usize; 2]) -> usize {
    usize::from(sheet()[y * SHEET + x])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_read_from_the_sheet() {
        assert!(text_width("W") > text_width("i") && text_width("i") > 0);
        assert_eq!(text_width("Wi"), text_width("W") + text_width("i"));
        assert_eq!(text_width("→"), text_width("?"));
        let mut canvas = Canvas::new(20, 20, [255; 3]);
        canvas.text([2, 0], "I", [0; 3]);
        let dark: Vec<usize> = (0..400).filter(|at| canvas.pixels[at * 3] < 100).map(|at| at % 20).collect();
        assert!(dark.len() >= 8 && dark.iter().all(|column| (2..8).contains(column)), "{dark:?}");
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(fitted("short", 100), "short");
        let cut = fitted("a very long name of a class", 60);
        assert!(cut.ends_with('…') && text_width(&cut) <= 60, "{cut}");
    }

    #[test]
    fn what_stands_out_is_cut_off() {
        let mut canvas = Canvas::new(4, 4, [0; 3]);
        canvas.frame([-2, -2, 20, 5], [9; 3]);
        canvas.text([100, 100], "x", [9; 3]);
        assert_eq!(canvas.pixels.iter().filter(|&&level| level == 9).count(), 4 * 2 * 3);
    }
}
