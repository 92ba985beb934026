"""Tests of the training benchmark's own arithmetic and wording; they need no package."""
import argparse
import contextlib
import io
import json
import pathlib
import sys
import tempfile
import unittest
import unittest.mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import report
import train_peers
import train_report
from jobs import OURS, Job
from processes import CannotRun, Slice

MIB = report.MIB
JOB = Job("resnet50", 16, 224, "f32", 2)
ANSWER = {"model": "resnet50", "train_samples_per_sec": 4.0, "train_samples_per_sec_best": 4.5, "train_batch_size": 16,
          "train_img_size": 224, "param_count": 25.557032, "dtype": "f32", "threads": 2, "peak_memory_mib": 900.5,
          "planned_memory_mib": 800.0}


def printing(answer: dict) -> list[str]:
    return ["sh", "-c", f"echo '{json.dumps([answer])}'"]


class Joining(unittest.TestCase):
    RUN = {"machine": {"cpu": "a"}, "versions": {"torch": "2", OURS: "1"}, "settings": {"rounds": 3}, "command": "x",
           "cells": [1], "memory": []}

    def test_rows_are_kept_and_commands_joined(self):
        now = {**self.RUN, "versions": {"torch": "2", OURS: "2"}, "command": "y", "cells": []}
        both = train_report.joined(self.RUN, now)
        self.assertEqual((both["cells"], both["command"], both["versions"][OURS]), ([1], "x`, then `y", "1 and 2"))
        self.assertEqual(train_report.joined(self.RUN, self.RUN)["versions"][OURS], "1")

    def test_another_machine_or_version_is_refused(self):
        for change in [{"machine": {"cpu": "b"}}, {"versions": {"torch": "3", OURS: "1"}}, {"settings": {"rounds": 2}}]:
            with self.assertRaisesRegex(train_report.OtherRun, "cpu|torch|rounds"):
                train_report.joined(self.RUN, {**self.RUN, **change})


class Sizes(unittest.TestCase):
    def test_units(self):
        self.assertEqual([train_peers.size(text) for text in ("8GiB", "1.5MiB", "4096")], [8 << 30, 3 << 19, 4096])

    def test_what_is_no_size(self):
        for text in ("8GB", "-1", "", "0GiB", "GiB"):
            with self.assertRaises(argparse.ArgumentTypeError):
                train_peers.size(text)


class Arithmetic(unittest.TestCase):
    def test_the_line_through_peaks(self):
        slope, fixed = train_report.line({4: 540, 8: 580, 16: 660})
        self.assertAlmostEqual(slope, 10)
        self.assertAlmostEqual(fixed, 500)
        with self.assertRaises(ValueError):
            train_report.line({4: 540})

    def bench(self, *arguments: str) -> train_peers.TrainBench:
        options = train_peers.parser().parse_args(["--no-cardinal", "--memory-limit", "1000", *arguments])
        return train_peers.TrainBench(options, [0])

    def largest(self, peak) -> dict:
        found = {"peak": {"per_image": 10.0, "fixed": 500.0}}
        return self.bench().max_batch(lambda batch: {"peak": peak(batch)}, found)

    def test_the_largest_batch_is_confirmed(self):
        self.assertEqual(self.largest(lambda n: 500 + 10 * n), {"batch": 50, "peak": 1000})

    def test_the_largest_batch_is_corrected_in_both_directions(self):
        self.assertEqual(self.largest(lambda n: 540 + 10 * n), {"batch": 46, "peak": 1000})
        self.assertEqual(self.largest(lambda n: 460 + 10 * n), {"batch": 54, "peak": 1000})

    def test_no_batch_at_all(self):
        with self.assertRaisesRegex(CannotRun, "no batch"):
            self.largest(lambda n: 2000 + n)

    def test_ours_tells_its_largest_batch(self):
        found = self.bench("--memory-batch", "2,4").memory_of(
            lambda batch: {"batch": batch or 70, "peak": 100 + (batch or 70), "planned": 90})
        self.assertEqual(found["max_batch"], {"batch": 70, "peak": 170, "planned": 90})
        self.assertEqual(found["peak"]["per_image"], 1.0)
        self.assertEqual(found["planned"]["per_image"], 0.0)

    def test_bf16_is_left_out_where_it_is_an_emulation(self):
        bench = self.bench()
        bench.flags = ["avx2"]
        self.assertEqual(bench.dtypes(), ["f32"])
        bench.flags = ["amx_bf16"]
        self.assertEqual(bench.dtypes(), ["f32", "bf16"])


class Ours(unittest.TestCase):
    def runner(self) -> train_peers.CardinalTraining:
        return train_peers.CardinalTraining(pathlib.Path("cardinal"), JOB, 25_557_032)

    def test_the_command(self):
        command = " ".join(self.runner().command)
        self.assertIn("bench --train --model resnet50 --batch 16 --size 224 --dtype f32 --threads 2 --json", command)
        limited = train_peers.CardinalTraining(pathlib.Path("cardinal"), JOB, limit=9, more=("--recompute", "none"))
        self.assertIn("--max-batch --memory-limit 9 --size", " ".join(limited.command))
        self.assertEqual(limited.command[-2:], ["--recompute", "none"])

    def test_a_round_and_its_memory(self):
        runner = self.runner()
        runner.command = printing(ANSWER)
        piece = runner.go(1.0)
        self.assertEqual((piece.median, piece.best), (4.0, 4.5))
        memory = runner.memory()
        self.assertEqual((memory["peak_run"], memory["planned"]), (int(900.5 * MIB), 800 * MIB))

    def test_another_batch_is_refused_unless_the_command_chose_it(self):
        runner = self.runner()
        runner.command = printing(ANSWER | {"train_batch_size": 99})
        with self.assertRaisesRegex(CannotRun, "measured batch"):
            runner.go(1.0)
        runner.takes_any_batch = True
        self.assertEqual(runner.go(1.0).median, 4.0)


