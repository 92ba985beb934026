//! Ranges of the values, and which of them do not go together.

use super::{CropMode, Loss, MapFormat, Recipe, RecipeError, Schedule, StepKind};

fn invalid(key: &str, message: impl Into<String>) -> RecipeError {
    RecipeError::Invalid { key: key.into(), message: message.into() }
}

fn within(key: &str, value: f64, least: f64, most: f64) -> Result<(), RecipeError> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(invalid(key, format!("is {value}; it must lie between {least} and {most}")))
    }
}

fn below_one(key: &str, value: f64) -> Result<(), RecipeError> {
    if (0.0..1.0).contains(&value) {
        Ok(())
    } else {
        Err(invalid(key, format!("is {value}; it must be at least 0 and below 1")))
    }
}

fn at_least(key: &str, value: usize, least: usize) -> Result<(), RecipeError> {
    if value >= least {
        Ok(())
    } else {
        Err(invalid(key, format!("is {value}; it must be at least {least}")))
    }
}

fn ascending(key: &str, pair: [f64; 2], least: f64, most: f64) -> Result<(), RecipeError> {
    let [low, high] = pair;
    if least <= low && low <= high && high <= most && low > 0.0 {
        Ok(())
    } else {
        Err(invalid(key, format!("is [{low}, {high}]; it must ascend, above 0 and up to {most}")))
    }
}

impl Recipe {
    /// Checks the ranges of all values and that they go together.
    ///
    /// # Errors
    /// The first key that is wrong, with what would be right.
    pub fn check(&self) -> Result<(), RecipeError> {
        self.check_model_and_data()?;
        self.check_augment()?;
        self.check_loss()?;
        self.check_optimizer()?;
        self.check_schedule()?;
        self.check_run()
    }

    fn check_model_and_data(&self) -> Result<(), RecipeError> {
        let (model, data) = (&self.model, &self.data);
        if model.model.is_empty() {
            return Err(invalid("model.model", "is empty; 'cardinal models' lists the names"));
        }
        if model.pretrained && model.initial_checkpoint.is_some() {
            return Err(invalid("model.pretrained", "and initial_checkpoint exclude each other; give one"));
        }
        if !(8..=4096).contains(&model.img_size) {
            return Err(invalid(
                "model.img_size",
                format!("is {}; it must lie between 8 and 4096", model.img_size),
            ));
        }
        if model.num_classes.is_some_and(|classes| classes < 2) {
            return Err(invalid("model.num_classes", "must be at least 2"));
        }
        if model.freeze > 5 {
            return Err(invalid(
                "model.freeze",
                format!("is {}; a backbone has 5 parts: the stem and 4 stages", model.freeze),
            ));
        }
        if model.freeze > 0 && !model.pretrained && model.initial_checkpoint.is_none() {
            return Err(invalid(
                "model.freeze",
                "would freeze random weights; give pretrained or initial_checkpoint with it",
            ));
        }
        at_least("data.batch_size", data.batch_size, 1)?;
        at_least("data.validation_batch_size", data.validation_batch_size.unwrap_or(1), 1)?;
        at_least("data.prefetch_mib", data.prefetch_mib, 1)?;
        if data.workers.is_some_and(|workers| workers > 1024) {
            return Err(invalid("data.workers", "is more than 1024; 0 to the number of cores is useful"));
        }
        if data.samples_per_class > data.batch_size {
            return Err(invalid(
                "data.samples_per_class",
                format!("is {}, more than batch_size ({})", data.samples_per_class, data.batch_size),
            ));
        }
        if let Some(std) = data.std.filter(|std| std.iter().any(|value| *value <= 0.0 || !value.is_finite()))
        {
            return Err(invalid("data.std", format!("is {std:?}; every value must be above 0")));
        }
        if data.mean.is_some_and(|mean| mean.iter().any(|value| !value.is_finite())) {
            return Err(invalid("data.mean", "must be finite"));
        }
        within("data.crop_pct", data.crop_pct.unwrap_or(0.875), 0.01, 10.0)
    }

