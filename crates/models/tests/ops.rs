//! The papers' operators against plain loops, their gradients against finite differences, and their captured form.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use cardinal_models::burn::backend::Capture;
use cardinal_models::burn::backend::ir::OperationIr;
use cardinal_models::burn::tensor::{Device, Distribution, Shape, Tensor, TensorData};
use cardinal_models::ops;

fn random(shape: [usize; 4], device: &Device) -> Tensor<4> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

fn values<const D: usize>(tensor: &Tensor<D>) -> Vec<f32> {
    tensor.to_data().try_to_vec::<f32>().unwrap()
}

/// Sums of up to a few hundred terms of size 1.
const TOLERANCE: f32 = 2e-5;

fn assert_close(ours: &[f32], expected: &[f32]) {
    assert_eq!(ours.len(), expected.len());
    for (i, (a, b)) in ours.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= TOLERANCE * b.abs().max(1.0), "element {i}: {a} instead of {b}");
    }
}

#[test]
fn split_attention_is_equation_2_in_the_radix_major_layout() {
    let device = Device::flex();
    for (radix, cardinality, per_group) in [(1, 1, 3), (1, 4, 2), (2, 1, 5), (2, 2, 3), (4, 2, 1), (3, 5, 2)]
    {
        let c = cardinality * per_group;
        let (n, h, w) = (2, 3, 2);
        let x = random([n, radix * c, h, w], &device);
        let logits = random([n, radix * c, 1, 1], &device);
        let (xs, ls) = (values(&x), values(&logits));
        let mut expected = vec![0.0; n * c * h * w];
        for b in 0..n {
            for channel in 0..c {
                let (k, i) = (channel / per_group, channel % per_group);
                // The logits are cardinality-major, the features radix-major.
                let logit = |r: usize| ls[b * radix * c + (k * radix + r) * per_group + i];
                let weight = |r: usize| match radix {
                    1 => 1.0 / (1.0 + (-logit(0)).exp()),
                    _ => logit(r).exp() / (0..radix).map(|r| logit(r).exp()).sum::<f32>(),
                };
                for p in 0..h * w {
                    expected[(b * c + channel) * h * w + p] = (0..radix)
                        .map(|r| weight(r) * xs[(b * radix * c + r * c + channel) * h * w + p])
                        .sum();
                }
            }
        }
        assert_close(&values(&ops::split_attention(x, logits, radix, cardinality)), &expected);
    }
}

#[test]
fn radix_pool_is_equation_1() {
    let device = Device::flex();
    let (n, radix, c, h, w) = (2, 3, 4, 5, 7);
    let x = random([n, radix * c, h, w], &device);
    let xs = values(&x);
    let mut expected = vec![0.0; n * c];
    for (i, value) in xs.iter().enumerate() {
        let (b, channel) = (i / (radix * c * h * w), i / (h * w) % c);
        expected[b * c + channel] += value / (h * w) as f32;
    }
    assert_close(&values(&ops::radix_pool(x, radix)), &expected);
}

#[test]
fn blur_pool_mirrors_the_border_at_every_size() {
    let device = Device::flex();
    for (h, w) in [(2, 2), (2, 5), (3, 3), (4, 7), (8, 6)] {
        let x = random([1, 2, h, w], &device);
        let xs = values(&x);
        let mirror = |i: isize, size: usize| {
            let last = size as isize - 1;
            if i < 0 {
                -i
            } else if i > last {
                2 * last - i
            } else {
                i
            }
        };
        let mut expected = Vec::new();
        for channel in 0..2 {
            for y in 0..h.div_ceil(2) {
                for x in 0..w.div_ceil(2) {
                    let mut sum = 0.0;
                    for (dy, fy) in [(-1, 1.0), (0, 2.0), (1, 1.0)] {
                        for (dx, fx) in [(-1, 1.0), (0, 2.0), (1, 1.0)] {
                            let row = mirror(2 * y as isize + dy, h) as usize;
                            let column = mirror(2 * x as isize + dx, w) as usize;
                            sum += fy * fx / 16.0 * xs[(channel * h + row) * w + column];
                        }
                    }
                    expected.push(sum);
                }
            }
        }
        assert_close(&values(&ops::blur_pool(x)), &expected);
    }
}

#[test]
fn space_to_depth_puts_the_offset_before_the_colour() {
    let device = Device::flex();
    let x = random([2, 3, 8, 4], &device);
    let xs = values(&x);
    let y = ops::space_to_depth(x, 4);
    assert_eq!(y.dims(), [2, 48, 2, 1]);
    for (i, value) in values(&y).iter().enumerate() {
        let (b, channel, row) = (i / 96, i / 2 % 48, i % 2);
        let (dy, dx, colour) = (channel / 12, channel / 3 % 4, channel % 3);
        assert_eq!(*value, xs[((b * 3 + colour) * 8 + row * 4 + dy) * 4 + dx]);
    }
}

#[test]
fn activated_norm_normalises_and_activates() {
    let device = Device::flex();
    let vector = |data: [f32; 2]| Tensor::<1>::from_floats(data, &device);
    let x = random([3, 2, 4, 5], &device);
    let (gamma, beta, mean, var) = ([1.5, -0.5], [0.1, -0.2], [0.3, -0.7], [2.0, 0.5]);
    for slope in [1.0, 0.0, 1e-2] {
        let y = ops::activated_norm(
            x.clone(),
            vector(gamma),
            vector(beta),
            vector(mean),
            vector(var),
            1e-5,
            slope,
        );
        let expected: Vec<f32> = values(&x)
            .iter()
            .enumerate()
            .map(|(i, value)| {
                let c = i / 20 % 2;
                let v = gamma[c] * (value - mean[c]) / (var[c] + 1e-5).sqrt() + beta[c];
                if v >= 0.0 { v } else { slope as f32 * v }
            })
            .collect();
        assert_close(&values(&y), &expected);
    }
}

