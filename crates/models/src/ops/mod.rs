//! The operators that the two papers add, each behind one trait.
//!
//! Every operator has one definition: the default body of [`PaperOps`], written in Burn's primitive operations, so
//! that it runs on any backend and Burn can differentiate it. On the capture device the same call records a single
//! named node instead (`capture.rs`), so that a compiler never has to guess split attention back out of reshapes.
//!
//! The functions of this module are what networks call.

mod capture;
mod drop;

pub use drop::{Drop, drop_block, mark_drop};

#[cfg(feature = "gpu")]
use burn::backend::Cube;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::ops::ConvOptions;
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, Backend, Capture, Dispatch, Flex, Scalar, Shape, Slice, TensorData, TensorMetadata,
    backend_extension,
};
use burn::tensor::Tensor;

/// The papers' operators on a backend's primitive tensors. Use the functions of [this module](self) instead.
#[backend_extension(Flex, Capture, Autodiff, Cube: cfg(feature = "gpu"))]
pub trait PaperOps: Backend {
    /// See [`activated_norm`].
    fn activated_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        var: FloatTensor<Self>,
        epsilon: f64,
        slope: f64,
    ) -> FloatTensor<Self> {
        let std = Self::float_sqrt(Self::float_add_scalar(var, Scalar::Float(epsilon)));
        let scale = Self::float_div(weight, std);
        let shift = Self::float_sub(bias, Self::float_mul(mean, scale.clone()));
        let channel = Shape::new([1, x.shape()[1], 1, 1]);
        let y = Self::float_mul(x, Self::float_reshape(scale, channel.clone()));
        rectify::<Self>(Self::float_add(y, Self::float_reshape(shift, channel)), slope)
    }

    /// See [`activated_norm_train`].
    fn activated_norm_train(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f64,
        slope: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let channels = x.shape()[1];
        let per_channel = |v| Self::float_reshape(v, Shape::new([1, channels, 1, 1]));
        let mean = channel_mean::<Self>(x.clone());
        let centered = Self::float_sub(x, mean.clone());
        let var = channel_mean::<Self>(Self::float_mul(centered.clone(), centered.clone()));
        let std = Self::float_sqrt(Self::float_add_scalar(var.clone(), Scalar::Float(epsilon)));
        let scale = Self::float_div(per_channel(weight), std);
        let y = Self::float_add(Self::float_mul(centered, scale), per_channel(bias));
        let flat = |v| Self::float_reshape(v, Shape::new([channels]));
        (rectify::<Self>(y, slope), flat(mean), flat(var))
    }

    /// See [`global_avg_pool`].
    fn global_avg_pool(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let [n, c, h, w] = x.shape().dims();
        let flat = Self::float_reshape(x, Shape::new([n, c, h * w]));
        Self::float_reshape(Self::float_mean_dim(flat, 2), Shape::new([n, c, 1, 1]))
    }

    /// See [`radix_pool`].
    fn radix_pool(x: FloatTensor<Self>, radix: usize) -> FloatTensor<Self> {
        let pooled = Self::global_avg_pool(x);
        let [n, channels, _, _] = pooled.shape().dims();
        let c = channels / radix;
        let splits = Self::float_reshape(pooled, Shape::new([n, radix, c]));
        Self::float_reshape(Self::float_sum_dim(splits, 1), Shape::new([n, c, 1, 1]))
    }

    /// See [`split_attention`].
    fn split_attention(
        x: FloatTensor<Self>,
        logits: FloatTensor<Self>,
        radix: usize,
        cardinality: usize,
    ) -> FloatTensor<Self> {
        if radix == 1 {
            return Self::float_mul(x, Self::sigmoid(logits));
        }
        let [n, channels, h, w] = x.shape().dims();
        let c = channels / radix;
        // The logits are cardinality-major, the features radix-major: swapping the two aligns them.
        let per_group = Shape::new([n, cardinality, radix, c / cardinality]);
        let logits = Self::float_swap_dims(Self::float_reshape(logits, per_group), 1, 2);
        let weights = Self::float_reshape(Self::softmax(logits, 1), Shape::new([n, radix, c, 1]));
        let splits = Self::float_reshape(x, Shape::new([n, radix, c, h * w]));
        let sum = Self::float_sum_dim(Self::float_mul(splits, weights), 1);
        Self::float_reshape(sum, Shape::new([n, c, h, w]))
    }

    /// See [`gate`].
    fn gate(x: FloatTensor<Self>, logits: FloatTensor<Self>, hard: bool) -> FloatTensor<Self> {
        let weights = if hard {
            Self::hard_sigmoid(logits, Scalar::Float(1.0 / 6.0), Scalar::Float(0.5))
        } else {
            Self::sigmoid(logits)
        };
        Self::float_mul(x, weights)
    }

    /// See [`blur_pool`].
    fn blur_pool(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let channels = x.shape()[1];
        let padded = reflect_pad_1::<Self>(&reflect_pad_1::<Self>(&x, 2), 3);
        let binomial = [1.0f32, 2.0, 1.0];
        let filter: Vec<f32> =
            (0..channels * 9).map(|i| binomial[i % 9 / 3] * binomial[i % 3] / 16.0).collect();
        let filter = TensorData::new(filter, [channels, 1, 3, 3]);
        let filter = Self::float_from_data(filter, &padded.device());
        Self::conv2d(padded, filter, None, ConvOptions::new([2, 2], [0, 0], [1, 1], channels))
    }

    /// See [`space_to_depth`].
    fn space_to_depth(x: FloatTensor<Self>, block: usize) -> FloatTensor<Self> {
        let [n, c, h, w] = x.shape().dims();
        let (h, w) = (h / block, w / block);
        let x = Self::float_reshape(x, Shape::new([n, c, h, block, w, block]));
        let x = Self::float_permute(x, &[0, 3, 5, 1, 2, 4]);
        Self::float_reshape(x, Shape::new([n, c * block * block, h, w]))
    }

    /// See [`mark_drop`].
    fn mark_drop(x: FloatTensor<Self>, what: Drop, rate: f64) -> FloatTensor<Self> {
        let _ = (what, rate);
        x
    }

    /// See [`drop_block`].
    fn drop_block(
        x: FloatTensor<Self>,
        noise: FloatTensor<Self>,
        gamma: f64,
        block: usize,
    ) -> FloatTensor<Self> {
        // Seeds are 1 where the noise falls below gamma; a max pool grows each into a block.
        let above =
            Self::float_greater_equal_elem(noise, Scalar::Float(gamma), burn::backend::BoolDType::Native);
        let float = x.dtype().into();
        let keep = Self::bool_into_float(above, float);
        let seeds = Self::float_add_scalar(Self::float_neg(keep), Scalar::Float(1.0));
        let [_, _, h, w] = x.shape().dims();
        let dropped = Self::max_pool2d(seeds, [block, block], [1, 1], [block / 2, block / 2], [1, 1], false);
        // An even block makes the padded pool one row and column larger than its input.
        let window = [Slice::full(), Slice::full(), Slice::from(0..h), Slice::from(0..w)];
        let dropped = Self::float_slice(dropped, &window);
        let kept = Self::float_add_scalar(Self::float_neg(dropped), Scalar::Float(1.0));
        let share = Self::float_clamp_min(Self::float_mean(kept.clone()), Scalar::Float(1e-7));
        let share = Self::float_reshape(share, Shape::new([1, 1, 1, 1]));
        Self::float_mul(x, Self::float_div(kept, share))
    }
}

