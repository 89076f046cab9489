"""Widths of texts that LaTeX sets, estimated so that tables can be divided before TeX sees them."""

from __future__ import annotations

import re
from functools import cache

from pai_bench.analysis.latex_text import escape

SIZE, SMALL = 8.0, 7.0
"""Font sizes of entries and of their deviations, in points."""

_WIDTHS = {
    0.295: "!',.:;<>_`il[]",
    0.325: "fj",
    0.354: "- ",
    0.413: "()rt",
    0.472: "ces",
    0.531: '"$*/^agoz0123456789~{}|\\',
    0.59: "bdhknpquvxyIJS?",
    0.72: "EFLPZ",
    0.81: "ABCDHKNRTUVXYw",
    0.834: "&+=GOQ@±≈−",
    0.89: "#%m",
    0.98: "M",
    1.1: "W",
}
"""Widths of characters in units of the font size: Computer Modern at 8 pt (cmr8.tfm), wider than the venues' Times."""
_CHARACTERS = {character: width for width, characters in _WIDTHS.items() for character in characters}
BOLD, SMALL_RATIO = 1.16, 1.07
"""Ratios of the widths of bold and regular characters, and of characters at 7 and 8 pt relative to the size."""


def text_width(text: str, size: float = SIZE) -> float:
    """Return an upper estimate of the width of a plain text in points."""
    return size * _ems(text)


@cache
def _ems(text: str) -> float:
    plain = text if text.isascii() else "".join(map(_printed, text))
    return sum(_CHARACTERS.get(character, 0.85) for character in plain)


def _printed(character: str) -> str:
    """Return characters of about the width that a character has in LaTeX, where it may be transliterated."""
    if character in _CHARACTERS:
        return character
    return re.sub(r"\\[a-zA-Z]+ ?|[{}$\\]", "", escape(character)) or "m"
