"""Published numbers of a setting as curves, and the choice of those that a panel draws."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from pai_bench.analysis.bibliography import citation, entries
from pai_bench.analysis.columns import EPOCHS
from pai_bench.analysis.figures.curves import Panel, PublishedCurve, PublishedPoint, density_of
from pai_bench.analysis.published import LEVELS
from pai_bench.cells import DENSE

if TYPE_CHECKING:
    from pai_bench.analysis.figures.material import Material, Setting


def curves_of(material: Material, setting: Setting) -> tuple[PublishedCurve, ...]:
    """Return the published points for the methods of a setting by paper and method; the best matches come first.

    Ours is the last epoch. Where a paper has points of several matches or epochs for a method, only the best are
    returned. A paper without a method of the setting is left out, although its dense network may match.
    """
    rows = material.published_of(setting)
    if not len(rows):
        return ()
    rows = rows[rows["method"].isin([DENSE, *material.of(setting)["method"]])]
    if not len(rows):
        return ()
    rows = rows.assign(rank=rows["match"].map(LEVELS.index) * 2 + (rows["epoch"] != "last"))
    papers = rows[rows["method"] != DENSE].groupby("paper", sort=False)["rank"].min().sort_values(kind="stable").index
    methods = dict.fromkeys([DENSE, *material.of(setting)["method"]])
    return tuple(
        _curve(material, method, own)
        for paper in papers
        for method in methods
        if len(own := rows[(rows["paper"] == paper) & (rows["method"] == method)])
    )


def _curve(material: Material, method: str, rows: pd.DataFrame) -> PublishedCurve:
    """Return the points of a paper and a method that match best."""
    rows = rows[rows["rank"] == rows["rank"].min()]
    if method == DENSE and (rows["suspect"] == "").any():
        rows = rows[rows["suspect"] == ""]
    rows = rows.assign(series=_series(rows)).sort_values("sparsity", kind="stable")
    first = rows.iloc[0]
    return PublishedCurve(
        method,
        material.look(method),
        epoch=str(first["epoch"]),
        match=str(first["match"]),
        paper=str(first["paper"]),
        differs="; ".join(dict.fromkeys(text for text in rows["differs"] if text)),
        points=tuple(
            PublishedPoint(
                density_of(row.sparsity),
                100 * row.accuracy,
                100 * _number(row.std),
                _number(row.n),
                row.series,
                row.suspect,
            )
            for row in rows.itertuples()
        ),
    )


def _series(rows: pd.DataFrame) -> list[str]:
    """Return what distinguishes published rows of one network and method of pai-bench, "" where nothing does."""
    words = {"model_published": "published as", "method_published": "series"}
    several = {word: rows[name] for name, word in words.items() if name in rows and rows[name].nunique() > 1}
    return [", ".join(f"{word} {names.iloc[place]}" for word, names in several.items()) for place in range(len(rows))]


def _number(value: object) -> float:
    return math.nan if pd.isna(value) else float(value)  # type: ignore[arg-type]


def chosen(panel: Panel, most: int) -> Panel:
    """Return the panel with the published curves of as many papers as give at most `most` series, the best first.

    The first paper is always drawn. Methods in grey have no published curves.
    """
    grey = {method for _, method in panel.muted}
    curves = [curve for curve in panel.published if curve.method not in grey]
    count = sum(not curve.is_dense for curve in panel.curves)
    drawn: list[str] = []
    for paper in dict.fromkeys(curve.paper for curve in curves):
        count += sum(curve.paper == paper and curve.method != DENSE for curve in curves)
        if not drawn or count <= most:
            drawn.append(paper)
    return replace(
        panel,
        published=tuple(curve for curve in curves if curve.paper in drawn),
        undrawn=tuple(dict.fromkeys(curve.paper for curve in curves if curve.paper not in drawn)),
    )


def paper_name(paper: str) -> str:
    """Return the authors and year of a paper in the bibliography, or the name itself."""
    return citation(paper) if paper in entries() else paper


def described(curves: Iterable[PublishedCurve]) -> str:
    """Return epoch and number of runs of published curves in words, as in "last epoch, n = 3"."""
    shown = list(curves)
    epochs = dict.fromkeys(EPOCHS.get(curve.epoch, EPOCHS[""]) for curve in shown)
    counts = sorted({int(point.n) for curve in shown for point in curve.points if math.isfinite(point.n)})
    n = f"n = {counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else "") if counts else "n not stated"
    return ", ".join([*epochs, n])
