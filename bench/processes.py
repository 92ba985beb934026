"""The runners' processes. One works at a time; the others are stopped by signal, so that no idle thread pool spins."""
import array
import dataclasses
import json
import math
import os
import pathlib
import select
import signal
import statistics
import subprocess
import tempfile
import time

import machine
from jobs import BENCH, CACHE, RUST_PEERS, TOLERANCE, Job
from report import one_line

START_TIMEOUT = 1200  # seconds: torch.compile with max-autotune is the slow one
SLICE_GRACE = 180  # seconds beyond those asked for: a step of a slow peer may be long
CLOSE_TIMEOUT = 10  # seconds for a worker to end by itself


class CannotRun(Exception):
    """A runner cannot do its job, for the reason given."""


@dataclasses.dataclass
class Slice:
    """What a runner did in one round, in images per second."""

    median: float
    best: float
    steps: list[float] | None  # durations in seconds, where the runner tells them
    own_seconds: float = 0.0  # CPU time of the runner
    busy_seconds: float = 0.0  # CPU time of everything on the same cores, the runner included


def environment(threads: int) -> dict[str, str]:
    """The variables by which thread pools learn their size, and caches their place."""
    pools = ["OMP", "MKL", "OPENBLAS", "RAYON", "RTEN"]
    return {
        **os.environ,
        **{f"{pool}_NUM_THREADS": str(threads) for pool in pools},
        "TORCHINDUCTOR_CACHE_DIR": str(CACHE / "inductor"),
        "PYTHONWARNINGS": "ignore",
    }


def read_floats(path: pathlib.Path) -> array.array:
    """A file of raw 32-bit floats."""
    values = array.array("f")
    values.frombytes(path.read_bytes())
    return values


def relative_error(values, expected) -> float:
    """The relative L2 error; infinite if the lengths differ or a value is not a number."""
    if len(values) != len(expected):
        return math.inf
    error = math.sqrt(sum((a - b) ** 2 for a, b in zip(values, expected)) / sum(b * b for b in expected))
    return math.inf if math.isnan(error) else error


class Worker:
    """A peer in its own process, loaded and checked; stopped except during `go`."""

    def __init__(self, command: list[str], threads: int, name: str):
        """Starts the process. Its group is its own, so that signals reach its children, but not its session, so that
        the priority given to the benchmark holds for it where the kernel groups processes by session."""
        self.name = name
        self.log = CACHE / "logs" / f"{name}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.buffer = b""
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                                            process_group=0, env=environment(threads), bufsize=0)

    def wait_ready(self) -> dict:
        """Waits until the worker is loaded and warm. Returns its facts, peak memory of loading included."""
        facts = self.answer("ready", START_TIMEOUT)
        self.images = facts.pop("images")
        facts["peak_load"] = machine.memory_bytes(self.process.pid, "VmHWM")
        machine.reset_peak(self.process.pid)
        self.signal(signal.SIGSTOP)
        return facts

    def go(self, seconds: float) -> Slice:
        """Lets the worker run for `seconds`."""
        self.signal(signal.SIGCONT)
        before = self.cpu_seconds()
        self.send(f"go {seconds}\n")
        steps = self.answer("steps", seconds + SLICE_GRACE)["seconds"]
        own = self.cpu_seconds() - before
        self.signal(signal.SIGSTOP)
        return Slice(self.images / statistics.median(steps), self.images / min(steps), steps, own)

    def peak_run(self) -> int:
        """Peak memory since it was ready, in bytes."""
        return machine.memory_bytes(self.process.pid, "VmHWM")

    def cpu_seconds(self) -> float:
        return machine.process_seconds(pathlib.Path(f"/proc/{self.process.pid}/stat").read_text())

    def send(self, line: str) -> None:
        try:
            self.process.stdin.write(line.encode())
        except BrokenPipeError:
            raise CannotRun(self.last_words()) from None

    def answer(self, event: str, timeout: float) -> dict:
        """The next message, which must be `event`."""
        line = self.read_line(timeout)
        message = json.loads(line) if line else {"event": "cannot", "reason": self.last_words()}
        if message["event"] != event:
            raise CannotRun(one_line(message.get("reason", f"unexpected answer {line!r}")))
        return {key: value for key, value in message.items() if key != "event"}

    def read_line(self, timeout: float) -> str:
        """The next line that the worker prints; empty when it ended."""
        end = time.monotonic() + timeout
        descriptor = self.process.stdout.fileno()
        while b"\n" not in self.buffer:
            if not select.select([descriptor], [], [], max(0.0, end - time.monotonic()))[0]:
                raise CannotRun(f"no answer within {timeout:.0f} s")
            piece = os.read(descriptor, 1 << 16)
            if not piece:
                return ""
            self.buffer += piece
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.decode()

    def last_words(self) -> str:
        """Why a worker that ended did so: its exit status and the last line of its log."""
        status = self.process.wait(timeout=30)
        lines = self.log.read_text(errors="replace").strip().splitlines() or ["it printed nothing"]
        return one_line(f"ended with status {status}: {lines[-1]}")

    def signal(self, number: int) -> None:
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass

    def close(self) -> None:
        """Ends the process and its children; a second call does nothing."""
        if self.process.stdout.closed:
            return
        self.process.stdin.close()
        self.signal(signal.SIGCONT)
        try:
            self.process.wait(timeout=CLOSE_TIMEOUT)
        except subprocess.TimeoutExpired:
            pass
        self.signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()


