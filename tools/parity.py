#!/usr/bin/env python3
"""Parity fixtures: what an independent implementation (timm on PyTorch) computes.

No trained weights are needed: every parameter is a pure function of its name and index, so any
implementation can rebuild exactly the same network and compare outputs.

The rule, for element i (row-major, from 0) of the state-dict entry called `name`:

    key  = FNV-1a-64(utf8(salt + name))               # salt is "" unless said otherwise
    z    = splitmix64 output for state key + (i + 1) * 0x9E3779B97F4A7C15   (mod 2^64)
             z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
             z = (z ^ (z >> 27)) * 0x94D049BB133111EB
             z =  z ^ (z >> 31)
    r    = (z >> 40) / 2^24                            # float32 in [0, 1)
    s    = 2 r - 1                                     # float32 in [-1, 1)

    name ends in running_var              -> 0.75 + 0.5 r
    name ends in running_mean             -> 0.1 s
    name ends in num_batches_tracked      -> 0
    one dimension, ends in weight (norm)  -> 0.75 + 0.5 r
    one dimension, otherwise (bias)       -> 0.05 s
    otherwise                             -> s * sqrt(3 / fan_in),  fan_in = product of shape[1:]

All in float32; sqrt(3 / fan_in) is taken in double precision and rounded once.
The input image batch is the rule's value for the name "input", shape [N, C, H, W]. It has four dimensions, so
the last line of the rule applies: s * sqrt(3 / (C H W)), at most 0.0045 at 224x224.

So small an input hardly moves the logits (flipping the images changes them by 1e-5 to 3e-4 of the largest; EfficientNet's
not at all): parity.* and variants.* check the network's response to its parameters, and its borders, more than its
response to an image. The strong.* set closes that gap: its input is plain s for the name "input" (uniform in
[-1, 1), no scaling), and every parameter of more than one dimension is multiplied by `weight_gain` (float32; 1 except for
EfficientNet and MixNet, whose signal dies out otherwise; each gain is a multiple of 1/64). Its logits are float64's,
stored as float32; `float32_error` is PyTorch's own float32 difference from them, relative to the largest logit, and
`flip_change` what mirroring the images left-right does to them, on the same scale.

Usage:
    pip install torch timm safetensors numpy
    parity.py --models resnest14d,tresnet_m --size 224 --batch 2 --out fixtures/parity/parity
    parity.py --models resnet18 --out fixtures/parity/parity --merge      # add to an existing pair of files
    parity.py --models resnet18 --train-models resnet18 --train-only --out ... --merge   # add a training step
    parity.py --check fixtures/parity/parity --models resnet18,mixnet_s   # recompute, compare, write nothing
    parity.py --variants --out fixtures/parity/variants                   # the built-in list of odd shapes
    parity.py --strong --models resnet18,... --size 96 --out fixtures/parity/strong          # see above
    parity.py --strong --variants --out fixtures/parity/strong --merge                       # see above
    parity.py --variants resnet50:97x161:2:3:1000,... --out variants      # model:HxW:batch:in_chans:classes
    parity.py --models tresnet_m --export-weights DIR        # the same weights as DIR/<model>.safetensors
    parity.py --list-keys resnest14d                         # every state-dict key with its shape

Writes <out>.safetensors (<model>/logits, shape [N, classes]; variants: <id>/logits) and <out>.json. Per model:
    params           trainable parameters (BN running statistics not counted)
    size, batch      of the evaluation input (variants: height, width, batch, in_chans, num_classes)
    logits_mean/std  over all logits
    features         shape, mean, std of each map of timm's `features_only`, in its order
    pooled           shape, mean, std, L2 norm of `forward_head(forward_features(x), pre_logits=True)`
    train_*          see below (not for every model); grad_norm, grad_norms by parameter name, running_{mean,var}_norms by buffer name
Every std divides by n - 1.

Evaluation (but for the strong set) runs in float32 with dropout off; the training step is one forward and backward in train
mode (batch statistics) on its own batch (train_batch, train_size), with mean cross-entropy against
labels 1, 2, 3, ... and no weight update. It runs in float64, to be the truth that float32 is held to.
How far PyTorch's own float32 is from it is in `train_float32`: of the loss (absolute), the total gradient norm (relative),
the worst parameter (what of |a - b| is left beyond 1e-5 of the total, relative to b: a bias that feeds a batch norm has
gradient zero) and the running statistics (relative, worst buffer). Most models are within 1e-3 of the total and 5e-3 of each
parameter, but a ReLU that flips moves early layers further: up to 2.1e-3 and 1.5e-2 here (resnest50d, its 4s2x40d
variant, skresnext50_32x4d, tresnet_v2_l, regnety_040). A fair test: |a - b| <= 3e-2 b + 1e-5 total, total within 5e-3,
loss within 1e-4, running statistics within 1e-5.
The norms of the running statistics are those *after* the step (0.9 old + 0.1 batch, unbiased variance).

Features come from the classification network itself (`forward_intermediates`), not from a second
`features_only` network: timm renames TResNet's parameters there (body_layer1... for body.layer1...), so the
rule would give that network other weights. For all other families the two agree. TResNet lists four maps
(`body.layer1..4`, what its `features_only` returns), EfficientNet and MixNet have no stem map.
"""
import argparse
import json
import os
import pathlib

