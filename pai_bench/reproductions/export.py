"""Export of a results folder to a released table: NAME.csv with a row per cell, and NAME.json with its provenance.

python -m pai_bench.reproductions.export RESULTS results/reference/NAME "COMMAND" …
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from pai_bench import results
from pai_bench.analysis.collect import collect

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


def export(root: Path, stem: Path, commands: list[str]) -> list[Path]:
    """Write the valid results of a folder to STEM.csv and their common provenance to STEM.json; return both paths."""
    rows = collect(root).rows
    plain = [results.read_plain(root / str(path)) for path in rows["path"]]
    provenance = [one["provenance"] for one in plain]
    rows = rows.assign(
        commit=[(one.get("commit") or "")[:12] for one in provenance],
        data_hash=[one.get("data_hash", "") for one in provenance],
    )
    for column in ("mask_hash", "init_hash", "data_hash", "fingerprint"):
        rows[column] = rows[column].str[:KEPT]
    for column in ("score_seconds", "train_seconds"):
        rows[column] = rows[column].astype(float).round(3)
    rows = rows[COLUMNS].sort_values(["dataset", "model", "recipe", "method", "sparsity", "seed"])
    stem.parent.mkdir(parents=True, exist_ok=True)
    table, facts = stem.with_suffix(".csv"), stem.with_suffix(".json")
    rows.to_csv(table, index=False)
    seconds = rows[["score_seconds", "train_seconds"]].sum()
    content = {
        "commands": commands,
        "cells": len(rows),
        "hours": round(float(seconds.sum()) / 3600, 2),
        "hours_are": "wall-clock time of scoring and training, one cell at a time on one core of a shared machine",
        "code": _distinct(provenance, ("commit", "dirty_diff_hash", "source_hash")),
        "environment": _distinct(provenance, ("versions", "platform", "device")),
        "data": _distinct(provenance, ("data_hash", "data_origin")),
        "recipes": {one["recipe"]: one["recipe_values"] for one in plain},
        "methods": {one["method"]: {"version": one["method_version"], **one["hyperparameters"]} for one in plain},
    }
    facts.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return [table, facts]


def _distinct(provenance: list[dict[str, Any]], keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the distinct values of some keys with the number of cells that have them."""
    counted = Counter(json.dumps({key: one.get(key) for key in keys}, sort_keys=True) for one in provenance)
    return [{**json.loads(text), "cells": count} for text, count in sorted(counted.items())]


if __name__ == "__main__":
    for path in export(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]):
        print(path)
