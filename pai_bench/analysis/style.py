"""How a method looks: the same colour, marker and line in every figure, to be told apart in grey too."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

from matplotlib.colors import to_hex, to_rgb

from pai_bench.cells import CONTROLS, MethodSpec
from pai_bench.errors import PaiBenchError

Dashes = str | tuple[int, tuple[float, ...]]
Order = tuple[str, tuple[tuple[str, bool, float, str], ...], int, str]


@dataclass(frozen=True)
class Style:
    """Colour, marker, line and filling of a series, as matplotlib takes them."""

    color: str
    marker: str
    line: Dashes
    fill: str = "full"


# What looks alike at 4 points is left out: octagons and hexagons (o), the other kinds of dashes.
_MARKERS = ("o", "s", "^", "P", "D", "v", "*", ">", "p", "<", "X", "d")
_LINES: tuple[Dashes, ...] = ("-", "--", "-.", (0, (1, 1)), (0, (4, 1, 1, 1, 1, 1)), (0, (7, 1.5)))
_PAIRS = [(_MARKERS[i % 12], _LINES[(i + i // 12) % 6]) for i in range(72)]
"""Marker and line step together, so that neighbours share neither."""

# Okabe and Ito's palette and what differs enough from it for colour-blind eyes too (tests/unit/test_figures.py);
# controls in grey and black.
KNOWN = {
    "random": Style("#999999", "v", (0, (1, 1))),
    "uniform": Style("#777777", "^", (0, (4, 1, 1, 1, 1, 1))),
    "erk": Style("#000000", "D", "-"),
    "magnitude": Style("#E69F00", "s", "--"),
    "snip": Style("#0072B2", "o", "-"),
    "grasp": Style("#009E73", "P", "-."),
    "synflow": Style("#56B4E9", "p", (0, (7, 1.5))),
    "prospr": Style("#D55E00", "*", "-"),
    "iterative-snip": Style("#110099", ">", "--"),
    "force": Style("#553300", "<", "-."),
    "ntk-sap": Style("#7766FF", "X", (0, (4, 1, 1, 1, 1, 1))),
    "px": Style("#99CC77", "d", (0, (7, 1.5))),
}
_COLORS = ("#660055", "#FF1177", "#0000FF", "#886633", "#FF99CC", "#991122")
_SHADES = (0.0, 0.4, -0.4)
"""What a method's variants are mixed with, in turn: nothing, white, black."""

_FILLS = ("full", "left", "bottom", "right", "top")
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
DENSE_LOOK = Style("#555555", "_", (0, (6, 2)))
_DENSE_LINES: tuple[Dashes, ...] = (DENSE_LOOK.line, (0, (2, 2)), (0, (6, 2, 1, 2)), (0, (1, 3)))


def by_value(method: str) -> Order:
    """A key that sorts prospr:steps=2 before prospr:steps=10, and a method before its variants and controls."""
    spec = _spec(method)
    if spec is None:
        return method, (), 0, method
    values = (
        (key, isinstance(value, str), 0.0 if isinstance(value, str) else float(value), str(value))
        for key, value in spec.hyperparameters
    )
    return spec.name, tuple(values), CONTROLS.index(spec.control) + 1 if spec.control else 0, method


def styles(methods: Iterable[str]) -> dict[str, Style]:
    """A style for each method spec, in the order of `by_value`.

    A name that is not in KNOWN gets the style that its own text picks, or the next free one. The variants of a method
    (prospr:steps=10) have its colour, lighter and darker in turn, and markers and lines of their own.
    """
    ordered = sorted(set(methods), key=by_value)
    bases = dict(KNOWN)
    for name in sorted({_base(method) for method in ordered} - set(KNOWN)):
        bases[name] = _picked(name, list(bases.values()))
    taken = {(look.marker, look.line) for look in bases.values()}
    found: dict[str, Style] = {}
    nth: Counter[str] = Counter()
    for method in ordered:
        base = bases[_base(method)]
        if method == _base(method):
            found[method] = base
            continue
        start = _PAIRS.index((base.marker, base.line)) + 1
        pair = next((pair for pair in _PAIRS[start:] + _PAIRS[:start] if pair not in taken), _PAIRS[start % 72])
        taken.add(pair)
        found[method] = Style(_shade(base.color, _SHADES[nth[_base(method)] % 3]), *pair)
        nth[_base(method)] += 1
    return found


def from_source(look: Style, place: int) -> Style:
    """The same method in the results of the first (0), second or another source: other line, half-filled marker."""
    if look.marker == DENSE_LOOK.marker:
        return replace(look, line=_DENSE_LINES[place % len(_DENSE_LINES)])
    line = _LINES[(_LINES.index(look.line) + place) % len(_LINES)]
    return replace(look, line=line, fill=_FILLS[place % len(_FILLS)])


def _picked(name: str, others: list[Style]) -> Style:
    start = int(hashlib.sha256(name.encode()).hexdigest(), 16) % len(_COLORS)
    known = {(look.marker, look.line) for look in KNOWN.values()}
    free = [pair for pair in _PAIRS if pair not in known]
    # Every colour once before any comes again.
    candidates = [
        Style(color, *free[turn + i])
        for turn in range(0, len(free), len(_COLORS))
        for i, color in [*enumerate(_COLORS)][start:] + [*enumerate(_COLORS)][:start]
    ]
    return next((style for style in candidates if style not in others), candidates[0])


@cache
def _spec(method: str) -> MethodSpec | None:
    """A method's spec; tables may have names that are none."""
    try:
        return MethodSpec.parse(method)
    except PaiBenchError:
        return None


def _base(method: str) -> str:
    spec = _spec(method)
    return method if spec is None else spec.name


def _shade(color: str, amount: float) -> str:
    """Mixed with so much white, or black when negative."""
    end = 1.0 if amount > 0 else 0.0
    red, green, blue = (part + (end - part) * abs(amount) for part in to_rgb(color))
    return to_hex((red, green, blue)).upper()
