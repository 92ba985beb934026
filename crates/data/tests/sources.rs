//! Arguments to files, in a folder made for each test.

use std::path::{Path, PathBuf};

use cardinal_data::{DataErrorKind, Source, expand_sources};

/// A folder of empty files, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn with(name: &str, files: &[&str]) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        for file in files {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().expect("below the root")).expect("the folder is ours");
            std::fs::write(path, b"").expect("the folder is ours");
        }
        Self(root)
    }

    fn path(&self, below: &str) -> String {
        self.0.join(below).to_string_lossy().into_owned()
    }

    /// What the arguments expand to, without the folder's own path; errors as their kinds.
    fn expand(&self, arguments: &[&str]) -> Vec<String> {
        let arguments: Vec<String> = arguments
            .iter()
            .map(|&argument| if argument == "-" { "-".into() } else { self.path(argument) })
            .collect();
        let inside = |path: &Path| path.strip_prefix(&self.0).unwrap_or(path).to_string_lossy().into_owned();
        expand_sources(&arguments)
            .into_iter()
            .map(|source| match source {
                Ok(Source::Stdin) => "-".into(),
                Ok(Source::File(path)) => inside(&path),
                Err(error) => {
                    let kind = format!("{:?}", error.kind);
                    format!("{}: {}", inside(&error.path), kind.split('(').next().unwrap_or_default())
                }
            })
            .collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_folder_gives_its_images_in_natural_order() {
    let files = ["img10.jpg", "img2.JPG", "b/1.png", "a/x.webp", "notes.txt", ".hidden.png", "Img1.gif"];
    let folder = Folder::with("natural", &files);
    assert_eq!(folder.expand(&["."]), ["a/x.webp", "b/1.png", "Img1.gif", "img2.JPG", "img10.jpg"]);
}

#[test]
fn a_file_is_taken_whatever_its_name() {
    let folder = Folder::with("plain", &["photo", "[1].png"]);
    assert_eq!(folder.expand(&["photo", "-", "[1].png"]), ["photo", "-", "[1].png"]);
}

#[test]
fn patterns_work_without_a_shell() {
    let folder = Folder::with("patterns", &["a1.jpg", "a10.jpg", "a9.jpg", "b.png", "s/c.jpg", "a.txt"]);
    assert_eq!(folder.expand(&["a*"]), ["a1.jpg", "a9.jpg", "a10.jpg"]);
    assert_eq!(folder.expand(&["**/*.jpg"]), ["a1.jpg", "a9.jpg", "a10.jpg", "s/c.jpg"]);
    assert_eq!(folder.expand(&["*"]), ["a1.jpg", "a9.jpg", "a10.jpg", "b.png", "s/c.jpg"]);
}

#[test]
fn what_gives_nothing_is_an_error_and_the_rest_goes_on() {
    let folder = Folder::with("errors", &["x.png", "empty/readme.txt"]);
    assert_eq!(
        folder.expand(&["gone.png", "empty", "*.jpg", "[", "x.png"]),
        ["gone.png: NotFound", "empty: NoImages", "*.jpg: NoMatch", "[: BadPattern", "x.png"]
    );
}

#[test]
fn errors_read_as_sentences() {
    let line = |argument: &str| match expand_sources(&[argument]).remove(0) {
        Err(error) => error.to_string(),
        Ok(source) => panic!("{source:?}"),
    };
    assert_eq!(line("no-such-folder/*.jpg"), "no-such-folder/*.jpg: no image matches this pattern");
    assert_eq!(line("no-such.jpg"), "no-such.jpg: there is no such file or folder");
}

#[cfg(unix)]
#[test]
fn links_that_lead_in_circles_end() {
    let folder = Folder::with("circles", &["a/1.png"]);
    std::os::unix::fs::symlink(&folder.0, folder.0.join("a/again")).expect("the folder is ours");
    std::os::unix::fs::symlink("nowhere.png", folder.0.join("dangling.png")).expect("the folder is ours");
    assert_eq!(folder.expand(&["."]), ["a/1.png", "dangling.png"]);
    let dangling = expand_sources(&[folder.path("dangling.png")]).remove(0);
    assert!(matches!(dangling, Err(error) if matches!(error.kind, DataErrorKind::NotFound)));
}
