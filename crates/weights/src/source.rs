//! Bounded reads from a file or from memory: no length is believed before it is checked.

use crate::error::{Result, WeightsErrorKind, damaged};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Where the bytes of a checkpoint come from.
pub(crate) struct Source<'a> {
    inner: Inner<'a>,
    len: u64,
}

enum Inner<'a> {
    File(File),
    Bytes(&'a [u8]),
}

impl Source<'static> {
    /// Opens a regular file. A pipe or a device could block for ever or never end, so those are refused.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let meta = std::fs::metadata(path)?;
        if !meta.is_file() {
            let what =
                if meta.is_dir() { "this is a folder; name a file in it" } else { "not a regular file" };
            return Err(WeightsErrorKind::UnknownFormat(what.to_owned()));
        }
        Ok(Self { inner: Inner::File(File::open(path)?), len: meta.len() })
    }
}

impl<'a> Source<'a> {
    pub(crate) fn from_bytes(bytes: &'a [u8]) -> Self {
        Self { inner: Inner::Bytes(bytes), len: bytes.len() as u64 }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Whether `len` bytes at `offset` exist.
    pub(crate) fn holds(&self, offset: u64, len: u64) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len)
    }

    /// Exactly `len` bytes at `offset`; the buffer is made only after the range is known to exist.
    pub(crate) fn read_at(&self, offset: u64, len: u64) -> Result<Vec<u8>> {
        if !self.holds(offset, len) {
            return damaged(format!("it ends at byte {}, before byte {offset} + {len}", self.len));
        }
        match &self.inner {
            Inner::Bytes(bytes) => Ok(bytes[offset as usize..(offset + len) as usize].to_vec()),
            Inner::File(file) => read_file(file, offset, len),
        }
    }

    /// Up to `len` bytes from the start.
    pub(crate) fn head(&self, len: u64) -> Result<Vec<u8>> {
        self.read_at(0, len.min(self.len))
    }
}

fn read_file(mut file: &File, offset: u64, len: u64) -> Result<Vec<u8>> {
    let Ok(size) = usize::try_from(len) else {
        return Err(WeightsErrorKind::Unsupported("larger than this machine's memory".to_owned()));
    };
    let mut buffer = Vec::new();
    if buffer.try_reserve_exact(size).is_err() {
        return Err(WeightsErrorKind::Unsupported(format!("not enough memory for {size} bytes")));
    }
    file.seek(SeekFrom::Start(offset))?;
    file.take(len).read_to_end(&mut buffer)?;
    if buffer.len() != size {
        return damaged("it shrank while it was being read");
    }
    Ok(buffer)
}
