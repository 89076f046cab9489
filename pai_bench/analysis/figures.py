"""Accuracy against sparsity, ready for a paper."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from pai_bench.analysis.statistics import PANEL, number_of_seeds, split_control
from pai_bench.analysis.style import CONTROL_LABELS, CONTROL_STYLES, DENSE_STYLE, Style, styles
from pai_bench.analysis.tables import measure, panel_title, per_cent, series_label
from pai_bench.cells import DENSE

_RC: dict[Any, Any] = {
    "pdf.fonttype": 42,  # TrueType: editors and publishers refuse Type 3
    "ps.fonttype": 42,
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 4,
    "legend.frameon": False,
    "savefig.dpi": 300,
}
WIDTH = 36
"""Characters of a title that are as wide as a panel."""

_BAD = "collapsed or diverged runs"
_PARTIAL = "some seeds missing"
_ABSENT = "no result yet"


Panel = tuple[str, pd.DataFrame, dict[str, Style]]
"""A title, the points, and how each method in them looks."""


def save_accuracy(summary: pd.DataFrame, stem: Path) -> list[Path]:
    """Draw accuracy against sparsity, a panel for each data set, model and recipe, into STEM.pdf and STEM.png (300
    dpi); returns both."""
    return _save(accuracy_panels(summary), stem)


def save_controls(summary: pd.DataFrame, stem: Path) -> list[Path]:
    """The same with a panel for each method that has controls, beside them."""
    return _save(control_panels(summary), stem)


def accuracy_panels(summary: pd.DataFrame) -> list[Panel]:
    """A panel for each data set, model and recipe."""
    looks = styles(set(summary["method"]) - {DENSE})
    return [(_title(*key), panel, looks) for key, panel in summary.groupby(PANEL, sort=False)]


def control_panels(summary: pd.DataFrame) -> list[Panel]:
    """A panel for each data set, model, recipe and method that has controls; in it, series are named by them."""
    panels: list[Panel] = []
    for key, panel in summary.groupby(PANEL, sort=False):
        spec = panel["method"].map(split_control)
        for method in dict.fromkeys(name for name, control in spec if control is not None):
            shown = panel[spec.map(lambda of, method=method: of[0] in (method, DENSE))].copy()
            shown["method"] = spec[shown.index].map(lambda of: of[0] if of[0] == DENSE else CONTROL_LABELS[of[1]])
            panels.append((f"{method}\n{_title(*key)}", shown, CONTROL_STYLES))
    return panels


def _save(panels: Sequence[Panel], stem: Path) -> list[Path]:
    paths = [stem.with_suffix(".pdf"), stem.with_suffix(".png")]
    with _figure(panels) as figure:
        for path in paths:
            # No date inside: the same results give the same bytes.
            metadata: dict[str, Any] = {"CreationDate": None} if path.suffix == ".pdf" else {}
            figure.savefig(path, metadata=metadata)
    return paths


@contextmanager
def _figure(panels: Sequence[Panel]) -> Iterator[Figure]:
    columns = min(3, len(panels))
    lines = math.ceil(len(panels) / columns)
    with mpl.rc_context(_RC):
        figure = Figure(figsize=(2.0 + 2.5 * columns, 0.55 + 2.15 * lines), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(lines, columns, squeeze=False).flatten()
        legend: dict[str, Line2D] = {}
        several = len({source for _, points, _ in panels for source in points["source"]}) > 1
        for ax, (title, points, looks) in zip(axes, panels, strict=False):
            _draw(ax, points, looks, legend, several)
            ax.set_title(_literal(title), fontsize=7.5)
        for ax in axes[len(panels) :]:
            ax.remove()
        for row in range(lines):
            recipes = [points["recipe"].iloc[0] for _, points, _ in panels[row * columns : (row + 1) * columns]]
            axes[row * columns].set_ylabel(measure(recipes))
        for index in range(max(0, len(panels) - columns), len(panels)):
            axes[index].set_xlabel("Sparsity (%), log density")
        last = [label for label in (_BAD, _PARTIAL, _ABSENT) if label in legend]
        order = [label for label in legend if label not in last] + last
        names = [_literal(label) for label in order]
        figure.legend([legend[label] for label in order], names, loc="outside right upper", handlelength=3.2)
        width, height = figure.get_size_inches()
        figure.set_size_inches(width, max(height, 0.45 + 0.165 * len(order)))  # a legend that is longer than the panels
        shown = pd.concat([points for _, points, _ in panels])
        band = "; band or bar: ± 1 sample standard deviation" if shown["std"].notna().any() else ""
        note = f"Mean over seeds, {number_of_seeds(shown)}{band}."
        figure.supxlabel(note, fontsize=6.5, color="#444444")
        yield figure


def _literal(text: str) -> str:
    """Text without mathematics, which matplotlib reads between dollar signs."""
    return text.replace("$", r"\$")


def _title(dataset: str, model: str, recipe: str) -> str:
    """The name of a panel in lines that are no wider than it."""
    whole = panel_title(dataset, model, recipe)
    if len(whole) <= WIDTH:
        return whole
    lines = [panel_title(dataset, model, "")]
    for part in recipe.split("+") if recipe else ():
        more = f"+{part}" if len(lines) > 1 else part
        if len(lines) > 1 and len(lines[-1] + more) <= WIDTH:
            lines[-1] += more
        else:
            lines.append(more)
    return "\n".join(lines)


def _draw(ax: Axes, panel: pd.DataFrame, looks: dict[str, Style], legend: dict[str, Line2D], several: bool) -> None:
    ax.set_xscale("log")
    _label_sparsities(ax, panel)
    absent: list[tuple[float, str]] = []
    for (source, method), points in panel.groupby(["source", "method"], sort=False):
        label = series_label(method, source, several)
        with_results = points[points["n"] > 0]
        if method == DENSE:
            if len(with_results):
                mean, std = 100 * with_results["mean"].iloc[0], 100 * with_results["std"].fillna(0).iloc[0]
                ax.axhspan(mean - std, mean + std, color=DENSE_STYLE["color"], alpha=0.12, linewidth=0, zorder=1)
                legend.setdefault(label, ax.axhline(mean, zorder=1, **DENSE_STYLE))
            continue
        look = looks[method]
        foreign = bool(source) and several
        legend.setdefault(label, _series(ax, with_results, look, foreign))
        without = points[points["n"] == 0]
        lost = without["collapsed"] + without["diverged"] > 0
        absent += [(1 - sparsity, look.color) for sparsity in without.loc[~lost, "sparsity"]]
        if lost.any():  # runs that have no accuracy
            (line,) = ax.plot(1 - without.loc[lost, "sparsity"], [0.0] * int(lost.sum()), "x", color="black", ms=6)
            line.set(transform=ax.get_xaxis_transform(), clip_on=False)
            legend.setdefault(_BAD, Line2D([], [], ls="", marker="x", color="black", ms=6, mew=0.9))
        partial = with_results[(with_results["n"] < with_results["planned"])]
        if len(partial):
            ax.plot(1 - partial["sparsity"], 100 * partial["mean"], look.marker, mfc="white", mec=look.color, zorder=4)
            legend.setdefault(_PARTIAL, Line2D([], [], ls="", marker="o", mfc="white", mec="#444444"))
        bad = with_results[with_results["collapsed"] + with_results["diverged"] > 0]
        if len(bad):
            ax.plot(1 - bad["sparsity"], 100 * bad["mean"], "x", color="black", ms=6, mew=0.9, zorder=5)
            legend.setdefault(_BAD, Line2D([], [], ls="", marker="x", color="black", ms=6, mew=0.9))
    for place, (density, color) in enumerate(absent):
        height = 0.02 + 0.05 * sum(density == other for other, _ in absent[:place])
        ax.plot(density, height, marker="$?$", color=color, ms=4.5, ls="", transform=ax.get_xaxis_transform(), zorder=5)
        legend.setdefault(_ABSENT, Line2D([], [], ls="", marker="$?$", color="#444444", ms=4.5))
    # A band may leave what accuracy can be; the axis does not follow it.
    low, high = ax.get_ylim()
    ax.set_ylim(max(low, -1), min(high, 101))


def _series(ax: Axes, points: pd.DataFrame, look: Style, foreign: bool) -> Line2D:
    """One method's line and band; what other code measured is drawn thinner."""
    # One run says nothing about spread: no band there.
    density, mean, std = 1 - points["sparsity"], 100 * points["mean"], 100 * points["std"]
    if len(points) == 1:  # a band has no width
        ax.errorbar(density, mean, std, color=look.color, capsize=2, linewidth=0.8, zorder=2)
    else:
        ax.fill_between(density, mean - std, mean + std, color=look.color, alpha=0.15, linewidth=0, zorder=2)
    (line,) = ax.plot(
        density,
        mean,
        color=look.color,
        marker=look.marker,
        linestyle=look.line,
        linewidth=0.6 if foreign else None,
        markersize=2.5 if foreign else (6 if look.marker == "*" else None),
        zorder=3,
    )
    return line


