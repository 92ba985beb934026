//! Helpers: texts before and after, and the numbers of both.

use cardinal_engine::graph::{Graph, ValueId};
use cardinal_engine::passes::{LAST, Optimized, PASSES, Remark, optimize};
use cardinal_engine::reference::{Tensor, evaluate};

/// `text` through one pass: the text after it, and the reasons for what stays. The numbers are checked on the way.
#[track_caller]
pub(crate) fn run(pass: &str, text: &str) -> (String, Vec<String>) {
    let pass = PASSES.iter().chain(LAST).find(|candidate| candidate.name == pass).unwrap();
    let before = Graph::parse(text).unwrap();
    let after = pass.apply(before.clone()).unwrap();
    assert_same_results(&before, &after.graph);
    (after.graph.to_text(), missed(&after))
}

/// Checks one pass: text in, text out.
#[track_caller]
pub(crate) fn check(pass: &str, before: &str, after: &str) {
    assert_eq!(run(pass, before).0, dedent(after));
}

/// Checks that a pass leaves a graph alone and says why.
#[track_caller]
pub(crate) fn check_stays(pass: &str, text: &str, reasons: &[&str]) {
    let (after, missed) = run(pass, text);
    assert_eq!(nodes(&after), nodes(&Graph::parse(text).unwrap().to_text()));
    assert_eq!(missed, reasons);
}

/// Checks all passes together: the nodes that they leave, and the reasons for what was not fused. A second time they
/// change nothing.
#[track_caller]
pub(crate) fn check_network(text: &str, expected: &str, reasons: &[&str]) {
    let before = Graph::parse(text).unwrap();
    let after = optimize(before.clone()).unwrap();
    assert_same_results(&before, &after.graph);
    let text = after.graph.to_text();
    assert_eq!(nodes(&text), dedent(expected));
    assert_eq!(missed(&after), reasons);
    assert_eq!(optimize(after.graph).unwrap().graph.to_text(), text, "a second time");
}

/// Checks that two graphs compute the same, for two images.
#[track_caller]
fn assert_same_results(before: &Graph, after: &Graph) {
    let names =
        |graph: &Graph| -> Vec<String> { graph.outputs.iter().map(|&id| graph[id].name.clone()).collect() };
    assert_eq!(names(before), names(after));
    let difference = difference(before, after, &before.outputs);
    // Weights are rounded once more than before, results not at all: a few parts in 2^24, and sums hide some.
    assert!(difference <= 1e-5, "off by {difference}");
}

/// The largest distance between the outputs of two graphs, for two images, as a share of the largest of `values` in the
/// first one.
pub(crate) fn difference(before: &Graph, after: &Graph, values: &[ValueId]) -> f64 {
    let inputs: Vec<Tensor> = before.inputs.iter().map(|&id| input(before.shape(id))).collect();
    let norm =
        |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    let with_values = Graph { outputs: values.to_vec(), ..before.clone() };
    let sizes = evaluate(&with_values, &inputs).unwrap();
    let size = sizes.iter().map(|size| norm(&mut size.data.iter().copied())).fold(0.0, f64::max);
    let (expected, found) = (evaluate(before, &inputs).unwrap(), evaluate(after, &inputs).unwrap());
    assert_eq!(expected.len(), found.len());
    let distances = expected.iter().zip(&found).map(|(expected, found)| {
        assert_eq!(expected.shape, found.shape);
        norm(&mut expected.data.iter().zip(&found.data).map(|(a, b)| a - b))
    });
    distances.fold(0.0, f64::max) / size
}

/// Two images, the same every time, without symmetry.
fn input(shape: &[usize]) -> Tensor {
    let shape: Vec<usize> = [2].iter().chain(&shape[1..]).copied().collect();
    let count = shape.iter().product::<usize>() as u32;
    let data = (0..count).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0).collect();
    Tensor::new(shape, data).unwrap()
}

fn missed(optimized: &Optimized) -> Vec<String> {
    let missed = |remark: &Remark| match remark {
        Remark::Missed { .. } => Some(remark.to_string()),
        Remark::Done { .. } => None,
    };
    optimized.remarks.iter().filter_map(missed).collect()
}

/// The nodes and outputs of a text.
fn nodes(text: &str) -> String {
    let lines = text.lines().filter(|line| line.starts_with(['%', 'o']));
    lines.map(|line| format!("{line}\n")).collect()
}

/// The lines of a text without their indentation.
fn dedent(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect()
}

/// The constants of a convolution without bias, `[outputs, inputs, rows, columns]`.
pub(crate) fn conv(name: &str, shape: [usize; 4]) -> String {
    format!("const @{name}.weight {shape:?}\n")
}

/// The constants of a convolution with bias.
pub(crate) fn conv_bias(name: &str, shape: [usize; 4]) -> String {
    format!("{}const @{name}.bias [{}]\n", conv(name, shape), shape[0])
}

/// The constants of a batch norm.
pub(crate) fn norm(name: &str, channels: usize) -> String {
    let parameters = ["weight", "bias", "running_mean", "running_var"];
    parameters.iter().map(|parameter| format!("const @{name}.{parameter} [{channels}]\n")).collect()
}

/// A node: the norm `name` of `x`.
pub(crate) fn activated_norm(result: &str, x: &str, name: &str, slope: f32) -> String {
    let parameters = format!("@{name}.weight, @{name}.bias, @{name}.running_mean, @{name}.running_var");
    format!("{result} = activated_norm({x}, {parameters}) slope={slope} # {name}\n")
}
