"""Tests of the benchmark's own arithmetic and wording; they need no package. `python3 -m unittest discover -s bench`"""
import argparse
import contextlib
import datetime
import io
import json
import math
import pathlib
import signal
import sys
import tempfile
import time
import unittest
import unittest.mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import machine
import peers
import processes
import report
from jobs import PEERS, Job, variants
from processes import CannotRun, Cardinal, Slice, Worker, relative_error

JOB = Job("resnet50", 16, 224, "f32", 2)
ANSWER = {"model": "resnet50", "infer_samples_per_sec": 20.0, "infer_samples_per_sec_best": 22.0,
          "infer_batch_size": 16, "infer_img_size": 224, "param_count": 25.557032, "dtype": "f32",
          "threads": 2, "peak_memory_bytes": 3 << 20}


def cell(results: dict, label: str = "resnet50 batch 1 f32", share: float = 0.0) -> dict:
    return {"label": label, "results": results, "ratio": report.ratios(results), "others_share": share}


class Statistics(unittest.TestCase):
    def test_median_is_of_the_rounds_and_best_of_all(self):
        slices = [Slice(10.0, 12.0, None), Slice(30.0, 31.0, None), Slice(11.0, 40.0, None)]
        self.assertEqual(report.summary(slices), {"median": 11.0, "best": 40.0, "spread": [10.0, 30.0]})

    def test_others_share_is_what_is_busy_and_not_ours(self):
        self.assertEqual(report.others_share([Slice(1, 1, None, 3.0, 4.0), Slice(1, 1, None, 3.0, 4.0)]), 0.25)
        self.assertEqual(report.others_share([Slice(1, 1, None, 4.1, 4.0)]), 0.0)
        self.assertEqual(report.others_share([]), 0.0)

    def test_ratio_is_to_the_best_peer_of_each_kind(self):
        results = {"cardinal": {"median": 30.0, "best": 36.0}, "openvino": {"median": 20.0, "best": 21.0},
                   "rten": {"median": 10.0, "best": 24.0}, "tract": {"reason": "no"}}
        expected = {"median": 1.5, "best": 1.5, "median_peer": "openvino", "best_peer": "rten"}
        self.assertEqual(report.ratios(results), expected)

    def test_no_ratio_without_ours_or_without_peers(self):
        self.assertEqual(report.ratios({"rten": {"median": 1.0, "best": 1.0}}),
                         {"median_peer": "rten", "best_peer": "rten"})
        self.assertEqual(report.ratios({"cardinal": {"median": 1.0, "best": 1.0}, "rten": {"reason": "no"}}), {})

    def test_relative_error(self):
        self.assertAlmostEqual(relative_error([3.0, 4.5], [3.0, 4.0]), 0.1)
        self.assertEqual(relative_error([3.0], [3.0, 4.0]), math.inf)
        self.assertEqual(relative_error([3.0, math.nan], [3.0, 4.0]), math.inf)


