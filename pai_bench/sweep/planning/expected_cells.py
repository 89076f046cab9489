"""Cells a results folder is expected to contain: planned cells plus unplanned results, matched by file name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from pai_bench import results
from pai_bench.cells import Cell

_POINT = ("method", "dataset", "model", "sparsity", "seed")
_KEY = ("recipe", *_POINT)
_VARIANT = 4
"""Number of leading parts of the key that identify a variant, whose cells share one fingerprint."""

_point = attrgetter(*_POINT)


@dataclass(frozen=True)
class ExpectedCell:
    """An expected cell, its recipe, and the name of its result: the path below runs/ without .json."""

    cell: Cell
    recipe: str
    fingerprint: str
    """Fingerprint in the newest plan of its variant; only its first eight digits if derived from a file name."""
    name: str


def slug(cell: Cell) -> str:
    """Return a cell as users type it: method/dataset/model/sparsity/seed."""
    short = f"{cell.sparsity:g}"
    sparsity = short if float(short) == cell.sparsity else repr(cell.sparsity)
    return f"{cell.method}/{cell.dataset}/{cell.model}/{sparsity}/{cell.seed}"


def wanted(plans: Iterable[Mapping[str, Any]], present: Iterable[str]) -> list[ExpectedCell]:
    """Return all cells of the plans, and the results in `present` that belong to no planned variant.

    The plans are sorted from oldest to newest; each cell gets the fingerprint of the newest plan of its variant.
    """
    cells: dict[tuple[Any, ...], None] = {}
    current: dict[tuple[Any, ...], str] = {}
    for plan in plans:
        for line in plan["cells"]:
            key = tuple(map(line.__getitem__, _KEY))
            cells[key] = None
            current[key[:_VARIANT]] = line["fingerprint"]
    found = []
    for key in cells:
        recipe, method, dataset, model, sparsity, seed = key
        cell, fingerprint = Cell(method, dataset, model, sparsity, seed), current[key[:_VARIANT]]
        found.append(ExpectedCell(cell, recipe, fingerprint, results.name(cell, recipe, fingerprint)))
    unplanned = (item for item in _named(present) if (item.recipe, *_point(item.cell)[:3]) not in current)
    return found + list(unplanned)


def _named(present: Iterable[str]) -> Iterator[ExpectedCell]:
    for name in sorted(present):
        if parsed := results.parse_name(name):
            yield ExpectedCell(*parsed, name)
