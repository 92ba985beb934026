//! NumPy's `.npy` files: one array, a small text header ahead of raw values.
//!
//! Nothing in the header is believed before it is checked against the bytes that follow, so a header
//! that promises terabytes costs nothing.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{DataError, DataErrorKind};

/// An array of 32-bit floats, in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub struct NpyArray {
    /// The length of each axis; empty for a single number.
    pub shape: Vec<usize>,
    /// The values, the last axis running fastest: as many as the product of `shape`.
    pub data: Vec<f32>,
}

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Longer headers than this describe something other than a plain array.
const MAX_HEADER: usize = 64 << 10;

/// Reads a `.npy` file of 32-bit floats, or of 64-bit floats, which are rounded to 32 bits.
///
/// # Errors
/// If the file cannot be read, is no `.npy` file (format 1, 2 or 3), holds another type or Fortran
/// order, or holds fewer values than its shape says. Bytes behind the last value are ignored, as NumPy
/// does.
pub fn read_npy(path: impl AsRef<Path>) -> Result<NpyArray, DataError> {
    let path = path.as_ref();
    let file = File::open(path).map_err(|error| DataError::io(path, error))?;
    read_npy_from(io::BufReader::new(file), path)
}

/// As [`read_npy`], from any reader; `name` stands for the path in errors.
///
/// # Errors
/// As [`read_npy`].
pub fn read_npy_from(mut reader: impl Read, name: impl AsRef<Path>) -> Result<NpyArray, DataError> {
    read(&mut reader).map_err(|kind| DataError::new(name.as_ref(), kind))
}

fn read(reader: &mut dyn Read) -> Result<NpyArray, DataErrorKind> {
    let text = read_header(reader)?;
    let header = Header::parse(&text)?;
    let count = header
        .shape
        .iter()
        .try_fold(1_usize, |count, &axis| count.checked_mul(axis))
        .filter(|count| count.checked_mul(8).is_some())
        .ok_or_else(|| DataErrorKind::NpyHeader(format!("shape {:?} is too large", header.shape)))?;
    let data = match header.descr.as_str() {
        "<f4" => read_values(reader, count, f32::from_le_bytes)?,
        "<f8" => read_values(reader, count, |bytes| f64::from_le_bytes(bytes) as f32)?,
        other => return Err(DataErrorKind::NpyDtype(other.to_owned())),
    };
    Ok(NpyArray { shape: header.shape, data })
}

/// Magic, version, length, text.
fn read_header(reader: &mut dyn Read) -> Result<String, DataErrorKind> {
    let mut start = [0; 8];
    let found = fill(reader, &mut start)?;
    if found == 0 {
        return Err(DataErrorKind::Empty);
    }
    if !start.starts_with(MAGIC) {
        return Err(DataErrorKind::NotNpy);
    }
    let mut length = [0; 4];
    let width = match start[6] {
        1 => 2,
        2 | 3 => 4,
        version => return Err(DataErrorKind::NpyHeader(format!("format version {version}"))),
    };
    let cut = || DataErrorKind::NpyHeader("the file ends inside it".into());
    if fill(reader, &mut length[..width])? < width {
        return Err(cut());
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_HEADER {
        return Err(DataErrorKind::NpyHeader(format!("{length} bytes long")));
    }
    let mut text = vec![0; length];
    if fill(reader, &mut text)? < length {
        return Err(cut());
    }
    String::from_utf8(text).map_err(|_| DataErrorKind::NpyHeader("not text".into()))
}

/// Reads `count` values of `N` bytes, in pieces: memory grows with what the file really holds.
fn read_values<const N: usize>(
    reader: &mut dyn Read,
    count: usize,
    decode: fn([u8; N]) -> f32,
) -> Result<Vec<f32>, DataErrorKind> {
    const PIECE: usize = 1 << 16;
    let mut data = Vec::with_capacity(count.min(PIECE));
    let mut bytes = vec![0; count.min(PIECE) * N];
    while data.len() < count {
        let wanted = (count - data.len()).min(PIECE) * N;
        let found = fill(reader, &mut bytes[..wanted])?;
        let values = bytes[..found].as_chunks::<N>().0;
        data.extend(values.iter().map(|&value| decode(value)));
        if found < wanted {
            return Err(DataErrorKind::NpyTruncated { expected: count, found: data.len() });
        }
    }
    Ok(data)
}

/// Reads until `buffer` is full or the input ends; how much there was.
fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> Result<usize, DataErrorKind> {
    let mut at = 0;
    while at < buffer.len() {
        match reader.read(&mut buffer[at..]) {
            Ok(0) => break,
            Ok(read) => at += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(DataErrorKind::from_io(error)),
        }
    }
    Ok(at)
}

/// The header's three fields, from text such as
/// `{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3), }`.
struct Header {
    descr: String,
    shape: Vec<usize>,
}

impl Header {
    fn parse(text: &str) -> Result<Self, DataErrorKind> {
        let bad = |what: &str| DataErrorKind::NpyHeader(format!("no usable {what}"));
        let descr = value_of(text, "descr").ok_or_else(|| bad("descr"))?;
        let quote = descr.chars().next().filter(|quote| matches!(quote, '\'' | '"'));
        let descr = quote
            .and_then(|quote| descr[1..].split_once(quote))
            .map(|(descr, _)| descr.to_owned())
            .ok_or_else(|| DataErrorKind::NpyDtype("a record".into()))?;
        let shape = value_of(text, "shape")
            .and_then(|value| value.strip_prefix('(')?.split_once(')'))
            .and_then(|(axes, _)| parse_axes(axes))
            .ok_or_else(|| bad("shape"))?;
        match value_of(text, "fortran_order").ok_or_else(|| bad("fortran_order"))? {
            order if order.starts_with("False") => Ok(Self { descr, shape }),
            order if order.starts_with("True") => Err(DataErrorKind::NpyFortranOrder),
            _ => Err(bad("fortran_order")),
        }
    }
}

/// What follows `'key':`.
fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let start = [format!("'{key}'"), format!("\"{key}\"")]
        .iter()
        .find_map(|quoted| text.find(quoted.as_str()).map(|at| at + quoted.len()))?;
    text[start..].trim_start().strip_prefix(':').map(str::trim_start)
}

