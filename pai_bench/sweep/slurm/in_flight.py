"""Cells in flight: the ledgers of a results folder combined with the output of squeue.

A row of squeue whose tag names a sweep of the folder always counts. A missing row proves little: squeue may answer from
a cache, from a backup controller that has just taken over, or incompletely. A task without a row counts as ended only
when its chunk is older than GRACE_SECONDS, its job has no live claim, and two queries in a row do not show it.
"""

from __future__ import annotations

import pwd
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from pai_bench import results
from pai_bench.sweep.execution import claims
from pai_bench.sweep.execution.owner import Owner
from pai_bench.sweep.slurm.controller import Controller, ControllerUnavailable, Limits, Row, installed
from pai_bench.sweep.slurm.ledger import Chunk, Ledger, all_chunks, user
from pai_bench.sweep.slurm.pending_reasons import WAITING, Reason, explain

GRACE_SECONDS = 300.0
"""Time after submission during which a task counts as in flight although squeue does not show it. By default SLURM
keeps a row for 300 s after the end of a job (MinJobAge), and sbatch gives up after 120 s."""
PAUSE_SECONDS = 5.0
"""Time between the two queries for tasks that squeue does not show."""


@dataclass(frozen=True)
class Task(Row):
    """A task in SLURM's queue, with its cells."""

    names: tuple[str, ...]
    """The names of its cells: the paths of their results below runs/, without .json."""

    @property
    def waits(self) -> bool:
        """True when the task has not started, or not started again after a requeue."""
        return self.state in WAITING

    @property
    def meaning(self) -> Reason:
        """The reason why the task is pending, with a remedy where waiting does not help."""
        return explain(self.reason, self.state)


@dataclass(frozen=True)
class InFlight:
    """Submitted tasks of a results folder, as far as SLURM and the ledgers show."""

    tasks: tuple[Task, ...] = ()
    ended: tuple[Task, ...] = ()
    """Tasks that have ended and that squeue still shows."""
    unknown: frozenset[str] = frozenset()
    """Names of cells that may or may not be in flight."""
    jobs: Mapping[str, str] | None = None
    """State by job, including ended jobs, to judge claims by; None when slurmctld did not respond."""
    silent: str | None = None
    """The error when slurmctld did not respond."""
    elsewhere: frozenset[str] = frozenset()
    """Sweeps whose jobs are not visible from here: they belong to another cluster, or to another user where SLURM hides
    the jobs of other users."""
    unlisted: tuple[Chunk, ...] = ()
    """Chunks that may be in flight although squeue does not show them."""

    def names(self) -> frozenset[str]:
        """Return the names of all cells that must not be submitted again."""
        return self.unknown | {name for task in self.tasks for name in task.names}


def survey(root: Path, controller: Controller, *, heal: bool = False, sure: bool = False) -> InFlight:
    """Return the submitted tasks of a results folder.

    Calls squeue and scontrol once each, and neither when nothing has been submitted. With `sure`, a second call of
    squeue looks for tasks that the first one did not show. `heal` implies `sure` and updates the ledgers: it records
    jobs that their submitter could not record, closes ended sweeps, and reopens sweeps that were closed too early.

    Raises: PaiBenchError when a ledger cannot be read.
    """
    chunks = all_chunks(root)
    still_open = [chunk for chunk in chunks if chunk.open]
    if not chunks or not (still_open or installed()):
        return InFlight(jobs={})
    # In a shared folder, the jobs of all its users count.
    users = {user(), *(chunk.user for chunk in chunks if _exists(chunk.user))}
    try:
        limits = controller.limits()
        rows = controller.rows(users)
    except ControllerUnavailable as error:
        # Without an answer no job counts as ended, so that none of these cells is submitted again.
        return InFlight(unknown=frozenset(_names(still_open)), silent=str(error))
    found = _Classification(root, chunks, limits, rows)
    if (heal or sure) and found.missing:
        time.sleep(PAUSE_SECONDS)
        try:
            again = {row.job: row for row in controller.rows(users)}
        except ControllerUnavailable as error:
            return InFlight(unknown=frozenset(_names(still_open)), silent=str(error))
        # Each answer may be incomplete, so the rows of both count; of two states of a task, the later one.
        rows = list(({row.job: row for row in rows} | again).values())
        found = _Classification(root, chunks, limits, rows)
    if heal:
        found.note()
    return found.flight()


