//! `serve`: what it answers, and what it refuses.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use support::http::{Server, compile};
use support::{asset, cardinal, cardinal_with_env};
use tempfile::TempDir;

/// A compiled network of a thousand classes on pictures of 64 x 64 pixels, made once.
fn network() -> PathBuf {
    static FILE: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let make = || {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tiny.safetensors");
        compile("resnet18", "64", &file);
        (folder, file)
    };
    FILE.get_or_init(make).1.clone()
}

fn start(more: &[&str]) -> Server {
    let file = network();
    Server::start(&[&["--model", file.to_str().unwrap()], more].concat())
}

fn chelsea() -> Vec<u8> {
    std::fs::read(asset("chelsea.jpg")).unwrap()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().chain(&[0, 0]).take(3).fold(0, |word, &byte| word << 8 | usize::from(byte));
        let digits =
            (0..4).map(|i| if i > chunk.len() { '=' } else { DIGITS[word >> (18 - 6 * i) & 63] as char });
        text.extend(digits);
    }
    text
}

/// Classes and probabilities.
fn rows(predictions: &Value) -> Vec<(u64, f64)> {
    let row = |p: &Value| (p["class"].as_u64().unwrap(), p["probability"].as_f64().unwrap());
    predictions.as_array().unwrap().iter().map(row).collect()
}

fn same(found: &Value, expected: &Value) {
    let (found, expected) = (rows(found), rows(expected));
    assert_eq!(found.len(), expected.len());
    for ((class, probability), (other, expected)) in found.iter().zip(&expected) {
        assert_eq!(class, other);
        assert!((probability - expected).abs() <= 1e-5 * expected, "{probability} and {expected}");
    }
}

/// What `cardinal predict` says.
fn predicted() -> Value {
    let (file, image) = (network(), asset("chelsea.jpg"));
    let args =
        ["predict", "--compiled", file.to_str().unwrap(), "--json", "-k", "7", image.to_str().unwrap()];
    let said: Value = serde_json::from_str(&cardinal(&args).ok()).unwrap();
    said[0]["predictions"].clone()
}

#[test]
fn every_kind_of_body_gets_the_answer_of_predict() {
    let server = start(&[]);
    let (image, expected) = (chelsea(), predicted());
    let path = "/predictions/tiny?topk=7";
    let form = [
        b"--xyz\r\nContent-Disposition: form-data; name=\"image\"; filename=\"c.jpg\"\r\n\r\n".to_vec(),
        image.clone(),
        b"\r\n--xyz--\r\n".to_vec(),
    ];
    let json = json!({ "image": base64(&image) }).to_string();
    let url = json!({ "image": format!("data:image/jpeg;base64,{}", base64(&image)) }).to_string();
    for (kind, body) in [
        ("image/jpeg", image.as_slice()),
        ("application/x-www-form-urlencoded", &image),
        ("multipart/form-data; boundary=xyz", &form.concat()),
        ("application/json", json.as_bytes()),
        ("application/json; charset=utf-8", url.as_bytes()),
    ] {
        let answer = server.post(path, kind, body).json();
        same(&answer["predictions"], &expected);
        assert_eq!((&answer["model"], &answer["image"]), (&json!("tiny"), &json!([451, 300])), "{kind}");
        assert!(answer["timing"]["total_ms"].as_f64() >= answer["timing"]["inference_ms"].as_f64());
    }
    assert_eq!(rows(&server.post("/predictions/tiny", "image/jpeg", &image).json()["predictions"]).len(), 5);
}

#[test]
fn an_explanation_is_a_map_whose_weights_are_the_classifiers() {
    let server = start(&[]);
    let answer = server.post("/explain/tiny?topk=7&class=3", "image/jpeg", &chelsea()).json();
    same(&answer["predictions"], &predicted());
    let explanation = &answer["explanation"];
    assert_eq!(explanation["class"], 3);
    let map: Vec<Vec<f64>> = serde_json::from_value(explanation["map"].clone()).unwrap();
    assert_eq!((map.len(), map[0].len()), (2, 2));
    assert!(map.iter().flatten().all(|value| (0.0..=1.0).contains(value)), "{map:?}");
    let crop: Vec<f64> = serde_json::from_value(explanation["crop"].clone()).unwrap();
    // 451 x 300 pixels become 101 x 67 of which 64 x 64 are seen, for a share of 0.95.
    assert!((crop[2] - 64.0 / 100.0).abs() < 0.02 && (crop[3] - 64.0 / 67.0).abs() < 0.01, "{crop:?}");
    assert!(server.post("/explain/tiny", "image/jpeg", &chelsea()).json()["explanation"]["class"].is_u64());
    server.post("/explain/tiny?class=1000", "image/jpeg", &chelsea()).refuses(400, &["class", "999"]);
}

