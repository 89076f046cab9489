"""Which cells a results folder is to hold: those of its plans, and results that no plan speaks of; found by name."""

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
"""How much of the key names a variant, all cells of which have one fingerprint."""

_point = attrgetter(*_POINT)


@dataclass(frozen=True)
class Wanted:
    """A cell, its recipe, and what names its result: the path below runs/ without .json."""

    cell: Cell
    recipe: str
    fingerprint: str
    """That of the newest plan of its variant; its first eight digits where only a file's name tells it."""
    name: str


def slug(cell: Cell) -> str:
    """A cell as people type it: method/dataset/model/sparsity/seed."""
    short = f"{cell.sparsity:g}"
    sparsity = short if float(short) == cell.sparsity else repr(cell.sparsity)
    return f"{cell.method}/{cell.dataset}/{cell.model}/{sparsity}/{cell.seed}"


def wanted(plans: Iterable[Mapping[str, Any]], present: Iterable[str]) -> list[Wanted]:
    """All cells of the plans, which come oldest first, with the fingerprint of the newest plan of their variant, and of
    `present` what is of no planned variant."""
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
        found.append(Wanted(cell, recipe, fingerprint, results.name(cell, recipe, fingerprint)))
    unplanned = (item for item in _named(present) if (item.recipe, *_point(item.cell)[:3]) not in current)
    return found + list(unplanned)


def _named(present: Iterable[str]) -> Iterator[Wanted]:
    for name in sorted(present):
        if parsed := results.parse_name(name):
            yield Wanted(*parsed, name)
