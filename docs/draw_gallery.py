"""Draw the figures of docs/gallery.md with the commands that the page lists: python docs/draw_gallery.py.

The sweep on digits takes about two minutes on two cores; its cells are kept in build/gallery.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).parent
BUILD = DOCS.parent / "build" / "gallery"
WIDTH = 1100
"""Width of a picture on the page in pixels: 200 dpi at 5.5 inches."""

SYNFLOW = ["--from", str(DOCS / "gallery" / "synflow.csv"), "--baseline", "snip"]
DIGITS = ["--methods", "erk,snip,synflow", "--controls", "shuffle,reinit,invert", "--sparsities", "0.9,0.95,0.98"]
PUBLISHED = ["--from", str(DOCS / "gallery" / "vgg16-last-epoch.csv")]
PUBLISHED += ["--published", str(DOCS / "gallery" / "vgg16-best-epoch.csv"), "--baseline", "random"]
SHOWN = {
    "synflow": ("accuracy", "difference-to-dense", "failures", "summary"),
    "published": ("accuracy",),
    "digits": ("controls", "layers", "cost", "baseline"),
}
"""Figures of each report that the page shows."""


def pai_bench(*arguments: str) -> None:
    """Run a command of pai-bench."""
    subprocess.run([sys.executable, "-m", "pai_bench", *arguments], check=True)


def copy_figure(source: Path, target: Path) -> None:
    """Copy a figure as a small PNG file."""
    with Image.open(source) as image:
        height = round(image.height * WIDTH / image.width)
        small = image.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS)
        # The default method merges rare colours, so that a method would have different ones in two figures.
        method = Image.Quantize.MAXCOVERAGE
        small.quantize(256, method, kmeans=3, dither=Image.Dither.NONE).save(target, optimize=True)


def main() -> None:
    """Run the sweep and the reports, and copy the figures as small PNG files."""
    digits = str(BUILD / "digits-results")
    pai_bench("report", *SYNFLOW, "--results", str(BUILD / "none"), "--out", str(BUILD / "synflow"))
    pai_bench("report", *PUBLISHED, "--results", str(BUILD / "none"), "--out", str(BUILD / "published"))
    pai_bench("sweep", "--datasets", "digits", *DIGITS, "--seeds", "0-2", "--where", "local", "--results", digits)
    pai_bench("report", "--results", digits, "--out", str(BUILD / "digits"))
    for name, figures in SHOWN.items():
        for figure in figures:
            copy_figure(BUILD / name / f"{figure}.png", DOCS / "gallery" / f"{name}-{figure}.png")


if __name__ == "__main__":
    main()