def worker_command(python: str, peer: str, variant: str, job: Job, files: dict, output: pathlib.Path) -> list[str]:
    """The command that starts a worker; `files` is what `networks.prepare` returned."""
    if peer in RUST_PEERS:
        folder = CACHE / files["folder"]
        return [
            str(rust_binary()), "--peer", peer, "--onnx", str(folder / f"model-{job.batch}.onnx"),
            "--input", str(folder / f"images-{job.batch}.f32"), "--shape", ",".join(map(str, files["shape"])),
            "--output", str(output), "--threads", str(job.threads)]
    return [
        python, str(BENCH / "peers.py"), "worker", "--peer", peer, "--variant", variant, "--folder", files["folder"],
        "--output", str(output), *job.arguments()]


def rust_binary() -> pathlib.Path:
    target = os.environ.get("CARGO_TARGET_DIR", BENCH / "rust-peers" / "target")
    return pathlib.Path(target) / "release" / "rust-peers"


def start_worker(python: str, peer: str, variant: str, job: Job, files: dict) -> tuple[Worker, dict]:
    """A worker that is loaded and whose first output agrees with PyTorch's, and the facts on its loading."""
    name = f"{peer}-{variant}-{job.model}-{job.batch}-{job.dtype}"
    output = CACHE / f"output-{name}.f32"
    output.unlink(missing_ok=True)
    worker = Worker(worker_command(python, peer, variant, job, files, output), job.threads, name)
    try:
        facts = worker.wait_ready()
        expected = read_floats(CACHE / files["folder"] / f"logits-{job.batch}.f32")
        error = relative_error(read_floats(output), expected)
        if not error <= TOLERANCE[job.dtype]:
            raise CannotRun(f"its output is off PyTorch's f32 by {error:.1e} (relative L2)")
    except BaseException:
        worker.close()
        raise
    output.unlink()
    return worker, {**facts, "error": error}


class Cardinal:
    """Ours: a command that is started anew for each round, and warms up by itself."""

    KIND = "infer"  # what keys of the answer begin with
    takes_any_batch = False  # of the answer: it was the command that chose it

    def __init__(self, binary: pathlib.Path, job: Job, parameters: int | None):
        self.job, self.parameters = job, parameters
        self.command = [
            str(binary), "bench", "--model", job.model, "--batch", str(job.batch), "--size", str(job.size),
            "--dtype", job.dtype, "--threads", str(job.threads), "--path", "compiled", "--json"]
        self.peak_process = 0
        self.answers: list[dict] = []

    def go(self, seconds: float) -> Slice:
        """Runs the command for `seconds`."""
        with tempfile.TemporaryFile("w+") as complaints:
            process = subprocess.Popen([*self.command, "--seconds", str(seconds)], stdout=subprocess.PIPE,
                                       stderr=complaints, text=True, env=environment(self.job.threads))
            with process.stdout:
                printed = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)  # wait4 alone tells the peak memory of this one process
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != 0:
                complaints.seek(0)
                lines = complaints.read().strip().splitlines() or [f"exit status {process.returncode}"]
                raise CannotRun(one_line(lines[0]))
        self.peak_process = max(self.peak_process, usage.ru_maxrss * 1024)
        answer = self.check(printed)
        self.answers.append(answer)
        return Slice(answer[f"{self.KIND}_samples_per_sec"], answer[f"{self.KIND}_samples_per_sec_best"], None,
                     usage.ru_utime + usage.ru_stime)

    def close(self) -> None:
        """Nothing of ours goes on between the rounds."""

    def memory(self) -> dict:
        """Peak memory from the building of the network on, as the command tells it, and of the whole process."""
        told = [answer["peak_memory_bytes"] for answer in self.answers if answer.get("peak_memory_bytes")]
        return {"peak_run": max(told, default=self.peak_process), "peak_load": self.peak_process}

    def check(self, printed: str) -> dict:
        """The one object that the command printed, if it measured this job."""
        try:
            [answer] = json.loads(printed)
            batch = self.job.batch if self.takes_any_batch else answer[f"{self.KIND}_batch_size"]
            found = (batch, answer[f"{self.KIND}_img_size"], answer["dtype"], answer["threads"])
            parameters = answer["param_count"]
            _ = answer[f"{self.KIND}_samples_per_sec"], answer[f"{self.KIND}_samples_per_sec_best"]
        except (ValueError, TypeError, KeyError) as error:
            what = one_line(f"{type(error).__name__} {error}")
            raise CannotRun(f"cardinal bench --json printed no result: {what}") from None
        if found != (self.job.batch, self.job.size, self.job.dtype, self.job.threads):
            raise CannotRun(f"cardinal measured batch, size, dtype, threads {found}")
        if parameters < 10_000:  # timm's benchmark gives millions
            parameters *= 1e6
        if self.parameters is not None and abs(parameters / self.parameters - 1) > 0.01:
            raise CannotRun(f"cardinal's {self.job.model} has {parameters} parameters, timm's {self.parameters}")
        return answer
