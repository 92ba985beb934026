//! Recipes: the files of the repository, overriding, and what is said about wrong ones.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use cardinal_data::Policy;
use cardinal_train::recipe::{Augmentation, BUILTIN, CropMode, Optimizer, Recipe, Schedule, tables};
use proptest::prelude::*;

fn error(text: &str) -> String {
    Recipe::parse(text, "my.toml").unwrap_err().to_string()
}

fn set_error(key: &str, value: &str) -> String {
    Recipe::default().set(key, value).unwrap_err().to_string()
}

#[test]
fn every_built_in_recipe_is_valid_and_survives_a_round_trip() {
    for builtin in BUILTIN {
        let recipe = Recipe::load(builtin.name).unwrap();
        recipe.check().unwrap_or_else(|error| panic!("{}: {error}", builtin.name));
        let text = recipe.to_toml();
        assert_eq!(Recipe::parse(&text, "effective").unwrap(), recipe, "{text}");
        for word in ["command:", "cost:", "reached:"] {
            assert!(builtin.text.contains(&format!("# {word}")), "{} lacks '{word}'", builtin.name);
        }
        assert!(builtin.summary().len() > 20, "{}", builtin.name);
    }
    Recipe::default().check().unwrap();
}

#[test]
fn recipes_hold_the_papers_values() {
    let resnest = Recipe::load("resnest").unwrap();
    assert_eq!((resnest.schedule.epochs, resnest.schedule.warmup_epochs), (270, 5));
    assert_eq!((resnest.augment.mixup, resnest.regularization.drop_block), (0.2, 0.1));
    let mut large = resnest.clone();
    large.set_all(["batch_size=128", "grad-accum-steps=64"]).unwrap();
    assert_eq!(large.peak_lr(), 3.2, "the rate of the authors' command, 64 x 0.05");

    let standard = Recipe::load("resnest-standard").unwrap();
    assert_eq!(standard.augment.train_crop_mode, CropMode::ShorterSide);
    assert_eq!((standard.augment.shorter_side, standard.schedule.epochs), ([256, 480], 120));
    assert_eq!(standard.peak_lr(), 0.1);

    let tresnet = Recipe::load("tresnet").unwrap();
    assert_eq!((tresnet.schedule.epochs, tresnet.schedule.sched), (300, Schedule::Onecycle));
    assert_eq!(
        (tresnet.optimizer.opt, tresnet.augment.aa),
        (Optimizer::Sgdw, Augmentation::Auto(Policy::Original))
    );
    let finetune = Recipe::load("tresnet-finetune-448").unwrap();
    assert_eq!((finetune.schedule.epochs, finetune.model.img_size), (10, 448));

    let labels = Recipe::load("multi-label").unwrap();
    assert_eq!((labels.loss.gamma_neg, labels.loss.gamma_pos, labels.loss.prob_shift), (4.0, 0.0, 0.05));
    assert_eq!((labels.run_epochs(), labels.schedule.epochs), (40, 80));
    assert_eq!(Recipe::load("transfer").unwrap().schedule.epochs, 80);
    assert_eq!(Recipe::load("fine-grained").unwrap().loss.triplet, 1.0);
}

#[test]
fn a_key_can_be_named_without_its_table() {
    let all: Vec<&str> = tables().into_iter().flat_map(|(_, keys)| keys.iter().copied()).collect();
    let distinct: BTreeSet<&str> = all.iter().copied().collect();
    assert_eq!(all.len(), distinct.len(), "a key's name occurs twice");
    assert!(all.len() > 80 && tables().iter().all(|(_, keys)| !keys.is_empty()));
}

