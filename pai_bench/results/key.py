"""Key of a result."""

from __future__ import annotations

from dataclasses import dataclass

from pai_bench.cells import Cell


@dataclass(frozen=True)
class Address:
    """Address of a result: the cell and its settings, from which all its file names are derived."""

    cell: Cell
    recipe: str
    fingerprint: str
