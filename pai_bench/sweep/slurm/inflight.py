"""Which cells are on their way: the ledgers of a results folder and one squeue call, put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pai_bench.sweep.owners import Owner
from pai_bench.sweep.slurm.controller import Controller, Row, Silent
from pai_bench.sweep.slurm.ledger import Chunk, Ledger, open_chunks, user

SUBMITTING_SECONDS = 300.0
"""How long a submitter on another machine may be at it before it counts as gone; sbatch itself gives up after 120."""


@dataclass(frozen=True)
class Task:
    """A task that SLURM knows and that has not ended."""

    job: str
    state: str
    reason: str
    node: str
    sweep: str
    token: str
    names: tuple[str, ...]
    """Of its cells: the paths of their results below runs/, without .json."""


@dataclass(frozen=True)
class InFlight:
    """What has been submitted of a results folder and has not ended."""

    tasks: tuple[Task, ...] = ()
    ended: tuple[Task, ...] = ()
    """Tasks that have ended and that the controller still remembers."""
    unknown: frozenset[str] = frozenset()
    """Names of cells of which nobody can say whether they are on their way."""
    jobs: Mapping[str, str] | None = None
    """State by job, also of those that have ended, for the claims; None when the controller did not answer."""
    silent: str | None = None
    """Why it did not answer."""
    elsewhere: frozenset[str] = frozenset()
    """Sweeps whose jobs cannot be seen from here: another cluster's, or another user's where such are hidden."""

    def names(self) -> frozenset[str]:
        """All cells that are not to be submitted again."""
        return self.unknown | {name for task in self.tasks for name in task.names}


def survey(root: Path, controller: Controller, *, heal: bool = False) -> InFlight:
    """What is on its way; one call of squeue and one of scontrol, and none where nothing has been submitted.

    With `heal`, jobs whose submitter died before it could note them are noted, and sweeps that have ended are closed.
    """
    chunks = open_chunks(root)
    if not chunks:
        return InFlight(jobs={})
    try:
        limits = controller.limits()
        rows = controller.rows({chunk.user for chunk in chunks})
    except Silent as error:
        return InFlight(unknown=frozenset(_names(chunks)), silent=str(error))
    by_chunk: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        by_chunk.setdefault((row.sweep, row.token), []).append(row)
    tasks: list[Task] = []
    ended: list[Task] = []
    unknown: list[Chunk] = []
    living: set[str] = set()
    elsewhere: set[str] = set()
    me = user()
    for chunk in chunks:
        found = by_chunk.get((chunk.sweep, chunk.token), [])
        names = chunk.tasks() if found else ()
        for row in found:
            cells = names[row.index] if row.index < len(names) else ()
            task = Task(row.job, row.state, row.reason, row.node, row.sweep, row.token, cells)
            (ended if row.ended else tasks).append(task)
            if not row.ended:
                living.add(chunk.sweep)
        if found and chunk.job is None and heal:
            Ledger(root, chunk.sweep).adopted(chunk.token, found[0].job.partition("_")[0])
        if found:
            continue
        hidden = chunk.cluster != limits.cluster or (chunk.user != me and not limits.shows_others)
        if hidden or (chunk.job is None and _may_be_submitting(chunk)):
            unknown.append(chunk)
            living.add(chunk.sweep)
        if hidden:
            elsewhere.add(chunk.sweep)
    if heal:
        for sweep in {chunk.sweep for chunk in chunks} - living:
            Ledger(root, sweep).close()
    jobs = {row.job: row.state for row in rows}
    return InFlight(tuple(tasks), tuple(ended), frozenset(_names(unknown)), jobs, elsewhere=frozenset(elsewhere))


def _names(chunks: list[Chunk]) -> list[str]:
    return [name for chunk in chunks for task in chunk.tasks() for name in task]


def _may_be_submitting(chunk: Chunk) -> bool:
    """Whether the submitter may still be between its note and sbatch's answer."""
    try:
        here = Owner(**chunk.owner).runs_here()
    except TypeError:
        here = None
    if here is not None:
        return here
    return (datetime.now(UTC) - chunk.at).total_seconds() < SUBMITTING_SECONDS
