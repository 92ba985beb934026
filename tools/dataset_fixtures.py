"""Writes fixtures/dataset: folders, tar shards and arrays as the Python stack reads or writes them.

    python tools/dataset_fixtures.py          # needs torchvision and scikit-learn

`folders.json`: trees of files, and the classes and samples that torchvision's ImageFolder finds in them.
`ustar.tar`, `gnu.tar`, `pax.tar`: the same samples by Python's tarfile in three formats, with `shard.json`, what
tarfile reads from them. `train-*`: an IDX pair by gzip, with the values torchvision reads in `idx.json`.
`digits.json`: the embedded digits as scikit-learn has them.
"""

import gzip
import io
import json
import random
import struct
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from torchvision.datasets import ImageFolder
from torchvision.datasets.mnist import read_image_file, read_label_file

OUT = Path(__file__).resolve().parent.parent / "fixtures" / "dataset"


def write_json(name: str, value) -> None:
    (OUT / name).write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")


def tree(rng: random.Random) -> list[str]:
    """Paths of a data set, with names that sort differently by different rules."""
    names = ["cat", "Cat2", "cat10", "cat 2", "dog", "Äpfel", "éclair", "z-1", "z_1", "n01440764", "猫", "a.b", "a"]
    paths = set()
    for name in rng.sample(names, rng.randint(2, 6)):
        for _ in range(rng.randint(1, 6)):
            nested = rng.sample(["x", "x-y", "X", "sub.d", "2", "10"], rng.randint(0, 2))
            file = rng.choice(["1", "2", "10", "B", "a", "ü"]) + rng.choice([".jpg", ".JPG", ".png", ".jpeg", ".webp"])
            paths.add("/".join([name, *nested, file]))
        paths.add(f"{name}/notes.txt")
        # ImageFolder refuses a class without an image.
        paths.add(f"{name}/0.bmp")
    return sorted(paths)


def folders() -> None:
    rng = random.Random(0)
    cases = []
    for _ in range(12):
        paths = tree(rng)
        with tempfile.TemporaryDirectory() as root:
            for path in paths:
                file = Path(root, path)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(b"")
            found = ImageFolder(root, loader=str)
            samples = [[str(Path(path).relative_to(root)), label] for path, label in found.samples]
            cases.append({"files": paths, "classes": found.classes, "samples": samples})
    write_json("folders.json", cases)


def shards() -> None:
    long = "deep/" * 30 + "long-" * 10 + "name"
    samples = [("000", ".jpg", ".cls", b"2"), ("dir/001", ".png", ".cls", b"0\n"), (long, ".jpeg", ".cls", b"1"),
               ("003", ".webp", ".cls", b"10"), ("ünï", ".jpg", ".cls", b"2")]
    expected = []
    for name, format in [("ustar", tarfile.USTAR_FORMAT), ("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)]:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
            folder = tarfile.TarInfo("dir")
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
            for number, (key, image, label, text) in enumerate(samples):
                # ustar splits names at 100 + 155 characters, and has ASCII alone.
                rng = random.Random(number)
                for extension, data in [(image, rng.randbytes(number * 700)), (label, text), (".txt", b"a caption")]:
                    info = tarfile.TarInfo(key + extension)
                    info.size, info.mtime = len(data), 1.5 if format == tarfile.PAX_FORMAT else 1
                    tar.addfile(info, io.BytesIO(data))
        (OUT / f"{name}.tar").write_bytes(buffer.getvalue())
    for name in ["ustar", "gnu", "pax"]:
        with tarfile.open(OUT / f"{name}.tar") as tar:
            files = [(member.name, tar.extractfile(member).read()) for member in tar if member.isfile()]
        images = [(n, data) for n, data in files if not n.endswith((".cls", ".txt"))]
        labels = [data.decode().strip() for n, data in files if n.endswith(".cls")]
        expected.append({"file": f"{name}.tar", "names": [n for n, _ in images], "labels": labels,
                         "sizes": [len(data) for _, data in images], "sums": [sum(data) for _, data in images]})
    write_json("shard.json", expected)


def arrays() -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (7, 5, 4), np.uint8), np.array([3, 1, 4, 1, 5, 9, 2], np.uint8)
    for name, array in [("train-images-idx3-ubyte", images), ("train-labels-idx1-ubyte", labels)]:
        header = bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">I", side) for side in array.shape)
        (OUT / f"{name}.gz").write_bytes(gzip.compress(header + array.tobytes(), mtime=0))
        (OUT / name).write_bytes(header + array.tobytes())
    read = read_image_file(str(OUT / "train-images-idx3-ubyte")), read_label_file(str(OUT / "train-labels-idx1-ubyte"))
    write_json("idx.json", {"images": read[0].tolist(), "labels": read[1].tolist()})
    for name in ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"]:
        (OUT / name).unlink()


def digits() -> None:
    data = load_digits()
    held_out = sorted(int(i) for digit in range(10) for i in np.flatnonzero(data.target == digit)[4::5])
    write_json("digits.json", {
        "labels": data.target.tolist(),
        "sums": data.data.sum(1).astype(int).tolist(),
        "first": data.images[0].astype(int).tolist(),
        "held_out": held_out,
    })


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    folders()
    shards()
    arrays()
    digits()
    print(f"{sum(file.stat().st_size for file in OUT.iterdir())} bytes in {OUT}")
