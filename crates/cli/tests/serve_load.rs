//! `serve` under load: nothing lost at the end or at a reload, nothing wrong whatever is sent beside.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use support::asset;
use support::http::{Client, Reply, Server, compile};

fn class(reply: &Reply) -> u64 {
    reply.json()["predictions"][0]["class"].as_u64().unwrap()
}

fn start(file: &Path, more: &[&str]) -> Server {
    Server::start(&[&["--model", file.to_str().unwrap()], more].concat())
}

fn chelsea() -> Vec<u8> {
    std::fs::read(asset("chelsea.jpg")).unwrap()
}

fn until(what: &dyn Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_end_loses_no_request() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tiny.safetensors");
    compile("resnet18", "64", &file);
    let image = chelsea();
    for round in 0..3 {
        let mut server = start(&file, &[]);
        let (address, expected) =
            (server.address, class(&server.post("/predictions/tiny", "image/jpeg", &image)));
        let (answered, over) = (AtomicUsize::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    // Kept connections, and a new one when the server closes one.
                    while let Ok(mut client) = Client::try_new(address) {
                        loop {
                            match client.ask("POST", "/predictions/tiny", &[], &image) {
                                Ok(reply) => {
                                    assert_eq!(class(&reply), expected);
                                    answered.fetch_add(1, Relaxed);
                                    if reply.headers.get("connection").is_some_and(|value| value == "close") {
                                        break;
                                    }
                                }
                                // A connection that the system took after the server let go of the port.
                                Err(error) if over.load(Relaxed) => {
                                    let kind = error.kind();
                                    let refused =
                                        [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&kind);
                                    assert!(refused, "round {round}: {error}");
                                    return;
                                }
                                Err(error) => panic!("round {round}: a request was lost: {error}"),
                            }
                        }
                    }
                });
            }
            until(&|| answered.load(Relaxed) > 100);
            server.terminate();
            std::thread::sleep(Duration::from_millis(200));
            over.store(true, Relaxed);
            assert_eq!(server.wait().code(), Some(0));
        });
        let log = server.log.lock().unwrap();
        let lines = log.iter().map(|line| serde_json::from_str::<Value>(&line).unwrap());
        let logged = lines.filter(|line| line["status"] == 200).count();
        assert_eq!(logged, answered.load(Relaxed) + 1, "every answer is in the log");
        assert!(logged > 20, "{logged}");
    }
}

