"""How many cells go into a task, and how long it may take."""

from __future__ import annotations

import math
from collections.abc import Sequence

MARGIN = 2.0
LEAST_MINUTES = 15
"""submitit and SLURM both need room to warn a job of its limit and to requeue it."""
TASK_SECONDS = 45 * 60.0
"""What a task is filled up to."""


def cells_per_task(seconds: Sequence[float], parallelism: int) -> int:
    """As many as make a task last long enough to be worth its place in the queue, but no more than leave every task
    that may run at once some cells. `seconds` are the cells' expected durations."""
    enough = max(1, int(TASK_SECONDS // max([*seconds, 0.1])))
    return min(enough, max(1, math.ceil(len(seconds) / parallelism)))


def limit_minutes(tasks: Sequence[Sequence[float]], wanted: int | None) -> int:
    """The time limit of a chunk of tasks: what the profile wants, else the longest task's estimate with a margin."""
    if wanted is not None:
        return wanted
    # What every task pays before its first cell: the interpreter, torch, the data.
    return max(LEAST_MINUTES, math.ceil(MARGIN * (max(map(sum, tasks)) + 60) / 60))
