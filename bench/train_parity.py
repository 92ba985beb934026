#!/usr/bin/env python3
"""The same small networks trained by PyTorch/timm and by Cardinal on the embedded digits, side by side.

    cargo build --release
    python3 bench/train_parity.py

1. From identical weights, with the same batches in the same order and no augmentation: the losses of the first 50 steps
   must agree to 1e-3 relative, in f32. Where a ReLU's input is within a rounding error of zero, its gradient jumps, and
   two exact copies of a network part within a few steps, in one framework too: so the learning rate and the seed of the
   weights are the first for which PyTorch's own losses in f32 and f64 agree to 1e-5. The report has both numbers.
2. With augmentation on (each side's own), from identical weights, five seeds: the mean accuracies on the held-out fifth
   must lie within one standard deviation of each other.

Writes every number to bench/results/DATE-train-parity.json and the curves to docs/train-parity.svg. Needs torch, timm,
numpy, Pillow and safetensors.
"""
import argparse
import datetime
import gzip
import json
import math
import os
import pathlib
import platform
import struct
import subprocess
import sys
import tempfile
import time

import numpy
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from timm.models.resnest import ResNestBottleneck
from timm.models.resnet import ResNet
from timm.models.tresnet import TResNet

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODELS = {
    "resnest14_digits": lambda: ResNet(
        ResNestBottleneck, [1, 1, 1, 1], num_classes=10, stem_type="deep", stem_width=8, avg_down=True, base_width=64,
        cardinality=1, channels=(16, 32, 64, 128), block_args=dict(radix=2, avd=True, avd_first=False),
    ),
    "tresnet_digits": lambda: TResNet([1, 1, 1, 1], num_classes=10, width_factor=0.25),
}
# What recipes/digits.toml says; the learning rate of every step is read from Cardinal's log.
BATCH, SMOOTHING, MOMENTUM, DECAY, PAD = 16, 0.1, 0.9, 5e-4, 2
MASK = (1 << 64) - 1


def read_idx(file):
    zero, kind, rank = struct.unpack(">HBB", file.read(4))
    shape = struct.unpack(f">{rank}I", file.read(4 * rank))
    return numpy.frombuffer(file.read(math.prod(shape)), numpy.uint8).reshape(shape)


