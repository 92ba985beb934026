//! The blocks of the networks.

use crate::check::{Network, check, everything};
use cardinal_engine::autodiff::{Gradient, Recompute, Tape, TapeOp};
use cardinal_engine::graph::Graph;

/// Lines of a convolution and a norm from `from` to `to`.
fn conv_norm(name: &str, [from, to]: [&str; 2], weight: [usize; 4], conv: &str, slope: &str) -> String {
    let c = weight[0];
    format!(
        "const @{name}.conv.weight {weight:?}\n%{name} = conv2d({from}, @{name}.conv.weight) {conv}\n\
         const @{name}.bn.weight [{c}]\nconst @{name}.bn.bias [{c}]\nconst @{name}.bn.running_mean [{c}]\n\
         const @{name}.bn.running_var [{c}]\n{to} = activated_norm(%{name}, @{name}.bn.weight, @{name}.bn.bias, \
         @{name}.bn.running_mean, @{name}.bn.running_var) slope={slope} # {name}\n"
    )
}

fn with_input(body: &str) -> String {
    let stem = conv_norm("stem", ["%x", "%m"], [4, 3, 3, 3], "padding=1", "0");
    format!("graph block\ninput %x [1, 3, 6, 5]\n{stem}{body}output %y\n")
}

fn tape(text: &str, recompute: Recompute) -> Tape {
    Network::new(Graph::parse(text).unwrap(), 2).tape(recompute, &everything).unwrap()
}

fn count(tape: &Tape, name: &str) -> usize {
    tape.nodes.iter().filter(|node| node.op.name() == name).count()
}

#[test]
fn residual_joins() {
    let branch = conv_norm("b", ["%m", "%n"], [4, 4, 3, 3], "padding=1", "1");
    for end in ["relu(%s)", "leaky_relu(%s) slope=0.1"] {
        for sum in ["add(%n, %m)", "add(%m, %n)"] {
            let text = with_input(&format!("{branch}%s = {sum}\n%y = {end}\n"));
            check(&text, 2);
            assert_eq!(count(&tape(&text, Recompute::Cheap), "join"), 1);
        }
        let shortcut = conv_norm("d", ["%m", "%d0"], [4, 4, 1, 1], "", "1");
        let text = with_input(&format!("{branch}{shortcut}%s = add(%n, %d0)\n%y = {end}\n"));
        check(&text, 2);
        assert_eq!(count(&tape(&text, Recompute::Cheap), "join"), 1);
    }
}

#[test]
fn joins_whose_values_have_other_readers() {
    let branch = conv_norm("b", ["%m", "%n"], [4, 4, 3, 3], "padding=1", "1");
    // Of the sum, of the branch, and of the end of the block, which starts the next one.
    check(&with_input(&format!("{branch}%s = add(%n, %m)\n%r = relu(%s)\n%y = mul(%r, %s)\n")), 2);
    check(&with_input(&format!("{branch}%s = add(%n, %m)\n%r = relu(%s)\n%y = mul(%r, %n)\n")), 2);
    check(&with_input(&format!("{branch}%s = add(%n, %n)\n%y = relu(%s)\n")), 2);
    let next = conv_norm("c", ["%r", "%q"], [4, 4, 1, 1], "", "1");
    let two = format!(
        "{branch}%s = add(%n, %m)\n%r = relu(%s)\n{next}%t = add(%r, %q)\n%y = relu(%t)\noutput %r\n"
    );
    check(&with_input(&two), 3);
}

#[test]
fn stochastic_depth_on_the_branch() {
    let branch = conv_norm("b", ["%m", "%n"], [4, 4, 3, 3], "padding=1", "1");
    check(
        &with_input(&format!("{branch}%d = drop(%n) images rate=0.5\n%s = add(%d, %m)\n%y = relu(%s)\n")),
        3,
    );
    let squares = conv_norm("b", ["%m", "%n0"], [4, 4, 3, 3], "padding=1", "1");
    let text = format!(
        "{squares}%n = drop(%n0) squares=3 rate=0.1\n%r = relu(%n)\n%s = add(%r, %m)\n%y = relu(%s)\n"
    );
    check(&with_input(&text), 2);
}

/// Pooled splits, two layers, and their weights, of `%a` to `%o`.
fn split_attention(radix: usize, cardinality: usize, channels: usize) -> String {
    let c = channels / radix;
    let width = 4;
    let per_group = [c / cardinality, width / cardinality];
    let layer =
        conv_norm("f", ["%p", "%h"], [width, per_group[0], 1, 1], &format!("groups={cardinality}"), "0");
    format!(
        "%p = radix_pool(%a) radix={radix}\n{layer}const @g.weight [{channels}, {}, 1, 1]\nconst @g.bias [{channels}]\n\
         %l = conv2d(%h, @g.weight, bias=@g.bias) groups={cardinality}\n\
         %o = split_attention(%a, %l) radix={radix} cardinality={cardinality}\n",
        per_group[1]
    )
}

