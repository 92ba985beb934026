"""The machine: which cores, what they can, what runs on them, which versions of everything."""
import importlib.metadata
import os
import pathlib
import platform
import re
import subprocess

from jobs import BENCH

# Shown in the results: what decides which kernels a runtime picks.
FLAGS = ["avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8", "amx_tile",
         "asimd", "asimddp", "bf16", "i8mm", "sve"]
PACKAGES = ["torch", "timm", "onnx", "onnxscript", "onnxruntime", "openvino", "numpy"]
CRATES = ["tract-onnx", "rten"]
TICK = os.sysconf("SC_CLK_TCK")


def cpu_name(cpuinfo: str) -> str:
    """The processor's name, from the text of /proc/cpuinfo; the architecture's where that has none."""
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def cpu_flags(cpuinfo: str) -> list[str]:
    """Those of FLAGS that the processor has."""
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    present = set(found.group(1).split()) if found else set()
    return [flag for flag in FLAGS if flag in present]


def has_bf16(flags: list[str]) -> bool:
    """Whether the processor multiplies bf16 numbers itself; where it does not, bf16 is an emulation and no contest."""
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))


def physical_cores() -> list[int]:
    """One logical CPU for each physical core that this process may use."""
    seen, cores = set(), []
    for cpu in sorted(os.sched_getaffinity(0)):
        path = pathlib.Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        core = path.read_text().strip() if path.exists() else str(cpu)
        if core not in seen:
            seen.add(core)
            cores.append(cpu)
    return cores


def crate_versions(lock: str) -> dict[str, str]:
    """Versions of the Rust peers, from the text of their Cargo.lock."""
    return dict(re.findall(rf'name = "({"|".join(CRATES)})"\nversion = "([^"]+)"', lock))


def package_versions() -> dict[str, str]:
    """Versions of the Python peers in this interpreter; missing packages are left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def cardinal_version() -> str:
    """The commit that is checked out, with "+changes" where files differ from it."""
    def git(*words: str) -> str:
        run = subprocess.run(["git", "-C", BENCH.parent, *words], capture_output=True, text=True)
        return run.stdout.strip() if run.returncode == 0 else ""

    changed = git("status", "--porcelain", "--untracked-files=no")
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + ("+changes" if changed else "")


def describe(cpus: list[int]) -> dict:
    """The facts about the machine that go with the numbers."""
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text()
    return {
        "cpu": cpu_name(cpuinfo),
        "flags": cpu_flags(cpuinfo),
        "cores": len(physical_cores()),
        "cpus_used": cpus,
        "kernel": platform.release(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
    }


def busy_seconds(stat: str, cpus: list[int]) -> float:
    """Seconds that `cpus` spent working or stolen by the host since boot, from the text of /proc/stat."""
    total = 0
    for line in stat.splitlines():
        name, *ticks = line.split()
        if name in {f"cpu{cpu}" for cpu in cpus}:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, ticks[:8])
            total += user + nice + system + irq + softirq + steal
    return total / TICK


def process_seconds(stat: str) -> float:
    """CPU seconds of a process with all its threads, from the text of its /proc/PID/stat."""
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory_bytes(pid: int | str, key: str) -> int:
    """`VmRSS` (now) or `VmHWM` (peak) of a process, in bytes."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{key}:\s*(\d+) kB", status, re.MULTILINE).group(1)) * 1024


def reset_peak(pid: int) -> None:
    """Sets a process's VmHWM back to what it holds now."""
    pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")
