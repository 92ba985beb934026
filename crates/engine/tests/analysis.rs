//! What a graph costs, and its picture.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod random;

use cardinal_engine::graph::Graph;
use cardinal_kernels::DType;
use proptest::prelude::*;

const TEXT: &str = "\
graph \"a<b&c\"
input %x [1, 4, 8, 8]
const @w [8, 2, 3, 3]
const @b [8]
const @n [8]
%0, %1 = conv2d(%x, @w, bias=@b) stride=2 padding=1 groups=2 activation=relu pool=2  # layer1.0.conv1
%2 = activated_norm(%0, @n, @b, @n, @n) slope=0  # bn
%3 = global_avg_pool(%2)
%4 = gate(%2, %3, residual=%0)
output %4
";

fn graph() -> Graph {
    let graph = Graph::parse(TEXT).unwrap();
    graph.verify().unwrap();
    graph
}

#[test]
fn costs_are_those_of_one_image() {
    let analysis = graph().analyze(DType::Bf16);
    let conv = &analysis.rows[0].cost;
    let (outputs, taps) = (8 * 4 * 4, 2 * 3 * 3);
    assert_eq!(conv.parameters, 8 * taps + 8);
    assert_eq!(conv.macs, outputs * taps);
    // Bias, activation and pooling each take a step for each output.
    assert_eq!(conv.flops, 2 * outputs * taps + 3 * outputs);
    assert_eq!(conv.activation_bytes, 2 * (outputs + 4));
    assert_eq!(conv.traffic_bytes, 2 * (outputs + 4 + 4 * 8 * 8 + 8 * taps + 8));
    // `b` is counted with the convolution, and running statistics are no parameters.
    assert_eq!(analysis.rows[1].cost.parameters, 8);
    assert_eq!(analysis.total.parameters, 8 * taps + 8 + 8);
    assert_eq!(analysis.total.macs, conv.macs);
    let operators: Vec<_> = analysis.rows.iter().map(|row| row.operator.as_str()).collect();
    assert_eq!(
        operators,
        [
            "conv2d 3×3 · stride 2 · groups 2 · relu · pool 2",
            "activated_norm · relu",
            "global_avg_pool",
            "gate · + residual"
        ]
    );
    // The convolution's result, the norm's, the pooled one and the gate's.
    assert_eq!(analysis.live_bytes, 2 * (3 * outputs + 8));
}

/// Fails if tags do not nest or a character stands where XML has none.
fn assert_well_formed(svg: &str) {
    let mut open = Vec::new();
    for piece in svg.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').unwrap();
        for (i, _) in text.match_indices('&') {
            let entity =
                ["&amp;", "&lt;", "&gt;", "&quot;"].iter().any(|entity| text[i..].starts_with(entity));
            assert!(entity, "{text}");
        }
        match (tag.strip_prefix('/'), tag.ends_with('/')) {
            (Some(name), _) => assert_eq!(open.pop(), Some(name)),
            (None, true) => {}
            (None, false) => open.push(tag.split(' ').next().unwrap()),
        }
    }
    assert!(open.is_empty(), "{open:?}");
    assert!(svg.chars().all(|c| c == '\n' || c == '\t' || c >= ' '));
}

#[test]
fn the_picture_shows_every_node() {
    let svg = graph().to_svg();
    assert_well_formed(&svg);
    assert!(svg.contains("a&lt;b&amp;c"));
    assert!(svg.contains(">layer1.0.conv1</text>"));
    assert!(svg.contains(">conv2d 3×3 · stride 2 · groups 2 · relu · pool 2</text>"));
    assert!(svg.contains(">8 × 4 × 4</text>"));
    // The shortcut from the convolution, and the norm's way around the pooling.
    assert_eq!(svg.matches("class=\"wire skip\"").count(), 2);
}

proptest! {
    #[test]
    fn any_graph_can_be_drawn_and_counted(seed: u64, broken: bool) {
        let mut graph = random::graph(seed, 20);
        if broken {
            let (last, values) = (graph.nodes.len() - 1, graph.values.len());
            graph.nodes.swap(0, last);
            graph.nodes[0].inputs[0].0 = values;
            graph.outputs[0].0 = values;
        }
        assert_well_formed(&graph.to_svg());
        let _ = graph.analyze(DType::F32);
    }
}
