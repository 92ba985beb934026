//! Writes captured graphs of networks, as they are before any pass, to portable files.
#![allow(clippy::unwrap_used, reason = "a tool for developers")]

use burn::tensor::Device;
use cardinal_bridge::capture;
use cardinal_engine::graph::Package;
use cardinal_models::{Backbone, ModelOptions, create, weights};

fn main() {
    let mut args = std::env::args().skip(1);
    let folder = args.next().unwrap();
    for arg in args {
        let (name, side) = arg.split_once(':').unwrap();
        let side: usize = side.parse().unwrap();
        let model = create(name, &ModelOptions::new(), &Device::flex()).unwrap();
        let input = [1, 3, side, side];
        let graph = capture(name, model, input, weights::tensor_names, |model, x| model.forward(x)).unwrap();
        let package = Package { graphs: vec![graph], ..Package::default() };
        package.save(format!("{folder}/{name}.graph")).unwrap();
    }
}
