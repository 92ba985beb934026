//! What the plan must know of the machine.

/// Sizes of the caches that one core sees, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caches {
    /// The core's own second level.
    pub l2: usize,
    /// The last level, shared or not.
    pub last: usize,
}

impl Caches {
    /// Asks the system; where it does not tell, sizes that no current processor falls below.
    #[must_use]
    pub fn detect() -> Self {
        let mut caches = Self { l2: 256 << 10, last: 4 << 20 };
        let mut highest = 2;
        for index in 0..8 {
            let read = |file| {
                let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{file}");
                std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
            };
            let (Some(level), Some(kind), Some(size)) = (read("level"), read("type"), read("size")) else {
                continue;
            };
            let (Ok(level), Some(bytes)) = (level.parse::<u32>(), parse_size(&size)) else { continue };
            if kind == "Instruction" {
                continue;
            }
            if level == 2 {
                caches.l2 = bytes;
            }
            if level >= highest {
                (highest, caches.last) = (level, bytes);
            }
        }
        caches.last = caches.last.max(caches.l2);
        caches
    }
}

/// The processor's name, model and stepping, as far as the system tells: measurements hold for it alone.
pub(super) fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |key: &str| {
        let lines = info.lines().filter_map(|line| line.split_once(':'));
        lines.clone().find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().to_owned())
    };
    let parts = ["model name", "cpu family", "model", "stepping"].map(field);
    let known: Vec<_> = parts.into_iter().flatten().collect();
    if known.is_empty() { std::env::consts::ARCH.into() } else { known.join(" ") }
}

/// `512K` or `32M` in bytes.
fn parse_size(text: &str) -> Option<usize> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let shift = match unit {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return None,
    };
    number.parse::<usize>().ok().map(|number| number << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("512K"), Some(512 << 10));
        assert_eq!(parse_size("32M"), Some(32 << 20));
        assert_eq!(parse_size("77"), Some(77));
        assert_eq!(parse_size("7X"), None);
    }

    #[test]
    fn the_last_level_is_no_smaller_than_the_second() {
        let caches = Caches::detect();
        assert!(caches.last >= caches.l2 && caches.l2 > 0);
    }
}