import numpy as np
import timm
import torch
from safetensors.torch import load_file, save_file

# weight gains of the strong set, where they are not 1
GAINS = {
    "efficientnet_b0": 51 / 32,
    "efficientnet_b1": 49 / 32,
    "efficientnet_b2": 49 / 32,
    "efficientnet_b3": 48 / 32,
    "efficientnet_b4": 46 / 32,
    "efficientnet_b5": 45 / 32,
    "efficientnet_b6": 46 / 32,
    "efficientnet_b7": 44 / 32,
    "mixnet_s": 41 / 32,
    "mixnet_m": 41 / 32,
    "mixnet_l": 42 / 32,
}

# model, (height, width), batch, in_chans, num_classes
VARIANTS = [
    ("resnest14d", (97, 97), 2, 3, 1000),
    ("resnest14d", (225, 190), 2, 3, 1000),
    ("resnest26d", (33, 33), 2, 3, 1000),
    ("resnest50d", (130, 99), 2, 3, 1000),
    ("resnest50d_4s2x40d", (97, 97), 2, 3, 1000),
    ("resnest50d_1s4x24d", (97, 131), 2, 3, 1000),
    ("resnest101e", (256, 256), 1, 3, 1000),
    ("tresnet_m", (256, 256), 2, 3, 1000),
    ("tresnet_m", (228, 260), 2, 3, 1000),
    ("tresnet_l", (448, 448), 1, 3, 1000),
    ("tresnet_xl", (132, 100), 1, 3, 1000),
    ("tresnet_v2_l", (228, 260), 1, 3, 1000),
    ("resnet50", (97, 161), 2, 3, 1000),
    ("resnet50", (33, 33), 2, 3, 1000),
    ("resnet50d", (65, 65), 2, 3, 1000),
    ("resnet18d", (63, 95), 2, 3, 1000),
    ("resnet34", (49, 81), 2, 3, 1000),
    ("resnext50_32x4d", (97, 66), 2, 3, 1000),
    ("seresnet50", (95, 95), 2, 3, 1000),
    ("senet154", (97, 97), 1, 3, 1000),
    ("legacy_senet154", (97, 97), 1, 3, 1000),
    ("skresnext50_32x4d", (129, 129), 2, 3, 1000),
    ("skresnet50d", (97, 97), 2, 3, 1000),
    ("skresnet18", (95, 70), 2, 3, 1000),
    ("regnety_040", (97, 97), 2, 3, 1000),
    ("efficientnet_b0", (97, 130), 2, 3, 1000),
    ("tf_efficientnet_b0", (97, 131), 2, 3, 1000),
    ("tf_efficientnet_b0", (98, 99), 2, 3, 1000),
    ("tf_efficientnet_b1", (240, 240), 1, 3, 1000),
    ("efficientnet_b2", (131, 96), 2, 3, 1000),
    ("mixnet_s", (113, 113), 2, 3, 1000),
    ("tf_mixnet_s", (113, 113), 2, 3, 1000),
    ("tf_mixnet_l", (114, 99), 2, 3, 1000),
    # other numbers of input channels and classes
    ("resnest14d", (96, 96), 2, 1, 1000),
    ("resnest14d", (96, 96), 2, 4, 10),
    ("resnest14d", (64, 64), 2, 3, 10),
    ("tresnet_m", (96, 96), 2, 1, 1000),
    ("tresnet_m", (96, 96), 2, 4, 10),
    ("tresnet_m", (64, 64), 2, 3, 10),
    ("resnet50", (96, 96), 2, 1, 10),
    ("resnet18", (64, 64), 2, 4, 10),
    ("resnet50d", (96, 96), 2, 4, 10),
    ("skresnext50_32x4d", (96, 96), 2, 1, 10),
    ("regnety_040", (96, 96), 2, 4, 10),
    ("efficientnet_b0", (96, 96), 2, 1, 10),
    ("tf_efficientnet_b0", (96, 96), 2, 4, 10),
    ("mixnet_s", (96, 96), 2, 4, 10),
]