#[test]
fn drop_block_grows_each_seed_into_a_square() {
    let device = Device::flex();
    let mut noise = vec![1.0f32; 49];
    noise[3 * 7 + 3] = 0.0;
    let noise = Tensor::from_data(TensorData::new(noise, Shape::from([1, 1, 7, 7])), &device);
    for (block, dropped) in [(1, 1), (2, 4), (3, 9), (5, 25)] {
        let y = values(&ops::drop_block(Tensor::ones([1, 1, 7, 7], &device), noise.clone(), 0.5, block));
        assert_eq!(y.iter().filter(|v| **v == 0.0).count(), dropped);
        assert!((y.iter().sum::<f32>() - 49.0).abs() < 1e-3);
    }
}

/// The gradient of `f`'s weighted sum at `x`, against central differences.
fn check_gradient(f: impl Fn(Tensor<4>) -> Tensor<4>, shape: [usize; 4]) {
    let device = Device::flex().autodiff();
    device.seed(3);
    let x = random(shape, &device).detach().require_grad();
    let weights = values(&random(f(x.clone()).dims(), &device));
    let weigh = |y: Tensor<4>| {
        let weights = TensorData::new(weights.clone(), y.shape());
        (y.clone() * Tensor::from_data(weights, &y.device())).sum()
    };
    let gradients = weigh(f(x.clone())).backward();
    let gradient = values(&x.grad(&gradients).expect("the input has a gradient"));
    let plain = Device::flex();
    let (start, step) = (values(&x), 1e-2);
    for i in (0..start.len()).step_by(start.len() / 12 + 1) {
        let at = |delta: f32| {
            let mut moved = start.clone();
            moved[i] += delta;
            let x = Tensor::from_data(TensorData::new(moved, Shape::from(shape)), &plain);
            f64::from(values(&weigh(f(x)))[0])
        };
        let difference = ((at(step) - at(-step)) / (2.0 * f64::from(step))) as f32;
        let error = (gradient[i] - difference).abs();
        assert!(
            error <= 2e-2 * difference.abs().max(0.5),
            "element {i}: {} against {difference}",
            gradient[i]
        );
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    check_gradient(|x| ops::split_attention(x.clone(), ops::global_avg_pool(x), 2, 2), [2, 8, 3, 3]);
    check_gradient(|x| ops::radix_pool(x, 2), [2, 6, 3, 4]);
    check_gradient(ops::blur_pool, [1, 2, 5, 6]);
    check_gradient(|x| ops::space_to_depth(x, 2), [1, 2, 4, 6]);
    check_gradient(|x| ops::gate(x.clone(), ops::global_avg_pool(x), false), [2, 3, 3, 3]);
    check_gradient(
        |x| {
            let ones = Tensor::<1>::ones([3], &x.device());
            ops::activated_norm_train(x, ones.clone() * 1.3, ones * 0.1, 1e-5, 0.1).0
        },
        [4, 3, 3, 3],
    );
}

#[test]
fn capture_records_each_operator_as_one_named_node() {
    let device = Device::capture();
    let id = |x: &Tensor<4>| x.clone().try_into_primitive::<Capture>().unwrap().id();
    let captured = device
        .capture_scope(|scope| {
            let x = Tensor::<4>::from_data(TensorData::zeros::<f32, _>([1, 3, 16, 16]), &device);
            let input = id(&x);
            let ones = Tensor::<1>::ones([48], &device);
            let y = ops::space_to_depth(x, 4);
            let (y, _, _) = ops::activated_norm_train(y, ones.clone(), ones.clone(), 1e-5, 0.01);
            let y = ops::activated_norm(y, ones.clone(), ones.clone(), ones.clone(), ones, 1e-5, 0.01);
            let y = ops::blur_pool(y);
            let pooled = ops::global_avg_pool(y.clone());
            let y = ops::gate(y, pooled.clone(), true);
            let noise = Tensor::zeros([1, 48, 2, 2], &device);
            let y = ops::drop_block(y, noise, 0.1, 3);
            let y = ops::split_attention(y, pooled, 2, 3);
            let y = ops::radix_pool(y, 2);
            assert_eq!(y.dims(), [1, 12, 1, 1]);
            let output = id(&y);
            scope.complete([input], [output])
        })
        .unwrap();
    let nodes: Vec<(String, Vec<f64>)> = captured
        .graph
        .operations
        .iter()
        .filter_map(|op| match op {
            OperationIr::Custom(op) => {
                let scalars = op.scalars.iter().map(|scalar| scalar.elem::<f64>()).collect();
                Some((op.id.clone(), scalars))
            }
            _ => None,
        })
        .collect();
    let expected: [(&str, &[f64]); 9] = [
        ("space_to_depth", &[4.0]),
        ("activated_norm_train", &[1e-5, 0.01]),
        ("activated_norm", &[1e-5, 0.01]),
        ("blur_pool", &[]),
        ("global_avg_pool", &[]),
        ("gate", &[1.0]),
        ("drop_block", &[0.1, 3.0]),
        ("split_attention", &[2.0, 3.0]),
        ("radix_pool", &[2.0]),
    ];
    let expected: Vec<(String, Vec<f64>)> =
        expected.map(|(name, scalars)| (name.into(), scalars.into())).into();
    assert_eq!(nodes, expected);
}