class Tables(unittest.TestCase):
    def test_speed(self):
        results = {"cardinal": {"median": 30.0, "best": 36.0}, "openvino": {"median": 20.0, "best": 24.0},
                   "tract": {"reason": "it has no bf16"}}
        self.assertEqual(report.speed_table([cell(results)], ["cardinal", "openvino", "tract"]).splitlines(), [
            "| images/s             |    cardinal |    OpenVINO | tract | best peer |    ours to it |",
            "|----------------------|------------:|------------:|------:|----------:|--------------:|",
            "| resnet50 batch 1 f32 | 30.0 (36.0) | 20.0 (24.0) |     - |  OpenVINO | 1.50x (1.50x) |",
        ])

    def test_another_peer_with_the_fastest_step_is_named(self):
        self.assertEqual(report.peer_text({"median_peer": "openvino", "best_peer": "rten"}), "OpenVINO (rten)")
        self.assertEqual(report.peer_text({}), "-")

    def test_memory(self):
        result = {"peak_run": 3 << 20, "peak_load": 4 << 20, "rss_before_load": 1 << 20, "load_seconds": 1.234}
        self.assertEqual(report.memory_text(result), "3/4/1, 1.23 s")
        self.assertEqual(report.memory_text({"reason": "no"}), "-")

    def test_reasons_name_all_jobs_they_hold_for(self):
        cells = [cell({"tract": {"reason": "it has no bf16"}}, "a"), cell({"tract": {"reason": "it has no bf16"}}, "b"),
                 cell({"compile": {"median": 1.0, "best": 1.0, "failed": {"max-autotune": "no compiler"}}}, "c")]
        self.assertEqual(report.reasons(cells), [
            "tract: it has no bf16 [a, b]", "torch.compile as max-autotune: no compiler [c]"])

    def test_disturbances(self):
        self.assertEqual(report.disturbances([cell({}, share=0.04)]), [])
        self.assertIn("31%", report.disturbances([cell({}, share=0.31)])[0])

    def test_paths_are_cut_to_their_names(self):
        self.assertEqual(report.one_line("cannot read\n /home/me/a b/x.onnx: 1/2"), "cannot read a b/x.onnx: 1/2")
        self.assertEqual(report.one_line("peers.py --json /tmp/x/first.json"), "peers.py --json first.json")
        self.assertEqual(len(report.one_line("x" * 1000)), 300)

    def test_results_of_one_day_do_not_overwrite_each_other(self):
        with tempfile.TemporaryDirectory() as folder:
            folder, date = pathlib.Path(folder), datetime.date(2030, 1, 2)
            name = "Intel(R) Xeon(R) Platinum 8488C CPU @ 2.40GHz"
            first = report.results_path(name, date, folder)
            self.assertEqual(first.name, "2030-01-02-intel-xeon-platinum-8488c.json")
            first.touch()
            self.assertEqual(report.results_path(name, date, folder).name, f"{first.stem}-2.json")

    def test_results_are_read_back(self):
        results = {"date": "d", "cells": [cell({"rten": {"median": 1.23456789, "best": 2.0, "steps": [[1.0]]}})]}
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "new" / "r.json"
            report.save(results, path)
            back = json.loads(path.read_text())
        self.assertEqual(back["cells"][0]["results"]["rten"], {"median": 1.23457, "best": 2.0, "steps": [[1.0]]})


class Options(unittest.TestCase):
    def parse(self, *arguments: str) -> argparse.Namespace:
        return peers.parser().parse_args(arguments)

    def test_lists(self):
        options = self.parse("--models", "a, b", "--batch", "1,8", "--dtypes", "bf16", "--peers", "rten")
        self.assertEqual((options.models, options.batch, options.dtypes, options.peers),
                         (["a", "b"], [1, 8], ["bf16"], ["rten"]))

    def test_errors_name_what_is_wrong(self):
        wrong = {"--batch": ("1,x", "'x'"), "--dtypes": ("f16", "'f16'"), "--peers": ("tvm", "'tvm'"),
                 "--seconds": ("-1", "'-1'"), "--threads": ("0", "'0'"), "--models": (",", "empty")}
        for option, (value, named) in wrong.items():
            stderr = io.StringIO()
            with contextlib.redirect_stderr(stderr), self.assertRaises(SystemExit):
                self.parse(f"{option}={value}")
            self.assertIn(named, stderr.getvalue())

    def test_a_job_survives_the_command_line(self):
        parser = peers.inner_parser("prepare")
        self.assertEqual(Job.from_arguments(parser.parse_args(JOB.arguments())), JOB)

    def test_each_peer_has_a_way_to_run_f32(self):
        for peer in PEERS:
            self.assertTrue(variants(peer, "f32", 1), peer)
        self.assertEqual(variants("tract", "bf16", 1), [])
        self.assertEqual(variants("eager", "bf16", 1), ["channels_last-autocast", "channels_last-convert"])
        self.assertEqual(variants("openvino", "f32", 1), ["latency"])


