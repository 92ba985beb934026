"""Writes the golden values that crates/data is tested against: fixtures/preprocess.

    python tools/preprocess_fixtures.py              # the fixtures
    python tools/preprocess_fixtures.py --large DIR  # more and larger cases, for a measurement:
    CARDINAL_PREPROCESS_FIXTURES=DIR cargo test -p cardinal-data --release --test golden -- --nocapture

Needs Pillow, NumPy, torch, torchvision, timm and scikit-image (for its photographs); the versions that
wrote the committed values are in fixtures/preprocess/VERSIONS.txt. Every value comes from those
libraries, none from the code under test. Each folder has a manifest, one case per line.
"""

import argparse
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL
import skimage
import timm
import torch
import torchvision
import torchvision.transforms.functional as F
from PIL import Image, ImageFile, ImageOps
from skimage import data as photos
from timm.data import create_transform
from torchvision.transforms import InterpolationMode

ROOT = Path(__file__).resolve().parent.parent
FILTERS = {name: Image.Resampling[name.upper()] for name in ("nearest", "bilinear", "bicubic", "lanczos")}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def png(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "PNG", optimize=True)


def manifest(path, head, rows):
    lines = [f"# {head}"] + [" ".join(str(value) for value in row) for row in rows]
    path.write_text("\n".join(lines) + "\n")


# --- resize: PIL's Image.resize, checked to be torchvision's F.resize where that can express it


def resize_cases(out, sources, cases):
    rows = []
    for number, (source, width, height, name, box) in enumerate(cases):
        image = sources[source]
        result = image.resize((width, height), FILTERS[name], box)
        if box is None and name != "lanczos":
            other = F.resize(image, [height, width], InterpolationMode(name), antialias=True)
            assert np.array_equal(np.asarray(result), np.asarray(other))
        file = f"{number:02}-{source}-{width}x{height}-{name}.png"
        png(out / "resize" / file, result)
        left, top, right, bottom = box or (0, 0, *image.size)
        rows.append((f"{source}.png", width, height, name, left, top, right - left, bottom - top, file))
    head = "source width height filter box-left box-top box-width box-height expected"
    manifest(out / "resize" / "cases.txt", head, rows)


# --- transform: timm's evaluation transform up to the 8-bit crop, and one of them normalised


def transform(size, crop_pct, mode, name, normalize):
    return create_transform(
        input_size=(3, *size), is_training=False, interpolation=name, mean=MEAN, std=STD,
        crop_pct=crop_pct, crop_mode=mode, normalize=normalize,
    )  # fmt: skip


def transform_cases(out, sources, cases):
    rows = []
    for number, (source, size, crop_pct, mode, name) in enumerate(cases):
        crop = transform(size, crop_pct, mode, name, normalize=False)(sources[source])
        file = f"{number:02}-{source}-{mode}.png"
        png(out / "transform" / file, Image.fromarray(crop.permute(1, 2, 0).numpy()))
        rows.append((f"{source}.png", *size, crop_pct, mode, name, file))
    head = "source height width crop_pct mode filter expected"
    manifest(out / "transform" / "cases.txt", head, rows)


def normalized_case(out, sources):
    """96 x 96 values after mean and std: small, and bit for bit a matter of arithmetic alone."""
    tensor = transform((96, 96), 0.95, "center", "bicubic", normalize=True)(sources["chelsea"])
    np.save(out / "transform" / "chelsea-96-normalized.npy", tensor.numpy().astype("<f4"))


# --- geometry: the sizes and offsets alone, recorded from the calls that timm makes


