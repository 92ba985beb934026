#!/usr/bin/env python3
"""Measures inference of Cardinal and of other runtimes, in alternation, on the same cores. bench/README.md explains.

    python3 bench/peers.py --install            # the peers from PyPI into bench/.venv, then the benchmark
    python3 bench/peers.py --models resnet50 --batch 1 --dtypes f32 --seconds 2 --rounds 3
"""
import argparse
import contextlib
import datetime
import fcntl
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import machine
import report
from jobs import BENCH, CACHE, DTYPES, OURS, PEERS, RUST_PEERS, Job, variants
from processes import CannotRun, Cardinal, start_worker

VENV = BENCH / ".venv"


class Failure(Exception):
    """The benchmark cannot go on, for the reason given."""


def names(text: str) -> list[str]:
    """The items of a list with commas."""
    items = [item.strip() for item in text.split(",") if item.strip()]
    if not items:
        raise argparse.ArgumentTypeError("an empty list")
    return items


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)


def counts(text: str) -> list[int]:
    """Positive numbers with commas."""
    return [positive(item) for item in names(text)]


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration in seconds")
    return value


def among(known) -> callable:
    """A parser of lists whose items must be among `known`."""
    def parse(text: str) -> list[str]:
        for item in names(text):
            if item not in known:
                raise argparse.ArgumentTypeError(f"{item!r} is none of {', '.join(known)}")
        return names(text)
    return parse


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--models", type=names, default=["resnet50", "resnest50d", "tresnet_m"], help="timm's names")
    p.add_argument("--batch", type=counts, default=[1, 16], help="batch sizes (1,16)")
    p.add_argument("--size", type=positive, default=224, help="height and width of the images (224)")
    p.add_argument("--dtypes", type=among(DTYPES), default=DTYPES, help="f32,bf16")
    p.add_argument("--threads", type=positive, help="threads, each on its core (all physical cores)")
    p.add_argument("--seconds", type=seconds, default=4.0, help="of a runner's slice in a round (4)")
    p.add_argument("--rounds", type=positive, default=5, help="slices of each runner (5)")
    p.add_argument("--peers", type=among(PEERS), default=list(PEERS), help=f"among {','.join(PEERS)}")
    p.add_argument("--cardinal", type=pathlib.Path, default=BENCH.parent / "target" / "release" / "cardinal",
                   help="our binary (target/release/cardinal)")
    p.add_argument("--no-cardinal", action="store_true", help="the peers alone")
    p.add_argument("--force-bf16", action="store_true", help="bf16 where the CPU has to emulate it: a test, no contest")
    p.add_argument("--json", type=pathlib.Path, metavar="FILE", help="raw results (bench/results/DATE-CPU.json)")
    p.add_argument("--lock", type=pathlib.Path, metavar="FILE",
                   help="hold this file's lock (flock) while measuring, to take turns with other benchmarks")
    p.add_argument("--install", action="store_true", help="first install bench/requirements.txt into bench/.venv")
    return p


def inner_parser(command: str) -> argparse.ArgumentParser:
    """Options of the commands `worker` and `prepare`, which this script gives to its subprocesses."""
    p = argparse.ArgumentParser(prog=f"peers.py {command}")
    Job.add_arguments(p)
    if command == "worker":
        for option in ("peer", "variant", "folder", "output"):
            p.add_argument(f"--{option}", required=True)
    return p


def install() -> None:
    """Makes bench/.venv with bench/requirements.txt, unless it has exactly these already."""
    wanted = (BENCH / "requirements.txt").read_text()
    stamp = VENV / "installed.txt"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print("installing the peers into bench/.venv (several GB, once)", file=sys.stderr)
    if subprocess.run([sys.executable, "-m", "venv", VENV]).returncode != 0:
        raise Failure("cannot create bench/.venv: is the venv module of Python installed (Debian: python3-venv)?")
    pip = [VENV / "bin" / "python", "-m", "pip", "install", "--quiet", "-r", BENCH / "requirements.txt"]
    if subprocess.run(pip).returncode != 0:
        raise Failure("cannot install bench/requirements.txt")
    stamp.write_text(wanted)


def worker_python() -> str:
    """The interpreter of the peers: that of bench/.venv if it was installed, else this one."""
    installed = VENV / "bin" / "python"
    return str(installed) if installed.exists() else sys.executable


