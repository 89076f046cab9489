"""Options that restrict the results shown by a command: methods, data sets, cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from pai_bench.cells import Cell, parse_names, split_specs

if TYPE_CHECKING:
    from pai_bench.analysis.selection import Selection

ShownMethods = Annotated[
    str | None, typer.Option("--methods", help="Only these methods, with their variants and controls.  [default: all]")
]
ShownDatasets = Annotated[str | None, typer.Option("--datasets", help="Only these data sets.  [default: all]")]
ShownCells = Annotated[
    str | None, typer.Option("--filter", help="Only these cells, for example 'model=resnet20,sparsity>=0.95'.")
]


def selection(methods: str | None, datasets: str | None, cells: str | None) -> Selection:
    """Return the selection of these options; an option that is not given restricts nothing."""
    from pai_bench.analysis.selection import Selection

    return Selection(
        tuple(split_specs(methods)) if methods else (),
        parse_names("--datasets", datasets) if datasets else (),
        condition(cells),
    )


def condition(text: str | None) -> Callable[[Cell], bool] | None:
    """Return the condition of --filter on a cell."""
    if text is None:
        return None
    from pai_bench.core.filters import Filter, canonical_spec

    return Filter.parse(text).canonical(canonical_spec).matches
