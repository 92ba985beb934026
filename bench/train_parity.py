#!/usr/bin/env python3
"""The same small networks trained by PyTorch/timm and by Cardinal on the embedded digits, side by side.

    cargo build --release
    python3 bench/train_parity.py

1. From identical weights, with the same batches of 64 in the same order and no augmentation: the losses of the first 50
   steps must agree to 1e-3 relative, in f32. A ReLU whose input is within a rounding error of zero has a gradient in one
   copy of a network and none in another, and early in training such a difference grows with every step, in one framework
   too. So PyTorch trains in f64 as well, the learning rates are low, and the seeds that count are those for which
   PyTorch's own losses in f32 and f64 agree to a third of the limit, whatever Cardinal's are. All seeds that were tried
   are in the file with what both frameworks made of them.
2. With augmentation on (each side's own) and the recipe's batch, from identical weights, five seeds: the mean accuracies
   on the held-out fifth must lie within one standard deviation of each other.

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

from peers import positive

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
# The first part's batch and largest learning rates, and how far apart losses may be.
LOSS_BATCH, LOSS_LR, LIMIT = 64, {"resnest14_digits": 2e-4, "tresnet_digits": 2e-3}, 1e-3
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
    images = torch.from_numpy(numpy.stack(images)).float().div(255)
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
    padded = F.pad(images, [PAD] * 4)
    places = torch.randint(0, 2 * PAD + 1, (len(images), 2), generator=generator).tolist()
    return torch.stack([image[:, y : y + 32, x : x + 32] for image, (y, x) in zip(padded, places)])


def steps_torch(name, weights, rates, seed, data, augment, size=BATCH, dtype=torch.float32):
    """Trains a step on `size` images for each rate; gives the loss of each, and the model."""
    images, labels, kept, _ = data
    images = images.to(dtype)
    model = MODELS[name]()
    model.load_state_dict(weights)
    model.to(dtype).train()
    optim, generator = optimizer(model), torch.Generator().manual_seed(seed)
    batches, kept = len(kept) // size, torch.tensor(kept)
    for step, rate in enumerate(rates):
        epoch, batch = divmod(step, batches)
        if batch == 0:
            indices = kept[torch.tensor(order(seed, epoch, len(kept)))]
        chosen = indices[batch * size : (batch + 1) * size]
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
        "--json", "--quiet", "--dtype", "f32", *extra,
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


def compare(arguments, name, data):
    """Losses without augmentation, of one seed of the weights after the other."""
    batches, tried = len(data[2]) // LOSS_BATCH, []
    stop = str(math.ceil(arguments.steps / batches))
    extra = ["--batch-size", str(LOSS_BATCH), "--lr", str(LOSS_LR[name])]
    extra += ["--set", "no_aug=true", "--set", f"stop_epoch={stop}", "--set", "val_interval=1000"]
    for seed in range(1, arguments.weights + 1):
        weights = initial(name, seed)
        with tempfile.TemporaryDirectory() as folder:
            ours, rates, _ = train_cardinal(arguments.binary, name, weights, 42, pathlib.Path(folder), extra)
        ours, rates = ours[: arguments.steps], rates[: arguments.steps]
        single, double = (
            [loss for loss, _ in steps_torch(name, weights, rates, 42, data, False, LOSS_BATCH, dtype)]
            for dtype in (torch.float32, torch.float64)
        )
        own, worst = relative(single, double), relative(ours, single)
        tried.append({
            "seed": seed, "counts": own <= LIMIT / 3, "torch_f32_f64": own, "cardinal_torch": worst,
            "cardinal_f64": relative(ours, double), "cardinal": ours, "torch": single, "torch_f64": double,
        })
        print(
            f"{name}: seed {seed}: losses of {len(ours)} steps agree to {worst:.1e} (limit {LIMIT:.0e}); PyTorch in f32 "
            f"and f64 to {own:.1e}" + ("" if tried[-1]["counts"] else ", so the seed says nothing"),
            flush=True,
        )
    counting = [run["cardinal_torch"] for run in tried if run["counts"]]
    return {
        "steps": arguments.steps, "batch": LOSS_BATCH, "lr": LOSS_LR[name], "rates": rates, "seeds": tried,
        "worst": max(counting, default=None), "agree": bool(counting) and max(counting) <= LIMIT,
    }


def accuracies(arguments, name, data):
    ours, theirs, seconds = [], [], [0.0, 0.0]
    for seed in range(1, arguments.seeds + 1):
        weights = initial(name, seed)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            extra = ["--epochs", str(arguments.epochs)]
            _, rates, top1 = train_cardinal(arguments.binary, name, weights, seed, pathlib.Path(folder), extra)
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
        "epochs": arguments.epochs, "cardinal": ours, "torch": theirs, "mean": mean, "deviation": deviation, "apart": apart,
        "seconds": {"cardinal": seconds[0], "torch": seconds[1]}, "agree": bool(apart <= limit),
    }


def panel(place, size, title, low, high, ticks, steps, curves):
    """A chart at `place`: each curve has a class and its value at each step."""
    (left, top), (width, height) = place, size
    x = lambda step: left + step * width / (steps - 1)
    y = lambda value: top + height * (1 - (min(max(value, low), high) - low) / (high - low))
    parts = [f'<text class="title" x="{left}" y="{top - 12}">{title}</text>']
    for value, text in ticks:
        parts.append(f'<path class="grid" d="M{x(0):.1f} {y(value):.1f}H{x(steps - 1):.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{text}</text>')
    for step in range(0, steps, 10):
        parts.append(f'<text x="{x(step):.1f}" y="{top + height + 16}" text-anchor="middle">{step}</text>')
    for kind, values in curves:
        if kind == "dots":
            parts += [f'<circle cx="{x(i):.1f}" cy="{y(v):.1f}" r="2"/>' for i, v in enumerate(values)]
        else:
            line = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in enumerate(values))
            parts.append(f'<polyline class="{kind}" points="{line}"/>')
    return "".join(parts)


def picture(results, path):
    """Above the losses, below how far apart they are, in powers of ten; a column for each network."""
    width, height, parts = 330, 180, []
    for column, (name, result) in enumerate(results.items()):
        losses, left = result["losses"], 46 + column * (width + 60)
        run = next((run for run in losses["seeds"] if run["counts"]), losses["seeds"][0])
        steps, high = losses["steps"], math.ceil(max(run["torch"]) * 2) / 2
        low = math.floor(min(run["torch"]) * 2) / 2
        ticks = [(value, f"{value:.3g}") for value in numpy.linspace(low, high, 5)]
        title = f"{name}: loss by step"
        curves = [("torch", run["torch"]), ("dots", run["cardinal"])]
        parts.append(panel((left, 40), (width, height), title, low, high, ticks, steps, curves))
        apart = lambda one, two: [math.log10(max(abs(a - b) / b, 1e-9)) for a, b in zip(run[one], run[two])]
        ticks = [(power, f"1e{power}") for power in range(-9, -1, 2)]
        curves = [("torch", apart("torch", "torch_f64")), ("cardinal", apart("cardinal", "torch_f64"))]
        title = "relative distance from PyTorch in f64"
        parts.append(panel((left, 290), (width, height), title, -9, -2, ticks, steps, curves))
    style = (
        "text{font:11px sans-serif;fill:#555}.title{font-size:13px;fill:#222}.grid{stroke:#ddd}polyline{fill:none}"
        ".torch{stroke:#e08214;stroke-width:3}.cardinal{stroke:#2166ac;stroke-width:1.5}circle{fill:#2166ac}"
    )
    legend = '<text x="46" y="514"><tspan fill="#e08214">PyTorch and timm, f32</tspan>'
    legend += '<tspan dx="16" fill="#2166ac">Cardinal, f32</tspan></text>'
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {len(results) * (width + 60) + 10} 524"><style>{style}'
        f'</style><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}{legend}</svg>\n'
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    parser.add_argument("--binary", default=str(pathlib.Path(target) / "release" / "cardinal"))
    parser.add_argument("--models", default=",".join(MODELS), help="comma-separated")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--weights", type=positive, default=4, help="seeds of the first part, at least 1")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of the second part; 0 leaves it out")
    parser.add_argument("--epochs", type=int, default=6, help="of the second part")
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
