#!/usr/bin/env python3
"""Writes fixtures/parity/keys.tsv: for each model of parity.json the number and the FNV-1a-64 digest of its state
dict's sorted lines `name [d0, d1, ...]`, without `num_batches_tracked`.

    pip install torch timm
    python tools/key_digests.py
"""
import json
import pathlib

import timm

FOLDER = pathlib.Path(__file__).parent.parent / "fixtures" / "parity"


def fnv1a64(data: bytes) -> int:
    h = 0xCBF29CE484222325
    for byte in data:
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def main() -> None:
    rows = ["model\tentries\tdigest"]
    for name in json.loads((FOLDER / "parity.json").read_text())["models"]:
        state = timm.create_model(name).state_dict()
        lines = sorted(f"{k} {list(t.shape)}" for k, t in state.items() if not k.endswith("num_batches_tracked"))
        rows.append(f"{name}\t{len(lines)}\t{fnv1a64(chr(10).join(lines).encode()):016x}")
    (FOLDER / "keys.tsv").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
