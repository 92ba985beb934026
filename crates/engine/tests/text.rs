//! The text form: what it looks like, that it round-trips, and what it says of mistakes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod random;

use cardinal_engine::graph::{Graph, Source};
use cardinal_engine::reference::{Tensor, evaluate};
use proptest::prelude::*;

const TINY: &str = "\
graph tiny batch=free
input %x [1, 3, 32, 32]
const @conv1.weight [8, 3, 3, 3]
const @conv1.bias [8] = 0.5
const @bn.var [2] = [1.5, 0.25]
%0, %1 = conv2d(%x, @conv1.weight, bias=@conv1.bias) stride=2 padding=1 activation=leaky_relu(0.01) pool=2  \
# layer1.0.conv1 -> [1, 8, 16, 16], [1, 4, 1, 1]
%2 = max_pool(%0) kernel=[3, 2] stride=2 padding=[1, 0, 1, 0] ceil  # pool -> [1, 8, 9, 8]
%3 = global_avg_pool(%2)  # -> [1, 8, 1, 1]
%4 = gate(%2, %3, residual=%2) hard  # \"odd name\" -> [1, 8, 9, 8]
output %4
output %1
";

#[test]
fn a_text_is_printed_as_it_was_read() {
    let graph = Graph::parse(TINY).unwrap();
    graph.verify().unwrap();
    assert_eq!(graph.to_text(), TINY);
    assert_eq!(graph.nodes[0].name, "layer1.0.conv1");
    assert_eq!(graph.nodes[3].name, "odd name");
}

#[test]
fn constants_without_numbers_get_the_same_ones_each_time() {
    let text = "input %x [1, 2, 1, 1]\nconst @bn.running_var [2]\nconst @w [4, 2, 1, 1]\n\
                %0 = conv2d(%x, @w)\noutput %0\n";
    let (a, b) = (Graph::parse(text).unwrap(), Graph::parse(text).unwrap());
    assert_eq!(a, b);
    let variance = a.values.iter().find(|value| value.name == "bn.running_var").unwrap();
    assert!(variance.constant().unwrap().iter().all(|x| (0.5..1.5).contains(x)));
    assert_eq!(Graph::parse(&a.to_text()).unwrap(), a);
}

#[test]
fn headers_comments_and_results_shapes_may_be_missing() {
    let graph =
        Graph::parse("# a test\n\n  input %x [1, 2]\n%7 = relu(%x)\n%y = neg(%7) # last\noutput %y").unwrap();
    graph.verify().unwrap();
    assert_eq!(
        graph.to_text(),
        "graph \"\" batch=free\ninput %x [1, 2]\n%0 = relu(%x)  # -> [1, 2]\n%y = neg(%0)  # last -> [1, 2]\noutput %y\n"
    );
    let x = Tensor::new([3, 2], vec![1.0, -1.0, 2.0, -2.0, 3.0, -3.0]).unwrap();
    let y = evaluate(&graph, &[x]).unwrap();
    assert_eq!(y[0].data, [-1.0, 0.0, -2.0, 0.0, -3.0, 0.0]);
}

