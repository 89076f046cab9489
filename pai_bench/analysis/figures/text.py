"""Text in figures: its width, line breaks, and characters that the fonts lack."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain

import matplotlib
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.textpath import text_to_path

from pai_bench.analysis.figures.venues import FAMILIES, NORMAL

LINE = 1.2
"""Distance of two lines of text, as a multiple of the font size."""
SHAPES = matplotlib.__version_info__[:2] >= (3, 11)
"""True if matplotlib joins letters and orders them from right to left where a script requires it."""


@cache
def _characters() -> frozenset[int]:
    """Return the code points that the fonts of the figures have."""
    fonts = [get_font(findfont(FontProperties(family=[family]))) for family in FAMILIES]
    return frozenset(chain.from_iterable(font.get_charmap() for font in fonts))


def shown(text: str) -> str:
    """Replace characters that the fonts lack by their code point, such as U+65E5, so that nothing is drawn as a box."""
    # Fonts have composed letters, and not all combining accents.
    composed = unicodedata.normalize("NFC", text)
    return "".join(
        character
        if ord(character) in _characters() or character == "\n"
        else f"U+{ord(character):04X}"
        if character.isprintable()
        else " "
        for character in composed
    )


def unshaped(names: Iterable[str]) -> str:
    """Return a remark if names have letters written from right to left that this matplotlib draws in reverse order."""
    if SHAPES or not any(unicodedata.bidirectional(letter) in ("R", "AL") for name in names for letter in name):
        return ""
    return (
        "figures have names written from right to left with their letters in reverse order and not joined: matplotlib"
        f" {matplotlib.__version__} cannot set them; 3.11 and later can"
    )


@cache
def width(text: str, size: float = NORMAL) -> float:
    """Return the width of a line of text in inches at a font size in points."""
    if not text:
        return 0.0
    font = FontProperties(family=list(FAMILIES), size=size)
    # From the outlines of the glyphs, which is the width in the PDF and needs no renderer.
    return float(text_to_path.get_text_width_height_descent(shown(text), font, ismath=False)[0]) / 72


def widest(texts: Sequence[str], size: float = NORMAL) -> float:
    """Return the width of the widest line of several texts in inches."""
    return max((width(line, size) for text in texts for line in text.split("\n")), default=0.0)


def height(text: str, size: float = NORMAL) -> float:
    """Return the height of a text of one or more lines in inches; an empty text has none."""
    return (text.count("\n") + 1) * LINE * size / 72 if text else 0.0


def wrapped(text: str, room: float, size: float = NORMAL) -> str:
    """Break a text at spaces, +, commas and colons to fit `room` inches.

    Where no such place is left, words are broken after =, - and other punctuation, and then anywhere.
    """
    lines: list[str] = []
    for line in shown(text).split("\n"):
        lines.append("")
        for piece in _pieces(line, room, size):
            if lines[-1] and width((lines[-1] + piece).rstrip(), size) > room:
                lines.append("")
            lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


def _pieces(line: str, room: float, size: float) -> Iterator[str]:
    """Yield parts of a line between which it may be broken; "key = value" is broken only if it does not fit."""
    for phrase in re.split(r"(?<=[,:])|(?<=(?<!=) )(?!= )|(?=\+)", line):
        if width(phrase.rstrip(), size) <= room:
            yield phrase
            continue
        for word in re.split(r"(?<= )", phrase):
            if width(word.rstrip(), size) <= room:
                yield word
                continue
            for part in re.split(r"(?<=[=/_.-])", word):
                yield from [part] if width(part.rstrip(), size) <= room else part