def ask_python(python: str, *arguments: str) -> dict:
    """Runs a command of this script that answers in JSON, with the peers' interpreter."""
    run = subprocess.run([python, __file__, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if run.returncode != 0:
        lines = run.stderr.strip().splitlines() or [f"exit status {run.returncode}"]
        raise CannotRun(report.one_line(lines[-1]))
    return json.loads(run.stdout.splitlines()[-1])


def build_rust_peers() -> str | None:
    """Builds bench/rust-peers. Returns why that failed, if it did."""
    if shutil.which("cargo") is None:
        return "cargo is not installed"
    # Run from its folder, so that rustup finds the toolchain that the repository pins.
    run = subprocess.run(["cargo", "build", "--release", "--locked", "--quiet"], cwd=BENCH / "rust-peers",
                         capture_output=True, text=True)
    lines = [line for line in run.stderr.splitlines() if line.startswith("error")] or ["cargo build failed"]
    return None if run.returncode == 0 else report.one_line(lines[0])


def say(text: str) -> None:
    """Progress, on stderr: stdout is for the report."""
    print(text, file=sys.stderr, flush=True)


class Bench:
    """A run of the benchmark: its options, and what holds for all its jobs."""

    def __init__(self, options: argparse.Namespace, cpus: list[int]):
        self.options, self.cpus = options, cpus
        self.python = worker_python()
        self.flags = machine.describe(cpus)["flags"]
        self.rust_failure = None
        if set(options.peers) & set(RUST_PEERS):
            say("building bench/rust-peers")
            self.rust_failure = build_rust_peers()

    def jobs(self) -> list[Job]:
        o = self.options
        return [Job(model, batch, o.size, dtype, len(self.cpus))
                for model in o.models for dtype in o.dtypes for batch in o.batch]

    def measure(self, job: Job) -> dict:
        """All runners on one job: loaded one by one, then measured in rounds."""
        say(f"{job.label()}: preparing")
        # Requests of one image need the network for batch 1 too.
        ask_python(self.python, "prepare", *Job(job.model, 1, job.size, job.dtype, job.threads).arguments())
        files = ask_python(self.python, "prepare", *job.arguments())
        results, running = {}, {}
        with contextlib.ExitStack() as stack:
            self.start_all(job, files, results, running, stack)
            slices = self.rounds(results, running)
            self.finish(results, running, slices)
        pieces = [piece for of_runner in slices.values() for piece in of_runner]
        return {
            "label": job.label(), "model": job.model, "batch": job.batch, "dtype": job.dtype,
            "parameters": files["parameters"], "ratio": report.ratios(results),
            "others_share": round(report.others_share(pieces), 4), "results": results,
        }

    def start_all(self, job: Job, files: dict, results: dict, running: dict, stack: contextlib.ExitStack) -> None:
        """Starts ours and each peer, or notes in `results` why it cannot run. `stack` ends what was started."""
        if not self.options.no_cardinal:
            binary = self.options.cardinal
            results[OURS] = {}
            if binary.exists():
                running[OURS] = Cardinal(binary.resolve(), job, files["parameters"])
            else:
                results[OURS]["reason"] = f"{binary.name} is not built: cargo build --release"
        for peer in self.options.peers:
            try:
                self.require(peer, job)
                running[peer], results[peer] = self.best_variant(peer, job, files, stack)
            except CannotRun as error:
                results[peer] = {"reason": str(error)}
                say(f"  {PEERS[peer]}: {error}")

    def require(self, peer: str, job: Job) -> None:
        """Fails if `peer` cannot do `job`, as far as that is known without starting it."""
        if not variants(peer, job.dtype, job.batch):
            raise CannotRun(f"it has no {job.dtype}")
        if job.dtype == "bf16" and not self.options.force_bf16 and not machine.has_bf16(self.flags):
            raise CannotRun("this CPU has no bf16 instructions")
        if peer in RUST_PEERS and self.rust_failure:
            raise CannotRun(self.rust_failure)

    def best_variant(self, peer: str, job: Job, files: dict, stack: contextlib.ExitStack):
        """The variant of `peer` that is fastest in a trial, as a worker that is ready, with the facts on it."""
        candidates = variants(peer, job.dtype, job.batch)
        tried, failed, best, facts = {}, {}, None, {}
        for variant in candidates:
            say(f"  {PEERS[peer]}, {variant}: loading")
            try:
                worker, found = start_worker(self.python, peer, variant, job, files)
                stack.callback(worker.close)
                tried[variant] = self.trial(worker) if len(candidates) > 1 else 0.0
            except CannotRun as error:
                failed[variant] = str(error)
                continue
            if best is None or tried[variant] > tried[facts["variant"]]:
                best, worker, facts = worker, best, {"variant": variant, **found}
            if worker is not None:
                worker.close()
        if best is None:
            raise CannotRun("; ".join(f"{variant}: {reason}" for variant, reason in failed.items()))
        return best, {**facts, "tried": tried if len(candidates) > 1 else {}, "failed": failed}

    def trial(self, worker) -> float:
        """Images per second in a short run."""
        with self.turn():
            return worker.go(max(1.0, self.options.seconds / 2)).median

    @contextlib.contextmanager
    def turn(self):
        """Holds the lock of --lock, if there is one, for a trial or a round."""
        if self.options.lock is None:
            yield
            return
        with self.options.lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def rounds(self, results: dict, running: dict) -> dict:
        """Slices of each runner, in alternation; a runner that fails is out, with its reason in `results`."""
        slices = {name: [] for name in running}
        for index in range(self.options.rounds):
            # Every other round backwards, so that no runner always follows the same one.
            order = list(running)[:: -1 if index % 2 else 1]
            with self.turn():
                for name in order:
                    if "reason" not in results[name]:
                        self.add_slice(name, results, running, slices)
            say(f"  round {index + 1} of {self.options.rounds}: " + ", ".join(
                f"{name} {report.number(done[-1].median)}" for name, done in slices.items() if done))
        return slices

    def add_slice(self, name: str, results: dict, running: dict, slices: dict) -> None:
        """Measures one runner once."""
        try:
            slices[name].append(self.slice(running[name]))
        except CannotRun as error:
            results[name]["reason"] = str(error)
            say(f"  {name}: {error}")
            running[name].close()  # it may be running still, having missed its time

    def slice(self, runner):
        """One slice of one runner, with what the whole machine did meanwhile on our cores."""
        def busy():
            return machine.busy_seconds(pathlib.Path("/proc/stat").read_text(), self.cpus)

        before = busy()
        piece = runner.go(self.options.seconds)
        piece.busy_seconds = busy() - before
        return piece

    def finish(self, results: dict, running: dict, slices: dict) -> None:
        """Adds to `results` the statistics and memory of those who ran to the end."""
        for name, runner in running.items():
            result = results[name]
            if "reason" in result:
                continue
            result.update(report.summary(slices[name]))
            if name == OURS:
                result.update(runner.memory(), answers=runner.answers)
                result["load_seconds"] = runner.answers[-1].get("compile_seconds")
            else:
                result.update(peak_run=runner.peak_run(), images_per_step=runner.images,
                              steps=[piece.steps for piece in slices[name]])


def pin(threads: int | None) -> list[int]:
    """Binds this process, and so all that it starts, to one logical CPU for each thread."""
    cores = machine.physical_cores()
    if threads is not None and threads > len(cores):
        raise Failure(f"--threads {threads}: this process may use {len(cores)} physical cores")
    cpus = cores[: threads or len(cores)]
    os.sched_setaffinity(0, cpus)
    return cpus


def command_line(arguments: list[str]) -> str:
    """The command as it is kept with the results: files by their last name."""
    return report.one_line(" ".join(["bench/peers.py", *arguments]), limit=1000)


def run(options: argparse.Namespace, arguments: list[str]) -> None:
    """Installs, measures, prints and saves."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the workers are ended on the way out
    started = time.monotonic()
    if options.install:
        install()
    cpus = pin(options.threads)
    bench = Bench(options, cpus)
    CACHE.mkdir(exist_ok=True)
    versions = ask_python(bench.python, "versions")
    versions.update(machine.crate_versions((BENCH / "rust-peers" / "Cargo.lock").read_text()))
    versions[OURS] = machine.cardinal_version()
    now = datetime.datetime.now(datetime.timezone.utc)
    results = {
        "date": now.isoformat(timespec="seconds"), "command": command_line(arguments),
        "machine": machine.describe(cpus), "versions": versions,
        "settings": {"threads": len(cpus), "size": options.size, "seconds": options.seconds, "rounds": options.rounds},
        "cells": [],
    }
    path = options.json or report.results_path(results["machine"]["cpu"], now.date())
    for job in bench.jobs():
        results["cells"].append(bench.measure(job))
        results["wall_seconds"] = round(time.monotonic() - started)
        report.save(results, path)  # after each job, so that an interrupted run keeps what it has
    print(report.text(results))
    say(f"raw results: {path} ({results['wall_seconds']} s)")


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["worker"]:
        import workers

        return workers.serve(inner_parser("worker").parse_args(arguments[1:]))
    if arguments[:1] == ["prepare"]:
        import networks

        print(json.dumps(networks.prepare(Job.from_arguments(inner_parser("prepare").parse_args(arguments[1:])))))
        return 0
    if arguments[:1] == ["versions"]:
        print(json.dumps(machine.package_versions()))
        return 0
    try:
        run(parser().parse_args(arguments), arguments)
    except (Failure, CannotRun, OSError) as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
