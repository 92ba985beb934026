//! The hub against a server of our own on loopback; the process environment is not touched.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod server;

use super::{Fetched, Hub, HubError, HubErrorKind};
use server::{Reply, Request, Server};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

const ID: &str = "timm/resnest14d.gluon_in1k";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const FILES: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

fn weights() -> Vec<u8> {
    (0..200_000u32).map(|i| (i % 251) as u8).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// A hub over a temporary cache, with more variables.
fn hub(endpoint: &str, cache: &Path, more: &[(&str, &str)]) -> Hub {
    let mut variables: HashMap<String, OsString> = [
        ("HF_ENDPOINT", endpoint.into()),
        ("HF_HOME", cache.into()),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "5".into()),
    ]
    .map(|(key, value): (&str, OsString)| (key.to_owned(), value))
    .into();
    variables.extend(more.iter().map(|(key, value)| ((*key).to_owned(), OsString::from(value))));
    Hub::from_map(&variables).unwrap()
}

fn fetch(hub: &Hub) -> Result<Fetched, HubError> {
    hub.locate(ID, "main", &FILES, &mut |_, _| {})
}

/// Answers as the hub does for a large file that is stored beside it, under the same origin.
fn large(request: &Request, file: &str, content: &[u8]) -> Reply {
    let at = |revision: &str| format!("/{ID}/resolve/{revision}/{file}");
    let digest = sha256(content);
    if request.path == at("main") || request.path == at(COMMIT) {
        return identity(302, &digest, content.len()).with("Location", format!("/storage/{digest}"));
    }
    match request.path.strip_prefix("/storage/") {
        Some(name) if name == digest => Reply::ranged(request, content).with("ETag", "\"of the storage\""),
        _ => Reply::status(404).with("X-Error-Code", "EntryNotFound"),
    }
}

fn identity(status: u16, etag: &str, size: usize) -> Reply {
    Reply::status(status)
        .with("X-Repo-Commit", COMMIT)
        .with("X-Linked-Etag", format!("\"{etag}\""))
        .with("X-Linked-Size", size.to_string())
}

fn repo(cache: &Path) -> PathBuf {
    cache.join("hub/models--timm--resnest14d.gluon_in1k")
}