    fn check_augment(&self) -> Result<(), RecipeError> {
        let augment = &self.augment;
        ascending("augment.scale", augment.scale, 0.0, 1.0)?;
        ascending("augment.ratio", augment.ratio, 0.0, 100.0)?;
        let [low, high] = augment.shorter_side;
        let size = self.model.img_size as u32;
        if augment.train_crop_mode == CropMode::ShorterSide && !augment.no_aug {
            if low < size {
                return Err(invalid(
                    "augment.shorter_side",
                    format!("starts at {low}, but the crop (img_size) needs {size} pixels"),
                ));
            }
            ascending("augment.shorter_side", [f64::from(low), f64::from(high)], 1.0, 65_536.0)?;
        }
        if augment.train_crop_mode == CropMode::Pad && augment.pad >= size {
            return Err(invalid(
                "augment.pad",
                format!("is {}, not less than img_size ({size})", augment.pad),
            ));
        }
        for (key, value) in [
            ("augment.hflip", augment.hflip),
            ("augment.vflip", augment.vflip),
            ("augment.cutout", augment.cutout),
            ("augment.reprob", augment.reprob),
            ("augment.mixup_prob", augment.mixup_prob),
            ("augment.mixup_switch_prob", augment.mixup_switch_prob),
        ] {
            within(key, value, 0.0, 1.0)?;
        }
        let [.., hue] = augment.color_jitter;
        if augment.color_jitter.iter().any(|value| !(0.0..=10.0).contains(value)) || hue > 0.5 {
            return Err(invalid("augment.color_jitter", "must lie between 0 and 10 (hue: 0.5)"));
        }
        within("augment.pca_lighting", augment.pca_lighting, 0.0, 10.0)?;
        within("augment.mixup", augment.mixup, 0.0, 1000.0)?;
        within("augment.cutmix", augment.cutmix, 0.0, 1000.0)?;
        at_least("augment.recount", augment.recount as usize, 1)
    }

    fn check_loss(&self) -> Result<(), RecipeError> {
        let (loss, regularization) = (&self.loss, &self.regularization);
        below_one("regularization.smoothing", regularization.smoothing)?;
        below_one("regularization.drop", regularization.drop)?;
        below_one("regularization.drop_path", regularization.drop_path)?;
        below_one("regularization.drop_block", regularization.drop_block)?;
        within("loss.gamma_neg", loss.gamma_neg, 0.0, 100.0)?;
        within("loss.gamma_pos", loss.gamma_pos, 0.0, 100.0)?;
        below_one("loss.prob_shift", loss.prob_shift)?;
        within("loss.bce_target_thresh", loss.bce_target_thresh.unwrap_or(0.0), 0.0, 1.0)?;
        within("loss.triplet", loss.triplet, 0.0, 1000.0)?;
        let mixes = self.mixes();
        if loss.loss == Loss::Asymmetric && regularization.smoothing > 0.0 {
            return Err(invalid(
                "regularization.smoothing",
                "does not go with the asymmetric loss, whose targets are 0 or 1; set smoothing=0",
            ));
        }
        if loss.loss == Loss::Asymmetric && mixes {
            return Err(invalid(
                "augment.mixup",
                "does not go with the asymmetric loss, whose targets are 0 or 1; set mixup=0 and cutmix=0",
            ));
        }
        if loss.triplet > 0.0 && mixes {
            return Err(invalid(
                "loss.triplet",
                "needs images of one class each; set mixup=0 and cutmix=0, or triplet=0",
            ));
        }
        if loss.triplet > 0.0 && loss.loss == Loss::Asymmetric {
            return Err(invalid("loss.triplet", "is for one class per image; set triplet=0"));
        }
        if mixes && self.data.batch_size < 2 {
            return Err(invalid("data.batch_size", "must be at least 2 for mixup and CutMix"));
        }
        Ok(())
    }

