"""Command `pai-bench reproduce`: list the tables, judge results and write the files of a table or the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pai_bench import results
from pai_bench.analysis import reference
from pai_bench.analysis.collect import collect, read_table
from pai_bench.analysis.columns import CELL
from pai_bench.errors import PaiBenchError
from pai_bench.reproductions import output, page, schema
from pai_bench.reproductions.schema import Reproduction, load, sweep_arguments

__all__ = ["listing", "load", "report", "sweep_arguments", "write_page"]


def listing() -> str:
    """Return the names and summaries of all reproductions as a table."""
    names = schema.names()
    width = max(map(len, names))
    return "\n".join(f"{name.ljust(width)}  {load(name).summary}" for name in names)


def report(
    reproduction: Reproduction, root: Path | None, out: Path | None, tables: Sequence[Path]
) -> tuple[str, list[Path]]:
    """Write the files of a reproduction; return its table as text, and the paths."""
    resolved = results.resolve_root(root)
    rows = _rows(resolved, tables)
    folder = out or resolved / "reproductions" / reproduction.name
    return output.markdown(reproduction, rows), output.write(reproduction, rows, folder)


def write_page(folder: Path, root: Path | None, tables: Sequence[Path]) -> Path:
    """Write reproduction.md and its figures to `folder`; return the path of the page.

    The page is made from the released results, the results of a folder, and tables.
    """
    return page.write(folder, _rows(results.resolve_root(root), [*reference.tables(), *tables]))


def _rows(root: Path, tables: Sequence[Path]) -> pd.DataFrame:
    """Return the results of a folder and of tables, each cell once; an empty table without results."""
    frames = []
    try:
        frames.append(collect(root).rows)
    except PaiBenchError as error:
        if not str(error.cause).startswith("there is no finished result"):
            raise
    frames += [read_table(table) for table in tables]
    if not frames:
        return pd.DataFrame(columns=[*CELL, "accuracy", "n_kept", "status"])
    cell = [column for column in CELL if column != "source"]
    return pd.concat(frames, ignore_index=True).drop_duplicates(cell)
