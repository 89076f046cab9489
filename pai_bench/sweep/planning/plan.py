"""The plan of a sweep: the state of each run, and the division of the remaining work into jobs."""

from __future__ import annotations

import shlex
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from pai_bench import results
from pai_bench.cells import DENSE
from pai_bench.core.atomic import reason
from pai_bench.errors import PaiBenchError
from pai_bench.experiment.first_trainings import trains_dense_first
from pai_bench.experiment.runner import CellRunner, Run
from pai_bench.pruning import controls
from pai_bench.results import ResultKey, index
from pai_bench.sweep.execution.claims import survey

PAUSES = (0.1, 0.3, 0.6)
"""Seconds to wait before each retry of a failed read."""


@dataclass(frozen=True)
class PlannedRun:
    """A run, its fingerprint and its state: done, running, failed, stale or missing; on a cluster also queued or
    unknown."""

    run: Run
    fingerprint: str
    state: str

    @cached_property
    def key(self) -> ResultKey:
        """Return the key of the run's result."""
        return ResultKey(self.run.cell, self.run.recipe.name, self.fingerprint)


@dataclass(frozen=True)
class Plan:
    """All runs of a sweep, and the runs to do now."""

    runs: tuple[PlannedRun, ...]
    todo: tuple[PlannedRun, ...]
    damaged: tuple[str, ...] = ()
    """Messages about damaged results, claims and earlier plans, each with the file's present location."""

    @property
    def running(self) -> tuple[PlannedRun, ...]:
        """Return the runs claimed by a process that may be alive."""
        return tuple(planned for planned in self.runs if planned.state == "running")

    def summary(self, verb: str = "run") -> str:
        """Return the plan in one line; `verb` names the action on the remaining cells."""
        left = Counter(planned.state for planned in set(self.runs) - set(self.todo))
        parts = [f"{left['done']} done"]
        parts += [f"{left[state]} {state}" for state in ("running", "queued", "unknown") if left[state]]
        if left["failed"]:
            parts.append(f"{left['failed']} failed (use --retry failed)")
        stale = sum(planned.state == "stale" for planned in self.todo)
        note = f" ({stale} of them have results of other settings or versions, which are kept)" if stale else ""
        return f"plan: {len(self.runs)} cells = {', '.join(parts)}, {len(self.todo)} to {verb}{note}"

    def write(self, root: Path) -> None:
        """Write the plan to the results folder, so that a report can list missing cells."""
        created = datetime.now(UTC).isoformat()
        cells = [planned.key.as_dict() for planned in self.runs]
        plan = {"created": created, "command": shlex.join(sys.argv), "cells": cells}
        results.write_plan(root, results.plan_name(root), plan)


def make_plan(
    runs: Sequence[Run],
    root: Path,
    *,
    retry_failed: bool = False,
    redo: bool = False,
    set_aside: bool = True,
    jobs: Mapping[str, str] | None = None,
) -> Plan:
    """Make the plan: find the state of each run and collect the runs to do.

    A damaged result counts as missing; it is set aside on request. `jobs` maps SLURM jobs to their states, which
    decide on the liveness of claims; None when they are unknown.

    Raises: PaiBenchError when a file of a cell cannot be read, because it may be a valid result.
    """
    planned: list[PlannedRun] = []
    damaged = [*results.read_plans(root).damaged]
    held = (claim for claim in survey(root, jobs, damaged.append) if claim.verdict != "dead")
    claimed = {claim.key.name for claim in held}
    # The claims are read before the results: a cell that finishes in between is found by its result.
    finished = index.finished(root)
    fingerprints: dict[tuple[Any, ...], str] = {}
    for run in runs:
        variant = (run.cell.method, run.cell.dataset, run.cell.model, run.recipe)
        if variant not in fingerprints:
            fingerprints[variant] = run.fingerprint()
        fingerprint = fingerprints[variant]
        key = ResultKey(run.cell, run.recipe.name, fingerprint)
        state = "done"
        if key not in finished:
            state, note = _state(root, key, set_aside)
            damaged += [note] if note else []
        if (redo or state != "done") and key.name in claimed:
            state = "running"
        planned.append(PlannedRun(run, fingerprint, state))
    states = {"missing", "stale"} | ({"failed"} if retry_failed else set())
    todo = tuple(p for p in planned if (redo and p.state != "running") or p.state in states)
    return Plan(tuple(planned), todo, tuple(damaged))


def _state(root: Path, key: ResultKey, set_aside: bool) -> tuple[str, str | None]:
    """Return the state of a cell and, if its file was damaged, a message with the cause and the new location."""
    while True:
        try:
            return _read_with_retries(root, key), None
        except results.DamagedResult as error:
            if not set_aside:
                return "missing", error.cause
        cause, aside = results.set_damaged_aside(root, key)
        if aside is not None:
            return "missing", f"{cause}; set aside as {aside.name}"
        # Another process has replaced the damaged file since.


def _read_with_retries(root: Path, key: ResultKey) -> str:
    """Return the state of a cell; retry for about a second while the file cannot be read.

    Raises: DamagedResult when the file is not a valid result of the cell, PaiBenchError when it still cannot be read.
    """
    for pause in (*PAUSES, None):
        try:
            return results.state(root, key)
        except OSError as error:
            cause = f"{error.filename or key.path(root)} cannot be read: {reason(error)}"
        if pause is not None:
            time.sleep(pause)
    raise PaiBenchError(
        f"{cause}; it may contain a result",
        "check that the disk responds and that you have permission to read the file, then try again",
    )


@dataclass(frozen=True)
class Job:
    """Runs that one worker executes in turn and that share data, model, recipe, and scores or the dense training."""

    runs: tuple[Run, ...]


def jobs(plan: Plan) -> list[Job]:
    """Divide the work of a plan into jobs, grouped by data set and model, with the dense references first."""
    keyed = sorted(((score_key(p.run), p.run.cell, p.run) for p in plan.todo), key=itemgetter(0, 1))
    return [Job(tuple(run for *_, run in group)) for _, group in groupby(keyed, key=itemgetter(0))]


def score_key(run: Run) -> tuple[Any, ...]:
    """Return the key of what a run shares with others.

    A single-shot method shares its scores over all sparsities and controls. Methods that prune after training share
    the dense training over all sparsities and methods.
    """
    cell, spec, scorer = run.cell, run.cell.spec, run.scorer()
    place = cell.dataset, cell.model, run.recipe.name, cell.method != DENSE, cell.seed
    if trains_dense_first(scorer):
        return *place, "", ()
    rounds = () if CellRunner.shares_scores(scorer) else (cell.sparsity, controls.own_rounds(spec))
    return *place, str(spec.uncontrolled), rounds
