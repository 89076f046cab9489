"""Status of a results folder: the state of every planned cell, from file names, claims and squeue."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from pai_bench import results
from pai_bench.cells import Cell
from pai_bench.core.filters import select
from pai_bench.results import ResultKey, index, shapes, surplus, ties
from pai_bench.sweep.execution import claims, eta
from pai_bench.sweep.planning.expected_cells import expected
from pai_bench.sweep.slurm import stops
from pai_bench.sweep.slurm.in_flight import InFlight, Task
from pai_bench.sweep.slurm.ledger import complaints

NOTHING_SUBMITTED = InFlight(jobs={})
STATES = ("done", "running", "queued", "failed", "stale", "missing", "unknown")


@dataclass(frozen=True)
class CellState:
    """A cell and its state."""

    cell: Cell
    recipe: str
    state: str
    flag: str | None = None
    """"collapsed" or "diverged" for a result with that status."""


@dataclass(frozen=True)
class Running:
    """A claimed cell, described by its last heartbeat."""

    cell: Cell
    recipe: str
    where: str
    phase: str | None
    epoch: int | None
    epochs: int | None
    seconds_left: float | None
    silent: float
    """Seconds since the last heartbeat."""
    verdict: str
    """"alive" or "unknown"."""


@dataclass(frozen=True)
class Failure:
    """Cells that failed with the same cause."""

    cause: str
    kind: str
    count: int
    example: Cell
    recipe: str


@dataclass(frozen=True)
class Waiting:
    """Pending SLURM tasks with the same reason."""

    reason: str
    words: str
    remedy: str | None
    n_tasks: int
    n_cells: int
    job: str
    """The job of one of these tasks, as an example."""


@dataclass(frozen=True)
class Status:
    """The complete output of `pai-bench status` as data."""

    root: Path
    cells: tuple[CellState, ...]
    running: tuple[Running, ...]
    failures: tuple[Failure, ...]
    waiting: tuple[Waiting, ...]
    notes: tuple[str, ...]
    seconds_left: float | None
    """Seconds until all cells that are neither done nor failed have ended, at the present pace; None if none runs."""

    def counts(self) -> dict[str, int]:
        """Return the number of cells in each of STATES."""
        found = Counter(cell.state for cell in self.cells)
        return {state: found[state] for state in STATES}

    def ended(self) -> bool:
        """Return True if every cell is done or has failed."""
        counts = self.counts()
        return counts["done"] + counts["failed"] == len(self.cells)

    def as_dict(self) -> dict[str, Any]:
        """Return the status as plain data for JSON."""
        plain = asdict(self)
        del plain["root"]
        return {"results": str(self.root), "total": len(self.cells), "counts": self.counts(), **plain}


def collect(root: Path, flight: InFlight = NOTHING_SUBMITTED, filter_text: str | None = None) -> Status:
    """Collect the status of a folder or of the cells that a filter selects; `flight` describes its SLURM jobs.

    Raises: PaiBenchError for an invalid filter, and for one that selects no cell of the folder.
    """
    # Read the claims first: a cell that finishes meanwhile is then found by its result.
    damaged: list[str] = []
    surveyed = [(claim.key.name, claim) for claim in claims.survey(root, flight.jobs, damaged.append)]
    held = {name: claim for name, claim in surveyed if claim.verdict != "dead"}
    queued = {name for task in flight.tasks if task.state != "COMPLETING" for name in task.names}
    failed = results.names(results.failures_folder(root), ".json")
    found = index.read(root)
    present = {results.name_of(Path(row["path"])): row for row in found.rows}
    # The last eight characters of a name are the fingerprint.
    other_settings = {name[:-8] for name in present}
    files = {results.name_of(Path(place)) for place in found.unreadable if place.endswith(".json")}
    plans = results.read_plans(root)
    keys = expected(plans.found, {*present, *files})
    if filter_text is not None:
        chosen = select(filter_text, [item.cell for item in keys])
        keys = [item for item in keys if chosen.matches(item.cell)]

    def state(name: str) -> str:
        # A result outranks every other trace, because a claim or a queued task may outlive it for a moment.
        if name in present:
            return "done"
        if name in held:
            return "running" if held[name].verdict == "alive" else "unknown"
        if name in queued:
            return "queued"
        if name in flight.unknown or found.hides(root / "runs" / f"{name}.json"):
            return "unknown"
        # The record of an earlier attempt does not count while the cell is claimed or queued again.
        if name in failed:
            return "failed"
        return "stale" if name[:-8] in other_settings else "missing"

    states = {cell.name: state(cell.name) for cell in keys}
    shown = [present[cell.name] for cell in keys if cell.name in present]
    tasks = [task for task in flight.tasks if filter_text is None or not states.keys().isdisjoint(task.names)]
    cells = tuple(CellState(cell.cell, cell.recipe, states[cell.name], _flag(present.get(cell.name))) for cell in keys)
    running = tuple(_running(claim) for name, claim in held.items() if states.get(name) in ("running", "unknown"))
    gone = [name for name, claim in surveyed if claim.verdict == "dead" and states.get(name) in ("stale", "missing")]
    return Status(
        root=root,
        cells=cells,
        running=running,
        failures=_failures(root, [cell for cell in keys if states[cell.name] == "failed"]),
        waiting=_waiting(tasks, states),
        notes=(
            *_notes(root, flight, gone, found),
            *filter(None, (ties.line(shown), surplus.line(shown))),
            *plans.damaged,
            *damaged,
            *complaints(root),
        ),
        seconds_left=eta.seconds_left(
            [_going(held[name]) for name, state in states.items() if state == "running"],
            [_kind(cell.cell, cell.recipe) for cell in cells if cell.state in ("queued", "missing", "stale")],
            eta.durations(found.rows),
        ),
    )


def _flag(row: Mapping[str, Any] | None) -> str | None:
    return None if row is None or row["status"] == "ok" else row["status"]


def _kind(cell: Cell, recipe: str) -> eta.Kind:
    return cell.dataset, cell.model, recipe


def _going(claim: claims.ClaimStatus) -> eta.RunningCell:
    seconds = claim.seconds or 0.0
    return eta.RunningCell(
        _kind(claim.key.cell, claim.key.recipe), seconds, claim.epoch or 0, claim.epochs, claim.seconds_per_epoch
    )


def _running(claim: claims.ClaimStatus) -> Running:
    owner = claim.owner
    return Running(
        cell=claim.key.cell,
        recipe=claim.key.recipe,
        where=f"job {owner.job} on {owner.host}" if owner.job else owner.host,
        phase=claim.phase,
        epoch=claim.epoch,
        epochs=claim.epochs,
        seconds_left=_going(claim).left(),
        silent=claim.age,
        verdict=claim.verdict,
    )


def cause_key(cause: str) -> str:
    """Return a key for a cause of failure, equal for causes that differ only in numbers and addresses."""
    return re.sub(r"0x[0-9a-f]+|\d+(\.\d+)?", "#", cause)


def _failures(root: Path, cells: Iterable[ResultKey]) -> tuple[Failure, ...]:
    """Group failures by cause, most frequent first; causes that differ only in numbers count as one."""
    groups: dict[str, list[tuple[ResultKey, results.Failure]]] = defaultdict(list)
    for cell in cells:
        if note := results.read_failure(root, cell):
            groups[cause_key(note.cause)].append((cell, note))
    failures = []
    for group in sorted(groups.values(), key=len, reverse=True):
        cell, note = group[0]
        failures.append(Failure(note.cause, note.kind, len(group), cell.cell, cell.recipe))
    return tuple(failures)


def _waiting(tasks: Iterable[Task], states: Mapping[str, str]) -> tuple[Waiting, ...]:
    """Group pending tasks by reason; reasons that require action by the user come first."""
    groups: dict[str, list[Task]] = defaultdict(list)
    for task in tasks:
        if task.waits:
            groups[task.reason].append(task)
    found = []
    for reason, group in groups.items():
        meaning = group[0].meaning
        n_cells = sum(states.get(name) == "queued" for task in group for name in task.names)
        remedy = meaning.remedy and meaning.remedy.format(job=group[0].job)
        found.append(Waiting(reason, meaning.words, remedy, len(group), n_cells, group[0].job))
    return tuple(sorted(found, key=lambda waiting: (waiting.remedy is None, -waiting.n_tasks)))


def _notes(root: Path, flight: InFlight, gone: Sequence[str], found: index.Index) -> Iterable[str]:
    if flight.silent:
        yield f"SLURM did not respond ({flight.silent}): the state of this folder's tasks is unknown, not lost"
    if flight.unlisted:
        n_cells = len({name for chunk in flight.unlisted for task in chunk.tasks() for name in task})
        yield f"squeue does not list jobs of {n_cells} cells that may be in the queue: run pai-bench status again later"
    if flight.elsewhere:
        yield f"jobs of {', '.join(sorted(flight.elsewhere))} are not visible from this host (another cluster or user)"
    if requeues := stops.requeues(root, ((task.sweep, task.token, task.job) for task in flight.tasks)):
        job, most = max(requeues.items(), key=itemgetter(1))
        times = "once" if most == 1 else f"{most} times"
        which = f"job {job} was" if len(requeues) == 1 else f"{len(requeues)} tasks were"
        yield f"{which} requeued {times}" if len(requeues) == 1 else f"{which} requeued, job {job} most often: {times}"
    if gone:
        cells = "1 cell was" if len(gone) == 1 else f"{len(gone)} cells were"
        yield f"{cells} interrupted, and no process has claimed them since; the next sweep resumes them"
    if found.unreadable:
        place, why = next(iter(found.unreadable.items()))
        which = place if len(found.unreadable) == 1 else f"{len(found.unreadable)} paths, for example {place},"
        yield f"{which} cannot be read ({why}): results there are unknown, not lost; check permissions and disk"
    if n_damaged := len(found.damaged):
        files = f"{n_damaged} result files are corrupt and not counted; the next sweep sets them aside"
        yield f"{files} (for example {found.damaged[0]})"
    folder = results.duplicates_folder(root)
    if noted := results.names(folder, ".json"):
        verdicts = {name: _equal(folder / f"{name}.json") for name in noted}
        differ = sum(equal is False for equal in verdicts.values())
        verdict = f"{differ} of them gave a different result" if differ else "each gave the same result"
        if lost := [name for name, equal in verdicts.items() if equal is None]:
            verdict += f", as far as notes can be read; {len(lost)} are damaged, as {lost[0]}.json"
        yield f"{len(noted)} times a cell was run twice; the first result counts, and {verdict} (see {folder})"


def _equal(note: Path) -> bool | None:
    """Return True if the second result of a cell was equal to the first; None if the note is damaged."""
    with suppress(OSError, ValueError):
        plain = shapes.table(note.read_bytes())
        shapes.check(plain, {"equal": (bool,)})
        return bool(plain["equal"])
    return None
