//! One operator at a time, on a map of which every number depends on parameters of its own.

use crate::check::{Network, check, check_trained, everything};
use cardinal_engine::autodiff::Recompute;
use cardinal_engine::graph::Graph;

/// `body` makes `%y` of `%m`, a map of these sizes: each pixel is a function of three parameters and three numbers of each
/// of two images, so that their gradients tell all that of the map.
fn text([c, h, w]: [usize; 3], body: &str) -> String {
    format!(
        "graph one\ninput %x [1, 3]\nconst @in.weight [{}, 3]\n%0 = linear(%x, @in.weight)\n\
         %m = reshape(%0) shape=[1, {c}, {h}, {w}]\n{body}\noutput %y\n",
        c * h * w
    )
}

#[track_caller]
fn on_map(sizes: [usize; 3], body: &str) {
    check(&text(sizes, body), 2);
}

#[test]
fn convolutions() {
    on_map([3, 5, 4], "const @a.weight [2, 3, 3, 3]\n%y = conv2d(%m, @a.weight) padding=1");
    on_map(
        [4, 5, 6],
        "const @a.weight [3, 4, 1, 1]\nconst @a.bias [3]\n%y = conv2d(%m, @a.weight, bias=@a.bias)",
    );
    on_map([2, 5, 5], "const @a.weight [5, 2, 1, 1]\n%y = conv2d(%m, @a.weight) stride=2");
    on_map(
        [4, 6, 7],
        "const @a.weight [6, 2, 3, 2]\nconst @a.bias [6]\n\
         %y = conv2d(%m, @a.weight, bias=@a.bias) stride=[2, 1] padding=[1, 0, 2, 1] dilation=[1, 2] groups=2",
    );
    on_map(
        [3, 7, 7],
        "const @a.weight [3, 1, 3, 3]\n%y = conv2d(%m, @a.weight) stride=2 padding=2 dilation=2 groups=3",
    );
    // The last column and row are read by no window.
    on_map([1, 4, 6], "const @a.weight [2, 1, 2, 2]\n%y = conv2d(%m, @a.weight) stride=3");
}

#[test]
fn linear_layers() {
    let flat = "%f = reshape(%m) shape=[1, 12]\nconst @a.weight [4, 12]\n";
    on_map([3, 2, 2], &format!("{flat}%y = linear(%f, @a.weight)"));
    let flat = format!("{flat}const @a.bias [4]\n");
    on_map([3, 2, 2], &format!("{flat}%y = linear(%f, @a.weight, bias=@a.bias)"));
    on_map([3, 2, 2], &format!("{flat}%y = linear(%f, @a.weight, bias=@a.bias) activation=relu"));
    on_map([3, 2, 2], &format!("{flat}%y = linear(%f, @a.weight, bias=@a.bias) activation=sigmoid"));
    on_map([3, 2, 2], &format!("{flat}%y = linear(%f, @a.weight, bias=@a.bias) activation=relu6"));
}

const NORM: &str = "const @a.weight [3] = [0.7, -1.2, 0.4]\nconst @a.bias [3]\nconst @a.running_mean [3]\n\
                    const @a.running_var [3]\n";

#[test]
fn norms() {
    for slope in ["1", "0", "0.01", "0.3"] {
        let norm = |x: &str| {
            format!(
                "%y = activated_norm({x}, @a.weight, @a.bias, @a.running_mean, @a.running_var) slope={slope} epsilon=0.001"
            )
        };
        on_map([3, 4, 3], &format!("{NORM}{}", norm("%m")));
        check(&text([3, 1, 1], &format!("{NORM}{}", norm("%m"))), 3);
        // What follows it reads its output, and what precedes it is something else than a convolution.
        let between = format!("{NORM}%b = mul(%m, %m)\n{}\n%z = mul(%y, %y)\noutput %z", norm("%b"));
        on_map([3, 2, 3], &between);
    }
}

#[test]
fn norms_whose_statistics_are_frozen() {
    for slope in ["1", "0", "0.25"] {
        let norm = format!(
            "{NORM}%y = activated_norm(%m, @a.weight, @a.bias, @a.running_mean, @a.running_var) slope={slope}"
        );
        check_trained(&text([3, 4, 3], &norm), 2, &|name| !name.starts_with("a."));
    }
}

#[test]
fn activations() {
    let names = ["relu", "relu6", "sigmoid", "silu", "hard_sigmoid", "hard_swish", "leaky_relu"];
    for name in names {
        let slope = if name == "leaky_relu" { " slope=0.2" } else { "" };
        // All pieces, and a reader of the input beside the activation.
        let body = format!("%a = mul_scalar(%m) scalar=6\n%b = {name}(%a){slope}\n%y = add(%b, %a)");
        on_map([2, 3, 5], &body);
        on_map([2, 3, 5], &format!("%y = {name}(%m){slope}"));
    }
}

