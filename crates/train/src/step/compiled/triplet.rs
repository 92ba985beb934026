//! The triplet loss and its gradient, by hand. [`crate::loss::triplet`] is the definition.

/// The loss of `embeddings` (`[n, features]`, row-major) with `labels`; adds its gradient times `scale` to `gradient`,
/// which has the shape of the embeddings.
pub(super) fn triplet(embeddings: &[f32], labels: &[u32], scale: f64, gradient: &mut [f32]) -> f64 {
    let n = labels.len();
    if n == 0 {
        return 0.0;
    }
    let features = embeddings.len() / n;
    let row = |i: usize| &embeddings[i * features..(i + 1) * features];
    let distances: Vec<f64> = (0..n * n).map(|at| distance(row(at / n), row(at % n))).collect();
    // An image counts if it has another of its class beside it, and one of another class.
    let counts = |i: &usize| (2..n).contains(&labels.iter().filter(|&&label| label == labels[*i]).count());
    let complete: Vec<usize> = (0..n).filter(counts).collect();
    let mut loss = 0.0;
    for &a in &complete {
        let of_class = |same: bool| (0..n).filter(move |&b| a != b && (labels[a] == labels[b]) == same);
        let [near, far] = [(true, 1.0), (false, -1.0)]
            .map(|(same, sign)| hardest(of_class(same).map(|b| (b, distances[a * n + b])), sign));
        let sum =
            |list: &[(usize, f64)]| list.iter().map(|(b, weight)| weight * distances[a * n + b]).sum::<f64>();
        let margin = sum(&near) - sum(&far);
        loss += softplus(margin);
        let slope = scale / (complete.len() as f64 * (1.0 + (-margin).exp()));
        let pairs =
            near.iter().map(|&(b, weight)| (b, weight)).chain(far.iter().map(|&(b, weight)| (b, -weight)));
        for (b, weight) in pairs {
            // Below this the root has no slope: such images lie in one point.
            let distance = distances[a * n + b];
            if distance * distance <= LEAST {
                continue;
            }
            let factor = slope * weight / distance;
            for k in 0..features {
                let step = (factor * f64::from(row(a)[k] - row(b)[k])) as f32;
                gradient[a * features + k] += step;
                gradient[b * features + k] -= step;
            }
        }
    }
    loss / complete.len().max(1) as f64
}

/// The smallest square of a distance.
const LEAST: f64 = 1e-12;

fn distance(a: &[f32], b: &[f32]) -> f64 {
    let square: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    square.max(LEAST).sqrt()
}

/// The images of `pairs` (image and distance) with the softmax of `sign` times the distance: the weights by which the
/// hardest count most.
fn hardest(pairs: impl Iterator<Item = (usize, f64)>, sign: f64) -> Vec<(usize, f64)> {
    let mut list: Vec<_> = pairs.map(|(image, distance)| (image, sign * distance)).collect();
    let largest = list.iter().map(|pair| pair.1).fold(f64::NEG_INFINITY, f64::max);
    list.iter_mut().for_each(|pair| pair.1 = (pair.1 - largest).exp());
    let sum: f64 = list.iter().map(|pair| pair.1).sum();
    list.iter_mut().for_each(|pair| pair.1 /= sum);
    list
}

/// `log(1 + exp(x))` without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::loss;
    use burn::tensor::{Device, Tensor, TensorData};
    use proptest::prelude::*;

    fn by_burn(embeddings: &[f32], labels: &[u32], scale: f64) -> (f64, Vec<f32>) {
        let device = Device::flex().autodiff();
        let data = TensorData::new(embeddings.to_vec(), [labels.len(), embeddings.len() / labels.len()]);
        let x = Tensor::<2>::from_data(data, &device).require_grad();
        let loss = loss::triplet(x.clone(), labels);
        let value = loss.clone().into_data().try_to_vec::<f32>().unwrap()[0];
        let gradient = x.grad(&(loss * scale).backward()).unwrap().into_data().try_to_vec::<f32>().unwrap();
        (f64::from(value), gradient)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn it_is_what_burn_computes(
            labels in prop::collection::vec(0..3_u32, 1..10),
            numbers in prop::collection::vec(-1.0..1.0_f32, 50),
            scale in 0.1..2.0_f64,
        ) {
            let embeddings = &numbers[..labels.len() * 5];
            let mut gradient = vec![0.0; embeddings.len()];
            let loss = triplet(embeddings, &labels, scale, &mut gradient);
            let (expected, slopes) = by_burn(embeddings, &labels, scale);
            prop_assert!((loss - expected).abs() <= 1e-5 * expected.max(1.0), "{loss}, Burn {expected}");
            for (ours, theirs) in gradient.iter().zip(slopes) {
                prop_assert!((ours - theirs).abs() <= 2e-5, "{ours}, Burn {theirs}");
            }
        }
    }

    #[test]
    fn images_in_one_point_and_classes_alone_have_no_slope() {
        let mut gradient = [0.0; 6];
        assert!(triplet(&[1.0; 6], &[0, 0, 1], 1.0, &mut gradient).is_finite());
        assert_eq!(gradient, [0.0; 6]);
        assert_eq!(triplet(&[1.0, 2.0, 3.0], &[0, 1, 2], 1.0, &mut gradient[..3]), 0.0);
        assert_eq!(triplet(&[], &[], 1.0, &mut []), 0.0);
    }
}
