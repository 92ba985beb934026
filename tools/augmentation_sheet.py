"""Puts the pictures of the example `augmentations` together: docs/augmentation.jpg.

    just augmentation-sheet                          # or
    cargo run --release -p cardinal-data --example augmentations -- assets/chelsea.jpg FOLDER
    python tools/augmentation_sheet.py FOLDER docs/augmentation.jpg

Needs Pillow.
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

COLUMNS, GAP, LABEL = 6, 8, 16


def main():
    files = sorted(Path(sys.argv[1]).glob("*.png"))
    side = Image.open(files[0]).width
    rows = -(-len(files) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (side + GAP) + GAP, rows * (side + LABEL + GAP) + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(11)
    for number, path in enumerate(files):
        row, column = divmod(number, COLUMNS)
        x, y = GAP + column * (side + GAP), GAP + row * (side + LABEL + GAP)
        sheet.paste(Image.open(path), (x, y))
        draw.text((x, y + side + 1), path.stem[3:], "black", font)
    sheet.save(sys.argv[2], quality=85)


if __name__ == "__main__":
    main()