fn blobs(cache: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(repo(cache).join("blobs")) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_download_has_the_layout_of_the_python_library() {
    let (cache, server) = (tempfile::tempdir().unwrap(), Server::start(|r| large(r, FILES[0], &weights())));
    let mut last = None;
    let hub = hub(&server.url, cache.path(), &[]);
    let found = hub.locate(ID, "main", &FILES, &mut |done, total| last = Some((done, total))).unwrap();

    let folder = repo(cache.path());
    assert_eq!(found.path, folder.join("snapshots").join(COMMIT).join("model.safetensors"));
    assert_eq!(found.warning, None);
    assert_eq!(fs::read(&found.path).unwrap(), weights());
    assert_eq!(fs::read_to_string(folder.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(blobs(cache.path()), [sha256(&weights())]);
    #[cfg(unix)]
    assert_eq!(fs::read_link(&found.path).unwrap(), Path::new("../../blobs").join(sha256(&weights())));
    assert_eq!(last, Some((200_000, Some(200_000))));
}

#[test]
fn a_second_fetch_asks_but_does_not_download() {
    let (cache, server) = (tempfile::tempdir().unwrap(), Server::start(|r| large(r, FILES[0], &weights())));
    let hub = hub(&server.url, cache.path(), &[]);
    let first = fetch(&hub).unwrap();
    let before = server.requests().len();
    assert_eq!(fetch(&hub).unwrap(), first);
    let lines = server.lines().split_off(before);
    assert!(!lines.is_empty() && lines.iter().all(|line| line.starts_with("HEAD ")), "{lines:?}");
}

#[test]
fn a_cached_commit_needs_no_network() {
    let (cache, server) = (tempfile::tempdir().unwrap(), Server::start(|r| large(r, FILES[0], &weights())));
    let hub = hub(&server.url, cache.path(), &[]);
    let first = hub.fetch(ID, COMMIT, &FILES, &mut |_, _| {}).unwrap();
    let before = server.requests().len();
    assert_eq!(hub.fetch(ID, COMMIT, &FILES, &mut |_, _| {}).unwrap(), first);
    assert_eq!(server.requests().len(), before);
}

#[test]
fn the_token_stays_with_the_hub() {
    let storage = Server::start(|request| Reply::ranged(request, &weights()));
    let elsewhere = format!("{}/blob", storage.url);
    let front = Server::start(move |request| {
        if request.path.starts_with("/moved") {
            return identity(302, &sha256(&weights()), 200_000).with("Location", &elsewhere);
        }
        Reply::status(307).with("Location", format!("/moved{}", request.path))
    });
    let cache = tempfile::tempdir().unwrap();
    fetch(&hub(&front.url, cache.path(), &[("HF_TOKEN", "hf_secret")])).unwrap();

    assert!(front.requests().iter().all(|r| r.header("authorization") == Some("Bearer hf_secret")));
    assert!(front.lines().iter().any(|line| line.starts_with("GET /moved")));
    assert_eq!(storage.lines(), ["GET /blob"], "the identity is known before the storage is asked");
    assert_eq!(storage.requests()[0].header("authorization"), None);

    let cache = tempfile::tempdir().unwrap();
    let before = front.requests().len();
    let silent = [("HF_TOKEN", "hf_secret"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")];
    fetch(&hub(&front.url, cache.path(), &silent)).unwrap();
    assert!(front.requests()[before..].iter().all(|r| r.header("authorization").is_none()));
}

#[test]
fn wrong_bytes_are_refused_and_removed() {
    let server = Server::start(|request| match request.method.as_str() {
        "HEAD" => identity(200, &sha256(&weights()), 200_000),
        _ => Reply::status(200).body(&vec![7; 200_000]),
    });
    let cache = tempfile::tempdir().unwrap();
    let error = fetch(&hub(&server.url, cache.path(), &[])).unwrap_err();
    assert!(matches!(error.kind, HubErrorKind::Corrupt(_)), "{error}");
    assert_eq!(blobs(cache.path()), [""; 0]);
    assert!(!repo(cache.path()).join("snapshots").exists());
}

#[test]
fn an_earlier_download_is_resumed() {
    let (cache, server) = (tempfile::tempdir().unwrap(), Server::start(|r| large(r, FILES[0], &weights())));
    let partial = repo(cache.path()).join("blobs").join(format!("{}.incomplete", sha256(&weights())));
    fs::create_dir_all(partial.parent().unwrap()).unwrap();
    fs::write(&partial, &weights()[..150_000]).unwrap();
    let found = fetch(&hub(&server.url, cache.path(), &[])).unwrap();
    assert_eq!(fs::read(found.path).unwrap(), weights());
    let ranges: Vec<_> = server.requests().iter().filter_map(Request::range_start).collect();
    assert!(!ranges.is_empty() && ranges.iter().all(|&start| start == 150_000), "{ranges:?}");
    assert_eq!(blobs(cache.path()), [sha256(&weights())]);
}

#[test]
fn a_spoilt_earlier_download_is_started_again() {
    for earlier in [vec![9; 150_000], vec![9; 200_000], vec![9; 300_000]] {
        let (cache, server) =
            (tempfile::tempdir().unwrap(), Server::start(|r| large(r, FILES[0], &weights())));
        let partial = repo(cache.path()).join("blobs").join(format!("{}.incomplete", sha256(&weights())));
        fs::create_dir_all(partial.parent().unwrap()).unwrap();
        fs::write(&partial, earlier).unwrap();
        let found = fetch(&hub(&server.url, cache.path(), &[])).unwrap();
        assert_eq!(fs::read(found.path).unwrap(), weights());
    }
}

#[test]
fn a_server_without_ranges_is_read_from_the_start() {
    let server = Server::start(|request| match request.method.as_str() {
        "HEAD" => identity(200, &sha256(&weights()), 200_000),
        _ => Reply::status(200).body(&weights()),
    });
    let cache = tempfile::tempdir().unwrap();
    let partial = repo(cache.path()).join("blobs").join(format!("{}.incomplete", sha256(&weights())));
    fs::create_dir_all(partial.parent().unwrap()).unwrap();
    fs::write(&partial, &weights()[..10]).unwrap();
    assert_eq!(fs::read(fetch(&hub(&server.url, cache.path(), &[])).unwrap().path).unwrap(), weights());
}

#[test]
fn a_broken_connection_is_taken_up_again() {
    let cuts = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        let reply = large(request, FILES[0], &weights());
        let first = request.path.starts_with("/storage") && cuts.fetch_add(1, Ordering::SeqCst) == 0;
        if first { reply.cut(70_000) } else { reply }
    });
    let cache = tempfile::tempdir().unwrap();
    assert_eq!(fs::read(fetch(&hub(&server.url, cache.path(), &[])).unwrap().path).unwrap(), weights());
}

#[test]
fn a_truncated_body_is_an_error_that_says_how_far_it_came() {
    let server = Server::start(|request| {
        let reply = large(request, FILES[0], &weights());
        let is_storage = request.path.starts_with("/storage");
        if is_storage { reply.cut(if request.range_start().is_none() { 70_000 } else { 0 }) } else { reply }
    });
    let cache = tempfile::tempdir().unwrap();
    let error = fetch(&hub(&server.url, cache.path(), &[])).unwrap_err();
    assert!(error.to_string().contains("after 70000 of 200000 bytes"), "{error}");
    assert_eq!(blobs(cache.path()), [format!("{}.incomplete", sha256(&weights()))]);
    assert!(!repo(cache.path()).join("snapshots").exists());
}

#[test]
fn offline_opens_no_socket() {
    let (cache, server) = (tempfile::tempdir().unwrap(), Server::start(|r| large(r, FILES[0], &weights())));
    let first = fetch(&hub(&server.url, cache.path(), &[])).unwrap();
    let before = server.requests().len();
    for value in ["1", "true", "YES", "on"] {
        assert_eq!(fetch(&hub(&server.url, cache.path(), &[("HF_HUB_OFFLINE", value)])).unwrap(), first);
    }
    let empty = tempfile::tempdir().unwrap();
    let error = fetch(&hub(&server.url, empty.path(), &[("HF_HUB_OFFLINE", "1")])).unwrap_err();
    assert!(matches!(error.kind, HubErrorKind::Offline(_)), "{error}");
    assert!(error.to_string().contains("model.safetensors or pytorch_model.bin is not in"), "{error}");
    assert_eq!(server.requests().len(), before);
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
}

#[test]
fn the_second_name_is_tried_after_a_404() {
    let (cache, server) = (tempfile::tempdir().unwrap(), Server::start(|r| large(r, FILES[1], &weights())));
    let hub = hub(&server.url, cache.path(), &[]);
    assert!(fetch(&hub).unwrap().path.ends_with("pytorch_model.bin"));
    assert_eq!(
        hub.fetch(ID, "main", &["config.json"], &mut |_, _| {})
            .unwrap_err()
            .to_string()
            .matches("config.json")
            .count(),
        2
    );
}

#[test]
fn a_small_file_is_checked_by_its_size() {
    let config = br#"{"architecture": "resnest14d"}"#;
    let serve = |length: usize| {
        move |request: &Request| {
            let reply =
                Reply::status(200).with("X-Repo-Commit", COMMIT).with("ETag", "W/\"a94a8fe5ccb19ba6\"");
            if request.method == "HEAD" {
                reply.with("Content-Length", length.to_string())
            } else {
                reply.body(config)
            }
        }
    };
    let (cache, good) = (tempfile::tempdir().unwrap(), Server::start(serve(config.len())));
    let found =
        hub(&good.url, cache.path(), &[]).fetch(ID, "main", &["config.json"], &mut |_, _| {}).unwrap();
    assert_eq!(fs::read(found).unwrap(), config);
    assert_eq!(blobs(cache.path()), ["a94a8fe5ccb19ba6"]);

    let (cache, short) = (tempfile::tempdir().unwrap(), Server::start(serve(config.len() - 1)));
    let error =
        hub(&short.url, cache.path(), &[]).fetch(ID, "main", &["config.json"], &mut |_, _| {}).unwrap_err();
    assert!(matches!(error.kind, HubErrorKind::Corrupt(_)), "{error}");
    assert_eq!(blobs(cache.path()), [""; 0]);
}

#[test]
fn refusals_say_what_to_do() {
    let cases = [
        (401, "", "set HF_TOKEN"),
        (403, "", "accept its terms"),
        (404, "RepoNotFound", "no such repository"),
        (404, "RevisionNotFound", "no such revision"),
        (429, "", "too many requests"),
        (503, "", "try again later"),
    ];
    for (status, code, advice) in cases {
        let server = Server::start(move |_| Reply::status(status).with("X-Error-Code", code));
        let cache = tempfile::tempdir().unwrap();
        let error = fetch(&hub(&server.url, cache.path(), &[])).unwrap_err().to_string();
        assert!(error.contains(advice) && error.contains(ID) && error.contains(&server.url), "{error}");
        assert_eq!(error.lines().count(), 1);
    }
}

#[test]
fn a_failure_spares_the_cached_copy() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|r| large(r, FILES[0], &weights()));
    let first = fetch(&hub(&server.url, cache.path(), &[])).unwrap();
    let (failing, refusing) = (Server::start(|_| Reply::status(500)), closed_port());
    for endpoint in [failing.url.as_str(), refusing.as_str()] {
        let found = fetch(&hub(endpoint, cache.path(), &[])).unwrap();
        assert_eq!(found.path, first.path);
        assert!(found.warning.unwrap().ends_with("using the cached copy"));
    }
    let error = fetch(&hub(&refusing, tempfile::tempdir().unwrap().path(), &[])).unwrap_err();
    assert!(matches!(error.kind, HubErrorKind::Network(_)), "{error}");
}

/// An address where nobody listens.
fn closed_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn a_silent_server_times_out() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let cache = tempfile::tempdir().unwrap();
    let error = fetch(&hub(&url, cache.path(), &[("HF_HUB_DOWNLOAD_TIMEOUT", "1")])).unwrap_err();
    assert!(error.to_string().contains("timed out"), "{error}");
}

