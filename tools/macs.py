#!/usr/bin/env python3
"""Multiply-adds and activations per model, counted with hooks: fixtures/parity/macs.json.

Counted: every Conv2d and Linear module (squeeze-and-excitation and attention 1x1 convolutions included), batch 1.
    macs         sum of output elements * (in_channels / groups) * kernel area, plus Linear in * out; biases not counted
    conv_acts    sum of Conv2d output elements
    linear_acts  sum of Linear output elements (the classifier)
timm's "macts" (fvcore) is conv_acts + linear_acts in millions, and fvcore also sees functional convolutions: for TResNet
the anti-aliasing blur (a depthwise 3x3 with fixed weights), listed here as blur_macs / blur_acts and in no other sum.
Not counted: batch norm, activations, pooling, element-wise work.

`macs`, `conv_acts`, `linear_acts` are at 224x224. A model whose default pretrained_cfg has another input size also has
`native`: {size, macs, conv_acts}. `--check` compares macs + blur_macs with torch.utils.flop_counter.

Usage: macs.py [--models a,b | --like fixtures/parity/parity.json] [--out fixtures/parity/macs.json] [--check]
"""
import argparse
import json
import pathlib

import timm
import torch
from timm.layers import BlurPool2d


def count(name: str, size: int) -> dict:
    with torch.device("meta"):
        model = timm.create_model(name).eval()
        x = torch.empty(1, 3, size, size)
    total = {"macs": 0, "conv_acts": 0, "linear_acts": 0, "blur_macs": 0, "blur_acts": 0}

    def conv(m, _, y):
        total["macs"] += y.numel() * (m.in_channels // m.groups) * m.kernel_size[0] * m.kernel_size[1]
        total["conv_acts"] += y.numel()

    def linear(m, _, y):
        total["macs"] += y.numel() * m.in_features
        total["linear_acts"] += y.numel()

    def blur(m, _, y):
        total["blur_macs"] += y.numel() * m.filt_size**2
        total["blur_acts"] += y.numel()

    for m in model.modules():
        if isinstance(m, torch.nn.Conv2d):
            m.register_forward_hook(conv)
        elif isinstance(m, torch.nn.Linear):
            m.register_forward_hook(linear)
        elif isinstance(m, BlurPool2d):
            m.register_forward_hook(blur)
    model(x)
    if not total["blur_acts"]:
        del total["blur_macs"], total["blur_acts"]
    return {"params": sum(q.numel() for q in model.parameters()), **total}


def independent(name: str, size: int) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model = timm.create_model(name).eval()
        x = torch.empty(1, 3, size, size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    return counter.get_total_flops() // 2


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--models", default="")
    p.add_argument("--like", default="fixtures/parity/parity.json", help="take the model names from this file")
    p.add_argument("--out", default="fixtures/parity/macs.json")
    p.add_argument("--check", action="store_true")
    a = p.parse_args()
    names = [n for n in a.models.split(",") if n] or list(json.loads(pathlib.Path(a.like).read_text())["models"])
    out = {}
    for name in names:
        row = count(name, 224)
        size = timm.models.get_pretrained_cfg(name).input_size[-1]
        if size != 224:
            native = count(name, size)
            row["native"] = {"size": size, "macs": native["macs"], "conv_acts": native["conv_acts"]}
        if a.check:
            other = independent(name, 224)
            mine = row["macs"] + row.get("blur_macs", 0)
            print(f"{name}: {mine} {other} {'ok' if mine == other else 'DIFFER'}", flush=True)
        else:
            print(name, row, flush=True)
        out[name] = row
    path = pathlib.Path(a.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in out.items()) + "\n}\n")


if __name__ == "__main__":
    main()
