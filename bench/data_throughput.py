"""Decode, random resized crop, flip and normalise, per core: Cardinal beside torchvision.

    just bench-data                                   # or
    python bench/data_throughput.py [--rounds 15] [--python PYTHON] [--json FILE]

Makes 64 JPEG files of 500 x 375 (quality 90, 4:2:0, as ImageNet's usual ones) from the photographs in
assets/, and goes through them with one thread, in alternation: Cardinal, then torchvision three ways as an
ImageNet loader has it (v1 and v2 on PIL images; decode_jpeg and v2 on tensors, antialiased). Prints the median
time per image of each, and the ratio of the best torchvision's to Cardinal's.

Needs torch, torchvision and Pillow in the Python that runs it, and a built loader_bench.
"""

import argparse
import io
import json
import random
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch
import torchvision
import torchvision.transforms as v1
import torchvision.transforms.v2 as v2
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
NORMALIZE = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make_files(folder, count=64):
    """Random boxes of the photographs, of 4:3."""
    chance = random.Random(0)
    photos = [Image.open(path).convert("RGB") for path in sorted((ROOT / "assets").glob("*.jpg"))]
    for number in range(count):
        photo = photos[number % len(photos)]
        width = min(photo.width, photo.height * 4 / 3) * chance.uniform(0.6, 1)
        height = width * 3 / 4
        left, top = chance.uniform(0, photo.width - width), chance.uniform(0, photo.height - height)
        small = photo.resize((500, 375), Image.Resampling.LANCZOS, (left, top, left + width, top + height))
        small.save(folder / f"{number:03}.jpg", quality=90, subsampling=2)
    return sorted(folder.glob("*.jpg"))


def torchvision_ways():
    pil = lambda data: Image.open(io.BytesIO(data)).convert("RGB")
    mode = torchvision.io.ImageReadMode.RGB
    tensor = lambda data: torchvision.io.decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=mode)
    to_float = v2.ToDtype(torch.float32, scale=True)
    old = v1.Compose(
        [v1.RandomResizedCrop(224), v1.RandomHorizontalFlip(), v1.ToTensor(), v1.Normalize(*NORMALIZE)]
    )
    new = [v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip()]
    on_pil = v2.Compose([*new, v2.PILToTensor(), to_float, v2.Normalize(*NORMALIZE)])
    on_tensors = v2.Compose([*new, to_float, v2.Normalize(*NORMALIZE)])
    return {
        "torchvision v1, PIL": lambda data: old(pil(data)),
        "torchvision v2, PIL": lambda data: on_pil(pil(data)),
        "torchvision v2, tensors": lambda data: on_tensors(tensor(data)),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/examples/loader_bench")
    parser.add_argument("--json", type=Path, help="where to keep the raw times")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        files = make_files(Path(folder))
        data = [path.read_bytes() for path in files]
        ours = subprocess.Popen([args.binary, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

        def cardinal():
            ours.stdin.write("\n")
            ours.stdin.flush()
            return float(ours.stdout.readline())

        def torchvision_pass(way):
            start = time.perf_counter()
            for image in data:
                way(image)
            return (time.perf_counter() - start) * 1e3 / len(data)

        ways = {"cardinal": cardinal}
        ways |= {name: (lambda way=way: torchvision_pass(way)) for name, way in torchvision_ways().items()}
        times = {name: [] for name in ways}
        for round_number in range(args.rounds + 1):
            for name, way in ways.items():
                value = way()
                if round_number > 0:  # the first warms up
                    times[name].append(value)
        ours.stdin.close()
        ours.wait()
    size = sum(len(image) for image in data) / len(data) / 1024
    print(f"{len(data)} JPEG files of 500x375, {size:.0f} kB on average; 1 thread, median of {args.rounds} rounds")
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        print(f"{name:26} {median:6.2f} ms/image  {1e3 / median:6.0f} images/s  (least {min(times[name]):.2f})")
    best = min(value for name, value in medians.items() if name != "cardinal")
    ratio = best / medians["cardinal"]
    print(f"ratio to the best torchvision: {ratio:.2f} (target: at least 1.5)")
    if args.json:
        versions = {"torch": torch.__version__, "torchvision": torchvision.__version__, "Pillow": Image.__version__}
        args.json.write_text(json.dumps({"versions": versions, "ms": times, "ratio": ratio}, indent=1) + "\n")


if __name__ == "__main__":
    main()
