//! Where explanations go. Each is written as soon as it is made, so that memory does not grow with the pictures.

use super::network::Method;
use super::{Explanation, Picture, page, sheet};
use crate::exit::Usage;
use crate::output::{PartialFile, write_file};
use anyhow::Context;
use cardinal_data::RgbImage;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// What to write.
pub(super) enum Target {
    Nothing,
    Folder(PathBuf),
    Png(PathBuf),
    Page(PathBuf),
}

impl Target {
    /// What `--output` asks for, by its extension.
    pub(super) fn new(output: Option<&Path>, json: bool, pictures: usize) -> anyhow::Result<Self> {
        let Some(path) = output else {
            return Ok(if json { Self::Nothing } else { Self::Folder("explained".into()) });
        };
        let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_lowercase);
        let refused = match extension.as_deref() {
            Some("png") if pictures == 1 => return Ok(Self::Png(path.into())),
            Some("html" | "htm") => return Ok(Self::Page(path.into())),
            Some("png") => {
                let name = path.display();
                format!("{name} can hold one picture, not {pictures}: give a folder or a .html file")
            }
            Some(other @ ("jpg" | "jpeg" | "webp" | "gif" | "svg" | "pdf" | "json")) => {
                format!("--output writes .png, .html or a folder, not .{other}")
            }
            _ if path.is_file() => {
                format!("{} is a file; --output needs a folder, .png or .html", path.display())
            }
            _ => return Ok(Self::Folder(path.into())),
        };
        Err(Usage(refused).into())
    }
}

/// The files of a run.
pub(super) struct Files {
    target: Target,
    title: String,
    method: Method,
    /// The page of all pictures, from the first one on.
    page: Option<PartialFile>,
    /// Names of pictures in the folder.
    taken: HashSet<String>,
    written: Vec<PathBuf>,
}

impl Files {
    pub(super) fn new(target: Target, model: &str, method: Method) -> Self {
        let title = format!("{model} explained");
        Self { target, title, method, page: None, taken: HashSet::new(), written: Vec::new() }
    }

    /// Writes an explanation of `image`.
    pub(super) fn add(&mut self, explanation: &Explanation, image: &RgbImage) -> anyhow::Result<()> {
        if matches!(self.target, Target::Nothing) {
            return Ok(());
        }
        let picture = Picture::new(image, explanation)?;
        let (png, html) = match &self.target {
            Target::Nothing => (None, None),
            Target::Png(path) => (Some(path.clone()), None),
            Target::Page(path) => (None, Some(path.clone())),
            Target::Folder(folder) => {
                std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
                let name = file_name(&explanation.outcome.file, &mut self.taken);
                (Some(folder.join(name)), Some(folder.join("index.html")))
            }
        };
        if let Some(path) = png {
            write_file(&path, &sheet::draw(explanation, &picture)?)?;
            self.written.push(path);
        }
        if let Some(path) = html {
            self.page(&path)?.write(page::section(explanation, &picture)?.as_bytes())?;
        }
        Ok(())
    }

    /// The page, with its beginning written.
    fn page(&mut self, path: &Path) -> anyhow::Result<&mut PartialFile> {
        let page = match self.page.take() {
            Some(page) => page,
            None => self.begin(path)?,
        };
        Ok(self.page.insert(page))
    }

    fn begin(&self, path: &Path) -> anyhow::Result<PartialFile> {
        let what = match self.method {
            Method::Cam => {
                "Class-activation maps: what each place of the last feature map adds to the class's logit."
            }
            Method::Gradcam => {
                "Grad-CAM: the feature map, its channels weighted by the mean gradient of the class's logit."
            }
        };
        let how = "Negative evidence is not shown; each map is scaled to its own largest value.";
        let mut page = PartialFile::create(path)?;
        page.write(page::head(&self.title, &[what, how]).as_bytes())?;
        Ok(page)
    }

    /// Ends the page; all files, the page last.
    pub(super) fn finish(mut self) -> anyhow::Result<Vec<PathBuf>> {
        if let Some(mut page) = self.page.take() {
            page.write(page::END.as_bytes())?;
            self.written.push(page.path().into());
            page.finish()?;
        }
        Ok(self.written)
    }
}

/// A name for the explanation of `file` that is not taken: `photo.png`, `photo-2.png`.
fn file_name(file: &str, taken: &mut HashSet<String>) -> String {
    let stem = Path::new(file).file_stem().map_or_else(|| "picture".into(), |stem| stem.to_string_lossy());
    let stem = if stem == "-" { "stdin".into() } else { stem };
    let mut name = format!("{stem}.png");
    let mut number = 1;
    while !taken.insert(name.to_lowercase()) {
        number += 1;
        name = format!("{stem}-{number}.png");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_of_one_name_get_files_of_their_own() {
        let mut taken = HashSet::new();
        let names = ["a/cat.jpg", "b/cat.png", "c/CAT.jpg", "-"].map(|file| file_name(file, &mut taken));
        assert_eq!(names, ["cat.png", "cat-2.png", "CAT-3.png", "stdin.png"]);
    }
}
