#!/usr/bin/env python3
"""End-to-end predictions from a photograph to the top five classes: fixtures/parity/predict.json.

Weights follow the rule of tools/parity.py (so the predictions mean nothing; they only have to agree). The image goes
through the evaluation transform that timm makes from the model's own default_cfg: resize the short side to
floor(size / crop_pct) with the configured filter (Pillow, antialiased, on bytes), centre crop, / 255, normalise.

Per model: `config` of the transform; per photograph: sha256 of the file, its width and height, mean and std of the
prepared tensor (std divisor n - 1), L2 norm of the logits, and the top five: index, logit and softmax probability, best
first; `sixth_logit` too, so that a test can tell a swap of near-equal neighbours from an error (`smallest_gap`: the
smallest difference between neighbours among the six logits). `noise_change` is the largest change of any logit when every
byte of the decoded photograph is moved by a fixed pattern of -1, 0, +1 (JPEG decoders differ by that much).

Usage: predict_fixtures.py [--models a,b] [--images assets] [--out fixtures/parity/predict.json]
"""
import argparse
import hashlib
import json
import pathlib
import sys

import numpy as np
import timm
import torch
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import parity  # noqa: E402


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--models", default="resnest14d,tresnet_m,resnet50")
    p.add_argument("--images", default="assets")
    p.add_argument("--out", default="fixtures/parity/predict.json")
    a = p.parse_args()
    torch.set_num_threads(2)
    paths = sorted(q for q in pathlib.Path(a.images).iterdir() if q.suffix in (".jpg", ".jpeg", ".png"))
    out = {"timm": timm.__version__, "torch": torch.__version__, "pillow": Image.__version__, "models": {}}
    for name in a.models.split(","):
        model = parity.build(name, "").eval()
        config = timm.data.resolve_data_config({}, model=model)
        transform = timm.data.create_transform(**config, is_training=False)
        rows = {}
        for path in paths:
            image = Image.open(path).convert("RGB")
            x = transform(image).unsqueeze(0)
            pixels = np.asarray(image).astype(np.int16)
            pattern = (np.arange(pixels.size).reshape(pixels.shape) * 7919 % 3) - 1
            moved = Image.fromarray(np.clip(pixels + pattern, 0, 255).astype(np.uint8))
            with torch.inference_mode():
                logits = model(x)[0]
                other = model(transform(moved).unsqueeze(0))[0]
            prob = logits.softmax(0)
            top = logits.topk(6)
            rows[path.name] = {
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "width": image.width,
                "height": image.height,
                "input_mean": x.mean().item(),
                "input_std": x.std().item(),
                "logits_norm": logits.norm().item(),
                "top5": [{"index": i, "logit": logits[i].item(), "probability": prob[i].item()} for i in top.indices[:5].tolist()],
                "sixth_logit": top.values[5].item(),
                "smallest_gap": (top.values[:-1] - top.values[1:]).min().item(),
                "noise_change": (other - logits).abs().max().item(),
            }
            print(name, path.name, [t["index"] for t in rows[path.name]["top5"]], rows[path.name]["smallest_gap"], rows[path.name]["noise_change"], flush=True)
        keep = ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")
        out["models"][name] = {"config": {k: config[k] for k in keep}, "images": rows}
    target = pathlib.Path(a.out)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
