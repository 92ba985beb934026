//! The zip container: `<root>/data.pkl`, `<root>/data/<key>` per storage, `<root>/byteorder`.
//!
//! Only the directory is parsed. `torch.save` stores its entries uncompressed, so a storage is a range of
//! the file; a compressed entry is refused, and with it every way to make a small file large.

use super::pickle::Pickle;
use super::storage::Place;
use super::{File, MAX_PICKLE};
use crate::error::{Result, WeightsErrorKind, damaged, unsupported};
use crate::source::Source;
use std::collections::HashMap;

const END: &[u8] = b"PK\x05\x06";
const END64_LOCATOR: &[u8] = b"PK\x06\x07";
const END64: &[u8] = b"PK\x06\x06";
const ENTRY: &[u8] = b"PK\x01\x02";
const LOCAL: &[u8] = b"PK\x03\x04";
/// Length of the end record, and of the longest comment after it.
const END_LEN: u64 = 22;
const MAX_COMMENT: u64 = 0xffff;
const MAX_DIRECTORY: u64 = 32 << 20;

pub(super) fn open(source: &Source<'_>) -> Result<File> {
    let directory = read_directory(source)?;
    let entries = parse_directory(&directory)?;
    let roots = entries.keys().filter_map(|name| name.strip_suffix("data.pkl"));
    let Some(root) = roots.filter(|r| r.is_empty() || r.ends_with('/')).min_by_key(|r| r.len()) else {
        return Err(WeightsErrorKind::UnknownFormat(
            "a zip file without data.pkl; PyTorch checkpoints have one, MXNet .params and NumPy .npz do not"
                .into(),
        ));
    };
    if entries.contains_key(format!("{root}constants.pkl").as_str()) {
        return unsupported("this is a TorchScript program; save the model's state_dict() instead");
    }
    check_byte_order(source, entries.get(format!("{root}byteorder").as_str()))?;
    let entry = entries.get(format!("{root}data.pkl").as_str());
    let place = entry.map(|entry| entry.place(source)).transpose()?;
    let pickle = match place {
        Some(place) if place.len <= MAX_PICKLE => Pickle::parse(&source.read_at(place.offset, place.len)?)?,
        _ => {
            return unsupported(format!(
                "its data.pkl has over {MAX_PICKLE} bytes; save the state dict alone"
            ));
        }
    };
    let storages = storages(source, &entries, &format!("{root}data/"))?;
    Ok(File { pickle, storages })
}

fn storages(
    source: &Source<'_>,
    entries: &HashMap<&str, Entry>,
    folder: &str,
) -> Result<HashMap<String, Place>> {
    let mut storages = HashMap::new();
    for (name, entry) in entries {
        if let Some(key) = name.strip_prefix(folder) {
            let place = entry.place(source).map_err(|e| e.inside(&format!("entry '{name}'")))?;
            storages.insert(key.to_owned(), place);
        }
    }
    Ok(storages)
}

fn check_byte_order(source: &Source<'_>, entry: Option<&Entry>) -> Result<()> {
    let Some(entry) = entry else { return Ok(()) };
    let place = entry.place(source)?;
    match source.read_at(place.offset, place.len.min(16))?.as_slice() {
        b"little" => Ok(()),
        b"big" => unsupported("written on a big-endian machine; save it again on a little-endian one"),
        _ => damaged("its byteorder entry is neither 'little' nor 'big'"),
    }
}

/// The central directory, located through the end record.
fn read_directory(source: &Source<'_>) -> Result<Vec<u8>> {
    let tail_start = source.len().saturating_sub(END_LEN + MAX_COMMENT);
    let tail = source.read_at(tail_start, source.len() - tail_start)?;
    let Some(at) = tail.windows(END_LEN as usize).rposition(|w| w.starts_with(END)) else {
        return damaged("the directory at the end of the zip is missing: the file is cut short");
    };
    let record = &tail[at..];
    let (mut size, mut offset) = (u32_at(record, 12)?.into(), u32_at(record, 16)?.into());
    if let Some(locator) = (tail_start + at as u64).checked_sub(20) {
        let locator = source.read_at(locator, 20)?;
        if locator.starts_with(END64_LOCATOR) {
            let record = source.read_at(u64_at(&locator, 8)?, 56)?;
            if !record.starts_with(END64) {
                return damaged("its 64-bit zip record is not where it should be");
            }
            (size, offset) = (u64_at(&record, 40)?, u64_at(&record, 48)?);
        }
    }
    if size > MAX_DIRECTORY {
        return damaged(format!("its zip directory claims {size} bytes"));
    }
    source.read_at(offset, size)
}

