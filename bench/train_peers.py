#!/usr/bin/env python3
"""Measures training with Cardinal and with PyTorch: images per second in alternation on the same cores, memory per image,
and the largest batch under a limit. bench/README.md explains.

    python3 bench/train_peers.py --install      # PyTorch from PyPI into bench/.venv, then the benchmark
    python3 bench/train_peers.py --models resnet50 --batch 16 --dtypes f32 --rounds 1 --no-memory
    python3 bench/train_peers.py tables RESULTS.json --into docs/performance.md
"""
import argparse
import contextlib
import datetime
import json
import math
import pathlib
import re
import signal
import sys
import time

import machine
import peers
import report
import train_report
from jobs import BENCH, CACHE, DTYPES, OURS, PEERS, Job
from peers import Failure, among, counts, names, positive, say, seconds
from processes import CannotRun, Cardinal, Slice, Worker

TRAIN_PEERS = ["eager", "compile"]
# The ways to train that compete; the fastest at the first batch size is the peer's result.
VARIANTS = {"f32": ["default", "channels_last"], "bf16": ["channels_last-autocast"]}
UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
MAX_BATCH_TRIES = 3


def size(text: str) -> int:
    """Bytes, from a number with a unit such as 8GiB."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(|KiB|MiB|GiB)", text)
    if not found or float(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 8GiB")
    return int(float(found[1]) * UNITS[found[2]])


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--models", type=names, default=["resnet50", "resnest50d", "tresnet_m"], help="timm's names")
    p.add_argument("--batch", type=counts, default=[16, 64], help="batch sizes (16,64)")
    p.add_argument("--size", type=positive, default=224, help="height and width of the images (224)")
    p.add_argument("--dtypes", type=among(DTYPES), default=DTYPES, help="f32,bf16")
    p.add_argument("--threads", type=positive, help="threads, each on its core (all physical cores)")
    p.add_argument("--seconds", type=seconds, default=8.0, help="of a runner's slice in a round, at least a step (8)")
    p.add_argument("--rounds", type=positive, default=3, help="slices of each runner (3)")
    p.add_argument("--peers", type=among(TRAIN_PEERS), default=TRAIN_PEERS, help=f"among {','.join(TRAIN_PEERS)}")
    p.add_argument("--memory-batch", type=counts, default=[4, 8, 16],
                   help="batch sizes whose peak memory gives the bytes per image (4,8,16)")
    p.add_argument("--memory-limit", type=size, default=8 << 30, metavar="SIZE",
                   help="limit of the largest batch (8GiB)")
    p.add_argument("--no-speed", action="store_true", help="memory alone")
    p.add_argument("--no-memory", action="store_true", help="speed alone")
    p.add_argument("--no-max-batch", action="store_true", help="memory per image, but not the largest batch")
    p.add_argument("--cardinal", type=pathlib.Path, default=BENCH.parent / "target" / "release" / "cardinal",
                   help="our binary (target/release/cardinal)")
    p.add_argument("--no-cardinal", action="store_true", help="the peers alone")
    p.add_argument("--force-bf16", action="store_true", help="bf16 where the CPU has to emulate it: a test, no contest")
    p.add_argument("--json", type=pathlib.Path, metavar="FILE", help="raw results (bench/results/DATE-CPU-train.json)")
    p.add_argument("--append", action="store_true",
                   help="keep the rows that the file has: a long measurement in several runs")
    p.add_argument("--lock", type=pathlib.Path, metavar="FILE",
                   help="hold this file's lock (flock) while measuring, to take turns with other benchmarks")
    p.add_argument("--install", action="store_true", help="first install bench/requirements.txt into bench/.venv")
    return p


def worker_parser() -> argparse.ArgumentParser:
    """Options of the command `worker`, which this script gives to its subprocesses."""
    p = argparse.ArgumentParser(prog="train_peers.py worker")
    Job.add_arguments(p)
    p.add_argument("--peer", choices=TRAIN_PEERS, required=True)
    p.add_argument("--variant", required=True)
    p.add_argument("--warm-up", type=int, required=True)
    return p


def tables_parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="train_peers.py tables", description="Prints the tables of raw results.")
    p.add_argument("results", type=pathlib.Path, metavar="RESULTS.json")
    p.add_argument("--into", type=pathlib.Path, metavar="FILE.md", help="put them between the marks in this file instead")
    return p


class Training:
    """PyTorch training one network. Its process is started anew for each slice: several would not fit into memory."""

    def __init__(self, python: str, peer: str, variant: str, job: Job, warm_up: int = 1):
        self.name, self.job, self.images = f"train-{peer}-{variant}-{job.model}-{job.batch}", job, job.batch
        self.command = [python, str(BENCH / "train_peers.py"), "worker", "--peer", peer, "--variant", variant,
                        "--warm-up", str(warm_up), *job.arguments()]
        self.facts, self.peak, self.worker = {}, 0, None

    @contextlib.contextmanager
    def loaded(self):
        """Lets `go` run inside of it."""
        self.worker = Worker(self.command, self.job.threads, self.name)
        try:
            self.facts = self.worker.wait_ready()
            yield
        finally:
            self.worker.close()

    def go(self, seconds: float) -> Slice:
        piece = self.worker.go(seconds)
        self.peak = max(self.peak, self.worker.peak_run())
        return piece

    def peak_run(self) -> int:
        return self.peak

    def close(self) -> None:
        """Nothing goes on between the rounds."""


class CardinalTraining(Cardinal):
    """Ours: the command `cardinal bench --train`. With a limit, the batch is the largest below it."""

    KIND = "train"

    def __init__(self, binary: pathlib.Path, job: Job, parameters: int | None = None, limit: int | None = None,
                 more: tuple[str, ...] = ()):
        super().__init__(binary, job, parameters)
        self.takes_any_batch = limit is not None
        batch = ["--batch", str(job.batch)] if limit is None else ["--max-batch", "--memory-limit", str(limit)]
        self.command = [
            str(binary), "bench", "--train", "--model", job.model, *batch, "--size", str(job.size), "--dtype", job.dtype,
            "--threads", str(job.threads), "--json", *more]

    @contextlib.contextmanager
    def loaded(self):
        yield

    def memory(self) -> dict:
        """Peak memory from the building of the network on, and of the whole process; and what was planned."""
        return {
            "peak_run": max(round(answer["peak_memory_mib"] * report.MIB) for answer in self.answers),
            "peak_load": self.peak_process,
            "planned": round(self.answers[-1]["planned_memory_mib"] * report.MIB),
        }


class TrainBench(peers.Bench):
    """A run of the benchmark: its options, and what holds for all its jobs."""

    def __init__(self, options: argparse.Namespace, cpus: list[int]):
        super().__init__(options, cpus)
        self.fastest: dict[tuple, str] = {}  # the variant of a peer, by peer, model and dtype
        self.parameters: dict[str, int] = {}  # of timm's networks

    def dtypes(self) -> list[str]:
        """Those to measure here."""
        possible = self.options.force_bf16 or machine.has_bf16(self.flags)
        return [dtype for dtype in self.options.dtypes if dtype != "bf16" or possible]

    def jobs(self) -> list[Job]:
        return [Job(model, batch, self.options.size, dtype, len(self.cpus))
                for model in self.options.models for dtype in self.dtypes() for batch in self.options.batch]

    def measure(self, job: Job) -> dict:
        """The speed of all runners on one job."""
        say(f"{job.label()}: training")
        results, running = {}, {}
        for peer in self.options.peers:
            try:
                running[peer], results[peer] = self.best_training(peer, job)
            except CannotRun as error:
                results[peer] = {"reason": str(error)}
                say(f"  {PEERS[peer]}: {error}")
        if not self.options.no_cardinal:
            results[OURS] = {}
            running[OURS] = CardinalTraining(self.binary(), job, self.parameters.get(job.model))
        slices = self.rounds(results, running)
        self.finish(results, running, slices)
        pieces = [piece for of_runner in slices.values() for piece in of_runner]
        return {
            "label": job.label(), "model": job.model, "batch": job.batch, "dtype": job.dtype,
            "parameters": self.parameters.get(job.model), "ratio": report.ratios(results),
            "others_share": round(report.others_share(pieces), 4), "results": results,
        }

    def binary(self) -> pathlib.Path:
        binary = self.options.cardinal
        if not binary.exists():
            raise Failure(f"{binary.name} is not built: cargo build --release, or give --no-cardinal")
        return binary.resolve()

    def slice(self, runner) -> Slice:
        with runner.loaded():
            return super().slice(runner)

    def best_training(self, peer: str, job: Job) -> tuple[Training, dict]:
        """The variant of `peer` that is fastest in a trial, with the facts on it; the trial of another batch counts."""
        key = (peer, job.model, job.dtype)
        candidates = [self.fastest[key]] if key in self.fastest else VARIANTS[job.dtype]
        tried, failed, runners = {}, {}, {}
        for variant in candidates:
            runners[variant] = runner = Training(self.python, peer, variant, job)
            if len(candidates) == 1:
                continue
            say(f"  {PEERS[peer]}, {variant}: trial")
            try:
                with self.turn():
                    tried[variant] = self.slice(runner).median
                self.parameters[job.model] = runner.facts["parameters"]
            except CannotRun as error:
                failed[variant] = str(error)
                del runners[variant]
        if not runners:
            raise CannotRun("; ".join(f"{variant}: {reason}" for variant, reason in failed.items()))
        best = max(runners, key=lambda variant: tried.get(variant, 0.0))
        self.fastest[key] = best
        facts = {key: runners[best].facts[key] for key in ("load_seconds", "peak_load") if key in runners[best].facts}
        return runners[best], {"variant": best, **facts, "tried": tried, "failed": failed}

    def measure_memory(self, model: str, dtype: str) -> dict:
        """Peak memory of all runners at several batch sizes, and their largest batches."""
        say(f"{model} {dtype}: memory")
        results = {}
        for name, peak in self.memory_runners(model, dtype):
            try:
                results[name] = self.memory_of(peak)
                say(f"  {name}: " + train_report.memory_text(results[name]))
            except CannotRun as error:
                results[name] = {"reason": str(error)}
                say(f"  {name}: {error}")
        return {"label": f"{model} {dtype}", "model": model, "dtype": dtype, "results": results}

    def memory_runners(self, model: str, dtype: str):
        """Names, and functions that tell the facts on a training step with so many images."""
        def job(batch: int) -> Job:
            return Job(model, batch, self.options.size, dtype, len(self.cpus))

        def of_peer(peer: str):
            variant = self.fastest.get((peer, model, dtype), "channels_last" if dtype == "f32" else VARIANTS[dtype][0])

            def peak(batch: int) -> dict:
                runner = Training(self.python, peer, variant, job(batch), warm_up=0)
                self.slice_now(runner)
                return {"variant": variant, "peak": runner.peak_run()}
            return peak

        def of_ours(*more: str):
            def peak(batch: int | None) -> dict:
                limit = self.options.memory_limit if batch is None else None
                runner = CardinalTraining(self.binary(), job(batch or 1), limit=limit, more=more)
                self.slice_now(runner)
                facts = runner.memory()
                return {"peak": facts["peak_run"], "planned": facts["planned"],
                        "batch": runner.answers[-1]["train_batch_size"]}
            return peak

        for peer in self.options.peers:
            yield peer, of_peer(peer)
        if not self.options.no_cardinal:
            yield OURS, of_ours()
            yield f"{OURS} --recompute none", of_ours("--recompute", "none")

    def slice_now(self, runner) -> None:
        """A step or two, in turn."""
        with self.turn(), runner.loaded():
            runner.go(0.001)

    def memory_of(self, peak) -> dict:
        """The line through the peaks, and the largest batch."""
        facts = {batch: peak(batch) for batch in self.options.memory_batch}
        found = {"variant": facts[self.options.memory_batch[0]].get("variant")}
        for key in ("peak", "planned"):
            points = {batch: of_batch[key] for batch, of_batch in facts.items() if key in of_batch}
            if points:
                line = train_report.line(points)
                found[key] = {"bytes": points, "per_image": line[0], "fixed": line[1]}
        if not self.options.no_max_batch:
            found["max_batch"] = self.max_batch(peak, found)
        return found

    def max_batch(self, peak, found: dict) -> dict:
        """The largest batch under the limit: ours tells it, a peer's is computed and confirmed by measuring."""
        if "planned" in found:
            return peak(None)
        limit, (slope, fixed) = self.options.memory_limit, (found["peak"]["per_image"], found["peak"]["fixed"])
        batch, best = math.floor((limit - fixed) / slope), {}
        for _ in range(MAX_BATCH_TRIES):
            measured = peak(max(1, batch))["peak"]
            if measured <= limit and batch > best.get("batch", 0):
                best = {"batch": batch, "peak": measured}
            step = math.floor((limit - measured) / slope)
            if step == 0 or batch + step == best.get("batch"):
                break
            batch += step
        if not best:
            raise CannotRun(f"found no batch under {limit} bytes")
        return best


