"""Wait for cells that have been submitted: files tell what is done, one squeue call what is still on its way."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from pai_bench import results
from pai_bench.sweep.plan import PlannedRun
from pai_bench.sweep.progress import duration
from pai_bench.sweep.reasons import explain
from pai_bench.sweep.slurm import inflight
from pai_bench.sweep.slurm.controller import Controller

POLL_SECONDS = (2.0, 15.0)
"""Between looks: a tenth of the time waited so far, within these bounds."""
LATE_LOOKS = 3
"""Looks in a row at which a cell is neither done nor on its way before it counts as lost; its file may show up late."""


@dataclass(frozen=True)
class Followed:
    """How the cells ended."""

    n_done: int
    n_failed: int
    lost: tuple[str, ...]
    """Names of cells that have neither a result nor a note, and that nobody works on."""
    flight: inflight.InFlight
    """What was still on its way in the end: tasks that wait for somebody to act."""


def follow(root: Path, planned: Iterable[PlannedRun], controller: Controller, messages: Console) -> Followed:
    """Wait until each cell has a result or a note, or nobody works on it any more; says how it goes."""
    names = {results.name(p.run.cell, p.run.recipe.name, p.fingerprint) for p in planned}
    # Notes from before do not tell how the cells end now.
    old = results.names(results.failures_folder(root), ".json") & names
    began, said, looks = time.monotonic(), "", 0
    while True:
        flight = inflight.survey(root, controller)
        done = results.names(root / "runs", ".json") & names
        failed = (results.names(results.failures_folder(root), ".json") & names) - old - done
        left = names - done - failed
        tasks = [task for task in flight.tasks if left & set(task.names) and not _is_stuck(task)]
        lost = left - {name for task in tasks for name in task.names} - flight.unknown
        running = sum(task.state not in ("PENDING", "REQUEUED") for task in tasks)
        line = f"{len(done)}/{len(names)} done, {len(failed)} failed; {running} tasks run, {len(tasks) - running} wait"
        if flight.silent:
            line = f"{line}; SLURM does not answer ({flight.silent})"
        if line != said:
            messages.print(f"{duration(time.monotonic() - began)}: {line}", highlight=False, markup=False)
            said = line
        over = not tasks and not flight.unknown & left
        looks = looks + 1 if over else 0
        if over and (not lost or looks >= LATE_LOOKS):
            return Followed(len(done), len(failed), tuple(sorted(lost)), flight)
        least, most = POLL_SECONDS
        time.sleep(least if over else min(most, max(least, (time.monotonic() - began) / 10)))


def _is_stuck(task: inflight.Task) -> bool:
    """Whether a task waits for ever unless somebody acts."""
    return task.state == "PENDING" and explain(task.reason).stuck
