//! What a run leaves: read back, checked, and continued.
//!
//! `CARDINAL_REPORT=FOLDER` keeps the files of the first test, to look at.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use cardinal_train::metrics::{Confusion, MultiLabel};
use cardinal_train::report::{About, EpochRow, Report, Results, StepRow, Values};
use tempfile::TempDir;

fn values(pairs: &[(&str, f64)]) -> Values {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

fn about() -> About {
    About {
        title: "resnest14_digits on <folder> & \"co\"".into(),
        facts: vec![("seed".into(), "42".into()), ("data".into(), "a < b".into())],
        classes: (0..10).map(|digit| format!("<{digit}>")).collect(),
    }
}

fn confusion() -> Confusion {
    let mut confusion = Confusion::new(10);
    for image in 0..200 {
        confusion.add(image % 10, if image % 17 == 0 { (image + 3) % 10 } else { image % 10 });
    }
    confusion
}

fn step(epoch: usize, batch: usize) -> StepRow {
    let step = (epoch * 20 + batch - 1) as u64;
    let loss = 2.3 / (1.0 + step as f64 / 10.0);
    let numbers =
        [("loss", loss), ("lr", 0.05), ("images_per_second", 300.0 + batch as f64), ("data_time", 0.01)];
    StepRow { epoch, batch, step, values: values(&numbers) }
}

fn epoch(number: usize) -> EpochRow {
    let top1 = 90.0 + number as f64;
    let numbers = [
        ("train_loss", 0.5),
        ("train_top1", top1 - 1.5),
        ("eval_loss", 0.25),
        ("eval_top1", top1),
        ("eval_top5", 99.5),
        ("lr", 0.05),
    ];
    EpochRow { epoch: number, step: (number as u64 + 1) * 20, best: true, values: values(&numbers) }
}

fn train(report: &mut Report, epochs: std::ops::Range<usize>) {
    for number in epochs {
        for batch in [5, 10, 15, 20] {
            report.step(step(number, batch)).unwrap();
        }
        report.epoch(epoch(number), Some(Results::Single(confusion()))).unwrap();
    }
}

fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap()
}

fn event_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("events.out.tfevents."));
    files.sort();
    files
}

