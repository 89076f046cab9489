"""Selection of the cells of a results folder by `--filter`, checked as that of a sweep."""

from __future__ import annotations

from collections.abc import Iterable

from pai_bench.cells import Cell, MethodSpec
from pai_bench.core.method_index import builtin
from pai_bench.errors import PaiBenchError
from pai_bench.sweep.planning.filters import Filter


def select(text: str, cells: Iterable[Cell]) -> Filter:
    """The filter `text` in the words of the cells: method specs are canonical.

    Raises: PaiBenchError for a filter that cannot be read, and for one that leaves none of the cells.
    """
    cells = list(cells)
    chosen = Filter.parse(text).canonical(_canonical)
    if cells and not any(map(chosen.matches, cells)):
        raise PaiBenchError(
            f"--filter {text!r} leaves no cell of the results folder",
            f"{chosen.hints(cells)}widen --filter; pai-bench status --json lists all cells",
        )
    return chosen


def _canonical(text: str) -> str:
    """The spec without what is the default of a built-in method, numbers with the type of the default."""
    spec = MethodSpec.parse(text)
    entry = builtin().get(spec.name)
    if entry is None:
        return str(spec)
    defaults = dict(entry.hyperparameters)
    typed = (
        (k, float(v) if isinstance(defaults.get(k), float) and type(v) is int else v) for k, v in spec.hyperparameters
    )
    given = tuple((k, v) for k, v in typed if k not in defaults or v != defaults[k])
    return str(MethodSpec(spec.name, given, spec.control))
