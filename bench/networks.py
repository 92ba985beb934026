"""The networks and their inputs: timm's, with random weights of ordinary scale, as files that all peers read.

Random weights run as fast as trained ones as long as no activation is NaN, infinite, denormal or constant. timm's own
initialisation gives constants (the last batch norm of each residual branch is zero) and scales that grow with depth. So
the scales and shifts of the batch norms are drawn anew, and their running statistics are those of one batch of noise.
"""
import json
import os
import pathlib

import timm
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from jobs import Job

REVISION = 1  # of what this file writes; a new one leaves the old caches aside
CALIBRATION_SHAPE = (16, 3, 128, 128)


def versions() -> str:
    """What the cached files depend on."""
    return f"timm{timm.__version__}-torch{torch.__version__}-r{REVISION}".replace("+", ".")


def calibrate(net: torch.nn.Module) -> None:
    """Gives each batch norm of `net` weights of ordinary scale, and the statistics of its input."""
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        # A norm that timm starts at zero ends a residual branch: kept small, so that the sum over the blocks is too.
        scale = 0.75 if norm.weight.any() else 0.25
        torch.nn.init.uniform_(norm.weight, scale, scale * 1.5)
        torch.nn.init.uniform_(norm.bias, -0.1, 0.1)
        norm.reset_running_stats()
        norm.momentum = None  # the average over all batches so far: here of one
    net.train()
    with torch.no_grad():
        net(torch.randn(CALIBRATION_SHAPE))
    for norm in norms:
        # A channel that is nearly constant in the noise, as pooled ones are, must not blow up rounding errors.
        norm.running_var.copy_(torch.maximum(norm.running_var, norm.running_mean**2).clamp_(min=1e-3))
    net.eval()


def create(job: Job) -> torch.nn.Module:
    """The network of `job`, the same in each process."""
    torch.manual_seed(0)
    net = timm.create_model(job.model)
    calibrate(net)
    return net


def write(path: pathlib.Path, save) -> None:
    """Lets `save` write a file beside `path`, and moves it there when it is complete."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    save(part)
    part.replace(path)


def export(net: torch.nn.Module, images: torch.Tensor, path: pathlib.Path) -> None:
    """Writes `net` for the shape of `images` as one ONNX file."""
    write(path, lambda part: torch.onnx.export(
        net, (images,), part, input_names=["images"], output_names=["logits"], dynamo=True, external_data=False,
        verbose=False))


def weights_file(job: Job, folder: pathlib.Path) -> torch.nn.Module:
    """The network of `job`, its weights kept in `folder`."""
    path = folder / "weights.pt"
    if path.exists():
        return load(job, folder)
    net = create(job)
    write(path, lambda part: torch.save(net.state_dict(), part))
    return net


def load(job: Job, folder: pathlib.Path) -> torch.nn.Module:
    """The network of `job` with the weights kept in `folder`, ready for inference."""
    net = timm.create_model(job.model)
    net.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    return net.eval()


def prepare(job: Job) -> dict:
    """Writes what the peers need to run `job`, unless it is there, and says what and where.

    `model-B.onnx` is the network for batch B, `images-B.f32` its input and `logits-B.f32` PyTorch's f32 output, both
    raw little-endian floats.
    """
    folder = job.folder(versions())
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / f"job-{job.batch}.json"
    if note.exists():
        return json.loads(note.read_text())
    net = weights_file(job, folder)
    torch.manual_seed(1)
    images = torch.randn(job.batch, 3, job.size, job.size)
    with torch.inference_mode():
        logits = net(images)
    write(folder / f"images-{job.batch}.f32", images.numpy().tofile)
    write(folder / f"logits-{job.batch}.f32", logits.numpy().tofile)
    export(net, images, folder / f"model-{job.batch}.onnx")
    facts = {
        "folder": folder.name,
        "shape": list(images.shape),
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
    }
    write(note, lambda part: part.write_text(json.dumps(facts)))
    return facts