def run(options: argparse.Namespace, arguments: list[str]) -> None:
    """Installs, measures, prints and saves."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the workers are ended on the way out
    started = time.monotonic()
    if options.install:
        peers.install()
    cpus = peers.pin(options.threads)
    bench = TrainBench(options, cpus)
    CACHE.mkdir(exist_ok=True)
    versions = peers.ask_python(bench.python, "versions")
    versions[OURS] = machine.cardinal_version()
    now = datetime.datetime.now(datetime.timezone.utc)
    results = {
        "date": now.isoformat(timespec="seconds"), "command": train_report.command_line(arguments),
        "machine": machine.describe(cpus), "versions": versions,
        "settings": {"threads": len(cpus), "size": options.size, "seconds": options.seconds, "rounds": options.rounds,
                     "memory_limit": options.memory_limit,
                     "not_measured": [dtype for dtype in options.dtypes if dtype not in bench.dtypes()]},
        "memory": [], "cells": [],
    }
    path = options.json or report.results_path(f"{results['machine']['cpu']} train", now.date())

    if options.append and path.exists():
        results = train_report.joined(json.loads(path.read_text()), results)

    def keep(key: str, found: dict) -> None:
        """Saves after each measurement, so that an interrupted run keeps what it has."""
        results[key] = [row for row in results[key] if row["label"] != found["label"]] + [found]
        results["wall_seconds"] = round(time.monotonic() - started)
        report.save(results, path)

    if not options.no_speed:
        for job in bench.jobs():
            keep("cells", bench.measure(job))
    if not options.no_memory:
        for model in options.models:
            for dtype in bench.dtypes():
                keep("memory", bench.measure_memory(model, dtype))
    print(train_report.text(results))
    say(f"raw results: {path} ({round(time.monotonic() - started)} s)")


def tables(options: argparse.Namespace) -> None:
    """Prints the tables of a file of results, or puts them into a document."""
    text = train_report.text(json.loads(options.results.read_text()))
    if options.into is None:
        print(text)
    else:
        options.into.write_text(train_report.between_marks(options.into.read_text(), text))


def main(arguments: list[str]) -> int:
    try:
        if arguments[:1] == ["worker"]:
            import train_workers

            return train_workers.serve(worker_parser().parse_args(arguments[1:]))
        if arguments[:1] == ["tables"]:
            tables(tables_parser().parse_args(arguments[1:]))
        else:
            run(parser().parse_args(arguments), arguments)
    except (Failure, CannotRun, OSError, train_report.NoMarks, train_report.OtherRun) as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
