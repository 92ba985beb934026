//! The stream container of PyTorch 0.2 to 1.5, still written by `_use_new_zipfile_serialization=False`.
//!
//! Five pickles (a magic number, the version 1001, facts about the writer, the data, the list of storage
//! keys), then per key in that order a 64-bit element count and the elements.

use super::pickle::{Pickle, Value};
use super::storage::Place;
use super::{File, MAX_PICKLE};
use crate::error::{Result, damaged, unsupported};
use crate::source::Source;
use std::collections::HashMap;

/// The magic number as every pickle protocol since 2 writes it, within the first bytes of the file.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const VERSION: i64 = 1001;

pub(crate) fn sniff(head: &[u8]) -> bool {
    head.first() == Some(&0x80) && head.windows(MAGIC.len()).take(24).any(|w| w == MAGIC)
}

pub(super) fn open(source: &Source<'_>) -> Result<File> {
    let head = source.head(MAX_PICKLE)?;
    let mut at = 0;
    let mut next = || -> Result<Pickle> {
        let pickle = Pickle::parse(&head[at..])?;
        at += pickle.len;
        Ok(pickle)
    };
    next()?;
    if next()?.root != Value::Int(VERSION) {
        return unsupported(format!("a legacy file of another version than {VERSION}"));
    }
    let facts = next()?;
    if facts.get(facts.root, "little_endian") == Some(Value::Bool(false)) {
        return unsupported("written on a big-endian machine; save it again on a little-endian one");
    }
    let pickle = next()?;
    let keys = next()?;
    let storages = storages(source, &pickle, &keys, at as u64)?;
    Ok(File { pickle, storages })
}

/// Walks the storages. Their element sizes are known only from the pickle's references to them.
fn storages(
    source: &Source<'_>,
    pickle: &Pickle,
    keys: &Pickle,
    start: u64,
) -> Result<HashMap<String, Place>> {
    let sizes: HashMap<&str, u64> = pickle.storages().map(|s| (&*s.key, s.element_size)).collect();
    let Some(keys) = keys.sequence(keys.root).map(|list| list.iter().map(|key| keys.text(*key))) else {
        return damaged("its list of storages is no list");
    };
    let mut storages = HashMap::new();
    let mut at = start;
    for key in keys {
        let Some((key, size)) = key.and_then(|key| Some((key, *sizes.get(key)?))) else {
            return damaged("it lists a storage that no tensor names");
        };
        if size == 0 {
            return unsupported(format!("storage '{key}' has elements of unknown size"));
        }
        let count = source.read_at(at, 8)?;
        let count = count.first_chunk().map_or(0, |n| u64::from_le_bytes(*n));
        let offset = at + 8;
        match count.checked_mul(size).filter(|&len| source.holds(offset, len)) {
            Some(len) => {
                storages.insert(key.to_owned(), Place { offset, len, crc32: None });
                at = offset + len;
            }
            None => {
                return damaged(format!(
                    "storage '{key}' of {count} elements reaches beyond the end of the file"
                ));
            }
        }
    }
    Ok(storages)
}
