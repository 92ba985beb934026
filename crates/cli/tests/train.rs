//! Training through the built binary: resuming after kills, and what bad input is told.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use support::{Run, cardinal, root};
use tempfile::{TempDir, tempdir};

/// A folder for data and runs.
struct Place {
    folder: TempDir,
}

/// Settings that make a run short and yet use everything that must survive a resume: momentum, the moving average,
/// dropout, DropBlock, stochastic depth, random crops, mixing, accumulation and a schedule.
const TINY: &[&str] = &[
    "--recipe",
    "digits",
    "--model",
    "resnest14_digits",
    "--batch-size",
    "8",
    "--epochs",
    "2",
    "--workers",
    "2",
    "--threads",
    "1",
    "--warmup-epochs",
    "0",
    "--mixup",
    "0.2",
    "--drop",
    "0.1",
    "--drop-block",
    "0.1",
    "--model-ema",
    "--grad-accum-steps",
    "2",
    "--set",
    "drop_path=0.1",
    "--set",
    "checkpoint_hist=1",
    "--quiet",
];

impl Place {
    fn new() -> Self {
        Self { folder: tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().into()
    }

    /// A folder with `images` pictures of each of three classes.
    fn data(&self, images: usize) -> String {
        for (class, name) in ["a", "b", "c"].into_iter().enumerate() {
            for split in ["train", "val"] {
                let folder = self.path("data").join(split).join(name);
                fs::create_dir_all(&folder).unwrap();
                for index in 0..images {
                    fs::write(folder.join(format!("{index:02}.bmp")), bmp(class, index)).unwrap();
                }
            }
        }
        self.text("data")
    }

    /// The arguments of a tiny run called `name`.
    fn args(&self, data: &str, name: &str, more: &[&str]) -> Vec<String> {
        let output = self.text("runs");
        let first = ["train", "--data", data, "--output", &output, "--experiment", name];
        [&first, TINY, more].concat().into_iter().map(Into::into).collect()
    }

    /// The weights of the run `name`, as 'convert' writes them.
    fn weights(&self, name: &str) -> Vec<u8> {
        let last = self.text(&format!("runs/{name}/last.safetensors"));
        let out = self.text(&format!("{name}.safetensors"));
        cardinal(&["convert", &last, &out]).ok();
        let plain = fs::read(&out).unwrap();
        cardinal(&["convert", "--use-ema", &last, &out]).ok();
        let averaged = fs::read(&out).unwrap();
        assert_ne!(plain, averaged);
        [plain, averaged].concat()
    }
}

/// A 12 x 12 picture: a bar whose place and colour say the class, on a ground that says the number.
fn bmp(class: usize, index: usize) -> Vec<u8> {
    const SIDE: usize = 12;
    let mut bytes = b"BM".to_vec();
    let size = 54 + SIDE * SIDE * 3;
    bytes.extend((size as u32).to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(54u32.to_le_bytes());
    bytes.extend(40u32.to_le_bytes());
    bytes.extend([(SIDE as u32).to_le_bytes(), (SIDE as u32).to_le_bytes()].concat());
    bytes.extend([1, 0, 24, 0]);
    bytes.extend([0; 24]);
    for pixel in 0..SIDE * SIDE {
        let in_bar = pixel / SIDE / 4 == class;
        let ground = (index * 23 % 90) as u8;
        let mut color = [ground; 3];
        if in_bar {
            color[class] = 250 - ground;
        }
        bytes.extend(color);
    }
    bytes
}

fn command(args: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cardinal"));
    command.args(args).env("HF_HUB_OFFLINE", "1").env_remove("RUST_LOG").current_dir(root());
    command
}

fn run(args: &[String]) -> Run {
    cardinal(&args.iter().map(OsString::from).collect::<Vec<_>>())
}

/// A few random numbers.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

#[test]
fn a_run_that_is_killed_again_and_again_ends_with_the_same_bits() {
    let place = Place::new();
    let data = place.data(40);
    run(&place.args(&data, "whole", &[])).ok();
    // A checkpoint after every update, so that kills fall between and inside writes.
    let often = ["--set", "recovery_minutes=1e-9"];
    let start = place.args(&data, "killed", &often);
    let folder = place.path("runs/killed");
    let resume: Vec<String> =
        ["train", "--resume", folder.to_str().unwrap(), "--threads", "1", "--quiet"].map(Into::into).into();
    let (mut kills, mut random) = (0, 7);
    let began = Instant::now();
    loop {
        let args = if checkpoints(&folder).is_empty() { &start } else { &resume };
        let child = command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        match kill(child, &folder, kills, &mut random) {
            None => kills += 1,
            Some(status) if status.success() => break,
            Some(status) => panic!("life {kills} ended with {status}"),
        }
        assert!(began.elapsed() < Duration::from_secs(600), "{kills} kills");
    }
    println!("killed {kills} times");
    assert!(kills >= 3, "only {kills} kills");
    assert_eq!(place.weights("whole"), place.weights("killed"));
    let left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_str().unwrap().contains("recovery")), "{left:?}");
}