impl PaperOps for Flex {}
#[cfg(feature = "gpu")]
impl PaperOps for Cube {}
impl<B: PaperOps, C: CheckpointStrategy> PaperOps for Autodiff<B, C> {}

/// Leaky ReLU with the two slopes that have a cheaper form: 1 is the identity and 0 plain ReLU.
fn rectify<B: Backend>(x: FloatTensor<B>, slope: f64) -> FloatTensor<B> {
    if slope == 1.0 {
        x
    } else if slope == 0.0 {
        B::relu(x)
    } else {
        B::leaky_relu(x, Scalar::Float(slope))
    }
}

/// The mean of each channel, `[n, c, h, w]` -> `[1, c, 1, 1]`, one dimension after the other: a single sum over a
/// hundred thousand numbers, as `batch_norm_train` takes it, loses two digits in f32.
fn channel_mean<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    [3, 2, 0].into_iter().fold(x, |x, dim| B::float_mean_dim(x, dim))
}

/// Pads one row or column on either side of `dim` by mirroring about the edge element.
fn reflect_pad_1<B: Backend>(x: &FloatTensor<B>, dim: usize) -> FloatTensor<B> {
    let size = x.shape()[dim];
    let row = |i: usize| {
        let mut window = [Slice::full(); 4];
        window[dim] = Slice::from(i..i + 1);
        B::float_slice(x.clone(), &window)
    };
    let (first, last) = (row(1), row(size - 2));
    B::float_cat(vec![first, x.clone(), last], dim)
}

