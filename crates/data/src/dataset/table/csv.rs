//! Comma-separated values as RFC 4180 has them: quoted fields may hold separators, line ends and doubled quotes.

use super::super::error::DatasetError;

/// A row: the line on which it starts, from 1, and its cells.
pub(super) type Row = (usize, Vec<String>);

/// The character between cells: a tab or semicolon if the first line has more of them than commas.
pub(super) fn separator(text: &str) -> char {
    let first = text.lines().next().unwrap_or_default();
    let count = |separator: &char| first.matches(*separator).count();
    // The last of equals wins.
    [';', '\t', ','].into_iter().max_by_key(count).unwrap_or(',')
}

/// All rows that are not blank.
pub(super) fn rows(text: &str, separator: char) -> Result<Vec<Row>, DatasetError> {
    let mut rows = Vec::new();
    let mut reader = Reader { rest: text.trim_start_matches('\u{FEFF}'), line: 1, separator };
    while !reader.rest.is_empty() {
        let line = reader.line;
        let cells = reader.row()?;
        if cells.iter().any(|cell| !cell.is_empty()) {
            rows.push((line, cells));
        }
    }
    Ok(rows)
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
    separator: char,
}

impl Reader<'_> {
    fn row(&mut self) -> Result<Vec<String>, DatasetError> {
        let mut cells = Vec::new();
        loop {
            let cell = if self.take('"') { self.quoted()? } else { self.plain() };
            cells.push(cell);
            if !self.take(self.separator) {
                break;
            }
        }
        let line = self.line;
        self.take('\r');
        if !self.take('\n') && !self.rest.is_empty() {
            let what = "text follows a closing quote; put a comma between them, or double the quote".into();
            return Err(DatasetError::Line { line, what });
        }
        self.line += 1;
        Ok(cells)
    }

    fn take(&mut self, wanted: char) -> bool {
        let rest = self.rest.strip_prefix(wanted);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn plain(&mut self) -> String {
        let end = self.rest.find([self.separator, '\n']).unwrap_or(self.rest.len());
        let (cell, rest) = self.rest.split_at(end);
        self.rest = rest;
        cell.trim().to_owned()
    }

    fn quoted(&mut self) -> Result<String, DatasetError> {
        let start = self.line;
        let mut cell = String::new();
        loop {
            let Some(end) = self.rest.find('"') else {
                let what = "a quote is opened and never closed".into();
                return Err(DatasetError::Line { line: start, what });
            };
            cell.push_str(&self.rest[..end]);
            self.rest = &self.rest[end + 1..];
            if !self.take('"') {
                self.line += cell.matches('\n').count();
                return Ok(cell);
            }
            cell.push('"');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_those_of_python() {
        // list(csv.reader(io.StringIO(text, newline="")))
        let text = "a,b,c\r\n1,\"x, y\",\"say \"\"hi\"\"\"\n\n\"two\nlines\",,end\n,\n last ,\"\",";
        let cells: Vec<Row> = rows(text, ',').unwrap();
        let expected: [(usize, &[&str]); 4] = [
            (1, &["a", "b", "c"]),
            (2, &["1", "x, y", "say \"hi\""]),
            (4, &["two\nlines", "", "end"]),
            (7, &["last", "", ""]),
        ];
        let cells: Vec<(usize, Vec<&str>)> =
            cells.iter().map(|(line, cells)| (*line, cells.iter().map(String::as_str).collect())).collect();
        assert_eq!(cells, expected.map(|(line, cells)| (line, cells.to_vec())));
    }

    #[test]
    fn open_and_followed_quotes_are_errors_with_their_line() {
        let message = |text| rows(text, ',').unwrap_err().to_string();
        assert!(message("a,b\n1,\"x").starts_with("line 2: a quote is opened"));
        assert!(message("a,b\n1,\"x\"y\n").starts_with("line 2: text follows"));
    }

    #[test]
    fn separators_are_recognised() {
        for (text, expected) in [("a,b\n", ','), ("a;b\n1,2", ';'), ("a\tb", '\t'), ("a", ','), ("", ',')] {
            assert_eq!(separator(text), expected, "{text}");
        }
    }
}
