"""A worker: one peer, one network, in a process of its own. `peers.py worker --peer NAME ...` runs `serve`.

The worker loads, writes its first output for the parent to check, warms up, says `ready`, and then runs for as long as
each line `go SECONDS` on stdin says, answering with the duration of each step. Stdout carries JSON lines only: what the
libraries print goes to stderr. `bench/rust-peers` speaks the same protocol.
"""
import contextlib
import dataclasses
import json
import os
import pathlib
import sys
import time

import machine
from jobs import CACHE, Job

WARM_UP_STEPS = 3
MIN_STEPS = 3  # fewer give no median worth the name


class Cannot(Exception):
    """This peer cannot run this job, for the reason given."""


@dataclasses.dataclass
class Task:
    """What a worker was started for: `folder` has the files that `networks.prepare` wrote."""

    job: Job
    variant: str
    folder: pathlib.Path

    def onnx(self, batch: int) -> pathlib.Path:
        return self.folder / f"model-{batch}.onnx"

    def images(self):
        """The input as a numpy array."""
        import numpy as np

        path = self.folder / f"images-{self.job.batch}.f32"
        return np.fromfile(path, np.float32).reshape(self.job.batch, 3, self.job.size, self.job.size)


class Peer:
    """A library that runs a network. Its constructor imports the library, `load` the network."""

    def __init__(self, task: Task):
        self.task = task
        self.images = task.job.batch  # per step

    def load(self) -> None:
        raise NotImplementedError

    def step(self):
        """Runs the network on one batch and returns its output."""
        raise NotImplementedError

    def output(self):
        """The output for the batch, as a numpy array of f32."""
        return self.step()

    def measure(self, seconds: float) -> list[float]:
        """Durations of steps, one after the other, for at least `seconds`."""
        steps, start = [], time.perf_counter()
        while True:
            before = time.perf_counter()
            self.step()
            now = time.perf_counter()
            steps.append(now - before)
            if now - start >= seconds and len(steps) >= MIN_STEPS:
                return steps


class Eager(Peer):
    """PyTorch as it comes, channels last. bf16 by autocast, or with weights and input converted."""

    def __init__(self, task: Task):
        super().__init__(task)
        import torch

        import networks

        self.torch, self.networks = torch, networks
        self.contexts = contextlib.ExitStack()
        torch.set_num_threads(task.job.threads)
        torch.set_num_interop_threads(1)
        torch.set_flush_denormal(True)

    def load(self) -> None:
        self.enter(self.torch.inference_mode())
        self.prepare()

    def enter(self, context) -> None:
        """Enters a context for the life of the process: autocast would forget its converted weights on leaving."""
        self.contexts.enter_context(context)

    def prepare(self) -> None:
        """Reads the network and its input, in the layout and precision of the variant."""
        torch, variant = self.torch, self.task.variant
        self.net = self.networks.load(self.task.job, self.task.folder).to(memory_format=torch.channels_last)
        self.x = torch.from_numpy(self.task.images()).to(memory_format=torch.channels_last)
        if variant.endswith("-convert"):
            self.net, self.x = self.net.bfloat16(), self.x.bfloat16()
        elif variant.endswith("-autocast"):
            self.enter(torch.autocast("cpu", torch.bfloat16))

    def step(self):
        return self.net(self.x)

    def output(self):
        return self.step().float().numpy()


class Compile(Eager):
    """torch.compile with the weights frozen into the code; the mode is the start of the variant's name."""

    def load(self) -> None:
        torch = self.torch
        import torch._inductor.config as settings

        settings.freezing = True
        self.enter(torch.no_grad())  # freezing wants no_grad rather than inference_mode
        self.prepare()
        mode = self.task.variant.removesuffix("-convert").removesuffix("-autocast")
        self.net = torch.compile(self.net, mode=mode)


class OnnxRuntime(Peer):
    """ONNX Runtime's CPU provider with all graph optimisations."""

    def __init__(self, task: Task):
        super().__init__(task)
        import onnxruntime

        self.ort = onnxruntime

    def load(self) -> None:
        path = self.task.onnx(self.task.job.batch)
        if self.task.job.dtype == "bf16":
            path = self.bf16_file()
        self.session = self.ort.InferenceSession(path, self.options(), providers=["CPUExecutionProvider"])
        self.inputs = {self.session.get_inputs()[0].name: self.task.images()}

    def options(self):
        options = self.ort.SessionOptions()
        options.intra_op_num_threads = self.task.job.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = self.ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        return options

    def bf16_file(self) -> pathlib.Path:
        """The network in bf16 between f32 input and output, if this version can run a bf16 convolution at all."""
        self.probe_bf16()
        import torch

        import networks

        class Bf16Inside(torch.nn.Module):
            def __init__(self, net):
                super().__init__()
                self.net = net.bfloat16()

            def forward(self, images):
                return self.net(images.bfloat16()).float()

        net = Bf16Inside(networks.load(self.task.job, self.task.folder)).eval()
        path = self.task.folder / f"model-{self.task.job.batch}-bf16.onnx"
        networks.export(net, torch.from_numpy(self.task.images()), path)
        return path

    def probe_bf16(self) -> None:
        """Fails with ONNX Runtime's own words if it has no kernel for a convolution in bf16."""
        from onnx import TensorProto, helper

        def tensor(name, shape):
            return helper.make_tensor_value_info(name, TensorProto.BFLOAT16, shape)

        node = helper.make_node("Conv", ["x", "w"], ["y"])
        graph = helper.make_graph([node], "probe", [tensor("x", [1, 16, 8, 8]), tensor("w", [16, 16, 3, 3])],
                                  [tensor("y", [1, 16, 6, 6])])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
        try:
            self.ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no base class
            raise Cannot(f"no bf16 convolution on the CPU: {first_line(error)}") from error

    def step(self):
        return self.session.run(None, self.inputs)[0]