class Machine(unittest.TestCase):
    def test_processor(self):
        text = "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 avx512_bf16 amx_bf16\n"
        self.assertEqual(machine.cpu_name(text), "Some CPU")
        self.assertEqual(machine.cpu_flags(text), ["avx2", "avx512_bf16", "amx_bf16"])
        self.assertTrue(machine.has_bf16(machine.cpu_flags(text)))
        self.assertFalse(machine.has_bf16(["avx2", "avx512f"]))

    def test_times(self):
        stat = "cpu 9 9 9 9 9 9 9 9 0 0\ncpu0 100 0 50 7 7 0 0 50 0 0\ncpu1 1000 0 0 0 0 0 0 0 0 0\n"
        self.assertEqual(machine.busy_seconds(stat, [0]), 200 / machine.TICK)
        self.assertEqual(machine.process_seconds("7 (a) b) S 1 2 3 4 5 6 7 8 9 10 30 12 0 0"), 42 / machine.TICK)

    def test_crates(self):
        lock = '[[package]]\nname = "rten"\nversion = "0.1.2"\n\n[[package]]\nname = "rten-simd"\nversion = "9"\n'
        self.assertEqual(machine.crate_versions(lock), {"rten": "0.1.2"})


class Ours(unittest.TestCase):
    def setUp(self):
        self.runner = Cardinal(pathlib.Path("cardinal"), JOB, 25_557_032)

    def test_the_result_of_this_job_is_taken(self):
        self.assertEqual(self.runner.check(json.dumps([ANSWER])), ANSWER)

    def test_anything_else_is_refused(self):
        wrong = {"[]": "no result", "x": "no result", json.dumps([{}]): "no result",
                 json.dumps([ANSWER | {"dtype": "bf16"}]): "bf16",
                 json.dumps([ANSWER | {"param_count": 11.0}]): "parameters"}
        for printed, reason in wrong.items():
            with self.assertRaisesRegex(CannotRun, reason):
                self.runner.check(printed)

    def test_a_failing_command_tells_its_error(self):
        self.runner.command = ["sh", "-c", "echo error: no such model >&2; exit 2"]
        with self.assertRaisesRegex(CannotRun, "^error: no such model$"):
            self.runner.go(1.0)


    def test_a_round_is_what_the_command_printed(self):
        self.runner.command = ["sh", "-c", f"echo '{json.dumps([ANSWER])}'"]
        piece = self.runner.go(1.0)
        self.assertEqual((piece.median, piece.best, piece.steps), (20.0, 22.0, None))
        self.assertEqual(self.runner.memory()["peak_run"], 3 << 20)
        self.assertGreater(self.runner.memory()["peak_load"], 1 << 16)


class FakeRunner:
    """A runner that does 10, 11, 12, ... images per second, and fails after as many slices as it is told."""

    def __init__(self, name: str, log: list, fails_after: int = 99):
        self.name, self.log, self.left, self.images = name, log, fails_after, 1

    def go(self, _seconds: float) -> Slice:
        if self.left == 0:
            raise CannotRun("out of memory")
        self.left -= 1
        self.log.append(self.name)
        return Slice(10.0 + len(self.log), 20.0, [0.1])

    def close(self) -> None:
        self.log.append(f"{self.name} closed")

    def peak_run(self) -> int:
        return 1 << 20


