#!/usr/bin/env python3
"""Pictures for docs/explain.md: handwritten digits in cluttered scenes.

Each picture of the class folders has one of the embedded digits (assets/digits.gz) somewhere, enlarged, over grey noise
with pieces of other digits around it; the class is the digit. Four in five of the digits' pictures go to train/, the rest
to val/. two.png has two digits that are in neither training picture: a 3 on the left and a 7 on the right.

Usage: digit_scenes.py [--out scenes] [--train 2000] [--val 400]
"""
import argparse
import gzip
import pathlib

import numpy as np
from PIL import Image

SIZE, DIGIT = 160, 56


def digits():
    data = gzip.open(pathlib.Path(__file__).parent.parent / "assets/digits.gz").read()
    count = int.from_bytes(data[4:8], "big")
    images = np.frombuffer(data, np.uint8, count * 64, 16).reshape(count, 8, 8)
    labels = np.frombuffer(data, np.uint8)[-count:]
    return images, labels


def enlarged(image, side):
    picture = Image.fromarray((image.astype(np.float32) * 255 / 16).astype(np.uint8))
    return np.asarray(picture.resize((side, side), Image.BICUBIC), np.float32) / 255


def scene(images, numbers, random, places):
    """Noise, pieces of other digits, and the digits `numbers` at `places`."""
    low = random.random((SIZE // 16, SIZE // 16)).astype(np.float32)
    ground = np.asarray(Image.fromarray((low * 255).astype(np.uint8)).resize((SIZE, SIZE), Image.BICUBIC), np.float32)
    canvas = 0.35 * ground / 255 + 0.1 * random.random((SIZE, SIZE)).astype(np.float32)
    for _ in range(14):
        piece = enlarged(images[random.integers(len(images))], DIGIT)
        side = random.integers(14, 24)
        y, x = random.integers(0, DIGIT - side, 2)
        row, column = random.integers(0, SIZE - side, 2)
        part = canvas[row:row + side, column:column + side]
        np.maximum(part, 0.7 * piece[y:y + side, x:x + side], out=part)
    for number, (row, column) in zip(numbers, places):
        part = canvas[row:row + DIGIT, column:column + DIGIT]
        digit = enlarged(images[number], DIGIT)
        part *= 1 - 0.6 * digit
        np.maximum(part, digit, out=part)
    grey = np.clip(canvas * 255, 0, 255).astype(np.uint8)
    return Image.fromarray(np.stack([grey] * 3, -1))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=pathlib.Path, default="scenes")
    p.add_argument("--train", type=int, default=2000)
    p.add_argument("--val", type=int, default=400)
    a = p.parse_args()
    images, labels = digits()
    random = np.random.default_rng(0)
    order = random.permutation(len(images))
    held_out = len(images) // 5
    for split, count, pool in [("train", a.train, order[held_out:]), ("val", a.val, order[:held_out])]:
        for i in range(count):
            number = pool[i % len(pool)]
            folder = a.out / split / str(labels[number])
            folder.mkdir(parents=True, exist_ok=True)
            place = random.integers(0, SIZE - DIGIT, 2)
            scene(images[pool], [np.flatnonzero(pool == number)[0]],
                  random, [place]).save(folder / f"{i:05}.png")
    pool = order[:held_out]
    chosen = [next(i for i, number in enumerate(pool) if labels[number] == digit) for digit in (3, 7)]
    scene(images[pool], chosen, random, [(16, 10), (84, 96)]).save(a.out / "two.png")


if __name__ == "__main__":
    main()