class Recorder:
    """Stands in for torchvision's pad, crop and resize while a transform runs on a blank image."""

    def __enter__(self):
        self.saved = {name: getattr(F, name) for name in ("pad", "crop", "resize")}
        self.pad_left = self.pad_top = self.left = self.top = 0
        self.resized = None

        def resize(image, size, *args, **kwargs):
            h, w = image.size[::-1]
            size = F._compute_resized_output_size((h, w), [size] if isinstance(size, int) else size)
            self.resized = tuple(size)
            return Image.new("L", (size[1], size[0]))

        def pad(image, padding, *args, **kwargs):
            self.pad_left, self.pad_top = padding[0], padding[1]
            return Image.new("L", (image.width + padding[0] + padding[2], image.height + padding[1] + padding[3]))

        def crop(image, top, left, height, width):
            self.top, self.left = top, left
            return Image.new("L", (width, height))

        F.resize, F.pad, F.crop = resize, pad, crop
        return self

    def __exit__(self, *_):
        for name, function in self.saved.items():
            setattr(F, name, function)


def from_file_case(out):
    """The whole way from a file of assets/: what Pillow decodes and timm crops."""
    crop = transform((128, 128), 0.95, "center", "bicubic", normalize=False)(reference(ROOT / "assets" / "rocket.jpg"))
    png(out / "transform" / "rocket-jpg-128.png", Image.fromarray(crop.permute(1, 2, 0).numpy()))


def geometry_cases(out):
    rows = []
    images = [(500, 375), (375, 500), (451, 300), (640, 427), (1000, 999), (224, 224), (256, 256), (97, 1024),
              (33, 20), (3000, 17), (4032, 3024), (333, 500), (501, 334), (640, 359)]  # fmt: skip
    settings = [((224, 224), 0.875), ((224, 224), 0.95), ((320, 320), 0.909), ((448, 448), 1.0), ((288, 288), 0.9),
                ((224, 224), 0.8), ((176, 176), 0.965), ((160, 288), 0.875), ((288, 160), 0.95), ((256, 192), 1.0),
                ((225, 225), 0.875), ((101, 67), 0.9)]  # fmt: skip
    for width, height in images:
        for size, crop_pct in settings:
            for mode in ("center", "squash", "border"):
                made = transform(size, crop_pct, mode, "bilinear", normalize=False)
                stages = made.transforms[:-1]
                with Recorder() as seen:
                    image = Image.new("L", (width, height))
                    for stage in stages:
                        image = stage(image)
                assert image.size == size[::-1]
                top, left = seen.top - seen.pad_top, seen.left - seen.pad_left
                if 0 in seen.resized:
                    continue  # Pillow refuses an empty image; the code under test makes it one pixel
                rows.append((width, height, *size, crop_pct, mode, *seen.resized, top, left))
    head = "image-width image-height height width crop_pct mode resized-height resized-width top left"
    manifest(out / "geometry.txt", head, rows)


# --- decode: files in odd formats, with what Pillow makes of them


def reference(file):
    return ImageOps.exif_transpose(Image.open(file)).convert("RGB")


