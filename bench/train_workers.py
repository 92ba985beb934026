"""A worker that trains: PyTorch, one network, in a process of its own. `train_peers.py worker --peer NAME ...` runs `serve`.

It speaks the protocol of `workers.py`. A step is zero_grad, forward, loss, backward and update on the same random batch.
"""
import contextlib
import json
import math
import sys
import time

from jobs import Job
from workers import Cannot, private_stdout, reason

CLASSES = 1000


class Training:
    """A network of timm's with its optimizer. `peer` is "eager" or "compile", `variant` a layout and a precision."""

    def __init__(self, peer: str, variant: str, job: Job):
        import torch

        self.torch, self.job = torch, job
        self.compiled, self.variant = peer == "compile", variant
        torch.set_num_threads(job.threads)
        torch.set_num_interop_threads(1)
        torch.set_flush_denormal(True)

    def load(self) -> int:
        """Makes network, optimizer and batch. Returns the number of parameters."""
        import timm

        torch, job = self.torch, self.job
        torch.manual_seed(0)
        layout = torch.channels_last if "channels_last" in self.variant else torch.contiguous_format
        net = timm.create_model(job.model, num_classes=CLASSES).train().to(memory_format=layout)
        self.images = torch.randn(job.batch, 3, job.size, job.size).to(memory_format=layout)
        self.targets = torch.randint(CLASSES, (job.batch,))
        self.optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4, fused=True)
        self.net = torch.compile(net) if self.compiled else net
        return sum(parameter.numel() for parameter in net.parameters())

    def precision(self):
        """The context of the forward pass: autocast to bf16 where the variant says so."""
        torch = self.torch
        return torch.autocast("cpu", torch.bfloat16) if "autocast" in self.variant else contextlib.nullcontext()

    def step(self) -> None:
        """One step; the loss is kept."""
        self.optimizer.zero_grad()
        with self.precision():
            loss = self.torch.nn.functional.cross_entropy(self.net(self.images), self.targets, label_smoothing=0.1)
        loss.backward()
        self.optimizer.step()
        self.loss = loss.detach()

    def measure(self, seconds: float) -> list[float]:
        """Durations of steps, one after the other, for at least `seconds`."""
        steps, start = [], time.perf_counter()
        while not steps or time.perf_counter() - start < seconds:
            before = time.perf_counter()
            self.step()
            steps.append(time.perf_counter() - before)
        if not math.isfinite(self.loss):
            raise Cannot(f"its loss is {self.loss.item()}")
        return steps


def serve(values) -> int:
    """Runs the worker that the arguments describe, until stdin ends."""
    stream = private_stdout()

    def say(event: str, **facts) -> None:
        print(json.dumps({"event": event, **facts}), file=stream, flush=True)

    try:
        before = time.perf_counter()
        training = Training(values.peer, values.variant, Job.from_arguments(values))
        parameters = training.load()
        training.step()
        load_seconds = time.perf_counter() - before
        for _ in range(values.warm_up):  # after the first step, which compiles and makes the optimizer's state
            training.step()
        say("ready", images=training.job.batch, parameters=parameters, load_seconds=load_seconds)
        for line in sys.stdin:
            say("steps", seconds=training.measure(float(line.removeprefix("go "))))
    except Exception as error:
        import traceback

        traceback.print_exc()
        say("cannot", reason=reason(error))
        return 1
    return 0