M = np.uint64(0xFFFFFFFFFFFFFFFF)


def fnv1a64(text: str) -> int:
    h = 0xCBF29CE484222325
    for b in text.encode():
        h = ((h ^ b) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def unit(name: str, count: int) -> np.ndarray:
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a64(name)) + (np.arange(count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)).astype(np.float32)


def value(name: str, shape, salt: str) -> torch.Tensor:
    count = int(np.prod(shape)) if len(shape) else 1
    r = unit(salt + name, count)
    s = (np.float32(2) * r - np.float32(1)).astype(np.float32)
    if name.endswith("running_var"):
        v = np.float32(0.75) + np.float32(0.5) * r
    elif name.endswith("running_mean"):
        v = np.float32(0.1) * s
    elif len(shape) == 1 and name.endswith("weight"):
        v = np.float32(0.75) + np.float32(0.5) * r
    elif len(shape) == 1:
        v = np.float32(0.05) * s
    else:
        v = s * np.float32(np.sqrt(3.0 / np.prod(shape[1:])))
    return torch.from_numpy(np.ascontiguousarray(v.reshape(shape)))


def fill(model, salt):
    sd = model.state_dict()
    model.load_state_dict({k: torch.zeros_like(t) if k.endswith("num_batches_tracked") else value(k, tuple(t.shape), salt).to(t.dtype) for k, t in sd.items()})
    return model


def build(name, salt, **kwargs):
    return fill(timm.create_model(name, drop_rate=0.0, **kwargs), salt)


def signal(name: str, shape, salt: str) -> torch.Tensor:
    """Plain s: the strong set's input."""
    r = unit(salt + name, int(np.prod(shape)))
    return torch.from_numpy((np.float32(2) * r - np.float32(1)).astype(np.float32).reshape(shape))


def stats(t):
    return {"shape": list(t.shape), "mean": t.mean().item(), "std": t.std().item()}


def evaluate(name, x, salt, **kwargs):
    """Logits and the evaluation part of the record."""
    model = build(name, salt, **kwargs).eval()
    with torch.inference_mode():
        logits = model(x)
        pooled = model.forward_head(model.forward_features(x), pre_logits=True)
        maps = model.forward_intermediates(x, intermediates_only=True)
    if name.startswith("tresnet"):
        maps = maps[1:]
    info = {
        "params": sum(q.numel() for q in model.parameters()),
        "logits_mean": logits.mean().item(),
        "logits_std": logits.std().item(),
        "features": [stats(f) for f in maps],
        "pooled": {**stats(pooled), "norm": pooled.norm().item()},
    }
    return logits.clone().contiguous(), info