#[test]
fn a_long_request_is_answered_after_the_signal() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tiny.safetensors");
    compile("resnet18", "64", &file);
    let mut server = start(&file, &["--batch-delay-ms", "5000"]);
    let address = server.address;
    std::thread::scope(|scope| {
        let waiting =
            scope.spawn(move || Client::new(address).ask("POST", "/predictions/tiny", &[], &chelsea()));
        server.reaches("nv_inference_pending_request_count", 1.0);
        let mut kept = server.connect();
        assert_eq!(kept.ask("GET", "/v2/health/ready", &[], &[]).unwrap().status, 200);
        server.terminate();
        std::thread::sleep(Duration::from_millis(100));
        let ready = kept.ask("GET", "/v2/health/ready", &[], &[]).unwrap();
        assert_eq!((ready.status, ready.headers["connection"].as_str()), (503, "close"));
        assert!(Client::try_new(address).is_err(), "nothing new is taken");
        assert_eq!(waiting.join().unwrap().unwrap().status, 200);
    });
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_changed_file_is_taken_without_losing_a_request() {
    let folder = tempfile::tempdir().unwrap();
    let (file, other) = (folder.path().join("tiny.safetensors"), folder.path().join("other"));
    compile("resnet18", "64", &file);
    compile("resnet18d", "64", &other);
    let server = start(&file, &[]);
    let image = chelsea();
    let over = AtomicBool::new(false);
    let answered = AtomicUsize::new(0);
    let ask = || server.post("/predictions/tiny", "image/jpeg", &image).json();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = server.connect();
                    let mut last = 0;
                    while !over.load(Relaxed) {
                        let reply = client.ask("POST", "/predictions/tiny", &[], &image).unwrap().json();
                        let version = reply["version"].as_u64().unwrap();
                        assert!(version >= last, "back from {last} to {version}");
                        last = version;
                        answered.fetch_add(1, Relaxed);
                    }
                })
            })
            .collect();
        // A new network takes over, in place and by renaming.
        std::fs::copy(&other, &file).unwrap();
        until(&|| ask()["version"] == 2);
        assert_eq!(server.get("/models").json()["models"][0]["architecture"], "resnet18d");
        // A broken one does not.
        let bytes = std::fs::read(&other).unwrap();
        std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
        server.reaches("cardinal_model_failed_reloads_total", 1.0);
        assert_eq!(ask()["version"], 2);
        // Nor does one that is gone; the next good one does.
        std::fs::remove_file(&file).unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        assert_eq!(ask()["version"], 2);
        std::fs::rename(&other, &file).unwrap();
        until(&|| ask()["version"] == 3);
        until(&|| answered.load(Relaxed) > 100);
        over.store(true, Relaxed);
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
    assert!(answered.load(Relaxed) > 50);
    assert_eq!(server.metric("nv_inference_request_failure"), 0.0);
    let said: Vec<_> = server.errors.lock().unwrap().try_iter().collect();
    assert!(
        said.iter().any(|line| line.contains("the changed file is not used, version 2 stays")),
        "{said:?}"
    );
}

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) % end.max(1) as u64) as usize
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.below(256) as u8).collect()
    }

    /// Some of the bytes changed, or the end cut off.
    fn damage(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        if self.below(3) == 0 {
            bytes.truncate(self.below(bytes.len()));
        }
        for _ in 0..=self.below(8) {
            if !bytes.is_empty() {
                let at = self.below(bytes.len());
                bytes[at] = self.below(256) as u8;
            }
        }
        bytes
    }
}

/// A request that is wrong in one of many ways (rarely it is right by chance), and whether its length is right.
fn wrong(dice: &mut Dice, pictures: &[Vec<u8>]) -> (Vec<u8>, bool) {
    let infer =
        br#"{"id":"a","inputs":[{"name":"input","shape":[1,3,64,64],"datatype":"FP32","data":[0.5,[1,2]]}],
        "outputs":[{"name":"logits","parameters":{"classification":3,"binary_data":true}}]}"#;
    let form =
        b"--b\r\nContent-Disposition: form-data; name=\"image\"; filename=\"x\"\r\n\r\nxyz\r\n--b--\r\n";
    let path = [
        "/predictions/tiny",
        "/explain/tiny?class=7",
        "/v2/models/tiny/infer",
        "/predictions/%ff",
        "/v2/models/tiny",
    ];
    let kinds = [
        "image/jpeg",
        "application/json",
        "multipart/form-data; boundary=b",
        "multipart/form-data; boundary=\"",
        "text/\u{7f}",
    ];
    let picture = dice.below(pictures.len());
    let body = match dice.below(7) {
        0 => {
            let length = dice.below(2000);
            dice.bytes(length)
        }
        1 | 2 => dice.damage(&pictures[picture]),
        3 => dice.damage(infer),
        4 => dice.damage(form),
        5 => dice.damage(b"{\"image\":\"aGVsbG8gd29ybGQ=\"}"),
        _ => "[".repeat(dice.below(3000)).into_bytes(),
    };
    let length = if dice.below(8) == 0 { dice.below(1 << 20) } else { body.len() };
    let mut head = format!(
        "POST {} HTTP/1.1\r\nhost: x\r\ncontent-type: {}\r\ncontent-length: {length}\r\nconnection: close\r\n",
        path[dice.below(path.len())],
        kinds[dice.below(kinds.len())],
    );
    if dice.below(4) == 0 {
        head += &format!("inference-header-content-length: {}\r\n", dice.below(400));
    }
    let mut head = (head + "\r\n").into_bytes();
    let mut whole = length == body.len();
    if dice.below(4) == 0 {
        head = dice.damage(&head);
        whole = false;
    }
    ([head, body].concat(), whole)
}

