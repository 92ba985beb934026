//! What can go wrong between here and the hub. Every text ends with what to do.

use std::fmt;
use std::io;

/// A failure to get a file: which repository, at which address, and what.
#[derive(Debug)]
pub(crate) struct HubError {
    /// The repository's id, or the variable that is at fault.
    pub(crate) id: String,
    /// The address that was asked, or empty.
    pub(crate) url: String,
    /// What went wrong.
    pub(crate) kind: HubErrorKind,
}

/// The kinds of [`HubError`].
#[derive(Debug)]
#[non_exhaustive]
pub(crate) enum HubErrorKind {
    /// A variable, id, revision or file name is not usable.
    Invalid(String),
    /// Not cached, and the network must not be used.
    Offline(String),
    /// 401 or 403: no token, or one without access.
    Denied(u16),
    /// The repository, revision or file is not there.
    NotFound(String),
    /// Any other status than success.
    Status(u16),
    /// No connection, or it broke before an answer came.
    Network(String),
    /// The connection broke within the file.
    Interrupted { done: u64, total: Option<u64>, cause: String },
    /// The bytes are not those that the hub announced.
    Corrupt(String),
    /// The answer is not one of a Hugging Face hub.
    Reply(String),
    /// The cache folder cannot be written.
    Disk { folder: String, cause: io::Error },
}

impl HubErrorKind {
    pub(crate) fn at(self, id: &str, url: impl Into<String>) -> HubError {
        HubError { id: id.to_owned(), url: url.into(), kind: self }
    }

    /// Whether a cached copy is still good after this failure: the hub did not say that the file is gone.
    pub(crate) fn spares_cache(&self) -> bool {
        match self {
            Self::Denied(_) | Self::Status(_) | Self::Network(_) | Self::Interrupted { .. } => true,
            Self::Corrupt(_) | Self::Reply(_) | Self::Disk { .. } => true,
            Self::Invalid(_) | Self::Offline(_) | Self::NotFound(_) => false,
        }
    }
}

impl fmt::Display for HubErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(text) => f.write_str(text),
            Self::Offline(text) => write!(f, "{text}; unset HF_HUB_OFFLINE once to download it"),
            Self::Denied(status) => write!(
                f,
                "access denied (HTTP {status}); the repository is private, gated or absent: check its name, \
                 accept its terms on the web, and set HF_TOKEN to a token that may read it"
            ),
            Self::NotFound(text) => write!(f, "not found: {text}; check the id and the revision"),
            Self::Status(429) => {
                f.write_str("too many requests (HTTP 429); wait a few minutes or set HF_TOKEN")
            }
            Self::Status(status) if *status >= 500 => {
                write!(
                    f,
                    "the server failed (HTTP {status}); try again later, or set HF_ENDPOINT to a mirror"
                )
            }
            Self::Status(status) => write!(f, "unexpected answer (HTTP {status}); check HF_ENDPOINT"),
            Self::Network(cause) => write!(
                f,
                "no answer ({cause}); check the network and HF_ENDPOINT, or set HF_HUB_OFFLINE=1 to use only the cache"
            ),
            Self::Interrupted { done, total, cause } => {
                let total = total.map_or("an unknown size".to_owned(), |n| n.to_string());
                write!(
                    f,
                    "the download broke off after {done} of {total} bytes ({cause}); run again to go on from there"
                )
            }
            Self::Corrupt(text) => write!(f, "the download is corrupt: {text}; it was removed, run again"),
            Self::Reply(text) => write!(f, "not the answer of a Hugging Face hub: {text}; check HF_ENDPOINT"),
            Self::Disk { folder, cause } if cause.kind() == io::ErrorKind::StorageFull => {
                write!(f, "no space left in {folder}; free some, or set HF_HOME to a folder on another disk")
            }
            Self::Disk { folder, cause } => {
                write!(
                    f,
                    "cannot write the cache in {folder} ({cause}); set HF_HOME to a folder that you may write"
                )
            }
        }
    }
}

impl fmt::Display for HubError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.url.as_str() {
            "" => write!(f, "{}: {}", self.id, self.kind),
            url => write!(f, "{} ({url}): {}", self.id, self.kind),
        }
    }
}

impl std::error::Error for HubError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            HubErrorKind::Disk { cause, .. } => Some(cause),
            _ => None,
        }
    }
}
