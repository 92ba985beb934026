use super::{Arch, Variant};
use crate::backbones::StageKind::{DepthwiseSeparable, InvertedResidual};
use crate::backbones::{EfficientNetConfig, FbNetBlock, FbNetConfig, MobileStage, StageKind};
use crate::blocks::MobileConvs;
use crate::layers::Activation::{self, HardSwish, Relu, Silu};

const TORCH: MobileConvs = MobileConvs { same_padding: false, epsilon: 1e-5 };
const TENSORFLOW: MobileConvs = MobileConvs { same_padding: true, epsilon: 1e-3 };

/// One of EfficientNet's stages: kernel, stride, expansion, output, with a quarter of the input in SE.
const fn efficient(
    kind: StageKind,
    repeats: usize,
    kernels: &'static [usize],
    stride: usize,
    expand: usize,
    out: usize,
) -> MobileStage {
    MobileStage { kind, repeats, kernels, stride, expand, parts: [1, 1], out, se: 0.25, activation: Silu }
}

const EFFICIENT: &[&[MobileStage]] = &[
    &[efficient(DepthwiseSeparable, 1, &[3], 1, 1, 16)],
    &[efficient(InvertedResidual, 2, &[3], 2, 6, 24)],
    &[efficient(InvertedResidual, 2, &[5], 2, 6, 40)],
    &[efficient(InvertedResidual, 3, &[3], 2, 6, 80)],
    &[efficient(InvertedResidual, 3, &[5], 1, 6, 112)],
    &[efficient(InvertedResidual, 4, &[5], 2, 6, 192)],
    &[efficient(InvertedResidual, 1, &[3], 1, 6, 320)],
];

const fn efficientnet(
    name: &'static str,
    width: f64,
    depth: f64,
    size: usize,
    convs: MobileConvs,
) -> Variant {
    let config = EfficientNetConfig {
        stages: EFFICIENT,
        width,
        depth,
        stem: 32,
        head: 1280,
        scale_head: true,
        activation: Silu,
        convs,
    };
    Variant { name, arch: Arch::EfficientNet(config), size, source: "arXiv:1905.11946" }
}

/// A run of MixNet's blocks.
const fn mix(
    repeats: usize,
    kernels: &'static [usize],
    stride: usize,
    expand: usize,
    parts: [usize; 2],
    out: usize,
    se: f64,
) -> MobileStage {
    // The stages without SE have ReLU, the others SiLU.
    let activation = if se > 0.0 { Silu } else { Relu };
    MobileStage { kind: InvertedResidual, repeats, kernels, stride, expand, parts, out, se, activation }
}

const fn mix_first(out: usize) -> MobileStage {
    MobileStage { kind: DepthwiseSeparable, ..mix(1, &[3], 1, 1, [1, 1], out, 0.0) }
}

const MIX_S: &[&[MobileStage]] = &[
    &[mix_first(16)],
    &[mix(1, &[3], 2, 6, [2, 2], 24, 0.0), mix(1, &[3], 1, 3, [2, 2], 24, 0.0)],
    &[mix(1, &[3, 5, 7], 2, 6, [1, 1], 40, 0.5), mix(3, &[3, 5], 1, 6, [2, 2], 40, 0.5)],
    &[mix(1, &[3, 5, 7], 2, 6, [1, 2], 80, 0.25), mix(2, &[3, 5], 1, 6, [1, 2], 80, 0.25)],
    &[mix(1, &[3, 5, 7], 1, 6, [2, 2], 120, 0.5), mix(2, &[3, 5, 7, 9], 1, 3, [2, 2], 120, 0.5)],
    &[mix(1, &[3, 5, 7, 9, 11], 2, 6, [1, 1], 200, 0.5), mix(2, &[3, 5, 7, 9], 1, 6, [1, 2], 200, 0.5)],
];

const MIX_M: &[&[MobileStage]] = &[
    &[mix_first(24)],
    &[mix(1, &[3, 5, 7], 2, 6, [2, 2], 32, 0.0), mix(1, &[3], 1, 3, [2, 2], 32, 0.0)],
    &[mix(1, &[3, 5, 7, 9], 2, 6, [1, 1], 40, 0.5), mix(3, &[3, 5], 1, 6, [2, 2], 40, 0.5)],
    &[mix(1, &[3, 5, 7], 2, 6, [1, 1], 80, 0.25), mix(3, &[3, 5, 7, 9], 1, 6, [2, 2], 80, 0.25)],
    &[mix(1, &[3], 1, 6, [1, 1], 120, 0.5), mix(3, &[3, 5, 7, 9], 1, 3, [2, 2], 120, 0.5)],
    &[mix(1, &[3, 5, 7, 9], 2, 6, [1, 1], 200, 0.5), mix(3, &[3, 5, 7, 9], 1, 6, [1, 2], 200, 0.5)],
];

const fn mixnet(
    name: &'static str,
    stages: &'static [&'static [MobileStage]],
    stem: usize,
    width: f64,
    convs: MobileConvs,
) -> Variant {
    let config = EfficientNetConfig {
        stages,
        width,
        depth: 1.0,
        stem,
        head: 1536,
        scale_head: false,
        activation: Relu,
        convs,
    };
    Variant { name, arch: Arch::EfficientNet(config), size: 224, source: "arXiv:1907.09595" }
}

/// A block of FBNetV2: kernel, depthwise width, output, stride, SE width, activation.
const fn fb(
    kernel: usize,
    mid: usize,
    out: usize,
    stride: usize,
    se: usize,
    activation: Activation,
) -> FbNetBlock {
    FbNetBlock::Conv { kernel, mid, out, stride, se, activation }
}

