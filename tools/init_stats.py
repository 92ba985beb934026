#!/usr/bin/env python3
"""Statistics of freshly initialised parameters, as timm leaves them: fixtures/parity/init.json.

For each model, after torch.manual_seed(SEED) and timm.create_model(name): per parameter (state-dict name)
its shape and either {"constant": v} when all elements are equal, or mean, std (divisor n - 1), min and max,
rounded to 6 significant digits. Buffers are not listed (running_mean 0, running_var 1).

Another implementation cannot reproduce the draws, only the distribution. With n elements the mean of a draw is
within about 4 std / sqrt(n) of its own, a normal's std within 3 / sqrt(n) relative (4 sigma), a uniform's within
1.8 / sqrt(n); a fair test compares two draws, so allow sqrt(2) times that, and skip tiny tensors.

Usage: init_stats.py [--models a,b] [--seed 0] [--out fixtures/parity/init.json]
"""
import argparse
import json
import pathlib

import timm
import torch

MODELS = [
    "resnest14d", "resnest50d", "resnest50d_4s2x40d", "tresnet_m", "tresnet_v2_l", "resnet18", "resnet50", "resnet50d",
    "seresnext50_32x4d", "skresnext50_32x4d", "regnety_040", "efficientnet_b0", "mixnet_s",
]


def six(v: float) -> float:
    return float(f"{v:.6g}")


def describe(t: torch.Tensor) -> dict:
    t = t.detach().double().flatten()
    if t.min() == t.max():
        return {"constant": six(t[0].item())}
    return {"mean": six(t.mean().item()), "std": six(t.std().item()), "min": six(t.min().item()), "max": six(t.max().item())}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--models", default=",".join(MODELS))
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", default="fixtures/parity/init.json")
    a = p.parse_args()
    torch.set_num_threads(2)
    lines = []
    for name in a.models.split(","):
        torch.manual_seed(a.seed)
        model = timm.create_model(name)
        rows = [f"   {json.dumps(k)}: {json.dumps({'shape': list(q.shape), **describe(q)})}" for k, q in model.named_parameters()]
        lines.append(f"  {json.dumps(name)}: {{\n" + ",\n".join(rows) + "\n  }")
        print(name, len(rows), flush=True)
    head = f'{{\n "timm": "{timm.__version__}",\n "torch": "{torch.__version__}",\n "seed": {a.seed},\n "models": {{\n'
    text = head + ",\n".join(lines) + "\n }\n}\n"
    json.loads(text)
    out = pathlib.Path(a.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)


if __name__ == "__main__":
    main()
