//! The tables of a recipe: every key with its type, default, unit and meaning.
//!
//! Keys have timm's names where timm has them, and each key's name is unique among all tables, so that it can be given
//! without its table (`--lr 0.1`, `--set lr=0.1`).

use serde::{Deserialize, Serialize};

use super::values::{
    Augmentation, CropMode, EvalMetric, Loss, MapFormat, MixMode, MixPairing, Optimizer, PolicyPlace,
    RemoveMode, Scaling, Schedule, StepKind, TrainInterpolation, color_jitter,
};

/// `[model]`: which network, and from where its weights come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelTable {
    /// The network's name, as `cardinal models` lists it. Default `resnest50d`.
    pub model: String,
    /// Start from the published weights of that name. Default false.
    pub pretrained: bool,
    /// Start from the weights in this file (safetensors, or PyTorch's); the classifier is left out where its number of
    /// classes differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_checkpoint: Option<String>,
    /// Outputs of the classifier; without it as many as the data has classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_classes: Option<usize>,
    /// Side of the training crop and of the evaluation crop, in pixels. Default 224.
    pub img_size: usize,
    /// Start the last batch norm of every residual block at gamma 0 (ResNeSt section 5.2). Default true.
    pub zero_init_last: bool,
    /// How many parts of the backbone stay as they are, counted from the input: 1 is the stem, 2 stem and first stage,
    /// up to 5 for all but the classifier. Default 0.
    pub freeze: usize,
}

impl Default for ModelTable {
    fn default() -> Self {
        Self {
            model: "resnest50d".into(),
            pretrained: false,
            initial_checkpoint: None,
            num_classes: None,
            img_size: 224,
            zero_init_last: true,
            freeze: 0,
        }
    }
}

/// `[data]`: where the images are, how they are read and evaluated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataTable {
    /// The folder or file of the data set; without it the embedded digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<String>,
    /// The split to train on. Default `train`.
    pub train_split: String,
    /// The split to evaluate on. Default `val`.
    pub val_split: String,
    /// The list of classes, one a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_map: Option<String>,
    /// Images per step (before accumulation). Default 256.
    pub batch_size: usize,
    /// Images per step of the evaluation; without it `batch_size`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_batch_size: Option<usize>,
    /// Threads that prepare images; without it one per core, 0 prepares them in the loop itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<usize>,
    /// The most memory for prepared batches, in MiB. Default 1024; one batch is always prepared.
    pub prefetch_mib: usize,
    /// Stop at the first broken image instead of leaving it out. Default false.
    pub strict: bool,
    /// How many images of one class follow each other, so that the triplet loss finds pairs in every batch; 0 shuffles
    /// freely. Default 0.
    pub samples_per_class: usize,
    /// Mean of red, green and blue, 0 to 1; without it the network's own (0 for TResNet).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<[f64; 3]>,
    /// Standard deviation of red, green and blue, 0 to 1; without it the network's own (1 for TResNet).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<[f64; 3]>,
    /// Evaluation: the share of the resized image's side that the crop keeps; without it the network's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop_pct: Option<f64>,
    /// Evaluation: `center`, `squash` or `border`; without it the network's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop_mode: Option<String>,
    /// Evaluation: the resize filter (`bilinear`, `bicubic`, ...); without it the network's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interpolation: Option<String>,
}

impl Default for DataTable {
    fn default() -> Self {
        Self {
            data_dir: None,
            train_split: "train".into(),
            val_split: "val".into(),
            class_map: None,
            batch_size: 256,
            validation_batch_size: None,
            workers: None,
            prefetch_mib: 1024,
            strict: false,
            samples_per_class: 0,
            mean: None,
            std: None,
            crop_pct: None,
            crop_mode: None,
            interpolation: None,
        }
    }
}

