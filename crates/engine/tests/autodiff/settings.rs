//! What is recomputed and what is frozen change no gradient, and what has none is refused.

use crate::check::{Gradients, Network, check_trained, everything};
use cardinal_engine::autodiff::Recompute;
use cardinal_engine::graph::Graph;

/// Two blocks with everything in them: a norm in place, a join, attention, drops and a wide convolution.
const NETWORK: &str = "\
graph network
input %x [1, 3, 8, 7]
const @stem.weight [4, 3, 3, 3]
%0 = conv2d(%x, @stem.weight) padding=1
const @n0.weight [4]
const @n0.bias [4]
const @n0.running_mean [4]
const @n0.running_var [4]
%m = activated_norm(%0, @n0.weight, @n0.bias, @n0.running_mean, @n0.running_var) slope=0.01
const @wide.weight [12, 4, 1, 1]
%1 = conv2d(%m, @wide.weight)
const @n1.weight [12]
const @n1.bias [12]
const @n1.running_mean [12]
const @n1.running_var [12]
%2 = activated_norm(%1, @n1.weight, @n1.bias, @n1.running_mean, @n1.running_var) slope=0
%3 = drop(%2) squares=3 rate=0.1
%4 = radix_pool(%3) radix=2
const @fc.weight [12, 6, 1, 1]
const @fc.bias [12]
%5 = conv2d(%4, @fc.weight, bias=@fc.bias)
%6 = split_attention(%3, %5) radix=2
const @narrow.weight [4, 6, 1, 1]
%7 = conv2d(%6, @narrow.weight)
const @n2.weight [4]
const @n2.bias [4]
const @n2.running_mean [4]
const @n2.running_var [4]
%8 = activated_norm(%7, @n2.weight, @n2.bias, @n2.running_mean, @n2.running_var)
%9 = add(%8, %m)
%10 = relu(%9)
%11 = avg_pool(%10) kernel=3 stride=2
const @last.weight [5, 4, 3, 3]
const @last.bias [5]
%12 = conv2d(%11, @last.weight, bias=@last.bias) padding=1
%13 = silu(%12)
%14 = global_avg_pool(%13)
%15 = reshape(%14) shape=[1, 5]
%16 = drop(%15) rate=0.3
const @head.weight [3, 5]
%17 = linear(%16, @head.weight)
output %17
";

fn network() -> Network {
    Network::new(Graph::parse(NETWORK).unwrap(), 3)
}

#[track_caller]
fn assert_close(found: &Gradients, expected: &Gradients) {
    assert_eq!(found.len(), expected.len());
    for ((name, found), (expected_name, expected)) in found.iter().zip(expected) {
        assert_eq!(name, expected_name);
        let (found, expected) = (found.as_ref().unwrap(), expected.as_ref().unwrap());
        let largest = expected.iter().fold(1e-6_f64, |max, x| max.max(x.abs()));
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() <= 1e-10 * largest, "{name}: {found} instead of {expected}");
        }
    }
}

#[test]
fn recomputing_changes_no_gradient() {
    let network = network();
    let gradients = |recompute| network.gradients(&network.tape(recompute, &everything).unwrap());
    let expected = gradients(Recompute::None);
    assert_eq!(expected.len(), 14);
    assert_close(&gradients(Recompute::Cheap), &expected);
    assert_close(&gradients(Recompute::Expansions), &expected);
    let nodes = Recompute::ALL.map(|recompute| network.tape(recompute, &everything).unwrap().nodes.len());
    assert!(nodes[0] < nodes[1] && nodes[1] < nodes[2], "{nodes:?}");
}

#[test]
fn freezing_changes_no_other_gradient() {
    let network = network();
    let all = network.gradients(&network.tape(Recompute::default(), &everything).unwrap());
    // Norms stay as they are: those that are frozen take other statistics.
    for kept in [["n", "head"], ["n", "stem"], ["n", "last.bias"], ["n", "fc"]] {
        let trained = |name: &str| kept.iter().any(|start| name.starts_with(start));
        let expected: Gradients = all.iter().filter(|(name, _)| trained(name)).cloned().collect();
        for recompute in Recompute::ALL {
            let tape = network.tape(recompute, &trained).unwrap();
            assert!(tape.parameters.len() < all.len());
            assert_close(&network.gradients(&tape), &expected);
        }
    }
}

