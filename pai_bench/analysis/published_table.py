"""Table of own results beside published ones."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pandas as pd

from pai_bench.analysis import published
from pai_bench.analysis.columns import EPOCHS
from pai_bench.analysis.display_names import dataset_name, method_name, model_name
from pai_bench.analysis.figures.curves import accuracy_panel
from pai_bench.analysis.figures.material import Material
from pai_bench.analysis.figures.overlay import differences
from pai_bench.analysis.figures.published_curves import paper_name
from pai_bench.analysis.grid import NONE, Cell, Column, Grid, Row
from pai_bench.analysis.labels import panel_title
from pai_bench.analysis.latex import Page, to_latex
from pai_bench.cells import DENSE

HEAD = ("method", "remaining (%)", "ours", "published", "difference", "differs in")


def compare(material: Material) -> pd.DataFrame:
    """Return ours and published, in per cent, for each point that has both: see `overlay.differences`."""
    found = [
        differences(panel).assign(**setting.columns)
        for setting in material.settings
        if (panel := accuracy_panel(material, setting)).published
    ]
    table = pd.concat(found, ignore_index=True) if found else pd.DataFrame()
    return table.rename(columns={"half": "half_width"})


def described(table: pd.DataFrame) -> list[str]:
    """Return the sentence of the methods paragraph on the differences of `compare`; none without differences."""
    if not len(table):
        return []
    known = int(table["half_width"].notna().sum())
    points = f"{len(table)} point{'s' * (len(table) > 1)}"
    given = f"Differences to published means (ours minus published) are given at {points}"
    if not known:
        return [f"{given}, without an interval, because none has a standard deviation on both sides."]
    where = "" if known == len(table) else f"at {known} of them "
    return [
        f"{given}, {where}with a 95 % Welch t interval for independent samples [[welch1947]]; published numbers are in"
        " no mean of ours and in no test."
    ]


def absence(material: Material) -> str:
    """Return the sentence that no published number matches the results, or "" if one does or none is to be shown."""
    level = material.options.published
    if level == "none" or _matches(material):
        return ""
    if level not in published.LEVELS:
        return f"no published number of {level} has a data set, model, recipe and method of these results"
    every = replace(material, published=published.load(published.LEVELS, suspect=material.options.suspect))
    known = "; --published context shows those of other training protocols" if _matches(every) else ""
    return (
        f"no published number matches these results ({level}: same data set, model, recipe and method){known};"
        " pai-bench list published lists the published numbers"
    )


def _matches(material: Material) -> bool:
    return any(material.published_curves(setting) for setting in material.settings)


def markdown(table: pd.DataFrame) -> str:
    """Format one table per setting: ours | published | difference | differs in."""
    parts = []
    for (dataset, model, recipe), rows in table.groupby(["dataset", "model", "recipe"], sort=False):
        title = " · ".join(part for part in (dataset_name(dataset), model_name(model), recipe) if part)
        lines = [
            "| " + " | ".join(cell.replace("|", "\\|") for cell in (_label(row, rows), *_cells(row))) + " |"
            for row in rows.itertuples()
        ]
        head = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
        parts.append("\n".join([f"### {title}", "", *head, *lines]))
    return "\n\n".join([*parts, _note(table)]) + "\n"


def latex(table: pd.DataFrame, page: Page | None = None) -> str:
    """Format one booktabs table per setting, one row per density under a heading per method."""
    settings = table.groupby(["dataset", "model", "recipe"], sort=False)
    return to_latex([_grid(key, rows) for key, rows in settings], page or Page(), "published")


def _grid(setting: tuple[str, str, str], table: pd.DataFrame) -> Grid:
    """Return the table of a setting; the differences in words are below it, by letter."""
    dataset, model, recipe = setting
    words = list(dict.fromkeys(text for text in table["differs"] if text))
    letter = {text: _letter(place) for place, text in enumerate(words)} | {"": NONE}
    rows = []
    for _, points in table.groupby(["method", "paper"], sort=False):
        rows.append(Row(_label(next(points.itertuples()), table), ()))
        for point in points.itertuples():
            density, ours, theirs, *_ = _cells(point)
            half = "" if math.isnan(point.half_width) else f"± {point.half_width:.2f}"
            difference = Cell(f"{round(point.difference, 2) + 0.0:+.2f}", half)
            rows.append(Row(density, (Cell(ours), Cell(theirs), difference, Cell(letter[point.differs]))))
    heads = tuple(Column((), head) for head in ("Ours", "Published", "Difference", "Differs in"))
    notes = tuple(f"{letter[text]}: {text}" for text in words)
    title = panel_title(dataset_name(dataset), model_name(model), recipe)
    return Grid(title, _note(table), "Kept (%)", heads, tuple(rows), notes)


def _label(row: Any, setting: pd.DataFrame) -> str:
    """Return the method of a row, with the paper where the setting is compared with several."""
    method = "Dense" if row.method == DENSE else method_name(row.method)
    return f"{method}, {paper_name(row.paper)}" if setting["paper"].nunique() > 1 else method


def _letter(place: int) -> str:
    """Return a, b, ..., z, aa, ab, ... for 0, 1, ..."""
    before, last = divmod(place, 26)
    return (_letter(before - 1) if before else "") + chr(ord("a") + last)


def _cells(row: Any) -> list[str]:
    """Return the entries of a row behind the method: remaining weights, ours, published, difference, differs in."""
    density = 100.0 if row.method == DENSE else 100 * row.density
    half = "" if math.isnan(row.half_width) else f" ± {row.half_width:.2f}"
    n = "" if math.isnan(row.n_published) else f" ({row.n_published:.0f})"
    return [
        f"{density:.4g}",
        f"{row.ours:.2f} ({row.n})",
        f"{row.published:.2f}{n}",
        f"{row.difference:+.2f}{half}".replace("-", "\N{MINUS SIGN}"),
        row.differs or "",
    ]


def _note(table: pd.DataFrame) -> str:
    epochs = table.groupby("paper", sort=False)["epoch"].unique()
    papers = "; ".join(
        f"{paper_name(paper)}, {', '.join(dict.fromkeys(EPOCHS.get(epoch, EPOCHS['']) for epoch in found))}"
        for paper, found in epochs.items()
    )
    return (
        f"Test accuracy in per cent with the number of runs; published: {papers}. The difference is ours"
        " minus published, with the half width of a 95 % Welch interval where both have a deviation."
    )
