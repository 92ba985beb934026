#!/usr/bin/env python3
"""Checks Cardinal against timm and PyTorch on this machine, through the built binary.

    python tools/python_checks.py target/release/cardinal

For each network, with the weights of tools/parity.py:
- `cardinal convert` reads what torch.save wrote, and timm loads what it wrote with strict=True, bit for bit;
- `cardinal predict --tensor` gives timm's logits within a relative L2 error of 1e-4;
- `cardinal predict` gives timm's probabilities for a photograph, prepared by timm's own transform.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

import parity

MODELS = ["resnest14d", "tresnet_m", "resnet50", "tf_efficientnet_b0", "skresnet18"]
PHOTO = pathlib.Path(__file__).resolve().parent.parent / "assets" / "coffee.jpg"


def check(model_name: str, cardinal: str, folder: pathlib.Path) -> None:
    model = parity.fill(timm.create_model(model_name), "").eval()
    state = model.state_dict()
    pth, out = folder / "in.pth", folder / "out.safetensors"
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, pth)
    subprocess.run([cardinal, "convert", pth, out, "--model", model_name], check=True, stdout=subprocess.DEVNULL)
    back = timm.create_model(model_name)
    back.load_state_dict(load_file(out), strict=True)
    assert all(torch.equal(v, back.state_dict()[k]) for k, v in state.items()), "values changed"

    x = parity.signal("input", (2, 3, 96, 128), "")
    np.save(folder / "in.npy", x.numpy())
    weights = ["predict", "--model", model_name, "--checkpoint", out]
    tensor = ["--tensor", folder / "in.npy", "--output", folder / "out.npy"]
    subprocess.run([cardinal, *weights, *tensor], check=True)
    with torch.inference_mode():
        logits = model(x)
    error = np.linalg.norm(np.load(folder / "out.npy") - logits.numpy()) / logits.norm().item()
    assert error <= 1e-4, f"relative L2 error {error}"

    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    with torch.inference_mode():
        probabilities = model(transform(Image.open(PHOTO).convert("RGB"))[None]).softmax(1)[0]
    printed = subprocess.run([cardinal, *weights, "--json", PHOTO], check=True, stdout=subprocess.PIPE).stdout
    for prediction in json.loads(printed)[0]["predictions"]:
        ours, timms = prediction["probability"], probabilities[prediction["class"]].item()
        assert abs(ours - timms) <= 0.03 * timms, f"class {prediction['class']}: {ours}, timm {timms}"
    print(f"{model_name}: converted, loaded by timm, logits within {error:.1e}, photograph agrees", flush=True)


def main() -> None:
    for name in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            check(name, sys.argv[1], pathlib.Path(folder))
    print(f"python checks: {len(MODELS)} passed")


if __name__ == "__main__":
    main()
