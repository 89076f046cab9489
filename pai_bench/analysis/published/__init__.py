"""Published results shipped with pai-bench: one row per point, with its source and its match to a recipe.

Columns of the table, in this order:

- id, paper (key of the entry in `bibliography()`), where (figure, table or file), source (URL with commit);
- dataset and model (names of pai-bench; model is "" where pai-bench has no such network), model_published,
  n_prunable (prunable weights of the published network, missing where not known);
- method (spec of pai-bench, "" where there is none), method_published, sparsity (fraction removed), counts (the
  parameters that sparsity refers to);
- accuracy (fraction, mean over the runs), std (fraction, ddof 1, missing where not published), std_ddof (of the
  source), n (number of runs, missing where not stated);
- epoch ("last", "best-test", "best-val" or "unknown"), split, epochs (length of the training);
- recipe (name of the recipe in pai-bench with this training, or ""), match ("exact", "near" or "context") and differs
  (differences in words), both as computed by `matching.judge`;
- suspect (the reason why the number is not a target, or ""), dense_id (row of the same series at sparsity 0, or "").

The WideResNet-18 of Synaptic-Flow equals its ResNet-18, because its blocks ignore the width. Both have the model
resnet18 here, so that statistics over settings count them once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

import pandas as pd

from pai_bench.analysis.bibliography import entries
from pai_bench.analysis.published.matching import LEVELS, Point, judge, protocols, prunable_weights
from pai_bench.errors import unknown

__all__ = [
    "COLUMNS",
    "LEVELS",
    "Point",
    "bibliography",
    "describe",
    "judge",
    "load",
    "names",
    "protocols",
    "prunable_weights",
]

EPOCHS = ("last", "best-test", "best-val", "unknown")
COLUMNS = {
    "id": "str",
    "paper": "str",
    "where": "str",
    "source": "str",
    "dataset": "str",
    "model": "str",
    "model_published": "str",
    "n_prunable": "Int64",
    "method": "str",
    "method_published": "str",
    "sparsity": "float64",
    "counts": "str",
    "accuracy": "float64",
    "std": "float64",
    "std_ddof": "Int64",
    "n": "Int64",
    "epoch": "str",
    "split": "str",
    "epochs": "Int64",
    "recipe": "str",
    "match": "str",
    "differs": "str",
    "suspect": "str",
    "dense_id": "str",
}
"""Columns of the table and their pandas types."""


def load(
    levels: Sequence[str] = ("exact", "near"),
    recipe: str | None = None,
    dataset: str | None = None,
    model: str | None = None,
    suspect: bool = False,
) -> pd.DataFrame:
    """Load the published results, one row per point, with the columns of `COLUMNS`.

    levels: values of the column `match` to keep.
    recipe, dataset, model: the value to keep in that column; None keeps all. A recipe with settings is named as in
    results, for example "frankle+train.weight_decay=0.0005".
    suspect: also keep the rows that are known or suspected to be wrong.

    Raises: PaiBenchError for an unknown level.
    """
    for level in levels:
        if level not in LEVELS:
            raise unknown("level of a match", level, LEVELS)
    rows = _table()
    keep = rows["match"].isin(list(levels))
    for column, value in (("recipe", recipe), ("dataset", dataset), ("model", model)):
        if value is not None:
            keep &= rows[column] == value
    if not suspect:
        keep &= rows["suspect"] == ""
    return rows[keep].reset_index(drop=True)


def names() -> list[str]:
    """Return the groups of published results as "recipe/dataset/model"; groups with a recipe come first.

    "-" stands for a training without a recipe; a network that pai-bench lacks has its published name.
    """
    return sorted(_groups(), key=lambda name: (name.startswith("-/"), name))


def describe(name: str) -> dict[str, Any]:
    """Summarise one group: numbers of rows by match and by epoch, suspect rows, methods, papers.

    Raises: PaiBenchError for an unknown group.
    """
    if name not in _groups():
        raise unknown("group of published results", name, names())
    rows = _groups()[name]
    return {
        "recipe": str(rows["recipe"].iloc[0]),
        "dataset": str(rows["dataset"].iloc[0]),
        "model": str(rows["model"].iloc[0]),
        "rows": len(rows),
        "match": {level: int(n) for level in LEVELS if (n := (rows["match"] == level).sum())},
        "epoch": {epoch: int(n) for epoch in EPOCHS if (n := (rows["epoch"] == epoch).sum())},
        "suspect": int((rows["suspect"] != "").sum()),
        "methods": sorted(set(rows["method"].where(rows["method"] != "", rows["method_published"]))),
        "papers": sorted(set(rows["paper"])),
    }


def bibliography() -> str:
    """Return the BibTeX entries of the papers; the column `paper` has their keys."""
    return "\n\n".join(entries()[key] for key in sorted(set(_table()["paper"]))) + "\n"


@cache
def _table() -> pd.DataFrame:
    files = sorted(
        (file for file in resources.files(__package__).iterdir() if file.name.endswith(".csv")),
        key=lambda file: file.name,
    )
    parts = []
    for file in files:
        with file.open(encoding="utf-8") as text:
            parts.append(pd.read_csv(text, dtype=str, keep_default_na=False))
    rows = pd.concat(parts, ignore_index=True)
    numbers = [column for column, kind in COLUMNS.items() if kind != "str"]
    rows[numbers] = rows[numbers].apply(pd.to_numeric)
    return rows.astype({column: COLUMNS[column] for column in numbers})


@cache
def _groups() -> dict[str, pd.DataFrame]:
    rows = _table()
    model = rows["model"].where(rows["model"] != "", rows["model_published"])
    key = rows["recipe"].where(rows["recipe"] != "", "-") + "/" + rows["dataset"] + "/" + model
    return {str(name): group for name, group in rows.groupby(key)}
