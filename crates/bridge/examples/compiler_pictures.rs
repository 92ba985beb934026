//! The pictures of docs/engine.md: the stem and the first block of a small ResNeSt as captured, and as compiled.
//! `cargo build --release --workspace --example compiler_pictures && target/release/examples/compiler_pictures docs`
#![allow(clippy::unwrap_used, reason = "a tool for developers")]

use burn::tensor::Device;
use cardinal_bridge::capture;
use cardinal_engine::passes;
use cardinal_models::{Backbone, ModelOptions, create, weights};

fn main() {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "docs".into());
    let model = create("resnest14_digits", &ModelOptions::new(), &Device::flex()).unwrap();
    let forward = |model: &cardinal_models::Model, x| model.features(x).swap_remove(1);
    let mut graph =
        capture("stem and first block", model, [1, 3, 64, 64], weights::tensor_names, forward).unwrap();
    graph.prune();
    graph.name = "As captured".into();
    std::fs::write(format!("{folder}/compiler-captured.svg"), graph.to_svg()).unwrap();
    let mut graph = passes::optimize(graph).unwrap().graph;
    graph.name = "As compiled".into();
    std::fs::write(format!("{folder}/compiler-compiled.svg"), graph.to_svg()).unwrap();
}
