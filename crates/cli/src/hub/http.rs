//! The hub's routes: `HEAD` and `GET {endpoint}/{id}/resolve/{revision}/{file}`.
//!
//! Redirects are followed by hand, for two reasons: the token must not leave the hub's own host, and the
//! facts about a large file stand in the answer that redirects to its storage, not in the storage's answer.

use super::cache::{Repo, is_plain};
use super::env::Settings;
use super::error::{HubError, HubErrorKind};
use ureq::http::header::{AUTHORIZATION, CONTENT_LENGTH, ETAG, LOCATION, RANGE};
use ureq::http::{HeaderName, Response, Uri};
use ureq::{Agent, Body};

const MAX_REDIRECTS: usize = 5;
const USER_AGENT: &str = concat!("cardinal/", env!("CARGO_PKG_VERSION"));

/// A file's identity on the hub.
#[derive(Debug)]
pub(super) struct Metadata {
    pub(super) commit: String,
    /// Name of the blob; for large files the SHA-256 of the content.
    pub(super) etag: String,
    pub(super) size: Option<u64>,
}

impl Metadata {
    pub(super) fn sha256(&self) -> Option<&str> {
        let is_digest = self.etag.len() == 64 && self.etag.bytes().all(|b| b.is_ascii_hexdigit());
        is_digest.then_some(self.etag.as_str())
    }
}

/// A connection to the hub for one repository.
pub(super) struct Client<'a> {
    agent: Agent,
    settings: &'a Settings,
    repo: &'a Repo<'a>,
}

impl<'a> Client<'a> {
    pub(super) fn new(settings: &'a Settings, repo: &'a Repo<'a>) -> Self {
        let timeout = Some(settings.timeout);
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(timeout)
            .timeout_connect(timeout)
            .timeout_recv_response(timeout)
            .timeout_per_read(timeout)
            .user_agent(USER_AGENT)
            .accept_encoding("identity");
        if is_loopback(&settings.endpoint) {
            config = config.proxy(None); // a proxy would look for the endpoint on its own machine
        }
        Self { agent: config.build().new_agent(), settings, repo }
    }

    /// The address of a file.
    pub(super) fn url(&self, file: &str) -> String {
        self.url_at(self.repo.revision, file)
    }

    fn url_at(&self, revision: &str, file: &str) -> String {
        let revision = revision.replace('/', "%2F");
        format!("{}/{}/resolve/{revision}/{file}", self.settings.endpoint, self.repo.id)
    }

    /// A file's identity, or `None` if the repository does not have it.
    pub(super) fn metadata(&self, file: &str) -> Result<Option<Metadata>, HubError> {
        let url = self.url(file);
        self.head(&url).map_err(|kind| kind.at(self.repo.id, url))
    }

    fn head(&self, url: &str) -> Result<Option<Metadata>, HubErrorKind> {
        let mut facts = Facts::default();
        let mut url = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.send(&url, true, None)?;
            facts.add(&answer);
            match answer.status().as_u16() {
                200..=299 => return facts.metadata(&answer).map(Some),
                404 => return facts.absent(),
                300..=399 => {
                    let next = redirect(&url, &answer)?;
                    if !self.is_ours(&next) {
                        return facts.metadata(&answer).map(Some);
                    }
                    url = next;
                }
                status => return Err(refusal(status)),
            }
        }
        Err(HubErrorKind::Reply("it redirects without end".to_owned()))
    }

    /// Opens a file of a commit for reading, from byte `start`.
    pub(super) fn get(&self, commit: &str, file: &str, start: u64) -> Result<Response<Body>, HubErrorKind> {
        let mut url = self.url_at(commit, file);
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.send(&url, false, Some(start).filter(|&n| n > 0))?;
            match answer.status().as_u16() {
                200..=299 => return Ok(answer),
                416 if start > 0 => return Ok(answer),
                300..=399 => url = redirect(&url, &answer)?,
                404 => return Err(HubErrorKind::NotFound(format!("commit {commit} has no {file}"))),
                status => return Err(refusal(status)),
            }
        }
        Err(HubErrorKind::Reply("it redirects without end".to_owned()))
    }

    fn send(&self, url: &str, head: bool, start: Option<u64>) -> Result<Response<Body>, HubErrorKind> {
        let mut request = if head { self.agent.head(url) } else { self.agent.get(url) };
        if let (Some(token), true) = (&self.settings.token, self.is_ours(url)) {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(start) = start {
            request = request.header(RANGE, format!("bytes={start}-"));
        }
        request.call().map_err(|error| HubErrorKind::Network(describe(&error)))
    }

    /// Whether an address is the endpoint's: same scheme, host and port.
    fn is_ours(&self, url: &str) -> bool {
        origin(url).is_some_and(|ours| Some(ours) == origin(&self.settings.endpoint))
    }
}

