"""Material of the figures: runs, points and published numbers of a report, with looks and labels of the methods."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from pai_bench.analysis.columns import PANEL, POINT
from pai_bench.analysis.display_names import dataset_name, is_spec_of, method_name, recipe_names
from pai_bench.analysis.figures.options import Options
from pai_bench.analysis.statistics import split_control
from pai_bench.analysis.style import DENSE_LOOK, Style, by_value, from_source, styles
from pai_bench.cells import DENSE

if TYPE_CHECKING:
    from pai_bench.analysis.figures.curves import PublishedCurve

MARKS = ("†", "‡", "§", "¶", "*", "**")
MUTED = "#BBBBBB"
SERIES = 12
"""Largest number of series in one panel; more are drawn as small multiples, or with highlighted methods."""


class Setting(NamedTuple):
    """A data set, a model and a recipe."""

    dataset: str
    model: str
    recipe: str

    @property
    def columns(self) -> dict[str, str]:
        """The setting as columns of a table."""
        return self._asdict()


@dataclass(frozen=True)
class Material:
    """Results that figures show.

    runs: one row a run, with at least source, method, dataset, model, recipe, sparsity, seed, accuracy and status.
    summary: one row a point, as `statistics.summarise` returns it.
    published: rows of published results, with the columns of `published.COLUMNS`.
    speeds: one row a measured form of a network, as `analysis.speed.read` returns it.
    """

    runs: pd.DataFrame
    summary: pd.DataFrame
    options: Options = field(default_factory=Options)
    published: pd.DataFrame = field(default_factory=pd.DataFrame)
    root: Path | None = None
    speeds: pd.DataFrame = field(default_factory=pd.DataFrame)

    @cached_property
    def settings(self) -> list[Setting]:
        """All settings, in the order of the summary."""
        return [Setting(*key) for key in self.summary[PANEL].drop_duplicates().itertuples(index=False)]

    @cached_property
    def methods(self) -> list[str]:
        """All methods without dense networks and controls, in the order of `by_value`."""
        names = {method for method in self.summary["method"] if method != DENSE}
        plain = {method for method in names if split_control(method)[1] is None}
        return sorted(plain or names, key=by_value)

    @cached_property
    def sources(self) -> list[str]:
        """All sources; results of the results folder come first."""
        return sorted(self.summary["source"].unique())

    @cached_property
    def series(self) -> list[tuple[str, str]]:
        """All (source, method), without dense networks and controls."""
        held = self.summary[["source", "method"]].drop_duplicates()
        pairs = set(held.itertuples(index=False, name=None))
        return [(source, method) for source in self.sources for method in self.methods if (source, method) in pairs]

    @cached_property
    def looks(self) -> dict[str, Style]:
        """Look of each method: equal in all figures of a report."""
        return styles(self.methods)

    @cached_property
    def notes(self) -> dict[tuple[str, str], str]:
        """Notes about series, from the columns `suspect` and `note` of tables, by (source, method).

        A note about some of the dense runs is not one about the dense network.
        """
        found: dict[tuple[str, str], str] = {}
        for column in ("suspect", "note"):
            if column in self.runs:
                for key, texts in self.runs.groupby(["source", "method"], sort=False)[column]:
                    present = [text for text in texts.dropna().astype(str).str.strip() if text]
                    if present and (key[1] != DENSE or len(present) == len(texts)):
                        found.setdefault(key, "; ".join(dict.fromkeys(present)))
        return found

    @cached_property
    def mark_of(self) -> dict[str, str]:
        """Mark of each note."""
        texts = list(dict.fromkeys(self.notes.values()))
        return {text: MARKS[i] if i < len(MARKS) else f"[{i + 1}]" for i, text in enumerate(texts)}

    def look(self, method: str, source: str = "") -> Style:
        """Return the look of a series."""
        place = self.sources.index(source) if source in self.sources else 0
        return from_source(DENSE_LOOK if method == DENSE else self.looks[method], place)

    def label(self, method: str, source: str = "") -> str:
        """Return the label of a series: name, mark of its note, and source where there are several."""
        name = "Dense" if method == DENSE else method_name(method)
        note = self.notes.get((source, method))
        name += self.mark_of[note] if note else ""
        return f"{name} [{source}]" if source and len(self.sources) > 1 else name

    def of(self, setting: Setting) -> pd.DataFrame:
        """Return the points of a setting without controls, dense first, with the number of failed runs."""
        rows = self._points_by_setting[setting]
        return rows[rows["method"].isin([DENSE, *self.methods])]

    def all_of(self, setting: Setting) -> pd.DataFrame:
        """Return the points of a setting with controls."""
        return self._points_by_setting[setting]

    def runs_of(self, setting: Setting) -> pd.DataFrame:
        """Return the runs of a setting."""
        return self._runs_by_setting.get(setting, self.runs.iloc[:0])

    @cached_property
    def _points_by_setting(self) -> dict[Setting, pd.DataFrame]:
        counts = [column for column in ("collapsed", "diverged", "at_chance") if column in self.summary]
        points = self.summary.assign(failed=self.summary[counts].sum(axis=1))
        points = points.join(self._minus_dense, on=POINT)
        dense = points[points["method"] == DENSE].drop_duplicates([*PANEL, "source"]).set_index([*PANEL, "source"])
        own = points.join(dense["mean"].rename("dense"), on=[*PANEL, "source"])["dense"]
        any_source = dense["mean"].dropna().groupby(level=list(range(len(PANEL)))).first()
        other = points.join(any_source.rename("dense"), on=PANEL)["dense"]
        points["difference"] = points["difference"].fillna(points["mean"] - own.fillna(other))
        return {Setting(*key): rows for key, rows in points.groupby(PANEL, sort=False)}

    @cached_property
    def _minus_dense(self) -> pd.DataFrame:
        """Mean and sample deviation of accuracy minus dense accuracy, paired by seed, by point (POINT)."""
        keys = [*PANEL, "source", "seed"]
        dense = self.runs[self.runs["method"] == DENSE].groupby(keys)["counted"].mean().rename("dense")
        runs = self.runs.join(dense, on=keys)
        groups = (runs["counted"] - runs["dense"]).groupby([runs[key] for key in POINT])
        return pd.DataFrame({"difference": groups.mean(), "difference_std": groups.std(ddof=1)})

    @cached_property
    def _runs_by_setting(self) -> dict[Setting, pd.DataFrame]:
        return {Setting(*key): rows for key, rows in self.runs.groupby(PANEL, sort=False)}

    def failed_points(self, setting: Setting) -> dict[tuple[str, str], set[float]]:
        """Return the sparsities at which a run failed, by (source, method)."""
        found: dict[tuple[str, str], set[float]] = {}
        points = self.all_of(setting)
        bad = points[points["failed"] > 0]
        for source, method, sparsity in bad[["source", "method", "sparsity"]].itertuples(index=False, name=None):
            found.setdefault((source, method), set()).add(sparsity)
        return found

    def chance(self, setting: Setting) -> float:
        """Return the accuracy of guessing; NaN where it is not known."""
        runs = self.runs_of(setting)
        known = runs["chance"].dropna() if "chance" in runs else pd.Series(dtype=float)
        return float(known.iloc[0]) if len(known) else math.nan

    def highlighted(self, method: str) -> bool:
        """Return True if the method keeps its colour."""
        chosen = self.options.highlight
        return not chosen or any(is_spec_of(method, name) for name in chosen)

    def coloured(self, methods: Sequence[str]) -> list[frozenset[str]]:
        """Return the methods in colour by panel: highlighted ones, all, or one per panel where there are many."""
        if self.options.highlight:
            return [frozenset(method for method in methods if self.highlighted(method))]
        return [frozenset(methods)] if len(methods) <= SERIES else [frozenset({method}) for method in methods]

    def published_of(self, setting: Setting) -> pd.DataFrame:
        """Return the published numbers for a setting; those without a recipe are for all recipes."""
        rows = self._published_by_network.get((setting.dataset, setting.model), self.published.iloc[:0])
        return rows[rows["recipe"].isin(["", setting.recipe])] if len(rows) else rows

    @cached_property
    def _published_by_network(self) -> dict[tuple[str, str], pd.DataFrame]:
        if not len(self.published):
            return {}
        known = self.published[self.published["accuracy"].notna()]
        return {(str(d), str(m)): rows for (d, m), rows in known.groupby(["dataset", "model"], sort=False)}

    def published_curves(self, setting: Setting) -> tuple[PublishedCurve, ...]:
        """Return the published points of a setting, by paper and method."""
        from pai_bench.analysis.figures.published_curves import curves_of

        return curves_of(self, setting)


def setting_names(settings: Sequence[Setting]) -> dict[Setting, tuple[str, str]]:
    """Return data set and recipe as row titles; the recipe is empty where all settings share it."""
    recipes = recipe_names(setting.recipe for setting in settings)
    return {setting: (dataset_name(setting.dataset), recipes[setting.recipe]) for setting in settings}
