//! Weights from the Hugging Face hub, in the cache that its Python library uses.
//!
//! [`Hub::fetch`] asks the hub for a file's identity (commit, etag, size), downloads it to
//! `blobs/<etag>.incomplete`, checks it, renames it to `blobs/<etag>`, and links it at
//! `snapshots/<commit>/<file>`. A name in the cache is therefore always a whole file, and both libraries
//! find what the other one fetched. Offline, no socket is opened.

mod cache;
mod download;
mod env;
mod error;
mod http;
#[cfg(test)]
mod tests;

pub(crate) use error::{HubError, HubErrorKind};

use cache::Repo;
use env::Settings;
use http::{Client, Metadata};
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// Access to the hub and its cache, as the environment sets them up.
pub(crate) struct Hub {
    settings: Settings,
}

/// Bytes there (those of an earlier attempt included), and bytes in all if the hub said.
type Progress<'a> = &'a mut dyn FnMut(u64, Option<u64>);

/// A file in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fetched {
    path: PathBuf,
    /// Why the cached copy was taken without asking the hub, if it was so for a failure.
    warning: Option<String>,
}

impl Hub {
    /// Reads the variables of the Python library: `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`, `HF_TOKEN_PATH`,
    /// `HF_ENDPOINT`, `HF_HUB_OFFLINE`, `HF_HUB_DISABLE_IMPLICIT_TOKEN`, `HF_HUB_DOWNLOAD_TIMEOUT`.
    pub(crate) fn from_env() -> Result<Self, HubError> {
        let text_key = |(key, value): (OsString, OsString)| Some((key.into_string().ok()?, value));
        Self::from_map(&std::env::vars_os().filter_map(text_key).collect())
    }

    /// As [`Hub::from_env`], from the variables given.
    pub(crate) fn from_map(variables: &HashMap<String, OsString>) -> Result<Self, HubError> {
        Ok(Self { settings: Settings::read(variables)? })
    }

    /// The path of the first of `files` that the repository has, from the cache or the hub.
    ///
    /// `id` is `organisation/name`, `revision` a branch, tag or commit (`main`). When the hub cannot be
    /// reached or refuses, a cached copy is taken and a warning logged. `progress` is called during
    /// downloads only.
    pub(crate) fn fetch(
        &self,
        id: &str,
        revision: &str,
        files: &[&str],
        progress: Progress<'_>,
    ) -> Result<PathBuf, HubError> {
        let fetched = self.locate(id, revision, files, progress)?;
        if let Some(warning) = fetched.warning {
            tracing::warn!("{warning}");
        }
        Ok(fetched.path)
    }

    fn locate(
        &self,
        id: &str,
        revision: &str,
        files: &[&str],
        progress: Progress<'_>,
    ) -> Result<Fetched, HubError> {
        let repo = Repo::new(&self.settings.cache, id, revision, files)?;
        let cached = repo.find(files);
        if self.settings.offline {
            return cached.ok_or_else(|| self.offline(&repo, files));
        }
        if let (true, Some(cached)) = (repo.is_commit(), &cached) {
            return Ok(cached.clone()); // a commit's files never change
        }
        match (self.ask(&repo, files, progress), cached) {
            (Err(error), Some(mut cached)) if error.kind.spares_cache() => {
                cached.warning = Some(format!("{error}; using the cached copy"));
                Ok(cached)
            }
            (result, _) => result,
        }
    }

    fn ask(&self, repo: &Repo, files: &[&str], progress: Progress<'_>) -> Result<Fetched, HubError> {
        let client = Client::new(&self.settings, repo);
        for file in files {
            if let Some(metadata) = client.metadata(file)? {
                let path = self.obtain(repo, &client, file, &metadata, progress)?;
                return Ok(Fetched { path, warning: None });
            }
        }
        let url = client.url(files.first().unwrap_or(&""));
        Err(HubErrorKind::NotFound(format!("revision '{}' has no {}", repo.revision, files.join(" or ")))
            .at(repo.id, url))
    }

    fn obtain(
        &self,
        repo: &Repo,
        client: &Client<'_>,
        file: &str,
        metadata: &Metadata,
        progress: Progress<'_>,
    ) -> Result<PathBuf, HubError> {
        let url = client.url(file);
        let at = |kind: HubErrorKind| kind.at(repo.id, url.clone());
        if !repo.has_blob(metadata) {
            let lock = repo.lock(&metadata.etag).map_err(at)?;
            // Another process may have finished it while this one waited for the lock.
            if !repo.has_blob(metadata) {
                download::run(repo, client, file, metadata, &lock, progress)?;
            }
        }
        repo.publish(file, metadata).map_err(at)
    }

    fn offline(&self, repo: &Repo, files: &[&str]) -> HubError {
        let folder = self.settings.cache.display();
        let text = format!("HF_HUB_OFFLINE is set and {} is not in {folder}", files.join(" or "));
        HubErrorKind::Offline(text).at(repo.id, format!("{}/{}", self.settings.endpoint, repo.id))
    }
}
