//! Bytes of any kind: an image or an error, never a panic, never a picture that is partly made up.

use std::path::{Path, PathBuf};

use cardinal_data::{DataErrorKind, Decoder, Format, RgbImage, read_npy_from};
use proptest::collection::vec;
use proptest::prelude::*;

/// All files of `fixtures/preprocess/decode`: every format in every variant.
fn samples() -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/preprocess/decode");
    let entries = std::fs::read_dir(&folder).expect("the fixtures are there");
    let files = entries.map(|entry| entry.expect("the folder can be listed").path());
    let mut samples: Vec<_> = files
        .filter(|path| path.is_file() && path.extension().is_some_and(|extension| extension != "txt"))
        .map(|path| (path.clone(), std::fs::read(&path).expect("a fixture can be read")))
        .collect();
    samples.sort();
    assert!(samples.len() > 40, "only {} fixtures", samples.len());
    samples
}

fn decode(bytes: &[u8]) -> Result<RgbImage, DataErrorKind> {
    Decoder { max_pixels: 1 << 20, ..Decoder::default() }
        .decode_bytes(bytes, "input")
        .map_err(|error| error.kind)
}

/// The decoder's panics are caught and turned into this error; here they count as failures.
fn is_caught_panic<T>(result: &Result<T, DataErrorKind>) -> bool {
    matches!(result, Err(DataErrorKind::Corrupt { detail, .. }) if detail.contains("makes the decoder fail"))
}

#[test]
fn a_truncated_file_is_an_error_or_still_whole() {
    for (path, bytes) in samples() {
        let whole = decode(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // Every length near the end, where the last pixels are, and a sample of the others.
        let near_end = bytes.len().saturating_sub(24)..bytes.len();
        for length in (0..bytes.len()).step_by(31).chain(near_end) {
            let result = decode(&bytes[..length]);
            assert!(!is_caught_panic(&result), "{} cut to {length}", path.display());
            if let Ok(image) = result {
                // Orientation may be lost with metadata behind the pixels; the pixels may not.
                let same = image == whole || path.ends_with("exif-8.webp");
                assert!(same, "{} cut to {length} of {}: another image", path.display(), bytes.len());
            }
        }
    }
}

/// Pillow refuses these too, even if only the end marker is missing.
#[test]
fn a_truncated_jpeg_is_always_called_truncated() {
    for (path, bytes) in samples() {
        if Format::detect(&bytes) != Some(Format::Jpeg) {
            continue;
        }
        for length in (200..bytes.len()).step_by(13).chain([bytes.len() - 1, bytes.len() - 2]) {
            let result = decode(&bytes[..length]);
            let truncated = matches!(result, Err(DataErrorKind::Truncated { format: Format::Jpeg }));
            assert!(truncated, "{} cut to {length}: {result:?}", path.display());
        }
    }
}

#[test]
fn a_changed_byte_never_panics() {
    for (path, bytes) in samples() {
        for position in (0..bytes.len()).step_by(37) {
            let mut changed = bytes.clone();
            changed[position] ^= 1 << (position % 8);
            let result = decode(&changed);
            assert!(!is_caught_panic(&result), "{} with byte {position} changed", path.display());
        }
    }
}

const STARTS: [&[u8]; 6] = [
    b"",
    b"\xFF\xD8\xFF",
    b"\x89PNG\r\n\x1a\n",
    b"RIFF\x40\0\0\0WEBPVP8 ",
    b"BM\0\0\0\0\0\0\0\0\0\0\0\0\x28\0\0\0",
    b"GIF89a",
];

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(start in 0..STARTS.len(), bytes in vec(any::<u8>(), 0..400)) {
        let result = decode(&[STARTS[start], &bytes].concat());
        prop_assert!(!is_caught_panic(&result));
    }

    #[test]
    fn arbitrary_npy_never_panics(version in 0_u8..5, header in ".{0,80}", bytes in vec(any::<u8>(), 0..64)) {
        let length = (header.len() as u16).to_le_bytes();
        let file = [b"\x93NUMPY", &[version, 0][..], &length, header.as_bytes(), &bytes].concat();
        let _ = read_npy_from(file.as_slice(), "input");
        let _ = read_npy_from(bytes.as_slice(), "input");
    }

    #[test]
    fn any_npy_shape_is_checked(shape in vec(any::<u64>(), 0..5), values in 0_usize..20) {
        let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape:?}), }}")
            .replace(['[', ']'], "");
        let length = (header.len() as u16).to_le_bytes();
        let file = [b"\x93NUMPY\x01\0", &length[..], header.as_bytes(), &vec![0; values * 4]].concat();
        let promised = shape.iter().try_fold(1_u64, |count, &axis| count.checked_mul(axis));
        match read_npy_from(file.as_slice(), "input") {
            Ok(array) => prop_assert_eq!(Some(array.data.len() as u64), promised),
            Err(_) => prop_assert!(promised.is_none_or(|promised| promised > values as u64)),
        }
    }
}