/// One file of the zip, as the directory describes it.
struct Entry {
    flags: u16,
    method: u16,
    crc32: u32,
    stored: u64,
    size: u64,
    header: u64,
}

fn parse_directory(directory: &[u8]) -> Result<HashMap<&str, Entry>> {
    let mut entries = HashMap::new();
    let mut rest = directory;
    while rest.starts_with(ENTRY) {
        let lengths = [u16_at(rest, 28)?, u16_at(rest, 30)?, u16_at(rest, 32)?].map(usize::from);
        let name_end = 46 + lengths[0];
        let extra_end = name_end + lengths[1];
        let (Some(name), Some(extra)) = (rest.get(46..name_end), rest.get(name_end..extra_end)) else {
            return damaged("its zip directory is cut short");
        };
        let name = std::str::from_utf8(name).or_else(|_| damaged("its zip has a name that is not UTF-8"))?;
        // Two entries of one name could make this reader and another see different weights.
        if entries.insert(name, Entry::parse(rest, extra)?).is_some() {
            return damaged(format!("its zip has two entries named '{name}'"));
        }
        rest = rest.get(extra_end + lengths[2]..).unwrap_or_default();
    }
    Ok(entries)
}

impl Entry {
    fn parse(record: &[u8], extra: &[u8]) -> Result<Self> {
        let mut entry = Self {
            flags: u16_at(record, 8)?,
            method: u16_at(record, 10)?,
            crc32: u32_at(record, 16)?,
            stored: u32_at(record, 20)?.into(),
            size: u32_at(record, 24)?.into(),
            header: u32_at(record, 42)?.into(),
        };
        // The 64-bit fields stand in the extra data in this order, each only where the short one is full.
        let mut wide = extra_field(extra, 1).unwrap_or_default();
        for field in [&mut entry.size, &mut entry.stored, &mut entry.header] {
            if *field == u64::from(u32::MAX) {
                *field = u64_at(wide, 0)?;
                wide = &wide[8..];
            }
        }
        Ok(entry)
    }

    /// The range of the file that holds the entry's bytes.
    fn place(&self, source: &Source<'_>) -> Result<Place> {
        if self.flags & 1 != 0 {
            return unsupported("the zip is encrypted; decrypt it first");
        }
        if self.method != 0 || self.stored != self.size {
            return unsupported(
                "the zip is compressed, which torch.save does not do; save it again with torch.save",
            );
        }
        let local = source.read_at(self.header, 30)?;
        if !local.starts_with(LOCAL) {
            return damaged("a zip entry is not where the directory says");
        }
        let offset = self.header + 30 + u64::from(u16_at(&local, 26)?) + u64::from(u16_at(&local, 28)?);
        if !source.holds(offset, self.size) {
            return damaged(format!("a zip entry of {} bytes reaches beyond the end of the file", self.size));
        }
        // torch.save can leave checksums out, and then writes 0.
        let crc32 = (self.crc32 != 0).then_some(self.crc32);
        Ok(Place { offset, len: self.size, crc32 })
    }
}

/// The extra field of that number: a list of (number, length, bytes).
fn extra_field(mut extra: &[u8], number: u16) -> Option<&[u8]> {
    loop {
        let len = usize::from(u16_at(extra, 2).ok()?);
        let body = extra.get(4..4 + len)?;
        if u16_at(extra, 0).ok()? == number {
            return Some(body);
        }
        extra = &extra[4 + len..];
    }
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    match bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        Some(array) => Ok(*array),
        None => damaged("a record of the zip is cut short"),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    Ok(u16::from_le_bytes(array_at(bytes, at)?))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    Ok(u32::from_le_bytes(array_at(bytes, at)?))
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    Ok(u64::from_le_bytes(array_at(bytes, at)?))
}
