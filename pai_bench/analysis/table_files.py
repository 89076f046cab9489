"""Tidy tables of results (.csv, .parquet) from other sources: read and check them."""

from __future__ import annotations

import csv
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from pai_bench import results
from pai_bench.analysis.columns import CELL, EPOCHS
from pai_bench.cells import canonical_sparsity
from pai_bench.errors import PaiBenchError

CONTRACT = ["method", "dataset", "model", "sparsity", "seed", "accuracy"]
"""Required columns of a tidy table; more columns are allowed."""

LEFT_OUT = "left out"
"""Attribute of a table: its number of rows without an accuracy and without a status that explains it."""

BY_POINT = -(2**52)
"""Seed of the first row of a table of points, which have no seeds."""

_WORDS = (
    *("method", "dataset", "model", "recipe", "status", "source", "epoch", "note", "suspect", "saw"),
    "method_reported",
)
_NUMBERS = ("sparsity", "accuracy", "seed", "chance", "classes", "sparsity_reported")
_NO_NUMBER = ("", "NA", "N/A", "<NA>", "NaN", "nan", "null", "None")
_BOOLEAN = "True or False"
_DERIVED = {"density": "1 - density", "compression": "1 - 1 / compression"}
_SEPARATORS = {";": "semicolon", "\t": "tab", "|": "vertical bar"}


def read_table(path: Path, source: str | None = None, points: bool = False) -> pd.DataFrame:
    """Read a tidy table (.csv or .parquet) with at least the columns of CONTRACT.

    The source of the rows is `source`, by default the file's stem. If the table has a column `source` (such as a
    report's results.csv), its values are appended. Optional columns: recipe, status, epoch, chance or classes, note,
    suspect, saw (see `columns`). With `points`, a table may lack the column seed: it has one row per point, and the
    seeds are BY_POINT and the numbers below it.

    Rows without an accuracy are dropped and counted in the attribute LEFT_OUT, unless their status is collapsed or
    diverged: a run that failed to learn is never dropped.

    Raises: PaiBenchError when the file cannot be read, columns or entries are missing, numbers, statuses or epochs are
        invalid, or two rows describe the same cell.
    """
    frame = _without_blanks(path, _open_table(path))
    if points and "seed" not in frame:
        frame["seed"] = BY_POINT - np.arange(len(frame))
    _check_columns(path, [str(column) for column in frame.columns])
    _convert(path, frame)
    _check_numbers(path, frame)
    frame["seed"] = frame["seed"].astype(int)
    frame["sparsity"] = canonical(frame["sparsity"]) + 0.0  # without the sign of -0
    label = path.stem if source is None else source
    inner = frame["source"] if "source" in frame else pd.Series("", index=frame.index)
    frame["source"] = (label + "/" + inner).where(inner != "", label)
    # Results of different recipes are never averaged; a table without recipes gets the recipe "".
    frame["recipe"] = frame.get("recipe", "")
    frame["status"] = frame["status"].str.lower().replace("", "ok") if "status" in frame else "ok"
    _check_values(path, frame, "status", results.STATUSES, "leave out runs that failed for other reasons")
    epoch = frame["epoch"].str.lower().str.replace(r"[\s_]+", "-", regex=True) if "epoch" in frame else ""
    frame["epoch"] = epoch
    frame["epoch"] = frame["epoch"].replace({"unknown": "", "final": "last"})
    _check_values(path, frame, "epoch", [name for name in EPOCHS if name], "leave it empty if it is not known")
    frame["chance"] = _chance(path, frame)
    for column in ("method_reported", "sparsity_reported"):
        frame[column] = frame.get(column, frame[column.removesuffix("_reported")])
    for column in ("note", "suspect"):
        frame[column] = frame.get(column, "")
    kept = frame["accuracy"].notna() | (frame["status"] != "ok")
    left_out, frame = int((~kept).sum()), frame[kept].copy()
    frame.attrs[LEFT_OUT] = left_out
    repeated = frame[frame.duplicated([*CELL, "epoch", "method_reported"])]
    if len(repeated):
        row = repeated.iloc[0]
        raise PaiBenchError(
            f"{path}: row {repeated.index[0] + 2} repeats {row.method}, {row.dataset}, {row.model},"
            f" sparsity {row.sparsity:g}, seed {row.seed}",
            "keep one row a cell, or add a column recipe or epoch that distinguishes them",
        )
    return frame


def canonical(sparsities: pd.Series) -> pd.Series:
    """Return the canonical values of sparsities from results or from tables that print twelve places."""
    return sparsities.map({value: canonical_sparsity(value, 1e-12) for value in sparsities.unique()})


