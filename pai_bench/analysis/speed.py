"""Measured speed beside accuracy: the records of `pai-bench speed`, and their table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd

from pai_bench.analysis.columns import PANEL
from pai_bench.analysis.display_names import method_name
from pai_bench.analysis.grid import Cell, Column, Grid, Row
from pai_bench.analysis.labels import panel_title, per_cent
from pai_bench.analysis.latex import Page, to_latex
from pai_bench.analysis.markdown import to_markdown
from pai_bench.analysis.report_tables import ReportTables
from pai_bench.cells import DENSE
from pai_bench.results import speeds

SETTING = ["device", "dtype", "threads", "batch_size", "rounds", "torch"]
"""Columns of the setting of a measurement."""

HEADS = ("Speed-up", "Time (ms)", "Parameters (%)", "FLOPs (%)", "Memory (%)")
CAPTION = (
    "Measured forward passes: speed-up, dense time / own time in the same round, median over the rounds with the"
    " quantiles 0.1 and 0.9; median time; and parameters, operations and peak memory (parameters and activations)"
    " relative to the dense network. Dense: two timings of the same network, which show the noise of the machine, from"
    " the measurement with the median time of the panel."
    " Masked: zeros in dense tensors."
)


def read(root: Path, rows: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return one row per measured form of the results `rows`, and remarks on records that do not belong to one.

    rows: of a collection, with the method, panel, sparsity, seed and mask_hash.
    """
    found, damaged = speeds.read_speeds(root)
    keys = ["method", "dataset", "model", "recipe", "sparsity", "seed", "mask_hash"]
    known = set(rows.reindex(columns=keys).itertuples(index=False, name=None))
    lines = []
    for speed in found:
        cell = speed.cell
        key = (cell.method, cell.dataset, cell.model, speed.recipe, cell.sparsity, cell.seed, speed.mask_hash)
        lines += speed.rows() if key in known else []
    remarks = (f"{len(damaged)} records of pai-bench speed are damaged: run it again",) if damaged else ()
    return pd.DataFrame(lines), remarks


def with_table(texts: ReportTables, table: pd.DataFrame, page: Page) -> ReportTables:
    """Return the texts of a report with the table of measured speed, if there is one."""
    if table.empty:
        return texts
    found = grids(table)
    files = {"speed.md": to_markdown(found), "speed.tex": to_latex(found, page, "speed")}
    files["speed.csv"] = table.to_csv(index=False)
    return replace(
        texts,
        files={**texts.files, **files},
        parts={**texts.parts, "Measured speed": files["speed.md"]},
        speed=tuple(found),
    )


def settings(table: pd.DataFrame) -> Iterator[tuple[speeds.Setting, pd.DataFrame]]:
    """Yield the rows of each setting of the measurements."""
    for values, rows in table.groupby(SETTING, sort=False):
        yield speeds.Setting(**dict(zip(SETTING, values, strict=True))), rows


def grids(table: pd.DataFrame) -> list[Grid]:
    """Return one table for each setting of the measurements, with a heading for each panel."""
    found = []
    for setting, measured in settings(table):
        rows: list[Row] = []
        for panel, lines in measured.groupby(PANEL, sort=False):
            rows.append(Row(panel_title(*panel), ()))
            rows += _rows(lines)
        title = f"Measured speed: {setting}, torch {setting.torch}"
        found.append(Grid(title, CAPTION, "", tuple(Column((), head) for head in HEADS), tuple(rows)))
    return found


def _rows(lines: pd.DataFrame) -> Iterator[Row]:
    """Yield the row of the dense network nearest its median time, and a row for every form of the pruned ones."""
    dense = lines[lines["form"] == DENSE]
    # A measured row and not a mean, so that its time, quantiles and memory belong together.
    middle = dense.iloc[(dense["seconds"] - dense["seconds"].median()).abs().argsort()[:1]].to_dict("records")[0]
    yield Row("Dense", _cells(middle, middle))
    for _, own in lines.groupby(["method", "sparsity"], sort=False):
        reference = own[own["form"] == DENSE].to_dict("records")[0]
        for line in own[own["form"] != DENSE].to_dict("records"):
            label = f"{method_name(line['method'])}, {per_cent(line['sparsity'])} %, {line['form']}"
            yield Row(label, _cells(line, reference))


def _cells(line: dict[str, float], dense: dict[str, float]) -> tuple[Cell, ...]:
    shares = (f"{100 * line[name] / dense[name]:.1f}" for name in ("parameters", "flops", "peak_bytes"))
    spread = f"[{line['ratio_low']:.2f}, {line['ratio_high']:.2f}]"
    return Cell(f"{line['ratio']:.2f}", spread), Cell(f"{1000 * line['seconds']:.3g}"), *map(Cell, shares)
