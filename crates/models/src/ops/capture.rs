//! On the capture device every operator is one named node: its inputs, its output shapes and its scalars in the order
//! of the function's arguments.

use super::{Capture, Drop, PaperOps};
use burn::backend::ir::{CustomOpIr, OperationIr, ScalarIr, TensorIr};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Shape, TensorMetadata};
use burn_router::RouterClient;

/// Records the operator `name` and returns a tensor for each of `shapes`.
fn node(
    name: &'static str,
    inputs: Vec<FloatTensor<Capture>>,
    shapes: &[Shape],
    scalars: Vec<ScalarIr>,
) -> Vec<FloatTensor<Capture>> {
    let client = inputs[0].client.clone();
    let dtype = inputs[0].dtype();
    let inputs: Vec<_> = inputs.into_iter().map(burn_router::RouterTensor::into_ir).collect();
    let outputs: Vec<_> = shapes
        .iter()
        .map(|shape| TensorIr::uninit(client.create_empty_handle(), shape.clone(), dtype))
        .collect();
    client.register(OperationIr::Custom(CustomOpIr::with_scalars(name, &inputs, &outputs, scalars)))
}

/// [`node`] for the operators with one output.
fn single(
    name: &'static str,
    inputs: Vec<FloatTensor<Capture>>,
    shape: impl Into<Shape>,
    scalars: Vec<ScalarIr>,
) -> FloatTensor<Capture> {
    node(name, inputs, &[shape.into()], scalars).remove(0)
}

fn float(value: f64) -> ScalarIr {
    ScalarIr::Float(value)
}

fn int(value: usize) -> ScalarIr {
    ScalarIr::UInt(value as u64)
}

impl PaperOps for Capture {
    fn activated_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        var: FloatTensor<Self>,
        epsilon: f64,
        slope: f64,
    ) -> FloatTensor<Self> {
        let shape = x.shape();
        single("activated_norm", vec![x, weight, bias, mean, var], shape, vec![float(epsilon), float(slope)])
    }

    fn activated_norm_train(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f64,
        slope: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let shapes = [x.shape(), weight.shape(), weight.shape()];
        let scalars = vec![float(epsilon), float(slope)];
        let mut outputs = node("activated_norm_train", vec![x, weight, bias], &shapes, scalars).into_iter();
        let mut next = || outputs.next().expect("one tensor per shape was recorded");
        (next(), next(), next())
    }

    fn global_avg_pool(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let [n, c, _, _] = x.shape().dims();
        single("global_avg_pool", vec![x], [n, c, 1, 1], vec![])
    }

    fn radix_pool(x: FloatTensor<Self>, radix: usize) -> FloatTensor<Self> {
        let [n, c, _, _] = x.shape().dims();
        single("radix_pool", vec![x], [n, c / radix, 1, 1], vec![int(radix)])
    }

    fn split_attention(
        x: FloatTensor<Self>,
        logits: FloatTensor<Self>,
        radix: usize,
        cardinality: usize,
    ) -> FloatTensor<Self> {
        let [n, c, h, w] = x.shape().dims();
        let scalars = vec![int(radix), int(cardinality)];
        single("split_attention", vec![x, logits], [n, c / radix, h, w], scalars)
    }

    fn gate(x: FloatTensor<Self>, logits: FloatTensor<Self>, hard: bool) -> FloatTensor<Self> {
        let shape = x.shape();
        single("gate", vec![x, logits], shape, vec![ScalarIr::Bool(hard)])
    }

    fn blur_pool(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let [n, c, h, w] = x.shape().dims();
        single("blur_pool", vec![x], [n, c, h.div_ceil(2), w.div_ceil(2)], vec![])
    }

    fn space_to_depth(x: FloatTensor<Self>, block: usize) -> FloatTensor<Self> {
        let [n, c, h, w] = x.shape().dims();
        single("space_to_depth", vec![x], [n, c * block * block, h / block, w / block], vec![int(block)])
    }

    fn mark_drop(x: FloatTensor<Self>, what: Drop, rate: f64) -> FloatTensor<Self> {
        let shape = x.shape();
        let (name, side) = match what {
            Drop::Elements => ("drop_elements", None),
            Drop::Samples => ("drop_samples", None),
            Drop::Squares(side) => ("drop_squares", Some(int(side))),
        };
        single(name, vec![x], shape, [float(rate)].into_iter().chain(side).collect())
    }

    fn drop_block(
        x: FloatTensor<Self>,
        noise: FloatTensor<Self>,
        gamma: f64,
        block: usize,
    ) -> FloatTensor<Self> {
        let shape = x.shape();
        single("drop_block", vec![x, noise], shape, vec![float(gamma), int(block)])
    }
}
