//! Text for people: aligned tables and numbers that read well.

use anyhow::Context;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A column's side.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Writes `rows` under `head`, each column as wide as its widest cell.
pub(crate) fn table(out: &mut impl Write, head: &[(&str, Align)], rows: &[Vec<String>]) -> io::Result<()> {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].0.chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let titles: Vec<String> = head.iter().map(|(title, _)| (*title).into()).collect();
    for row in std::iter::once(&titles).chain(rows) {
        let mut line = String::new();
        for ((cell, width), (_, align)) in row.iter().zip(&widths).zip(head) {
            let cell = match align {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
            };
            line += &cell;
            line += "  ";
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// `27483240` as `27.48`: millions.
pub(crate) fn millions(count: usize) -> String {
    format!("{:.2}", count as f64 / 1e6)
}

/// Multiply-adds in units of 10^9.
pub(crate) fn giga(count: usize) -> String {
    format!("{:.3}", count as f64 / 1e9)
}

/// `[1, 64, 56, 56]` as `1x64x56x56`.
pub(crate) fn shape(dims: &[usize]) -> String {
    dims.iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
}

/// A CSV field, quoted where it must be.
pub(crate) fn csv_field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.into()
    }
}

/// Writes to a temporary name in the same folder, then renames: a file of that name is whole or not there.
pub(crate) fn write_file(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let mut file = PartialFile::create(path)?;
    file.write(content)?;
    file.finish()
}

/// A file that grows under a temporary name in the folder of its own; dropped before [`PartialFile::finish`], it is gone.
pub(crate) struct PartialFile {
    file: BufWriter<File>,
    temporary: PathBuf,
    path: PathBuf,
    finished: bool,
}

impl PartialFile {
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        let temporary = path.with_extension(format!("{}.partial", std::process::id()));
        let file = File::create(&temporary).with_context(|| path.display().to_string())?;
        Ok(Self { file: BufWriter::new(file), temporary, path: path.into(), finished: false })
    }

    pub(crate) fn write(&mut self, content: &[u8]) -> anyhow::Result<()> {
        self.file.write_all(content).with_context(|| self.path.display().to_string())
    }

    /// The name that it gets.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its name.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        let result = self.file.flush().and_then(|()| std::fs::rename(&self.temporary, &self.path));
        self.finished = result.is_ok();
        result.with_context(|| self.path.display().to_string())
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if !self.finished {
            // What went wrong is told already; the leftover may not even exist.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut out = Vec::new();
        let rows = [vec!["a".into(), "1".into()], vec!["long".into(), "1000".into()]];
        table(&mut out, &[("name", Align::Left), ("n", Align::Right)], &rows).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "name     n\na        1\nlong  1000\n");
    }

    #[test]
    fn csv_fields_with_commas_and_quotes_are_quoted() {
        assert_eq!(csv_field("tabby"), "tabby");
        assert_eq!(csv_field("tabby, \"tabby\" cat"), "\"tabby, \"\"tabby\"\" cat\"");
    }

    #[test]
    fn a_file_is_whole_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page.html");
        let names = || {
            let entries = std::fs::read_dir(folder.path()).unwrap();
            entries.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>()
        };
        let mut file = PartialFile::create(&path).unwrap();
        file.write(b"half").unwrap();
        assert_ne!(names(), ["page.html"]);
        drop(file);
        assert!(names().is_empty());
        let mut file = PartialFile::create(&path).unwrap();
        file.write(b"who").unwrap();
        file.write(b"le").unwrap();
        file.finish().unwrap();
        assert_eq!(names(), ["page.html"]);
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
    }
}