class Rounds(unittest.TestCase):
    def bench(self, *arguments: str) -> peers.Bench:
        options = peers.parser().parse_args(["--no-cardinal", "--peers", "eager,openvino", *arguments])
        return peers.Bench(options, [0])

    def measure(self, bench: peers.Bench, start) -> dict:
        files = {"folder": "f", "shape": [1, 3, 8, 8], "parameters": 1}
        with unittest.mock.patch.object(peers, "ask_python", return_value=files), \
                unittest.mock.patch.object(peers, "start_worker", start), contextlib.redirect_stderr(io.StringIO()):
            return bench.measure(Job("m", 1, 8, "f32", 1))

    def test_runners_alternate_and_every_other_round_goes_backwards(self):
        log = []
        found = self.measure(self.bench("--rounds", "3"), lambda _python, peer, *_: (FakeRunner(peer, log), {}))
        self.assertEqual(log[:6], ["eager", "openvino", "openvino", "eager", "eager", "openvino"])
        self.assertEqual(sorted(log[6:]), ["eager closed", "openvino closed"])
        self.assertEqual(found["results"]["eager"]["median"], 14.0)
        self.assertEqual(found["ratio"], {"median_peer": "eager", "best_peer": "eager"})

    def test_a_runner_that_fails_is_listed_and_the_others_go_on(self):
        log = []
        start = lambda _python, peer, *_: (FakeRunner(peer, log, 1 if peer == "eager" else 99), {})
        found = self.measure(self.bench("--rounds", "2"), start)
        self.assertEqual(found["results"]["eager"]["reason"], "out of memory")
        self.assertLess(log.index("eager closed"), len(log) - 2)  # at once: it might be running still
        self.assertEqual(len(found["results"]["openvino"]["steps"]), 2)

    def test_the_fastest_variant_is_kept_and_the_failed_one_named(self):
        def start(_python, peer, variant, *_):
            if variant == "split":
                raise CannotRun("no")
            log.append(variant)
            return FakeRunner(variant, log), {}

        log, job = [], Job("m", 4, 8, "f32", 1)
        with contextlib.ExitStack() as stack, contextlib.redirect_stderr(io.StringIO()), \
                unittest.mock.patch.object(peers, "start_worker", start):
            best, facts = self.bench().best_variant("openvino", job, {}, stack)
            self.assertEqual((best.name, facts["variant"]), ("throughput", "throughput"))
            self.assertEqual(facts["failed"], {"split": "no"})
            self.assertIn("latency closed", log)
            self.assertNotIn("throughput closed", log)

    def test_what_cannot_run_is_known_without_starting_it(self):
        bench = self.bench()
        bench.flags, bench.rust_failure = ["avx2"], "cargo is not installed"
        for peer, dtype, reason in [("rten", "bf16", "no bf16"), ("eager", "bf16", "no bf16 instructions"),
                                    ("rten", "f32", "cargo is not installed")]:
            with self.assertRaisesRegex(CannotRun, reason):
                bench.require(peer, Job("m", 1, 8, dtype, 1))


class Protocol(unittest.TestCase):
    READY = 'echo \'{"event": "ready", "images": 4, "load_seconds": 1}\'; '

    def start(self, script: str) -> Worker:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        cache, processes.CACHE = processes.CACHE, pathlib.Path(folder.name)
        self.addCleanup(setattr, processes, "CACHE", cache)
        worker = Worker(["sh", "-c", script], 1, "test")
        self.addCleanup(worker.close)
        return worker

    def test_a_worker_is_stopped_between_its_slices(self):
        worker = self.start(self.READY + 'while read line; do echo \'{"event": "steps", "seconds": [2, 1, 4]}\'; done')
        self.assertEqual(worker.wait_ready()["load_seconds"], 1)
        for _ in range(2):
            self.wait_until_stopped(worker)
            piece = worker.go(1.0)
            self.assertEqual((piece.median, piece.best), (2.0, 4.0))

    def wait_until_stopped(self, worker: Worker) -> None:
        """Fails unless the kernel reports the process as stopped before long."""
        for _ in range(200):
            stat = pathlib.Path(f"/proc/{worker.process.pid}/stat").read_text()
            if stat.rpartition(")")[2].split()[0] == "T":
                return
            time.sleep(0.05)
        self.fail("the worker goes on running")

    def test_a_worker_that_cannot_says_why(self):
        worker = self.start('echo \'{"event": "cannot", "reason": "no bf16"}\'')
        with self.assertRaisesRegex(CannotRun, "^no bf16$"):
            worker.wait_ready()

    def test_a_worker_that_dies_leaves_its_last_words(self):
        worker = self.start("echo first >&2; echo Illegal instruction >&2; exit 3")
        with self.assertRaisesRegex(CannotRun, "status 3: Illegal instruction"):
            worker.wait_ready()

    def test_closing_ends_a_stopped_worker_that_ignores_the_end_of_its_input(self):
        worker = self.start(self.READY + "trap '' TERM HUP; while :; do sleep 1; done")
        worker.wait_ready()
        with unittest.mock.patch.object(processes, "CLOSE_TIMEOUT", 0.1):
            worker.close()
        self.assertEqual(worker.process.returncode, -signal.SIGKILL)


if __name__ == "__main__":
    unittest.main()
