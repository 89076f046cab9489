"""Styles of methods: the same colour, marker and line in every figure, distinguishable in greyscale, too."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

from pai_bench.cells import CONTROLS, MethodSpec
from pai_bench.errors import PaiBenchError

Dashes = str | tuple[int, tuple[float, ...]]
Order = tuple[str, tuple[tuple[str, bool, float, str], ...], int, str]


@dataclass(frozen=True)
class Style:
    """Colour, marker, line style and marker fill style of a series, as in matplotlib."""

    color: str
    marker: str
    line: Dashes
    fill: str = "full"


# Shapes that look alike at a size of 4 points are excluded: octagons and hexagons (like o), and other dashes.
_MARKERS = ("o", "s", "^", "P", "D", "v", "*", ">", "p", "<", "X", "d")
_LINES: tuple[Dashes, ...] = ("-", "--", "-.", (0, (1, 1)), (0, (4, 1, 1, 1, 1, 1)), (0, (7, 1.5)))
_PAIRS = [(_MARKERS[i % 12], _LINES[(i + i // 12) % 6]) for i in range(72)]
"""Pairs of marker and line style; both change from one pair to the next, so that neighbours share neither."""

# The palette of Okabe and Ito, extended by colours that differ sufficiently under colour vision deficiencies, too
# (checked by tests/unit/test_figures.py); baselines in grey and black.
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
    "er": Style("#220066", "o", "-."),
    "balanced": Style("#2244AA", "s", (0, (1, 1))),
    "igq": Style("#88DDAA", "P", (0, (7, 1.5))),
    "uniform-plus": Style("#000022", "v", "--"),
    "smart-ratio": Style("#6688EE", "*", "-."),
    "iterative-grasp": Style("#0022CC", ">", (0, (1, 1))),
    "synflow-l2": Style("#0088AA", "p", (0, (4, 1, 1, 1, 1, 1))),
    "grad-norm": Style("#55AA44", "X", "-"),
    "fisher": Style("#77DD44", "d", "--"),
    "fisher-pruning": Style("#442222", "o", (0, (1, 1))),
    "fts": Style("#6644FF", "s", (0, (4, 1, 1, 1, 1, 1))),
    "hutchinson": Style("#55DDEE", "^", (0, (7, 1.5))),
    "hutchinson-pruning": Style("#446644", "P", "-"),
    "hts": Style("#884477", "D", "--"),
    "phew": Style("#004488", "<", (0, (7, 1.5))),
    "dpai": Style("#AA4400", "*", (0, (1, 1))),
    "multiflow": Style("#2244CC", "v", "-."),
    "npb": Style("#EE7744", ">", "-"),
    # Methods that see training are upper bounds, in shades of grey that are neither near black nor near white.
    "rigl": Style("#8CAFB9", "^", "--"),
    "set": Style("#D2C8C3", "D", (0, (7, 1.5))),
    "gmp": Style("#465028", "X", "-."),
    "after-training": Style("#BEB98C", "d", (0, (1, 1))),
    "ltr": Style("#828296", "d", "-."),
    "lr-rewinding": Style("#7D7850", "<", "-"),
    "edge-popup": Style("#AAA591", "o", (0, (4, 1, 1, 1, 1, 1))),
    "gem-miner": Style("#AF9B69", "v", "-"),
    # A reference, between the black of ERK and the grey of dense networks.
    "small-dense": Style("#373C41", "<", "--"),
}
_COLORS = ("#660055", "#FF1177", "#0000FF", "#886633", "#FF99CC", "#991122")
_SHADES = (0.0, 0.4, -0.4)
"""Shades of a method's variants in turn: unchanged, mixed with white, mixed with black."""

_FILLS = ("full", "left", "bottom", "right", "top")
CONTROL_LABELS = {
    None: "Unmodified",
    "shuffle": "Masks shuffled",
    "reinit": "Weights reinitialised",
    "invert": "Scores inverted",
    "sample": "Masks sampled by score",
    "quota-of": "Random, same layer counts",
    "unstructured": "Single weights, same layer counts",
}
"""Labels of a method (None) and its controls in one panel, in this order."""

CONTROL_STYLES = {
    CONTROL_LABELS[None]: Style("#000000", "o", "-"),
    CONTROL_LABELS["shuffle"]: Style("#E69F00", "s", "--"),
    CONTROL_LABELS["reinit"]: Style("#0072B2", "^", "-."),
    CONTROL_LABELS["invert"]: Style("#CC79A7", "v", (0, (1, 1))),
    CONTROL_LABELS["sample"]: Style("#009E73", "P", (0, (4, 1, 1, 1, 1, 1))),
    CONTROL_LABELS["quota-of"]: Style("#56B4E9", "D", (0, (7, 1.5))),
    CONTROL_LABELS["unstructured"]: Style("#D55E00", "X", (0, (2, 1))),
}
DENSE_LOOK = Style("#555555", "_", (0, (6, 2)))
_DENSE_LINES: tuple[Dashes, ...] = (DENSE_LOOK.line, (0, (2, 2)), (0, (6, 2, 1, 2)), (0, (1, 3)))


def by_value(method: str) -> Order:
    """Return a sort key: prospr:steps=2 before prospr:steps=10, and a method before its variants and controls."""
    spec = parsed(method)
    if spec is None:
        return method, (), 0, method
    values = (
        (key, isinstance(value, str), 0.0 if isinstance(value, str) else float(value), str(value))
        for key, value in spec.hyperparameters
    )
    return spec.name, tuple(values), CONTROLS.index(spec.control) + 1 if spec.control else 0, method


def styles(methods: Iterable[str]) -> dict[str, Style]:
    """Return a style for each method spec, in the order of `by_value`.

    A name that is not in KNOWN gets a style selected by a hash of the name, or the next free one. The variants of a
    method (prospr:steps=10) have its colour, lighter and darker in turn, with other markers and lines.
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
    """Vary a method's style for the source with index `place`: another line style and a half-filled marker."""
    if look.marker == DENSE_LOOK.marker:
        return replace(look, line=_DENSE_LINES[place % len(_DENSE_LINES)])
    line = _LINES[(_LINES.index(look.line) + place) % len(_LINES)]
    return replace(look, line=line, fill=_FILLS[place % len(_FILLS)])


def _picked(name: str, others: list[Style]) -> Style:
    # Python's own hash of a text differs between processes.
    start = int(hashlib.sha256(name.encode()).hexdigest(), 16) % len(_COLORS)
    known = {(look.marker, look.line) for look in KNOWN.values()}
    free = [pair for pair in _PAIRS if pair not in known]
    # Use every colour once before any is repeated.
    candidates = [
        Style(color, *free[turn + i])
        for turn in range(0, len(free) - len(_COLORS) + 1, len(_COLORS))
        for i, color in [*enumerate(_COLORS)][start:] + [*enumerate(_COLORS)][:start]
    ]
    return next((style for style in candidates if style not in others), candidates[0])


@cache
def parsed(method: str) -> MethodSpec | None:
    """Parse a method spec; return None for other names, which tables may contain."""
    try:
        return MethodSpec.parse(method)
    except PaiBenchError:
        return None


def _base(method: str) -> str:
    spec = parsed(method)
    return method if spec is None else spec.name


def _shade(color: str, amount: float) -> str:
    """Mix a colour with a fraction `amount` of white, or of black if negative."""
    from matplotlib.colors import to_hex, to_rgb  # results are also loaded where matplotlib is not installed

    end = 1.0 if amount > 0 else 0.0
    red, green, blue = (part + (end - part) * abs(amount) for part in to_rgb(color))
    return to_hex((red, green, blue)).upper()
