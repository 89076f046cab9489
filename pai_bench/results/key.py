"""Key of a result: the cell, the recipe and the fingerprint, from which the paths of all files of a cell derive."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from pai_bench.cells import Cell
from pai_bench.results import paths

NAME_BYTES = 255
"""Maximal length of a file name in bytes on common file systems."""

_LONGEST_ENDING = len(f".{'0' * 16}.beat") + len(f"..{'0' * 32}.tmp")
"""Longest suffix in bytes added to a cell's name: a temporary file of a heartbeat."""

_NAME = re.compile(r"([^/]+)/([^/]+)/([^/]+)/s([0-9.e-]+)-seed(\d+)-([^/]+)-([0-9a-f]{8})")


@dataclass(frozen=True)
class ResultKey:
    """Key of a result: two results with the same key are results of the same computation."""

    cell: Cell
    recipe: str
    """Name of the recipe."""
    fingerprint: str
    """The fingerprint; only its first eight digits if the key was parsed from a file name."""

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> ResultKey:
        """Return the key of a result, a claim or a line of a plan, given as plain data with the fields of the cell."""
        cell = Cell(*(line[field.name] for field in fields(Cell)))
        return cls(cell, line["recipe"], line["fingerprint"])

    @classmethod
    def parse(cls, name: str) -> ResultKey | None:
        """Parse a `name`; return None if it has another form, such as the name of a file that a person renamed."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        dataset, model, method, sparsity, seed, recipe, fingerprint = match.groups()
        try:
            key = cls(Cell(method, dataset, model, float(sparsity), int(seed)), recipe, fingerprint)
        except ValueError:
            return None
        return key if key.name == name else None

    def as_dict(self) -> dict[str, Any]:
        """Return the key as plain data, readable by `of`."""
        return {**asdict(self.cell), "recipe": self.recipe, "fingerprint": self.fingerprint}

    @cached_property
    def name(self) -> str:
        """Return the name of the cell in every folder: the path of its result below runs/, without .json."""
        cell = self.cell
        file = f"{name_prefix(cell, self.recipe)}{self.fingerprint[:8]}"
        return f"{cell.dataset}/{cell.model}/{cell.method}/{file}"

    def path(self, root: Path) -> Path:
        """Return the path of the result; results of other settings are in the same folder."""
        return root / "runs" / f"{self.name}.json"

    def claim_path(self, root: Path) -> Path:
        """Return the path of the claim, which names the process that runs the cell."""
        return paths.claims_folder(root) / f"{self.name}.claim"

    def checkpoints_folder(self, root: Path) -> Path:
        """Return the folder of the checkpoints, shared by all attempts."""
        return paths.all_checkpoints_folder(root) / self.name

    def failure_path(self, root: Path) -> Path:
        """Return the path of the failure record."""
        return paths.failures_folder(root) / f"{self.name}.json"

    def duplicate_path(self, root: Path, owner: str) -> Path:
        """Return the path of the record of an owner's duplicate result."""
        return paths.duplicates_folder(root) / f"{self.name}.{owner}.json"

    def log_path(self, root: Path) -> Path:
        """Return the path of the cell's log, shared by all attempts."""
        return root / "state" / "logs" / "cells" / f"{self.name}.log"


def name_prefix(cell: Cell, recipe: str) -> str:
    """Return the common prefix of the file names of all results of a cell and a recipe, for any fingerprint."""
    # repr gives the shortest text from which float() recovers exactly this sparsity.
    return f"s{cell.sparsity!r}-seed{cell.seed}-{recipe}-"


def excess(cell: Cell, recipe: str) -> tuple[int, int]:
    """Return the bytes by which names exceed NAME_BYTES: the method's folder, and the longest file of the cell."""
    file = f"{name_prefix(cell, recipe)}{'0' * 8}"
    lengths = len(os.fsencode(cell.method)), len(os.fsencode(file)) + _LONGEST_ENDING
    return max(0, lengths[0] - NAME_BYTES), max(0, lengths[1] - NAME_BYTES)
