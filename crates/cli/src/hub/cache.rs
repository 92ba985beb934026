//! The cache folder: `models--ORG--NAME/{blobs/<etag>, refs/<revision>, snapshots/<commit>/<file>}`, with
//! locks in `.locks/models--ORG--NAME/<etag>.lock`. Names and locks are those of the Python library.

use super::error::{HubError, HubErrorKind};
use super::{Fetched, http::Metadata};
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long to wait for another process that is downloading the same file.
const LOCK_WAIT: Duration = Duration::from_secs(600);

/// One repository at one revision, in the cache.
pub(super) struct Repo<'a> {
    pub(super) id: &'a str,
    pub(super) revision: &'a str,
    cache: &'a Path,
    folder: PathBuf,
}

/// The right to write one blob. Without locks in the file system, there is none to hold.
pub(super) enum Lock {
    Held { _file: File },
    Unsupported,
}

impl<'a> Repo<'a> {
    /// Checks all names, for they become paths and addresses.
    pub(super) fn new(
        cache: &'a Path,
        id: &'a str,
        revision: &'a str,
        files: &[&str],
    ) -> Result<Self, HubError> {
        let invalid = |text: String| Err(HubErrorKind::Invalid(text).at(id, ""));
        let parts: Vec<&str> = id.split('/').collect();
        if parts.len() > 2 || parts.iter().any(|part| !is_plain(part) || part.contains("--")) {
            return invalid("an id is 'organisation/name', such as 'timm/resnest50d.in1k'".to_owned());
        }
        for name in files.iter().chain([&revision]) {
            if !name.split('/').all(is_plain) {
                return invalid(format!(
                    "'{name}' is no revision or file of a repository; check its spelling"
                ));
            }
        }
        let folder = cache.join(format!("models--{}", parts.join("--")));
        Ok(Self { id, revision, cache, folder })
    }

    /// Whether the revision is a full commit hash.
    pub(super) fn is_commit(&self) -> bool {
        self.revision.len() == 40 && self.revision.bytes().all(|b| b.is_ascii_hexdigit())
    }

    /// The first of `files` that the cache has for this revision.
    pub(super) fn find(&self, files: &[&str]) -> Option<Fetched> {
        let commit = match fs::read_to_string(self.folder.join("refs").join(self.revision)) {
            Ok(commit) => commit.trim().to_owned(),
            Err(_) => self.revision.to_owned(),
        };
        if !commit.split('/').all(is_plain) {
            return None;
        }
        let snapshot = self.folder.join("snapshots").join(commit);
        let present = |file: &&&str| snapshot.join(file).is_file();
        let file = files.iter().find(present)?;
        Some(Fetched { path: snapshot.join(file), warning: None })
    }

    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// Whether the blob is there, whole as far as its size tells.
    pub(super) fn has_blob(&self, metadata: &Metadata) -> bool {
        let len = fs::metadata(self.blob(&metadata.etag)).ok().filter(fs::Metadata::is_file).map(|m| m.len());
        len.is_some_and(|len| metadata.size.is_none_or(|size| size == len))
    }

    /// Waits for the sole right to write a blob.
    pub(super) fn lock(&self, etag: &str) -> Result<Lock, HubErrorKind> {
        let name = self.folder.file_name().unwrap_or_default();
        let path = self.cache.join(".locks").join(name).join(format!("{etag}.lock"));
        let file = create_parents(&path)
            .and_then(|()| File::options().create(true).truncate(false).write(true).open(&path))
            .map_err(|cause| self.disk(cause))?;
        let mut start = None;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock::Held { _file: file }),
                Err(TryLockError::WouldBlock) if start.is_none() => {
                    tracing::info!("waiting for another process that is downloading {}", self.id);
                    start = Some(Instant::now());
                }
                Err(TryLockError::WouldBlock) if start.is_some_and(|start| start.elapsed() < LOCK_WAIT) => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(TryLockError::WouldBlock) => {
                    let held = io::Error::other(format!("another process holds {}", path.display()));
                    return Err(self.disk(held));
                }
                Err(TryLockError::Error(_)) => return Ok(Lock::Unsupported),
            }
        }
    }

    /// Links a blob at its name in the snapshot, and notes which commit the revision is.
    pub(super) fn publish(&self, file: &str, metadata: &Metadata) -> Result<PathBuf, HubErrorKind> {
        let path = self.folder.join("snapshots").join(&metadata.commit).join(file);
        let links = || -> io::Result<()> {
            link(&self.blob(&metadata.etag), &path, file, &metadata.etag)?;
            if self.revision != metadata.commit {
                let reference = self.folder.join("refs").join(self.revision);
                replace(&reference, |temporary| {
                    File::create_new(temporary)?.write_all(metadata.commit.as_bytes())
                })?;
            }
            Ok(())
        };
        links().map_err(|cause| self.disk(cause))?;
        Ok(path)
    }

    pub(super) fn disk(&self, cause: io::Error) -> HubErrorKind {
        HubErrorKind::Disk { folder: self.cache.display().to_string(), cause }
    }
}

/// A relative link, as the Python library makes it, or a copy where links are not to be had.
fn link(blob: &Path, path: &Path, file: &str, etag: &str) -> io::Result<()> {
    let up = "../".repeat(file.split('/').count() + 1);
    let target = PathBuf::from(format!("{up}blobs/{etag}"));
    if fs::read_link(path).is_ok_and(|current| current == target) {
        return Ok(());
    }
    replace(path, |temporary| symlink(&target, temporary).or_else(|_| fs::copy(blob, temporary).map(|_| ())))
}

#[cfg(unix)]
fn symlink(target: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into()) // on Windows links need a privilege
}

/// Makes a file under a name of its own beside `path`, then moves it there.
fn replace(path: &Path, make: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    create_parents(path)?;
    let temporary = unique(path);
    let result = make(&temporary).and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        let _ = fs::remove_file(&temporary); // the first error matters more
    }
    result
}

/// A name beside `path` that no other process or thread uses.
pub(super) fn unique(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}-{}.incomplete", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    path.with_file_name(name)
}

pub(super) fn create_parents(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// Whether a name is safe as one part of a path and of an address.
pub(super) fn is_plain(part: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'+' | b'=');
    !part.is_empty()
        && part.len() <= 128
        && !part.starts_with('.')
        && !part.contains("..")
        && part.bytes().all(plain)
}
