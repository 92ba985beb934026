//! A folder with the files that the pages speak of, and how a command is run in it.

use crate::common::rule_model;
use crate::server::{Reply, Request, Server};
use crate::shorten::shorten;
use cardinal_data::write_npy;
use cardinal_models::burn::tensor::Device;
use cardinal_models::weights::state_dict;
use cardinal_models::{ModelOptions, registry};
use cardinal_weights::write_safetensors;
use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};
use tempfile::{TempDir, tempdir};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What all pages share: weights, the hub that has them, images.
pub(crate) struct Workplace {
    root: PathBuf,
    shared: TempDir,
    hub: Server,
}

impl Workplace {
    pub(crate) fn new(root: &Path) -> Self {
        let shared = tempdir().unwrap();
        let weights = shared.path().join("weights");
        fs::create_dir_all(&weights).unwrap();
        let hub = Server::start(move |request| answer(request, &weights));
        fs::create_dir(shared.path().join("bin")).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_cardinal"), shared.path().join("bin/cardinal"))
            .unwrap();
        Self { root: root.into(), shared, hub }
    }

    /// A fresh folder for a page.
    pub(crate) fn page(&self, page: &Path) -> Page<'_> {
        let folder = tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let photo = |name: &str| self.root.join("assets").join(name);
        fs::copy(photo("chelsea.jpg"), at("photo.jpg")).unwrap();
        for folder in ["assets", "bench"] {
            std::os::unix::fs::symlink(self.root.join(folder), at(folder)).unwrap();
        }
        let cat = ["chelsea.jpg", "coffee.jpg", "rocket.jpg"];
        let put = |to: &str, index: usize| {
            let to = at(to);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(photo(cat[index % 3]), to).unwrap();
        };
        for data in ["photos", "flowers", "cars"] {
            for (class, name) in ["one", "two"].into_iter().enumerate() {
                (0..6).for_each(|index| put(&format!("{data}/{name}/{index}.jpg"), index + class));
            }
        }
        put("more/a.png", 1);
        let labels = ["beach|person", "", "dog|beach", "person", "dog", "beach", "dog|person", "person"];
        let row = |(index, labels): (usize, &&str)| {
            put(&format!("scenes/img/{index}.jpg"), index);
            format!("{index}.jpg,{labels},{}\n", if index < 6 { "train" } else { "val" })
        };
        let rows: String = labels.iter().enumerate().map(row).collect();
        fs::write(at("scenes/labels.csv"), format!("file_name,labels,split\n{rows}")).unwrap();
        write_npy(at("in.npy"), &[1, 3, 224, 224], &vec![0.1; 3 * 224 * 224]).unwrap();
        Page {
            workplace: self,
            name: page.file_name().unwrap().to_str().unwrap().into(),
            folder,
            servers: Vec::new(),
        }
    }
}

/// Weights of `model` by the rule of the parity fixtures, made when they are first asked for.
fn weights(folder: &Path, model: &str) -> PathBuf {
    let path = folder.join(format!("{model}.safetensors"));
    if !path.exists() {
        let state = state_dict(&rule_model(model, &ModelOptions::default(), &Device::flex())).unwrap();
        write_safetensors(&path, &state, &BTreeMap::new()).unwrap();
    }
    path
}

/// The hub's answer: every repository of the registry has its network's weights.
fn answer(request: &Request, folder: &Path) -> Reply {
    let mut parts = request.path.split('/').skip(1);
    let name = parts.next().zip(parts.next()).map(|(_, name)| name.to_owned());
    let found = name.and_then(|name| registry::find_pretrained(&name).ok());
    match found {
        Some((variant, _)) if request.path.ends_with("/model.safetensors") => {
            let bytes = fs::read(weights(folder, variant.name)).unwrap();
            let tag = format!("\"{}-{}\"", variant.name, bytes.len());
            Reply::ranged(request, &bytes).with("X-Repo-Commit", COMMIT).with("ETag", tag)
        }
        _ => Reply::status(404).with("X-Error-Code", "EntryNotFound"),
    }
}

/// The folder of one page.
pub(crate) struct Page<'a> {
    workplace: &'a Workplace,
    name: String,
    folder: TempDir,
    /// Servers that the page's commands started, with their commands and ports.
    servers: Vec<(Child, String, u16)>,
}