/// Kills a run that writes to `folder`, or says how it ended before that. What a run has written tells when, not a clock
/// alone, so that there are kills however fast the machine is, and the run gets on however slow it is.
fn kill(mut child: Child, folder: &Path, kills: usize, random: &mut u64) -> Option<ExitStatus> {
    let before = checkpoints(folder);
    let wait = Duration::from_micros(next(random) % 10_000);
    let mut at = (kills % 3 == 2).then(|| Instant::now() + 20 * wait);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        let has_new = checkpoints(folder).iter().any(|name| !before.contains(name));
        if kills.is_multiple_of(3) && has_new && at.is_none() {
            // Some time after a checkpoint: in the next step, or as the next one is written.
            at = Some(Instant::now() + wait);
        }
        // In the middle of writing one.
        let writes = kills % 3 == 1 && has_new && names(folder).iter().any(|name| name.ends_with(".tmp"));
        if writes || at.is_some_and(|at| Instant::now() >= at) {
            child.kill().unwrap();
            // A run that had ended just before has nothing left to be killed.
            return Some(child.wait().unwrap()).filter(ExitStatus::success);
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The checkpoints that a run can continue from.
fn checkpoints(folder: &Path) -> Vec<String> {
    let mut names = names(folder);
    names.retain(|name| {
        (name.starts_with("recovery-") || name == "last.safetensors") && name.ends_with(".safetensors")
    });
    names
}

#[test]
fn epochs_can_be_added_and_a_checkpoint_serves_every_command() {
    let place = Place::new();
    let data = place.data(8);
    let said = run(&place.args(&data, "run", &["--json"])).ok();
    let summary: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((summary["model"].as_str(), summary["epochs"].as_u64()), (Some("resnest14_digits"), Some(2)));
    let folder = place.text("runs/run");
    cardinal(&["train", "--resume", &folder, "--epochs", "1", "--quiet"]).fails(2, &["2 epochs already"]);
    cardinal(&["train", "--resume", &folder, "--lr", "1", "--quiet"]).fails(2, &["--lr", "--epochs"]);
    let said = cardinal(&["train", "--resume", &folder, "--epochs", "3", "--threads", "1", "--quiet"]).ok();
    assert!(said.contains("after 3 epochs"), "{said}");
    for file in ["last.safetensors", "model_best.safetensors", "summary.csv", "recipe.toml"] {
        assert!(place.path("runs/run").join(file).exists(), "{file}");
    }
    run(&place.args(&data, "run", &[])).fails(2, &["--resume", "--experiment"]);
    let last = place.text("runs/run/last.safetensors");
    let info = cardinal(&["info", &last]).ok();
    assert!(info.contains("resnest14_digits"), "{info}");
    let image = place.text("data/val/b/03.bmp");
    let predicted = cardinal(&["predict", "--checkpoint", &last, "--topk", "3", "--csv", &image]).ok();
    assert!(
        predicted.lines().skip(1).all(|line| ["a", "b", "c"].contains(&line.split(',').nth(3).unwrap())),
        "{predicted}"
    );
    cardinal(&["predict", "--checkpoint", &last, "--use-ema", &image]).ok();
    let said = cardinal(&["eval", "--checkpoint", &last, "--json"]).ok();
    let result: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert!(said.trim_start_matches(['{', '\n', ' ']).starts_with("\"top1\""), "{said}");
    assert_eq!((result["images"].as_u64(), result["top1_err"].is_number()), (Some(24), true));
    cardinal(&["eval", "--checkpoint", &last, "--model", "tresnet_digits"]).fails(4, &["tresnet_digits"]);
    let other = ["--initial-checkpoint", &last, "--model", "tresnet_digits"];
    run(&place.args(&data, "other", &other)).fails(4, &["last.safetensors", "tresnet_digits"]);
    let tuned = [
        "finetune",
        "--data",
        &data,
        "--recipe",
        "digits",
        "--model",
        "resnest14_digits",
        "--initial-checkpoint",
    ];
    let rest = [
        &last,
        "--freeze",
        "5",
        "--epochs",
        "1",
        "--batch-size",
        "8",
        "--warmup-epochs",
        "0",
        "--quiet",
        "--output",
    ];
    let runs = place.text("runs");
    cardinal(&[&tuned[..], &rest, &[&runs, "--experiment", "tuned"]].concat()).ok();
    let bytes = fs::read(&last).unwrap();
    fs::write(&last, &bytes[..bytes.len() / 2]).unwrap();
    cardinal(&["train", "--resume", &folder]).fails(4, &["last.safetensors", "damaged"]);
    cardinal(&["train", "--resume", &place.text("nothing")]).fails(4, &["nothing", "no such run"]);
}

#[test]
fn data_that_cannot_be_trained_on_is_named() {
    let place = Place::new();
    let data = place.data(8);
    fs::create_dir(place.path("empty")).unwrap();
    run(&place.args(&place.text("empty"), "x", &[])).fails(3, &["empty"]);
    fs::create_dir_all(place.path("one/train")).unwrap();
    fs::rename(place.path("data/val/c"), place.path("one/train/c")).unwrap();
    run(&place.args(&place.text("one"), "x", &[])).fails(3, &["one", "class"]);
    fs::rename(place.path("one/train/c"), place.path("data/val/c")).unwrap();
    run(&place.args(&data, "x", &["--batch-size", "64"])).fails(3, &["24 images", "64"]);
    fs::create_dir(place.path("table")).unwrap();
    fs::copy(place.path("data/train/a/00.bmp"), place.path("table/00.bmp")).unwrap();
    fs::write(place.path("table/labels.csv"), "image,label\n00.bmp,a\nabsent.bmp,b\n").unwrap();
    run(&place.args(&place.text("table"), "x", &[])).fails(3, &["absent.bmp"]);
    assert!(!place.path("runs/x").exists(), "nothing is left of a run that could not begin");
}

#[test]
fn a_broken_image_is_left_out_counted_and_named_or_stops_the_run() {
    let place = Place::new();
    let data = place.data(8);
    fs::write(place.path("data/train/b/04.bmp"), b"BM broken").unwrap();
    let more = ["--epochs", "1"];
    let done = run(&place.args(&data, "lenient", &more));
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stderr.contains("04.bmp"), "{}", done.stderr);
    assert!(done.stdout.contains("1 images could not be read"), "{}", done.stdout);
    run(&place.args(&data, "strict", &["--epochs", "1", "--strict"])).fails(3, &["04.bmp"]);
    // One of the images to evaluate on is left out too; of none there is no accuracy to speak of.
    let checkpoint = place.text("runs/lenient/last.safetensors");
    let evaluate = ["eval", "--checkpoint", &checkpoint, "--data", &data];
    fs::write(place.path("data/val/a/00.bmp"), b"BM broken").unwrap();
    let done = cardinal(&evaluate);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stdout.contains("23 images") && done.stderr.contains("00.bmp"), "{done:?}");
    for class in ["a", "b", "c"] {
        for file in fs::read_dir(place.path("data/val").join(class)).unwrap() {
            fs::write(file.unwrap().path(), b"BM broken").unwrap();
        }
    }
    cardinal(&evaluate).fails(3, &["none of the 24 images", "00.bmp", "cardinal data check"]);
    run(&place.args(&data, "blind", &more)).fails(3, &["none of the 24 images"]);
}

