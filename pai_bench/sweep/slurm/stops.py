"""Stops of a task: counted in a file beside its specification, so that no task is requeued for ever.

This module does not import torch: a task may be warned while torch is still loading.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pai_bench import results
from pai_bench.core.atomic import write_json
from pai_bench.results import shapes
from pai_bench.sweep.execution.owner import Owner
from pai_bench.sweep.slurm.specification import Entry, Spec

MAX_STOPS = 3
"""A task that is stopped so often without headway in between is not requeued again."""

_ENDING = "_stops.json"

Headway = list[Any]
"""A measure of how far a task has come; empty before it has done anything that is kept."""


@dataclass(frozen=True)
class Record:
    """The stops of one task, in all its attempts."""

    requeued: int = 0
    """How often SLURM has run the task again, or has been asked to."""
    headway: Headway | None = None
    """At the last stop."""
    minutes: tuple[float, ...] = ()
    """How long the attempts ran that were stopped in a row with that same headway."""


def read(place: Path) -> Record:
    """Return the record in a file; an empty one where there is none, or none that can be read."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        plain = shapes.table(place.read_bytes())
        minutes = tuple(float(value) for value in plain["minutes"])
        return Record(int(plain["requeued"]), list(plain["headway"]), minutes)
    return Record()


def place_of(spec: Spec, job: str | None) -> Path:
    """Return the path of the record of a job's task."""
    return spec.folder / f"{job}{_ENDING}"


def started(place: Path, restarts: int) -> None:
    """Note how often SLURM has run a task again when an attempt begins; a first attempt leaves no file."""
    if restarts > read(place).requeued:
        _write(place, restarts, read(place))


def stopped(place: Path, headway: Headway | None, minutes: float, restarts: int, requeue: bool) -> tuple[float, ...]:
    """Note that a task was told to stop; returns the minutes of all stops in a row without headway, this one included.

    A task that has not begun its work (`headway` is None) has made none since the stop before.
    """
    before = read(place)
    now = (before.headway or []) if headway is None else headway
    same = before.minutes if before.headway is not None and before.headway == now else ()
    minutes_of = (*same, round(minutes, 1))
    again = requeue and len(minutes_of) < MAX_STOPS
    _write(place, restarts + again, Record(0, now, minutes_of))
    return minutes_of


def _write(place: Path, requeued: int, record: Record) -> None:
    plain = {"requeued": requeued, "headway": record.headway or [], "minutes": list(record.minutes)}
    with suppress(OSError):
        write_json(place, plain)


def stopped_at_start(spec: Spec, minutes: float) -> bool:
    """Count a stop before the task has begun its work; returns whether the job is to be requeued.

    When it is not, each of the task's cells without a result gets a note.
    """
    owner = Owner.current(spec.sweep)
    stops = stopped(place_of(spec, owner.job), None, minutes, owner.restart, spec.requeue)
    if len(stops) < MAX_STOPS:
        return spec.requeue
    cause = (
        f"stopped {len(stops)} times before it had begun its work, after {', '.join(map(str, stops))} minutes: give it"
        " more time with --slurm time=…, or install pai-bench on a faster disk"
    )
    note(spec, spec.tasks[task_index()], "environment", cause)
    return False


def task_index() -> int:
    """Return the place of this job's task in its specification; an array of one is no array."""
    return int(os.environ.get("SLURM_ARRAY_TASK_ID", 0))


def note(spec: Spec, entries: Iterable[Entry], kind: str, cause: str) -> None:
    """Leave a note of failure for each of the cells that has no result."""
    for entry in entries:
        place = (spec.root, entry.cell, entry.recipe["name"], entry.fingerprint)
        with suppress(OSError, results.DamagedResult):
            if not results.present(*place):
                results.write_failure(*place, cause=cause, traceback="", kind=kind)


def requeues(root: Path, tasks: Iterable[tuple[str, str, str]]) -> Mapping[str, int]:
    """Return how often each task was requeued, by job, of tasks given as sweep, token and job; never requeued ones are
    left out. Lists each chunk's folder once."""
    found: dict[str, int] = {}
    listed: dict[tuple[str, str], set[str]] = {}
    for sweep, token, job in tasks:
        folder = results.sweeps_folder(root) / sweep / token
        if (sweep, token) not in listed:
            listed[sweep, token] = set()
            with suppress(OSError):
                listed[sweep, token] = {path.name for path in folder.iterdir() if path.name.endswith(_ENDING)}
        if f"{job}{_ENDING}" in listed[sweep, token] and (count := read(folder / f"{job}{_ENDING}").requeued):
            found[job] = count
    return found
