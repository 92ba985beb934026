//! Module paths for nodes that have no parameters.

use cardinal_engine::graph::Graph;

/// Gives every nameless node the path that its nearest named neighbours before and after share: a pooling between
/// `layer1.0.conv2` and `layer1.0.conv3` belongs to `layer1.0`.
pub(crate) fn inherit(graph: &mut Graph) {
    let names: Vec<_> = graph.nodes.iter().map(|node| node.name.clone()).collect();
    let mut after: Vec<&str> = vec![""; names.len()];
    let mut next = "";
    for (i, name) in names.iter().enumerate().rev() {
        if !name.is_empty() {
            next = name;
        }
        after[i] = next;
    }
    let mut before = "";
    for (i, name) in names.iter().enumerate() {
        if name.is_empty() {
            graph.nodes[i].name = common(before, after[i]);
        } else {
            before = name;
        }
    }
}

/// The leading path segments that `a` and `b` share.
fn common(a: &str, b: &str) -> String {
    let shared = a.split('.').zip(b.split('.')).take_while(|(a, b)| a == b);
    shared.map(|(segment, _)| segment).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_path_ends_at_a_dot() {
        assert_eq!(common("layer1.0.conv2", "layer1.0.conv3"), "layer1.0");
        assert_eq!(common("layer1.1.conv", "layer1.10.conv"), "layer1");
        assert_eq!(common("conv1", "layer1.0.conv1"), "");
    }
}
