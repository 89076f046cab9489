"""Selection of the results that a report shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from pai_bench.analysis.collect import Collection
from pai_bench.analysis.columns import PANEL
from pai_bench.analysis.display_names import is_spec_of
from pai_bench.analysis.statistics import split_control
from pai_bench.cells import DENSE, Cell
from pai_bench.errors import PaiBenchError, unknown


@dataclass(frozen=True)
class Selection:
    """Conditions on results; the dense reference of each panel with results is always kept."""

    methods: tuple[str, ...] = ()
    """Methods to keep, with their variants and controls; none for all."""
    datasets: tuple[str, ...] = ()
    matches: Callable[[Cell], bool] | None = None
    """Condition on a cell, such as a filter of the command line."""

    def apply(self, collection: Collection) -> Collection:
        """Return the selected results and missing cells.

        Raises: PaiBenchError for a method or data set without results, and when nothing is left.
        """
        if not (self.methods or self.datasets or self.matches):
            return collection
        check_methods(self.methods, collection.rows["method"])
        held = sorted(collection.rows["dataset"].unique())
        for name in self.datasets:
            if name not in held:
                raise unknown("data set with results", name, held)
        rows = collection.rows[self._kept(collection.rows)]
        if rows.empty:
            raise PaiBenchError("no result is selected", "use other values for --methods, --datasets or --filter")
        missing = collection.missing[self._kept(collection.missing)]
        return replace(collection, rows=rows.reset_index(drop=True), missing=missing.reset_index(drop=True))

    def _kept(self, rows: pd.DataFrame) -> pd.Series:
        chosen = pd.Series(True, index=rows.index)
        if self.datasets:
            chosen &= rows["dataset"].isin(self.datasets)
        dense = rows["method"] == DENSE
        pruned = chosen & ~dense
        if self.methods:
            chosen_methods = {name for name in rows["method"].unique() if any(_is(name, spec) for spec in self.methods)}
            pruned &= rows["method"].isin(chosen_methods)
        if self.matches is not None:
            cells = rows[["method", "dataset", "model", "sparsity", "seed"]].itertuples(index=False, name=None)
            pruned &= pd.Series([_holds(self.matches, Cell(*cell)) for cell in cells], index=rows.index, dtype=bool)
        keys = [*PANEL, "seed"]
        beside = rows[keys].apply(tuple, axis=1).isin(set(rows.loc[pruned, keys].itertuples(index=False, name=None)))
        return pruned | (chosen & dense & beside)


def check_methods(names: Sequence[str], held: pd.Series) -> None:
    """Check that there is a result of every method.

    Raises: PaiBenchError for a name without a result.
    """
    known = sorted(set(held))
    for name in names:
        if not any(_is(method, name) for method in known):
            raise unknown("method with results", name, known)


def _is(method: str, name: str) -> bool:
    """Return True if `method` is `name`, one of its variants, or a control of them."""
    return is_spec_of(method, name) or is_spec_of(split_control(method)[0], name)


def _holds(matches: Callable[[Cell], bool], cell: Cell) -> bool:
    try:
        return matches(cell)
    except PaiBenchError:  # the name is not a spec, so that no condition on methods applies to it
        return False
