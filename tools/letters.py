#!/usr/bin/env python3
"""The letters of the pictures that `cardinal explain` writes: assets/letters.png.

DejaVu Sans at 14 pixels, white on black, 8-bit grey: ASCII from the space on, Latin-1 from U+00A0 on, and the ellipsis,
16 cells to a row. A cell is 16 x 20 pixels; its first pixel's grey level is the letter's advance in pixels, the letter
itself begins in the second row.

Usage: letters.py [--font DejaVuSans.ttf] [--out assets/letters.png]
"""
import argparse

from PIL import Image, ImageDraw, ImageFont

LETTERS = [*range(0x20, 0x7F), *range(0xA0, 0x100), 0x2026]
WIDTH, HEIGHT, COLUMNS = 16, 20, 16


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--font", default="DejaVuSans.ttf")
    p.add_argument("--out", default="assets/letters.png")
    a = p.parse_args()
    font = ImageFont.truetype(a.font, 14)
    rows = -(-len(LETTERS) // COLUMNS)
    sheet = Image.new("L", (COLUMNS * WIDTH, rows * HEIGHT))
    for place, code in enumerate(LETTERS):
        cell = Image.new("L", (WIDTH, HEIGHT))
        # The soft hyphen has no picture of its own in text.
        letter = "-" if code == 0xAD else chr(code)
        ImageDraw.Draw(cell).text((1, 2), letter, fill=255, font=font)
        assert all(value == 0 for value in cell.crop((0, 0, WIDTH, 1)).tobytes()), letter
        cell.putpixel((0, 0), round(font.getlength(letter)))
        sheet.paste(cell, (place % COLUMNS * WIDTH, place // COLUMNS * HEIGHT))
    sheet.save(a.out, optimize=True)


if __name__ == "__main__":
    main()
