//! Decoding only what a crop needs.

use std::borrow::Cow;
use std::path::Path;

use super::Format;
use super::baseline::Baseline;
use crate::{DataError, Decoder, Picture, RgbImage};

impl Picture {
    /// The file, for messages.
    pub(crate) fn name(&self) -> &Path {
        match self {
            Self::Encoded { name, .. } => name,
            Self::Pixels(_) => Path::new("pixels"),
        }
    }

    /// The box `[left, top, width, height]` that `choose` takes of an image of this width and height. It must
    /// lie inside.
    ///
    /// # Errors
    /// As [`Decoder::decode_bytes`].
    pub(crate) fn decode_part(
        &self,
        decoder: &Decoder,
        choose: impl FnOnce((u32, u32)) -> [u32; 4],
    ) -> Result<Cow<'_, RgbImage>, DataError> {
        if let Self::Encoded { bytes, .. } = self
            && let Some(file) = decoder.baseline(bytes)
        {
            let part = choose((file.width, file.height));
            if let Some(image) = file.decode(part) {
                return Ok(Cow::Owned(image));
            }
            return Ok(Cow::Owned(self.decode(decoder)?.cropped(part)));
        }
        let image = self.decode(decoder)?;
        let size = (image.width(), image.height());
        let part = choose(size);
        Ok(if part == [0, 0, size.0, size.1] { image } else { Cow::Owned(image.cropped(part)) })
    }
}

impl Decoder {
    /// The file, if it is one whose parts can be decoded, within the limits and upright.
    pub(super) fn baseline<'a>(&self, bytes: &'a [u8]) -> Option<Baseline<'a>> {
        if bytes.len() as u64 > self.max_file_bytes {
            return None;
        }
        let file = Baseline::open(bytes)?;
        self.check_size(Format::Jpeg, file.width, file.height).ok()?;
        let turned = self.apply_orientation && file.orientation.is_some();
        (!turned).then_some(file)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::path::PathBuf;

    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    fn files() -> Vec<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/augment");
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> =
            entries.filter(|path| path.extension().is_some_and(|extension| extension == "jpg")).collect();
        files.sort();
        assert!(files.len() > 15, "only {} files", files.len());
        files
    }

    fn picture(path: &Path) -> Picture {
        Picture::Encoded { name: path.to_path_buf(), bytes: std::fs::read(path).unwrap() }
    }

    #[test]
    fn most_files_take_the_short_way() {
        for path in files() {
            let bytes = std::fs::read(&path).unwrap();
            let turned = path.ends_with("exif-6.jpg");
            assert_eq!(Decoder::default().baseline(&bytes).is_none(), turned, "{}", path.display());
            let file = Baseline::open(&bytes).unwrap();
            assert!(file.decode([0, 0, file.width, file.height]).is_some(), "{}", path.display());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn a_part_is_the_whole_cropped(file: Index, edges in any::<[Index; 4]>()) {
            let files = files();
            let picture = picture(&files[file.index(files.len())]);
            let decoder = Decoder::default();
            let mut part = [0; 4];
            let ours = picture.decode_part(&decoder, |(width, height)| {
                let [left, right] = [&edges[0], &edges[1]].map(|edge| edge.index(width as usize) as u32);
                let [top, bottom] = [&edges[2], &edges[3]].map(|edge| edge.index(height as usize) as u32);
                part = [left.min(right), top.min(bottom), left.abs_diff(right) + 1, top.abs_diff(bottom) + 1];
                part
            });
            let whole = picture.decode(&decoder).unwrap();
            prop_assert!(*ours.unwrap() == whole.cropped(part), "{part:?}");
        }

        /// Damage: an error or an image, no panic; and cut files are never taken for whole ones.
        #[test]
        fn damage_never_panics(file: Index, at: Index, byte: u8, cut: bool) {
            let files = files();
            let mut bytes = std::fs::read(&files[file.index(files.len())]).unwrap();
            let at = at.index(bytes.len() - 4) + 2;
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] = byte;
            }
            let picture = Picture::Encoded { name: "damaged.jpg".into(), bytes };
            let result = picture.decode_part(&Decoder::default(), |(width, height)| {
                [width / 4, height / 4, width - width / 4, height - height / 4]
            });
            prop_assert!(!cut || result.is_err());
            if let Err(error) = result {
                prop_assert!(!error.to_string().contains("makes the decoder fail"), "{error}");
            }
        }
    }
}
