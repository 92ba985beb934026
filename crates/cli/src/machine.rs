//! What a report says of the machine and of this process.

use std::time::{SystemTime, UNIX_EPOCH};

/// The processor's name, as the system tells it.
pub(crate) fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |key: &str| {
        info.lines()
            .find_map(|line| line.split_once(':').filter(|(k, _)| k.trim() == key).map(|(_, v)| v.trim()))
    };
    field("model name").map_or_else(|| format!("{} processor", std::env::consts::ARCH), str::to_owned)
}

/// The most memory that the process has held, in bytes, since the last reset.
pub(crate) fn peak_memory() -> Option<usize> {
    status("VmHWM:")
}

/// The memory that the process holds now, in bytes.
pub(crate) fn held_memory() -> Option<usize> {
    status("VmRSS:")
}

fn status(key: &str) -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok().map(|kib| kib << 10)
}

/// Starts the count of [`peak_memory`] again; where the system cannot, it goes on.
pub(crate) fn reset_peak_memory() {
    // A system without the file has no such count either.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Bytes that this process could still take: what the system calls available, or what is left of its control group.
pub(crate) fn available_memory() -> Option<usize> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let free = line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()? << 10;
    let group = |file: &str| {
        let text = std::fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok()?;
        text.trim().parse::<usize>().ok()
    };
    let left = group("memory.max").zip(group("memory.current")).map(|(most, now)| most.saturating_sub(now));
    Some(left.map_or(free, |left| left.min(free)))
}

/// Today in UTC, as `2026-01-31`.
pub(crate) fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (year, month, day) = civil(seconds / 86_400);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Year, month and day of a number of days since 1970-01-01. Years begin in March here, so that a leap day is a year's
/// last.
pub(crate) fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day_of_year - (153 * shifted + 2) / 5 + 1)
}
