//! The blocks that networks are stacked from.

mod mbconv;
mod resnet;
mod selective_kernel;
mod split_attention;
mod squeeze_excite;

pub use mbconv::{
    ChannelConv, DepthwiseSeparable, InvertedResidual, MobileBlockConfig, MobileConvs, SplitInvertedResidual,
};
pub use resnet::{Attention, Block, BlockConfig, BlockKind, Shortcut};
pub use selective_kernel::{SelectiveKernel, SelectiveKernelConfig};
pub use split_attention::{SplitAttention, SplitAttentionConfig, SplitConv};
pub use squeeze_excite::{MobileSqueezeExcite, SqueezeExcite};

/// Rounds `value` to the nearest multiple of `divisor`, but not below `floor`, and one step up if that would lose
/// more than the share `1 - limit` of it: the rule by which mobile networks and SE layers choose channels.
pub(crate) fn round_channels(value: f64, divisor: usize, floor: usize, limit: f64) -> usize {
    let rounded = ((value + divisor as f64 / 2.0) as usize / divisor * divisor).max(floor);
    if (rounded as f64) < limit * value { rounded + divisor } else { rounded }
}

#[cfg(test)]
mod tests {
    use super::round_channels;

    #[test]
    fn channels_round_to_the_nearest_multiple_but_never_lose_a_tenth() {
        assert_eq!(round_channels(31.2, 8, 8, 0.9), 32);
        assert_eq!(round_channels(41.6, 8, 8, 0.9), 40);
        assert_eq!(round_channels(11.0, 8, 8, 0.9), 16, "8 would lose more than a tenth");
        assert_eq!(round_channels(11.0, 8, 8, 0.0), 8);
        assert_eq!(round_channels(1.0, 8, 8, 0.9), 8);
    }
}