def _label_sparsities(ax: Axes, panel: pd.DataFrame) -> None:
    """Ticks where measurements are, as many as fit, with sparsity increasing to the right."""
    sparsities = sorted(set(panel.loc[panel["method"] != DENSE, "sparsity"]))
    if not sparsities:
        sparsities = [0.0]
    left, right = math.log(1 - sparsities[0]), math.log(1 - sparsities[-1])
    span = (left - right) or 1.0
    shown: dict[float, str] = {}
    # The two ends first, then the shortest labels; a digit takes about 2.7 % of a panel's width.
    texts = {sparsity: per_cent(sparsity) for sparsity in sparsities}
    for sparsity in sorted(sparsities, key=lambda s: (s not in (sparsities[0], sparsities[-1]), len(texts[s]), -s)):
        room = [
            abs(math.log((1 - sparsity) / (1 - other))) / span > 0.027 * (len(texts[sparsity]) + len(text)) / 2 + 0.03
            for other, text in shown.items()
        ]
        if all(room):
            shown[sparsity] = texts[sparsity]
    ax.xaxis.set_major_locator(FixedLocator([1 - s for s in shown]))
    ax.xaxis.set_major_formatter(FixedFormatter(list(shown.values())))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlim(math.exp(left + 0.05 * span), math.exp(right - 0.05 * span))
