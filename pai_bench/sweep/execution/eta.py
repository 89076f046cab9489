"""When will all be done: the duration of cells that are, and the pace of those that run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

Kind = tuple[str, str, str]
"""Data set, model and recipe: what cells must share to take about as long as each other."""


@dataclass(frozen=True)
class Going:
    """A cell that runs: its kind, seconds since it began, epochs done and in all, seconds of one as far as known."""

    kind: Kind
    seconds: float
    epoch: int
    epochs: int | None
    seconds_per_epoch: float | None

    def left(self) -> float | None:
        """Seconds of training that are left."""
        if not self.epochs or self.seconds_per_epoch is None:
            return None
        return max(0.0, (self.epochs - self.epoch) * self.seconds_per_epoch)

    def total(self) -> float | None:
        """Seconds of the whole cell."""
        left = self.left()
        return None if left is None else self.epoch * (self.seconds_per_epoch or 0.0) + left


def durations(rows: Iterable[Mapping[str, Any]]) -> dict[Kind, float]:
    """Mean seconds of scoring and training of the results of each kind."""
    found: dict[Kind, list[float]] = defaultdict(list)
    for row in rows:
        costs = row["costs"]
        if (seconds := costs.get("train_seconds")) is not None:
            found[row["dataset"], row["model"], row["recipe"]].append(seconds + (costs.get("score_seconds") or 0.0))
    return {kind: mean(seconds) for kind, seconds in found.items()}


def seconds_left(
    going: Sequence[Going], todo: Iterable[Kind], known: Mapping[Kind, float], at_a_time: int | None = None
) -> float | None:
    """Until those that run and all that are to do have ended, if as many run at a time as now, or `at_a_time`.

    A kind that nothing is known of takes as long as the others; None when nothing is known at all, and when nothing
    runs and it is not given how many will.
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
    return max([*left, (sum(left) + work) / max(places, 1)])


def duration(seconds: float) -> str:
    """Seconds as 42s, 3m05s, 2h07m, or from two days on as 2.5 days or 117 days."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 2 * 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    days = whole / 86400
    return f"{days:,.0f} days" if days >= 10 else f"{round(days, 1):g} days"