/// Batch norm with given statistics and leaky ReLU, as one operator (in-place activated batch norm, TResNet
/// section 2.1).
///
/// `y = leaky(weight * (x - mean) / sqrt(var + epsilon) + bias)`, where `leaky(v) = v` for `v >= 0` and `slope * v`
/// below. Slope 1 leaves the activation out and slope 0 is plain ReLU, so every batch norm of every network is this
/// operator.
///
/// # Shapes
///
/// - `x`: `[n, c, h, w]`; `weight`, `bias`, `mean`, `var`: `[c]`
/// - output: `[n, c, h, w]`
pub fn activated_norm(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    mean: Tensor<1>,
    var: Tensor<1>,
    epsilon: f64,
    slope: f64,
) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as PaperOps>::activated_norm(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        mean.into_dispatch(),
        var.into_dispatch(),
        epsilon,
        slope,
    ))
}

/// [`activated_norm`] with the statistics of the batch itself, which it returns: `(y, mean, biased variance)`.
///
/// # Shapes
///
/// - `x`: `[n, c, h, w]`; `weight`, `bias`: `[c]`
/// - output: `[n, c, h, w]`, `[c]`, `[c]`; the statistics carry no gradient
pub fn activated_norm_train(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f64,
    slope: f64,
) -> (Tensor<4>, Tensor<1>, Tensor<1>) {
    let (y, mean, var) = <Dispatch as PaperOps>::activated_norm_train(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        epsilon,
        slope,
    );
    (Tensor::from_dispatch(y), Tensor::from_dispatch(mean), Tensor::from_dispatch(var))
}

/// Fast global average pooling (TResNet section 2.2.3): `[n, c, h, w]` -> `[n, c, 1, 1]`.
pub fn global_avg_pool(x: Tensor<4>) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as PaperOps>::global_avg_pool(x.into_dispatch()))
}

/// Sums the `radix` splits and averages over space (ResNeSt equation 1): `[n, radix * c, h, w]` -> `[n, c, 1, 1]`.
///
/// Channels are radix-major: split `r` is the slice `r * c .. (r + 1) * c`.
pub fn radix_pool(x: Tensor<4>, radix: usize) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as PaperOps>::radix_pool(x.into_dispatch(), radix))
}

/// Weighs the `radix` splits by their attention and adds them (ResNeSt equations 2 and 3).
///
/// The weights are the softmax of `logits` over the splits; with radix 1 they are its sigmoid.
///
/// # Shapes
///
/// - `x`: `[n, radix * c, h, w]`, radix-major
/// - `logits`: `[n, radix * c, 1, 1]`, cardinality-major: channel `(k * radix + r) * c / cardinality + i` weighs
///   channel `i` of cardinal group `k` in split `r`
/// - output: `[n, c, h, w]`
pub fn split_attention(x: Tensor<4>, logits: Tensor<4>, radix: usize, cardinality: usize) -> Tensor<4> {
    let (x, logits) = (x.into_dispatch(), logits.into_dispatch());
    Tensor::from_dispatch(<Dispatch as PaperOps>::split_attention(x, logits, radix, cardinality))
}

/// Scales channels by the sigmoid of `logits` (squeeze-and-excitation; TResNet figure 3); `hard` takes the piecewise
/// linear sigmoid `clamp(v / 6 + 1 / 2, 0, 1)` of the mobile networks.
///
/// # Shapes
///
/// - `x`: `[n, c, h, w]`; `logits`: `[n, c, 1, 1]`
/// - output: `[n, c, h, w]`
pub fn gate(x: Tensor<4>, logits: Tensor<4>, hard: bool) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as PaperOps>::gate(x.into_dispatch(), logits.into_dispatch(), hard))
}

/// Anti-aliased downsampling by 2 (TResNet section 2.1, figure 2): the binomial filter `[1, 2, 1] / 4` in both
/// directions with reflected borders and stride 2.
///
/// # Shapes
///
/// - `x`: `[n, c, h, w]` with `h, w >= 2`
/// - output: `[n, c, ceil(h / 2), ceil(w / 2)]`
pub fn blur_pool(x: Tensor<4>) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as PaperOps>::blur_pool(x.into_dispatch()))
}

/// Space-to-depth (TResNet section 2.1 and appendix A): moves each `block` x `block` square of pixels into channels.
///
/// # Shapes
///
/// - `x`: `[n, c, h, w]`, `h` and `w` multiples of `block`
/// - output: `[n, block * block * c, h / block, w / block]`; channel `(dy * block + dx) * c + i` is channel `i` at
///   offset `(dy, dx)`
pub fn space_to_depth(x: Tensor<4>, block: usize) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as PaperOps>::space_to_depth(x.into_dispatch(), block))
}