def _check_columns(path: Path, found: Sequence[str]) -> None:
    absent = [column for column in CONTRACT if column not in found]
    if not absent:
        return
    cause = f"{path} has no column {', '.join(absent)}; found: {', '.join(found)}"
    remedy = f"a table needs {', '.join(CONTRACT)}"
    if path.suffix.lower() == ".csv":
        cause += " (separator: comma)"
        other = next((mark for mark in _SEPARATORS if len(found) == 1 and mark in found[0]), None)
        if other is not None:
            separator = f"{other!r} ({_SEPARATORS[other]})"
            change = "separate columns by commas, and write decimals with a point"
            remedy = f"the separator seems to be {separator}: {change}; {remedy}"
    derived = next((f"sparsity = {_DERIVED[name.lower()]}" for name in found if name.lower() in _DERIVED), None)
    if "sparsity" in absent and derived is not None:
        remedy = f"{remedy}; {derived}"
    if {name.lower() for name in absent} <= {name.lower() for name in found}:
        remedy = f"write the names in lower case; {remedy}"
    raise PaiBenchError(cause, remedy)


def _convert(path: Path, frame: pd.DataFrame) -> None:
    """Convert the known columns in place to numbers or text, and check that required entries exist."""
    for column in _NUMBERS:
        if column not in frame:
            continue
        try:
            if frame[column].dtype.kind in "mM":
                raise ValueError(str(frame[column].dtype))
            unclear = frame[column].dtype == bool or not is_numeric_dtype(frame[column])
            if unclear and frame[column].astype(str).str.lower().isin(["true", "false"]).any():
                raise ValueError(_BOOLEAN)
            frame[column] = pd.to_numeric(frame[column]).astype(float)
        except (ValueError, TypeError) as error:
            raise _not_a_number(path, column, frame[column], str(error)) from None
    for column in _WORDS:
        if column in frame and not (frame[column].dtype == "str" and frame[column].notna().all()):
            frame[column] = frame[column].astype(object).where(frame[column].notna(), "").astype(str)
    for column in CONTRACT:
        empty = frame[frame[column].isna() | (frame[column] == "")]
        if column != "accuracy" and len(empty):
            first = str(empty["method"].iloc[0])
            mark = next((mark for mark in _SEPARATORS if first.count(mark) >= len(CONTRACT) - 1), None)
            remedy = (
                "fill it in, or leave the row out" if mark is None else f"separate its columns by commas, not {mark!r}"
            )
            raise PaiBenchError(f"{path}: row {empty.index[0] + 2} has no {column}", remedy)


def _not_a_number(path: Path, column: str, values: pd.Series, reason: str) -> PaiBenchError:
    """Return the error for a column with a value that is not a number; name the value and its row."""
    texts = values.astype(str).where(values.notna())
    wrong = texts[texts.notna() & pd.to_numeric(texts, errors="coerce").isna()]
    remedy = "write numbers"
    if len(wrong) and reason != _BOOLEAN:
        reason = f"{wrong.iloc[0]!r} (row {wrong.index[0] + 2})"
        remedy = "write decimals with a point, and no separator of thousands" if "," in wrong.iloc[0] else remedy
        remedy = "write fractions, not per cent" if wrong.iloc[0].rstrip().endswith("%") else remedy
    return PaiBenchError(f"{path}: column {column} has a value that is not a number: {reason}", remedy)


def _check_numbers(path: Path, frame: pd.DataFrame) -> None:
    # Seeds are read as floats, which are exact up to 2^53 only.
    odd = frame[(frame["seed"] % 1 != 0) | (frame["seed"].abs() > 2**53)]
    if len(odd):
        raise PaiBenchError(
            f"{path}: seed {odd['seed'].iloc[0]:g} (row {odd.index[0] + 2}) is not a whole number",
            "write whole numbers",
        )
    for column, top in (("accuracy", "1]"), ("sparsity", "1)"), ("sparsity_reported", "1)")):
        values = frame[column].dropna() if column in frame else pd.Series(dtype=float)
        wrong = values[(values < 0) | ((values > 1) if column == "accuracy" else (values >= 1))]
        if len(wrong):
            raise PaiBenchError(
                f"{path}: {column} {wrong.iloc[0]:g} (row {wrong.index[0] + 2}) is not in [0, {top}",
                "write fractions, not per cent" if 1 < wrong.iloc[0] <= 100 else f"correct the {column}",
            )


def _check_values(path: Path, frame: pd.DataFrame, column: str, known: tuple[str, ...] | list[str], hint: str) -> None:
    unknown = frame[~frame[column].isin([*known, ""])]
    if len(unknown):
        raise PaiBenchError(
            f"{path}: {column} {unknown[column].iloc[0]!r} (row {unknown.index[0] + 2}) is not known",
            f"known: {', '.join(known)}; {hint}",
        )


