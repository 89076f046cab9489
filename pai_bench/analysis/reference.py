"""Released results, shipped with pai-bench, beside a user's own ones."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

import pandas as pd

from pai_bench.analysis.collect import Collection
from pai_bench.analysis.columns import PANEL, RELEASED
from pai_bench.analysis.style import parsed
from pai_bench.analysis.table_files import CONTRACT
from pai_bench.errors import PaiBenchError

PACKAGE = "pai_bench.reference"


def tables() -> list[Path]:
    """Return the released tables that have the columns of a tidy table, in alphabetical order.

    Raises: PaiBenchError when the tables are not installed.
    """
    try:
        folder = resources.files(PACKAGE)
    except ModuleNotFoundError as error:
        raise PaiBenchError(f"the package {PACKAGE} is not installed", "install pai-bench from its wheel") from error
    found = [Path(str(path)) for path in folder.iterdir() if path.name.endswith(".csv")]
    return sorted(path for path in found if set(CONTRACT) <= set(pd.read_csv(path, nrows=0).columns))


def beside(collection: Collection) -> Collection:
    """Leave out released rows of data sets, models, recipes and controls without a row of the user's own.

    Without any row of the user's own, all released rows stay.
    """
    rows = collection.rows
    is_released = rows["source"] == RELEASED
    if is_released.all():
        return collection
    specs = {method: parsed(method) for method in rows["method"].unique()}
    controls = rows["method"].map({method: spec and spec.control for method, spec in specs.items()})
    panels = pd.MultiIndex.from_frame(rows[PANEL])
    same = panels.isin(panels[~is_released]) & (controls.isna() | controls.isin(controls[~is_released].dropna()))
    return replace(collection, rows=rows[~is_released | same].reset_index(drop=True))
