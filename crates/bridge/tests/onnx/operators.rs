use super::{constant, numbers, operators, same, written};
use cardinal_bridge::onnx::{OnnxError, Options, export};
use cardinal_engine::Activation;
use cardinal_engine::graph::{Batch, Binary, Conv2d, Drop, Graph, Op, Unary, Window};

/// `op` on a map of `shape` and constants of these shapes; a variance must be positive, so constants named `var` are.
fn graph(op: Op, shape: &[usize], constants: &[(&str, &[usize])]) -> Graph {
    let mut graph = Graph::new("net");
    let mut inputs = vec![graph.input("input", shape)];
    for (name, shape) in constants {
        let id = match *name {
            "var" => {
                let data: Vec<f32> =
                    numbers(3, shape.iter().product()).iter().map(|x| x.abs() + 0.5).collect();
                graph.constant(*name, *shape, data).unwrap()
            }
            name => constant(&mut graph, name, shape),
        };
        inputs.push(id);
    }
    let y = graph.push_all("layer1.0", op, &inputs).unwrap();
    y.into_iter().for_each(|y| graph.output(y));
    graph
}

/// That `op` becomes `expected`, with the batch free and fixed, and computes the same.
fn check(op: &Op, shape: &[usize], constants: &[(&str, &[usize])], expected: &[&str]) {
    let graph = graph(op.clone(), shape, constants);
    assert_eq!(operators(&same(&graph, &Options::default(), 3)), expected, "{op:?}");
    let fixed = Options { batch: Batch::Fixed(2), opset: 21, ..Options::default() };
    assert_eq!(operators(&same(&graph, &fixed, 2)), expected, "{op:?}");
}

const MAP: &[usize] = &[1, 8, 7, 6];

#[test]
fn convolutions_with_what_follows_them() {
    let conv =
        Conv2d { stride: [2, 1], padding: [1, 0, 2, 1], dilation: [1, 2], groups: 2, ..Conv2d::plain() };
    check(&Op::Conv2d(conv.clone()), MAP, &[("weight", &[4, 4, 3, 2])], &["Conv"]);
    let conv = Conv2d {
        padding: [1; 4],
        bias: true,
        activation: Activation::Silu,
        pool: Some(2),
        ..Conv2d::plain()
    };
    let constants: &[(&str, &[usize])] = &[("weight", &[8, 8, 3, 3]), ("bias", &[8])];
    let pooled = ["GlobalAveragePool", "Reshape", "ReduceSum", "Reshape"];
    let expected: Vec<_> = ["Conv", "Sigmoid", "Mul"].into_iter().chain(pooled).collect();
    check(&Op::Conv2d(conv.clone()), MAP, constants, &expected);
    let mut graph = Graph::new("net");
    let x = graph.input("input", MAP);
    let [weight, bias] =
        [("weight", &[8, 8, 3, 3][..]), ("bias", &[8])].map(|(n, s)| constant(&mut graph, n, s));
    let conv = Conv2d { residual: true, activation: Activation::Relu, pool: None, ..conv };
    let y = graph.push("", Op::Conv2d(conv), &[x, weight, bias, x]).unwrap();
    graph.output(y);
    assert_eq!(operators(&same(&graph, &Options::default(), 2)), ["Conv", "Add", "Relu"]);
}

#[test]
fn linear_layers() {
    let op = |bias, activation| Op::Linear { bias, activation };
    check(&op(true, Activation::Relu), &[1, 5], &[("weight", &[3, 5]), ("bias", &[3])], &["Gemm", "Relu"]);
    check(&op(false, Activation::Identity), &[1, 5], &[("weight", &[3, 5])], &["Gemm"]);
    let constants: &[(&str, &[usize])] = &[("weight", &[3, 6]), ("bias", &[3])];
    check(&op(true, Activation::Identity), MAP, constants, &["Transpose", "MatMul", "Add"]);
}

#[test]
fn norms_with_their_slope() {
    let constants: &[(&str, &[usize])] = &[("weight", &[8]), ("bias", &[8]), ("mean", &[8]), ("var", &[8])];
    let op = |slope| Op::ActivatedNorm { epsilon: 1e-3, slope };
    check(&op(1.0), MAP, constants, &["BatchNormalization"]);
    check(&op(0.0), MAP, constants, &["BatchNormalization", "Relu"]);
    check(&op(0.001), MAP, constants, &["BatchNormalization", "LeakyRelu"]);
}

