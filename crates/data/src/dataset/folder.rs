//! A folder per class, below folders for the splits or without them.

use std::path::{Path, PathBuf};

use super::classes::{ClassList, expect_two};
use super::error::{DatasetError, Listing};
use super::files::{FileSet, Listed, images_below};
use super::labels::Labels;
use super::split::{is_split_name, is_train, train_of};
use super::{Dataset, OpenOptions, Split};
use crate::{DataError, DataErrorKind};

/// Class folders as torchvision's `ImageFolder` reads them: the class is the top-level folder below the split's, and
/// classes are sorted by the bytes of their names, unless a list says otherwise.
pub(super) struct Folder {
    root: PathBuf,
    pub(super) splits: Vec<String>,
}

impl Folder {
    pub(super) fn find(path: &Path) -> Result<Self, DataError> {
        let listed = Listed::of(path)?;
        if listed.is_empty() {
            return Err(DataError::new(path, DatasetError::EmptyFolder.into()));
        }
        let names = listed.folder_names();
        let mut known: Vec<String> = names.iter().filter(|name| is_split_name(name)).cloned().collect();
        known.sort_by_key(|name| !is_train(name));
        // Folders named so may be classes too, among others.
        if known.iter().any(|name| is_train(name)) || !known.is_empty() && known.len() == names.len() {
            return Ok(Self { root: path.to_path_buf(), splits: known });
        }
        if let Some((parent, name)) = named_as_split(path)
            && names_of(&parent).iter().any(|sibling| is_train(sibling))
        {
            return Ok(Self { root: parent, splits: vec![name] });
        }
        Ok(Self { root: path.to_path_buf(), splits: Vec::new() })
    }

    /// The splits, and the one asked for where a folder has its name.
    pub(super) fn splits_with(&self, split: &Split) -> Vec<String> {
        let mut splits = self.splits.clone();
        if let Split::Name(name) = split
            && !splits.is_empty()
            && !splits.contains(name)
            && names_of(&self.root).contains(name)
        {
            splits.push(name.clone());
        }
        splits
    }

    pub(super) fn open(
        &self,
        split: Option<&str>,
        options: &OpenOptions,
    ) -> Result<Box<dyn Dataset>, DataError> {
        let folder = split.map_or_else(|| self.root.clone(), |split| self.root.join(split));
        let (names, folders) = class_folders(&folder)?;
        let classes = self.classes(&folder, split, &names, options)?;
        let (mut files, mut labels, mut empty) = (Vec::new(), Vec::new(), Listing::default());
        let mut unknown = Listing::default();
        for (name, class_folder) in names.iter().zip(&folders) {
            let images = images_below(&folder, class_folder)?;
            match classes.named(name) {
                _ if images.is_empty() => empty.push(name),
                None => unknown.push(name),
                Some(class) => labels.resize(labels.len() + images.len(), class),
            }
            files.extend(images);
        }
        let error = |kind: DataErrorKind| Err(DataError::new(&folder, kind));
        if files.is_empty() {
            return error(DataErrorKind::NoImages);
        }
        if !unknown.is_empty() {
            let list = classes.origin().to_owned();
            return error(DatasetError::UnknownClasses { list, classes: unknown }.into());
        }
        // An evaluation split may lack images of a class; what is learnt from may not.
        if !empty.is_empty() && split.is_none_or(is_train) {
            return error(DatasetError::EmptyClasses(empty).into());
        }
        expect_two(&folder, classes.names())?;
        let describe = match split {
            Some(split) => format!("image folder, split '{split}'"),
            None => "image folder".into(),
        };
        Ok(Box::new(FileSet {
            root: folder,
            files,
            labels: Labels::One(labels),
            classes: classes.into_names(),
            describe,
            max_file_bytes: options.max_file_bytes,
        }))
    }

    /// The list of classes: that of a file, else the training split's folders, else this split's.
    fn classes(
        &self,
        folder: &Path,
        split: Option<&str>,
        names: &[String],
        options: &OpenOptions,
    ) -> Result<ClassList, DataError> {
        if let Some(list) = ClassList::find(&self.root, options)? {
            return Ok(list);
        }
        let siblings = names_of(&self.root);
        match train_of(&siblings) {
            Some(train) if split.is_some_and(|split| split != train) => {
                Ok(ClassList::listed(class_folders(&self.root.join(train))?.0))
            }
            _ => ClassList::find(folder, options)
                .map(|l| l.unwrap_or_else(|| ClassList::listed(names.to_vec()))),
        }
    }
}

/// The folder above and this one's own name, where that is a split's.
fn named_as_split(path: &Path) -> Option<(PathBuf, String)> {
    let path = std::fs::canonicalize(path).ok()?;
    let name = path.file_name()?.to_str().filter(|name| is_split_name(name))?;
    Some((path.parent()?.to_path_buf(), name.to_owned()))
}

fn names_of(folder: &Path) -> Vec<String> {
    Listed::of(folder).map(|listed| listed.folder_names()).unwrap_or_default()
}

/// The folders in a split's folder, which must hold no image itself.
fn class_folders(folder: &Path) -> Result<(Vec<String>, Vec<PathBuf>), DataError> {
    let listed = Listed::of(folder)?;
    let error = |kind: DataErrorKind| Err(DataError::new(folder, kind));
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if listed.is_empty() {
        return error(DatasetError::EmptyFolder.into());
    }
    let stray: Listing = listed.images().map(name).collect();
    if !stray.is_empty() {
        return error(DatasetError::StrayImages(stray).into());
    }
    if listed.folders.is_empty() {
        return error(DataErrorKind::NoImages);
    }
    Ok((listed.folders.iter().map(name).collect(), listed.folders))
}
