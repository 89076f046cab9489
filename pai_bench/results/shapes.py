"""Schemas of the small JSON files below the results root.

A file that does not match its schema is damaged or foreign: its reader skips and reports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pai_bench.cells import Cell, MethodSpec
from pai_bench.core.atomic import parse_json
from pai_bench.errors import PaiBenchError

Kinds = Mapping[str, tuple[type, ...]]

CELL: Kinds = {"method": (str,), "dataset": (str,), "model": (str,), "sparsity": (float, int), "seed": (int,)}
KEY: Kinds = {**CELL, "recipe": (str,), "fingerprint": (str,)}
LARGEST = 2**53
"""Largest valid count: floats represent integers exactly up to this value."""


def table(content: bytes) -> dict[str, Any]:
    """Return the JSON object that a file holds.

    Raises: ValueError when it holds anything else.
    """
    plain = parse_json(content)
    if type(plain) is not dict:
        raise ValueError(f"it holds a {type(plain).__name__}, not an object")
    return plain


def check(plain: Mapping[str, Any], kinds: Kinds) -> None:
    """Check that each key is there with a value of one of its types, finite where it is a number.

    Raises: ValueError.
    """
    for name, allowed in kinds.items():
        value: Any = plain.get(name)
        # isinstance would accept true and false as numbers, because bool is a subclass of int.
        if type(value) not in allowed or (name not in plain and type(None) not in allowed):
            raise ValueError(f"{name} is {str(value)[:40]!r}")
        if type(value) in (int, float) and not abs(value) <= LARGEST:  # infinities and NaN are not either
            raise ValueError(f"{name} is {value!r}"[:80])
        # Python refuses a null character in a path later, with an error that does not name this file.
        if type(value) is str and "\0" in value:
            raise ValueError(f"{name} holds a null character")


def check_key(plain: Any, methods: dict[str, bool]) -> None:
    """Check that a line names a cell, a recipe and a fingerprint as results do; `methods` remembers method specs.

    Raises: ValueError.
    """
    if type(plain) is not dict:
        raise ValueError(f"a line is a {type(plain).__name__}, not an object")
    check(plain, KEY)
    method = plain["method"]
    if method not in methods:
        try:
            methods[method] = bool(MethodSpec.parse(method))
        except PaiBenchError:
            methods[method] = False
    if not methods[method]:
        raise ValueError(f"method is {method!r}")
    if not 0 <= plain["sparsity"] < 1 or plain["seed"] < 0:
        raise ValueError(f"sparsity is {plain['sparsity']!r}, seed is {plain['seed']!r}")
    # These fields become parts of paths, which a slash could lead out of the results folder.
    for name in ("dataset", "model", "method", "recipe", "fingerprint"):
        if not plain[name] or "/" in plain[name]:
            raise ValueError(f"{name} is {plain[name]!r}")


def cell(plain: Mapping[str, Any]) -> Cell:
    """Return the cell that a line names."""
    return Cell(*(plain[name] for name in CELL))


def below(root: Path, place: Path) -> str:
    """Return the name of a file in messages: its path below the results root."""
    try:
        return place.relative_to(root).as_posix()
    except ValueError:
        return str(place)
