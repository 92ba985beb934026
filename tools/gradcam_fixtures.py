#!/usr/bin/env python3
"""Grad-CAMs of timm's networks on PyTorch, by hooks: fixtures/parity/gradcam.json.

Weights and images follow the rule of tools/parity.py, the images without its scaling (uniform in [-1, 1)); two images of
96 x 96, ten classes, for class 3 of the first and class 7 of the second image. Everything runs in float64. A map is
relu(sum over channels of the map times the mean of its gradient), arXiv:1610.02391, equations 1 and 2; `maps` is
[images, rows, columns], not scaled.

Usage: gradcam_fixtures.py [--out fixtures/parity/gradcam.json]
"""
import argparse
import json
import pathlib
import sys

import timm
import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import parity  # noqa: E402

SIZE, CLASSES, CHOSEN = 96, 10, [1, 8]
# The modules whose outputs are explained; "last" is what the head pools.
LAYERS = {
    "resnet18": {"layer2": "layer2", "layer4": "layer4"},
    "resnest14d": {"layer1": "layer1", "layer3": "layer3", "last": "layer4"},
    "tresnet_m": {"body.layer2": "body.layer2", "last": "body.layer4"},
    "regnety_032": {"s3": "s3"},
    "efficientnet_b0": {"blocks.4": "blocks.4", "last": "bn2"},
}


def grad_cam(model, module, x):
    kept = {}
    target = model.get_submodule(module)
    hooks = [
        target.register_forward_hook(lambda _m, _i, output: kept.update(map=output)),
        target.register_full_backward_hook(lambda _m, _i, grad: kept.update(grad=grad[0])),
    ]
    model.zero_grad()
    logits = model(x)
    sum(logits[image, chosen] for image, chosen in enumerate(CHOSEN)).backward()
    for hook in hooks:
        hook.remove()
    weights = kept["grad"].mean((2, 3), keepdim=True)
    return torch.relu((kept["map"] * weights).sum(1)).detach(), logits.detach()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", default="fixtures/parity/gradcam.json")
    a = p.parse_args()
    torch.set_num_threads(2)
    out = {"timm": timm.__version__, "torch": torch.__version__, "size": SIZE, "classes": CHOSEN, "models": {}}
    x = parity.signal("input", (len(CHOSEN), 3, SIZE, SIZE), "").double()
    for name, layers in LAYERS.items():
        model = parity.build(name, "", num_classes=CLASSES).double().eval()
        # In-place activations change what a backward hook sees.
        for module in model.modules():
            if getattr(module, "inplace", False):
                module.inplace = False
        rows = {}
        for ours, module in layers.items():
            maps, logits = grad_cam(model, module, x)
            rows[ours] = {"shape": list(maps.shape), "maps": [float(f"{v:.8g}") for v in maps.flatten().tolist()]}
        out["models"][name] = {"logits": [float(f"{v:.8g}") for v in logits.flatten().tolist()], "layers": rows}
        print(name, {k: (v["shape"], max(v["maps"])) for k, v in rows.items()}, file=sys.stderr)
    pathlib.Path(a.out).write_text(json.dumps(out) + "\n")


if __name__ == "__main__":
    main()