impl Page<'_> {
    /// Runs a command as it stands in the page, or checks it where it belongs to another program.
    pub(crate) fn run(&mut self, command: &str) -> Result<(), String> {
        let command = command.replace("cargo run --release -- ", "cardinal ");
        let command = command.replace("curl -s URL", "cat photo.jpg");
        let first = command.split_whitespace().next().unwrap_or_default();
        match first {
            "cardinal" | "cat" | "source" => {
                self.provide(&command)?;
                if command.starts_with("cardinal serve ") {
                    return self.serve(&command);
                }
                self.shell(&short(&command))
            }
            "curl" => match self.server(&command) {
                Some(port) => {
                    let command = command.replace("127.0.0.1:8080", &format!("127.0.0.1:{port}"));
                    // Not every machine has curl; the server's own tests need none.
                    if Command::new("curl").arg("--version").output().is_err() {
                        return Ok(());
                    }
                    self.shell(&command.replacen("curl ", "curl --fail-with-body --silent --show-error ", 1))
                }
                None => Err("no server was started before".into()),
            },
            _ => self.check_other(first, &command),
        }
    }

    /// Makes the files that a command reads and that earlier ones have not made.
    fn provide(&self, command: &str) -> Result<(), String> {
        let model = if self.name == "weights.md" { "tresnet_m" } else { "resnest50d" };
        let files = [
            ("model_best.safetensors", model),
            ("weights.pth", model),
            ("weights.safetensors", model),
            ("tresnet_m.pth", "tresnet_m"),
            ("tresnet_m.safetensors", "tresnet_m"),
            ("resnest50d.safetensors", "resnest50d"),
        ];
        for (name, model) in files {
            let path = self.folder.path().join(name);
            if command.split_whitespace().any(|word| word == name) && !path.exists() {
                // The reader looks at the content, not at the name.
                fs::copy(weights(&self.workplace.shared.path().join("weights"), model), path).unwrap();
            }
        }
        if command.contains("runs/cats/") {
            let weights = weights(&self.workplace.shared.path().join("weights"), model);
            fs::create_dir_all(self.folder.path().join("runs/cats")).unwrap();
            fs::copy(weights, self.folder.path().join("runs/cats/model_best.safetensors")).unwrap();
        }
        if command.contains("output/train/RUN") && !self.folder.path().join("output/train/RUN").exists() {
            let data = if command.contains("scenes/") || self.name == "multi-label.md" {
                "--data scenes --set loss=asymmetric --smoothing 0"
            } else {
                "--data photos"
            };
            self.shell(&format!(
                "cardinal train {data} --recipe digits --model resnest14_digits --epochs 1 --batch-size 2 --model-ema \
                 --warmup-epochs 0 --img-size 32 --output output/train --experiment RUN --quiet"
            ))?;
        }
        Ok(())
    }

    /// The port of the last server with the model that the command's address names, or of the last server.
    fn server(&self, command: &str) -> Option<u16> {
        let model = command.split("/predictions/").nth(1).or(command.split("/models/").nth(1));
        let model = model.and_then(|rest| rest.split(['?', '/', ' ', '\'']).next()).unwrap_or_default();
        let found = self.servers.iter().rev().find(|(_, command, _)| command.contains(model));
        found.map(|(_, _, port)| *port)
    }

    fn environment(&self, program: &mut Command) {
        let shared = self.workplace.shared.path();
        let path = std::env::var("PATH").unwrap_or_default();
        program
            .current_dir(self.folder.path())
            .env("PATH", format!("{}:{path}", shared.join("bin").display()))
            .env("HF_HOME", shared.join("hub"))
            .env("HF_ENDPOINT", &self.workplace.hub.url)
            .env("XDG_CACHE_HOME", shared.join("cache"))
            .env("HOME", self.folder.path())
            .env_remove("HF_HUB_OFFLINE")
            .env_remove("RUST_LOG");
    }

    fn shell(&self, command: &str) -> Result<(), String> {
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", command]);
        self.environment(&mut shell);
        let Output { status, stderr, .. } = shell.output().unwrap();
        if status.success() { Ok(()) } else { Err(format!("{status}: {}", String::from_utf8_lossy(&stderr))) }
    }

    /// Starts a server on a free port and waits until it listens.
    fn serve(&mut self, command: &str) -> Result<(), String> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        words.retain(|word| word != "&");
        if let Some(place) = words.iter().position(|word| word == "--port") {
            words.drain(place..place + 2);
        }
        if let Some(place) = words.iter().position(|word| word == "--host") {
            words.drain(place..place + 2);
        }
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!("exec {} --port {port}", words.join(" "))]);
        self.environment(&mut shell);
        let mut child = shell.spawn().unwrap();
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = child.try_wait().unwrap() {
                return Err(format!("the server ended: {status}"));
            }
            if start.elapsed() > Duration::from_secs(60) {
                let _ = child.kill();
                return Err("the server does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.servers.push((child, command.to_owned(), port));
        Ok(())
    }

    fn stop(&mut self) {
        for (mut child, _, _) in self.servers.drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Whether what a command of another program names is there.
    fn check_other(&self, program: &str, command: &str) -> Result<(), String> {
        let words: Vec<&str> = command.split_whitespace().collect();
        let root = &self.workplace.root;
        let after = |flag: &str| words.iter().position(|word| *word == flag).and_then(|at| words.get(at + 1));
        match program {
            "just" => {
                let recipes = fs::read_to_string(root.join("justfile")).unwrap();
                let name = words.get(1).copied().unwrap_or_default();
                let is_it = |line: &str| line.split([' ', ':']).next() == Some(name);
                if recipes.lines().any(is_it) { Ok(()) } else { Err(format!("the justfile has no '{name}'")) }
            }
            "python3" | "bash" => {
                let file = words.iter().find(|word| word.ends_with(".py") || word.ends_with(".sh"));
                match file {
                    Some(file) if root.join(file).exists() => Ok(()),
                    _ => Err("no such script".into()),
                }
            }
            "cargo" => {
                let manifest = fs::read_to_string(root.join("crates/cli/Cargo.toml")).unwrap();
                for feature in after("--features").into_iter().flat_map(|list| list.split(',')) {
                    if !manifest.contains(&format!("\n{feature} = [")) {
                        return Err(format!("there is no feature '{feature}'"));
                    }
                }
                match after("--path") {
                    Some(path) if !root.join(path).join("Cargo.toml").exists() => {
                        Err(format!("no crate in {path}"))
                    }
                    _ => Ok(()),
                }
            }
            "docker" | "pip" => Ok(()),
            _ => Err("the test does not know this program".into()),
        }
    }
}

impl Drop for Page<'_> {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The command with its `cardinal` made short, wherever that stands in a pipeline.
fn short(command: &str) -> String {
    let parts = command.split(" | ").map(|part| {
        let mut words: Vec<String> = part.split_whitespace().map(str::to_owned).collect();
        if words.first().is_some_and(|word| word == "cardinal") {
            shorten(&mut words);
        }
        words.join(" ")
    });
    parts.collect::<Vec<_>>().join(" | ")
}