class FakeTraining:
    """PyTorch whose variants run at the speeds in SPEEDS; one without a speed cannot run."""

    SPEEDS = {"default": 2.0, "channels_last": 3.0}

    def __init__(self, _python, peer, variant, job, warm_up=1):
        self.variant, self.images, self.facts = variant, job.batch, {}

    @contextlib.contextmanager
    def loaded(self):
        if self.variant not in self.SPEEDS:
            raise CannotRun("no compiler")
        self.facts = {"parameters": 7, "load_seconds": 1.0}
        yield

    def go(self, _seconds):
        return Slice(self.SPEEDS[self.variant], 4.0, [1.0])

    def peak_run(self):
        return MIB

    def close(self):
        pass


class Rounds(unittest.TestCase):
    def measure(self, speeds: dict, batches=(16,)) -> list[dict]:
        options = train_peers.parser().parse_args(["--no-cardinal", "--peers", "eager", "--rounds", "2"])
        bench = train_peers.TrainBench(options, [0])
        with unittest.mock.patch.object(train_peers, "Training", FakeTraining), \
                unittest.mock.patch.object(FakeTraining, "SPEEDS", speeds), contextlib.redirect_stderr(io.StringIO()):
            return [bench.measure(Job("m", batch, 8, "f32", 1)) for batch in batches]

    def test_the_fastest_variant_counts_and_is_tried_once(self):
        first, second = self.measure({"default": 2.0, "channels_last": 3.0}, (16, 64))
        self.assertEqual(first["results"]["eager"]["variant"], "channels_last")
        self.assertEqual(first["results"]["eager"]["tried"], {"default": 2.0, "channels_last": 3.0})
        self.assertEqual((second["results"]["eager"]["variant"], second["results"]["eager"]["tried"]),
                         ("channels_last", {}))
        self.assertEqual(first["parameters"], 7)

    def test_a_variant_that_cannot_run_is_named(self):
        [found] = self.measure({"default": 2.0})
        self.assertEqual(found["results"]["eager"]["failed"], {"channels_last": "no compiler"})
        self.assertEqual(found["results"]["eager"]["median"], 2.0)

    def test_a_peer_that_cannot_run_is_named(self):
        [found] = self.measure({})
        self.assertIn("no compiler", found["results"]["eager"]["reason"])


class Tables(unittest.TestCase):
    ROW = {"label": "resnet50 f32", "results": {
        "eager": {"peak": {"per_image": 100.0 * MIB}, "max_batch": {"batch": 70, "peak": 8000 * MIB}},
        "compile": {"reason": "no compiler"},
        OURS: {"peak": {"per_image": 40.0 * MIB}, "max_batch": {"batch": 175, "peak": 8100 * MIB}}}}

    def test_memory(self):
        self.assertEqual(train_report.memory_text(self.ROW["results"]["eager"]), "100, 70 (8000)")
        self.assertEqual(train_report.memory_text(self.ROW["results"]["compile"]), "-")
        self.assertEqual(train_report.memory_ratio(self.ROW["results"]), "0.40x, 2.50x")
        self.assertEqual(train_report.memory_ratio({OURS: {"reason": "no"}}), "-")
        table = train_report.memory_table([self.ROW]).splitlines()
        self.assertIn("torch.compile", table[0])
        self.assertIn("0.40x, 2.50x", table[2])

    def test_results_are_read_back_and_give_tables(self):
        results = {
            "date": "d", "command": "c", "machine": {"cpu": "X", "flags": ["avx2"], "cores": 2}, "versions": {"torch": "2"},
            "settings": {"threads": 2, "size": 224, "seconds": 8.0, "rounds": 3, "memory_limit": 8 << 30,
                         "not_measured": ["bf16"]},
            "memory": [self.ROW],
            "cells": [{"label": "resnet50 batch 16 f32", "others_share": 0.0, "ratio": {},
                       "results": {"eager": {"median": 3.0, "best": 3.1}}}],
        }
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "r.json"
            report.save(results, path)
            text = train_report.text(json.loads(path.read_text()))
        for expected in ("3.00 (3.10)", "bf16: not measured here", "8 GiB", "torch.compile: no compiler [resnet50 f32]"):
            self.assertIn(expected, text)

    def test_tables_go_between_the_marks(self):
        begin, end = train_report.MARKS
        document = f"a\n{begin}\nold\n{end}\nb\n"
        self.assertEqual(train_report.between_marks(document, "new"), f"a\n{begin}\n\nnew\n\n{end}\nb\n")
        with self.assertRaises(train_report.NoMarks):
            train_report.between_marks("a", "new")


if __name__ == "__main__":
    unittest.main()
