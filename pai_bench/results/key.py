"""key."""

from __future__ import annotations

from dataclasses import dataclass

from pai_bench.cells import Cell


@dataclass(frozen=True)
class Address:
    """A cell and the settings it is run with: what files of it are named after."""

    cell: Cell
    recipe: str
    fingerprint: str
