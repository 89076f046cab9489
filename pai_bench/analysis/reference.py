"""Released results, shipped with pai-bench, beside a user's own ones."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

import pandas as pd

from pai_bench.analysis.collect import Collection
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
    """Leave out the released rows of data sets, models and recipes without a row of the user's own.

    Without any row of the user's own, all released rows stay.
    """
    rows = collection.rows
    released = {path.stem for path in tables()}
    is_released = rows["source"].isin(released)
    if is_released.all():
        return collection
    panel = list(zip(rows["dataset"], rows["model"], rows["recipe"], strict=True))
    own = {key for key, theirs in zip(panel, is_released, strict=True) if not theirs}
    kept = [not theirs or key in own for key, theirs in zip(panel, is_released, strict=True)]
    return replace(collection, rows=rows[kept].reset_index(drop=True))