#[test]
fn frozen_norms_and_layers() {
    check_trained(NETWORK, 2, &|name| !name.starts_with('n') || name.starts_with("narrow"));
    check_trained(NETWORK, 2, &|name| name.starts_with("n1") || name.starts_with("stem"));
    // Biases of norms with running statistics.
    check_trained(NETWORK, 2, &|name| name.ends_with(".bias"));
    check_trained(NETWORK, 2, &|name| name != "n0.weight" && name != "n2.weight");
}

#[test]
fn what_is_frozen_costs_nothing() {
    let network = network();
    let tape = network.tape(Recompute::default(), &|name| name == "head.weight").unwrap();
    let backward: Vec<_> = tape.nodes[tape.forward..].iter().map(|node| node.op.name()).collect();
    assert_eq!(backward, ["linear_weight_grad"]);
    assert_eq!(tape.statistics.len(), 0);
    let tape = network.tape(Recompute::default(), &|_| false).unwrap();
    assert_eq!((tape.nodes.len(), tape.parameters.len()), (tape.forward, 0));
}

#[test]
fn what_no_output_depends_on_has_no_gradient() {
    let text = "input %x [1, 3, 2, 2]\nconst @a.weight [2, 3, 1, 1]\nconst @b.weight [2, 3, 1, 1]\n\
                %y = conv2d(%x, @a.weight)\n%dead = conv2d(%x, @b.weight)\noutput %y";
    let network = Network::new(Graph::parse(text).unwrap(), 2);
    let gradients = network.gradients(&network.tape(Recompute::default(), &everything).unwrap());
    let known: Vec<_> =
        gradients.iter().map(|(name, gradient)| (name.as_str(), gradient.is_some())).collect();
    assert_eq!(known, [("a.weight", true), ("b.weight", false)]);
}

#[test]
fn what_has_no_gradient_is_refused() {
    let check = |line: &str, message: &str| {
        let text = format!(
            "graph g\ninput %x [1, 3, 4, 4]\nconst @a.weight [4, 3, 1, 1]\n%m = conv2d(%x, @a.weight)\n\
             const @b.weight [1, 4, 4, 4]\nconst @c.bias [1, 4, 1, 1]\nconst @d.weight [4, 4, 1, 1]\n\
             const @e.weight [4, 4]\n%p = global_avg_pool(%m)\n{line}\noutput %y\n"
        );
        let network = Network::new(Graph::parse(&text).unwrap(), 1);
        for recompute in Recompute::ALL {
            let error = network.tape(recompute, &everything).unwrap_err().to_string();
            assert_eq!(error, message);
        }
        // Nothing before it is trained.
        network.tape(Recompute::default(), &|_| false).unwrap();
    };
    check("%y = sqrt(%m) # layer1.root", "layer1.root (sqrt): it has no gradient");
    check("%y = softmax(%m)", "softmax: it has no gradient");
    check("%y = exp(%m) # e", "e (exp): it has no gradient");
    check("%y = recip(%m)", "recip: it has no gradient");
    check("%y = clamp(%m) low=0 high=1 # c", "c (clamp): it has no gradient");
    check("%y = div(%m, %m) # q", "q (div): the operand [1, 4, 4, 4] has no gradient");
    check("%y = mul(%m, %p) # r", "r (mul): the operand [1, 4, 1, 1] has no gradient");
    check("%y = add(%m, @c.bias) # s", "s (add): the operand [1, 4, 1, 1] has no gradient");
    // The gradient of one for all images would be a sum over them.
    check("%y = add(%m, @b.weight) # t", "t (add): the operand [1, 4, 4, 4] has no gradient");
    check("%y = mul(%m, @b.weight) # t", "t (mul): the operand [1, 4, 4, 4] has no gradient");
    let fused = "what it was fused with has no gradient: differentiate the graph as captured";
    check("%y = conv2d(%m, @d.weight) activation=relu # u", &format!("u (conv2d): {fused}"));
    check("%y = conv2d(%m, @d.weight, residual=%m) # u", &format!("u (conv2d): {fused}"));
    check("%z, %y = conv2d(%m, @d.weight) pool=1 # u", &format!("u (conv2d): {fused}"));
    check("%y = gate(%m, %p) activation=silu # v", &format!("v (gate): {fused}"));
    check("%y = split_attention(%m, %p) radix=2 activation=hard_swish", &format!("split_attention: {fused}"));
    check("%y = linear(%m, @e.weight)", "linear: there is no gradient of a layer on [1, 4, 4, 4]");
}