def _chance(path: Path, frame: pd.DataFrame) -> pd.Series:
    """Return the chance accuracy of each row from the column chance or classes; NaN where neither has a value."""
    chance = frame["chance"] if "chance" in frame else pd.Series(float("nan"), index=frame.index)
    classes = frame["classes"] if "classes" in frame else pd.Series(float("nan"), index=frame.index)
    for column, wrong, allowed in (
        ("chance", chance[(chance <= 0) | (chance >= 1)], "a fraction between 0 and 1"),
        ("classes", classes[(classes < 2) | (classes % 1 > 0)], "a whole number from 2 on"),
    ):
        if len(wrong):
            raise PaiBenchError(
                f"{path}: {column} {wrong.iloc[0]:g} (row {wrong.index[0] + 2}) is not {allowed}",
                "chance is 1 / number of classes",
            )
    both = frame[(chance * classes - 1).abs() > 0.01]
    if len(both):
        raise PaiBenchError(
            f"{path}: chance {chance[both.index[0]]:g} and classes {classes[both.index[0]]:g} (row {both.index[0] + 2})"
            " contradict each other",
            "keep one of the columns",
        )
    return chance.fillna(1 / classes)


def _read_csv(path: Path) -> pd.DataFrame:
    """Read a CSV file with text columns unchanged (a method may be called None) and numbers to full precision."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        frame: pd.DataFrame = pd.read_csv(
            path, dtype=str, keep_default_na=False, skipinitialspace=True, index_col=False
        )
    _check_repeated(path, [name for name in _header(path) if name])  # pandas renames the second of two equal columns
    for column in frame.columns:
        if str(column).strip() not in _WORDS:
            with suppress(ValueError):
                frame[column] = frame[column].astype(float)
                continue
            text = frame[column].str.strip()
            frame[column] = text.mask(text.isin(_NO_NUMBER))
            with suppress(ValueError):
                frame[column] = frame[column].astype(float)
    return frame


def _read_parquet(path: Path) -> pd.DataFrame:
    """Read a Parquet file; an index with names, as pandas saves it, is columns of the table."""
    frame: pd.DataFrame = pd.read_parquet(path)
    return frame.reset_index() if any(name is not None for name in frame.index.names) else frame


def _header(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="", errors="replace") as file:
        return [name.strip() for name in next(csv.reader(file))]


def _without_blanks(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """Remove blanks and invisible characters around and in names; convert 16- and 32-bit floats to what they print."""
    frame = frame.rename(columns=lambda column: str(column).strip())
    _check_repeated(path, list(frame.columns))
    for column in frame.columns:
        if column in _WORDS:
            if not all(map(pd.api.types.is_hashable, frame[column])):
                raise PaiBenchError(f"{path}: column {column} has values of several parts", "write one name a row")
            texts = {value: _visible(value) for value in frame[column].unique() if isinstance(value, str)}
            if any(text != value for value, text in texts.items()):
                frame[column] = frame[column].replace(texts)
        elif frame[column].dtype in ("float16", "float32"):
            # By way of the text: 0.9 in float32 would become 0.8999999761581421, another operating point.
            frame[column] = frame[column].astype(str).astype(float)
    return frame


def _visible(text: str) -> str:
    """Return a text in one line, without characters that do not print, such as a zero-width space."""
    return " ".join("".join(c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf")).split())


def _check_repeated(path: Path, columns: Sequence[str]) -> None:
    repeated = next((name for position, name in enumerate(columns) if name in columns[:position]), None)
    if repeated is not None:
        raise PaiBenchError(f"{path} has two columns {repeated}", "rename or remove one of them")


def _open_table(path: Path) -> pd.DataFrame:
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {".csv": _read_csv, ".parquet": _read_parquet}
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
    except pd.errors.ParserWarning:
        _check_columns(path, _header(path))  # decimal commas between semicolons look like more fields
        raise PaiBenchError(
            f"{path}: its rows have more fields than its header",
            "name every column, separate columns by commas, and write decimals with a point",
        ) from None
    except UnicodeDecodeError as error:
        raise PaiBenchError(f"table {path} is not in UTF-8: {error.reason}", "save the table in UTF-8") from None
    except (OSError, ValueError) as error:  # pandas' parser errors are subclasses of ValueError
        reason = str(error).strip().splitlines()[0]
        remedy = f"a table needs {', '.join(CONTRACT)}"
        if "Expected" in reason and "saw" in reason:
            _check_columns(path, _header(path))  # decimal commas between semicolons look like fields
            remedy = 'put values that contain a comma in double quotes, as in "grasp:temperature=1,bn=eval"'
        raise PaiBenchError(f"table {path} cannot be read: {reason}", remedy) from None
    return frame
