//! Walking over the entries of a tar file: POSIX ustar and pax, and GNU's long names.
//!
//! Nothing is taken from a header before its checksum fits, and no entry may reach beyond the end of the file, so what
//! is allocated later is bounded by the file's size.

use std::io::{BufRead, Seek};

use super::super::error::DatasetError;

pub(super) const BLOCK: u64 = 512;

/// Names and pax records longer than this are refused.
const MAX_NAME: u64 = 1 << 20;

/// A regular file in a tar file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Where its bytes start.
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// Reads headers one after the other, skipping what lies between.
pub(super) struct Entries<R> {
    pub(super) reader: R,
    /// Where `reader` stands.
    at: u64,
    /// Where the next header starts.
    next: u64,
    length: u64,
}

/// What extension entries say about the entry that follows.
#[derive(Default)]
struct Extended {
    name: Option<String>,
    size: Option<u64>,
}

impl<R: BufRead + Seek> Entries<R> {
    /// Entries of a tar file of `length` bytes; `reader` stands at its start.
    pub(super) fn new(reader: R, length: u64) -> Self {
        Self { reader, at: 0, next: 0, length }
    }

    /// The next regular file; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, DatasetError> {
        let mut extended = Extended::default();
        loop {
            let start = self.next;
            let Some(header) = self.header(start)? else { return Ok(None) };
            let wrong = |detail: &str| DatasetError::Tar { offset: start, detail: detail.into() };
            let kind = header[156];
            let own = number(&header[124..136]).ok_or_else(|| wrong("the entry's size is not a number"))?;
            let is_extension = matches!(kind, b'L' | b'K' | b'x' | b'g');
            let size = extended.size.filter(|_| !is_extension).unwrap_or(own);
            let offset = start + BLOCK;
            let end = offset.checked_add(size).filter(|&end| end <= self.length);
            let end =
                end.ok_or_else(|| wrong("the file ends before this entry does; fetch or copy it again"))?;
            // The last entry's padding may be missing.
            self.next = end.next_multiple_of(BLOCK);
            match kind {
                b'L' | b'x' if size > MAX_NAME => return Err(wrong("a name of more than a megabyte")),
                b'L' => {
                    let bytes = self.bytes(offset, size)?;
                    extended.name = Some(text(&bytes));
                }
                b'x' => {
                    let records = self.bytes(offset, size)?;
                    pax(&records, &mut extended).ok_or_else(|| wrong("a pax header that makes no sense"))?;
                }
                b'S' => return Err(wrong("sparse files are not read; pack the images anew")),
                b'0' | 0 | b'7' => {
                    let name = extended.name.unwrap_or_else(|| name(&header));
                    return Ok(Some(Entry { name, offset, size }));
                }
                b'K' | b'g' => {}
                // Folders, links and devices; what was said of them is done with.
                _ => extended = Extended::default(),
            }
        }
    }

    /// The bytes of an entry, of which the size is known to be in range.
    pub(super) fn bytes(&mut self, offset: u64, size: u64) -> Result<Vec<u8>, DatasetError> {
        let mut bytes = vec![0; size as usize];
        self.read_at(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// The header at `start`; `None` at the end of the archive.
    fn header(&mut self, start: u64) -> Result<Option<[u8; BLOCK as usize]>, DatasetError> {
        if start >= self.length {
            return Ok(None);
        }
        let wrong = |detail: &str| DatasetError::Tar { offset: start, detail: detail.into() };
        if self.length - start < BLOCK {
            return Err(wrong("the file ends inside a header; fetch or copy it again"));
        }
        let mut header = [0; BLOCK as usize];
        self.read_at(start, &mut header)?;
        if header.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let blanked = |(at, &byte): (usize, &u8)| if (148..156).contains(&at) { b' ' } else { byte };
        let sum: u64 = header.iter().enumerate().map(|entry| u64::from(blanked(entry))).sum();
        if number(&header[148..156]) != Some(sum) {
            let detail =
                if start == 0 { "it does not start as one" } else { "a header's checksum does not fit" };
            return Err(wrong(detail));
        }
        Ok(Some(header))
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), DatasetError> {
        let failed = |error: std::io::Error| DatasetError::Tar { offset, detail: error.to_string() };
        // Relative, so that what is buffered already is not read again.
        let distance = offset as i64 - self.at as i64;
        self.reader.seek_relative(distance).map_err(failed)?;
        self.at = offset;
        self.reader.read_exact(buffer).map_err(failed)?;
        self.at += buffer.len() as u64;
        Ok(())
    }
}

/// A number in octal digits, or in GNU's binary form.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let (first, rest) = field.split_first()?;
        let start = u64::from(first & 0x7F);
        return rest.iter().try_fold(start, |value, &byte| {
            value.checked_mul(256).and_then(|value| value.checked_add(u64::from(byte)))
        });
    }
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    let digits = std::str::from_utf8(&field[..end]).ok()?.trim();
    if digits.is_empty() { Some(0) } else { u64::from_str_radix(digits, 8).ok() }
}

/// The name in a header, with POSIX's prefix.
fn name(header: &[u8]) -> String {
    let name = text(&header[..100]);
    let prefix = text(&header[345..500]);
    if &header[257..263] == b"ustar\0" && !prefix.is_empty() { format!("{prefix}/{name}") } else { name }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Reads records `<length> <key>=<value>\n`.
fn pax(mut records: &[u8], extended: &mut Extended) -> Option<()> {
    while !records.is_empty() {
        let space = records.iter().position(|&byte| byte == b' ')?;
        let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
        let record = records.get(space + 1..length)?.strip_suffix(b"\n")?;
        records = &records[length..];
        let equals = record.iter().position(|&byte| byte == b'=')?;
        let value = &record[equals + 1..];
        match &record[..equals] {
            b"path" => extended.name = Some(String::from_utf8_lossy(value).into_owned()),
            b"size" => extended.size = Some(std::str::from_utf8(value).ok()?.parse().ok()?),
            _ => {}
        }
    }
    Some(())
}