#[test]
fn a_server_cannot_choose_paths_in_the_cache() {
    for (etag, commit) in
        [("../../../x", COMMIT), ("..", COMMIT), (".hidden", COMMIT), ("a", "../../x"), ("a", "")]
    {
        let server =
            Server::start(move |_| Reply::status(200).with("ETag", etag).with("X-Repo-Commit", commit));
        let cache = tempfile::tempdir().unwrap();
        let error = fetch(&hub(&server.url, cache.path(), &[])).unwrap_err();
        assert!(matches!(error.kind, HubErrorKind::Reply(_)), "{etag} {commit}: {error}");
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
    }
    let server = Server::start(|request| Reply::status(302).with("Location", &request.path));
    let error = fetch(&hub(&server.url, tempfile::tempdir().unwrap().path(), &[])).unwrap_err();
    assert!(error.to_string().contains("without end"), "{error}");
}

#[test]
fn names_that_are_no_names_are_refused_before_anything_is_asked() {
    let hub = hub("http://127.0.0.1:1", Path::new("/nonexistent"), &[]);
    for (id, revision, file) in [
        ("", "main", "x"),
        ("a/b/c", "main", "x"),
        ("../x", "main", "x"),
        ("a--b/c", "main", "x"),
        ("a/b", "../main", "x"),
        ("a/b", "main", "../../x"),
        ("a/b", "main", "/etc/passwd"),
        ("a/b", "main?x=1", "x"),
    ] {
        let error = hub.fetch(id, revision, &[file], &mut |_, _| {}).unwrap_err();
        assert!(matches!(error.kind, HubErrorKind::Invalid(_)), "{id} {revision} {file}: {error}");
    }
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let server = Server::start(|r| large(r, FILES[0], &weights()));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = fetch(&hub(&server.url, &file, &[])).unwrap_err();
    assert!(matches!(error.kind, HubErrorKind::Disk { .. }), "{error}");
    assert!(error.to_string().contains("set HF_HOME"), "{error}");
}

