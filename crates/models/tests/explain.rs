//! Grad-CAM against PyTorch's (`tools/gradcam_fixtures.py`), and against what it is at the last map.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use cardinal_models::burn::tensor::{Device, Shape, Tensor, TensorData};
use cardinal_models::explain::{GradCam, Layer};
use cardinal_models::weights::state_dict;
use cardinal_models::{Backbone, ModelOptions};
use common::{json, numbers, relative_error, rule_model, signed};
use serde_json::Value;

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

fn grad_cam(name: &str) -> GradCam {
    let model = rule_model(name, &ModelOptions::new().with_num_classes(10), &Device::flex());
    GradCam::new(model, &Device::flex())
}

fn input(shape: [usize; 4], device: &Device) -> Tensor<4> {
    let data = signed("input", shape.iter().product());
    Tensor::from_data(TensorData::new(data, Shape::from(shape)), device)
}

#[test]
fn maps_are_pytorchs() {
    let golden = json("gradcam.json");
    let size = golden["size"].as_u64().unwrap() as usize;
    let classes: Vec<usize> =
        golden["classes"].as_array().unwrap().iter().map(|class| class.as_u64().unwrap() as usize).collect();
    for (name, expected) in golden["models"].as_object().unwrap() {
        let network = grad_cam(name);
        let names = network.model().feature_names();
        for (layer, map) in expected["layers"].as_object().unwrap() {
            let layer = match names.iter().position(|name| name == layer) {
                Some(stage) => Layer::Stage(stage),
                None => Layer::Last,
            };
            let x = input([classes.len(), 3, size, size], network.device());
            let found = network.run(x, &classes, layer).unwrap();
            let error = relative_error(&numbers(found.logits), &floats(&expected["logits"]));
            assert!(error < 1e-4, "{name}: logits differ by {error:e}");
            assert_eq!(
                found.maps.dims()[..],
                floats(&map["shape"]).iter().map(|&n| n as usize).collect::<Vec<_>>()
            );
            let error = relative_error(&numbers(found.maps), &floats(&map["maps"]));
            assert!(error < 1e-3, "{name} {layer:?}: differs by {error:e}");
        }
    }
}

#[test]
fn at_the_last_map_it_is_the_class_activation_map() {
    let network = grad_cam("resnest14d");
    let x = input([2, 3, 96, 96], network.device());
    let features = network.model().forward_features(x.clone());
    let [_, channels, rows, columns] = features.dims();
    let features = numbers(features);
    // Each image's likeliest class has something in its favour.
    let logits = numbers(network.model().forward(x.clone()));
    let likeliest = |row: &[f32]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
    let classes: Vec<usize> = logits.chunks(10).map(likeliest).collect();
    let weight = state_dict(network.model()).unwrap().get("fc.weight").unwrap().to_f32();
    let found = numbers(network.run(x, &classes, Layer::Last).unwrap().maps);
    let pixels = rows * columns;
    for (image, class) in classes.into_iter().enumerate() {
        let expected: Vec<f32> = (0..pixels)
            .map(|pixel| {
                let product = |channel: usize| {
                    weight[class * channels + channel]
                        * features[(image * channels + channel) * pixels + pixel]
                };
                ((0..channels).map(product).sum::<f32>() / pixels as f32).max(0.0)
            })
            .collect();
        assert!(expected.iter().any(|&value| value > 0.0));
        let error = relative_error(&found[image * pixels..][..pixels], &expected);
        assert!(error < 1e-4, "image {image}: {error:e}");
    }
}

#[test]
fn taps_see_the_features_and_names_fit_them() {
    for name in ["resnet18", "resnest14d", "tresnet_m", "regnety_032", "mixnet_s", "fbnetv2_f1"] {
        let model = rule_model(name, &ModelOptions::new().with_num_classes(3), &Device::flex());
        let x = input([1, 3, 64, 64], &Device::flex());
        let features = model.features(x.clone());
        let info = model.feature_info();
        assert_eq!([features.len(), model.feature_names().len()], [info.len(); 2], "{name}");
        for (map, info) in features.iter().zip(&info) {
            assert_eq!(map.dims()[1], info.channels, "{name}");
        }
        // A map that is replaced is what the rest of the network reads.
        let mut seen = 0;
        let zeroed = model.stages(x.clone(), &mut |place, map| {
            assert_eq!(place, seen, "{name}");
            seen += 1;
            if place + 1 == info.len() { map.zeros_like() } else { map }
        });
        assert_eq!(seen, info.len());
        assert!(numbers(zeroed).iter().all(|&value| value == 0.0));
    }
}

#[test]
fn impossible_requests_are_refused() {
    let network = grad_cam("resnet18");
    let refusal = |classes: &[usize], layer| {
        let x = input([2, 3, 32, 32], network.device());
        network.run(x, classes, layer).unwrap_err().to_string()
    };
    assert!(refusal(&[0, 10], Layer::Last).contains("each image needs a class below 10; [0, 10] are given"));
    assert!(refusal(&[0], Layer::Last).contains("each image needs a class"));
    assert!(refusal(&[0, 1], Layer::Stage(5)).contains("it has 5 stages, and none of number 5"));
}
