"""Collect results: what counts, what is missing, what is stale, what is damaged, as tidy tables."""

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
"""The source of results that lie below the results root; that of a table is the stem of its file's name."""

CELL = ["source", "method", "dataset", "model", "recipe", "sparsity", "seed"]
"""What names a row."""

CONTRACT = ["method", "dataset", "model", "sparsity", "seed", "accuracy"]
"""The columns of a tidy table; any more may follow."""


@dataclass(frozen=True)
class Collection:
    """All that a report is made from."""

    rows: pd.DataFrame
    """One row a result that counts: CELL, accuracy, status, and more."""
    missing: pd.DataFrame
    """One row a planned cell without a result that counts: CELL and state ("failed", "unreadable" or "missing")."""
    stale: tuple[str, ...]
    """Files made by another version or with other settings than those of the newest plan; not counted."""
    damaged: tuple[str, ...]
    """What is wrong with each file that is no result; not counted."""
    unreadable: tuple[str, ...] = ()
    """Which files and folders cannot be read, and why; not counted, though they may hold good results."""
    left_out: int = 0
    """Rows of tables that have no accuracy, and no status that says why."""


def _canonical(sparsity: float) -> float:
    """The one value of a sparsity in results and in tables that state twelve places."""
    return canonical_sparsity(sparsity, 1e-12)


_WORDS = ("method", "dataset", "model", "recipe", "status", "source")

LEFT_OUT = "left out"


def collect(root: Path, tables: Sequence[Path] = ()) -> Collection:
    """Everything below the results root and in tidy tables.

    Raises: PaiBenchError when there is no result at all, or a table cannot be used.
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
        raise PaiBenchError(f"no result can be read: {unreadable[0]}", "mend its permissions or the disk")
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
    """What the results of each table are called: by its name, with its folder's where two have one name.

    Raises: PaiBenchError for a table that is given twice, and where folders have one name too.
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
_EXTRA += [*_COSTS, "device", "scoring_dtype", "float64_overlap", "finished_at", "path"]


def _cells(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for cell in plan["cells"]:
        yield {"source": OURS, **cell}


def _variant(row: dict[str, Any]) -> tuple[str, ...]:
    return row["method"], row["dataset"], row["model"], row["recipe"]


def _current_fingerprints(
    found: Iterable[dict[str, Any]], plans: Iterable[dict[str, Any]]
) -> dict[tuple[str, ...], str]:
    """The fingerprint that counts: the newest plan's; where no plan is, that of the result finished last."""
    current: dict[tuple[str, ...], str] = {}
    for row in sorted(found, key=lambda row: row["finished_at"]):
        current[_variant(row)] = row["fingerprint"]
    for plan in plans:
        for cell in _cells(plan):
            current[_variant(cell)] = cell["fingerprint"]
    return current


def read_table(path: Path, source: str | None = None) -> pd.DataFrame:
    """A tidy table (.csv or .parquet) with the columns of CONTRACT and any more; its source is the file's stem unless
    given, followed by that of a row where the table has a column `source` (a report's results.csv).

    Rows without an accuracy are left out, and counted in the attribute LEFT_OUT, unless their status is collapsed or
    diverged: a run that has failed to learn is never dropped.

    Raises: PaiBenchError when the file cannot be read, columns are missing, cells are empty, numbers or statuses
        cannot be, or two rows are of one cell.
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
            raise PaiBenchError(f"{path}: column {column} holds what is no number: {error}", "write numbers") from None
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
    # Two recipes are never averaged; a table without recipes has one of its own.
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
    """Words as they stand: a method may be called None. Numbers are read to the last digit."""
    frame: pd.DataFrame = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    for column in frame.columns:
        if str(column).strip() not in _WORDS:
            text = frame[column].str.strip()
            frame[column] = text.mask(text.isin(_NO_NUMBER))
            with suppress(ValueError):
                frame[column] = frame[column].astype(float)
    return frame


def _without_blanks(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """The table without blanks around headers and words; floats of fewer bits as the decimals they stand for."""
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
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        reason = str(error).strip().splitlines()[0]
        raise PaiBenchError(f"table {path} cannot be read: {reason}", "give a table that pandas can read") from None
    return frame