#[test]
fn recipes_with_mistakes_are_refused() {
    let place = Place::new();
    let data = place.data(8);
    run(&place.args(&data, "x", &["--set", "lerning_rate=1"])).fails(2, &["lerning_rate"]);
    run(&place.args(&data, "x", &["--set", "smoothin=0.1"])).fails(2, &["smoothin", "smoothing"]);
    fs::write(place.path("mine.toml"), "[optimizer]\nmomentun = 0.9\n").unwrap();
    let recipe = place.text("mine.toml");
    cardinal(&["train", "--data", &data, "--recipe", &recipe]).fails(2, &["momentun", "momentum"]);
    cardinal(&["train", "--recipe", "resnets"]).fails(2, &["resnets", "resnest"]);
    run(&place.args(&data, "x", &["--model", "resnest14_digit"])).fails(2, &["resnest14_digits"]);
    run(&place.args(&data, "x", &["--set", "eval_metric=map"])).fails(3, &["map"]);
    run(&place.args(&data, "x", &["--device", "tpu"])).fails(2, &["tpu", "cpu, vulkan and cuda"]);
    for (device, is_built) in [("vulkan", cfg!(feature = "vulkan")), ("cuda", cfg!(feature = "cuda"))] {
        if !is_built {
            let how = format!("cargo build --release --features {device}");
            run(&place.args(&data, "x", &["--device", device])).fails(2, &["this build has no", &how]);
        }
    }
    assert!(!place.path("runs/x").exists(), "nothing is left of a run that could not begin");
}

