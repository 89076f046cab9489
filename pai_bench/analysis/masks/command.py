"""Command `pai-bench compare-masks`: overlap of stored masks, without any training."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pai_bench import results
from pai_bench.analysis.collect import Collection, collect
from pai_bench.analysis.figures import Material, Options, draw, save_all
from pai_bench.analysis.grid import EMPTY, Cell, Column, Grid, Row
from pai_bench.analysis.labels import panel_title, per_cent
from pai_bench.analysis.latex import Page, to_latex
from pai_bench.analysis.markdown import to_markdown
from pai_bench.analysis.masks.overlap import common_draws
from pai_bench.analysis.masks.pairs import KINDS, compare, compare_files
from pai_bench.analysis.selection import Selection
from pai_bench.analysis.statistics import summarise
from pai_bench.core.atomic import check_writable
from pai_bench.errors import PaiBenchError, unknown

_HEADS = ("n", "Jaccard", "expected", "excess", "corrected")
_TITLES = {
    "methods": "methods at equal seed",
    "seeds": "seeds of a method",
    "data": "kinds of scoring data at equal seed",
    "granularity": "granularities at equal seed",
    "files": "mask files",
}
CAPTION = (
    "Overlap of masks (%), mean over n pairs. Jaccard: weights kept by both masks / weights kept by at least one. "
    "Expected: the same for random masks with as many weights in each layer. Excess: their difference, in points. "
    "Corrected: excess / (100 - expected): 0 for random masks, 100 for equal ones."
)


def run(
    root: Path | None,
    files: Sequence[Path],
    selection: Selection,
    kinds: Sequence[str],
    out: Path | None,
    as_json: bool,
) -> None:
    """Compare mask files, or the masks of a results folder; print a table, or JSON; write tables and a figure to `out`.

    Raises: PaiBenchError when there are no two masks to compare, or they are of different networks.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise unknown("comparison", kind, KINDS)
    collection: Collection | None = None
    if files:
        if selection != Selection() or kinds:
            raise PaiBenchError(
                "--methods, --datasets, --filter and --between select results, but mask files are given",
                "leave them out, or leave the files out to compare the masks of a results folder",
            )
        table = compare_files(files)
    else:
        collection = selection.apply(collect(results.resolve_root(root)))
        table = compare(collection.rows, kinds or KINDS)
    grids = grids_of(table)
    if out is not None:
        for path in _write(table, grids, out, collection):
            if not as_json:
                print(path)
    if as_json:
        print(json.dumps(_plain(table), indent=1))
    elif out is None:
        print(to_markdown(grids), end="")


def grids_of(table: pd.DataFrame) -> list[Grid]:
    """Return one table per kind of comparison, with a heading per setting."""
    grids = []
    for kind, lines in table.groupby("between", sort=False):
        rows: list[Row] = []
        texts = lines.astype(object).where(lines.notna(), "")
        for setting, members in texts.groupby(["dataset", "model", "recipe", "sparsity", "within"], sort=False):
            heading = _heading(*setting)
            rows += [Row(heading, ())] if heading else []
            for line in members.to_dict("records"):
                numbers = [_number(line[name]) for name in ("jaccard", "expected", "excess", "corrected")]
                rows.append(Row(f"{line['one']} / {line['other']}", (Cell(str(line["n"])), *numbers)))
        columns = tuple(Column((), head) for head in _HEADS)
        shared = common_draws(zip(lines["one"], lines["other"], strict=True)) if kind == "methods" else ""
        caption = f"{CAPTION} {shared}." if shared else CAPTION
        grids.append(Grid(f"Overlap of masks: {_TITLES[str(kind)]}", caption, "", columns, tuple(rows)))
    return grids


def _heading(dataset: str, model: str, recipe: str, sparsity: Any, within: str) -> str:
    parts = [panel_title(dataset, model, recipe), f"{per_cent(sparsity)} % sparsity" if sparsity != "" else "", within]
    return ", ".join(part for part in parts if part)


def _number(value: Any) -> Cell:
    return EMPTY if value == "" or math.isnan(value) else Cell(f"{100 * value:.1f}")


def _plain(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {str(key): None if pd.isna(value) else value for key, value in line.items()}
        for line in table.to_dict("records")
    ]


def _write(table: pd.DataFrame, grids: Sequence[Grid], folder: Path, collection: Collection | None) -> list[Path]:
    """Write the table as CSV, Markdown and LaTeX, and for results of several methods the figure of their overlap."""
    check_writable(folder, "--out")
    texts = {
        "masks.csv": table.to_csv(index=False),
        "masks.md": to_markdown(grids),
        "masks.tex": to_latex(grids, Page(), "masks"),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    written = [folder / name for name in texts]
    if collection is not None and (table["between"] == "methods").any():
        options = Options(figures=("mask-overlap",))
        drawn = draw(Material(collection.rows, summarise(collection), options))
        written += save_all(drawn, options, folder)
    return written