const FBNET_F1: &[FbNetBlock] = &[
    fb(5, 8, 8, 1, 0, Relu),
    fb(5, 48, 24, 2, 0, Relu),
    fb(5, 112, 24, 1, 0, Relu),
    fb(5, 128, 32, 2, 32, Relu),
    fb(5, 144, 24, 1, 40, Relu),
    fb(5, 136, 56, 2, 0, HardSwish),
    fb(3, 232, 56, 1, 0, HardSwish),
    fb(3, 288, 56, 1, 72, HardSwish),
    FbNetBlock::Skip { out: 80 },
    fb(5, 360, 80, 1, 88, HardSwish),
    fb(5, 144, 80, 1, 40, HardSwish),
    fb(3, 368, 144, 2, 96, HardSwish),
    fb(5, 840, 144, 1, 208, HardSwish),
    fb(5, 992, 144, 1, 248, HardSwish),
    FbNetBlock::Skip { out: 224 },
];

const FBNET_F4: &[FbNetBlock] = &[
    fb(3, 16, 16, 1, 0, HardSwish),
    fb(5, 88, 24, 2, 0, HardSwish),
    fb(5, 48, 24, 1, 0, HardSwish),
    fb(5, 48, 24, 1, 0, HardSwish),
    fb(5, 128, 32, 2, 32, Relu),
    fb(5, 112, 32, 1, 32, Relu),
    fb(5, 144, 32, 1, 40, Relu),
    fb(5, 144, 32, 1, 40, Relu),
    fb(5, 184, 64, 2, 0, HardSwish),
    fb(3, 136, 64, 1, 0, HardSwish),
    fb(3, 320, 104, 1, 0, HardSwish),
    fb(5, 264, 104, 1, 64, HardSwish),
    fb(5, 184, 104, 1, 48, HardSwish),
    fb(5, 392, 112, 1, 96, HardSwish),
    fb(3, 624, 184, 2, 160, HardSwish),
    fb(5, 520, 184, 1, 128, HardSwish),
    fb(5, 896, 184, 1, 224, HardSwish),
    FbNetBlock::Skip { out: 224 },
];

const fn fbnet(
    name: &'static str,
    stem: usize,
    blocks: &'static [FbNetBlock],
    last: usize,
    size: usize,
    radix: Option<usize>,
) -> Variant {
    let config = FbNetConfig { stem, blocks, tail: [1344, last], radix };
    // The paper does not say how many splits each block of SA-FBNetV2 has: two everywhere is a reconstruction.
    let source = if radix.is_none() { "arXiv:2004.05565" } else { "arXiv:2004.08955 table 2, reconstructed" };
    Variant { name, arch: Arch::FbNet(config), size, source }
}

pub(super) const VARIANTS: &[Variant] = &[
    efficientnet("efficientnet_b0", 1.0, 1.0, 224, TORCH),
    efficientnet("efficientnet_b1", 1.0, 1.1, 240, TORCH),
    efficientnet("efficientnet_b2", 1.1, 1.2, 256, TORCH),
    efficientnet("efficientnet_b3", 1.2, 1.4, 288, TORCH),
    efficientnet("efficientnet_b4", 1.4, 1.8, 320, TORCH),
    efficientnet("efficientnet_b5", 1.6, 2.2, 448, TORCH),
    efficientnet("efficientnet_b6", 1.8, 2.6, 528, TORCH),
    efficientnet("efficientnet_b7", 2.0, 3.1, 600, TORCH),
    efficientnet("tf_efficientnet_b0", 1.0, 1.0, 224, TENSORFLOW),
    efficientnet("tf_efficientnet_b1", 1.0, 1.1, 240, TENSORFLOW),
    efficientnet("tf_efficientnet_b2", 1.1, 1.2, 260, TENSORFLOW),
    efficientnet("tf_efficientnet_b3", 1.2, 1.4, 300, TENSORFLOW),
    efficientnet("tf_efficientnet_b4", 1.4, 1.8, 380, TENSORFLOW),
    efficientnet("tf_efficientnet_b5", 1.6, 2.2, 456, TENSORFLOW),
    efficientnet("tf_efficientnet_b6", 1.8, 2.6, 528, TENSORFLOW),
    efficientnet("tf_efficientnet_b7", 2.0, 3.1, 600, TENSORFLOW),
    mixnet("mixnet_s", MIX_S, 16, 1.0, TORCH),
    mixnet("mixnet_m", MIX_M, 24, 1.0, TORCH),
    mixnet("mixnet_l", MIX_M, 24, 1.3, TORCH),
    mixnet("tf_mixnet_s", MIX_S, 16, 1.0, TENSORFLOW),
    mixnet("tf_mixnet_m", MIX_M, 24, 1.0, TENSORFLOW),
    mixnet("tf_mixnet_l", MIX_M, 24, 1.3, TENSORFLOW),
    fbnet("fbnetv2_f1", 8, FBNET_F1, 1600, 128, None),
    fbnet("fbnetv2_f3", 8, FBNET_F1, 1984, 192, None),
    fbnet("fbnetv2_f4", 16, FBNET_F4, 1984, 224, None),
    fbnet("sa_fbnetv2_f1", 8, FBNET_F1, 1600, 128, Some(2)),
    fbnet("sa_fbnetv2_f3", 8, FBNET_F1, 1984, 192, Some(2)),
    fbnet("sa_fbnetv2_f4", 16, FBNET_F4, 1984, 224, Some(2)),
];