/// `[augment]`: what happens to the training images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AugmentTable {
    /// No augmentation at all: training images are prepared as evaluation's. Default false.
    pub no_aug: bool,
    /// How the crop is found. Default `rrc`.
    pub train_crop_mode: CropMode,
    /// `rrc`: least and largest share of the image's area. Default `[0.08, 1.0]`.
    pub scale: [f64; 2],
    /// `rrc`: least and largest width over height. Default `[0.75, 1.3333333333333333]`.
    pub ratio: [f64; 2],
    /// `shorter-side`: least and largest length that the shorter side is resized to, in pixels. Default `[256, 480]`.
    pub shorter_side: [u32; 2],
    /// `pad`: pixels added on each side before the crop (CIFAR's and the digits' shift). Default 4.
    pub pad: u32,
    /// The resize filter, or one of two at random. Default `random`.
    pub train_interpolation: TrainInterpolation,
    /// Chance of a horizontal flip. Default 0.5.
    pub hflip: f64,
    /// Chance of a vertical flip. Default 0.
    pub vflip: f64,
    /// Brightness, contrast, saturation and hue jitter: a number for the first three, or a list of 3 or 4. Default 0.4.
    #[serde(deserialize_with = "color_jitter::deserialize", serialize_with = "color_jitter::serialize")]
    pub color_jitter: [f64; 4],
    /// Standard deviation of AlexNet's PCA lighting noise. Default 0 (off).
    pub pca_lighting: f64,
    /// AutoAugment or RandAugment, with timm's names (`original`, `v0`, `cifar10`, `rand-m9-n2-mstd0.5-inc1`). Default
    /// `none`.
    pub aa: Augmentation,
    /// Whether that comes before the crop or after it. Default `after`.
    pub aa_place: PolicyPlace,
    /// Side of the square that Cutout blanks, as a share of the image's. Default 0 (off).
    pub cutout: f64,
    /// Chance that random erasing blanks a rectangle. Default 0.
    pub reprob: f64,
    /// What random erasing fills it with. Default `const`.
    pub remode: RemoveMode,
    /// The most rectangles that random erasing blanks. Default 1.
    pub recount: u32,
    /// Mixup: alpha of the Beta distribution (ResNeSt section 5.2: 0.2). Default 0 (off).
    pub mixup: f64,
    /// CutMix: alpha of the Beta distribution. Default 0 (off).
    pub cutmix: f64,
    /// Chance that a batch is mixed. Default 1.
    pub mixup_prob: f64,
    /// Chance of CutMix where both are on. Default 0.5.
    pub mixup_switch_prob: f64,
    /// Which images are mixed. Default `reversed`.
    pub mixup_pairing: MixPairing,
    /// One share for the batch, or one for each image. Default `batch`.
    pub mixup_mode: MixMode,
    /// The epoch from which nothing is mixed any more; 0 mixes to the end. Default 0.
    pub mixup_off_epoch: usize,
}

impl Default for AugmentTable {
    fn default() -> Self {
        Self {
            no_aug: false,
            train_crop_mode: CropMode::Rrc,
            scale: [0.08, 1.0],
            ratio: [3.0 / 4.0, 4.0 / 3.0],
            shorter_side: [256, 480],
            pad: 4,
            train_interpolation: TrainInterpolation::Random,
            hflip: 0.5,
            vflip: 0.0,
            color_jitter: [0.4, 0.4, 0.4, 0.0],
            pca_lighting: 0.0,
            aa: Augmentation::default(),
            aa_place: PolicyPlace::After,
            cutout: 0.0,
            reprob: 0.0,
            remode: RemoveMode::Const,
            recount: 1,
            mixup: 0.0,
            cutmix: 0.0,
            mixup_prob: 1.0,
            mixup_switch_prob: 0.5,
            mixup_pairing: MixPairing::Reversed,
            mixup_mode: MixMode::Batch,
            mixup_off_epoch: 0,
        }
    }
}

