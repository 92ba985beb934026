//! What a user reads when something is wrong: the file, the cause, and where it helps the remedy.

use std::path::{Path, PathBuf};

use cardinal_data::{DataErrorKind, Decoder, Format, RgbImage};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/preprocess/decode").join(name)
}

fn message(bytes: &[u8]) -> String {
    Decoder::default().decode_bytes(bytes, "a/photo").expect_err("not an image").to_string()
}

#[test]
fn a_missing_file_is_named() {
    let error = Decoder::default().decode_file("no/such.jpg").expect_err("nothing there");
    assert!(matches!(error.kind, DataErrorKind::NotFound));
    assert_eq!(error.to_string(), "no/such.jpg: there is no such file or folder");
}

#[test]
fn a_folder_is_not_an_image() {
    let error = Decoder::default().decode_file(env!("CARGO_MANIFEST_DIR")).expect_err("a folder");
    assert!(matches!(error.kind, DataErrorKind::IsDirectory));
}

#[cfg(unix)]
#[test]
fn an_unreadable_file_says_so() {
    use std::os::unix::fs::PermissionsExt;
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("unreadable.png");
    std::fs::write(&path, b"x").expect("the folder is ours");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).expect("the file is ours");
    // The superuser may read anything; then there is nothing to see here.
    if std::fs::File::open(&path).is_err() {
        let error = Decoder::default().decode_file(&path).expect_err("no permission");
        assert!(matches!(error.kind, DataErrorKind::PermissionDenied));
    }
    std::fs::remove_file(&path).expect("the file is ours");
}

#[test]
fn bytes_that_are_no_image_are_described() {
    assert_eq!(message(b""), "a/photo: the file is empty (0 bytes)");
    let known = "a/photo: not an image that Cardinal reads: JPEG, PNG, WebP, BMP or GIF";
    assert_eq!(message(b"hello"), known);
    let guess = |bytes: &[u8]| message(bytes).strip_prefix(known).unwrap_or_default().to_owned();
    assert_eq!(guess(b"  <html>"), " (it looks like HTML or SVG text)");
    assert_eq!(guess(b"II*\0...."), " (it looks like TIFF or a camera's raw file)");
    assert_eq!(guess(b"\0\0\0\x18ftypheic"), " (it looks like HEIC, AVIF or a video)");
    assert!(guess(b"version https://git-lfs.github.com/spec/v1").contains("git lfs pull"));
}

#[test]
fn a_truncated_file_says_truncated() {
    for name in ["baseline-420.jpg", "progressive-420.jpg", "rgba.png", "24-bit.bmp", "lossy.webp"] {
        let bytes = std::fs::read(fixture(name)).expect("a fixture");
        let error = Decoder::default().decode_bytes(&bytes[..bytes.len() * 2 / 3], name).expect_err("cut");
        assert!(matches!(error.kind, DataErrorKind::Truncated { .. }), "{error}");
        assert!(error.to_string().contains("truncated"), "{error}");
    }
}

#[test]
fn too_many_bytes_are_refused_while_reading() {
    let small = Decoder { max_file_bytes: 100, ..Decoder::default() };
    let error = small.decode_file(fixture("rgba.png")).expect_err("over the limit");
    assert!(matches!(error.kind, DataErrorKind::FileTooLarge { limit: 100 }));
    let endless = small.decode_reader(std::io::repeat(0xFF), "endless").expect_err("over the limit");
    assert!(matches!(endless.kind, DataErrorKind::FileTooLarge { limit: 100 }));
}

/// Headers that claim about 4 billion pixels, and nothing behind them.
#[test]
fn too_many_pixels_are_refused_by_the_header() {
    let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\xFF\xFF\0\0\xFF\xFF\x08\x02\0\0\0\x39\x67\x4E\x07";
    let mut jpeg = std::fs::read(fixture("baseline-444.jpg")).expect("a fixture");
    let frame = jpeg.windows(2).position(|pair| pair == [0xFF, 0xC0]).expect("a frame header");
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xFF; 4]);
    let mut bmp = std::fs::read(fixture("24-bit.bmp")).expect("a fixture");
    bmp[18..26].copy_from_slice(&[0xFF, 0xFF, 0, 0, 0xFF, 0xFF, 0, 0]);
    let mut gif = std::fs::read(fixture("grey.gif")).expect("a fixture");
    gif[6..10].copy_from_slice(&[0xFF; 4]);
    for (format, bytes) in
        [(Format::Png, &png[..]), (Format::Jpeg, &jpeg), (Format::Bmp, &bmp), (Format::Gif, &gif)]
    {
        let error = Decoder::default().decode_bytes(bytes, "bomb").expect_err("too large");
        let refused = matches!(error.kind, DataErrorKind::TooManyPixels { width: 65535, height: 65535, .. });
        assert!(refused, "{format}: {error}");
    }
}

#[test]
fn orientation_can_be_left_alone() {
    let stored = Decoder { apply_orientation: false, ..Decoder::default() };
    let size = |image: RgbImage| (image.width(), image.height());
    let path = fixture("exif-6.jpg");
    let upright = size(Decoder::default().decode_file(&path).expect("a fixture"));
    let as_stored = size(stored.decode_file(&path).expect("a fixture"));
    assert_eq!(upright, (as_stored.1, as_stored.0));
}