def raw_png(array, color_type, extra=b""):
    """A 16-bit PNG; Pillow writes none with colour."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = array.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array.reshape(height, -1))
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def bmp(width, height, bits, compression, tail, data):
    """A bitmap of a kind that Pillow does not write."""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0, 0, 0)
    offset = 14 + 40 + len(tail)
    return b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + info + tail + data


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def jpeg_files(image, files):
    for orientation in range(1, 9):
        files[f"exif-{orientation}.jpg"] = encoded(image, "JPEG", quality=92, exif=exif(orientation))
    for name, subsampling in (("444", 0), ("422", 1), ("420", 2)):
        files[f"baseline-{name}.jpg"] = encoded(image, "JPEG", quality=85, subsampling=subsampling)
        files[f"progressive-{name}.jpg"] = encoded(
            image, "JPEG", quality=85, subsampling=subsampling, progressive=True
        )
    files["restart.jpg"] = encoded(image, "JPEG", quality=85, restart_marker_blocks=2)
    files["rgb.jpg"] = encoded(image, "JPEG", quality=90, keep_rgb=True)
    files["grey.jpg"] = encoded(image.convert("L"), "JPEG", quality=90)
    files["grey-progressive.jpg"] = encoded(image.convert("L"), "JPEG", quality=90, progressive=True)
    cmyk = encoded(image.convert("CMYK"), "JPEG", quality=92)
    files["cmyk.jpg"] = cmyk
    # The same bytes declared as YCCK: other colours, but any decoder has to agree on which.
    adobe = cmyk.index(b"Adobe")
    assert cmyk[adobe + 11] == 0
    files["ycck.jpg"] = cmyk[: adobe + 11] + b"\x02" + cmyk[adobe + 12 :]


def png_files(image, files, expected):
    rgba = image.convert("RGBA")
    ramp = np.linspace(0, 255, image.width, dtype=np.uint8)[None].repeat(image.height, 0)
    rgba.putalpha(Image.fromarray(ramp))
    palette = image.quantize(16)
    files["palette-transparent.png"] = encoded(palette, "PNG", transparency=3)
    files["palette-alpha.png"] = encoded(palette, "PNG", transparency=bytes(range(0, 256, 16)))
    files["rgba.png"] = encoded(rgba, "PNG")
    files["grey-alpha.png"] = encoded(rgba.convert("LA"), "PNG")
    files["rgb-transparent.png"] = encoded(image, "PNG", transparency=image.getpixel((3, 3)))
    files["1-bit.png"] = encoded(image.convert("1"), "PNG")
    files["exif-6.png"] = encoded(image, "PNG", exif=exif(6))
    rng = np.random.default_rng(0)
    for name, channels, color_type in (("grey", 1, 0), ("rgb", 3, 2), ("grey-alpha", 2, 4), ("rgba", 4, 6)):
        values = rng.integers(0, 1 << 16, (12, 20, channels), dtype=np.uint16)
        files[f"16-bit-{name}.png"] = raw_png(values, color_type)
        if channels <= 2:
            # Pillow clips 16-bit grey at 255; the high byte is taken instead, on purpose.
            high = (values[..., :1] >> 8).astype(np.uint8).repeat(3, 2)
            expected[f"16-bit-{name}.png"] = Image.fromarray(high)
    second = ImageOps.invert(image)
    files["animated.png"] = encoded(image, "PNG", save_all=True, append_images=[second])


def gif_files(image, files):
    second = ImageOps.invert(image)
    files["animated.gif"] = encoded(image, "GIF", save_all=True, append_images=[second], duration=50)
    files["transparent.gif"] = encoded(image.quantize(32), "GIF", transparency=5)
    files["interlaced.gif"] = encoded(image.quantize(32), "GIF", interlace=1)
    files["grey.gif"] = encoded(image.convert("L"), "GIF")
    # The frame stays as it is in the corner of a larger canvas.
    width, height = image.size
    for name in ("transparent", "animated"):
        plain = files[f"{name}.gif"]
        files[f"canvas-{name}.gif"] = plain[:6] + struct.pack("<HH", width + 9, height + 5) + plain[10:]


def webp_files(image, files):
    second = ImageOps.invert(image)
    files["lossy.webp"] = encoded(image, "WEBP", quality=85)
    files["lossless.webp"] = encoded(image, "WEBP", lossless=True)
    rgba = image.convert("RGBA")
    rgba.putalpha(200)
    files["lossy-alpha.webp"] = encoded(rgba, "WEBP", quality=85)
    files["lossless-alpha.webp"] = encoded(rgba, "WEBP", lossless=True, exact=True)
    files["animated.webp"] = encoded(image, "WEBP", save_all=True, append_images=[second], lossless=True)
    files["exif-8.webp"] = encoded(image, "WEBP", lossless=True, exif=exif(8))


def bmp_files(image, files):
    files["24-bit.bmp"] = encoded(image, "BMP")
    files["32-bit.bmp"] = encoded(image.convert("RGBA"), "BMP")
    files["8-bit.bmp"] = encoded(image.quantize(64), "BMP")
    files["grey.bmp"] = encoded(image.convert("L"), "BMP")
    files["1-bit.bmp"] = encoded(image.convert("1"), "BMP")
    rng = np.random.default_rng(1)
    values = rng.integers(0, 1 << 16, (7, 10), dtype=np.uint16).astype("<u2").tobytes()
    files["555.bmp"] = bmp(10, 7, 16, 0, b"", values)
    files["565.bmp"] = bmp(10, 7, 16, 3, struct.pack("<III", 0xF800, 0x7E0, 0x1F), values)
    wide = rng.integers(0, 256, (7, 10, 4), dtype=np.uint8).tobytes()
    files["bit-fields-top-down.bmp"] = bmp(
        10, -7, 32, 3, struct.pack("<III", 0xFF000000, 0xFF0000, 0xFF00), wide
    )
    table = rng.integers(0, 256, (256, 4), dtype=np.uint8).tobytes()
    # 6 x 3: a run, a literal with padding, end of row; a short row; a run over two colours.
    rle8 = bytes([3, 9, 0, 3, 1, 2, 3, 0, 0, 0, 4, 7, 0, 0, 6, 200, 0, 1])
    files["rle8.bmp"] = bmp(6, 3, 8, 1, table, rle8)
    rle4 = bytes([5, 0x12, 0, 0, 0, 5, 0x34, 0x56, 0x70, 0, 0, 0, 6, 0x9A, 0, 1])
    files["rle4.bmp"] = bmp(6, 3, 4, 2, table[:64], rle4)


def decode_cases(out):
    small = Image.fromarray(photos.coffee()).resize((53, 37), Image.Resampling.LANCZOS)
    files, expected = {}, {}
    jpeg_files(small, files)
    png_files(small, files, expected)
    gif_files(small, files)
    webp_files(small, files)
    bmp_files(small, files)
    folder = out / "decode"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, content in files.items():
        (folder / name).write_bytes(content)
        png(folder / "expected" / f"{name}.png", expected.get(name) or reference(folder / name))
        rows.append((name, f"expected/{name}.png"))
    manifest(folder / "cases.txt", "file expected", rows)


# --- what goes where


def small_set(out):
    chelsea = Image.fromarray(photos.chelsea())
    coffee = Image.fromarray(photos.coffee()).crop((180, 60, 331, 293))  # 151 x 233, upright
    sources = {"chelsea": chelsea, "coffee": coffee}
    for name, image in sources.items():
        png(out / f"{name}.png", image)
    resize_cases(out, sources, [
        ("chelsea", 113, 75, "bilinear", None),
        ("chelsea", 113, 75, "bicubic", None),
        ("chelsea", 101, 67, "lanczos", None),
        ("chelsea", 97, 301, "bicubic", None),
        ("chelsea", 47, 31, "nearest", None),
        ("chelsea", 90, 60, "bicubic", (100.5, 20.25, 351.0, 180.75)),
        ("coffee", 160, 247, "bilinear", None),
        ("coffee", 160, 247, "bicubic", None),
        ("coffee", 151, 100, "bicubic", None),
        ("coffee", 60, 233, "bilinear", None),
        ("coffee", 121, 35, "nearest", None),
    ])  # fmt: skip
    transform_cases(out, sources, [
        ("chelsea", (224, 224), 0.875, "center", "bilinear"),
        ("chelsea", (224, 224), 0.95, "center", "bicubic"),
        ("coffee", (160, 160), 0.909, "center", "bicubic"),
        ("chelsea", (160, 160), 1.0, "squash", "bicubic"),
        ("coffee", (128, 128), 1.0, "center", "bilinear"),
        ("chelsea", (96, 176), 0.875, "center", "bicubic"),
        ("coffee", (112, 112), 0.9, "squash", "bilinear"),
        ("chelsea", (128, 128), 1.0, "border", "bicubic"),
        ("coffee", (101, 67), 0.9, "border", "bilinear"),
    ])  # fmt: skip
    normalized_case(out, sources)
    from_file_case(out)
    geometry_cases(out)
    decode_cases(out)


def large_set(out):
    names = ("astronaut", "chelsea", "coffee", "rocket")
    sources = {name: Image.fromarray(getattr(photos, name)()) for name in names}
    for name in ("motorcycle_left.png", "retina.jpg", "hubble_deep_field.jpg", "ihc.png", "text.png"):
        image = Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB")
        sources[Path(name).stem] = image
    # Black and white squares of odd sizes: where overshoot and clamping do most.
    squares = np.kron(np.indices((40, 50)).sum(0) % 2, np.ones((7, 9), int)) * 255
    sources["squares"] = Image.fromarray(squares.astype(np.uint8)).convert("RGB")
    rng = np.random.default_rng(2)
    sources["noise"] = Image.fromarray(rng.integers(0, 256, (311, 407, 3), dtype=np.uint8))
    for name, image in sources.items():
        png(out / f"{name}.png", image)
    sizes = [(256, 256), (224, 341), (99, 77), (640, 480), (1000, 37)]
    resize_cases(out, sources, [
        (source, *size, name, None) for source in sources for size in sizes for name in FILTERS
    ])  # fmt: skip
    settings = [((224, 224), 0.875, "center", "bilinear"), ((224, 224), 0.95, "center", "bicubic"),
                ((320, 320), 0.909, "center", "bicubic"), ((448, 448), 1.0, "squash", "bicubic"),
                ((448, 448), 0.875, "squash", "bilinear"), ((160, 288), 0.9, "center", "bicubic"),
                ((224, 224), 1.0, "border", "bicubic"), ((288, 288), 1.0, "center", "bilinear")]  # fmt: skip
    transform_cases(out, sources, [(source, *setting) for source in sources for setting in settings])
    normalized_case(out, sources)
    from_file_case(out)
    geometry_cases(out)
    decode_cases(out)
    rows = []
    ImageFile.MAXBLOCK = 1 << 24  # noise, progressive, does not fit into the usual buffer
    for source, image in sources.items():
        for quality in (60, 90):
            for subsampling in (0, 1, 2):
                for progressive in (False, True):
                    name = f"{source}-{quality}-{subsampling}-{progressive}.jpg"
                    image.save(out / "decode" / name, quality=quality, subsampling=subsampling, progressive=progressive)
                    rows.append(name)
        image.save(out / "decode" / f"{source}.webp", quality=80)
        rows.append(f"{source}.webp")
    for name in rows:
        png(out / "decode" / "expected" / f"{name}.png", reference(out / "decode" / name))
    with (out / "decode" / "cases.txt").open("a") as file:
        file.writelines(f"{name} expected/{name}.png\n" for name in rows)


# --- assets: made here too, so that their origin is on record


def assets(folder):
    folder.mkdir(exist_ok=True)
    original = Path(skimage.__file__).parent / "data"
    (folder / "rocket.jpg").write_bytes((original / "rocket.jpg").read_bytes())
    for name in ("chelsea", "coffee"):
        Image.open(original / f"{name}.png").convert("RGB").save(folder / f"{name}.jpg", quality=90)
    classes = timm.data.ImageNetInfo("imagenet-1k").label_descriptions()
    assert len(classes) == 1000
    (folder / "imagenet1k.txt").write_text("\n".join(classes) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", type=Path, metavar="DIR", help="write the large set there instead")
    parser.add_argument("--assets", action="store_true", help="write assets/ instead")
    args = parser.parse_args()
    if args.assets:
        assets(ROOT / "assets")
        return
    out = args.large or ROOT / "fixtures" / "preprocess"
    out.mkdir(parents=True, exist_ok=True)
    (large_set if args.large else small_set)(out)
    versions = {"Pillow": PIL, "NumPy": np, "torch": torch, "torchvision": torchvision, "timm": timm, "scikit-image": skimage}
    (out / "VERSIONS.txt").write_text("".join(f"{name} {module.__version__}\n" for name, module in versions.items()))


if __name__ == "__main__":
    main()
