//! Random numbers that depend on what they are for, and on nothing else.
//!
//! A [`Random`] is named by a seed and some words (what for, which epoch, which sample), so any worker can
//! make the numbers of any sample, in any order, and gets the same ones. The generator is Philox4x64-10
//! (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): a block cipher over a counter.
//!
//! The bits are the same on every platform and in every version: integer arithmetic, the four operations and
//! the square root of IEEE 754, and an own logarithm and exponential, because those of the system differ in
//! their last bits.

/// A stream of random numbers named by a seed and words.
///
/// ```
/// use cardinal_data::Random;
///
/// const FLIP: u64 = 1;
/// let (seed, epoch, sample) = (42, 3, 1234);
/// let mut random = Random::new(seed, &[FLIP, epoch, sample]);
/// let again = Random::new(seed, &[FLIP, epoch, sample]).unit();
/// assert_eq!(random.unit(), again);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Random {
    key: [u64; 2],
    /// The number of the next block.
    counter: u64,
    block: [u64; 4],
    /// How many values of `block` are used up.
    used: usize,
}

impl Random {
    /// The stream of `seed` and `words`; another word, another order or another number of them gives an
    /// unrelated stream.
    #[must_use]
    pub fn new(seed: u64, words: &[u64]) -> Self {
        let mut key = [seed, words.len() as u64];
        for (position, pair) in words.chunks(2).enumerate() {
            let [first, second, ..] = philox(
                // The last word sets these blocks apart from those that the stream is made of.
                [pair[0], pair.get(1).copied().unwrap_or_default(), position as u64, u64::MAX],
                key,
            );
            key = [first, second];
        }
        Self { key, counter: 0, block: [0; 4], used: 4 }
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        if self.used == self.block.len() {
            self.block = philox([self.counter, 0, 0, 0], self.key);
            self.counter = self.counter.wrapping_add(1);
            self.used = 0;
        }
        let value = self.block[self.used];
        self.used += 1;
        value
    }

    /// Uniform in [0, 1), a multiple of 2^-53.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// Uniform between `a` and `b`, either of which may be the larger.
    pub fn uniform(&mut self, a: f64, b: f64) -> f64 {
        a + (b - a) * self.unit()
    }

    /// Uniform in 0..n, without bias (Lemire, "Fast random integer generation in an interval", 2019).
    /// An `n` of 0 counts as 1.
    pub fn below(&mut self, n: u64) -> u64 {
        let n = n.max(1);
        let threshold = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// True with this probability: always from 1 on, never from 0 down.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Normal with mean 0 and standard deviation 1 (Marsaglia's polar method).
    pub fn normal(&mut self) -> f64 {
        loop {
            let (x, y) = (self.uniform(-1.0, 1.0), self.uniform(-1.0, 1.0));
            let square = x * x + y * y;
            if square > 0.0 && square < 1.0 {
                return x * (-2.0 * ln(square) / square).sqrt();
            }
        }
    }

    /// Gamma of this shape, with scale 1. Shapes outside 10^-6 to 10^6 count as the nearest of the two,
    /// NaN as the smaller.
    pub fn gamma(&mut self, shape: f64) -> f64 {
        exp(self.ln_gamma(shape))
    }

    /// Beta(a, b), in [0, 1]; as mixup and CutMix draw their shares. The arguments have [`Random::gamma`]'s
    /// range.
    pub fn beta(&mut self, a: f64, b: f64) -> f64 {
        // By logarithms: with small arguments both gamma variables may be too small for an f64.
        let (x, y) = (self.ln_gamma(a), self.ln_gamma(b));
        1.0 / (1.0 + exp(y - x))
    }

    /// Puts the items into a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }

    /// The numbers 0..n in a random order.
    pub fn permutation(&mut self, n: u32) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n).collect();
        self.shuffle(&mut order);
        order
    }

    /// The logarithm of a gamma variable (Marsaglia and Tsang, "A simple method for generating gamma
    /// variables", 2000), its `U^(1/shape)` for shapes below 1 included.
    fn ln_gamma(&mut self, shape: f64) -> f64 {
        let shape = if shape.is_nan() { 1e-6 } else { shape.clamp(1e-6, 1e6) };
        if shape < 1.0 {
            let factor = ln(1.0 - self.unit()) / shape;
            return self.ln_gamma(shape + 1.0) + factor;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let root = 1.0 + c * x;
            if root <= 0.0 {
                continue;
            }
            let v = root * root * root;
            let u = 1.0 - self.unit();
            if ln(u) < 0.5 * x * x + d - d * v + d * ln(v) {
                return ln(d) + ln(v);
            }
        }
    }
}

