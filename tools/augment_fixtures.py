"""Writes the golden values that crates/data's augmentations are tested against: fixtures/augment.

    python tools/augment_fixtures.py

Needs Pillow, NumPy, torch, torchvision and timm; the versions that wrote the committed values are in
fixtures/augment/VERSIONS.txt. Every value comes from those libraries, none from the code under test.

cases.txt has one case per line: the operation, its arguments, the filter, the fill colour, the source and
the CRC-32 of the result's bytes. Results are whole pictures; a few are stored as well (*.png), to look at.
jpeg.txt has the CRC-32 of Pillow's pixels of each *.jpg.
"""

import random
import zlib
from pathlib import Path

import numpy as np
import PIL
import timm
import torch
import torchvision
import torchvision.transforms.functional as F
from PIL import Image, ImageEnhance, ImageOps
from timm.data import auto_augment as timm_ops
from torchvision.transforms import InterpolationMode, autoaugment

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "fixtures" / "augment"
FILTERS = {name: Image.Resampling[name.upper()] for name in ("nearest", "bilinear", "bicubic")}
GREY = (128, 128, 128)


def sources():
    """Two photographs and pictures at the edges: flat, two levels, tiny, dark."""
    photo = lambda name, box: Image.open(ROOT / "assets" / name).convert("RGB").crop(box)
    noise = np.random.default_rng(5)
    return {
        "chelsea": photo("chelsea.jpg", (110, 40, 270, 160)),
        "coffee": photo("coffee.jpg", (190, 60, 287, 191)),
        "flat": Image.new("RGB", (9, 7), (200, 17, 90)),
        "two": Image.fromarray((noise.integers(0, 2, (8, 11, 3)) * 180 + 3).astype(np.uint8)),
        "tiny": Image.fromarray(noise.integers(0, 256, (2, 5, 3)).astype(np.uint8)),
        "dark": Image.fromarray(noise.integers(0, 40, (30, 41, 3)).astype(np.uint8)),
        "noise": Image.fromarray(noise.integers(0, 256, (64, 64, 3)).astype(np.uint8)),
    }


def hue(image, factor):
    return F.adjust_hue(image, factor)


COLOR = {
    "auto_contrast": (ImageOps.autocontrast, [()]),
    "equalize": (ImageOps.equalize, [()]),
    "invert": (ImageOps.invert, [()]),
    "solarize": (ImageOps.solarize, [(0,), (26,), (128,), (178.5,), (256,)]),
    "solarize_add": (timm_ops.solarize_add, [(33,), (110,)]),
    "posterize": (timm_ops.posterize, [(1,), (4,), (6,), (8,)]),
    "brightness": (F.adjust_brightness, [(0.1,), (0.82,), (1.0,), (1.37,), (1.9,)]),
    "contrast": (F.adjust_contrast, [(0.0,), (0.1,), (0.82,), (1.37,), (1.9,)]),
    "color": (F.adjust_saturation, [(0.0,), (0.1,), (0.82,), (1.37,), (1.9,)]),
    "sharpness": (lambda i, f: ImageEnhance.Sharpness(i).enhance(f), [(0.0,), (0.1,), (0.82,), (1.37,), (1.9,)]),
    "hue": (hue, [(-0.5,), (-0.2,), (-0.03,), (0.1,), (0.33,), (0.5,)]),
}
GEOMETRY = {
    "shear_x": (timm_ops.shear_x, [(-0.3,), (0.15,), (0.27,)]),
    "shear_y": (timm_ops.shear_y, [(-0.3,), (0.12,)]),
    "translate_x": (timm_ops.translate_x_abs, [(-17.0,), (9.45,), (60.75,), (500.0,)]),
    "translate_y": (timm_ops.translate_y_abs, [(-17.0,), (9.45,)]),
    "rotate": (timm_ops.rotate, [(-27.0,), (0.0,), (2.5,), (24.0,), (30.0,)]),
}


def color_cases(images):
    for source, image in images.items():
        for name, (function, arguments) in COLOR.items():
            for args in arguments:
                yield name, args, "-", GREY, source, function(image.copy(), *args)


def geometry_cases(images):
    for source, image in images.items():
        for name, (function, arguments) in GEOMETRY.items():
            for args in arguments:
                for filter_name, resample in FILTERS.items():
                    for fill in (GREY, (124, 116, 104)) if filter_name == "bicubic" else ((0, 0, 0),):
                        result = function(image.copy(), *args, resample=resample, fillcolor=fill)
                        yield name, args, filter_name, fill, source, result


