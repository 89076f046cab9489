"""Figure of a reproduction: our intervals beside the published values, or accuracy against the number of weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pai_bench.analysis.display_names import method_name, model_name
from pai_bench.analysis.figures.layout import style
from pai_bench.analysis.style import styles
from pai_bench.cells import DENSE
from pai_bench.reproductions.judge import NOT_REPRODUCED, Judged
from pai_bench.reproductions.schema import Reproduction

_ROW, _WIDTH = 0.26, 5.5  # inches
_MAX_ROWS = 40
"""Largest number of entries in a figure; a longer table is drawn for its first entries."""


def save(reproduction: Reproduction, judged: Sequence[Judged], rows: pd.DataFrame, stem: Path) -> list[Path]:
    """Draw STEM.pdf and STEM.png and return both paths; without results nothing is drawn."""
    with style():
        if reproduction.targets:
            figure = _budgets(reproduction, rows)
        else:
            figure = _intervals([item for item in judged if item.n][:_MAX_ROWS])
        if figure is None:
            return []
        FigureCanvasAgg(figure)
        paths = [stem.with_suffix(suffix) for suffix in (".pdf", ".png")]
        for path in paths:
            # Without a date, equal results give equal files.
            figure.savefig(path, bbox_inches="tight", metadata={"CreationDate": None} if path.suffix == ".pdf" else {})
    return paths


def _intervals(judged: Sequence[Judged]) -> Figure | None:
    """Draw our mean and interval, and the published value and its tolerance, one row per entry."""
    if not judged:
        return None
    figure = Figure(figsize=(_WIDTH, 0.9 + _ROW * len(judged)), layout="constrained")
    axes = figure.subplots()
    for row, item in enumerate(judged):
        entry = item.entry
        _bar(axes, row + 0.15, entry.published, entry.tolerance, entry.tolerance, "#0072B2", "D", "published")
        low, high = (0.0 if math.isnan(end) else abs(item.mean - end) for end in (item.low, item.high))
        color, label = ("#D55E00", "ours, not reproduced") if item.verdict == NOT_REPRODUCED else ("#000000", "ours")
        _bar(axes, row - 0.15, item.mean, low, high, color, "o", label)
    axes.set_yticks(range(len(judged)), [f"{item.entry.label} (n = {item.n})" for item in judged])
    axes.set_ylim(len(judged) - 0.5, -0.5)
    axes.set_xlabel(f"Test {judged[0].entry.measure} (%)")
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")
    handles, labels = axes.get_legend_handles_labels()
    shown = dict(zip(labels, handles, strict=True))
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def _bar(axes: Axes, y: float, x: float, low: float, high: float, color: str, marker: str, label: str) -> None:
    axes.errorbar(
        [x], [y], xerr=[[low], [high]], color=color, marker=marker, markersize=4, linewidth=1, capsize=2, label=label
    )  # fmt: skip


def _budgets(reproduction: Reproduction, rows: pd.DataFrame) -> Figure | None:
    """Draw mean accuracy against the number of kept weights, one panel per pruned model, with the targets.

    Models that run without pruning only are dense networks of few weights; each is a point in all panels.
    """
    models = [model for sweep in reproduction.sweeps for model in str(sweep["models"]).split(",")]
    chosen = rows[rows["model"].isin(models) & rows["dataset"].isin([str(s["datasets"]) for s in reproduction.sweeps])]
    pruned = chosen[chosen["method"] != DENSE]
    present = [model for model in dict.fromkeys(models) if (pruned["model"] == model).any()]
    if not present:
        return None
    small = chosen[~chosen["model"].isin(present)]
    looks = styles(set(pruned["method"]))
    figure = Figure(figsize=(2.4 * len(present) + 0.6, 3.2), layout="constrained")
    for column, axes in enumerate(figure.subplots(1, len(present), sharey=True, squeeze=False)[0]):
        panel = chosen[chosen["model"] == present[column]]
        for method, group in panel.groupby("method"):
            mean = _by_budget(group)
            if method == DENSE:
                axes.axhline(
                    mean.iloc[0], color="#555555", linestyle=(0, (6, 2)), linewidth=0.9, label=method_name(DENSE)
                )
                continue
            look = looks[str(method)]
            axes.plot(
                mean.index, mean, color=look.color, marker=look.marker, linestyle=look.line, markersize=4,
                linewidth=1.1, label=method_name(str(method)),
            )  # fmt: skip
        for model, group in small.groupby("model"):
            mean = _by_budget(group)
            marker = "s" if model == small["model"].iloc[0] else "D"
            axes.plot(
                mean.index,
                mean,
                "k",
                marker=marker,
                fillstyle="none",
                linestyle="",
                label=f"{model_name(str(model))}, {DENSE}",
            )
        for target in reproduction.targets:
            axes.axhline(100 * target.accuracy, color="#CC79A7", linewidth=0.7, label="target")
            axes.plot(target.weights, 100 * target.accuracy, "k+", markersize=7, label="optimum, at most")
        axes.set_title(model_name(present[column]))
        axes.set_xlabel("Weights kept")
        if column == 0:
            axes.set_ylabel("Test accuracy (%)")
    series: dict[str, Any] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        series |= dict(zip(labels, handles, strict=True))
    figure.legend(series.values(), series.keys(), loc="outside lower center", ncols=5, frameon=False)
    return figure


def _by_budget(runs: pd.DataFrame) -> pd.Series[float]:
    """Return the mean accuracy in per cent by number of kept weights."""
    return 100 * runs.groupby(runs["n_kept"].astype(int))["accuracy"].mean()
