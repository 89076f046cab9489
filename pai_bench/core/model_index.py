"""Kinds, numbers of parameters and descriptions of the built-in models, read from a file without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pai_bench.core.registry import installed

GROUP = "pai_bench.models"
"""Entry points of installed packages with models of their own."""

FILE = Path(__file__).parents[1] / "models" / "index.json"
"""Written by `python -m tests.unit.test_model_index`."""


@dataclass(frozen=True)
class Entry:
    """A built-in model."""

    kind: str
    """Type of the network: residual, convolutional, depthwise, recurrent, or MLP."""
    parameters: int
    """Number of parameters for 3 x 32 x 32 images (64 x 64 where 32 are too few) of 10 classes."""
    description: str


@cache
def builtin() -> dict[str, Entry]:
    """Return the built-in models by name, in alphabetical order."""
    return {name: Entry(**entry) for name, entry in json.loads(FILE.read_text(encoding="utf-8")).items()}


def is_complete(plugins: Sequence[Path] = ()) -> bool:
    """Return True if all models are built in: no plug-ins, and no installed packages with models."""
    return not plugins and not installed(GROUP)