@dataclass
class _Classification:
    """Classification of the chunks of a results folder by the rows of squeue."""

    root: Path
    chunks: list[Chunk]
    limits: Limits
    rows: list[Row]
    tasks: list[Task] = field(default_factory=list)
    ended: list[Task] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)
    unlisted: list[Chunk] = field(default_factory=list)
    elsewhere: set[str] = field(default_factory=set)
    living: set[str] = field(default_factory=set)
    """Sweeps with tasks that are or may be in flight."""
    missing: bool = False
    """True when some tasks count as ended although squeue does not show an end state for them."""

    def __post_init__(self) -> None:
        self._by_chunk: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            self._by_chunk.setdefault((row.sweep, row.token), []).append(row)
        self._done: set[str] | None = None
        self._alive: set[str] | None = None
        for chunk in self.chunks:
            self._sort(chunk)

    def note(self) -> None:
        """Update the ledgers of this user's sweeps with the findings."""
        # Only its owner may write to a ledger (see `trust`).
        mine = [chunk for chunk in self.chunks if chunk.user == user()]
        for chunk in mine:
            rows = self._by_chunk.get((chunk.sweep, chunk.token), [])
            if rows and (chunk.job is None or (chunk.refused and not all(row.ended for row in rows))):
                Ledger(self.root, chunk.sweep).adopted(chunk.token, rows[0].array)
        for sweep in {chunk.sweep for chunk in mine if chunk.closed} & self.living:
            Ledger(self.root, sweep).reopen()
        for sweep in {chunk.sweep for chunk in mine if chunk.open} - self.living:
            Ledger(self.root, sweep).close()

    def flight(self) -> InFlight:
        return InFlight(
            tuple(self.tasks),
            tuple(self.ended),
            frozenset(self.unknown),
            {row.job: row.state for row in self.rows},
            elsewhere=frozenset(self.elsewhere),
            unlisted=tuple(self.unlisted),
        )

    def _sort(self, chunk: Chunk) -> None:
        rows = self._by_chunk.get((chunk.sweep, chunk.token), [])
        lives = any(not row.ended for row in rows)
        if not chunk.open and not lives:
            return
        if lives:
            self.living.add(chunk.sweep)
        cells = chunk.tasks()
        for row in rows:
            names = cells[row.index] if row.index < len(cells) else ()
            task = Task(**vars(row), names=names)
            (self.ended if row.ended else self.tasks).append(task)
        shown = {row.index for row in rows}
        absent = {index: names for index, names in enumerate(cells) if index not in shown}
        if rows and not absent:
            return
        hidden = chunk.cluster != self.limits.cluster or (chunk.user != user() and not self.limits.shows_others)
        if hidden and not rows:
            self.elsewhere.add(chunk.sweep)
        else:
            undone = {index: names for index, names in absent.items() if chunk.redo or not self._has_ended(names)}
            absent = {index: names for index, names in undone.items() if self._may_live(chunk, index, len(cells))}
            self.missing |= len(absent) < len(undone)
            if not absent:
                return
            if not rows:
                self.unlisted.append(chunk)
        self.unknown.update(name for names in absent.values() for name in names)
        self.living.add(chunk.sweep)

    def _may_live(self, chunk: Chunk, index: int, n_tasks: int) -> bool:
        """Return True when a task of a chunk may be in flight although squeue does not show it."""
        if chunk.job is None and not chunk.unanswered:
            # sbatch has not returned, or its caller was killed: only a live submitter can still create the job.
            here = _runs_here(chunk)
            if here is not None:
                return here
        if (datetime.now(UTC) - chunk.at).total_seconds() < GRACE_SECONDS:
            return True
        return chunk.job is not None and (f"{chunk.job}_{index}" if n_tasks > 1 else chunk.job) in self._claimants()

    def _has_ended(self, names: Iterable[str]) -> bool:
        """Return True when each of these cells has a result or a failure note (removed before a new attempt)."""
        if self._done is None:
            self._done = results.names(self.root / "runs", ".json")
            self._done |= results.names(results.failures_folder(self.root), ".json")
        return self._done.issuperset(names)

    def _claimants(self) -> set[str]:
        """Return the ids of the tasks that keep a claim alive."""
        if self._alive is None:
            # The states of jobs are not passed, because here the answer of squeue is in doubt; the heartbeats decide.
            held = claims.survey(self.root)
            self._alive = {claim.owner.job for claim in held if claim.verdict == "alive" and claim.owner.job}
        return self._alive


def _names(chunks: Iterable[Chunk]) -> list[str]:
    return [name for chunk in chunks for task in chunk.tasks() for name in task]


@cache
def _exists(name: str) -> bool:
    """Return True when a user exists on this host; squeue fails for an unknown name, and with it for all users."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return name == user()
    return True


def _runs_here(chunk: Chunk) -> bool | None:
    """Return whether the submitter of a chunk is alive; None when it ran on another machine."""
    try:
        return Owner(**chunk.owner).runs_here()
    except TypeError:
        return None