#[test]
fn a_run_leaves_its_numbers_and_pictures() {
    let temporary = TempDir::new().unwrap();
    let folder = std::env::var_os("CARDINAL_REPORT").map_or(temporary.path().to_owned(), PathBuf::from);
    fs::create_dir_all(&folder).unwrap();
    let recipe = "[model]\nmodel = \"a<b\"\n";
    let mut report = Report::begin(&folder, about(), recipe.into(), None).unwrap();
    let images: Vec<f32> = (0..12 * 3 * 32 * 32).map(|value| (value % 97) as f32 / 48.5 - 1.0).collect();
    report.first_batch(&images, [12, 3, 32, 32], [0.5; 3], [0.5; 3]).unwrap();
    report.skipped("cat/<1>.jpg: the file is empty".into());
    train(&mut report, 0..3);

    assert_eq!(read(&folder, "recipe.toml"), recipe);
    let summary = read(&folder, "summary.csv");
    let lines: Vec<&str> = summary.lines().collect();
    assert_eq!(lines[0], "epoch,train_loss,train_top1,eval_loss,eval_top1,eval_top5,lr");
    assert_eq!((lines.len(), lines[2]), (4, "1,0.5,89.5,0.25,91,99.5,0.05"));
    let log: Vec<serde_json::Value> =
        read(&folder, "metrics.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(log.len(), 15);
    assert_eq!((&log[0]["kind"], &log[0]["batch"]), (&"step".into(), &5.into()));
    assert_eq!((&log[4]["kind"], &log[4]["eval_top1"]), (&"epoch".into(), &90.0.into()));

    let page = read(&folder, "report.html");
    assert_balanced(&page);
    assert_balanced(&read(&folder, "curves.svg"));
    assert_balanced(&read(&folder, "confusion.svg"));
    let outside = page.replace("http://www.w3.org/2000/svg", "");
    for forbidden in ["http:", "https:", "<script", "<link", "url(", "@import"] {
        assert!(!outside.contains(forbidden), "the page contains {forbidden}");
    }
    assert!(outside.matches("src=").count() == 1 && outside.contains("src=\"data:image/png;base64,iVBOR"));
    for part in [
        "resnest14_digits on &lt;folder&gt; &amp; &quot;co&quot;",
        "3 epochs; best after epoch 3: top1 92, top5 99.5, loss 0.25",
        "cat/&lt;1&gt;.jpg: the file is empty",
        "model = &quot;a&lt;b&quot;",
        "&lt;7&gt;",
        "prefers-color-scheme:dark",
        "Learning rate",
    ] {
        assert!(page.contains(part), "the page lacks {part}");
    }
    let png = fs::read(folder.join("train-batch-0.png")).unwrap();
    assert!(png.starts_with(b"\x89PNG"));
    assert!(fs::read_dir(&folder).unwrap().all(|entry| !entry.unwrap().path().ends_with("tmp")));
}

#[test]
fn tensorboard_files_hold_the_numbers() {
    let folder = TempDir::new().unwrap();
    let mut report = Report::begin(folder.path(), about(), String::new(), None).unwrap();
    report.first_batch(&[0.5; 3 * 4 * 5], [1, 3, 4, 5], [0.0; 3], [1.0; 3]).unwrap();
    train(&mut report, 0..1);
    let files = event_files(folder.path());
    let events = parse_events(&fs::read(&files[0]).unwrap());
    assert_eq!(events[0].version.as_deref(), Some("brain.Event:2"));
    assert_eq!(events[1].tags, [("train_batch".to_owned(), None)]);
    let loss = events[2].tags.iter().find(|(tag, _)| tag == "step/loss").unwrap();
    assert_eq!((events[2].step, loss.1), (4, Some((2.3 / 1.4) as f32)));
    let last = events.last().unwrap();
    assert_eq!(last.step, 20);
    assert!(last.tags.contains(&("eval_top1".into(), Some(90.0))) && last.time > 1.6e9);
}

#[test]
fn a_continued_run_forgets_what_lies_behind_its_checkpoint() {
    let (whole, broken) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    train(&mut Report::begin(whole.path(), about(), String::new(), None).unwrap(), 0..4);

    train(&mut Report::begin(broken.path(), about(), String::new(), None).unwrap(), 0..3);
    // The machine stopped while a line was written; the checkpoint is of epoch 1, batch 12.
    let log = broken.path().join("metrics.jsonl");
    fs::write(&log, read(broken.path(), "metrics.jsonl") + "{\"kind\":\"step\",\"ep").unwrap();
    let mut report = Report::begin(broken.path(), about(), String::new(), Some((1, 12))).unwrap();
    assert_eq!(report.epochs().len(), 1);
    report.step(step(1, 15)).unwrap();
    report.step(step(1, 20)).unwrap();
    report.epoch(epoch(1), None).unwrap();
    train(&mut report, 2..4);

    for name in ["metrics.jsonl", "summary.csv", "curves.svg"] {
        let numbers = |text: String| -> Vec<String> {
            let mut lines: Vec<String> = text.lines().map(sorted_fields).collect();
            lines.iter_mut().for_each(|line| line.retain(|character| character != '\r'));
            lines
        };
        assert_eq!(numbers(read(broken.path(), name)), numbers(read(whole.path(), name)), "{name}");
    }
    let files = event_files(broken.path());
    assert_eq!(files.len(), 2);
    let events = parse_events(&fs::read(&files[1]).unwrap());
    assert_eq!((events[1].restart, events[1].step), (true, 30), "TensorBoard drops old steps from here on");
}

/// A JSON line with its keys in order: rows that were read back have them sorted.
fn sorted_fields(line: &str) -> String {
    serde_json::from_str::<serde_json::Value>(line).map_or(line.to_owned(), |value| value.to_string())
}

#[test]
fn odd_numbers_and_many_classes_do_no_harm() {
    let folder = TempDir::new().unwrap();
    let mut report = Report::begin(folder.path(), About::default(), String::new(), Some((0, 0))).unwrap();
    report.first_batch(&[], [0, 3, 4, 4], [0.0; 3], [1.0; 3]).unwrap();
    for loss in [f64::NAN, f64::INFINITY, 0.0, -1e300, 1e300] {
        report
            .step(StepRow { batch: 1, values: values(&[("loss", loss), ("lr", loss)]), ..StepRow::default() })
            .unwrap();
    }
    let row =
        EpochRow { values: values(&[("eval_mAP", 3.0), ("eval_loss", f64::NAN)]), ..EpochRow::default() };
    report.epoch(row.clone(), Some(Results::Single(Confusion::new(3000)))).unwrap();
    assert_balanced(&read(folder.path(), "report.html"));
    report.epoch(row.clone(), Some(Results::Single(Confusion::new(60)))).unwrap();
    assert_balanced(&read(folder.path(), "confusion.svg"));
    report.epoch(row, Some(Results::Multi(MultiLabel::new(3).scores()))).unwrap();
    let page = read(folder.path(), "report.html");
    assert_balanced(&page);
    assert!(!page.contains("NaN NaN") && page.contains("average precision"));
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let error = Report::begin(Path::new("/none/of/this"), about(), String::new(), None).err().unwrap();
    assert!(error.to_string().starts_with("/none/of/this/recipe.toml: "), "{error}");
}

/// Every tag is closed, in the right order.
fn assert_balanced(text: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').unwrap();
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed));
        } else if !tag.ends_with('/') && !["!doctype", "meta", "img"].contains(&name) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
}

