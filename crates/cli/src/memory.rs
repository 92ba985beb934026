//! Memory as a limit: its notation, what the machine has left, and the largest batch that fits.

use crate::machine;
use anyhow::Context;

/// The largest batch that is tried where nothing else bounds it.
pub(crate) const MOST_IMAGES: usize = 1 << 14;
const UNITS: [(&str, f64); 5] = [
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("TiB", 1_099_511_627_776.0),
    ("B", 1.0),
];

/// Bytes, from `8GiB`, `512MiB`, `1.5 GiB` or a plain number of bytes.
///
/// # Errors
///
/// For anything else, a unit of another kind and less than a byte.
pub(crate) fn parse_size(text: &str) -> Result<usize, String> {
    let (number, unit) =
        UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit))).unwrap_or((text, 1.0));
    let bytes = number.trim_end().parse::<f64>().ok().map(|number| number * unit);
    match bytes {
        // Beyond 2^53 a number of bytes is no longer exact, nor any machine's.
        Some(bytes) if (1.0..9e15).contains(&bytes) => Ok(bytes as usize),
        _ => Err("a size is a number with KiB, MiB, GiB or TiB, such as 8GiB".into()),
    }
}

/// Bytes as MiB, to a tenth.
pub(crate) fn mebibytes(bytes: usize) -> f64 {
    (bytes as f64 / 104_857.6).round() / 10.0
}

/// `limit`, or else four fifths of the memory that is free now.
///
/// # Errors
///
/// The system does not say how much is free.
pub(crate) fn limit_or_free(limit: Option<usize>) -> anyhow::Result<usize> {
    let free = || machine::available_memory().map(|bytes| bytes / 5 * 4);
    limit.or_else(free).context("the system does not tell its free memory: give --memory-limit")
}

/// The largest batch of at most `most` images whose `memory` is within `limit`, if one image is; found by doubling, then
/// halving the gap. `memory` must not shrink with the batch.
///
/// # Errors
///
/// Those of `memory`.
pub(crate) fn largest_batch(
    limit: usize,
    most: usize,
    mut memory: impl FnMut(usize) -> anyhow::Result<usize>,
) -> anyhow::Result<Option<usize>> {
    let mut fits = |batch: usize| anyhow::Ok(batch <= most && memory(batch)? <= limit);
    let (mut low, mut high) = (0, 1);
    while fits(high)? {
        (low, high) = (high, 2 * high);
    }
    while high - low > 1 {
        let middle = low.midpoint(high);
        if fits(middle)? {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok((low > 0).then_some(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(parse_size("8GiB"), Ok(8 << 30));
        assert_eq!(parse_size("1.5 MiB"), Ok(3 << 19));
        assert_eq!(parse_size("2KiB"), Ok(2048));
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("4096B"), Ok(4096));
        for wrong in ["", "GiB", "0", "-1GiB", "8GB", "nanGiB", "infGiB", "0.1", "1e30"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_largest_batch_is_exact_and_found_in_few_plans() {
        for fixed in [0, 7, 1000] {
            for limit in [0, 1, 6, 1000, 1001, 1010, 123_456] {
                let mut plans = 0;
                let found = largest_batch(limit, MOST_IMAGES, |batch| {
                    plans += 1;
                    Ok(fixed + 3 * batch)
                });
                let expected = limit.saturating_sub(fixed) / 3;
                let expected = expected.min(MOST_IMAGES);
                assert_eq!(found.unwrap(), (expected > 0).then_some(expected), "{limit} after {fixed}");
                assert!(plans <= 34);
            }
        }
    }

    #[test]
    fn there_is_an_end_to_growing() {
        assert_eq!(largest_batch(1, 100, |_| Ok(0)).unwrap(), Some(100));
    }

    #[test]
    fn an_error_ends_the_search() {
        assert!(
            largest_batch(9, 100, |batch| if batch > 2 { anyhow::bail!("no plan") } else { Ok(0) }).is_err()
        );
    }

    #[test]
    fn free_memory_is_known_on_linux() {
        assert_eq!(limit_or_free(Some(5)).unwrap(), 5);
        if cfg!(target_os = "linux") {
            assert!(limit_or_free(None).unwrap() > 1 << 20);
        }
    }
}