def torchvision_cases(images):
    """torchvision's own operations at the strengths of its policies; our signs of shift and shear are timm's."""
    pairs = {"ShearX": "shear_x", "ShearY": "shear_y", "TranslateX": "translate_x", "TranslateY": "translate_y"}
    pairs |= {"Rotate": "rotate", "Brightness": "brightness", "Color": "color", "Contrast": "contrast"}
    pairs |= {"Sharpness": "sharpness", "Posterize": "posterize", "Solarize": "solarize"}
    image = images["chelsea"]
    for bins, policy in ((31, autoaugment.RandAugment()), (10, autoaugment.AutoAugment())):
        space = policy._augmentation_space(bins, (image.height, image.width))
        for name, ours in pairs.items():
            magnitudes, signed = space[name]
            for level in (3, bins - 1):
                for sign in (1, -1) if signed else (1,):
                    value = float(magnitudes[level]) * sign
                    result = autoaugment._apply_op(image, name, value, InterpolationMode.NEAREST, None)
                    argument = {"Translate": -int(value), "Shear": value}.get(name[:-1], value)
                    if name in ("Brightness", "Color", "Contrast", "Sharpness"):
                        argument = 1.0 + value
                    if name == "Posterize":
                        argument = int(value)
                    yield ours, (argument,), "nearest", (0, 0, 0), "chelsea", result


def crop_cases():
    """torchvision's resized_crop for fixed boxes."""
    image = Image.open(ROOT / "assets" / "chelsea.jpg").convert("RGB")
    image = image.crop((110, 40, 270, 160))
    for top, left, height, width in ((0, 0, 120, 160), (7, 13, 90, 100), (50, 60, 31, 77), (3, 100, 115, 20)):
        for name in FILTERS:
            for side in (56, 96):
                result = F.resized_crop(image, top, left, height, width, [side, side], InterpolationMode(name))
                yield "resized_crop", (left, top, width, height, side), name, GREY, "chelsea", result


def jpeg_files():
    """Ordinary JPEG files of every kind that our own decoder reads, and Pillow's pixels of them."""
    photo = Image.open(ROOT / "assets" / "coffee.jpg").convert("RGB")
    rocket = Image.open(ROOT / "assets" / "rocket.jpg").convert("RGB")
    noise = Image.fromarray(np.random.default_rng(9).integers(0, 256, (45, 53, 3)).astype(np.uint8))
    for subsampling in (0, 1, 2):
        for image, size in ((photo, (131, 97)), (rocket, (64, 48)), (photo, (33, 17)), (rocket, (7, 50))):
            small = image.resize(size, Image.Resampling.LANCZOS)
            quality = 95 if size[0] < 100 else 80
            yield f"{size[0]}x{size[1]}-{subsampling}", small, {"subsampling": subsampling, "quality": quality}
        yield f"noise-{subsampling}", noise, {"subsampling": subsampling, "quality": 97}
    small = photo.resize((90, 70), Image.Resampling.LANCZOS)
    yield "restart", small, {"subsampling": 2, "restart_marker_blocks": 3}
    yield "restart-rows", small, {"subsampling": 1, "restart_marker_rows": 1}
    yield "optimized", small, {"subsampling": 2, "optimize": True}
    yield "low", small, {"subsampling": 2, "quality": 5}
    yield "grey", small.convert("L"), {"quality": 88}
    yield "exif-6", small, {"subsampling": 2, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"}


def write_jpeg_files():
    lines = ["# file crc32 of Pillow's RGB pixels, upright"]
    for name, image, options in jpeg_files():
        path = OUT / f"{name}.jpg"
        image.save(path, "JPEG", **options)
        pixels = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
        lines.append(f"{path.name} {zlib.crc32(pixels.tobytes()):08x}")
    (OUT / "jpeg.txt").write_text("\n".join(lines) + "\n")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for old in OUT.glob("*"):
        old.unlink()
    write_jpeg_files()
    random.seed(0)
    images = sources()
    for name, image in images.items():
        image.save(OUT / f"{name}.png", optimize=True)
    lines = ["# operation arguments filter fill source crc32"]
    cases = [*color_cases(images), *geometry_cases(images), *torchvision_cases(images), *crop_cases()]
    for name, args, filter_name, fill, source, result in cases:
        numbers = ",".join(repr(float(value)) for value in args) or "-"
        crc = zlib.crc32(np.asarray(result.convert("RGB")).tobytes())
        lines.append(f"{name} {numbers} {filter_name} {','.join(map(str, fill))} {source} {crc:08x}")
    (OUT / "cases.txt").write_text("\n".join(lines) + "\n")
    ImageEnhance.Sharpness(images["coffee"]).enhance(1.9).save(OUT / "sharpness-1.9-coffee.png", optimize=True)
    rotated = images["coffee"].rotate(24, Image.Resampling.BICUBIC, fillcolor=GREY)
    rotated.save(OUT / "rotate-24-coffee.png", optimize=True)
    modules = (PIL, np, torch, torchvision, timm)
    names = ("Pillow", "numpy", "torch", "torchvision", "timm")
    versions = [f"{name} {module.__version__.split('+')[0]}" for name, module in zip(names, modules)]
    (OUT / "VERSIONS.txt").write_text("\n".join(versions) + "\n")
    print(len(cases), "cases", sum(path.stat().st_size for path in OUT.glob("*")), "bytes")


if __name__ == "__main__":
    main()
