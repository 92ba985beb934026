use super::{constant, conv_graph, operators, written};
use cardinal_bridge::onnx::proto::tensor_shape_proto::dimension::Value::{DimParam, DimValue};
use cardinal_bridge::onnx::proto::{ValueInfoProto, type_proto};
use cardinal_bridge::onnx::{OnnxError, Options, Sizes, export, run};
use cardinal_engine::graph::{Batch, Conv2d, Graph, Op, Window};
use cardinal_engine::reference;

/// `batch`, `4`, or `?`, for each size.
fn dims(info: &ValueInfoProto) -> String {
    let Some(type_proto::Value::TensorType(tensor)) = &info.r#type.as_ref().unwrap().value else { panic!() };
    let dims = tensor.shape.as_ref().unwrap().dim.iter().map(|dim| match &dim.value {
        Some(DimValue(size)) => size.to_string(),
        Some(DimParam(name)) => name.clone(),
        None => "?".into(),
    });
    dims.collect::<Vec<_>>().join(" ")
}

#[test]
fn the_batch_is_free_or_a_number() {
    let graph = conv_graph(3, [8, 6]);
    let shapes = |batch| {
        let graph = written(&graph, &Options { batch, ..Options::default() }).graph.unwrap();
        [dims(&graph.input[0]), dims(&graph.output[0])]
    };
    assert_eq!(shapes(Batch::Free), ["batch 3 8 6", "batch 4 4 3"]);
    assert_eq!(shapes(Batch::Fixed(5)), ["5 3 8 6", "5 4 4 3"]);
}

/// Runs the file of a network at a size that no graph was captured for.
fn runs_at_another_size(make: impl Fn([usize; 2]) -> Graph, expected: &[&str]) {
    let others = vec![make([10, 14]), make([13, 11])];
    let model = written(&make([8, 8]), &Options { sizes: Sizes::Free(others), ..Options::default() });
    assert_eq!(operators(&model), expected);
    assert_eq!(dims(&model.graph.as_ref().unwrap().input[0]), "batch 3 height width");
    for size @ [h, w] in [[8, 8], [15, 12], [9, 20]] {
        let x = super::numbers(5, 2 * 3 * h * w);
        let shape = vec![2, 3, h, w];
        let input = reference::Tensor::new(shape.clone(), x.clone()).unwrap();
        let expected = reference::evaluate(&make(size), &[input]).unwrap();
        let found = run::evaluate(&model, run::Tensor::new(shape, x).unwrap(), 1).unwrap();
        assert_eq!(found[0].shape, expected[0].shape, "{h}x{w}");
        let pairs = found[0].floats().unwrap().iter().zip(&expected[0].data);
        pairs.for_each(|(a, b)| assert!((a - b).abs() < 1e-5, "{h}x{w}: {a} and {b}"));
    }
}

#[test]
fn plain_convolutions_take_any_size() {
    runs_at_another_size(|size| conv_graph(3, size), &["Conv"]);
}

#[test]
fn poolings_in_ceil_mode_take_any_size() {
    let make = |[h, w]: [usize; 2]| {
        let mut graph = Graph::new("net");
        let x = graph.input("input", [1, 3, h, w]);
        let window = Window { kernel: [2; 2], stride: [2; 2], padding: [0; 4], dilation: [1; 2], ceil: true };
        let y = graph.push("", Op::AvgPool { window, count_padding: false }, &[x]).unwrap();
        graph.output(y);
        graph
    };
    runs_at_another_size(make, &["AveragePool"]);
}

/// A convolution with the padding of TensorFlow's `SAME`.
fn same_padded([h, w]: [usize; 2], shift: usize) -> Graph {
    let mut graph = Graph::new("net");
    let x = graph.input("input", [1, 3, h, w]);
    let weight = constant(&mut graph, "conv.weight", &[4, 3, 3, 3]);
    let total = |size: usize| ((size.div_ceil(2) - 1) * 2 + 3).saturating_sub(size);
    let [(top, bottom), (left, right)] = [h, w].map(|size| (total(size) / 2, total(size) - total(size) / 2));
    let padding = [top + shift, left, bottom, right];
    let conv = Conv2d { stride: [2; 2], padding, ..Conv2d::plain() };
    let y = graph.push("conv", Op::Conv2d(conv), &[x, weight]).unwrap();
    graph.output(y);
    graph
}

#[test]
fn padding_by_tensorflows_rule_takes_any_size() {
    runs_at_another_size(|size| same_padded(size, 0), &["Conv"]);
}

#[test]
fn what_depends_on_the_size_is_refused_with_its_place() {
    let refused = |make: &dyn Fn([usize; 2]) -> Graph, others: &[[usize; 2]]| {
        let others = others.iter().map(|&size| make(size)).collect();
        let options = Options { sizes: Sizes::Free(others), ..Options::default() };
        match export(&make([8, 8]), &options).unwrap_err() {
            error @ OnnxError::Size { .. } => error.to_string(),
            other => panic!("{other}"),
        }
    };
    let text = refused(&|size| same_padded(size, 1), &[[10, 14], [13, 11]]);
    assert!(text.contains("conv (conv2d)") && text.contains("no rule"), "{text}");
    // A mean over windows as large as the map is a number at each size.
    let text = refused(
        &|[h, w]| {
            let mut graph = Graph::new("net");
            let x = graph.input("input", [1, 3, h, w]);
            let window =
                Window { kernel: [h, 1], stride: [1; 2], padding: [0; 4], dilation: [1; 2], ceil: false };
            let y = graph.push("pool", Op::AvgPool { window, count_padding: true }, &[x]).unwrap();
            graph.output(y);
            graph
        },
        &[[10, 14], [13, 11]],
    );
    assert!(text.contains("pool (avg_pool)"), "{text}");
    let text = refused(&|size| conv_graph(3, size), &[[9, 9]]);
    assert!(text.contains("two other sizes"), "{text}");
}

#[test]
fn space_to_depth_is_onnxs_own_where_the_size_is_free() {
    let make = |[h, w]: [usize; 2]| {
        let mut graph = Graph::new("net");
        let x = graph.input("input", [1, 3, h, w]);
        let y = graph.push("", Op::SpaceToDepth { block: 2 }, &[x]).unwrap();
        graph.output(y);
        graph
    };
    let others = vec![make([10, 14]), make([12, 6])];
    let model = written(&make([8, 8]), &Options { sizes: Sizes::Free(others), ..Options::default() });
    assert_eq!(operators(&model), ["SpaceToDepth"]);
}
