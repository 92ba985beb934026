//! One file from the hub into a blob: append to what is there, check the whole, rename.

use super::Progress;
use super::cache::{Lock, Repo, create_parents, unique};
use super::error::{HubError, HubErrorKind};
use super::http::{Client, Metadata, text};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::Body;
use ureq::http::Response;
use ureq::http::header::{CONTENT_LENGTH, CONTENT_RANGE};

/// Attempts in a row that may bring no new byte, and the pause before the first of them.
const IDLE_RETRIES: u32 = 2;
const PAUSE: Duration = Duration::from_millis(200);

pub(super) fn run(
    repo: &Repo<'_>,
    client: &Client<'_>,
    file: &str,
    metadata: &Metadata,
    lock: &Lock,
    progress: Progress<'_>,
) -> Result<(), HubError> {
    let blob = repo.blob(&metadata.etag);
    let path = match lock {
        Lock::Held { .. } => incomplete(&blob),
        Lock::Unsupported => unique(&blob), // two processes may be here, so there is nothing to resume
    };
    let mut job = Job { repo, client, file, metadata, path, progress };
    let result = job.complete().and_then(|()| fs::rename(&job.path, &blob).map_err(|e| repo.disk(e)));
    if result.is_err() && matches!(lock, Lock::Unsupported) {
        let _ = fs::remove_file(&job.path); // nobody will look for it again
    }
    result.map_err(|kind| kind.at(repo.id, client.url(file)))
}

/// The name that the Python library gives to a download under way.
fn incomplete(blob: &Path) -> PathBuf {
    let mut name = blob.file_name().unwrap_or_default().to_owned();
    name.push(".incomplete");
    blob.with_file_name(name)
}

struct Job<'a> {
    repo: &'a Repo<'a>,
    client: &'a Client<'a>,
    file: &'a str,
    metadata: &'a Metadata,
    path: PathBuf,
    progress: Progress<'a>,
}

/// The unfinished file, with the digest of what is in it.
struct Partial {
    file: File,
    len: u64,
    digest: Sha256,
    /// Whether it began with bytes of an earlier run.
    resumed: bool,
}

impl Job<'_> {
    /// Downloads until the file is whole and checked.
    fn complete(&mut self) -> Result<(), HubErrorKind> {
        create_parents(&self.path).map_err(|e| self.repo.disk(e))?;
        let mut partial = self.open()?;
        let mut idle = 0;
        loop {
            let before = partial.len;
            match self.append(&mut partial) {
                Ok(()) => match self.check(&partial) {
                    Ok(()) => return partial.file.sync_all().map_err(|e| self.repo.disk(e)),
                    // The earlier run's bytes may be at fault; with none of them it is the server.
                    Err(_) if partial.resumed => self.restart(&mut partial)?,
                    Err(error) => {
                        let _ = fs::remove_file(&self.path);
                        return Err(error);
                    }
                },
                Err(HubErrorKind::Interrupted { .. }) if partial.len > before => idle = 0,
                Err(HubErrorKind::Interrupted { .. } | HubErrorKind::Network(_)) if idle < IDLE_RETRIES => {
                    idle += 1;
                    std::thread::sleep(PAUSE * idle);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Opens what an earlier run left, and digests it.
    fn open(&self) -> Result<Partial, HubErrorKind> {
        let disk = |e| self.repo.disk(e);
        let options = OpenOptions::new().create(true).truncate(false).read(true).append(true).clone();
        let mut file = options.open(&self.path).map_err(disk)?;
        let mut partial_digest = Sha256::new();
        let mut buffer = vec![0; 1 << 16];
        let mut len = 0;
        loop {
            match file.read(&mut buffer).map_err(disk)? {
                0 => break,
                n => {
                    partial_digest.update(&buffer[..n]);
                    len += n as u64;
                }
            }
        }
        let mut partial = Partial { file, len, digest: partial_digest, resumed: len > 0 };
        if self.metadata.size.is_some_and(|size| len > size) {
            self.restart(&mut partial)?;
        }
        Ok(partial)
    }

    fn restart(&self, partial: &mut Partial) -> Result<(), HubErrorKind> {
        partial.file.set_len(0).map_err(|e| self.repo.disk(e))?;
        (partial.len, partial.digest, partial.resumed) = (0, Sha256::new(), false);
        Ok(())
    }

    /// Asks for the rest and writes it down as far as it comes.
    fn append(&mut self, partial: &mut Partial) -> Result<(), HubErrorKind> {
        if partial.len > 0 && self.metadata.size == Some(partial.len) {
            return Ok(());
        }
        let answer = self.request_rest(partial)?;
        let rest = text(&answer, &CONTENT_LENGTH).and_then(|n| n.parse::<u64>().ok());
        let total = self.metadata.size.or(rest.map(|rest| partial.len.saturating_add(rest)));
        let mut body = answer.into_body().into_reader();
        let mut buffer = vec![0; 1 << 16];
        // More than announced is for `check` to refuse; reading on would only fill the disk.
        while total.is_none_or(|total| partial.len <= total) {
            (self.progress)(partial.len, total);
            let n = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(self.interrupted(partial, &e.to_string())),
            };
            partial.file.write_all(&buffer[..n]).map_err(|e| self.repo.disk(e))?;
            partial.digest.update(&buffer[..n]);
            partial.len += n as u64;
        }
        match total {
            Some(total) if partial.len < total => Err(self.interrupted(partial, "the connection was closed")),
            _ => Ok(()),
        }
    }

    /// The answer that goes on where `partial` ends; without ranges `partial` is emptied for the whole.
    fn request_rest(&self, partial: &mut Partial) -> Result<Response<Body>, HubErrorKind> {
        let answer = self.client.get(&self.metadata.commit, self.file, partial.len)?;
        let status = answer.status().as_u16();
        let begins = text(&answer, &CONTENT_RANGE).and_then(|range| range_start(&range));
        if partial.len == 0 || (status == 206 && begins == Some(partial.len)) {
            return Ok(answer);
        }
        self.restart(partial)?;
        if status == 200 { Ok(answer) } else { self.client.get(&self.metadata.commit, self.file, 0) }
    }

    fn check(&self, partial: &Partial) -> Result<(), HubErrorKind> {
        if let Some(size) = self.metadata.size.filter(|&size| size != partial.len) {
            return Err(HubErrorKind::Corrupt(format!("it has {} bytes instead of {size}", partial.len)));
        }
        let Some(expected) = self.metadata.sha256() else { return Ok(()) };
        let found: String = partial.digest.clone().finalize().iter().map(|b| format!("{b:02x}")).collect();
        if found.eq_ignore_ascii_case(expected) {
            return Ok(());
        }
        Err(HubErrorKind::Corrupt(format!("its SHA-256 is {found} instead of {expected}")))
    }

    fn interrupted(&self, partial: &Partial, cause: &str) -> HubErrorKind {
        HubErrorKind::Interrupted { done: partial.len, total: self.metadata.size, cause: cause.to_owned() }
    }
}

/// The first byte of `bytes <first>-<last>/<size>`.
fn range_start(range: &str) -> Option<u64> {
    range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}