#[test]
fn functions_of_one_number() {
    let activation = |activation| Op::Unary(Unary::Activation(activation));
    for (op, expected) in [
        (activation(Activation::Identity), &["Identity"][..]),
        (activation(Activation::Relu), &["Relu"]),
        (activation(Activation::LeakyRelu(0.01)), &["LeakyRelu"]),
        (activation(Activation::Relu6), &["Clip"]),
        (activation(Activation::Sigmoid), &["Sigmoid"]),
        (activation(Activation::Silu), &["Sigmoid", "Mul"]),
        (activation(Activation::HardSigmoid), &["HardSigmoid"]),
        (activation(Activation::HardSwish), &["HardSwish"]),
        (Op::Unary(Unary::Neg), &["Neg"]),
        (Op::Unary(Unary::Exp), &["Exp"]),
        (Op::Unary(Unary::Recip), &["Reciprocal"]),
        (Op::Unary(Unary::AddScalar(0.5)), &["Add"]),
        (Op::Unary(Unary::MulScalar(3.0)), &["Mul"]),
        (Op::Unary(Unary::Clamp(-0.5, 0.25)), &["Clip"]),
        (Op::Unary(Unary::Clamp(f32::NEG_INFINITY, 0.25)), &["Clip"]),
        (Op::Unary(Unary::Clamp(0.1, f32::MAX)), &["Clip"]),
    ] {
        check(&op, MAP, &[], expected);
    }
    // Bounds that bound nothing are not there.
    let model = written(&graph(Op::Unary(Unary::Clamp(0.1, f32::MAX)), MAP, &[]), &Options::default());
    assert_eq!(model.graph.unwrap().node[0].input.len(), 2);
}

#[test]
fn functions_of_two_numbers_repeat_sizes_of_one() {
    for (op, name) in [(Binary::Add, "Add"), (Binary::Sub, "Sub"), (Binary::Mul, "Mul"), (Binary::Div, "Div")]
    {
        check(&Op::Binary(op), MAP, &[("other", &[1, 8, 1, 1])], &[name]);
    }
}

#[test]
fn poolings() {
    let window = Window { kernel: [3, 3], stride: [2, 2], padding: [1; 4], dilation: [1; 2], ceil: false };
    check(&Op::MaxPool(window.clone()), MAP, &[], &["MaxPool"]);
    for count_padding in [false, true] {
        check(&Op::AvgPool { window: window.clone(), count_padding }, MAP, &[], &["AveragePool"]);
    }
    // Windows that only ceil mode keeps: written as padding, so that readers need not agree about them.
    let ceil = Window { kernel: [2; 2], padding: [0; 4], ceil: true, ..window.clone() };
    let op = Op::AvgPool { window: ceil.clone(), count_padding: false };
    let model = same(&graph(op, MAP, &[]), &Options::default(), 2);
    let attributes = &model.graph.unwrap().node[0].attribute;
    assert_eq!(attributes.iter().find(|a| a.name == "pads").unwrap().ints, [0, 0, 1, 0]);
    assert!(attributes.iter().all(|a| a.name != "ceil_mode"));
    check(&Op::MaxPool(Window { kernel: [3; 2], ..ceil.clone() }), MAP, &[], &["MaxPool"]);
    let counted = Op::AvgPool { window: ceil, count_padding: true };
    let error = export(&graph(counted, MAP, &[]), &Options::default()).unwrap_err();
    assert!(error.to_string().contains("layer1.0 (avg_pool)"), "{error}");
    check(&Op::GlobalAvgPool, MAP, &[], &["GlobalAveragePool"]);
}

#[test]
fn channels_and_shapes() {
    check(&Op::Softmax, MAP, &[], &["Softmax"]);
    check(&Op::Reshape { shape: vec![1, 336] }, MAP, &[], &["Flatten"]);
    check(&Op::Reshape { shape: vec![1, 4, 2, 42] }, MAP, &[], &["Reshape"]);
    check(&Op::Concat, MAP, &[], &["Concat"]);
    check(&Op::SliceChannels { start: 2, end: 5 }, MAP, &[], &["Slice"]);
    check(&Op::Pad([1, 0, 2, 3]), MAP, &[], &["Pad"]);
    check(&Op::SpaceToDepth { block: 2 }, &[1, 3, 4, 6], &[], &["Reshape", "Transpose", "Reshape"]);
}

