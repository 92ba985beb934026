//! The reference against numbers worked out by hand, and the verifier against graphs that are none.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod random;

use cardinal_engine::graph::{Batch, Graph, Source, ValueId};
use cardinal_engine::reference::{Tensor, evaluate, evaluate_node};
use proptest::prelude::*;

/// Runs `body` on one input `%x` and compares the output `%y`.
fn check(body: &str, shape: &[usize], x: &[f32], expected: &[f32]) {
    let graph_shape: Vec<_> = [1].iter().chain(&shape[1..]).copied().collect();
    let graph = Graph::parse(&format!("input %x {graph_shape:?}\n{body}\noutput %y")).unwrap();
    let y = evaluate(&graph, &[Tensor::new(shape, x.to_vec()).unwrap()]).unwrap();
    assert_eq!(y[0].data, expected, "{body}");
}

/// 1, 2, 3 …
fn count(end: usize) -> Vec<f32> {
    (1..=end).map(|i| i as f32).collect()
}

#[test]
fn convolution() {
    // A difference to the right neighbour; zeros beyond the edge.
    let difference = "const @w [1, 1, 1, 2] = [1, -1]\n%y = conv2d(%x, @w) padding=[0, 0, 0, 1]";
    check(difference, &[2, 1, 1, 3], &[1.0, 5.0, 2.0, 4.0, 4.0, 1.0], &[-4.0, 3.0, 2.0, 0.0, 3.0, 1.0]);
    // Each window has one tap in the map, its middle (5 and 14), and at another corner each.
    let grouped = "const @w [2, 1, 2, 2] = [1, 10, 100, 1000, 1, 0, 0, 0]\nconst @b [2] = [0.5, 7]\n\
                   %y = conv2d(%x, @w, bias=@b) stride=2 padding=1 dilation=2 groups=2";
    check(grouped, &[1, 2, 3, 3], &count(18), &[5000.5, 500.5, 50.5, 5.5, 7.0, 7.0, 7.0, 21.0]);
}

#[test]
fn convolution_with_everything() {
    let all = "const @w [2, 1, 1, 1] = [1, 2]\nconst @b [2] = [-3, 0]\nconst @r [2, 1, 1, 1] = [-1, 1]\n\
               %0 = conv2d(%x, @r)\n\
               %1, %y = conv2d(%x, @w, bias=@b, residual=%0) activation=relu pool=2";
    // y0 = relu(x - 3 - x) = 0, y1 = relu(2x + x) = 3x.
    check(all, &[2, 1, 1, 2], &[1.0, 3.0, -1.0, 5.0], &[6.0, 7.5]);
}

#[test]
fn linear_and_norm() {
    let linear = "const @w [2, 3] = [1, 2, 3, 0, -1, 0]\nconst @b [2] = [10, 0]\n\
                  %y = linear(%x, @w, bias=@b) activation=relu";
    check(linear, &[2, 3], &count(6), &[24.0, 0.0, 42.0, 0.0]);
    let norm = "const @w [2] = [2, 1]\nconst @b [2] = [1, 0]\nconst @m [2] = [1, 0]\nconst @v [2] = [3, 0]\n\
                %y = activated_norm(%x, @w, @b, @m, @v) epsilon=1 slope=0.5";
    check(norm, &[1, 2, 1, 2], &[1.0, 3.0, 4.0, -4.0], &[1.0, 3.0, 4.0, -2.0]);
}

