use super::{Arch, Variant};
use crate::backbones::{ResNetConfig, Stem};
use crate::blocks::{Attention, BlockKind, Shortcut};

/// ResNeSt-50: radix 2, cardinality 1, width 64.
const RESNEST50: ResNetConfig = ResNetConfig {
    stem: Stem::Deep(32),
    block: BlockKind::Bottleneck,
    layers: [3, 4, 6, 3],
    planes: 64,
    cardinality: 1,
    base_width: 64,
    reduce_first: 1,
    shortcut: Shortcut::Pooled,
    attention: Attention::Split { radix: 2, avd_first: false },
    zero_init: true,
    ceil_pool: false,
};

const PAPER: &str = "arXiv:2004.08955 table 4";
const GLUON: &str = "GluonCV";
const ABLATION: &str = "arXiv:2004.08955 table 3";
const ABLATION_CODE: &str = "the authors' ablation page (not in the paper)";

const OURS: &str = "ours, for the embedded digits";

const fn deep(
    name: &'static str,
    layers: [usize; 4],
    stem: usize,
    size: usize,
    source: &'static str,
) -> Variant {
    let config = ResNetConfig { layers, stem: Stem::Deep(stem), ..RESNEST50 };
    Variant { name, arch: Arch::ResNet(config), size, source }
}

/// A "fast" variant, `radix`s`cardinality`x`base_width`d: the pooling comes before the 3x3.
const fn fast(
    name: &'static str,
    radix: usize,
    cardinality: usize,
    base_width: usize,
    source: &'static str,
) -> Variant {
    let attention = Attention::Split { radix, avd_first: true };
    let config = ResNetConfig { cardinality, base_width, attention, ..RESNEST50 };
    Variant { name, arch: Arch::ResNet(config), size: 224, source }
}

/// ResNeSt-14 at a quarter of the width.
const DIGITS: ResNetConfig =
    ResNetConfig { stem: Stem::Deep(8), layers: [1, 1, 1, 1], planes: 16, ..RESNEST50 };

pub(super) const VARIANTS: &[Variant] = &[
    deep("resnest14d", [1, 1, 1, 1], 32, 224, GLUON),
    deep("resnest26d", [2, 2, 2, 2], 32, 224, GLUON),
    deep("resnest50d", [3, 4, 6, 3], 32, 224, ABLATION),
    deep("resnest101e", [3, 4, 23, 3], 64, 256, PAPER),
    deep("resnest200e", [3, 24, 36, 3], 64, 320, PAPER),
    deep("resnest269e", [3, 30, 48, 8], 64, 416, PAPER),
    fast("resnest50_fast_1s1x64d", 1, 1, 64, ABLATION),
    fast("resnest50_fast_2s1x64d", 2, 1, 64, ABLATION),
    fast("resnest50_fast_4s1x64d", 4, 1, 64, ABLATION),
    fast("resnest50_fast_1s2x40d", 1, 2, 40, ABLATION_CODE),
    fast("resnest50_fast_2s2x40d", 2, 2, 40, ABLATION),
    fast("resnest50d_4s2x40d", 4, 2, 40, ABLATION_CODE),
    fast("resnest50d_1s4x24d", 1, 4, 24, ABLATION_CODE),
    Variant { name: "resnest14_digits", arch: Arch::ResNet(DIGITS), size: 32, source: OURS },
];