/// One block of Philox4x64-10.
fn philox(mut counter: [u64; 4], mut key: [u64; 2]) -> [u64; 4] {
    let product = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        ((product >> 64) as u64, product as u64)
    };
    for round in 0..10 {
        if round > 0 {
            key[0] = key[0].wrapping_add(0x9E37_79B9_7F4A_7C15);
            key[1] = key[1].wrapping_add(0xBB67_AE85_84CA_A73B);
        }
        let (high0, low0) = product(0xD2E7_470E_E14C_6C93, counter[0]);
        let (high1, low1) = product(0xCA5A_8263_9512_1157, counter[2]);
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0];
    }
    counter
}

/// The natural logarithm of a positive, normal number, to about an ulp.
fn ln(x: f64) -> f64 {
    // x = m * 2^e with m in [sqrt(1/2), sqrt(2)); ln m = 2 artanh((m - 1) / (m + 1)).
    const HALF: u64 = 0x3FE0_0000_0000_0000;
    let bits = x.to_bits();
    let mut exponent = (bits >> 52) as i64 - 1022;
    let mut mantissa = f64::from_bits(bits & 0x000F_FFFF_FFFF_FFFF | HALF);
    if mantissa < std::f64::consts::FRAC_1_SQRT_2 {
        mantissa *= 2.0;
        exponent -= 1;
    }
    let t = (mantissa - 1.0) / (mantissa + 1.0);
    let square = t * t;
    let series = (0..12).rev().fold(0.0, |sum, k| sum * square + 1.0 / f64::from(2 * k + 1));
    exponent as f64 * std::f64::consts::LN_2 + 2.0 * t * series
}

/// The exponential, to about an ulp per unit of the argument's power of two; 0 and infinity where it leaves
/// the range of an f64.
fn exp(x: f64) -> f64 {
    if x < -745.0 {
        return 0.0;
    }
    if x > 709.0 {
        return f64::INFINITY;
    }
    // x = n ln 2 + r, with ln 2 in two parts so that r keeps its digits.
    let n = (x * std::f64::consts::LOG2_E).round_ties_even();
    let r = x - n * 0.693_147_180_369_123_8 - n * 1.908_214_929_270_587_7e-10;
    let series = (1..=14).rev().fold(1.0, |sum, k| 1.0 + sum * r / f64::from(k));
    // In two steps: 2^n alone may be out of range.
    let half = n as i64 / 2;
    series * power_of_two(half) * power_of_two(n as i64 - half)
}

fn power_of_two(exponent: i64) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_those_of_numpy() {
        // np.random.Philox(key=key, counter=counter - 1).random_raw(4); NumPy counts before it enciphers.
        let expected =
            [0x1655_4D9E_CA36_314C, 0xDB20_FE9D_672D_0FDC, 0xD7E7_72CE_E186_176B, 0x7E68_B68A_EC7B_A23B];
        assert_eq!(philox([0; 4], [0; 2]), expected);
        let expected =
            [0xB521_35AA_07CB_55D6, 0xA034_3476_B3B2_14D6, 0xC873_8947_548F_B714, 0x3ADF_7555_2EAD_F2F2];
        assert_eq!(philox([7, 2, 3, 4], [1, 2]), expected);
    }

    /// The largest relative difference in ulps.
    fn ulps(pairs: impl Iterator<Item = (f64, f64)>) -> f64 {
        pairs.map(|(a, b)| (a - b).abs() / (b.abs() * f64::EPSILON)).fold(0.0, f64::max)
    }

    #[test]
    fn own_logarithm_and_exponential_are_close_to_the_systems() {
        let mut random = Random::new(1, &[]);
        let inputs: Vec<f64> = (0..100_000).map(|_| random.uniform(-600.0, 600.0)).collect();
        assert!(ulps(inputs.iter().map(|&x| (exp(x), x.exp()))) < 4.0);
        let positive = inputs.iter().map(|x| x.exp()).chain((0..100_000).map(|_| 1.0 - random.unit()));
        assert!(ulps(positive.filter(|&x| x != 1.0).map(|x| (ln(x), x.ln()))) < 4.0);
        assert_eq!((ln(1.0), exp(0.0), exp(-1e9), exp(1e9)), (0.0, 1.0, 0.0, f64::INFINITY));
        assert!((exp(-740.0) / f64::exp(-740.0) - 1.0).abs() < 0.1, "below the normal numbers");
    }
}