class OpenVino(Peer):
    """OpenVINO's CPU plugin; the variants are those of `jobs.variants`."""

    def __init__(self, task: Task):
        super().__init__(task)
        import openvino

        self.openvino = openvino

    def load(self) -> None:
        core, job = self.openvino.Core(), self.task.job
        if job.dtype == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise Cannot("OpenVINO offers no bf16 on this CPU")
        path = self.task.onnx(1 if self.task.variant == "split" else job.batch)
        self.compiled = core.compile_model(path, "CPU", {
            "INFERENCE_NUM_THREADS": job.threads,
            "INFERENCE_PRECISION_HINT": job.dtype,
            "PERFORMANCE_HINT": "LATENCY" if self.task.variant == "latency" else "THROUGHPUT",
        })
        self.check_precision()
        self.start_requests()

    def check_precision(self) -> None:
        """A hint is only a hint: refuses to report a precision that was not used."""
        used = self.compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if used != self.task.job.dtype:
            raise Cannot(f"OpenVINO ran in {used} although {self.task.job.dtype} was asked for")

    def start_requests(self) -> None:
        """Makes the requests with their inputs: one for a batch, or one for each image of it."""
        pieces = [self.task.images()]
        if self.task.variant == "split":
            pieces = [pieces[0][i : i + 1].copy() for i in range(self.images)]
        if self.task.variant == "throughput":
            pieces *= self.compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
            self.images *= len(pieces)
        self.requests, self.pieces = [], pieces  # kept: the tensors below share their memory without owning it
        for piece in pieces:
            request = self.compiled.create_infer_request()
            request.set_input_tensor(self.openvino.Tensor(piece, shared_memory=True))
            self.requests.append(request)

    def step(self) -> None:
        for request in self.requests:
            request.start_async()
        for request in self.requests:
            request.wait()

    def output(self):
        import numpy as np

        self.step()
        count = len(self.requests) if self.task.variant == "split" else 1
        return np.concatenate([request.get_output_tensor().data for request in self.requests[:count]])

    def measure(self, seconds: float) -> list[float]:
        """For `throughput`, requests follow each other without a pause between steps, and a step is the time in which
        as many requests end as are in flight."""
        if self.task.variant != "throughput":
            return super().measure(seconds)
        ends, start = [time.perf_counter()], time.perf_counter()
        for request in self.requests:
            request.start_async()
        while ends[-1] - start < seconds or len(ends) <= MIN_STEPS * len(self.requests):
            # Requests are started in order and each takes as long as the others, so they end nearly in order.
            request = self.requests[(len(ends) - 1) % len(self.requests)]
            request.wait()
            ends.append(time.perf_counter())
            request.start_async()
        for request in self.requests:
            request.wait()
        ends = ends[:: len(self.requests)]
        return [after - before for before, after in zip(ends, ends[1:])]


PEERS = {"eager": Eager, "compile": Compile, "onnxruntime": OnnxRuntime, "openvino": OpenVino}


def first_line(error: Exception) -> str:
    """The first line of an exception's text, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def reason(error: Exception) -> str:
    """Why a job cannot run, in one line."""
    if isinstance(error, Cannot):
        return str(error)
    if isinstance(error, ImportError):
        return f"{first_line(error)}: is bench/requirements.txt installed?"
    return f"{type(error).__name__}: {first_line(error)}"


def private_stdout():
    """A stream to the parent; all else that is written to stdout from here on, by C libraries too, goes to stderr."""
    stream = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return stream


def start(task: Task, peer_name: str, output: pathlib.Path) -> tuple[Peer, dict]:
    """Loads a peer to its first output, which goes into a file, and warms it up. Returns it with facts on loading."""
    peer = PEERS[peer_name](task)
    rss_before_load = machine.memory_bytes("self", "VmRSS")
    before = time.perf_counter()
    peer.load()
    first = peer.output()
    load_seconds = time.perf_counter() - before
    first.tofile(output)
    for _ in range(WARM_UP_STEPS):
        peer.step()
    return peer, {"load_seconds": load_seconds, "rss_before_load": rss_before_load, "images": peer.images}


def serve(values) -> int:
    """Runs the worker that the arguments describe, until stdin ends."""
    stream = private_stdout()

    def say(event: str, **facts) -> None:
        print(json.dumps({"event": event, **facts}), file=stream)

    try:
        task = Task(Job.from_arguments(values), values.variant, CACHE / values.folder)
        peer, facts = start(task, values.peer, pathlib.Path(values.output))
        say("ready", **facts)
        for line in sys.stdin:
            peer.step()  # not counted: the worker may have been stopped for long
            say("steps", seconds=peer.measure(float(line.removeprefix("go "))))
    except Exception as error:
        import traceback

        traceback.print_exc()
        say("cannot", reason=reason(error))
        return 1
    return 0
