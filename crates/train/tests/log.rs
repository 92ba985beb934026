//! The log of a run that is killed at an epoch's end, whichever side of its checkpoint.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use cardinal_models::registry;
use cardinal_train::TrainError;
use cardinal_train::checkpoint::Folder;
use cardinal_train::device::DeviceKind;
use cardinal_train::observe::{Event, Observer};
use cardinal_train::recipe::Recipe;
use cardinal_train::report::Reporter;
use cardinal_train::run::{RunOptions, run};
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// Ends the run with an error at the event that it is told, as if the process were killed there.
struct Killer<'a>(&'a dyn Fn(&Event<'_>) -> bool);

impl Observer for Killer<'_> {
    fn event(&mut self, event: &Event<'_>) -> Result<(), TrainError> {
        if (self.0)(event) { Err(TrainError::State("killed".into())) } else { Ok(()) }
    }
}

/// Ten grey pictures of each of two classes, of which a fifth is held out: two batches of eight to train on.
fn data(folder: &Path) {
    for (class, level) in [("dark", 0), ("light", 200)] {
        fs::create_dir_all(folder.join(class)).unwrap();
        for number in 0..10 {
            let file = fs::File::create(folder.join(class).join(format!("{number}.png"))).unwrap();
            let mut writer = png::Encoder::new(file, 8, 8).write_header().unwrap();
            writer.write_image_data(&[level + 5 * number; 64]).unwrap();
        }
    }
}

fn recipe(data: &Path) -> Recipe {
    let mut recipe = Recipe::load("digits").unwrap();
    recipe.set("data_dir", data.to_str().unwrap()).unwrap();
    let settings = ["model=tresnet_digits", "epochs=2", "batch_size=8", "workers=1", "log_interval=1"];
    recipe.set_all(settings).unwrap();
    recipe
}

/// Begins the run in `folder`, or continues it, until it ends or `kill` says so; gives whether it ended.
fn go(folder: &Path, kill: &dyn Fn(&Event<'_>) -> bool) -> bool {
    let resume = folder.join("last.safetensors").exists().then(|| Folder::resume(folder).unwrap().1);
    let begin = || recipe(&folder.with_file_name("data"));
    let recipe = resume.as_ref().map_or_else(begin, |checkpoint| checkpoint.recipe.clone());
    let (variant, _) = registry::find_pretrained(&recipe.model.model).unwrap();
    let options = RunOptions {
        recipe,
        folder: Folder::create(folder).unwrap(),
        resume,
        variant,
        published: variant.preprocessing(),
        initial: None,
        device: DeviceKind::Cpu,
        threads: 1,
        stop: &AtomicBool::new(false),
    };
    let (mut reporter, mut killer) = (Reporter::new(), Killer(kill));
    match run(options, &mut vec![&mut reporter as &mut dyn Observer, &mut killer]) {
        Ok(_) => true,
        Err(TrainError::State(reason)) if reason == "killed" => false,
        Err(error) => panic!("{error}"),
    }
}

/// Kind, epoch and batch of each line, and what training found there; times differ from run to run.
fn lines(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let number =
        |value: &serde_json::Value| value.as_f64().map(|value| format!("{value:.9}")).unwrap_or_default();
    let rows = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    rows.map(|row| {
        format!(
            "{} {} {} {}{}",
            row["kind"],
            row["epoch"],
            row["batch"],
            number(&row["loss"]),
            number(&row["eval_loss"])
        )
    })
    .collect()
}

/// Epochs, losses and accuracies; a number that was read back may be off by its last bit.
fn epochs(folder: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(folder.join("summary.csv")).unwrap();
    let short = |cell: &str| cell.parse::<f64>().map_or(cell.into(), |number| format!("{number:.9}"));
    text.lines().map(|line| line.split(',').take(4).map(short).collect()).collect()
}

#[test]
fn every_row_is_there_once_wherever_the_run_is_killed() {
    let place = tempfile::tempdir().unwrap();
    data(&place.path().join("data"));
    let whole = place.path().join("whole");
    assert!(go(&whole, &|_| false));
    assert_eq!(lines(&whole).len(), 6, "{:?}", lines(&whole));
    type Kill = (&'static str, fn(&Event<'_>) -> bool);
    let kills: [Kill; 2] = [
        ("before its checkpoint", |event| matches!(event, Event::Epoch(report) if report.epoch == 2)),
        ("after its checkpoint", |event| matches!(event, Event::Batch(report) if report.epoch == 1)),
    ];
    for (name, kill) in kills {
        let folder = place.path().join(name);
        assert!(!go(&folder, &kill));
        let picture = |page: &str| page.contains("data:image/png;base64,");
        assert!(picture(&fs::read_to_string(folder.join("report.html")).unwrap()));
        assert!(go(&folder, &|_| false));
        assert_eq!((lines(&folder), epochs(&folder)), (lines(&whole), epochs(&whole)), "{name}");
        let page = fs::read_to_string(folder.join("report.html")).unwrap();
        assert!(picture(&page) && page.contains("confusion matrix"), "the page keeps its pictures");
        // A run that has nothing left to do leaves all as it is.
        assert!(go(&folder, &|_| false));
        assert_eq!((lines(&folder), epochs(&folder)), (lines(&whole), epochs(&whole)), "{name}");
        assert_eq!(fs::read_to_string(folder.join("report.html")).unwrap(), page);
    }
}