/// What the answers on the way to a file said; the first to say something counts.
#[derive(Default)]
struct Facts {
    commit: Option<String>,
    linked_etag: Option<String>,
    linked_size: Option<u64>,
    error_code: Option<String>,
}

impl Facts {
    fn add(&mut self, answer: &Response<Body>) {
        let named = |name: &'static str| text(answer, &HeaderName::from_static(name));
        self.commit = self.commit.take().or_else(|| named("x-repo-commit"));
        self.linked_etag = self.linked_etag.take().or_else(|| named("x-linked-etag"));
        self.linked_size = self.linked_size.or_else(|| named("x-linked-size")?.parse().ok());
        self.error_code = self.error_code.take().or_else(|| named("x-error-code"));
    }

    fn metadata(self, last: &Response<Body>) -> Result<Metadata, HubErrorKind> {
        let reply = |lack: &str| HubErrorKind::Reply(format!("it has no usable {lack}"));
        let etag = self.linked_etag.or_else(|| text(last, &ETAG));
        let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned());
        // A redirect's length is that of its own body.
        let length = || text(last, &CONTENT_LENGTH).filter(|_| last.status().is_success())?.parse().ok();
        Ok(Metadata {
            commit: self.commit.filter(|commit| is_plain(commit)).ok_or_else(|| reply("X-Repo-Commit"))?,
            etag: etag.filter(|etag| is_plain(etag)).ok_or_else(|| reply("ETag"))?,
            size: self.linked_size.or_else(length),
        })
    }

    /// A 404 can mean the file, which is no failure, or the whole repository or revision.
    fn absent(self) -> Result<Option<Metadata>, HubErrorKind> {
        match self.error_code.as_deref() {
            Some("RepoNotFound") => Err(HubErrorKind::NotFound("there is no such repository".to_owned())),
            Some("RevisionNotFound") => Err(HubErrorKind::NotFound("there is no such revision".to_owned())),
            _ => Ok(None),
        }
    }
}

fn refusal(status: u16) -> HubErrorKind {
    match status {
        401 | 403 => HubErrorKind::Denied(status),
        status => HubErrorKind::Status(status),
    }
}

pub(super) fn text(answer: &Response<Body>, name: &HeaderName) -> Option<String> {
    answer.headers().get(name)?.to_str().ok().map(str::to_owned)
}

/// The address that an answer redirects to; it may be relative.
fn redirect(url: &str, answer: &Response<Body>) -> Result<String, HubErrorKind> {
    let location = text(answer, &LOCATION).unwrap_or_default();
    if location.starts_with("https://") || location.starts_with("http://") {
        return Ok(location);
    }
    match origin(url) {
        Some((scheme, host)) if location.starts_with("//") && !host.is_empty() => {
            Ok(format!("{scheme}:{location}"))
        }
        Some((scheme, host)) if location.starts_with('/') => Ok(format!("{scheme}://{host}{location}")),
        _ => Err(HubErrorKind::Reply(format!("it redirects to '{location}'"))),
    }
}

/// Scheme, and host with port.
fn origin(url: &str) -> Option<(String, String)> {
    let uri: Uri = url.parse().ok()?;
    let host = uri.host()?.to_ascii_lowercase();
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let port = uri.port_u16().map_or(String::new(), |port| format!(":{port}"));
    Some((scheme, host + &port))
}

fn is_loopback(url: &str) -> bool {
    let host = url.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default();
    host == "localhost" || host == "[::1]" || host.starts_with("127.")
}

/// The cause in few words, without the address, which the error shows anyway.
fn describe(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(cause) => cause.to_string(),
        ureq::Error::Timeout(_) => "timed out".to_owned(),
        ureq::Error::HostNotFound => "host not found".to_owned(),
        other => other.to_string(),
    }
}
