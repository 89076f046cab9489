"""Data that decided the masks of a method, and methods that see training, which are upper bounds."""

from __future__ import annotations

from functools import cache

from pai_bench.analysis.style import parsed
from pai_bench.cells import SMALL_DENSE
from pai_bench.core import method_index

HEADING = "Masks found during training (upper bounds)"
"""Heading of the block of a table."""

SMALLER = "Smaller dense networks (references)"
"""Heading of the block of dense networks with narrower layers."""


@cache
def known(method: str) -> str:
    """Return the information that a built-in method sees (see `registry.sees`), and "" for any other text."""
    spec = parsed(method)
    entry = None if spec is None else method_index.builtin().get(spec.name)
    seen = "" if entry is None else entry.facts.sees
    return "nothing" if seen == "shape" else seen


@cache
def is_small_dense(method: str) -> bool:
    """Return True for a method that trains a narrower dense network."""
    spec = parsed(method)
    return spec is not None and spec.name == SMALL_DENSE


def is_upper_bound(saw: object) -> bool:
    """Return True for what a method saw (see `Result.saw`) if that is training: "training", or a number of epochs."""
    return isinstance(saw, str) and saw.endswith(("training", "epoch", "epochs"))
