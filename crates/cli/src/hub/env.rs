//! The environment variables of the Hugging Face libraries, with their order of precedence.

use super::error::{HubError, HubErrorKind};
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

const ENDPOINT: &str = "https://huggingface.co";
const TIMEOUT: Duration = Duration::from_secs(20);

/// What the variables come to.
pub(super) struct Settings {
    pub(super) cache: PathBuf,
    /// Scheme and host, without a slash at the end.
    pub(super) endpoint: String,
    pub(super) token: Option<String>,
    pub(super) offline: bool,
    /// Longest wait for a connection, an answer or the next bytes.
    pub(super) timeout: Duration,
}

struct Variables<'a>(&'a HashMap<String, OsString>);

impl Settings {
    pub(super) fn read(variables: &HashMap<String, OsString>) -> Result<Self, HubError> {
        let variables = Variables(variables);
        let home = variables.hugging_face_home()?;
        let cache = variables.path("HF_HUB_CACHE").or_else(|| variables.path("HUGGINGFACE_HUB_CACHE"));
        let timeout = variables.text("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|text| text.parse().ok());
        Ok(Self {
            cache: cache.unwrap_or_else(|| home.join("hub")),
            endpoint: variables.endpoint()?,
            token: variables.token(&home)?,
            offline: variables.is_true("HF_HUB_OFFLINE") || variables.is_true("TRANSFORMERS_OFFLINE"),
            timeout: timeout.filter(|&n| n > 0).map_or(TIMEOUT, Duration::from_secs),
        })
    }
}

impl Variables<'_> {
    /// A variable's value; an empty one counts as not set.
    fn get(&self, key: &str) -> Option<&OsString> {
        self.0.get(key).filter(|value| !value.is_empty())
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(|value| value.to_str()).map(str::trim)
    }

    fn is_true(&self, key: &str) -> bool {
        let value = self.text(key).unwrap_or_default().to_ascii_lowercase();
        matches!(value.as_str(), "1" | "true" | "yes" | "on")
    }

    /// A folder or file, with a leading `~` replaced.
    fn path(&self, key: &str) -> Option<PathBuf> {
        let path = PathBuf::from(self.get(key)?);
        match (path.strip_prefix("~"), self.user_home()) {
            (Ok(rest), Some(home)) => Some(home.join(rest)),
            _ => Some(path),
        }
    }

    fn user_home(&self) -> Option<PathBuf> {
        self.get("HOME").or_else(|| self.get("USERPROFILE")).map(PathBuf::from)
    }

    fn hugging_face_home(&self) -> Result<PathBuf, HubError> {
        let cache = || self.path("XDG_CACHE_HOME").or_else(|| Some(self.user_home()?.join(".cache")));
        let home = self.path("HF_HOME").or_else(|| Some(cache()?.join("huggingface")));
        home.ok_or_else(|| {
            invalid("HF_HOME", "there is no home folder to keep the cache in; set HF_HOME to a folder")
        })
    }

    fn endpoint(&self) -> Result<String, HubError> {
        let endpoint = self.text("HF_ENDPOINT").unwrap_or(ENDPOINT).trim_end_matches('/');
        if endpoint.starts_with("https://") || endpoint.starts_with("http://") {
            return Ok(endpoint.to_owned());
        }
        Err(invalid("HF_ENDPOINT", "it must begin with https:// or http://"))
    }

    fn token(&self, home: &std::path::Path) -> Result<Option<String>, HubError> {
        if self.is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            return Ok(None);
        }
        let variable = self.text("HF_TOKEN").or_else(|| self.text("HUGGING_FACE_HUB_TOKEN"));
        let file = self.path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        // A token file that is absent or unreadable is like none: most files need no token.
        let token = variable.map(str::to_owned).or_else(|| std::fs::read_to_string(file).ok());
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        match token {
            // The text must not show the token.
            Some(token) if !token.bytes().all(|b| b.is_ascii_graphic()) => {
                Err(invalid("HF_TOKEN", "the token has characters that no token has; copy it again"))
            }
            token => Ok(token),
        }
    }
}

fn invalid(variable: &str, text: &str) -> HubError {
    HubErrorKind::Invalid(text.to_owned()).at(variable, "")
}