def evaluate_strong(name, shape, salt, **kwargs):
    x = signal("input", shape, salt)
    gain = GAINS.get(name.removeprefix("tf_"), 1.0)
    model = build(name, salt, **kwargs).eval()
    with torch.inference_mode():
        for q in model.parameters():
            if q.ndim > 1:
                q.mul_(gain)
        single = model(x)
        model.double()
        logits = model(x.double())
        flipped = model(x.double().flip(3))
        maps = model.forward_intermediates(x.double(), intermediates_only=True)
    if name.startswith("tresnet"):
        maps = maps[1:]
    top = logits.abs().max()
    return logits.float().contiguous(), {
        "params": sum(q.numel() for q in model.parameters()),
        "weight_gain": gain,
        "logits_mean": logits.mean().item(),
        "logits_std": logits.std().item(),
        "float32_error": ((single.double() - logits).abs().max() / top).item(),
        "flip_change": ((flipped - logits).abs().max() / top).item(),
        "features": [stats(f) for f in maps],
    }


def train_step(name, size, batch, salt):
    model = build(name, salt).train().double()
    x = value("input", (batch, 3, size, size), salt).double()
    loss = torch.nn.functional.cross_entropy(model(x), torch.arange(1, batch + 1))
    loss.backward()
    buffers = dict(model.named_buffers())
    info = {
        "train_size": size,
        "train_batch": batch,
        "train_loss": loss.item(),
        "grad_norm": torch.sqrt(sum((q.grad.double() ** 2).sum() for q in model.parameters())).item(),
        "grad_norms": {k: q.grad.norm().item() for k, q in model.named_parameters()},
        "running_mean_norms": {k: b.norm().item() for k, b in buffers.items() if k.endswith("running_mean")},
        "running_var_norms": {k: b.norm().item() for k, b in buffers.items() if k.endswith("running_var")},
    }
    return {**info, "train_float32": float32_noise(name, info, salt)}


def float32_noise(name, truth, salt):
    """How far a float32 training step is from the float64 one."""
    n, size = truth["train_batch"], truth["train_size"]
    model = build(name, salt).train()
    loss = torch.nn.functional.cross_entropy(model(value("input", (n, 3, size, size), salt)), torch.arange(1, n + 1))
    loss.backward()
    total = truth["grad_norm"]
    norms = {k: q.grad.double().norm().item() for k, q in model.named_parameters()}
    running = [(b, truth[key][k]) for k, b in model.named_buffers() for key in ("running_mean_norms", "running_var_norms") if k in truth[key]]
    return {
        "loss": abs(loss.item() - truth["train_loss"]),
        "grad_norm": abs(sum(v * v for v in norms.values()) ** 0.5 - total) / total,
        "parameter": max(max(abs(v - truth["grad_norms"][k]) - 1e-5 * total, 0.0) / max(truth["grad_norms"][k], 1e-30) for k, v in norms.items()),
        "running": max(abs(b.double().norm().item() - v) / v for b, v in running),
    }


def parse_variants(text):
    if not text:
        return VARIANTS
    out = []
    for item in text.split(","):
        model, hw, batch, chans, classes = item.split(":")
        h, w = hw.split("x")
        out.append((model, (int(h), int(w)), int(batch), int(chans), int(classes)))
    return out


def variant_id(model, hw, batch, chans, classes):
    return f"{model}@{hw[0]}x{hw[1]}_b{batch}_c{chans}_n{classes}"


def short(info):
    return {k: v for k, v in info.items() if not isinstance(v, (dict, list))}


