"""Writes assets/digits.gz, the data set that is embedded in the binary.

    python tools/digits.py

The UCI "Optical Recognition of Handwritten Digits" test set as scikit-learn ships it: 1797 images of 8 x 8
values from 0 to 16, and their digits. The file is two IDX arrays one after the other, images then labels,
compressed by gzip.
"""

import gzip
import struct
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

TARGET = Path(__file__).parent.parent / "assets" / "digits.gz"


def idx(array: np.ndarray) -> bytes:
    """An array of bytes as an IDX file."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">I", side) for side in array.shape)
    return header + array.astype(np.uint8).tobytes()


def main() -> None:
    digits = load_digits()
    images, labels = digits.images, digits.target
    assert images.shape == (1797, 8, 8) and np.array_equal(images, images.astype(np.uint8)) and images.max() == 16
    TARGET.write_bytes(gzip.compress(idx(images) + idx(labels), compresslevel=9, mtime=0))
    print(f"{TARGET}: {TARGET.stat().st_size} bytes, {np.bincount(labels)} images per digit")


if __name__ == "__main__":
    main()