#[test]
fn elementwise() {
    let x = [-4.0, -1.0, 0.25, 9.0];
    check("%y = neg(%x)", &[1, 4], &x, &[4.0, 1.0, -0.25, -9.0]);
    check("%y = sqrt(%x)", &[1, 2], &x[2..], &[0.5, 3.0]);
    check("%y = recip(%x)", &[1, 3], &x[..3], &[-0.25, -1.0, 4.0]);
    check("%y = exp(%x)", &[1, 2], &[0.0, 1.0], &[1.0, std::f32::consts::E]);
    check("%y = add_scalar(%x) scalar=0.5", &[1, 4], &x, &[-3.5, -0.5, 0.75, 9.5]);
    check("%y = mul_scalar(%x) scalar=-2", &[1, 4], &x, &[8.0, 2.0, -0.5, -18.0]);
    check("%y = clamp(%x) low=-2 high=inf", &[1, 4], &x, &[-2.0, -1.0, 0.25, 9.0]);
    check("%y = leaky_relu(%x) slope=0.5", &[1, 4], &x, &[-2.0, -0.5, 0.25, 9.0]);
    check("%y = hard_swish(%x)", &[1, 3], &[-4.0, 0.0, 9.0], &[0.0, 0.0, 9.0]);
    check(
        "const @c [1, 2, 1, 1] = [10, 20]\n%y = sub(%x, @c)",
        &[1, 2, 1, 2],
        &count(4),
        &[-9.0, -8.0, -17.0, -16.0],
    );
    check(
        "const @c [1, 1, 2] = [1, 2]\n%y = div(@c, %x)",
        &[2, 2, 1],
        &[1.0, 2.0, 4.0, 8.0],
        &[1.0, 2.0, 0.5, 1.0, 0.25, 0.5, 0.125, 0.25],
    );
}

#[test]
fn pools() {
    check("%y = max_pool(%x) kernel=2 stride=2", &[1, 1, 2, 4], &count(8), &[6.0, 8.0]);
    // The padding is never the maximum.
    check("%y = max_pool(%x) kernel=3 stride=2 padding=1", &[1, 1, 1, 3], &[-1.0, -2.0, -3.0], &[-1.0, -2.0]);
    check("%y = max_pool(%x) kernel=[1, 2] stride=2 ceil", &[1, 1, 1, 3], &count(3), &[2.0, 3.0]);
    check("%y = max_pool(%x) kernel=[1, 2] dilation=2", &[1, 1, 1, 4], &[5.0, 1.0, 2.0, 3.0], &[5.0, 3.0]);
    let mean = "%y = avg_pool(%x) kernel=[1, 2] stride=2";
    check(&format!("{mean} padding=[0, 1, 0, 1]"), &[1, 1, 1, 2], &[2.0, 4.0], &[2.0, 4.0]);
    check(&format!("{mean} padding=[0, 1, 0, 1] count_padding"), &[1, 1, 1, 2], &[2.0, 4.0], &[1.0, 2.0]);
    // What sticks out of the padding never counts.
    check(&format!("{mean} ceil count_padding"), &[1, 1, 1, 3], &[2.0, 4.0, 6.0], &[3.0, 6.0]);
    check("%y = global_avg_pool(%x)", &[2, 1, 2, 1], &count(4), &[1.5, 3.5]);
    check("%y = radix_pool(%x) radix=2", &[1, 4, 1, 2], &count(8), &[7.0, 11.0]);
    // Rows and columns 1 0 1 2 1 around the map of 3, weights 1 2 1: outer product of (0.5, 1.5) with itself.
    let ramp: Vec<f32> = (0..9).map(|i| ((i / 3) * (i % 3)) as f32).collect();
    check("%y = blur_pool(%x)", &[1, 1, 3, 3], &ramp, &[0.25, 0.75, 0.75, 2.25]);
    check("%y = blur_pool(%x)", &[1, 1, 2, 2], &[0.0, 4.0, 0.0, 4.0], &[2.0]);
}

