"""Legend above the panels of a page: rows of entries that fit its width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.artist import Artist
from matplotlib.figure import Figure

from pai_bench.analysis.figures.text import height, widest, wrapped
from pai_bench.analysis.figures.venues import SMALL

EDGE, PAD = 0.03, 0.04
"""Margin of the page, and space between a text and its panel or axis, in inches."""
_HANDLE, _LETTER = 0.30, SMALL / 72
"""Length of a line in the legend, and its font size, in inches."""

Handle = Artist | tuple[Artist, ...]
"""Symbol of an entry of the legend; several artists are drawn over each other."""


@dataclass(frozen=True)
class Entry:
    """An entry of the legend."""

    label: str
    handle: Handle


def draw_legend(figure: Figure, entries: Sequence[Entry], inches: float) -> float:
    """Draw the legend above the panels, in as few rows as fit the width, and return its height in inches."""
    if not entries:
        return 0.0
    room = inches - 2 * EDGE
    before, between = _HANDLE + 0.05, 0.15
    labels = [wrapped(entry.label, room - before, SMALL) for entry in entries]
    wide = [before + widest([label], SMALL) + between for label in labels]
    least = _filled(wide, room + between)
    # Rows of equal length rather than a long one and a short one.
    limit = min((w for w in (room * part / 20 for part in range(6, 21)) if len(_filled(wide, w)) == len(least)),
                default=room) + between  # fmt: skip
    top = EDGE
    for row in _filled(wide, limit) if len(_filled(wide, limit)) == len(least) else least:
        handles: list[Any] = [entries[i].handle for i in row]
        legend = figure.legend(
            handles,
            [labels[i] for i in row],
            loc="upper center",
            bbox_to_anchor=(0.5, 1.0),
            ncols=len(row),
            handlelength=_HANDLE / _LETTER,
            handletextpad=0.05 / _LETTER,
            columnspacing=between / _LETTER,
            borderpad=0.0,
            borderaxespad=top / _LETTER,
        )
        for text in legend.get_texts():
            text.set_linespacing(1.05)
        top += max(height(labels[i], SMALL) for i in row) + 0.03
    return top + PAD


def _filled(wide: Sequence[float], room: float) -> list[list[int]]:
    """Return rows of entries with these widths that fit `room`, in order."""
    rows: list[list[int]] = []
    used = math.inf
    for index, width in enumerate(wide):
        if used + width > room:
            rows.append([])
            used = 0.0
        rows[-1].append(index)
        used += width
    return rows
