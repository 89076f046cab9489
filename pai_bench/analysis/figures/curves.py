"""Curves of a setting: the points of each method, the dense reference and published points, as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import pandas as pd

from pai_bench.analysis.figures.material import Material, Setting
from pai_bench.analysis.style import Style
from pai_bench.cells import DENSE, canonical_sparsity, exact_sparsity

NAN = math.nan


@cache
def density_of(sparsity: float) -> float:
    """Return 1 - sparsity without a rounding error: 0.1 for 0.9."""
    return canonical_sparsity(float(1 - exact_sparsity(sparsity)))


def mostly_partial(panels: Sequence[Panel]) -> bool:
    """Return True if some runs of most points are missing, as in a sweep that is still running."""
    counted = [point for panel in panels for point in panel.points if point.n]
    return sum(point.n < point.planned for point in counted) > len(counted) / 2


@dataclass(frozen=True)
class Point:
    """A point of a curve; accuracies and differences are in per cent and percentage points."""

    density: float
    mean: float
    """NaN without any accuracy."""
    spread: float
    """Sample standard deviation over seeds; NaN for one seed and where a run failed."""
    n: int
    planned: int
    failed: int
    """Runs that collapsed, diverged or ended at chance."""


@dataclass(frozen=True)
class Curve:
    """A method in a setting, or the dense reference (one point at density 1)."""

    method: str
    source: str
    label: str
    look: Style
    points: tuple[Point, ...]

    @property
    def is_dense(self) -> bool:
        """True for the dense reference."""
        return self.method == DENSE


@dataclass(frozen=True)
class PublishedPoint:
    """A published number: accuracy in per cent with the deviation over its n runs, NaN where not stated."""

    density: float
    mean: float
    std: float
    n: float
    series: str = ""
    """Published network and series in words, where several are one network and method of pai-bench."""
    suspect: str = ""
    """The reason why the number is not a target, "" for none."""


@dataclass(frozen=True)
class PublishedCurve:
    """Published points of a method of pai-bench."""

    method: str
    look: Style
    epoch: str
    match: str
    paper: str
    """Key of the paper, or the name that a table gives."""
    differs: str
    """Differences in words, "" for none."""
    points: tuple[PublishedPoint, ...]


@dataclass(frozen=True)
class Panel:
    """The curves of one panel, its published curves, and its reference values."""

    setting: Setting
    curves: tuple[Curve, ...]
    published: tuple[PublishedCurve, ...] = ()
    undrawn: tuple[str, ...] = ()
    """Papers whose published curves are left out, because there would be too many series."""
    chance: float = NAN
    """Accuracy of guessing in per cent; NaN where the number of classes is not known."""
    title: str = ""
    muted: frozenset[tuple[str, str]] = frozenset()
    """(source, method) of the curves that are drawn in grey."""

    @property
    def points(self) -> list[Point]:
        """All points of all curves."""
        return [point for curve in self.curves for point in curve.points]

    @property
    def densities(self) -> list[float]:
        """All densities of the pruned points."""
        return sorted({point.density for curve in self.curves if not curve.is_dense for point in curve.points})

    def dense(self, source: str) -> Curve | None:
        """Return the dense reference of a source."""
        return next((curve for curve in self.curves if curve.is_dense and curve.source == source), None)


def accuracy_panel(material: Material, setting: Setting) -> Panel:
    """Return the accuracies of all methods of a setting."""
    found = material.of(setting)
    curves = [
        Curve(method, source, material.label(method, source), material.look(method, source), points)
        for (source, method), points in points_by_series(found).items()
    ]
    published = material.published_curves(setting)
    return Panel(setting, tuple(curves), published, chance=100 * material.chance(setting))


def points_by_series(
    rows: pd.DataFrame, mean: str = "mean", std: str = "std"
) -> dict[tuple[str, str], tuple[Point, ...]]:
    """Return the points by (source, method), in order of sparsity, from the columns `mean` and `std` of the summary."""
    found: dict[tuple[str, str], list[Point]] = {}
    columns = ("source", "method", "sparsity", mean, std, "n", "planned", "failed")
    values = (rows[name].tolist() for name in columns)
    for source, method, sparsity, value, spread, n, planned, failed in zip(*values, strict=True):
        point = Point(density_of(sparsity), 100 * value, 100 * spread if failed == 0 else NAN, n, planned, failed)
        found.setdefault((source, method), []).append(point)
    return {key: tuple(sorted(points, key=lambda point: -point.density)) for key, points in found.items()}


def difference_panel(material: Material, setting: Setting, most: int = 10) -> Panel | None:
    """Return accuracy minus dense accuracy, in percentage points, at the `most` highest densities.

    Differences are paired by seed; a method without a common seed is compared with the mean of the dense runs. Returns
    None for a setting without a dense result.
    """
    found = material.of(setting)
    sparsities = sorted(found.loc[found["method"] != DENSE, "sparsity"].unique())[:most]
    found = found[(found["method"] == DENSE) | found["sparsity"].isin(sparsities)]
    if not found["difference"].notna().any():
        return None
    curves = [
        Curve(
            method,
            source,
            material.label(method, source),
            material.look(method, source),
            (Point(1.0, 0.0, NAN, points[0].n, points[0].planned, 0),) if method == DENSE else points,
        )
        for (source, method), points in points_by_series(found, "difference", "difference_std").items()
    ]
    return Panel(setting, tuple(curves))


def accuracy_range(panels: Sequence[Panel]) -> tuple[float, float]:
    """Return the lowest and highest value of all points with their deviations; chance level where runs fail."""
    low, high = math.inf, -math.inf
    for panel in panels:
        for curve in panel.curves:
            for point in curve.points:
                if math.isfinite(point.mean):
                    spread = point.spread if math.isfinite(point.spread) else 0.0
                    low, high = min(low, max(point.mean - spread, 0)), max(high, min(point.mean + spread, 100))
                    if point.failed and math.isfinite(panel.chance):
                        low = min(low, panel.chance)
        for published in panel.published:
            for shown in published.points:
                low, high = min(low, shown.mean), max(high, shown.mean)
    return (low, high) if low <= high else (0.0, 100.0)


def table(panels: Sequence[Panel]) -> pd.DataFrame:
    """Return the numbers behind panels, one row a point, in per cent or percentage points."""
    rows = [
        {
            **panel.setting.columns,
            "source": curve.source,
            "method": curve.method,
            "density": 1.0 if curve.is_dense else point.density,
            "mean": point.mean,
            "std": point.spread,
            "n": point.n,
            "planned": point.planned,
            "failed": point.failed,
        }
        for panel in panels
        for curve in panel.curves
        for point in curve.points
    ]
    published = [
        {
            **panel.setting.columns,
            "source": "published",
            "method": curve.method,
            "density": point.density,
            "mean": point.mean,
            "std": point.std,
            "n": point.n,
            "paper": curve.paper,
        }
        for panel in panels
        for curve in panel.published
        for point in curve.points
    ]
    return pd.DataFrame([*rows, *published])