#[test]
fn several_models_and_the_full_builds_sources() {
    let file = network();
    let named = format!("other={}", file.display());
    let server =
        Server::start(&["--model", "resnet18", "--untrained", "--img-size", "64", "--model", &named]);
    for name in ["resnet18", "other"] {
        let answer = server.post(&format!("/predictions/{name}?topk=7"), "image/jpeg", &chelsea()).json();
        same(&answer["predictions"], &predicted());
    }
    let models = server.get("/models").json()["models"].clone();
    for model in models.as_array().unwrap() {
        assert_eq!(model["param_count"], 11_689_512, "{model}");
        assert_eq!(model["macs"], models[0]["macs"]);
        assert_eq!((&model["classes"], &model["class_maps"]), (&json!(1000), &json!(true)));
    }
}

#[test]
fn the_open_inference_protocol() {
    let server = start(&[]);
    assert_eq!(server.get("/v2/health/live").json()["live"], true);
    assert_eq!(server.get("/v2/health/ready").json()["ready"], true);
    let about = server.get("/v2").json();
    assert!(about["name"] == "cardinal" && about["extensions"].is_array());
    let metadata = server.get("/v2/models/tiny").json();
    assert_eq!(metadata, server.get("/v2/models/tiny/versions/1").json());
    assert_eq!(
        metadata["inputs"],
        json!([{ "name": "input", "datatype": "FP32", "shape": [-1, 3, 64, 64] }])
    );
    assert_eq!(metadata["outputs"][0], json!({ "name": "logits", "datatype": "FP32", "shape": [-1, 1000] }));
    assert_eq!(server.get("/v2/models/tiny/ready").json()["ready"], true);
    assert_eq!(server.get("/v2/models/tiny/versions/1/ready").json()["ready"], true);
    assert_eq!(server.ask("POST", "/v2/repository/index", &[], b"{}").json()[0]["state"], "READY");
    server.get("/v2/models/tiny/versions/2").refuses(404, &["version 2", "version 1"]);
    server.get("/v2/models/none").refuses(404, &["'none'", "tiny"]);
    server.get("/v2/models/none/ready").refuses(404, &["'none'"]);

    // Two different images, as nested numbers in JSON.
    let pixels: Vec<f32> = (0..2 * 3 * 64 * 64).map(|i| (i % 251) as f32 / 125.0 - 1.0).collect();
    let (folder, file) = (tempfile::tempdir().unwrap(), network());
    let [input, output] = ["in.npy", "out.npy"].map(|name| folder.path().join(name));
    cardinal_data::write_npy(&input, &[2, 3, 64, 64], &pixels).unwrap();
    let [input, output, file] = [&input, &output, &file].map(|path| path.to_str().unwrap());
    cardinal(&["predict", "--compiled", file, "--tensor", input, "--output", output]).ok();
    let expected = cardinal_data::read_npy(output).unwrap().data;
    let nested = [&pixels[..12288], &pixels[12288..]];
    let request = json!({
        "id": "seven", "inputs": [{ "name": "input", "shape": [2, 3, 64, 64], "datatype": "FP32", "data": nested }],
    });
    let reply =
        server.post("/v2/models/tiny/versions/1/infer", "application/json", request.to_string().as_bytes());
    let reply = reply.json();
    assert_eq!(
        (&reply["id"], &reply["model_name"], &reply["model_version"]),
        (&json!("seven"), &json!("tiny"), &json!("1"))
    );
    assert_eq!(reply["outputs"][0]["shape"], json!([2, 1000]));
    let logits: Vec<f32> = serde_json::from_value(reply["outputs"][0]["data"].clone()).unwrap();
    let close = |found: &[f32]| {
        let scale = expected.iter().map(|x| x.abs()).fold(0.0, f32::max);
        found.len() == 2000 && found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-5 * scale)
    };
    assert!(close(&logits));
    let probabilities: Vec<f32> = serde_json::from_value(reply["outputs"][1]["data"].clone()).unwrap();
    assert!((probabilities[..1000].iter().sum::<f32>() - 1.0).abs() < 1e-4);

    // The same as bytes behind the JSON, both ways.
    let head = json!({
        "inputs": [{ "name": "input", "shape": [2, 3, 64, 64], "datatype": "FP32",
            "parameters": { "binary_data_size": 98304 } }],
        "outputs": [{ "name": "logits", "parameters": { "binary_data": true } },
            { "name": "probabilities", "parameters": { "classification": 2 } }],
    });
    let head = head.to_string().into_bytes();
    let bytes: Vec<u8> = pixels.iter().flat_map(|number| number.to_le_bytes()).collect();
    let length = head.len().to_string();
    let headers = [("inference-header-content-length", length.as_str())];
    let reply = server.ask("POST", "/v2/models/tiny/infer", &headers, &[head, bytes].concat());
    assert_eq!(reply.status, 200, "{}", reply.text());
    let split: usize = reply.headers["inference-header-content-length"].parse().unwrap();
    let json: Value = serde_json::from_slice(&reply.body[..split]).unwrap();
    assert_eq!(json["outputs"][0]["parameters"]["binary_data_size"], 8000);
    let logits: Vec<f32> =
        reply.body[split..].chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    assert!(close(&logits));
    assert_eq!(
        (&json["outputs"][1]["datatype"], &json["outputs"][1]["shape"]),
        (&json!("BYTES"), &json!([2, 2]))
    );
    assert_eq!(json["outputs"][1]["data"][0].as_str().unwrap().split(':').count(), 3);

    // Image files.
    let files = json!({ "inputs": [{ "name": "image", "shape": [2], "datatype": "BYTES",
        "data": [base64(&chelsea()), base64(&chelsea())] }], "outputs": [{ "name": "probabilities" }] });
    let reply = server.post("/v2/models/tiny/infer", "application/json", files.to_string().as_bytes()).json();
    let probabilities: Vec<f64> = serde_json::from_value(reply["outputs"][0]["data"].clone()).unwrap();
    for (class, probability) in rows(&predicted()) {
        for image in 0..2 {
            assert!((probabilities[1000 * image + class as usize] - probability).abs() <= 1e-5 * probability);
        }
    }
}