#[test]
fn arithmetic() {
    on_map([2, 3, 3], "%a = neg(%m)\n%y = mul(%a, %m)");
    on_map([2, 3, 3], "%a = add_scalar(%m) scalar=2\n%y = mul(%a, %a)");
    on_map([2, 3, 3], "%a = mul_scalar(%m) scalar=-3\n%y = sub(%m, %a)");
    on_map([2, 3, 3], "%a = sigmoid(%m)\n%y = sub(%a, %m)");
    on_map([2, 3, 3], "%y = add(%m, %m)");
    on_map([2, 3, 3], "%y = sub(%m, %m)");
    on_map([2, 3, 1], "%y = mul(%m, %m)\noutput %m\noutput %y");
}

#[test]
fn pools() {
    on_map([2, 7, 6], "%y = max_pool(%m) kernel=3 stride=2 padding=1");
    on_map([2, 6, 7], "%y = max_pool(%m) kernel=[2, 3] stride=[2, 1] padding=[1, 1, 0, 1] ceil");
    on_map([1, 7, 7], "%y = max_pool(%m) kernel=2 stride=3 dilation=2 ceil");
    // Windows of zeros: the first of equals.
    on_map([2, 5, 5], "%r = relu(%m)\n%y = max_pool(%r) kernel=3 stride=2");
    on_map([2, 7, 6], "%y = avg_pool(%m) kernel=3 stride=2 padding=1");
    on_map([2, 7, 6], "%y = avg_pool(%m) kernel=3 stride=2 padding=1 count_padding");
    on_map([2, 5, 5], "%y = avg_pool(%m) kernel=2 stride=2 ceil");
    on_map(
        [2, 5, 6],
        "%y = avg_pool(%m) kernel=[2, 3] stride=[3, 2] padding=[0, 1, 1, 1] ceil count_padding",
    );
    on_map([2, 5, 6], "%y = avg_pool(%m) kernel=2 dilation=[2, 1]");
    on_map([3, 3, 5], "%y = global_avg_pool(%m)");
    on_map([6, 3, 2], "%y = radix_pool(%m) radix=3");
    on_map([2, 5, 6], "%y = blur_pool(%m)");
    on_map([3, 2, 3], "%y = blur_pool(%m)");
}

/// Of equal numbers the first one, row by row, has the whole gradient.
#[test]
fn the_first_maximum_counts() {
    let text = text([1, 2, 3], "%y = max_pool(%m) kernel=2");
    let mut network = Network::new(Graph::parse(&text).unwrap(), 1);
    let tape = network.tape(Recompute::default(), &everything).unwrap();
    network.parameters[tape.parameters[0].value.0].fill(0.0);
    let gradients = network.gradients(&tape);
    let known: Vec<_> = gradients[0].1.as_ref().unwrap().iter().map(|&x| x != 0.0).collect();
    assert_eq!(
        known,
        [true, true, true, true, true, true].into_iter().chain([false; 12]).collect::<Vec<_>>()
    );
}

#[test]
fn layouts() {
    on_map([3, 4, 6], "%y = space_to_depth(%m) block=2");
    on_map([2, 3, 2], "%y = pad(%m) padding=[1, 0, 2, 3]");
    on_map([4, 3, 2], "%y = slice_channels(%m) start=1 end=3");
    on_map(
        [4, 3, 2],
        "%a = slice_channels(%m) start=1 end=3\n%b = slice_channels(%m) start=2 end=4\n%y = mul(%a, %b)",
    );
    on_map([2, 3, 2], "%a = sigmoid(%m)\n%c = concat(%m, %a, %m)\n%y = mul(%c, %c)");
    on_map([2, 3, 2], "%a = reshape(%m) shape=[1, 12]\n%y = mul(%a, %a)");
}

/// Logits that do not depend on the map they weigh.
const LOGITS: &str = "const @l.weight [12, 3]\nconst @l.bias [12]\n%l = linear(%x, @l.weight, bias=@l.bias)\n\
                      %k = mul_scalar(%l) scalar=2\n%logits = reshape(%k) shape=[1, 12, 1, 1]\n";

#[test]
fn split_attention() {
    for attributes in ["radix=1", "radix=2", "radix=3 cardinality=2", "radix=2 cardinality=3 activation=relu"]
    {
        on_map([12, 3, 2], &format!("{LOGITS}%y = split_attention(%m, %logits) {attributes}"));
    }
}

#[test]
fn gates() {
    for attributes in ["", "hard", "activation=relu", "hard activation=leaky_relu(0.1)"] {
        on_map([12, 2, 3], &format!("{LOGITS}%y = gate(%m, %logits) {attributes}"));
        on_map(
            [12, 2, 3],
            &format!("{LOGITS}%r = sigmoid(%m)\n%y = gate(%m, %logits, residual=%r) {attributes}"),
        );
    }
}

#[test]
fn drops() {
    // Two of each: their masks differ, and are the same in both passes.
    for drop in ["rate=0.3", "images rate=0.5", "squares=3 rate=0.1", "squares=4 rate=0.1"] {
        on_map(
            [3, 6, 5],
            &format!("%a = drop(%m) {drop}\n%b = sigmoid(%a)\n%c = drop(%b) {drop}\n%y = mul(%c, %a)"),
        );
    }
    on_map([3, 2, 2], "%a = reshape(%m) shape=[1, 12]\n%b = drop(%a) rate=0.5\n%y = mul(%b, %b)");
}
