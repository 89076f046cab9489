"""Cells on which jobs die: counted, so that a cell that kills every job is not submitted for ever."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from pai_bench import results
from pai_bench.core.atomic import write_json
from pai_bench.results import shapes
from pai_bench.sweep.execution.claims import Held
from pai_bench.sweep.planning.plan import PlannedRun
from pai_bench.sweep.slurm.in_flight import InFlight, Task

MAX_DEATHS = 3
"""A cell on which this many jobs have died is recorded as failed."""
GUILTY = ("FAILED", "OUT_OF_MEMORY", "COMPLETED")
"""How a job ends when what ran in it is to blame; a node, a limit or a person is no fault of the cell."""
FORGIVEN = "forgiven"
_MEMORY = re.compile(rb"exceeded (job )?memory limit|oom.kill|out of memory", re.IGNORECASE)


def count(root: Path, planned: Iterable[PlannedRun], held: Iterable[Held], flight: InFlight) -> set[str]:
    """Note which jobs have died on which of the planned cells; returns the names of those that have had their share,
    which are recorded as failed with their cause."""
    items = {results.name(item.run.cell, item.run.recipe.name, item.fingerprint): item for item in planned}
    given_up = set()
    for name, deaths in _new(root, items, held, flight).items():
        known = _read(root, name)
        if deaths.keys() <= known.keys():
            continue
        known = deaths | known
        write_json(_place(root, name), known)
        counted = {job: how for job, how in known.items() if how != FORGIVEN}
        if len(counted) >= MAX_DEATHS:
            item = items[name]
            cause = f"{len(counted)} jobs died on it: {', '.join(f'{job} {how}' for job, how in counted.items())}"
            memory = any("memory" in how.lower() for how in counted.values())
            results.write_failure(
                *(root, item.run.cell, item.run.recipe.name, item.fingerprint),
                cause=f"{cause}; give it more with --slurm mem=…" if memory else cause,
                traceback="",
                kind="oom" if memory else "died",
            )
            given_up.add(name)
    return given_up


def _new(
    root: Path, items: Mapping[str, PlannedRun], held: Iterable[Held], flight: InFlight
) -> dict[str, dict[str, str]]:
    """By cell, the jobs that ended while they had it, and how."""
    ended = {task.job: task for task in flight.ended if task.state in GUILTY}
    claimed = {claim.owner.job: claim for claim in held if claim.verdict == "dead" and claim.owner.job is not None}
    found: dict[str, dict[str, str]] = {}
    for job, claim in claimed.items():
        # One that the controller has forgotten may have ended in any way; so it counts.
        if (flight.jobs or {}).get(job, "FAILED") in GUILTY:
            name = results.name(claim.cell, claim.recipe, claim.fingerprint)
            if name in items and items[name].state in ("missing", "stale"):
                found.setdefault(name, {})[job] = _how(root, ended.get(job))
    for job, task in ended.items():
        # One that died before it had claimed anything died on the first cell that it would have claimed.
        left = [name for name in task.names if name in items and items[name].state in ("missing", "stale")]
        if left and job not in claimed and task.state != "COMPLETED" and not _ended_by_itself(root, task):
            found.setdefault(left[0], {})[job] = _how(root, task)
    return found


def _how(root: Path, task: Task | None) -> str:
    if task is None:
        return "gone"
    return f"{task.state} (memory limit)" if _MEMORY.search(_output(root, task)) else task.state


def _ended_by_itself(root: Path, task: Task) -> bool:
    """Whether the last attempt of a task has said so: it was warned, or could not write."""
    return any(word in _output(root, task) for word in (b"pai-bench: ends", b"pai-bench: asked to stop"))


def _output(root: Path, task: Task) -> bytes:
    """The end of what the last attempt of a task has printed."""
    for place in (results.sweeps_folder(root) / task.sweep / task.token).glob(f"{task.job}_*log.err"):
        with suppress(OSError):
            return place.read_bytes()[-20_000:].rpartition(b"pai-bench: task ")[2]
    return b""


def forget(root: Path, names: Iterable[str]) -> None:
    """Let cells begin to count anew: somebody wants to try them again."""
    for name in names:
        write_json(_place(root, name), dict.fromkeys(_read(root, name), FORGIVEN))


def _place(root: Path, name: str) -> Path:
    return root / "state" / "deaths" / f"{name}.json"


def _read(root: Path, name: str) -> dict[str, str]:
    with suppress(OSError, ValueError):
        found = shapes.table(_place(root, name).read_bytes())
        if all(type(how) is str for how in found.values()):
            return found
    return {}
