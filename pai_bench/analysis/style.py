"""How a method looks: the same colour, marker and line in every figure, to be told apart in grey too."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Dashes = str | tuple[int, tuple[float, ...]]


@dataclass(frozen=True)
class Style:
    """Colour, marker and line of a series, as matplotlib takes them."""

    color: str
    marker: str
    line: Dashes


# Okabe and Ito's palette, which survives colour blindness; controls in grey and black.
KNOWN = {
    "random": Style("#999999", "v", (0, (1, 1))),
    "uniform": Style("#777777", "^", (0, (4, 1, 1, 1, 1, 1))),
    "erk": Style("#000000", "D", "-"),
    "magnitude": Style("#E69F00", "s", "--"),
    "snip": Style("#0072B2", "o", "-"),
    "grasp": Style("#009E73", "P", "-."),
    "synflow": Style("#56B4E9", "p", (0, (5, 1))),
    "prospr": Style("#D55E00", "*", "-"),
    "force": Style("#CC79A7", "<", "--"),
    "iterative-snip": Style("#004D73", ">", (0, (1, 1))),
    "ntk-sap": Style("#7A3B8F", "d", (0, (3, 1, 1, 1))),
    "px": Style("#5B8C2A", "X", (0, (5, 1))),
}
_COLORS = ("#CC79A7", "#8B6D00", "#004D73", "#7A3B8F", "#5B8C2A", "#A33B20", "#2B7A78", "#B8860B")
_MARKERS = ("h", "<", "1", "d", ">", "X", "2", "s")
"""Neighbours, and those of methods in KNOWN, can be told apart at four points."""
_LINES: tuple[Dashes, ...] = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1)), (0, (3, 1, 1, 1)))
CONTROL_LABELS = {
    None: "as it is",
    "shuffle": "masks shuffled",
    "reinit": "weights drawn anew",
    "invert": "scores inverted",
}
"""What a method (None) and its controls are called beside each other, in this order."""

CONTROL_STYLES = {
    CONTROL_LABELS[None]: Style("#000000", "o", "-"),
    CONTROL_LABELS["shuffle"]: Style("#E69F00", "s", "--"),
    CONTROL_LABELS["reinit"]: Style("#0072B2", "^", "-."),
    CONTROL_LABELS["invert"]: Style("#CC79A7", "v", (0, (1, 1))),
}
DENSE_STYLE: dict[str, Any] = {"color": "#555555", "linestyle": (0, (6, 2)), "linewidth": 0.9}


def styles(methods: Iterable[str]) -> dict[str, Style]:
    """A style for each method spec.

    A name that is not in KNOWN gets the style that its own text picks, or the next free one; the variants of a
    method (prospr:steps=10) keep its colour.
    """
    found: dict[str, Style] = {}
    for method in sorted(methods, key=lambda method: (method not in KNOWN, method)):
        if method in KNOWN:
            found[method] = KNOWN[method]
            continue
        base = method.partition(":")[0]
        start = int(hashlib.sha256(method.encode()).hexdigest(), 16) % len(_COLORS)
        color = KNOWN[base].color if base in KNOWN else None
        candidates = [
            Style(
                color or _COLORS[(start + i) % len(_COLORS)],
                _MARKERS[(start + i) % len(_MARKERS)],
                _LINES[(start + i + shift) % len(_LINES)],
            )
            for shift in range(len(_LINES))
            for i in range(len(_COLORS))
        ]
        # Of one colour, as variants are, neither marker nor line twice, as long as there are enough.
        apart = (style for style in candidates if not any(_confusing(style, other) for other in found.values()))
        other = (style for style in candidates if style not in found.values())
        found[method] = next(itertools.chain(apart, other), KNOWN.get(base, KNOWN["random"]))
    return found


def _confusing(one: Style, other: Style) -> bool:
    return one.color == other.color and (one.marker == other.marker or one.line == other.line)