/// `1, 3, 224, 224` or `5,` or nothing at all. Python 2 wrote `5L`.
fn parse_axes(axes: &str) -> Option<Vec<usize>> {
    axes.split(',')
        .map(|axis| axis.trim().trim_end_matches('L'))
        .filter(|axis| !axis.is_empty())
        .map(|axis| axis.parse().ok())
        .collect()
}

/// Writes 32-bit floats as a `.npy` file (format 1), whole or not at all.
///
/// The values go to a temporary file in the same folder, which then takes the name; on failure it is
/// removed and a file already there stays as it was.
///
/// # Errors
/// If `shape` does not hold `data.len()` values, or the folder cannot be written.
pub fn write_npy(path: impl AsRef<Path>, shape: &[usize], data: &[f32]) -> Result<(), DataError> {
    let path = path.as_ref();
    if shape.iter().try_fold(1_usize, |count, &axis| count.checked_mul(axis)) != Some(data.len()) {
        let kind = DataErrorKind::NpyShape { shape: shape.to_vec(), values: data.len() };
        return Err(DataError::new(path, kind));
    }
    if path.is_dir() {
        return Err(DataError::new(path, DataErrorKind::IsDirectory));
    }
    write_atomically(path, |out| write_to(out, shape, data)).map_err(|error| DataError::io(path, error))
}

fn write_to(out: &mut dyn Write, shape: &[usize], data: &[f32]) -> io::Result<()> {
    let axes: String = shape.iter().map(|axis| format!("{axis}, ")).collect();
    let axes = if shape.len() == 1 { axes.trim_end() } else { axes.trim_end_matches(", ") };
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({axes}), }}");
    // The values start at a multiple of 64 bytes; the header ends in a line break.
    let unpadded = MAGIC.len() + 4 + header.len() + 1;
    header.extend(std::iter::repeat_n(' ', unpadded.next_multiple_of(64) - unpadded));
    header.push('\n');
    let length =
        u16::try_from(header.len()).map_err(|_| io::Error::other("too many axes for a .npy file"))?;
    out.write_all(MAGIC)?;
    out.write_all(&[1, 0])?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    for values in data.chunks(1 << 14) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        out.write_all(&bytes)?;
    }
    Ok(())
}

fn write_atomically(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let temporary = temporary_beside(path)?;
    let result = File::options().write(true).create_new(true).open(&temporary).and_then(|file| {
        let mut out = BufWriter::new(file);
        write(&mut out)?;
        out.into_inner()?.sync_all()?;
        std::fs::rename(&temporary, path)
    });
    if result.is_err() {
        // The first error is the one to tell; there may be no file to remove.
        let _ = std::fs::remove_file(&temporary);
    }
    result
}

/// A hidden name in the same folder, unique among processes and calls.
fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or_else(|| io::Error::other("the path has no file name"))?;
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}-{call}.tmp", std::process::id()));
    Ok(path.with_file_name(hidden))
}
