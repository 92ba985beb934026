use burn::module::Module;
use burn::tensor::{
    Tensor,
    module::{avg_pool2d, max_pool2d},
    ops::{AvgPoolOptions, MaxPoolOptions},
};

/// The pooling layers of the networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// Max over 3x3 with stride 2 and padding 1: ResNet's stem.
    MaxStem,
    /// Max over 3x3 with stride 2, no padding and the last window cut short: the first SENets' stem.
    MaxStemCeil,
    /// Average over 3x3 with padding 1, its zeros counted: `avd` in ResNeSt (section 5.1).
    AverageDown {
        /// Step in both directions.
        stride: usize,
    },
    /// Average over `stride x stride`, the last window cut short at odd sizes and averaged over what it holds:
    /// ResNet-D's shortcut.
    AverageShortcut {
        /// Window and step in both directions.
        stride: usize,
    },
}

/// A pooling layer: a place without parameters in a sequence whose indices are parameter names.
#[derive(Module, Debug)]
pub struct Pool {
    #[module(skip)]
    kind: PoolKind,
}

impl Pool {
    /// Builds the layer.
    pub fn new(kind: PoolKind) -> Self {
        Self { kind }
    }

    /// `[n, c, h, w]` -> `[n, c, ceil(h / stride), ceil(w / stride)]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match self.kind {
            PoolKind::MaxStem => {
                let options = MaxPoolOptions::new([3, 3]).with_stride([2, 2]).with_padding([1, 1]);
                max_pool2d(x, options)
            }
            PoolKind::MaxStemCeil => {
                max_pool2d(x, MaxPoolOptions::new([3, 3]).with_stride([2, 2]).with_ceil_mode(true))
            }
            PoolKind::AverageDown { stride } => {
                let options = AvgPoolOptions::new([3, 3]).with_stride([stride; 2]).with_padding([1, 1]);
                avg_pool2d(x, options)
            }
            PoolKind::AverageShortcut { stride: 1 } => x,
            PoolKind::AverageShortcut { stride } => {
                let options = AvgPoolOptions::new([stride; 2])
                    .with_stride([stride; 2])
                    .with_ceil_mode(true)
                    .with_count_include_pad(false);
                avg_pool2d(x, options)
            }
        }
    }
}