#[test]
fn wrong_inference_requests_are_named() {
    let server = start(&["--queue", "4"]);
    let infer = |body: &str| server.post("/v2/models/tiny/infer", "application/json", body.as_bytes());
    let with = |input: &str| infer(&format!("{{\"inputs\":[{input}]}}"));
    infer("").refuses(400, &["not an inference request"]);
    infer("{\"inputs\":[]}").refuses(400, &["one input"]);
    with(r#"{"name":"x","shape":[1],"datatype":"FP32","data":[1]}"#).refuses(400, &["no input 'x'"]);
    with(r#"{"name":"input","shape":[1],"datatype":"FP16","data":[1]}"#).refuses(400, &["FP16"]);
    with(r#"{"name":"input","shape":[1,3,64,65],"datatype":"FP32","data":[1]}"#)
        .refuses(400, &["[n, 3, 64, 64]"]);
    with(r#"{"name":"input","shape":[1,3,64,64],"datatype":"FP32","data":[1]}"#)
        .refuses(400, &["12288", "not 1"]);
    let huge = r#"{"name":"input","shape":[18446744073709551615,3,64,64],"datatype":"FP32","data":[1]}"#;
    with(huge).refuses(400, &["not taken"]);
    with(r#"{"name":"image","shape":[2],"datatype":"BYTES","data":["!"]}"#).refuses(400, &["base64"]);
    with(r#"{"name":"image","shape":[1],"datatype":"BYTES","data":["aGVsbG8="]}"#)
        .refuses(415, &["JPEG, PNG"]);
    let five = format!(
        "{{\"name\":\"image\",\"shape\":[5],\"datatype\":\"BYTES\",\"data\":[{}]}}",
        vec![format!("\"{}\"", base64(&chelsea())); 5].join(",")
    );
    with(&five).refuses(413, &["4 places"]);
    let headers = [("inference-header-content-length", "99999")];
    server.ask("POST", "/v2/models/tiny/infer", &headers, b"{}").refuses(400, &["Inference-Header"]);
}

#[test]
fn limits_and_wrong_bodies_are_named() {
    let server = start(&["--body-limit", "200KiB", "--megapixels", "1"]);
    let post = |kind: &str, body: &[u8]| server.post("/predictions/tiny", kind, body);
    post("image/jpeg", &vec![0; 300 << 10]).refuses(413, &["204800 bytes"]);
    let mut chunked = server.connect();
    chunked
        .send(b"POST /predictions/tiny HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        .unwrap();
    // The server may have refused before the end.
    let chunk =
        [format!("{:x}\r\n", 300 << 10).into_bytes(), vec![0; 300 << 10], b"\r\n0\r\n\r\n".to_vec()].concat();
    let _ = chunked.send(&chunk);
    chunked.read().unwrap().refuses(413, &["204800 bytes"]);
    // A picture of four lines that claims a hundred million pixels.
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x27\x10\0\0\x27\x10\x08\x02\0\0\0".to_vec();
    png.extend([0xff; 64]);
    let bomb = post("image/png", &png);
    assert!(bomb.status == 413 || bomb.status == 422, "{}", bomb.text());
    let mut big = chelsea();
    // The height and width in the frame header.
    let frame = big.windows(2).position(|two| two == [0xff, 0xc0]).unwrap();
    big[frame + 5..frame + 9].copy_from_slice(&[0x27, 0x10, 0x27, 0x10]);
    post("image/jpeg", &big).refuses(413, &["10000 x 10000", "1000000 pixels"]);
    post("image/jpeg", b"").refuses(400, &["empty"]);
    post("image/jpeg", b"%PDF-1.7").refuses(415, &["PDF"]);
    post("image/jpeg", &chelsea()[..5000]).refuses(422, &["truncated"]);
    post("application/json", b"{\"image\": 7}").refuses(400, &["base64 of a picture"]);
    post("multipart/form-data; boundary=a", b"--b").refuses(400, &["boundary"]);
    server.post("/predictions/none", "image/jpeg", &chelsea()).refuses(404, &["'none'", "tiny"]);
    server.post("/predictions/tiny?topk=x", "image/jpeg", &chelsea()).refuses(400, &["topk"]);
    server.get("/predictions/tiny").refuses(405, &["GET"]);
    server.get("/nothing").refuses(404, &["/nothing"]);
    // And it still works.
    assert_eq!(post("image/jpeg", &chelsea()).status, 200);
    assert_eq!(server.metric("nv_inference_request_success"), 1.0);
    assert!(server.metric("nv_inference_request_failure") >= 8.0);
}

#[test]
fn a_full_queue_answers_at_once() {
    let server = start(&["--queue", "2", "--max-batch", "8", "--batch-delay-ms", "4000"]);
    let image = chelsea();
    std::thread::scope(|scope| {
        let ask = || server.post("/predictions/tiny", "image/jpeg", &image);
        let waiting = [scope.spawn(ask), scope.spawn(ask)];
        server.reaches("nv_inference_pending_request_count", 2.0);
        let start = Instant::now();
        let refused = ask();
        refused.refuses(503, &["2 places"]);
        assert!(refused.headers["retry-after"].parse::<u64>().unwrap() >= 1);
        assert!(start.elapsed() < Duration::from_millis(800));
        for answer in waiting {
            let answer = answer.join().unwrap().json();
            assert_eq!(answer["timing"]["batch"], 2);
        }
    });
    assert_eq!(server.metric("cardinal_rejected_total"), 1.0);
    assert_eq!(server.metric("nv_inference_exec_count"), 1.0);
}

#[test]
fn late_answers_and_late_bodies_end() {
    let server = start(&["--timeout", "0.3", "--batch-delay-ms", "10000"]);
    let start = Instant::now();
    server.post("/predictions/tiny", "image/jpeg", &chelsea()).refuses(504, &["0.3 s"]);
    assert!(start.elapsed() < Duration::from_secs(2));
    let mut slow = server.connect();
    slow.send(b"POST /predictions/tiny HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nabc").unwrap();
    slow.read().unwrap().refuses(408, &["--timeout"]);
}

#[test]
fn the_token_guards_all_but_health_and_the_page() {
    let server = start(&["--token", "s3cret"]);
    for path in ["/v2/health/live", "/v2/health/ready", "/"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    for path in ["/models", "/metrics", "/v2", "/v2/models/tiny"] {
        let refused = server.get(path);
        refused.refuses(401, &["Authorization: Bearer"]);
        assert_eq!(refused.headers["www-authenticate"], "Bearer");
        let ask = |token: &str| server.ask("GET", path, &[("authorization", token)], &[]);
        assert_eq!(ask("Bearer s3cret").status, 200, "{path}");
        ask("Bearer S3cret").refuses(401, &["not the token"]);
        ask("Basic s3cret").refuses(401, &["Bearer"]);
    }
    server.post("/predictions/tiny", "image/jpeg", &chelsea()).refuses(401, &["token"]);
    server.post("/v2/models/tiny/infer", "application/json", b"{}").refuses(401, &["token"]);
}

#[test]
fn requests_have_ids_and_lines_in_the_log() {
    let server = start(&[]);
    let headers = [("x-request-id", "mine-42")];
    let reply = server.ask("POST", "/predictions/tiny", &headers, &chelsea());
    assert_eq!((reply.headers["x-request-id"].as_str(), &reply.json()["id"]), ("mine-42", &json!("mine-42")));
    let line: Value =
        serde_json::from_str(&server.log.lock().unwrap().recv_timeout(Duration::from_secs(5)).unwrap())
            .unwrap();
    assert_eq!(
        (&line["id"], &line["status"], &line["model"]),
        (&json!("mine-42"), &json!(200), &json!("tiny"))
    );
    assert!(line["ms"].as_f64().unwrap() > 0.0 && line["time"].as_str().unwrap().ends_with('Z'), "{line}");
    let made = server.get("/v2/health/live").headers["x-request-id"].clone();
    assert!(!made.is_empty() && made != server.get("/v2/health/live").headers["x-request-id"]);
}

#[test]
fn the_page_lets_nothing_else_in() {
    let server = start(&[]);
    let page = server.get("/");
    let policy = &page.headers["content-security-policy"];
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let text = page.text();
    assert!(text.contains("<script>\"use strict\"") && !text.contains("/*script*/"));
    // Nothing is fetched from anywhere.
    assert!(!text.contains("http:") && !text.contains("https:") && !text.contains("//cdn"));
}

#[test]
fn metrics_are_prometheus_text() {
    let server = start(&[]);
    for _ in 0..3 {
        server.post("/predictions/tiny", "image/jpeg", &chelsea()).json();
    }
    let text = server.get("/metrics").text();
    assert!(text.contains("nv_inference_count{model=\"tiny\",version=\"1\"} 3"), "{text}");
    assert!(
        text.contains("cardinal_request_duration_seconds_bucket{model=\"tiny\",version=\"1\",le=\"+Inf\"} 3")
    );
    for line in text.lines().filter(|line| !line.starts_with("# ")) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let name = name.split('{').next().unwrap();
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .fold(name, |name, end| name.strip_suffix(end).unwrap_or(name));
        assert!(
            text.contains(&format!("# TYPE {name} ")) || text.contains(&format!("# TYPE {base} histogram")),
            "{name}"
        );
    }
    for name in ["request", "queue", "compute_input", "compute_infer", "compute_output"] {
        assert!(server.metric(&format!("nv_inference_{name}_duration_us")) > 0.0, "{name}");
    }
    assert!(server.metric("process_resident_memory_bytes") > 1e7);
}

#[test]
fn wrong_starts_are_named() {
    let file = network();
    let file = file.to_str().unwrap();
    cardinal(&["serve"]).fails_usage();
    cardinal(&["serve", "-m", file, "-m", file, "--port", "0"]).fails(2, &["two models", "'tiny'"]);
    cardinal(&["serve", "-m", &format!("a/b={file}"), "--port", "0"])
        .fails(2, &["'a/b'", "--model cats=FILE"]);
    cardinal(&["serve", "-m", "resnet81", "--port", "0"]).fails(2, &["resnet81"]);
    cardinal(&["serve", "-m", file, "--img-size", "65", "--port", "0"]).fails(2, &["64 pixels, not 65"]);
    cardinal_with_env(&["serve", "-m", file, "--port", "0"], &[("CARDINAL_TOKEN", "")])
        .fails(2, &["token is empty"]);
    let server = start(&[]);
    let port = server.address.port().to_string();
    cardinal(&["serve", "-m", file, "--port", &port]).fails(1, &[&port, "in use"]);
    cardinal(&["serve", "--probe", &server.address.to_string()]).ok();
    cardinal(&["serve", "--probe", "127.0.0.1:1"]).fails(1, &["127.0.0.1:1"]);
}
