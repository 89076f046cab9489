"""Export of a results folder to a released table: NAME.csv with a row per cell, and NAME.json with its provenance.

python -m pai_bench.reproductions.export RESULTS results/reference/NAME "COMMAND" …

An existing table is extended, because a large one is computed in pieces and on several machines. Its rows stay.
"""

from __future__ import annotations

import io
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from pai_bench import results
from pai_bench.analysis.collect import collect
from pai_bench.errors import PaiBenchError

COLUMNS = [
    *("method", "dataset", "model", "recipe", "sparsity", "seed", "epoch", "accuracy", "status", "chance"),
    *(
        "actual_sparsity",
        "effective_sparsity",
        "n_kept",
        "tied_at_cut",
        "score_seconds",
        "train_seconds",
        "fingerprint",
        "mask_hash",
    ),
    *("init_hash", "data_hash", "commit", "finished_at"),
]
KEPT = 16
"""Number of hexadecimal digits kept of each hash."""
ORDER = ["dataset", "model", "recipe", "method", "sparsity", "seed"]


def export(root: Path, stem: Path, commands: list[str]) -> list[Path]:
    """Write the valid results of a folder to STEM.csv and their common provenance to STEM.json; return both paths.

    Of an existing table, all rows stay; the folder's cells that it lacks are added.

    Raises: PaiBenchError when the table has a cell of the folder with another fingerprint.
    """
    rows = collect(root).rows
    for column in ("fingerprint", "mask_hash", "init_hash"):
        rows[column] = rows[column].str[:KEPT]
    for column in ("score_seconds", "train_seconds"):
        rows[column] = rows[column].astype(float).round(3)
    table, facts = stem.with_suffix(".csv"), stem.with_suffix(".json")
    content: dict[str, Any] = {}
    if table.exists():
        released, content = _read(table), json.loads(facts.read_text(encoding="utf-8"))
        rows = _missing_from(released, rows, table)
    plain = [results.read_plain(root / str(path)) for path in rows["path"]]
    provenance = [one["provenance"] for one in plain]
    rows = rows.assign(
        commit=[(one.get("commit") or "")[:12] for one in provenance],
        data_hash=[one.get("data_hash", "")[:KEPT] for one in provenance],
    )[COLUMNS]
    if content:
        rows = pd.concat([released, _read(io.StringIO(rows.to_csv(index=False)))], ignore_index=True)
    rows = rows.sort_values(ORDER, key=_number_or_text)
    stem.parent.mkdir(parents=True, exist_ok=True)
    rows.to_csv(table, index=False)
    seconds = rows[["score_seconds", "train_seconds"]].apply(pd.to_numeric).sum()
    content = {
        "commands": list(dict.fromkeys([*content.get("commands", []), *commands])),
        "cells": len(rows),
        "hours": round(float(seconds.sum()) / 3600, 2),
        "hours_are": "wall-clock time of scoring and training, one cell at a time on one core of a shared machine",
        "code": _distinct(provenance, ("commit", "dirty_diff_hash", "source_hash"), content.get("code", [])),
        "environment": _distinct(provenance, ("versions", "platform", "device"), content.get("environment", [])),
        "data": _distinct(provenance, ("data_hash", "data_origin"), content.get("data", [])),
        "recipes": content.get("recipes", {}) | {one["recipe"]: one["recipe_values"] for one in plain},
        "methods": content.get("methods", {})
        | {one["method"]: {"version": one["method_version"], **one["hyperparameters"]} for one in plain},
    }
    facts.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return [table, facts]


def _read(table: Path | io.StringIO) -> pd.DataFrame:
    """Read a released table as text, so that its numbers and hashes are written as they were."""
    return pd.read_csv(table, dtype=str, keep_default_na=False)


def _number_or_text(column: pd.Series) -> pd.Series:
    return column.astype(float) if column.name in ("sparsity", "seed") else column


def _missing_from(released: pd.DataFrame, rows: pd.DataFrame, table: Path) -> pd.DataFrame:
    """Return the rows of cells that a released table lacks.

    Raises: PaiBenchError when the table has one of the cells with another fingerprint.
    """
    known = released.set_index(ORDER)["fingerprint"].to_dict()
    theirs = [known.get(key) for key in rows[ORDER].astype(str).itertuples(index=False, name=None)]
    lacking = pd.Series([one is None for one in theirs], index=rows.index, dtype=bool)
    stale = rows[~lacking & (rows["fingerprint"] != pd.Series(theirs, index=rows.index))]
    if len(stale):
        first = " · ".join(f"{stale[column].iloc[0]}" for column in ORDER)
        raise PaiBenchError(
            f"{table} has {len(stale)} of these cells with another fingerprint, for instance {first}",
            "run those cells again with today's code and move the table away to write it anew",
        )
    return rows[lacking]


def _distinct(
    provenance: list[dict[str, Any]], keys: tuple[str, ...], released: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the distinct values of some keys with the number of cells that have them, those of a table included."""
    counted = Counter(json.dumps({key: one.get(key) for key in keys}, sort_keys=True) for one in provenance)
    for one in released:
        counted[json.dumps({key: one.get(key) for key in keys}, sort_keys=True)] += one["cells"]
    return [{**json.loads(text), "cells": count} for text, count in sorted(counted.items())]


if __name__ == "__main__":
    for path in export(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]):
        print(path)
