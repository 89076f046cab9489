"""Number of cells per task, and the time limit of a task."""

from __future__ import annotations

import math
from collections.abc import Sequence

# Twice the estimate, because a task that reaches its limit is requeued and waits again.
MARGIN = 2.0
LEAST_MINUTES = 15
"""Shortest time limit: a task needs time for the warning signal and the requeue."""
TASK_SECONDS = 45 * 60.0
"""Target duration of a task."""


def cells_per_task(seconds: Sequence[float], parallelism: int) -> int:
    """Return the number of cells per task, from the expected durations `seconds` of the cells.

    A task should last about TASK_SECONDS, to justify its wait in the queue, but there should be at least `parallelism`
    tasks, so that all tasks that may run at once have work.
    """
    enough = max(1, int(TASK_SECONDS // max([*seconds, 0.1])))
    return min(enough, max(1, math.ceil(len(seconds) / parallelism)))


def limit_minutes(tasks: Sequence[Sequence[float]], limit: int | None) -> int:
    """Return the time limit of a chunk in minutes: `limit` (from the profile), or MARGIN times the longest task's
    estimate."""
    if limit is not None:
        return limit
    # Add 60 s for the start of a task: the interpreter, torch, the data.
    return max(LEAST_MINUTES, math.ceil(MARGIN * (max(map(sum, tasks)) + 60) / 60))