/// `[regularization]`: what keeps the network from learning the images by heart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegularizationTable {
    /// Label smoothing: the true class gets `1 - smoothing`, the others share it (ResNeSt equation 4). Default 0.1.
    pub smoothing: f64,
    /// Dropout before the classifier. Default 0.
    pub drop: f64,
    /// Stochastic depth at the last block; earlier blocks have less. Default 0.
    pub drop_path: f64,
    /// DropBlock in the last two stages, reached linearly over the epochs. Default 0.
    pub drop_block: f64,
}

impl Default for RegularizationTable {
    fn default() -> Self {
        Self { smoothing: 0.1, drop: 0.0, drop_path: 0.0, drop_block: 0.0 }
    }
}

/// `[loss]`: what is minimised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossTable {
    /// The loss. Default `cross-entropy`.
    pub loss: Loss,
    /// `asymmetric`: how fast easy negatives fade. Default 4.
    pub gamma_neg: f64,
    /// `asymmetric`: how fast easy positives fade. Default 0.
    pub gamma_pos: f64,
    /// `asymmetric`: the probability up to which a negative costs nothing. Default 0.05.
    pub prob_shift: f64,
    /// `bce`: soft targets above this count as 1, others as 0; without it they stay soft.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bce_target_thresh: Option<f64>,
    /// Weight of the weighted soft-margin triplet loss on the embeddings (TResNet section 4.1). Default 0 (off).
    pub triplet: f64,
}

impl Default for LossTable {
    fn default() -> Self {
        Self {
            loss: Loss::CrossEntropy,
            gamma_neg: 4.0,
            gamma_pos: 0.0,
            prob_shift: 0.05,
            bce_target_thresh: None,
            triplet: 0.0,
        }
    }
}

/// `[optimizer]`: how a step is taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerTable {
    /// The optimizer. Default `sgd`.
    pub opt: Optimizer,
    /// The peak learning rate; without it `lr_base`, scaled with the batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// The peak learning rate at a batch of `lr_base_size` (ResNeSt section 5.2: 0.1 at 256). Default 0.1.
    pub lr_base: f64,
    /// The batch that `lr_base` is for. Default 256.
    pub lr_base_size: usize,
    /// How the rate grows with the batch; without it linearly for SGD, with the square root for Adam.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr_base_scale: Option<Scaling>,
    /// Momentum (SGD). Default 0.9.
    pub momentum: f64,
    /// Nesterov's momentum (SGD). Default false.
    pub nesterov: bool,
    /// Decay rates of Adam's two means. Default `[0.9, 0.999]`.
    pub opt_betas: [f64; 2],
    /// Adam's epsilon. Default 1e-8.
    pub opt_eps: f64,
    /// Weight decay: added to the gradient (`sgd`, `adam`), or decoupled from it (`sgdw`, `adamw`). Default 1e-4.
    pub weight_decay: f64,
    /// Leave norms and biases out of the weight decay. Default true.
    pub filter_bias_and_bn: bool,
    /// The largest norm of all gradients together; without it they are not clipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_grad: Option<f64>,
    /// Batches whose gradients are averaged into one step. Default 1.
    pub grad_accum_steps: usize,
}

impl Default for OptimizerTable {
    fn default() -> Self {
        Self {
            opt: Optimizer::Sgd,
            lr: None,
            lr_base: 0.1,
            lr_base_size: 256,
            lr_base_scale: None,
            momentum: 0.9,
            nesterov: false,
            opt_betas: [0.9, 0.999],
            opt_eps: 1e-8,
            weight_decay: 1e-4,
            filter_bias_and_bn: true,
            clip_grad: None,
            grad_accum_steps: 1,
        }
    }
}

