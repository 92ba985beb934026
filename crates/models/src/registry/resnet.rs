use super::{Arch, Variant};
use crate::backbones::{RegNetAttention, RegNetConfig, ResNetConfig, Stem};
use crate::blocks::{Attention, BlockKind, Shortcut};

const RESNET50: ResNetConfig = ResNetConfig {
    planes: 64,
    stem: Stem::Conv7,
    block: BlockKind::Bottleneck,
    layers: [3, 4, 6, 3],
    cardinality: 1,
    base_width: 64,
    reduce_first: 1,
    shortcut: Shortcut::Strided { kernel: 1 },
    attention: Attention::None,
    zero_init: true,
    ceil_pool: false,
};
const RESNET50D: ResNetConfig = ResNetConfig { stem: Stem::Deep(32), shortcut: Shortcut::Pooled, ..RESNET50 };
const RESNEXT50: ResNetConfig = ResNetConfig { cardinality: 32, base_width: 4, ..RESNET50 };
const SENET154: ResNetConfig = ResNetConfig {
    stem: Stem::Deep(64),
    layers: L152,
    cardinality: 64,
    base_width: 4,
    reduce_first: 2,
    shortcut: Shortcut::Strided { kernel: 3 },
    attention: Attention::SqueezeExcite,
    ..RESNET50
};

const L18: [usize; 4] = [2, 2, 2, 2];
const L34: [usize; 4] = [3, 4, 6, 3];
const L101: [usize; 4] = [3, 4, 23, 3];
const L152: [usize; 4] = [3, 8, 36, 3];

const RESNET: &str = "arXiv:1512.03385";
const RESNET_D: &str = "arXiv:1812.01187";
const RESNEXT: &str = "arXiv:1611.05431";
const SENET: &str = "arXiv:1709.01507";
const SKNET: &str = "arXiv:1903.06586";
const REGNET: &str = "arXiv:2003.13678";
const TABLE1: &str = "arXiv:2004.08955 table 1";

const fn row(name: &'static str, config: ResNetConfig, source: &'static str) -> Variant {
    Variant { name, arch: Arch::ResNet(config), size: 224, source }
}

const fn basic(config: ResNetConfig, layers: [usize; 4]) -> ResNetConfig {
    ResNetConfig { block: BlockKind::Basic, layers, ..config }
}

const fn with_layers(config: ResNetConfig, layers: [usize; 4]) -> ResNetConfig {
    ResNetConfig { layers, ..config }
}

const fn squeeze(config: ResNetConfig) -> ResNetConfig {
    ResNetConfig { attention: Attention::SqueezeExcite, ..config }
}

/// Selective kernels; timm starts these without zeroed norms.
const fn selective(config: ResNetConfig, split_input: bool, reduction: f64, divisor: usize) -> ResNetConfig {
    let attention = Attention::SelectiveKernel { split_input, reduction, divisor };
    ResNetConfig { attention, zero_init: false, ..config }
}

const REGNETY_040: RegNetConfig = RegNetConfig {
    widths: [128, 192, 512, 1088],
    depths: [2, 6, 12, 2],
    groups: [2, 3, 8, 17],
    attention: RegNetAttention::SqueezeInput,
};

const REGNET_SA_50: RegNetConfig = RegNetConfig {
    widths: [216, 288, 720, 1344],
    depths: [3, 4, 6, 3],
    groups: [27, 18, 45, 42],
    attention: RegNetAttention::Heads([6, 24, 18, 28]),
};

const fn regnet(name: &'static str, config: RegNetConfig, source: &'static str) -> Variant {
    Variant { name, arch: Arch::RegNet(config), size: 224, source }
}

pub(super) const VARIANTS: &[Variant] = &[
    row("resnet18", basic(RESNET50, L18), RESNET),
    row("resnet34", basic(RESNET50, L34), RESNET),
    row("resnet26", with_layers(RESNET50, L18), "timm"),
    row("resnet50", RESNET50, RESNET),
    row("resnet101", with_layers(RESNET50, L101), RESNET),
    row("resnet152", with_layers(RESNET50, L152), RESNET),
    row("resnet18d", basic(RESNET50D, L18), RESNET_D),
    row("resnet34d", basic(RESNET50D, L34), RESNET_D),
    row("resnet26d", with_layers(RESNET50D, L18), RESNET_D),
    row("resnet50d", RESNET50D, RESNET_D),
    row("resnet101d", with_layers(RESNET50D, L101), RESNET_D),
    row("resnet152d", with_layers(RESNET50D, L152), RESNET_D),
    row("resnext50_32x4d", RESNEXT50, RESNEXT),
    row("resnext101_32x4d", with_layers(RESNEXT50, L101), RESNEXT),
    row("resnext101_32x8d", ResNetConfig { base_width: 8, ..with_layers(RESNEXT50, L101) }, RESNEXT),
    row("seresnet50", squeeze(RESNET50), SENET),
    row("seresnet101", squeeze(with_layers(RESNET50, L101)), SENET),
    row("seresnext50_32x4d", squeeze(RESNEXT50), SENET),
    row("seresnext101_32x4d", squeeze(with_layers(RESNEXT50, L101)), SENET),
    row("senet154", SENET154, SENET),
    row("legacy_senet154", ResNetConfig { ceil_pool: true, zero_init: false, ..SENET154 }, SENET),
    row("skresnet18", selective(basic(RESNET50, L18), true, 0.125, 16), "timm"),
    row("skresnet34", selective(basic(RESNET50, L34), true, 0.125, 16), "timm"),
    row("skresnet50", selective(RESNET50, true, 0.0625, 8), "timm"),
    row("skresnet50d", selective(RESNET50D, true, 0.0625, 8), "timm"),
    row("skresnext50_32x4d", selective(RESNEXT50, false, 0.0625, 32), SKNET),
    regnet(
        "regnety_032",
        RegNetConfig {
            widths: [72, 216, 576, 1512],
            depths: [2, 5, 13, 1],
            groups: [3, 9, 24, 63],
            ..REGNETY_040
        },
        REGNET,
    ),
    regnet("regnety_040", REGNETY_040, REGNET),
    regnet(
        "regnety_080",
        RegNetConfig {
            widths: [168, 448, 896, 2016],
            depths: [2, 4, 10, 1],
            groups: [3, 8, 16, 36],
            ..REGNETY_040
        },
        REGNET,
    ),
    regnet(
        "regnety_160",
        RegNetConfig {
            widths: [224, 448, 1232, 3024],
            depths: [2, 4, 11, 1],
            groups: [2, 4, 11, 27],
            ..REGNETY_040
        },
        REGNET,
    ),
    regnet(
        "regnety_040_paper",
        RegNetConfig { attention: RegNetAttention::SqueezeWidth, ..REGNETY_040 },
        TABLE1,
    ),
    regnet("regnet_sa_50", REGNET_SA_50, TABLE1),
];