#[test]
fn mistakes_are_named_with_their_line() {
    let check = |line: &str, message: &str| {
        let text = format!("graph g\ninput %x [1, 4, 8, 8]\nconst @w [4, 4, 1, 1]\n{line}\n");
        let error = Graph::parse(&text).unwrap_err().to_string();
        assert_eq!(error, format!("line 4: {message}"));
    };
    check("%0 = conv3d(%x, @w)", "there is no operator `conv3d`");
    check("%0 = conv2d(%x, @v)", "`@v` is not defined above");
    check("%0 = conv2d(%x, @w) strid=2", "conv2d has no attribute `strid`");
    check("%0 = conv2d(%x, @w) stride=two", "`stride=two` is no whole number");
    check("%0 = conv2d(%x, @w) stride=-1", "`stride=-1` is no whole number");
    check("%0 = conv2d(%x, @w) stride=1 stride=1", "`stride` is given twice");
    check("%0 = drop(%x)", "`rate` is missing");
    check("%0 = drop(%x) images squares=3 rate=0.1", "drop takes either `images` or `squares`");
    check("%0 = conv2d(%x, @w) activation=gelu", "there is no activation `gelu`");
    check(
        "%0 = conv2d(%x, bias=@w, @w)",
        "conv2d takes no such inputs: `bias=` comes first, then `residual=`",
    );
    check("%0 = relu(%x, bias=@w)", "relu takes no such inputs: `bias=` comes first, then `residual=`");
    check("%0 = relu(%x) # -> [1, 4]", "the results are [[1, 4, 8, 8]], not what the comment says");
    check("%0 = relu(%x # a", "expected `,`, found `# a`");
    check("%0, %1 = relu(%x)", "relu has 1 results here, 2 are named");
    check("%x = relu(%x)", "`%x` is defined twice");
    check("input %y [1, 2", "expected `,` before the end of the line");
    check("const @c [2] = [1, 2, 3]", "a list has more than 2 numbers");
    check("const @c [2] = [1]", "1 numbers for shape [2]");
    check("const @c [2] = x", "expected a number or `[`, found `x`");
    check("const @c [100000, 100000]", "the text has more than 268435456 numbers");
    check("%0 = relu(%x) \"", "expected an attribute, found `\"`");
    check("%0 = relu(%x)  # \"a", "a string has no closing quote");
    check("output", "expected `%` before the end of the line");
    check("save %x", "expected `graph`, `input`, `const`, `output` or a result, found `save`");
}

#[test]
fn a_broken_graph_can_still_be_printed() {
    let mut graph = Graph::parse(TINY).unwrap();
    graph.nodes[1].inputs[0].0 = 99;
    graph.nodes.remove(2);
    assert!(graph.to_text().contains("max_pool(%?99)"));
    assert!(graph.verify().is_err());
}

/// The graph without the numbers that a text leaves out.
fn without_numbers(mut graph: Graph) -> Graph {
    for value in &mut graph.values {
        if let Source::Constant(constant) = &mut value.source {
            constant.data = vec![0.0; constant.data.len()].into();
        }
    }
    graph
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn random_graphs_round_trip(seed: u64, count in 2..30_usize) {
        let mut graph = random::graph(seed, count);
        let text = graph.to_text();
        let back = Graph::parse(&text).unwrap();
        prop_assert_eq!(back.to_text(), text);
        back.verify().unwrap();
        graph.prune();
        let back = Graph::parse(&graph.to_text()).unwrap();
        prop_assert_eq!(without_numbers(back), without_numbers(graph));
    }

    #[test]
    fn pruning_keeps_the_answers(seed: u64) {
        let mut graph = random::graph(seed, 12);
        let mut dice = random::Dice(seed);
        let mut shape = graph.values[graph.inputs[0].0].shape.clone();
        if let cardinal_engine::graph::Batch::Fixed(batch) = graph.batch { shape[0] = batch } else { shape[0] = 2 }
        let x = Tensor::new(shape.clone(), dice.floats(shape.iter().product())).unwrap();
        let before = evaluate(&graph, std::slice::from_ref(&x)).unwrap();
        graph.prune();
        graph.verify().unwrap();
        let after = evaluate(&graph, &[x]).unwrap();
        // Bits, since a square root may have given NaN.
        let bits = |outputs: &[Tensor]| -> Vec<Vec<u32>> {
            outputs.iter().map(|output| output.data.iter().map(|x| x.to_bits()).collect()).collect()
        };
        prop_assert_eq!(bits(&before), bits(&after));
    }

    #[test]
    fn damaged_texts_never_panic(seed: u64, cuts in prop::collection::vec((any::<u16>(), any::<u8>()), 1..6)) {
        let mut bytes = random::graph(seed, 8).to_text().into_bytes();
        for (place, byte) in cuts {
            let place = usize::from(place) % bytes.len();
            bytes[place] = byte;
        }
        if let Ok(graph) = Graph::parse(&String::from_utf8_lossy(&bytes)) {
            let _ = graph.verify();
        }
    }
}
