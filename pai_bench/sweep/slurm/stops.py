"""Record of a task's stops, kept in a file in the chunk's folder, so that no task is requeued forever.

This module does not import torch, because a task may receive the warning signal while torch is still loading.
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
"""Number of consecutive stops without progress after which a task is not requeued again."""

_ENDING = "_stops.json"

Progress = list[Any]
"""Measure of a task's progress; empty before the task has saved anything."""


@dataclass(frozen=True)
class Record:
    """Stops of one task over all its attempts."""

    requeued: int = 0
    """Number of requeues, performed or requested."""
    progress: Progress | None = None
    """Progress at the last stop."""
    minutes: tuple[float, ...] = ()
    """Durations in minutes of the consecutive attempts that were stopped with this same progress."""


def read(place: Path) -> Record:
    """Return the record in a file; an empty record when the file is missing, unreadable or damaged."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        plain = shapes.table(place.read_bytes())
        minutes = tuple(float(value) for value in plain["minutes"])
        return Record(int(plain["requeued"]), list(plain["headway"]), minutes)
    return Record()


def place_of(spec: Spec, job: str | None) -> Path:
    """Return the path of the record for the task of a job."""
    return spec.folder / f"{job}{_ENDING}"


def started(place: Path, restarts: int) -> None:
    """Record the number of requeues at the start of an attempt; the first attempt writes no file."""
    # SLURM requeues tasks on its own as well (a failed node), which no stop records.
    if restarts > read(place).requeued:
        _write(place, restarts, read(place))


def stopped(place: Path, progress: Progress | None, minutes: float, restarts: int, requeue: bool) -> tuple[float, ...]:
    """Record a stop of a task; returns the minutes of the consecutive attempts without progress, including this one.

    `progress` is None when the task was stopped before its work began, which counts as no progress since the last stop.
    """
    before = read(place)
    now = (before.progress or []) if progress is None else progress
    same = before.minutes if before.progress is not None and before.progress == now else ()
    minutes_of = (*same, round(minutes, 1))
    again = requeue and len(minutes_of) < MAX_STOPS
    _write(place, restarts + again, Record(0, now, minutes_of))
    return minutes_of


def _write(place: Path, requeued: int, record: Record) -> None:
    # The key "headway" is part of the file format.
    plain = {"requeued": requeued, "headway": record.progress or [], "minutes": list(record.minutes)}
    # A full disk must not prevent the requeue; this stop then does not count.
    with suppress(OSError):
        write_json(place, plain)


def stopped_at_start(spec: Spec, minutes: float) -> bool:
    """Record a stop before the work of the task began; returns True when the job should be requeued.

    Otherwise a failure note is written for each of the task's cells without a result.
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
    """Return the index of this job's task in its specification; 0 when the chunk has one task and so no array."""
    return int(os.environ.get("SLURM_ARRAY_TASK_ID", 0))


def note(spec: Spec, entries: Iterable[Entry], kind: str, cause: str) -> None:
    """Write a failure note for each cell without a result."""
    for entry in entries:
        with suppress(OSError, results.DamagedResult):
            if not results.present(spec.root, entry.key):
                results.write_failure(spec.root, entry.key, cause=cause, traceback="", kind=kind)


def requeues(root: Path, tasks: Iterable[tuple[str, str, str]]) -> Mapping[str, int]:
    """Return the number of requeues by job, for tasks given as (sweep, token, job); omit tasks without requeues.

    Lists the folder of each chunk once, because a chunk may have thousands of tasks.
    """
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
