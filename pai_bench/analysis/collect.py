"""Collection of results as tidy tables: valid, missing, stale and damaged ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from pai_bench import results
from pai_bench.analysis.columns import CELL, OURS, RELEASED
from pai_bench.analysis.table_files import LEFT_OUT, canonical, read_table
from pai_bench.analysis.unify import dense_names, unify
from pai_bench.core.garbage import uncollected
from pai_bench.errors import PaiBenchError
from pai_bench.results import ResultKey, index
from pai_bench.results.measures import MEASURES, SCORING

__all__ = ["OURS", "Collection", "collect", "read_table"]


@dataclass(frozen=True)
class Collection:
    """Input of a report."""

    rows: pd.DataFrame
    """One row per valid result; see `columns`."""
    missing: pd.DataFrame
    """One row per planned cell without a valid result: CELL and state ("failed", "unreadable" or "missing")."""
    stale: tuple[str, ...]
    """Paths of results made by another version or with other settings than in the newest plan; not counted."""
    damaged: tuple[str, ...]
    """Description of each damaged file; not counted."""
    unreadable: tuple[str, ...] = ()
    """Files and folders that cannot be read, with the reason; not counted, although they may contain valid results."""
    left_out: int = 0
    """Number of table rows without an accuracy and without a status that explains it."""
    remarks: tuple[str, ...] = ()
    """Changes to names, sparsities and rows that a reader must know."""


@uncollected()
def collect(root: Path, tables: Sequence[Path] = (), released: Sequence[Path] = ()) -> Collection:
    """Collect all results below the results root, in tidy tables, and in `released` tables (source RELEASED).

    Raises: PaiBenchError when there are no results at all, or a table is invalid.
    """
    held = index.read(root)
    found = [_flat(row) for row in held.rows]
    read = results.read_plans(root)
    plans = read.found
    planned = {tuple(cell[column] for column in CELL): cell for plan in plans for cell in _cells(plan)}
    current = _current_fingerprints(found, plans)
    valid = [row for row in found if row["fingerprint"] == current[_variant(row)]]
    stale = tuple(row["path"] for row in found if row["fingerprint"] != current[_variant(row)])
    rows = _with_reported(pd.DataFrame(valid, columns=[*CELL, *_EXTRA]).drop_duplicates(CELL))
    have = {tuple(row) for row in rows[CELL].itertuples(index=False)}
    missing = [row for key, row in planned.items() if key not in have]
    for row in missing:
        key = ResultKey.of(row)
        if held.hides(replace(key, fingerprint=current[_variant(row)]).path(root)):
            row["state"] = "unreadable"
        else:
            failed = results.has_failed(root, key)
            row["state"] = "failed" if failed else "missing"
    frames = [rows, *(read_table(table, source) for table, source in _sources(tables).items())]
    frames += [read_table(table, RELEASED) for table in released]
    left_out = sum(frame.attrs.get(LEFT_OUT, 0) for frame in frames)
    rows = pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)
    unreadable = tuple(f"{place} cannot be read: {why}" for place, why in held.unreadable.items())
    if rows.empty and unreadable:
        raise PaiBenchError(f"no result can be read: {unreadable[0]}", "correct its permissions or repair the disk")
    if rows.empty:
        planned_note = f" yet ({len(missing)} cell{'s' * (len(missing) != 1)} planned)" if missing else ""
        damaged_note = f"; {len(held.damaged)} damaged: {held.damaged[0]}" if held.damaged else ""
        tables_note = f", and no row with a result in {', '.join(map(str, tables))}" if tables else ""
        raise PaiBenchError(
            f"there is no finished result in {root}{planned_note}{damaged_note}{tables_note}",
            "run pai-bench sweep first, or name the folder with --results, or a table with --from",
        )
    lacking = pd.DataFrame(missing, columns=[*CELL, "state"])
    lacking = dense_names(lacking.assign(sparsity=canonical(lacking["sparsity"]))).drop_duplicates(CELL)
    unified = unify(rows)
    rows, damaged = unified.rows, (*held.damaged, *read.damaged)
    return Collection(rows, lacking, stale, damaged, unreadable, left_out, unified.remarks)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the index with costs and measures as columns; accuracies by class as one text."""
    by_class = " ".join("nan" if value is None else repr(value) for value in row["class_accuracy"])
    columns = {key: row["costs"].get(key) for key in _COSTS} | {key: row["measures"].get(key) for key in MEASURES}
    return {"source": OURS, **row, **columns, "class_accuracy": by_class or None}


def _sources(tables: Sequence[Path]) -> dict[Path, str]:
    """Return the source name of each table: its stem, preceded by its folder's name where that is not unique.

    Raises: PaiBenchError for a repeated table, and for equal folder names of tables with equal stems.
    """
    if len({table.resolve() for table in tables}) < len(tables):
        raise PaiBenchError("a table is given twice to --from", "give it once")
    stems = Counter([RELEASED, *(table.stem for table in tables)])
    names = {
        table: table.stem if stems[table.stem] == 1 else f"{table.resolve().parent.name}/{table.stem}"
        for table in tables
    }
    for name, count in Counter(names.values()).items():
        if count > 1:
            raise PaiBenchError(f"{count} tables are called {name}", "rename one of them")
    return names


def _with_reported(rows: pd.DataFrame) -> pd.DataFrame:
    """Add the columns of `columns` that tables may have and results do not."""
    sparsity = canonical(rows["sparsity"])
    reported = {"method_reported": rows["method"], "sparsity_reported": sparsity, "note": "", "suspect": ""}
    return rows.assign(sparsity=sparsity, epoch="last", **reported)


_EXTRA = ["accuracy", "status", "actual_sparsity", "effective_sparsity", "fingerprint", "mask_hash", "init_hash"]
_COSTS = ["score_seconds", "train_seconds", "score_peak_bytes", "flops_dense", "flops_sparse", *SCORING]
_EXTRA += [
    *_COSTS,
    "device",
    "scoring_dtype",
    "effective",
    "float64_overlap",
    "n_kept",
    "n_prunable",
    "tied_at_cut",
    "saw",
    "chance",
    "finished_at",
    *MEASURES,
    "class_accuracy",
    "path",
]


def _cells(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for cell in plan["cells"]:
        yield {"source": OURS, **cell}


def _variant(row: dict[str, Any]) -> tuple[str, ...]:
    return row["method"], row["dataset"], row["model"], row["recipe"]


def _current_fingerprints(
    found: Iterable[dict[str, Any]], plans: Iterable[dict[str, Any]]
) -> dict[tuple[str, ...], str]:
    """Return the valid fingerprint by variant: from the newest plan, or without a plan, from the latest result."""
    current: dict[tuple[str, ...], str] = {}
    # Times are in ISO format and UTC, so that their texts sort by time.
    for row in sorted(found, key=lambda row: row["finished_at"]):
        current[_variant(row)] = row["fingerprint"]
    for plan in plans:
        for cell in _cells(plan):
            current[_variant(cell)] = cell["fingerprint"]
    return current
