//! What a report says of the machine and of this process.

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
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok().map(|kib| kib << 10)
}

/// Starts the count of [`peak_memory`] again; where the system cannot, it goes on.
pub(crate) fn reset_peak_memory() {
    // A system without the file has no such count either.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
