use super::{Arch, Variant};
use crate::backbones::{SqueezeRule, TResNetConfig, TResNetStem};
use crate::blocks::BlockKind::{self, Basic, Bottleneck};

/// TResNet-M as the published weights have it.
const TRESNET_M: TResNetConfig = TResNetConfig {
    stem: TResNetStem::SpaceToDepth { kernel: 3 },
    blocks: [Basic, Basic, Bottleneck, Bottleneck],
    layers: [3, 4, 11, 3],
    width: 64,
    stem_slope: 1e-2,
    slope: 1e-3,
    squeeze: SqueezeRule::Weights,
    anti_alias: true,
};

const V2: [BlockKind; 4] = [Bottleneck; 4];

/// The forms of the paper where they differ from the weights: 1x1 stem, and SE reduced by 4 and 8 with no floor.
const PAPER_FORM: TResNetConfig =
    TResNetConfig { stem: TResNetStem::SpaceToDepth { kernel: 1 }, squeeze: SqueezeRule::Paper, ..TRESNET_M };

/// Plain ResNet-50 in this skeleton: where the ablation starts.
const ABLATION_START: TResNetConfig = TResNetConfig {
    stem: TResNetStem::Conv7,
    blocks: [Bottleneck; 4],
    layers: [3, 4, 6, 3],
    stem_slope: 0.0,
    slope: 0.0,
    squeeze: SqueezeRule::None,
    anti_alias: false,
    ..TRESNET_M
};
const ABLATION_STEM: TResNetConfig = TResNetConfig { stem: TRESNET_M.stem, ..ABLATION_START };
const ABLATION_BLOCKS: TResNetConfig =
    TResNetConfig { blocks: TRESNET_M.blocks, layers: TRESNET_M.layers, ..ABLATION_STEM };
const ABLATION_ABN: TResNetConfig =
    TResNetConfig { stem_slope: TRESNET_M.stem_slope, slope: TRESNET_M.slope, ..ABLATION_BLOCKS };
const ABLATION_SE: TResNetConfig = TResNetConfig { squeeze: TRESNET_M.squeeze, ..ABLATION_ABN };

/// One block in each stage, at a quarter of the width.
const DIGITS: TResNetConfig = TResNetConfig { layers: [1, 1, 1, 1], width: 16, ..TRESNET_M };

const OURS: &str = "ours, for the embedded digits";
const WEIGHTS: &str = "arXiv:2003.13630 table 2, as in the authors' code";
const PAPER: &str = "arXiv:2003.13630 table 2, as printed";
const ABLATION: &str = "arXiv:2003.13630 table 4";

const fn row(name: &'static str, config: TResNetConfig, source: &'static str) -> Variant {
    Variant { name, arch: Arch::TResNet(config), size: 224, source }
}

pub(super) const VARIANTS: &[Variant] = &[
    row("tresnet_m", TRESNET_M, WEIGHTS),
    row("tresnet_l", TResNetConfig { layers: [4, 5, 18, 3], width: 76, ..TRESNET_M }, WEIGHTS),
    row("tresnet_xl", TResNetConfig { layers: [4, 5, 24, 3], width: 83, ..TRESNET_M }, WEIGHTS),
    row(
        "tresnet_v2_l",
        TResNetConfig { layers: [3, 4, 23, 3], blocks: V2, ..TRESNET_M },
        "ImageNet21K repository",
    ),
    // The Stanford Cars weights of the TResNet repository belong to a v2 with these slopes.
    row(
        "tresnet_v2_l_slope1e6",
        TResNetConfig { layers: [3, 4, 23, 3], blocks: V2, stem_slope: 1e-6, slope: 1e-6, ..TRESNET_M },
        "TResNet repository",
    ),
    row("tresnet_m_paper", PAPER_FORM, PAPER),
    row("tresnet_l_paper", TResNetConfig { layers: [4, 5, 18, 3], width: 76, ..PAPER_FORM }, PAPER),
    row("tresnet_xl_paper", TResNetConfig { layers: [4, 5, 24, 3], width: 84, ..PAPER_FORM }, PAPER),
    row("tresnet_ablation_resnet50", ABLATION_START, ABLATION),
    row("tresnet_ablation_stem", ABLATION_STEM, ABLATION),
    row("tresnet_ablation_blocks", ABLATION_BLOCKS, ABLATION),
    row("tresnet_ablation_abn", ABLATION_ABN, ABLATION),
    row("tresnet_ablation_se", ABLATION_SE, ABLATION),
    row("tresnet_ablation_aa", TRESNET_M, ABLATION),
    Variant { name: "tresnet_digits", arch: Arch::TResNet(DIGITS), size: 32, source: OURS },
];