/// `[schedule]`: how long, and the learning rate on the way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleTable {
    /// Passes over the data. Default 120.
    pub epochs: usize,
    /// Stop after this many epochs of the schedule; 0 runs it to its end. Default 0.
    pub stop_epoch: usize,
    /// The shape of the learning rate. Default `cosine`.
    pub sched: Schedule,
    /// Epochs of linear warm-up. Default 5.
    pub warmup_epochs: usize,
    /// Learning rate at the start of the warm-up. Default 0.
    pub warmup_lr: f64,
    /// `cosine`, `poly`: the schedule starts behind the warm-up, from its peak, instead of under it. Default true.
    pub warmup_prefix: bool,
    /// `cosine`, `poly`: learning rate at the end. Default 0.
    pub min_lr: f64,
    /// Epochs at `min_lr` behind the schedule; they count among `epochs`. Default 0.
    pub cooldown_epochs: usize,
    /// `step`: what the rate is multiplied by at every milestone. Default 0.1.
    pub decay_rate: f64,
    /// `step`: the epochs at which it is. Default `[30, 60, 90]`.
    pub decay_milestones: Vec<usize>,
    /// `poly`: the power. Default 0.9.
    pub power: f64,
    /// `onecycle`: the share of the steps in which the rate rises. Default 0.3.
    pub pct_start: f64,
    /// `onecycle`: peak over start. Default 25.
    pub div_factor: f64,
    /// `onecycle`: start over end. Default 1e4.
    pub final_div_factor: f64,
    /// `onecycle`: move the momentum (SGD) or the first beta (Adam) against the rate. Default false.
    pub cycle_momentum: bool,
    /// `onecycle`: the momentum at the peak of the rate. Default 0.85.
    pub base_momentum: f64,
    /// `onecycle`: the momentum at start and end. Default 0.95.
    pub max_momentum: f64,
}

impl Default for ScheduleTable {
    fn default() -> Self {
        Self {
            epochs: 120,
            stop_epoch: 0,
            sched: Schedule::Cosine,
            warmup_epochs: 5,
            warmup_lr: 0.0,
            warmup_prefix: true,
            min_lr: 0.0,
            cooldown_epochs: 0,
            decay_rate: 0.1,
            decay_milestones: vec![30, 60, 90],
            power: 0.9,
            pct_start: 0.3,
            div_factor: 25.0,
            final_div_factor: 1e4,
            cycle_momentum: false,
            base_momentum: 0.85,
            max_momentum: 0.95,
        }
    }
}

/// `[ema]`: the moving average of the weights, which is evaluated beside them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmaTable {
    /// Keep a moving average. Default false.
    pub model_ema: bool,
    /// Share of the old average that a step keeps. Default 0.9998.
    pub model_ema_decay: f64,
    /// Let the share rise to that from 0, so that the first steps' weights fade. Default true.
    pub model_ema_warmup: bool,
}

impl Default for EmaTable {
    fn default() -> Self {
        Self { model_ema: false, model_ema_decay: 0.9998, model_ema_warmup: true }
    }
}

/// `[run]`: seeds, logs and checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunTable {
    /// Seed of the weights, the order and all augmentation. Default 42.
    pub seed: u64,
    /// Steps between two lines of the log. Default 50.
    pub log_interval: usize,
    /// Epochs between two evaluations; the last epoch is always evaluated. Default 1.
    pub val_interval: usize,
    /// Minutes between two recovery checkpoints; 0 writes none. Default 30.
    pub recovery_minutes: f64,
    /// How many of the best checkpoints are kept. Default 3.
    pub checkpoint_hist: usize,
    /// What the best checkpoint is the best in; without it `map` for several labels, else `top1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_metric: Option<EvalMetric>,
    /// What computes a step. Default `compiled`.
    pub step: StepKind,
    /// The format of a compiled step's maps; without it `bf16` where the processor multiplies that (AVX512-BF16, AMX), else
    /// `f32`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtype: Option<MapFormat>,
}

impl Default for RunTable {
    fn default() -> Self {
        Self {
            seed: 42,
            log_interval: 50,
            val_interval: 1,
            recovery_minutes: 30.0,
            checkpoint_hist: 3,
            eval_metric: None,
            step: StepKind::Compiled,
            dtype: None,
        }
    }
}
