"""Estimated time until all cells are done, from durations of finished cells and the pace of running ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

Kind = tuple[str, str, str]
"""Data set, model and recipe; cells of one kind take about the same time."""


@dataclass(frozen=True)
class RunningCell:
    """A running cell: its kind, elapsed seconds, epochs done and in total, and seconds per epoch if known."""

    kind: Kind
    seconds: float
    epoch: int
    epochs: int | None
    seconds_per_epoch: float | None

    def left(self) -> float | None:
        """Return the remaining seconds of training."""
        if not self.epochs or self.seconds_per_epoch is None:
            return None
        return max(0.0, (self.epochs - self.epoch) * self.seconds_per_epoch)

    def total(self) -> float | None:
        """Return the seconds that the whole cell takes."""
        left = self.left()
        return None if left is None else self.epoch * (self.seconds_per_epoch or 0.0) + left


def durations(rows: Iterable[Mapping[str, Any]]) -> dict[Kind, float]:
    """Return the mean seconds of scoring plus training for each kind of result."""
    found: dict[Kind, list[float]] = defaultdict(list)
    for row in rows:
        costs = row["costs"]
        if (seconds := costs.get("train_seconds")) is not None:
            found[row["dataset"], row["model"], row["recipe"]].append(seconds + (costs.get("score_seconds") or 0.0))
    return {kind: mean(seconds) for kind, seconds in found.items()}


def seconds_left(
    going: Sequence[RunningCell], todo: Iterable[Kind], known: Mapping[Kind, float], at_a_time: int | None = None
) -> float | None:
    """Return the seconds until all running and remaining cells have ended.

    The number of concurrent cells is assumed to stay as it is, or to be `at_a_time`. A kind without any known duration
    takes the mean of the others. Returns None when no duration is known, or when no cell runs and `at_a_time` is not
    given.
    """
    running: dict[Kind, list[float]] = defaultdict(list)
    for cell in going:
        if (total := cell.total()) is not None:
            running[cell.kind].append(total)
    expected = {**{kind: mean(totals) for kind, totals in running.items()}, **known}
    places = len(going) if at_a_time is None else at_a_time
    if not expected or (not going and not at_a_time):
        return None
    other = mean(expected.values())
    left = []
    for cell in going:
        trained = cell.left()
        left.append(max(0.0, expected.get(cell.kind, other) - cell.seconds) if trained is None else trained)
    work = sum(expected.get(kind, other) for kind in todo)
    # No sweep ends before its longest running cell, however many cells run at a time.
    return max([*left, (sum(left) + work) / max(places, 1)])


def duration(seconds: float) -> str:
    """Format seconds as 42s, 3m05s, 2h07m, or from two days on as 2.5 days or 117 days."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 2 * 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    days = whole / 86400
    return f"{days:,.0f} days" if days >= 10 else f"{round(days, 1):g} days"
