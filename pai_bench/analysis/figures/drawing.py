"""A finished figure with its caption and numbers, and its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from pai_bench.analysis.figures.layout import style

_FORMATS: dict[str, dict[str, Any]] = {
    ".pdf": {"metadata": {"CreationDate": None}},  # so that the same results give the same bytes
    ".png": {"pil_kwargs": {"compress_level": 3}},  # a third of the time of level 6, and a tenth larger
}
"""Arguments of `savefig` by format."""


@dataclass(frozen=True)
class Drawing:
    """A figure of one or more pages."""

    name: str
    """Stem of its files."""
    title: str
    pages: tuple[Figure, ...]
    caption: str
    table: pd.DataFrame
    """The numbers behind the figure."""

    def stems(self) -> list[str]:
        """Return the stems of the pages: name, name-2, name-3, ..."""
        return [self.name if i == 0 else f"{self.name}-{i + 1}" for i in range(len(self.pages))]


def save(drawing: Drawing, folder: Path) -> list[Path]:
    """Write all pages of a drawing as PDF and PNG (300 dpi), and its numbers as CSV; return the paths."""
    paths = []
    with style():
        for stem, figure in zip(drawing.stems(), drawing.pages, strict=True):
            for suffix, settings in _FORMATS.items():
                paths.append(folder / f"{stem}{suffix}")
                figure.savefig(paths[-1], **settings)
    paths.append(folder / f"{drawing.name}-points.csv")
    drawing.table.to_csv(paths[-1], index=False)
    return paths
