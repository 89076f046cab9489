"""Widths, fonts and sizes of figures by venue, in inches and points as printed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pai_bench.errors import unknown


@dataclass(frozen=True)
class Venue:
    """Text area of a venue's template, in inches."""

    full: float
    """Width of the text."""
    column: float
    """Width of a column; where the text has one column, half of it, for two figures side by side."""
    height: float
    """Height of the text."""


POINT = 1 / 72.27
"""A TeX point in inches."""

# \textwidth, \columnwidth and \textheight of the LaTeX templates.
VENUES = {
    "neurips": Venue(397.48 * POINT, 2.7, 9.0),
    "iclr": Venue(397.48 * POINT, 2.7, 9.0),
    "icml": Venue(487.82 * POINT, 234.88 * POINT, 9.0),
    "ieee": Venue(516.0 * POINT, 252.0 * POINT, 9.1),
    "iccv": Venue(496.86 * POINT, 237.13 * POINT, 8.875),
}
WIDTHS = ("full", "column")

SMALL, NORMAL, TITLE = 7.0, 8.0, 8.5
"""Sizes of tick labels and legends, of axis labels, and of titles, in points."""

FAMILIES = ("STIXGeneral", "DejaVu Sans")
"""Fonts that matplotlib includes: Times, which all these templates use, then a font with more characters."""

INK, GREY, GRID = "#222222", "#777777", "#E4E4E4"

RC: dict[Any, Any] = {
    "pdf.fonttype": 42,  # TrueType: editors and publishers refuse Type 3
    "ps.fonttype": 42,
    "font.family": list(FAMILIES),
    "font.size": NORMAL,
    "axes.titlesize": TITLE,
    "axes.labelsize": NORMAL,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.major.size": 2.2,
    "ytick.major.size": 2.2,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.pad": 2.0,
    "ytick.major.pad": 2.0,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.4,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "savefig.dpi": 300,
    "text.hinting": "none",  # widths of text as in the PDF
    "text.parse_math": False,  # a name may contain a dollar sign
}


def venue(name: str) -> Venue:
    """Return a venue by name.

    Raises: PaiBenchError for an unknown name.
    """
    if name not in VENUES:
        raise unknown("venue", name, VENUES)
    return VENUES[name]