    fn check_optimizer(&self) -> Result<(), RecipeError> {
        let optimizer = &self.optimizer;
        for (key, value) in [
            ("optimizer.lr", optimizer.lr.unwrap_or(1.0)),
            ("optimizer.lr_base", optimizer.lr_base),
            ("optimizer.opt_eps", optimizer.opt_eps),
            ("optimizer.clip_grad", optimizer.clip_grad.unwrap_or(1.0)),
        ] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(invalid(key, format!("is {value}; it must be above 0")));
            }
        }
        at_least("optimizer.lr_base_size", optimizer.lr_base_size, 1)?;
        at_least("optimizer.grad_accum_steps", optimizer.grad_accum_steps, 1)?;
        within("optimizer.weight_decay", optimizer.weight_decay, 0.0, 1.0)?;
        below_one("optimizer.momentum", optimizer.momentum)?;
        if optimizer.nesterov && optimizer.momentum == 0.0 {
            return Err(invalid("optimizer.nesterov", "needs a momentum above 0"));
        }
        if optimizer.nesterov && optimizer.opt.is_adam() {
            return Err(invalid("optimizer.nesterov", "is for SGD; set opt=sgd or nesterov=false"));
        }
        for beta in optimizer.opt_betas {
            below_one("optimizer.opt_betas", beta)?;
        }
        Ok(())
    }

    fn check_schedule(&self) -> Result<(), RecipeError> {
        let schedule = &self.schedule;
        at_least("schedule.epochs", schedule.epochs, 1)?;
        if schedule.stop_epoch > schedule.epochs {
            return Err(invalid(
                "schedule.stop_epoch",
                format!("is {}, behind the last epoch ({})", schedule.stop_epoch, schedule.epochs),
            ));
        }
        // One-cycle has its own rise, and the other keys mean nothing to it.
        if schedule.sched != Schedule::Onecycle
            && schedule.warmup_epochs + schedule.cooldown_epochs >= schedule.epochs.max(2)
        {
            return Err(invalid(
                "schedule.warmup_epochs",
                format!(
                    "({}) and cooldown_epochs ({}) leave nothing of {} epochs; raise epochs or lower them",
                    schedule.warmup_epochs, schedule.cooldown_epochs, schedule.epochs
                ),
            ));
        }
        within("schedule.warmup_lr", schedule.warmup_lr, 0.0, 1000.0)?;
        within("schedule.min_lr", schedule.min_lr, 0.0, self.peak_lr())?;
        within("schedule.decay_rate", schedule.decay_rate, 0.0, 1.0)?;
        within("schedule.power", schedule.power, 0.0, 100.0)?;
        below_one("schedule.base_momentum", schedule.base_momentum)?;
        below_one("schedule.max_momentum", schedule.max_momentum)?;
        if schedule.sched == Schedule::Step
            && schedule.decay_milestones.windows(2).any(|pair| pair[0] >= pair[1])
        {
            return Err(invalid("schedule.decay_milestones", "must ascend"));
        }
        if schedule.sched == Schedule::Onecycle {
            if !(schedule.pct_start > 0.0 && schedule.pct_start < 1.0) {
                return Err(invalid("schedule.pct_start", "must lie between 0 and 1, both excluded"));
            }
            for (key, value) in [
                ("schedule.div_factor", schedule.div_factor),
                ("schedule.final_div_factor", schedule.final_div_factor),
            ] {
                within(key, value, 1.0, 1e12)?;
            }
        }
        Ok(())
    }

    fn check_run(&self) -> Result<(), RecipeError> {
        below_one("ema.model_ema_decay", self.ema.model_ema_decay)?;
        at_least("run.log_interval", self.run.log_interval, 1)?;
        at_least("run.val_interval", self.run.val_interval, 1)?;
        at_least("run.checkpoint_hist", self.run.checkpoint_hist, 1)?;
        if self.run.step == StepKind::Eager && self.run.dtype == Some(MapFormat::Bf16) {
            return Err(invalid("run.dtype", "bf16 is for step=compiled; the eager step computes in f32"));
        }
        if i64::try_from(self.run.seed).is_err() {
            return Err(invalid("run.seed", "must be below 2^63"));
        }
        within("run.recovery_minutes", self.run.recovery_minutes, 0.0, 1e6)
    }

    /// Whether images of a batch are mixed.
    #[must_use]
    pub fn mixes(&self) -> bool {
        let augment = &self.augment;
        (augment.mixup > 0.0 || augment.cutmix > 0.0) && augment.mixup_prob > 0.0 && !augment.no_aug
    }
}
