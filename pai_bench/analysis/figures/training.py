"""Figures of the course of training, and of effective against requested sparsity."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pai_bench import results
from pai_bench.analysis.columns import OURS
from pai_bench.analysis.figures import captions, operating
from pai_bench.analysis.figures.arrange import even_width
from pai_bench.analysis.figures.curves import density_of
from pai_bench.analysis.figures.drawing import Drawing
from pai_bench.analysis.figures.layout import OWN_AXIS, Row, new_axes, new_figure, panel_inches, place, style
from pai_bench.analysis.figures.legend import Entry
from pai_bench.analysis.figures.material import MUTED, Material, Setting
from pai_bench.analysis.figures.panel import OTHERS, handle, marker_of, series_entries, spaced
from pai_bench.analysis.figures.scale import AXIS_LABELS, set_density_axis, set_ticks, set_value_axis
from pai_bench.analysis.tables import measure, per_cent
from pai_bench.cells import DENSE
from pai_bench.errors import PaiBenchError

SEEDS = 3
"""Largest number of runs per method whose curves are read."""
_DENSITIES = 3


@dataclass(frozen=True)
class Course:
    """Mean accuracy by epoch of a method, in per cent."""

    method: str
    epochs: np.ndarray
    mean: np.ndarray
    n: int


def training(material: Material) -> Drawing | str:
    """Draw accuracy by epoch at three sparsities, one row per setting."""
    found: dict[Setting, dict[float, list[Course]]] = {}
    for setting in material.settings:
        rows = material.runs_of(setting)
        rows = rows[(rows["source"] == OURS) & rows["method"].isin([DENSE, *material.methods])]
        sparsities = sorted(set(rows.loc[rows["method"] != DENSE, "sparsity"]))
        chosen = sorted({sparsities[i] for i in np.linspace(0, len(sparsities) - 1, _DENSITIES).round().astype(int)}
                        ) if sparsities else []  # fmt: skip
        by_sparsity = {
            s: courses
            for s in chosen
            if (courses := _courses(material, rows[(rows["sparsity"] == s) | (rows["method"] == DENSE)]))
        }
        if by_sparsity:
            found[setting] = by_sparsity
    if not found:
        return "the results folder has no results with accuracies by epoch"
    used = {course.method for by in found.values() for courses in by.values() for course in courses}
    methods = [method for method in material.methods if method in used]
    coloured = material.coloured(methods)
    lines = [(setting, group) for setting in found for group in coloured]
    label = measure(material.summary["recipe"])
    columns = min(_DENSITIES if material.options.inches > 5 else 2, max(map(len, found.values())))
    high = min(max(0.9, 0.62 * panel_inches(material.options.inches, columns)), 2.2)
    # Legend and caption need 1.5 inches, the titles of a row 0.32.
    most = max(1, int((material.options.page.height - 1.5) / (high + 0.32)))
    with style():
        entries = series_entries(material, methods, coloured)
        if DENSE in used:
            entries.insert(0, Entry(material.label(DENSE), handle(material.look(DENSE), dense=True)))
        pages = tuple(
            _training_page(material, found, lines[start : start + most], entries, (label, len(coloured) > 1))
            for start in range(0, len(lines), most)
        )
    table = pd.DataFrame(
        [
            {**setting.columns, "sparsity": s, "method": c.method, "epoch": int(e), "accuracy": value, "n": c.n}
            for setting, by in found.items() for s, cs in by.items() for c in cs
            for e, value in zip(c.epochs, c.mean, strict=True)
        ]
    )  # fmt: skip
    caption = captions.sentences(
        f"{label.removesuffix(' (%)')} by epoch: mean over up to {SEEDS} seeds ({captions.count(table['n'])})",
        captions.recipes(material),
    )
    return Drawing("training", "Course of training", pages, caption, table)


def _courses(material: Material, rows: pd.DataFrame) -> list[Course]:
    found = []
    for method in [DENSE, *material.methods]:
        curves: list[dict[int, float]] = []
        for path in rows.loc[rows["method"] == method, "path"].dropna().head(SEEDS):
            with suppress(PaiBenchError, OSError):
                plain = results.read_plain(Path(path))["curve"]
                curves.append({e["epoch"]: e["accuracy"] for e in plain if e["accuracy"] is not None})
        curves = [curve for curve in curves if curve]
        if curves:
            # Runs that ended early lack later epochs, and a mean over other runs would jump there.
            epochs = sorted(set.intersection(*map(set, curves)))
            mean = 100 * np.array([[curve[epoch] for epoch in epochs] for curve in curves]).mean(axis=0)
            found.append(Course(method, np.array(epochs), mean, len(curves)))
    return found


def _training_page(
    material: Material,
    found: dict[Setting, dict[float, list[Course]]],
    lines: Sequence[tuple[Setting, frozenset[str]]],
    entries: Sequence[Entry],
    words: tuple[str, bool],
) -> Figure:
    """Draw a page; `words`: the label of the axis, and whether each row has one method in colour and in its title."""
    label, multiples = words
    inches = material.options.inches
    figure = new_figure(inches)
    columns = min(_DENSITIES if inches > 5 else 2, max(len(by) for by in found.values()))
    wide = panel_inches(inches, columns)
    rows = []
    lengths = {int(course.epochs.max()) for by in found.values() for courses in by.values() for course in courses}
    for setting, coloured in lines:
        by = found[setting]
        name = material.label(*coloured) if multiples else ""
        title = [operating.title(material, setting).replace(" · ", "\n")] * (len(found) > 1) + [name] * bool(name)
        row = Row([], min(max(0.9, 0.62 * wide), 2.2), "\n".join(title))
        shown = list(by.items())[-columns:]
        values = np.concatenate([course.mean for _, courses in shown for course in courses])
        low, high = float(values.min()), float(values.max())
        margin = 0.05 * (high - low) or 1.0
        for sparsity, courses in shown:
            ax = new_axes(figure)
            for place_, course in enumerate(courses):
                look = material.look(course.method)
                line: dict[str, Any] = {"color": look.color, "linestyle": look.line, "linewidth": 0.9}
                if course.method != DENSE:
                    line |= {**marker_of(look, 3.0), "markevery": spaced(len(course.epochs), place_, len(courses))}
                if course.method not in coloured and course.method != DENSE:
                    line = {"color": MUTED, "linewidth": 0.7, "zorder": 1.2}
                ax.plot(course.epochs, course.mean, **line)
            last = int(max(course.epochs.max() for course in courses))
            ax.set_xlim(0, 1.03 * last)  # the last label and the 0 of the next panel stay apart
            step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**6) if last / s * 0.3 < wide)
            ticks = list(range(0, last + 1, step))
            set_ticks(ax.xaxis, ticks, [str(tick) for tick in ticks])
            set_value_axis(ax, low - margin, high + margin, row.height)
            ax.set_title(f"{per_cent(sparsity)} % sparsity")
            if len(lengths) > 1:  # the labels below the lowest panel would be wrong for others
                ax.set_gid(OWN_AXIS)
            row.axes.append(ax)
        row.axes += [None] * (columns - len(shown))
        rows.append(row)
    place(figure, rows, entries, "Epoch", label)
    return figure


def effective(material: Material) -> Drawing | str:
    """Draw effective against requested density, one panel per setting."""
    runs = material.runs
    if "effective_sparsity" not in runs or not runs["effective_sparsity"].notna().any():
        return "no result has an effective sparsity"
    rows = runs[runs["effective_sparsity"].notna() & runs["method"].isin(material.methods)]
    rows = rows.assign(effective=1 - rows["effective_sparsity"].astype(float))
    keys = ["source", "method", "dataset", "model", "recipe", "sparsity"]
    table = rows.groupby(keys, sort=False)["effective"].agg(["mean", "min", "max", "count"]).reset_index()
    methods = [method for method in material.methods if method in set(table["method"])]
    coloured = material.coloured(methods)
    panels = [(s, group) for s in material.settings if len(_of(table, s)) for group in coloured]
    columns = even_width(len(panels), 4 if material.options.inches > 5 else 2)
    # Legend and caption need 1.5 inches, titles of three lines 0.5.
    height = min(panel_inches(material.options.inches, columns), 2.2) + 0.5
    most = min(24, columns * max(1, int((material.options.page.height - 1.5) / height)))
    with style():
        pages = tuple(
            _effective_page(material, table, panels[start : start + most], len(coloured) > 1)
            for start in range(0, len(panels), most)
        )
    caption = captions.sentences(
        "Effective density (weights on a path from input to output) against requested density: mean over seeds "
        f"({captions.count(table['count'])}); bars: smallest and largest",
        "Black line: no weight is lost; 0 is at the lower edge",
        captions.recipes(material),
    )
    return Drawing("effective-sparsity", "Effective against requested density", pages, caption, table)


def _of(table: pd.DataFrame, setting: Setting) -> pd.DataFrame:
    return table[
        (table["dataset"] == setting.dataset) & (table["model"] == setting.model) & (table["recipe"] == setting.recipe)
    ]


def _effective_page(
    material: Material, table: pd.DataFrame, panels: Sequence[tuple[Setting, frozenset[str]]], multiples: bool
) -> Figure:
    inches = material.options.inches
    figure = new_figure(inches)
    columns = even_width(len(panels), 4 if inches > 5 else 2)
    wide = panel_inches(inches, columns)
    low = float(table.loc[table["mean"] > 0, "mean"].min()) / 2
    top = max(float(table["max"].max()), *(density_of(s) for s in table["sparsity"]))
    rows = []
    for start in range(0, len(panels), columns):
        row = Row([], min(wide, 2.2))
        part = panels[start : start + columns]
        for setting, coloured in part:
            ax = new_axes(figure)
            own = _of(table, setting)
            column = pd.concat([_of(table, other) for other, _ in panels[len(row.axes) :: columns]])
            densities = [density_of(s) for s in column["sparsity"].unique()]
            set_density_axis(ax, densities, material.options.x, wide)
            ax.set_yscale("log")
            ax.set_ylim(low / 1.2, 1.2 * top)  # room for the markers at both ends
            ends = [max(densities), min(densities)]
            ax.plot(ends, ends, color="#222222", linewidth=0.8, zorder=1)
            for (source, method), points in own.groupby(["source", "method"], sort=False):
                look = material.look(method, source)
                x = np.array([density_of(s) for s in points["sparsity"]])
                # Zero has no place on a logarithmic axis; the caption states where it is drawn.
                mean = np.maximum(points["mean"].to_numpy(), low)
                if method not in coloured:
                    ax.plot(x, mean, color=MUTED, linewidth=0.7, zorder=1.2)
                    continue
                ends_ = np.array([mean - np.maximum(points["min"], low), points["max"] - mean]).clip(0)
                ax.errorbar(x, mean, ends_, color=look.color, linestyle="", linewidth=0.6, zorder=2)
                ax.plot(x, mean, color=look.color, linestyle=look.line, zorder=3, **marker_of(look, 3.2))
            ticks = [t for t in (1, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001) if low <= t <= 1.2 * top]
            while len(ticks) * 0.16 > row.height:
                ticks = ticks[::2]
            set_ticks(ax.yaxis, ticks, [f"{100 * t:g}" for t in ticks])
            name = [material.label(*coloured)] if multiples else []
            ax.set_title("\n".join([operating.title(material, setting), *name]))
            row.axes.append(ax)
        row.axes += [None] * (columns - len(part))
        rows.append(row)
    used = set(table[["source", "method"]].itertuples(index=False, name=None))
    shown = frozenset() if multiples else panels[0][1]
    series = [(s, m) for s, m in material.series if (s, m) in used]
    entries = [Entry(material.label(m, s), handle(material.look(m, s))) for s, m in series if m in shown]
    if any(m not in shown for _, m in series):
        entries.append(Entry(OTHERS, Line2D([], [], color=MUTED, linewidth=0.8)))
    place(
        figure,
        rows,
        entries,
        f"Requested: {_lower(AXIS_LABELS[material.options.x])}",
        "Effective: weights remaining (%)",
    )
    return figure


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]