#[derive(Debug, Default)]
struct ParsedEvent {
    time: f64,
    step: u64,
    version: Option<String>,
    tags: Vec<(String, Option<f32>)>,
    restart: bool,
}

/// Reads an event file by the format's description, with a checksum computed bit by bit.
fn parse_events(mut bytes: &[u8]) -> Vec<ParsedEvent> {
    let mut events = Vec::new();
    while !bytes.is_empty() {
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        assert_eq!(bytes[8..12], masked(&bytes[..8]).to_le_bytes());
        let data = &bytes[12..12 + length];
        assert_eq!(bytes[12 + length..16 + length], masked(data).to_le_bytes());
        bytes = &bytes[16 + length..];
        let mut event = ParsedEvent::default();
        for (field, value) in fields(data) {
            match (field, value) {
                (1, Field::Eight(value)) => event.time = f64::from_bits(value),
                (2, Field::Varint(value)) => event.step = value,
                (3, Field::Bytes(text)) => event.version = Some(String::from_utf8(text.into()).unwrap()),
                (5, Field::Bytes(summary)) => event.tags = fields(summary).into_iter().map(tag).collect(),
                (7, Field::Bytes(log)) => event.restart = matches!(fields(log)[..], [(1, Field::Varint(1))]),
                other => panic!("unexpected field {other:?}"),
            }
        }
        events.push(event);
    }
    events
}

fn tag((field, value): (u64, Field<'_>)) -> (String, Option<f32>) {
    let Field::Bytes(value) = value else { panic!("a value is a message") };
    assert_eq!(field, 1);
    let mut parts = fields(value).into_iter();
    let Some((1, Field::Bytes(name))) = parts.next() else { panic!("a tag comes first") };
    let number = match parts.next() {
        Some((2, Field::Four(bits))) => Some(f32::from_bits(bits)),
        Some((4, Field::Bytes(image))) => {
            assert!(
                matches!(fields(image).last(), Some((4, Field::Bytes(png))) if png.starts_with(b"\x89PNG"))
            );
            None
        }
        other => panic!("unexpected {other:?}"),
    };
    (String::from_utf8(name.into()).unwrap(), number)
}

#[derive(Debug)]
enum Field<'a> {
    Varint(u64),
    Eight(u64),
    Four(u32),
    Bytes(&'a [u8]),
}

fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let mut take = |count: usize| {
            let (taken, rest) = bytes.split_at(count);
            bytes = rest;
            taken
        };
        let value = match key & 7 {
            1 => Field::Eight(u64::from_le_bytes(take(8).try_into().unwrap())),
            5 => Field::Four(u32::from_le_bytes(take(4).try_into().unwrap())),
            0 => Field::Varint(varint(&mut bytes)),
            2 => {
                let length = varint(&mut bytes) as usize;
                let (taken, rest) = bytes.split_at(length);
                bytes = rest;
                Field::Bytes(taken)
            }
            other => panic!("wire type {other}"),
        };
        found.push((key >> 3, value));
    }
    found
}

fn masked(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82F6_3B78 } else { crc >> 1 };
        }
    }
    (!crc).rotate_right(15).wrapping_add(0xA282_EAD8)
}
