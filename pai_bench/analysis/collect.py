"""Collection of results as tidy tables: valid, missing, stale and damaged ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from pai_bench import results
from pai_bench.cells import Cell, canonical_sparsity
from pai_bench.errors import PaiBenchError
from pai_bench.results import index

OURS = ""
"""Source of results below the results root; the source of a table is the stem of its file name."""

CELL = ["source", "method", "dataset", "model", "recipe", "sparsity", "seed"]
"""Columns that identify a row."""

CONTRACT = ["method", "dataset", "model", "sparsity", "seed", "accuracy"]
"""Required columns of a tidy table; more columns are allowed."""


@dataclass(frozen=True)
class Collection:
    """Input of a report."""

    rows: pd.DataFrame
    """One row per valid result: CELL, accuracy, status, and more."""
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


def _canonical(sparsity: float) -> float:
    """Return the canonical value of a sparsity from results or from tables that print twelve places."""
    return canonical_sparsity(sparsity, 1e-12)


_WORDS = ("method", "dataset", "model", "recipe", "status", "source")

LEFT_OUT = "left out"


def collect(root: Path, tables: Sequence[Path] = ()) -> Collection:
    """Collect all results below the results root and in tidy tables.

    Raises: PaiBenchError when there are no results at all, or a table is invalid.
    """
    held = index.read(root)
    found = [{"source": OURS, **row, **{key: row["costs"].get(key) for key in _COSTS}} for row in held.rows]
    read = results.read_plans(root)
    plans = read.found
    planned = {tuple(cell[column] for column in CELL): cell for plan in plans for cell in _cells(plan)}
    current = _current_fingerprints(found, plans)
    valid = [row for row in found if row["fingerprint"] == current[_variant(row)]]
    stale = tuple(row["path"] for row in found if row["fingerprint"] != current[_variant(row)])
    rows = pd.DataFrame(valid, columns=[*CELL, *_EXTRA]).drop_duplicates(CELL)
    have = {tuple(row) for row in rows[CELL].itertuples(index=False)}
    missing = [row for key, row in planned.items() if key not in have]
    for row in missing:
        cell = Cell(*(row[field.name] for field in fields(Cell)))
        if held.hides(results.path(root, cell, row["recipe"], current[_variant(row)])):
            row["state"] = "unreadable"
        else:
            failed = results.has_failed(root, cell, row["recipe"], row["fingerprint"])
            row["state"] = "failed" if failed else "missing"
    frames = [rows, *(read_table(table, source) for table, source in _sources(tables).items())]
    left_out = sum(frame.attrs.get(LEFT_OUT, 0) for frame in frames)
    rows = pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)
    rows["sparsity"] = rows["sparsity"].map(_canonical)
    unreadable = tuple(f"{place} cannot be read: {why}" for place, why in held.unreadable.items())
    if rows.empty and unreadable:
        raise PaiBenchError(f"no result can be read: {unreadable[0]}", "correct its permissions or repair the disk")
    if rows.empty:
        planned_note = f" yet ({len(missing)} cells are planned)" if missing else ""
        raise PaiBenchError(
            f"there is no finished result in {root}{planned_note}",
            "run pai-bench sweep first, or name the folder with --results, or a table with --from",
        )
    lacking = pd.DataFrame(missing, columns=[*CELL, "state"])
    lacking["sparsity"] = lacking["sparsity"].map(_canonical)
    return Collection(rows, lacking, stale, (*held.damaged, *read.damaged), unreadable, left_out)


def _sources(tables: Sequence[Path]) -> dict[Path, str]:
    """Return the source name of each table: its stem, preceded by its folder's name where stems are equal.

    Raises: PaiBenchError for a repeated table, and for equal folder names of tables with equal stems.
    """
    if len({table.resolve() for table in tables}) < len(tables):
        raise PaiBenchError("a table is given twice to --from", "give it once")
    stems = Counter(table.stem for table in tables)
    names = {
        table: table.stem if stems[table.stem] == 1 else f"{table.resolve().parent.name}/{table.stem}"
        for table in tables
    }
    for name, count in Counter(names.values()).items():
        if count > 1:
            raise PaiBenchError(f"{count} tables are called {name}", "rename one of them")
    return names


_EXTRA = ["accuracy", "status", "actual_sparsity", "effective_sparsity", "fingerprint", "mask_hash", "init_hash"]
_COSTS = ["score_seconds", "train_seconds"]
_EXTRA += [*_COSTS, "device", "scoring_dtype", "float64_overlap", "n_kept", "tied_at_cut", "finished_at", "path"]


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
    for row in sorted(found, key=lambda row: row["finished_at"]):
        current[_variant(row)] = row["fingerprint"]
    for plan in plans:
        for cell in _cells(plan):
            current[_variant(cell)] = cell["fingerprint"]
    return current


def read_table(path: Path, source: str | None = None) -> pd.DataFrame:
    """Read a tidy table (.csv or .parquet) with at least the columns of CONTRACT.

    The source of the rows is `source`, by default the file's stem. If the table has a column `source` (such as a
    report's results.csv), its values are appended.

    Rows without an accuracy are dropped and counted in the attribute LEFT_OUT, unless their status is collapsed or
    diverged: a run that failed to learn is never dropped.

    Raises: PaiBenchError when the file cannot be read, columns or entries are missing, numbers or statuses are
        invalid, or two rows describe the same cell.
    """
    frame = _without_blanks(path, _open_table(path))
    absent = [column for column in CONTRACT if column not in frame]
    if absent:
        raise PaiBenchError(f"{path} has no column {', '.join(absent)}", f"a table needs {', '.join(CONTRACT)}")
    for column in ("sparsity", "accuracy", "seed"):
        try:
            if frame[column].map(lambda value: str(value).lower() in ("true", "false")).any():
                raise ValueError("True or False")
            frame[column] = pd.to_numeric(frame[column]).astype(float)
        except (ValueError, TypeError) as error:
            raise PaiBenchError(
                f"{path}: column {column} has a value that is not a number: {error}", "write numbers"
            ) from None
    for column in _WORDS:
        if column in frame:
            frame[column] = frame[column].astype(object).where(frame[column].notna(), "").astype(str)
    for column in CONTRACT:
        empty = frame[frame[column].isna() | (frame[column] == "")]
        if column != "accuracy" and len(empty):
            raise PaiBenchError(f"{path}: row {empty.index[0] + 2} has no {column}", "fill it in, or leave the row out")
    odd = frame[(frame["seed"] % 1 != 0) | (frame["seed"].abs() > 2**53)]
    if len(odd):
        raise PaiBenchError(
            f"{path}: seed {odd['seed'].iloc[0]:g} (row {odd.index[0] + 2}) is not a whole number",
            "write whole numbers",
        )
    for column, top in (("accuracy", "1]"), ("sparsity", "1)")):
        values = frame[column].dropna()
        wrong = values[(values < 0) | ((values > 1) if column == "accuracy" else (values >= 1))]
        if len(wrong):
            raise PaiBenchError(
                f"{path}: {column} {wrong.iloc[0]:g} (row {wrong.index[0] + 2}) is not in [0, {top}",
                "write fractions, not per cent",
            )
    frame["seed"] = frame["seed"].astype(int)
    frame["sparsity"] = frame["sparsity"].map(_canonical)
    label = path.stem if source is None else source
    inner = frame["source"] if "source" in frame else pd.Series("", index=frame.index)
    frame["source"] = [f"{label}/{name}" if name else label for name in inner]
    # Results of different recipes are never averaged; a table without recipes gets the recipe "".
    frame["recipe"] = frame.get("recipe", "")
    frame["status"] = frame["status"].str.lower().replace("", "ok") if "status" in frame else "ok"
    unknown = frame[~frame["status"].isin(results.STATUSES)]
    if len(unknown):
        raise PaiBenchError(
            f"{path}: status {unknown['status'].iloc[0]!r} (row {unknown.index[0] + 2}) is not known",
            f"known: {', '.join(results.STATUSES)}; leave out what has failed for other reasons",
        )
    kept = frame["accuracy"].notna() | (frame["status"] != "ok")
    left_out, frame = int((~kept).sum()), frame[kept].copy()
    frame.attrs[LEFT_OUT] = left_out
    repeated = frame[frame.duplicated(CELL)]
    if len(repeated):
        row = repeated.iloc[0]
        raise PaiBenchError(
            f"{path}: row {repeated.index[0] + 2} repeats {row.method}, {row.dataset}, {row.model},"
            f" sparsity {row.sparsity:g}, seed {row.seed}",
            "keep one row a cell, or add a column recipe that tells them apart",
        )
    return frame


_NO_NUMBER = ("", "NA", "N/A", "<NA>", "NaN", "nan", "null", "None")


def _read_csv(path: Path) -> pd.DataFrame:
    """Read a CSV file with text columns unchanged (a method may be called None) and numbers to full precision."""
    frame: pd.DataFrame = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    for column in frame.columns:
        if str(column).strip() not in _WORDS:
            text = frame[column].str.strip()
            frame[column] = text.mask(text.isin(_NO_NUMBER))
            with suppress(ValueError):
                frame[column] = frame[column].astype(float)
    return frame


def _without_blanks(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """Strip whitespace from headers and text; convert 16- and 32-bit floats to the decimals that they print as."""
    frame = frame.rename(columns=lambda column: str(column).strip())
    repeated = frame.columns[frame.columns.duplicated()]
    if len(repeated):
        raise PaiBenchError(f"{path} has two columns {repeated[0]}", "rename or remove one of them")
    for column in frame.columns:
        if column in _WORDS:
            frame[column] = frame[column].map(lambda value: value.strip() if isinstance(value, str) else value)
        elif frame[column].dtype in ("float16", "float32"):
            frame[column] = frame[column].astype(str).astype(float)
    return frame


def _open_table(path: Path) -> pd.DataFrame:
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {".csv": _read_csv, ".parquet": pd.read_parquet}
    suffix = path.suffix.lower()
    if suffix not in readers:
        raise PaiBenchError(f"table {path} is neither .csv nor .parquet", "give one of these to --from")
    try:
        frame: pd.DataFrame = readers[suffix](path)
    except FileNotFoundError:
        raise PaiBenchError(
            f"table {path} does not exist", "give the path of a .csv or .parquet file to --from"
        ) from None
    except ImportError:
        raise PaiBenchError(f"{path} needs pyarrow to be read", "run: pip install 'pai-bench[parquet]'") from None
    except (OSError, ValueError) as error:  # pandas' parser errors are subclasses of ValueError
        reason = str(error).strip().splitlines()[0]
        raise PaiBenchError(f"table {path} cannot be read: {reason}", "give a table that pandas can read") from None
    return frame
