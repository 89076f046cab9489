"""Wait for submitted cells: the results folder shows which are finished, squeue shows which are still in flight."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from pai_bench import results
from pai_bench.sweep.execution.eta import duration
from pai_bench.sweep.planning.plan import PlannedRun
from pai_bench.sweep.slurm.cached_survey import CachedSurvey
from pai_bench.sweep.slurm.controller import Controller
from pai_bench.sweep.slurm.in_flight import InFlight

POLL_SECONDS = (2.0, 15.0)
"""Bounds of the interval between two reads of the results folder, which is a tenth of the time waited so far."""
LATE_SECONDS = 90.0
"""Time that a cell may be neither finished nor in flight before it counts as lost. NFS clients cache directory
listings, so a new result may stay invisible for up to a minute (acdirmax)."""


@dataclass(frozen=True)
class WaitOutcome:
    """Outcome of a wait."""

    n_done: int
    n_failed: int
    lost: tuple[str, ...]
    """Names of cells that have neither a result nor a failure note and are not in flight."""
    stuck: tuple[str, ...]
    """Names of cells whose tasks stay pending until a person intervenes."""
    flight: InFlight
    """Cells still in flight at the end of the wait."""


def follow(root: Path, planned: Iterable[PlannedRun], controller: Controller, messages: Console) -> WaitOutcome:
    """Wait until each cell has a result or a failure note, or is no longer in flight; print the progress."""
    names = {p.key.name for p in planned}
    # Failure notes from earlier attempts must not count as failures of this one.
    old = results.names(results.failures_folder(root), ".json") & names
    survey, began, said, over_since = CachedSurvey(root, controller), time.monotonic(), "", None
    while True:
        flight = survey.look()
        # Read the results after the queue: a cell that ends between the two reads is then counted as done.
        done = results.names(root / "runs", ".json") & names
        failed = (results.names(results.failures_folder(root), ".json") & names) - old - done
        left = names - done - failed
        tasks = [task for task in flight.tasks if left & set(task.names)]
        held = [task for task in tasks if task.waits and task.meaning.stuck]
        going = [task for task in tasks if task not in held]
        stuck = left & {name for task in held for name in task.names}
        lost = left - {name for task in tasks for name in task.names} - flight.unknown
        running = sum(not task.waits for task in going)
        line = f"{len(done)}/{len(names)} done, {len(failed)} failed; {running} tasks run, {len(going) - running} wait"
        if held:
            line = f"{line}, {len(held)} are held"
        if flight.silent:
            line = f"{line}; SLURM does not respond ({flight.silent})"
        now = time.monotonic()
        if line != said:
            messages.print(f"{duration(now - began)}: {line}", highlight=False, markup=False)
            said = line
        over = not going and not flight.unknown & left
        over_since = (over_since or now) if over else None
        if over_since is not None and (not lost or now - over_since >= LATE_SECONDS):
            return WaitOutcome(len(done), len(failed), tuple(sorted(lost)), tuple(sorted(stuck)), flight)
        least, most = POLL_SECONDS
        time.sleep(least if over else min(most, max(least, (now - began) / 10)))
