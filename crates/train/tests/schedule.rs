//! Schedules beside PyTorch's and timm's, number by number.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use cardinal_train::recipe::{Recipe, Scaling, Schedule};
use cardinal_train::schedule::LrSchedule;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize)]
struct Case {
    recipe: Map<String, Value>,
    steps_per_epoch: usize,
    rates: Vec<(f64, Option<f64>)>,
}

fn recipe(settings: &str) -> Recipe {
    let mut recipe = Recipe::default();
    recipe.set_all(settings.split_whitespace()).unwrap();
    recipe.check().unwrap();
    recipe
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-12 * b.abs().max(1e-6)
}

#[test]
fn rates_are_those_of_pytorch_and_timm() {
    // tools/train_fixtures.py
    let cases: Vec<Case> =
        serde_json::from_str(include_str!("../../../fixtures/train/schedules.json")).unwrap();
    assert!(cases.len() > 10);
    for case in cases {
        let mut recipe = Recipe::default();
        for (key, value) in &case.recipe {
            recipe.set(key, &value.to_string()).unwrap();
        }
        recipe.check().unwrap();
        let schedule = LrSchedule::new(&recipe, case.steps_per_epoch);
        assert_eq!(schedule.total_steps() as usize, case.rates.len());
        for (step, (lr, momentum)) in case.rates.iter().enumerate() {
            let rates = schedule.at(step as u64);
            assert!(close(rates.lr, *lr), "{:?}, step {step}: {} instead of {lr}", case.recipe, rates.lr);
            assert_eq!(rates.momentum.is_some(), momentum.is_some());
            let moved = rates.momentum.zip(*momentum).is_none_or(|(ours, theirs)| close(ours, theirs));
            assert!(
                moved,
                "{:?}, step {step}: momentum {:?} instead of {momentum:?}",
                case.recipe, rates.momentum
            );
        }
    }
}

#[test]
fn the_rate_follows_the_batch() {
    assert_eq!(recipe("batch_size=256").peak_lr(), 0.1);
    assert_eq!(recipe("batch_size=2048").peak_lr(), 0.8);
    assert_eq!(recipe("batch_size=128 grad_accum_steps=4").peak_lr(), 0.2);
    assert_eq!(
        recipe("batch_size=1024 opt=adamw lr_base=0.001").peak_lr(),
        0.002,
        "timm's square root for Adam"
    );
    assert_eq!(recipe("batch_size=1024 opt=adamw lr_base=0.001 lr_base_scale=linear").peak_lr(), 0.004);
    assert_eq!(recipe("batch_size=1024 lr_base_scale=sqrt").optimizer.lr_base_scale, Some(Scaling::Sqrt));
    assert_eq!(recipe("batch_size=1024 lr=0.3").peak_lr(), 0.3, "a given rate is taken as it is");
}

#[test]
fn resnests_rate_rises_to_the_scaled_rate_in_five_epochs_and_falls_to_zero() {
    let mut recipe = Recipe::load("resnest").unwrap();
    recipe.set("batch_size", "8192").unwrap();
    let schedule = LrSchedule::new(&recipe, 156);
    assert_eq!(schedule.at(0).lr, 0.0);
    assert!(close(schedule.at(5 * 156).lr, 3.2));
    assert!(close(schedule.at(5 * 78).lr, 1.6));
    assert!(close(schedule.at((5 + 265 / 2) * 156 + 78).lr, 1.6), "half way down");
    assert!(schedule.at(270 * 156 - 1).lr < 1e-6 && schedule.at(270 * 156 + 9).lr == 0.0);
}

#[test]
fn drop_block_rises_linearly_and_the_average_starts_as_a_copy() {
    let recipe = Recipe::load("resnest").unwrap();
    assert!(close(recipe.drop_block_rate(0), 0.1 / 270.0));
    assert!(close(recipe.drop_block_rate(134), 0.05) && close(recipe.drop_block_rate(269), 0.1));
    let average = self::recipe("model_ema=true model_ema_decay=0.99");
    assert_eq!((average.ema_decay(0), average.ema_decay(1_000_000)), (0.0, 0.99));
    assert!(close(average.ema_decay(7), 0.75), "1 - 8^(-2/3)");
    let sudden = self::recipe("model_ema=true model_ema_decay=0.99 model_ema_warmup=false");
    assert_eq!((sudden.ema_decay(0), sudden.ema_decay(1)), (0.0, 0.99));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_schedule_stays_within_its_bounds(
        kind in 0_usize..5, epochs in 3_usize..30, steps in 1_usize..50, warmup in 0_usize..2, prefix in any::<bool>(),
    ) {
        let mut recipe = Recipe::default();
        recipe.schedule.sched =
            [Schedule::Cosine, Schedule::Onecycle, Schedule::Poly, Schedule::Step, Schedule::Constant][kind];
        recipe.schedule.epochs = epochs;
        recipe.schedule.warmup_epochs = warmup;
        recipe.schedule.warmup_prefix = prefix;
        recipe.check().unwrap();
        let schedule = LrSchedule::new(&recipe, steps);
        for step in 0..schedule.total_steps() + 3 {
            let lr = schedule.at(step).lr;
            prop_assert!((0.0..=0.1 + 1e-12).contains(&lr), "{:?} step {}: {}", recipe.schedule.sched, step, lr);
        }
    }
}
