"""Emphasis in tables: the best method of a sparsity, all that cannot be distinguished from it, and the second best."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from operator import attrgetter
from typing import Any

import pandas as pd

from pai_bench.analysis import inference
from pai_bench.analysis.information import is_upper_bound
from pai_bench.analysis.series import Run, Runs, Series, paired_runs

RULE = (
    "Bold: the highest mean among methods with all seeds, and each of them whose Holm-adjusted 95 % t interval of the"
    " paired difference to it contains 0; underlined: the second-highest mean."
)


@dataclass(frozen=True)
class Emphasis:
    """Points of a summary (values of its index) in bold, and underlined ones."""

    bold: frozenset[int]
    second: frozenset[int]


def emphasise(summary: pd.DataFrame, runs: Runs, points: Sequence[Any] | None = None) -> Emphasis:
    """Select the points in bold and the second-best points of each panel, sparsity and epoch.

    Methods compete if they have all planned seeds of the sparsity; controls, dense networks and methods that see
    training do not compete. A method with failed runs, or with some runs at chance, is bold only if its mean is the
    highest, because it has no t interval. With one seed nothing can be distinguished, so all competing methods are
    bold. One method alone is not bold.

    points: the rows of `summary` as named tuples, where the caller has them.
    """
    bold: set[int] = set()
    second: set[int] = set()
    columns: dict[tuple[Any, ...], list[tuple[Any, Series]]] = defaultdict(list)
    address = attrgetter(*(field.name for field in fields(Series)))
    for key, own in groupby(points or summary.itertuples(), address):
        series = Series(*key)
        if not series.is_reference:
            for point in own:
                if not is_upper_bound(point.saw):
                    columns[series.panel, point.sparsity, point.epoch].append((point, series))
    for column in columns.values():
        most = max(point.planned for point, _ in column)
        whole = [(point, series) for point, series in column if point.n == point.planned == most]
        if len(whole) < 2:
            continue
        whole.sort(key=lambda entry: -entry[0].mean)
        if len(whole) > 2:
            second.add(whole[1][0].Index)
        bold.add(whole[0][0].Index)
        bold |= _like_best([(point, runs[series][point.sparsity]) for point, series in whole])
    return Emphasis(frozenset(bold), frozenset(second))


def _is_sound(point: Any) -> bool:
    """Return True if the runs of a point are one population: none failed, and none or all of them at chance."""
    return point.collapsed + point.diverged == 0 and point.at_chance in (0, point.n)


def _like_best(order: list[tuple[Any, dict[int, Run]]]) -> set[int]:
    """Return the points that the test cannot distinguish from the first one."""
    best, best_runs = order[0]
    others = [(point, runs) for point, runs in order[1:] if _is_sound(point)]
    if not _is_sound(best) or not others:
        return set()
    differences = []
    for _, runs in others:
        pairs = paired_runs(best_runs, runs).values()
        # Without a common seed nothing can be distinguished, which one difference of zero expresses.
        differences.append([ours.counted - theirs.counted for ours, theirs in pairs] or [0.0])
    alike = inference.indistinguishable(differences)
    return {point.Index for (point, _), same in zip(others, alike, strict=True) if same}