#[test]
fn split_attention_blocks() {
    for (radix, cardinality) in [(1, 1), (2, 1), (2, 2), (4, 1)] {
        let channels = 4 * radix;
        let conv = conv_norm(
            "b",
            ["%m", "%a"],
            [channels, 4 / cardinality, 3, 3],
            &format!("padding=1 groups={cardinality}"),
            "0",
        );
        let attention = split_attention(radix, cardinality, channels);
        let last = conv_norm("e", ["%o", "%n"], [4, 4, 1, 1], "", "1");
        let text = with_input(&format!("{conv}{attention}{last}%s = add(%n, %m)\n%y = relu(%s)\n"));
        check(&text, 3);
        let tape = tape(&text, Recompute::Cheap);
        assert_eq!(count(&tape, "means_grad"), 0, "{tape}");
        let means = |op: &TapeOp| matches!(op, TapeOp::Gradient(Gradient::SplitInput { means: true, .. }));
        assert_eq!(tape.nodes.iter().filter(|node| means(&node.op)).count(), 1);
    }
}

#[test]
fn squeeze_and_excitation_blocks() {
    for (gate, end, joined) in
        [("", "relu(%s)", 1), ("hard", "leaky_relu(%s) slope=0.01", 1), ("hard", "silu(%s)", 0)]
    {
        let conv = conv_norm("b", ["%m", "%a"], [4, 4, 3, 3], "padding=1", "0.001");
        let text = with_input(&format!(
            "{conv}%p = global_avg_pool(%a)\nconst @f.weight [2, 4, 1, 1]\nconst @f.bias [2]\n\
             %h0 = conv2d(%p, @f.weight, bias=@f.bias)\n%h = relu(%h0)\nconst @g.weight [4, 2, 1, 1]\n\
             const @g.bias [4]\n%l = conv2d(%h, @g.weight, bias=@g.bias)\n%o = gate(%a, %l) {gate}\n\
             %s = add(%o, %m)\n%y = {end}\n"
        ));
        check(&text, 2);
        let tape = tape(&text, Recompute::Cheap);
        let means = |op: &TapeOp| matches!(op, TapeOp::Gradient(Gradient::GateInput { means: true, .. }));
        assert_eq!(tape.nodes.iter().filter(|node| means(&node.op)).count(), 1, "{tape}");
        assert_eq!(count(&tape, "add"), 1 - joined, "{tape}");
    }
}

/// The map that is weighed is read by a third one, before and after.
#[test]
fn attention_on_a_map_with_other_readers() {
    for last in ["add(%a, %o)", "add(%o, %a)", "mul(%a, %o)"] {
        let gate = "%p = global_avg_pool(%a)\nconst @f.weight [4, 4, 1, 1]\n%l = conv2d(%p, @f.weight)\n%o = gate(%a, %l)\n";
        let conv = conv_norm("b", ["%m", "%a"], [4, 4, 3, 3], "padding=1", "0.1");
        check(&with_input(&format!("{conv}{gate}%y = {last}\n")), 2);
        let two = "%p2 = global_avg_pool(%a)\n%q = mul(%p, %p2)\noutput %q\n";
        check(&with_input(&format!("{conv}{gate}%y = {last}\n{two}")), 2);
    }
}

/// A bottleneck whose wide maps are computed again, one after the other.
#[test]
fn bottlenecks_with_widening_convolutions() {
    let wide = conv_norm("a", ["%m", "%a0"], [10, 4, 1, 1], "", "0");
    let middle = conv_norm("b", ["%a0", "%b0"], [10, 1, 3, 3], "stride=2 padding=1 groups=10", "0.001");
    let narrow = conv_norm("c", ["%b0", "%c0"], [4, 10, 1, 1], "", "1");
    let pool = "%d1 = avg_pool(%m) kernel=2 stride=2 ceil\n";
    let shortcut = conv_norm("d", ["%d1", "%d0"], [4, 4, 1, 1], "", "1");
    let text =
        with_input(&format!("{wide}{middle}{narrow}{pool}{shortcut}%s = add(%c0, %d0)\n%y = relu(%s)\n"));
    check(&text, 2);
    let again = tape(&text, Recompute::Expansions);
    assert_eq!(count(&again, "conv2d"), count(&tape(&text, Recompute::None), "conv2d") + 1, "{again}");
}

/// TResNet's stem and downsampling, to logits.
#[test]
fn blur_and_space_to_depth() {
    let stem = conv_norm("stem", ["%s2d", "%m"], [3, 12, 3, 3], "padding=1", "0.001");
    let conv = conv_norm("b", ["%m", "%a"], [4, 3, 3, 3], "padding=1", "0.001");
    let text = format!(
        "graph tresnet\ninput %x [1, 3, 8, 8]\n%s2d = space_to_depth(%x) block=2\n{stem}{conv}%b0 = blur_pool(%a)\n\
         %p = global_avg_pool(%b0)\n%f = reshape(%p) shape=[1, 4]\n%d = drop(%f) rate=0.2\nconst @fc.weight [5, 4]\n\
         const @fc.bias [5]\n%y = linear(%d, @fc.weight, bias=@fc.bias)\noutput %y\noutput %f\n"
    );
    check(&text, 3);
}