def digits():
    """Images [n, 3, 32, 32] as Cardinal prepares them, their classes, and the indices of train and held-out split."""
    with gzip.open(ROOT / "assets/digits.gz") as file:
        pixels, labels = read_idx(file), read_idx(file).astype(numpy.int64)
    levels = ((pixels.astype(numpy.uint32) * 255 + 8) // 16).astype(numpy.uint8)
    images = [numpy.asarray(Image.fromarray(level).resize((32, 32), Image.BILINEAR)) for level in levels]
    images = torch.from_numpy(numpy.stack(images)).float().div(255).sub(0.5).div(0.5)
    seen, held, kept = [0] * 10, [], []
    for index, label in enumerate(labels):
        seen[label] += 1
        (held if seen[label] % 5 == 0 else kept).append(index)
    return images.unsqueeze(1).repeat(1, 3, 1, 1), torch.from_numpy(labels), kept, held


class Philox:
    """Cardinal's random numbers (crates/data/src/random.rs)."""

    def __init__(self, seed, words):
        key = [seed, len(words)]
        for position in range(0, len(words), 2):
            pair = words[position : position + 2]
            key = self.block([pair[0], pair[1] if len(pair) > 1 else 0, position // 2, MASK], key)[:2]
        self.key, self.counter, self.values = key, 0, []

    @staticmethod
    def block(counter, key):
        key = list(key)
        for turn in range(10):
            if turn:
                key = [(key[0] + 0x9E3779B97F4A7C15) & MASK, (key[1] + 0xBB67AE8584CAA73B) & MASK]
            a, b = 0xD2E7470EE14C6C93 * counter[0], 0xCA5A826395121157 * counter[2]
            counter = [(b >> 64) ^ counter[1] ^ key[0], b & MASK, (a >> 64) ^ counter[3] ^ key[1], a & MASK]
        return counter

    def next(self):
        if not self.values:
            self.values = self.block([self.counter, 0, 0, 0], self.key)
            self.counter += 1
        return self.values.pop(0)

    def below(self, n):
        threshold = ((1 << 64) - n) % n
        while True:
            product = self.next() * n
            if product & MASK >= threshold:
                return product >> 64

    def shuffled(self, items):
        items = list(items)
        for last in range(len(items) - 1, 0, -1):
            other = self.below(last + 1)
            items[last], items[other] = items[other], items[last]
        return items


def order(seed, epoch, images):
    return Philox(seed, [1, epoch]).shuffled(range(images))


def targets(labels):
    """Label smoothing as ResNeSt's equation 4."""
    soft = torch.full((len(labels), 10), SMOOTHING / 9)
    return soft.scatter_(1, labels[:, None], 1 - SMOOTHING)


def optimizer(model):
    groups = [[p for p in model.parameters() if p.ndim > 1], [p for p in model.parameters() if p.ndim <= 1]]
    groups = [{"params": groups[0], "weight_decay": DECAY}, {"params": groups[1], "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=0.1, momentum=MOMENTUM, nesterov=True)


def shifted(images, generator):
    """A random crop out of the image with a black border, one for each image."""
    padded = F.pad(images, [PAD] * 4, value=-1.0)
    places = torch.randint(0, 2 * PAD + 1, (len(images), 2), generator=generator).tolist()
    return torch.stack([image[:, y : y + 32, x : x + 32] for image, (y, x) in zip(padded, places)])


def steps_torch(name, weights, rates, seed, data, augment, dtype=torch.float32):
    """Trains a step for each rate; gives the loss of each, and the model."""
    images, labels, kept, _ = data
    images = images.to(dtype)
    model = MODELS[name]()
    model.load_state_dict(weights)
    model.to(dtype).train()
    optim, generator = optimizer(model), torch.Generator().manual_seed(seed)
    batches, kept = len(kept) // BATCH, torch.tensor(kept)
    for step, rate in enumerate(rates):
        epoch, batch = divmod(step, batches)
        if batch == 0:
            indices = kept[torch.tensor(order(seed, epoch, len(kept)))]
        chosen = indices[batch * BATCH : (batch + 1) * BATCH]
        x = shifted(images[chosen], generator) if augment else images[chosen]
        for group in optim.param_groups:
            group["lr"] = rate
        loss = -(targets(labels[chosen]).to(dtype) * F.log_softmax(model(x), 1)).sum(1).mean()
        optim.zero_grad()
        loss.backward()
        optim.step()
        yield loss.item(), model


def accuracy_torch(name, weights, rates, seed, data):
    """Top-1 on the held-out fifth after training with augmentation."""
    for _, model in steps_torch(name, weights, rates, seed, data, augment=True):
        pass
    images, labels, _, held = data
    model.eval()
    with torch.no_grad():
        return 100 * (model(images[held]).argmax(1) == labels[held]).float().mean().item()


def train_cardinal(binary, name, weights, seed, folder, extra):
    """Losses and learning rates of all steps, and top-1 at the end."""
    start = str(folder / "start.safetensors")
    save_file({key: value.contiguous() for key, value in weights.items()}, start)
    command = [
        binary, "train", "--recipe", "digits", "--model", name, "--initial-checkpoint", start, "--seed", str(seed),
        "--set", "log_interval=1", "--set", "interpolation=bilinear", "--output", str(folder), "--experiment", "run",
        "--json", "--quiet", *extra,
    ]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    rows = [json.loads(line) for line in open(folder / "run" / "metrics.jsonl")]
    steps = [row for row in rows if "loss" in row]
    return [row["loss"] for row in steps], [row["lr"] for row in steps], result["top1"]


def initial(name, seed):
    torch.manual_seed(seed)
    return {key: value.clone() for key, value in MODELS[name]().state_dict().items()}


def relative(ours, theirs):
    return max(abs(a - b) / abs(b) for a, b in zip(ours, theirs))


def conditioned(name, data, steps):
    """The first learning rate and seed for which f32 says anything: PyTorch's losses in f32 and f64 agree."""
    batches, tried = len(data[2]) // BATCH, []
    for lr in (0.05, 5e-3, 5e-4):
        for seed in range(1, 9):
            # The recipe's warm-up is longer than the comparison.
            rates = [lr * step / batches for step in range(steps)]
            weights = initial(name, seed)
            runs = [
                steps_torch(name, weights, rates, 42, data, augment=False, dtype=dtype)
                for dtype in (torch.float32, torch.float64)
            ]
            losses, apart = [], 0.0
            for (single, _), (double, _) in zip(*runs):
                losses.append(single)
                apart = max(apart, abs(single - double) / double)
                if apart > 1e-5:
                    break
            tried.append({"lr": lr, "seed": seed, "f32_f64": apart, "steps": len(losses)})
            if apart <= 1e-5:
                return lr, weights, losses, tried
    sys.exit(f"{name}: PyTorch in f32 agrees with itself in f64 for no learning rate and seed")


def compare(arguments, name, data):
    lr, weights, theirs, tried = conditioned(name, data, arguments.steps)
    with tempfile.TemporaryDirectory() as folder:
        # One epoch more than the steps need: the first is the warm-up.
        epochs = 1 + math.ceil(arguments.steps / (len(data[2]) // BATCH))
        extra = ["--lr", str(lr), "--set", "no_aug=true", "--epochs", str(epochs), "--set", "val_interval=1000"]
        ours, rates, _ = train_cardinal(arguments.binary, name, weights, 42, pathlib.Path(folder), extra)
    ours = ours[: arguments.steps]
    worst, own = relative(ours, theirs), tried[-1]["f32_f64"]
    print(
        f"{name}: {len(theirs)} steps, learning rate up to {rates[arguments.steps - 1]:.1e}: losses agree to {worst:.1e} "
        f"(limit 1e-3); PyTorch in f32 and f64 to {own:.1e}",
        flush=True,
    )
    return {
        "steps": len(theirs), "lr": lr, "cardinal": ours, "torch": theirs, "worst": worst, "conditioning": tried,
        "agree": worst <= 1e-3,
    }


def accuracies(arguments, name, data):
    ours, theirs, seconds = [], [], [0.0, 0.0]
    for seed in range(1, arguments.seeds + 1):
        weights = initial(name, seed)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            _, rates, top1 = train_cardinal(arguments.binary, name, weights, seed, pathlib.Path(folder), [])
            seconds[0] += time.perf_counter() - start
        ours.append(top1)
        start = time.perf_counter()
        theirs.append(accuracy_torch(name, weights, rates, seed, data))
        seconds[1] += time.perf_counter() - start
        print(f"{name}: seed {seed}: Cardinal {top1:.2f} %, PyTorch {theirs[-1]:.2f} %", flush=True)
    mean, deviation = [numpy.mean(ours), numpy.mean(theirs)], [numpy.std(ours, ddof=1), numpy.std(theirs, ddof=1)]
    apart = abs(mean[0] - mean[1])
    # A deviation of 0 (all seeds equal) would ask for more than one image of 359.
    limit = max(*deviation, 100 / len(data[3]))
    print(f"{name}: mean {mean[0]:.2f} and {mean[1]:.2f} %, {apart:.2f} apart (limit {limit:.2f})", flush=True)
    return {
        "cardinal": ours, "torch": theirs, "mean": mean, "deviation": deviation, "apart": apart,
        "seconds": {"cardinal": seconds[0], "torch": seconds[1]}, "agree": bool(apart <= limit),
    }


def picture(results, path):
    """The loss curves, one panel for each network: PyTorch's as a line, Cardinal's as dots on it."""
    width, height, left, top = 380, 240, 46, 34
    parts = []
    for panel, (name, result) in enumerate(results.items()):
        curves = result["losses"]
        high = max(curves["torch"]) * 1.05
        x = lambda step: left + panel * (width + 40) + step * (width - left) / (curves["steps"] - 1)
        y = lambda loss: top + (height - top - 30) * (1 - loss / high)
        line = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in enumerate(curves["torch"]))
        dots = "".join(f'<circle cx="{x(i):.1f}" cy="{y(v):.1f}" r="2"/>' for i, v in enumerate(curves["cardinal"]))
        ticks = ""
        for tick in numpy.linspace(0, math.floor(high * 2) / 2, 5):
            ticks += f'<path d="M{x(0):.1f} {y(tick):.1f}H{x(curves["steps"] - 1):.1f}"/>'
            ticks += f'<text x="{x(0) - 6:.1f}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.2g}</text>'
        for step in range(0, curves["steps"], 10):
            ticks += f'<text x="{x(step):.1f}" y="{height - 12}" text-anchor="middle">{step}</text>'
        parts.append(
            f'<g class="grid">{ticks}</g><polyline points="{line}"/><g class="dots">{dots}</g>'
            f'<text class="title" x="{x(0):.1f}" y="20">{name}: loss by step, largest difference {curves["worst"]:.0e}</text>'
        )
    style = (
        "text{font:11px sans-serif;fill:#555}.title{font-size:13px;fill:#222}.grid path{stroke:#ddd}"
        "polyline{fill:none;stroke:#e08214;stroke-width:3}.dots{fill:#2166ac}"
    )
    total = len(results) * (width + 40)
    legend = (
        f'<text x="{left}" y="{height + 8}"><tspan fill="#e08214">line: PyTorch and timm</tspan>'
        f'<tspan dx="16" fill="#2166ac">dots: Cardinal</tspan></text>'
    )
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {height + 16}"><style>{style}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}{legend}</svg>\n'
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    parser.add_argument("--binary", default=str(pathlib.Path(target) / "release" / "cardinal"))
    parser.add_argument("--models", default=",".join(MODELS), help="comma-separated")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=5, help="0 leaves the second part out")
    parser.add_argument("--json", default=str(ROOT / f"bench/results/{datetime.date.today()}-train-parity.json"))
    parser.add_argument("--picture", default=str(ROOT / "docs/train-parity.svg"))
    arguments = parser.parse_args()
    data, results = digits(), {}
    for name in arguments.models.split(","):
        results[name] = {"losses": compare(arguments, name, data)}
    picture(results, pathlib.Path(arguments.picture))
    for name in results if arguments.seeds else ():
        results[name]["accuracy"] = accuracies(arguments, name, data)
    versions = {"torch": torch.__version__, "timm": timm.__version__, "python": platform.python_version()}
    report = {"versions": versions, "machine": platform.machine(), "cores": os.cpu_count(), "models": results}
    pathlib.Path(arguments.json).write_text(json.dumps(report, indent=1) + "\n")
    agree = all(part["agree"] for result in results.values() for part in result.values())
    sys.exit(0 if agree else "not within the limits")


if __name__ == "__main__":
    main()