#[test]
fn two_downloads_at_once_share_one_blob() {
    let (cache, server) = (tempfile::tempdir().unwrap(), Server::start(|r| large(r, FILES[0], &weights())));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let found = fetch(&hub(&server.url, cache.path(), &[])).unwrap();
                assert_eq!(fs::read(found.path).unwrap(), weights());
            });
        }
    });
    assert_eq!(server.lines().iter().filter(|line| line.starts_with("GET /storage")).count(), 1);
    assert_eq!(blobs(cache.path()), [sha256(&weights())]);
}

#[test]
fn variables_have_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().display().to_string();
    fs::create_dir_all(folder.path().join(".cache/huggingface")).unwrap();
    fs::write(folder.path().join(".cache/huggingface/token"), "hf_of_home\n").unwrap();
    fs::write(folder.path().join("other"), "hf_of_path").unwrap();
    let settings = |more: &[(&str, &str)]| {
        let all = [("HOME", home.as_str())].into_iter().chain(more.iter().copied());
        let all = all.map(|(key, value)| (key.to_owned(), OsString::from(value))).collect();
        super::env::Settings::read(&all)
    };
    let cache = |more: &[(&str, &str)]| settings(more).unwrap().cache;
    let token = |more: &[(&str, &str)]| settings(more).unwrap().token;
    let path = format!("{home}/other");

    assert_eq!(cache(&[]), folder.path().join(".cache/huggingface/hub"));
    assert_eq!(cache(&[("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
    assert_eq!(cache(&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "~/h")]), folder.path().join("h/hub"));
    assert_eq!(cache(&[("HF_HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "/old")]), Path::new("/old"));
    assert_eq!(cache(&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "/new")]), Path::new("/new"));
    assert_eq!(token(&[]).as_deref(), Some("hf_of_home"));
    assert_eq!(token(&[("HF_TOKEN_PATH", &path)]).as_deref(), Some("hf_of_path"));
    assert_eq!(token(&[("HF_TOKEN_PATH", &path), ("HF_TOKEN", "hf_env")]).as_deref(), Some("hf_env"));
    assert_eq!(token(&[("HF_TOKEN", "hf_env"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
    assert!(!settings(&[("HF_HUB_OFFLINE", "0")]).unwrap().offline);
    assert!(settings(&[("HF_ENDPOINT", "ftp://x")]).is_err());
    let error = settings(&[("HF_TOKEN", "hf secret")]).map(|_| ()).unwrap_err().to_string();
    assert!(!error.contains("secret"), "{error}");
    assert!(Hub::from_map(&HashMap::new()).is_err(), "there is no home folder");
}
