//! Numbers for constants whose text has none: they follow from name and shape alone, so that a test computes the same
//! before and after a round trip, and they lie in the range that a network's parameters of that name have.

/// Numbers for the constant `name`: variances and norms' weights in `[0.5, 1.5)`, biases and means in `[-0.5, 0.5)`,
/// filters with a variance of 1 over their inputs, so that activations keep their size from layer to layer.
pub(super) fn numbers(name: &str, shape: &[usize]) -> Vec<f32> {
    let count = shape.iter().product();
    let inputs: usize = shape.iter().skip(1).product();
    let last = name.rsplit('.').next().unwrap_or(name);
    let (low, width) = match shape.len() {
        0 | 1 if last.ends_with("var") || last == "weight" => (0.5, 1.0),
        0 | 1 => (-0.5, 1.0),
        _ => {
            let bound = (3.0 / inputs.max(1) as f64).sqrt();
            (-bound, 2.0 * bound)
        }
    };
    let mut state = seed(name);
    (0..count).map(|_| (low + width * uniform(&mut state)) as f32).collect()
}

/// FNV-1a.
fn seed(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The next number in `[0, 1)`, by SplitMix64.
fn uniform(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 40) as f64 / (1_u64 << 24) as f64
}
