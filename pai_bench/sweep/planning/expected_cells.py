"""Cells a results folder is expected to contain: planned cells plus unplanned results, matched by file name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any

from pai_bench.cells import Cell
from pai_bench.results import ResultKey

_POINT = ("method", "dataset", "model", "sparsity", "seed")
_KEY = ("recipe", *_POINT)
_VARIANT = 4
"""Number of leading parts of the key that identify a variant, whose cells share one fingerprint."""

_point = attrgetter(*_POINT)


def slug(cell: Cell) -> str:
    """Return a cell as users type it: method/dataset/model/sparsity/seed."""
    short = f"{cell.sparsity:g}"
    sparsity = short if float(short) == cell.sparsity else repr(cell.sparsity)
    return f"{cell.method}/{cell.dataset}/{cell.model}/{sparsity}/{cell.seed}"


def expected(plans: Iterable[Mapping[str, Any]], present: Iterable[str]) -> list[ResultKey]:
    """Return all cells of the plans, and the results in `present` that belong to no planned variant.

    The plans are sorted from oldest to newest; each cell gets the fingerprint of the newest plan of its variant. The
    fingerprints of unplanned results have only eight digits.
    """
    cells: dict[tuple[Any, ...], None] = {}
    current: dict[tuple[Any, ...], str] = {}
    for plan in plans:
        for line in plan["cells"]:
            key = tuple(map(line.__getitem__, _KEY))
            cells[key] = None
            current[key[:_VARIANT]] = line["fingerprint"]
    planned = [ResultKey(Cell(*point), recipe, current[recipe, *point[:3]]) for recipe, *point in cells]
    named = filter(None, map(ResultKey.parse, sorted(present)))
    return planned + [key for key in named if (key.recipe, *_point(key.cell)[:3]) not in current]