def check(prefix, names, salt):
    """Recompute and print the largest differences; nothing is written."""
    meta = json.loads(pathlib.Path(prefix + ".json").read_text())["models"]
    stored = load_file(prefix + ".safetensors")
    worst = 0.0
    for name in names or list(meta):
        old = meta[name]
        h, w = old.get("height", old.get("size")), old.get("width", old.get("size"))
        kwargs = {k: old[k] for k in ("in_chans", "num_classes") if k in old}
        shape = (old["batch"], old.get("in_chans", 3), h, w)
        if "weight_gain" in old:
            logits, info = evaluate_strong(old["model"], shape, salt, **kwargs)
        else:
            logits, info = evaluate(old.get("model", name), value("input", shape, salt), salt, **kwargs)
        ref = stored[f"{name}/logits"]
        d = (logits - ref).abs().max().item() / ref.abs().max().item()
        worst = max(worst, d)
        f = max((abs(a[k] - b[k]) / abs(b["std"]) for a, b in zip(info["features"], old["features"]) for k in ("mean", "std")), default=0.0)
        same = info["params"] == old["params"] and [a["shape"] for a in info["features"]] == [b["shape"] for b in old["features"]]
        print(f"{name}: logits {d:.2e} (of the largest), feature statistics {f:.2e} (of the std), shapes and params {'same' if same else 'DIFFER'}", flush=True)
    print(f"worst logits difference {worst:.2e}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--models", default="")
    p.add_argument("--size", type=int, default=224)
    p.add_argument("--batch", type=int, default=2)
    p.add_argument("--salt", default="")
    p.add_argument("--out", help="prefix of the two files written (not needed with --export-weights)")
    p.add_argument("--merge", action="store_true", help="keep what <out>.json and <out>.safetensors already hold")
    p.add_argument("--variants", nargs="?", const="", help="other sizes, channels and classes instead of --models")
    p.add_argument("--strong", action="store_true", help="plain s as input and weight gains, in float64")
    p.add_argument("--check", metavar="PREFIX", help="recompute what PREFIX.json holds and compare")
    p.add_argument("--export-weights", metavar="DIR")
    p.add_argument("--train-size", type=int, default=96)
    p.add_argument("--train-batch", type=int, default=16)
    p.add_argument("--train-models", default="none", help="comma separated, or all, or none")
    p.add_argument("--train-only", action="store_true", help="with --merge: keep the evaluation part as it is")
    p.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    p.add_argument("--list-keys")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    names = [n for n in a.models.split(",") if n]
    if a.list_keys:
        for k, t in timm.create_model(a.list_keys).state_dict().items():
            print(k, list(t.shape))
        return
    if a.check:
        check(a.check, names, a.salt)
        return
    if a.export_weights:
        d = pathlib.Path(a.export_weights)
        d.mkdir(parents=True, exist_ok=True)
        for name in names:
            save_file({k: t.contiguous() for k, t in build(name, a.salt).state_dict().items()}, str(d / f"{name}.safetensors"))
            print(d / f"{name}.safetensors", flush=True)
        if not a.out:
            return
    if not a.out:
        p.error("--out is needed")

    json_path, tensor_path = pathlib.Path(a.out + ".json"), pathlib.Path(a.out + ".safetensors")
    meta = {"timm": timm.__version__, "torch": torch.__version__, "salt": a.salt, "models": {}}
    tensors = {}
    if a.merge and json_path.exists():
        meta = json.loads(json_path.read_text())
        tensors = load_file(str(tensor_path))

    def write():
        json_path.parent.mkdir(parents=True, exist_ok=True)
        save_file(dict(sorted(tensors.items())), str(tensor_path))
        json_path.write_text(json.dumps(meta, indent=1) + "\n")

    if a.variants is not None or a.strong:
        variants = parse_variants(a.variants) if a.variants is not None else [(n, (a.size, a.size), a.batch, 3, 1000) for n in names]
        for v in variants:
            model, hw, batch, chans, classes = v
            kwargs = {"in_chans": chans, "num_classes": classes}
            if a.strong:
                logits, info = evaluate_strong(model, (batch, chans, *hw), a.salt, **kwargs)
            else:
                logits, info = evaluate(model, value("input", (batch, chans, *hw), a.salt), a.salt, **kwargs)
            key = variant_id(*v)
            tensors[f"{key}/logits"] = logits
            meta["models"][key] = {"model": model, "height": hw[0], "width": hw[1], "batch": batch, "in_chans": chans, "num_classes": classes, **info}
            print(key, short(info), flush=True)
        write()
        return

    for name in names:
        info = meta["models"].get(name, {})
        if not a.train_only:
            logits, fresh = evaluate(name, value("input", (a.batch, 3, a.size, a.size), a.salt), a.salt)
            tensors[f"{name}/logits"] = logits
            info = {**info, "params": fresh.pop("params"), "size": a.size, "batch": a.batch, **fresh}
        if a.train_models == "all" or name in a.train_models.split(","):
            info = {**info, **train_step(name, a.train_size, a.train_batch, a.salt)}
        meta["models"][name] = info
        print(name, short(info), flush=True)
        write()


if __name__ == "__main__":
    main()