#[test]
fn shapes() {
    check("%y = concat(%x, %x)", &[2, 1, 1, 2], &count(4), &[1.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 4.0]);
    check("%y = slice_channels(%x) start=1 end=2", &[2, 2, 1, 1], &count(4), &[2.0, 4.0]);
    check("%y = pad(%x) padding=[1, 0, 0, 1]", &[1, 1, 1, 2], &count(2), &[0.0, 0.0, 0.0, 1.0, 2.0, 0.0]);
    check("%y = reshape(%x) shape=[1, 4]", &[2, 2, 2], &count(8), &count(8));
    // Channel (row * 2 + column) * c + channel.
    check(
        "%y = space_to_depth(%x) block=2",
        &[1, 2, 2, 2],
        &count(8),
        &[1.0, 5.0, 2.0, 6.0, 3.0, 7.0, 4.0, 8.0],
    );
    let graph =
        Graph::parse("const @c [2, 3, 1] = [1, 2, 3, 4, 5, 6]\n%0 = permute(@c) order=[1, 2, 0]").unwrap();
    let y = evaluate_node(&graph, &graph.nodes[0]).unwrap();
    assert_eq!(*y[0], [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
}

#[test]
fn attention() {
    let ln = f32::ln;
    check("%y = softmax(%x)", &[2, 2], &[0.0, 0.0, 0.0, ln(3.0)], &[0.5, 0.5, 0.25, 0.75]);
    let gate = "const @l [1, 1, 1, 1] = [0]\n%0 = mul_scalar(%x) scalar=0\n%1 = global_avg_pool(%0)\n";
    check(
        &format!("{gate}%y = gate(%x, %1, residual=%x) activation=relu"),
        &[1, 1, 1, 2],
        &[-2.0, 4.0],
        &[0.0, 6.0],
    );
    check(&format!("{gate}%y = gate(%x, %1) hard"), &[2, 1, 1, 2], &count(4), &[0.5, 1.0, 1.5, 2.0]);
    check(&format!("{gate}%y = split_attention(%x, %1) radix=1"), &[1, 1, 1, 2], &count(2), &[0.5, 1.0]);
}

#[test]
fn split_attention_reads_logits_cardinality_major() {
    // Radix 2, two cardinal groups of one channel. Logits in the order (group 0: split 0, 1), (group 1: split 0, 1):
    // group 0 takes split 0 alone and group 1 split 1 alone.
    let text = "input %x [1, 4, 1, 1]\ninput %l [1, 4, 1, 1]\n\
                %y = split_attention(%x, %l) radix=2 cardinality=2\noutput %y";
    let tensor = |data: &[f32]| Tensor::new([1, 4, 1, 1], data.to_vec()).unwrap();
    let inputs = [tensor(&[1.0, 2.0, 3.0, 4.0]), tensor(&[200.0, 0.0, 0.0, 200.0])];
    let y = evaluate(&Graph::parse(text).unwrap(), &inputs).unwrap();
    assert_eq!(y[0], Tensor::new([1, 2, 1, 1], vec![1.0, 4.0]).unwrap());
}

#[test]
fn inputs_of_other_shapes_are_refused() {
    let mut graph = Graph::parse("input %x [1, 2]\n%y = relu(%x)\noutput %y").unwrap();
    let run = |graph: &Graph, shape: &[usize]| {
        let x = Tensor::new(shape, vec![0.0; shape.iter().product()]).unwrap();
        evaluate(graph, &[x]).map_err(|error| error.to_string())
    };
    assert!(run(&graph, &[3, 2]).is_ok());
    let error = run(&graph, &[3, 3]).unwrap_err();
    assert_eq!(error, "input `x` has shape [3, 3] and 9 numbers, [3, 2] is needed");
    graph.batch = Batch::Fixed(2);
    assert!(run(&graph, &[2, 2]).is_ok());
    assert!(run(&graph, &[3, 2]).is_err());
    assert!(evaluate(&graph, &[]).is_err());
}

#[test]
fn what_is_no_graph_is_refused() {
    let check = |lines: &str, message: &str| {
        let graph =
            Graph::parse(&format!("graph g\ninput %x [1, 4, 2, 2]\nconst @c [1, 4, 2, 2]\n{lines}")).unwrap();
        assert_eq!(graph.verify().unwrap_err().to_string(), message);
    };
    check("", "g: the graph has no output");
    check("output @c", "`c`: is an output and depends on no input");
    check("%y = add(@c, @c)\noutput %y", "`y`: is an output and depends on no input");
    check("%y = permute(%x) order=[1, 0, 2, 3]\noutput %y", "permute: only constants are permuted");
    check(
        "%y = reshape(%x) shape=[4, 4]\noutput %y",
        "reshape: the first size of [4, 4] is not the batch, 1",
    );
    check(
        "%y = concat(%x, @c) # a\noutput %y",
        "a (concat): does not take two images: [1, 4, 2, 2] beside [2, 4, 2, 2]",
    );
    check(
        "%y = relu(%x)\ninput %z [2, 2]\noutput %y",
        "`z`: an input's first size is the batch, which is 1 in a graph",
    );
    check("%y = leaky_relu(%x) slope=2\noutput %y", "leaky_relu: the slope 2 is not between 0 and 1");
    check("%y = add_scalar(%x) scalar=NaN\noutput %y", "add_scalar: scalar is NaN");
    check("%y = clamp(%x) low=2 high=1\noutput %y", "clamp: the bounds are 2 and 1");
    check("graph g batch=0\n%y = relu(%x)\noutput %y", "g: a batch of Fixed(0)");
}

#[test]
fn inconsistent_graphs_are_refused() {
    let text = "graph g\ninput %x [1, 4, 2, 2]\nconst @c [4, 4, 1, 1]\n%a = conv2d(%x, @c)\n%b = relu(%a)\noutput %b";
    let check = |message: &str, change: fn(&mut Graph)| {
        let mut graph = Graph::parse(text).unwrap();
        graph.verify().unwrap();
        change(&mut graph);
        assert_eq!(graph.verify().unwrap_err().to_string(), message);
    };
    check("relu: `a` is read before it is written", |g| {
        g.nodes.swap(0, 1);
    });
    check("relu: there is no value 9", |g| g.nodes[1].inputs[0] = ValueId(9));
    check("relu: there is no value 9", |g| g.nodes[1].outputs[0] = ValueId(9));
    check("relu: `a` is written twice", |g| g.nodes[1].outputs[0] = ValueId(2));
    check("relu: `x` is no result", |g| g.nodes[1].outputs[0] = ValueId(0));
    check("relu: 0 outputs instead of 1", |g| g.nodes[1].outputs.clear());
    check("conv2d: 1 inputs instead of 2", |g| g.nodes[0].inputs.truncate(1));
    check("`b`: is an output and never written", |g| g.nodes.truncate(1));
    check("value 9: is an output and no value", |g| g.outputs[0] = ValueId(9));
    check("`x`: is an input and not listed as one", |g| g.inputs.clear());
    check("`x`: is listed as an input twice", |g| g.inputs.push(ValueId(0)));
    check("`c`: is listed as an input and is none", |g| g.inputs.push(ValueId(1)));
    check("`b`: there are two values of this name", |g| g.values[2].name = "b".into());
    check("`a`: the shape [1, 0] is empty or too large", |g| g.values[2].shape = vec![1, 0]);
    check("conv2d: the result is [1, 4, 2, 2], the graph says [1, 16]", |g| g.values[2].shape = vec![1, 16]);
    check("`c`: 16 numbers for shape [4, 4]".replace("16", "1").as_str(), |g| {
        g.values[1].shape = vec![4, 4];
        g.values[1].source = Source::Constant(cardinal_engine::graph::Constant { data: vec![0.0].into() });
    });
}

proptest! {
    /// A batch is its images one by one.
    #[test]
    fn images_do_not_see_each_other(seed: u64) {
        let mut graph = random::graph(seed, 10);
        graph.batch = Batch::Free;
        let mut dice = random::Dice(seed);
        let shape = graph.shape(graph.inputs[0]).to_vec();
        let images: Vec<_> = (0..3).map(|_| dice.floats(shape.iter().product())).collect();
        let bits = |data: &[f32]| data.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let batched: Vec<_> = [3].iter().chain(&shape[1..]).copied().collect();
        let together = evaluate(&graph, &[Tensor::new(batched, images.concat()).unwrap()]).unwrap();
        for (i, image) in images.iter().enumerate() {
            let alone = evaluate(&graph, &[Tensor::new(shape.clone(), image.clone()).unwrap()]).unwrap();
            for (alone, together) in alone.iter().zip(&together) {
                let size = alone.data.len();
                prop_assert_eq!(bits(&alone.data), bits(&together.data[i * size..][..size]));
            }
        }
    }
}