#[test]
fn values_are_overridden_by_key() {
    let mut recipe = Recipe::load("resnest").unwrap();
    recipe.set("lr", "0.05").unwrap();
    recipe.set("optimizer.weight-decay", "5e-5").unwrap();
    recipe.set("sched", "poly").unwrap();
    recipe.set("augment.aa", "rand-m9-n3-mstd0.5-inc1").unwrap();
    recipe.set("color_jitter", "[0.1, 0.2, 0.3, 0.05]").unwrap();
    recipe.set("mean", "[0.5, 0.5, 0.5]").unwrap();
    recipe.set("data_dir", "2012").unwrap();
    recipe.set("drop", "1e-1").unwrap();
    recipe.set("mixup", "0").unwrap();
    recipe.set("model", "\"tresnet_m\"").unwrap();
    recipe.set("nesterov", "false").unwrap();
    assert_eq!(recipe.peak_lr(), 0.05);
    assert_eq!((recipe.optimizer.weight_decay, recipe.schedule.sched), (5e-5, Schedule::Poly));
    let rand = Augmentation::Rand {
        operations: 3,
        magnitude: 9.0,
        deviation: 0.5,
        increasing: true,
        probability: 0.5,
    };
    assert_eq!(recipe.augment.aa, rand);
    assert_eq!((recipe.augment.color_jitter, recipe.augment.mixup), ([0.1, 0.2, 0.3, 0.05], 0.0));
    assert_eq!((recipe.data.mean, recipe.data.data_dir.as_deref()), (Some([0.5; 3]), Some("2012")));
    assert_eq!((recipe.model.model.as_str(), recipe.regularization.drop), ("tresnet_m", 0.1));
    recipe.set("lr", "none").unwrap();
    recipe.set("aa", "none").unwrap();
    assert_eq!((recipe.peak_lr(), recipe.augment.aa.clone()), (0.1, Augmentation::Off));
    let before = recipe.clone();
    recipe.set("epochs", "many").unwrap_err();
    assert_eq!(recipe, before, "a refused value changes nothing");
}

#[test]
fn a_misspelt_key_gets_the_nearest_one() {
    assert_eq!(
        error("[optimizer]\nweight_decy = 1e-4"),
        "my.toml: unknown key 'optimizer.weight_decy'; did you mean 'optimizer.weight_decay'?; docs/recipes.md lists all"
    );
    assert!(error("[augment]\nmix_up = 1").contains("did you mean 'augment.mixup'?"));
    assert!(
        error("[optimiser]\nlr = 1").contains("there is no table [optimiser]; did you mean 'optimizer'?")
    );
    assert!(
        error("[optimizer]\nmixup = 1")
            .contains("unknown key 'optimizer.mixup'; did you mean 'augment.mixup'?")
    );
    assert_eq!(error("lr = 1"), "my.toml: lr: belongs into the table [optimizer]");
    assert!(set_error("label-smoothing", "0.1").contains("did you mean 'regularization.smoothing'?"));
    assert!(set_error("xyz", "1").starts_with("--set: unknown key 'xyz'; docs/recipes.md lists all"));
    assert!(
        Recipe::load("resnets")
            .unwrap_err()
            .to_string()
            .contains("'resnets'; did you mean 'resnest'?; known are")
    );
    assert!(Recipe::load("/none/x.toml").unwrap_err().to_string().starts_with("/none/x.toml: "));
    let missing = Recipe::default().set_all(["lr"]).unwrap_err().to_string();
    assert_eq!(missing, "--set: lr: needs a value: --set key=value");
}

#[test]
fn wrong_values_are_named() {
    assert!(error("[optimizer]\nlr = ").starts_with("my.toml: line 2: "), "{}", error("[optimizer]\nlr = "));
    for (key, value, part) in [
        ("epochs", "1.5", "schedule.epochs: invalid type: floating point"),
        ("epochs", "-1", "schedule.epochs: invalid value: integer `-1`"),
        ("sched", "cosin", "schedule.sched: unknown variant `cosin`, expected one of `cosine`"),
        ("aa", "rand-x", "augment.aa: 'rand-x' is not RandAugment as timm writes it"),
        ("aa", "trivial", "augment.aa: 'trivial' is none of none, original"),
        ("color_jitter", "[1]", "augment.color_jitter: must be a number, or a list of 3 or 4 numbers"),
        ("epochs", "none", "schedule.epochs: invalid type: string"),
        ("nesterov", "yes", "optimizer.nesterov: invalid type: string"),
    ] {
        let message = set_error(key, value);
        assert!(message.contains(part) && !message.contains('\n'), "{key}={value}: {message}");
    }
}