#[test]
fn malformed_requests_and_dropped_connections_harm_nobody() {
    const MALFORMED: usize = 10_000;
    const DROPPED: usize = 1000;
    const GOOD: usize = 120;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tiny.safetensors");
    compile("resnet18", "64", &file);
    let server = start(&file, &["--timeout", "5"]);
    let image = chelsea();
    let expected = server.post("/predictions/tiny", "image/jpeg", &image).json()["predictions"].clone();
    let pictures: Vec<_> = std::fs::read_dir(support::root().join("fixtures/augment"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.metadata().unwrap().len() < 20_000)
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    assert!(pictures.len() > 5);
    let [good, refused, server_errors] = [const { AtomicUsize::new(0) }; 3];
    let over = AtomicBool::new(false);
    let mut memory = Vec::new();
    std::thread::scope(|scope| {
        let honest = scope.spawn(|| {
            let mut client = server.connect();
            while !over.load(Relaxed) {
                let reply = client.ask("POST", "/predictions/tiny", &[], &image).unwrap();
                assert_eq!(reply.json()["predictions"], expected);
                good.fetch_add(1, Relaxed);
                std::thread::sleep(Duration::from_millis(3));
            }
        });
        for quarter in 0..4 {
            let attack = |seed, share| {
                let mut dice = Dice(seed);
                let (begun, mut sent) = (Instant::now(), 0);
                // However fast the machine refuses, the attack lasts until the honest client had its share.
                let lasts = || good.load(Relaxed) < share && begun.elapsed() < Duration::from_secs(60);
                while sent < MALFORMED / 16 || lasts() {
                    sent += 1;
                    let (request, whole) = wrong(&mut dice, &pictures);
                    let mut client = Client::new(server.address);
                    // It may answer and close before it has read everything.
                    let _ = client.send(&request);
                    if !whole {
                        client.finish();
                    }
                    if let Ok(reply) = client.read() {
                        refused.fetch_add(usize::from((400..500).contains(&reply.status)), Relaxed);
                        server_errors
                            .fetch_add(usize::from(reply.status >= 500 && reply.status != 503), Relaxed);
                    }
                }
                for _ in 0..DROPPED.div_ceil(16) {
                    let mut client = Client::new(server.address);
                    let head = format!(
                        "POST /predictions/tiny HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
                        image.len()
                    );
                    let request = [head.as_bytes(), &image].concat();
                    // Gone in the middle of the head, of the body, or before the answer.
                    let end = if dice.below(2) == 0 { request.len() } else { dice.below(request.len()) };
                    let _ = client.send(&request[..end]);
                }
            };
            let share = GOOD * (quarter + 1) / 4;
            let attackers: Vec<_> =
                (0..4).map(|i| scope.spawn(move || attack((4 * quarter + i) as u64, share))).collect();
            attackers.into_iter().for_each(|attacker| attacker.join().unwrap());
            memory.push(server.metric("process_resident_memory_bytes") / 1048576.0);
        }
        over.store(true, Relaxed);
        honest.join().unwrap();
    });
    assert!(good.load(Relaxed) > 100, "{}", good.load(Relaxed));
    assert_eq!(server_errors.load(Relaxed), 0, "wrong requests are not the server's failures");
    assert!(refused.load(Relaxed) > MALFORMED / 2, "{refused:?}");
    // The first quarter fills caches; after that nothing may grow.
    assert!(memory[3] - memory[0] < 16.0, "{memory:?} MiB");
    let start = Instant::now();
    while server.metric("cardinal_inflight_images") > 0.0 {
        assert!(start.elapsed() < Duration::from_secs(10), "slots were lost");
    }
    assert_eq!(server.post("/predictions/tiny", "image/jpeg", &image).json()["predictions"], expected);
    eprintln!(
        "{refused:?} requests refused, {} good answers meanwhile; {memory:.1?} MiB after each quarter",
        good.load(Relaxed)
    );
}