#[test]
fn the_papers_operators() {
    check(&Op::RadixPool { radix: 1 }, MAP, &[], &["GlobalAveragePool"]);
    check(&Op::RadixPool { radix: 2 }, MAP, &[], &["GlobalAveragePool", "Reshape", "ReduceSum", "Reshape"]);
    check(&Op::BlurPool, MAP, &[], &["Pad", "Conv"]);
    let gate = |hard, residual, activation| Op::Gate { hard, residual, activation };
    let written = |op, inputs| {
        let model = same(&gated(op, inputs), &Options::default(), 2);
        operators(&model)[2..].join(" ")
    };
    assert_eq!(written(gate(false, false, Activation::Identity), 2), "Sigmoid Mul");
    assert_eq!(written(gate(true, false, Activation::HardSwish), 2), "HardSigmoid Mul HardSwish");
    assert_eq!(written(gate(false, true, Activation::Relu), 3), "Sigmoid Mul Add Relu");
}

#[test]
fn split_attention_of_every_radix_and_cardinality() {
    let before = ["GlobalAveragePool", "Mul", "Reshape", "Transpose", "Softmax", "Reshape", "Mul", "Split"];
    for (radix, cardinality, adds) in [(2, 1, 1), (2, 2, 1), (4, 1, 3), (4, 2, 3), (2, 4, 1)] {
        let op = Op::SplitAttention { radix, cardinality, activation: Activation::Relu };
        let sums = std::iter::repeat_n("Add", adds).chain(["Relu"]);
        let expected: Vec<_> = before.into_iter().chain(sums).collect();
        let graph = gated(op, 2);
        assert_eq!(operators(&same(&graph, &Options::default(), 3)), expected);
    }
    let op = Op::SplitAttention { radix: 1, cardinality: 2, activation: Activation::Identity };
    assert_eq!(
        operators(&same(&gated(op, 2), &Options::default(), 2)),
        ["GlobalAveragePool", "Mul", "Sigmoid", "Mul"]
    );
}

/// `op` on a map, logits that depend on the image (two nodes before it), and the map again if there are three inputs.
fn gated(op: Op, inputs: usize) -> Graph {
    let mut graph = Graph::new("net");
    let x = graph.input("input", MAP);
    let means = graph.push("", Op::GlobalAvgPool, &[x]).unwrap();
    let logits = graph.push("", Op::Unary(Unary::MulScalar(20.0)), &[means]).unwrap();
    let y = graph.push("layer1.0", op, &[x, logits, x][..inputs]).unwrap();
    graph.output(y);
    graph
}

#[test]
fn what_training_drops_is_the_value_itself() {
    let drop = Op::Drop { what: Drop::Elements, rate: 0.5 };
    check(&drop, MAP, &[], &["Identity"]);
    let mut graph = Graph::new("net");
    let x = graph.input("input", MAP);
    let a = graph.push("a", Op::Unary(Unary::Neg), &[x]).unwrap();
    let b = graph.push("b", drop, &[a]).unwrap();
    let c = graph.push("c", Op::Unary(Unary::Neg), &[b]).unwrap();
    // A value that is an output, one that is another's copy, one twice, and the input itself.
    [c, a, b, c, x].into_iter().for_each(|id| graph.output(id));
    let model = same(&graph, &Options { outputs: vec!["logits".into()], ..Options::default() }, 2);
    let names: Vec<_> = model.graph.unwrap().output.into_iter().map(|output| output.name).collect();
    assert_eq!(names[0], "logits");
    assert_eq!(names.len(), 5);
}

#[test]
fn a_dilated_mean_needs_its_opset() {
    let window = Window { kernel: [2; 2], stride: [1; 2], padding: [0; 4], dilation: [2; 2], ceil: false };
    let graph = graph(Op::AvgPool { window, count_padding: false }, MAP, &[]);
    let error = export(&graph, &Options::default()).unwrap_err();
    assert!(
        matches!(&error, OnnxError::Node { place, reason } if place.contains("layer1.0") && reason.contains("19"))
    );
    same(&graph, &Options { opset: 19, ..Options::default() }, 1);
    for opset in [16, 22] {
        let error = export(&graph, &Options { opset, ..Options::default() }).unwrap_err();
        assert!(error.to_string().contains("17 to 21"), "{error}");
    }
}