#[test]
fn settings_out_of_range_or_at_odds_are_refused() {
    for (settings, part) in [
        ("lr=0", "optimizer.lr is 0; it must be above 0"),
        ("smoothing=1", "regularization.smoothing is 1; it must be at least 0 and below 1"),
        ("hflip=1.5", "augment.hflip is 1.5; it must lie between 0 and 1"),
        ("hflip=nan", "augment.hflip is NaN"),
        ("scale=[0.5,0.1]", "augment.scale is [0.5, 0.1]; it must ascend"),
        ("batch_size=0", "data.batch_size is 0; it must be at least 1"),
        ("img_size=4", "model.img_size is 4"),
        ("freeze=6", "model.freeze is 6; a backbone has 5 parts"),
        ("freeze=2", "would freeze random weights"),
        ("epochs=5", "leave nothing of 5 epochs"),
        ("epochs=0 warmup_epochs=0", "schedule.epochs is 0"),
        ("stop_epoch=500", "behind the last epoch"),
        ("min_lr=1", "schedule.min_lr is 1; it must lie between 0 and 0.1"),
        ("loss=asymmetric", "does not go with the asymmetric loss"),
        ("loss=asymmetric smoothing=0 mixup=0.2", "set mixup=0 and cutmix=0"),
        ("triplet=1 cutmix=1", "needs images of one class each"),
        ("triplet=1 loss=asymmetric smoothing=0", "is for one class per image"),
        ("mixup=1 batch_size=1", "must be at least 2 for mixup"),
        ("nesterov=true momentum=0", "needs a momentum above 0"),
        ("nesterov=true opt=adamw", "is for SGD"),
        ("pretrained=true initial_checkpoint=a.pth", "exclude each other"),
        ("sched=onecycle pct_start=0", "schedule.pct_start must lie between 0 and 1"),
        ("sched=step decay_milestones=[3,2]", "must ascend"),
        (
            "train_crop_mode=shorter-side img_size=300",
            "starts at 256, but the crop (img_size) needs 300 pixels",
        ),
        ("samples_per_class=300", "more than batch_size (256)"),
        ("std=[0,1,1]", "every value must be above 0"),
        ("checkpoint_hist=0", "run.checkpoint_hist is 0"),
    ] {
        let mut recipe = Recipe::default();
        recipe.set_all(settings.split(' ')).unwrap();
        let message = recipe.check().expect_err(settings).to_string();
        assert!(message.starts_with("recipe: ") && message.contains(part), "{settings}: {message}");
    }
}

/// A value as the page writes it: numbers without a needless fraction, texts without quotes.
fn number_or_text(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Float(number) => number.to_string(),
        other => other.to_string(),
    }
}

fn normal(written: &str) -> String {
    written.parse::<f64>().map_or_else(|_| written.to_owned(), |number| number.to_string())
}

#[test]
fn every_key_and_table_stands_in_the_documentation() {
    let page = include_str!("../../../docs/recipes.md");
    for (table, keys) in tables() {
        assert!(page.contains(&format!("[{table}]")), "docs/recipes.md lacks the table [{table}]");
        for key in keys {
            let mut rows = page.lines().filter_map(|line| line.strip_prefix(&format!("| `{key}` | ")));
            let (written, _) = rows.next().and_then(|row| row.split_once(" |")).unwrap_or_default();
            let written = written.split('`').nth(1);
            let default =
                toml::Table::try_from(Recipe::default()).unwrap()[table].get(*key).map(number_or_text);
            // A jitter of one number stands for three.
            let default = default.map(|text| text.replace("[0.4, 0.4, 0.4, 0.0]", "0.4"));
            assert_eq!(written.map(normal), default, "default of {table}.{key} in docs/recipes.md");
        }
    }
    for builtin in BUILTIN {
        assert!(page.contains(&format!("`{}`", builtin.name)), "docs/recipes.md lacks {}", builtin.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_refused_in_one_line(text in ".{0,200}") {
        if let Err(error) = Recipe::parse(&text, "x") {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }

    #[test]
    fn numbers_survive_the_effective_recipe(lr in 1e-12_f64..1e3, decay in 0.0_f64..1.0, seed in 0_u64..1 << 63) {
        let mut recipe = Recipe::default();
        recipe.optimizer.lr = Some(lr);
        recipe.optimizer.weight_decay = decay;
        recipe.run.seed = seed;
        prop_assert_eq!(Recipe::parse(&recipe.to_toml(), "x").unwrap(), recipe);
    }
}