#[test]
fn a_loss_that_is_not_finite_stops_with_the_batch_named() {
    let place = Place::new();
    let data = place.data(8);
    run(&place.args(&data, "run", &["--epochs", "1"])).ok();
    let before = fs::read(place.path("runs/run/last.safetensors")).unwrap();
    let diverging = ["--lr", "1e30", "--set", "model_ema=false"];
    run(&place.args(&data, "diverging", &diverging)).fails(1, &["not finite", "epoch", ".bmp", "--lr"]);
    assert_eq!(fs::read(place.path("runs/run/last.safetensors")).unwrap(), before);
}

/// A limit on the size of files stands for a full disk: writes beyond it fail.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_the_last_checkpoint() {
    let place = Place::new();
    let data = place.data(8);
    run(&place.args(&data, "run", &["--epochs", "1"])).ok();
    let folder = place.path("runs/run");
    let before = fs::read(folder.join("last.safetensors")).unwrap();
    let limit = "trap '' XFSZ; ulimit -f 400; exec \"$@\"";
    let output = Command::new("sh")
        .args([
            "-c",
            limit,
            "sh",
            env!("CARGO_BIN_EXE_cardinal"),
            "train",
            "--epochs",
            "2",
            "--threads",
            "1",
            "--resume",
        ])
        .arg(&folder)
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("last.safetensors") && stderr.contains("--resume"), "{stderr}");
    assert_eq!(fs::read(folder.join("last.safetensors")).unwrap(), before);
    let names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_str().unwrap().ends_with(".tmp")), "{names:?}");
    cardinal(&["train", "--epochs", "2", "--threads", "1", "--quiet", "--resume", folder.to_str().unwrap()])
        .ok();
}

#[test]
fn classes_of_a_multi_label_run_have_probabilities_of_their_own() {
    let place = Place::new();
    let data = place.data(4);
    let rows = ["a", "b", "c"]
        .map(|class| (0..4).map(|i| format!("train/{class}/{i:02}.bmp,{class}|shape\n")).collect::<String>());
    fs::write(place.path("data/labels.csv"), format!("file_name,labels\n{}", rows.concat())).unwrap();
    let output = place.text("runs");
    let recipe =
        ["--recipe", "digits", "--model", "resnest14_digits", "--set", "loss=asymmetric", "--epochs", "1"];
    let rest = [
        "--batch-size",
        "4",
        "--warmup-epochs",
        "0",
        "--smoothing",
        "0",
        "--set",
        "eval_metric=map",
        "--quiet",
    ];
    let start = ["train", "--data", &data, "--output", &output, "--experiment", "many", "--json"];
    cardinal(&[&start[..], &recipe, &rest].concat()).ok();
    let last = place.text("runs/many/last.safetensors");
    let (plain, compiled) = (place.text("plain.safetensors"), place.text("compiled.safetensors"));
    cardinal(&["convert", &last, &plain]).ok();
    cardinal(&["compile", "--checkpoint", &last, "--output", &compiled]).ok();
    let image = place.text("data/val/b/03.bmp");
    let predict = |flag: &str, file: &str| {
        let said = cardinal(&["predict", flag, file, "--json", &image]).ok();
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let rows = said[0]["predictions"].as_array().unwrap();
        rows.iter().map(|row| row["probability"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    let probabilities = predict("--checkpoint", &last);
    assert_eq!(probabilities.len(), 4);
    assert!((probabilities.iter().sum::<f64>() - 1.0).abs() > 0.05, "{probabilities:?}");
    for (flag, file) in [("--checkpoint", &plain), ("--compiled", &compiled)] {
        let others = predict(flag, file);
        let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-5;
        assert!(probabilities.iter().zip(&others).all(close), "{probabilities:?} {others:?}");
    }
}
