"""Count of job crashes per cell, so that a cell that crashes every job is not resubmitted forever."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from pai_bench import results
from pai_bench.core.atomic import write_json
from pai_bench.results import ResultKey, shapes
from pai_bench.sweep.execution.claims import ClaimStatus
from pai_bench.sweep.planning.plan import PlannedRun
from pai_bench.sweep.slurm.in_flight import InFlight, Task

MAX_DEATHS = 3
"""Number of crashed jobs after which a cell is recorded as failed."""
CELL_FAULT_STATES = ("FAILED", "OUT_OF_MEMORY", "COMPLETED")
"""Job end states attributed to the cell itself (not to a node failure, a time limit, or a cancellation)."""
FORGIVEN = "forgiven"
GPU_ERROR = "GPU error"
_MEMORY = re.compile(rb"exceeded (job )?memory limit|oom.kill|out of memory", re.IGNORECASE)


def count(root: Path, planned: Iterable[PlannedRun], held: Iterable[ClaimStatus], flight: InFlight) -> set[str]:
    """Record the jobs that crashed while they ran one of the planned cells.

    A cell with MAX_DEATHS crashed jobs is recorded as failed with the cause. Returns the names of these cells.
    """
    items = {item.key.name: item for item in planned}
    given_up = set()
    for name, deaths in _new(root, items, held, flight).items():
        known = _read(root, name)
        if deaths.keys() <= known.keys():
            continue
        # Recorded entries take precedence, because the user may have forgiven them.
        known = deaths | known
        write_json(_place(root, name), known)
        counted = {job: how for job, how in known.items() if how != FORGIVEN}
        if len(counted) >= MAX_DEATHS:
            cause = f"{len(counted)} jobs died on it: {', '.join(f'{job} {how}' for job, how in counted.items())}"
            memory = any("memory" in how.lower() for how in counted.values())
            results.write_failure(
                root,
                items[name].key,
                cause=f"{cause}; give it more with --slurm mem=…" if memory else cause,
                traceback="",
                kind="oom" if memory else "died",
            )
            given_up.add(name)
    return given_up


def _new(
    root: Path, items: Mapping[str, PlannedRun], held: Iterable[ClaimStatus], flight: InFlight
) -> dict[str, dict[str, str]]:
    """Return, for each cell, the jobs that ended while they held it, with their end states."""
    ended = {task.job: task for task in flight.ended if task.state in CELL_FAULT_STATES}
    claimed = {claim.owner.job: claim for claim in held if claim.verdict == "dead" and claim.owner.job is not None}
    found: dict[str, dict[str, str]] = {}
    for job, claim in claimed.items():
        # The end state of a job that slurmctld has purged is unknown; count it, or the crashes might never add up.
        if (flight.jobs or {}).get(job, "FAILED") in CELL_FAULT_STATES:
            name = claim.key.name
            if name in items and items[name].state in ("missing", "stale"):
                found.setdefault(name, {})[job] = _how(root, ended.get(job))
    for job, task in ended.items():
        # A job that ended before it claimed a cell is attributed to the first cell it would have claimed.
        left = [name for name in task.names if name in items and items[name].state in ("missing", "stale")]
        if left and job not in claimed and task.state != "COMPLETED" and not _ended_by_itself(root, task):
            found.setdefault(left[0], {})[job] = _how(root, task)
    return found


def _how(root: Path, task: Task | None) -> str:
    if task is None:
        return "gone"
    return f"{task.state} (memory limit)" if _MEMORY.search(_output(root, task)) else task.state


def _ended_by_itself(root: Path, task: Task) -> bool:
    """Return True when the last attempt of a task reported a regular end: it was warned, or could not write."""
    return any(word in _output(root, task) for word in (b"pai-bench: ends", b"pai-bench: asked to stop"))


def _output(root: Path, task: Task) -> bytes:
    """Return the last lines that the latest attempt of a task printed."""
    for place in (results.sweeps_folder(root) / task.sweep / task.token).glob(f"{task.job}_*log.err"):
        with suppress(OSError):
            return place.read_bytes()[-20_000:].rpartition(b"pai-bench: task ")[2]
    return b""


def record_gpu_error(root: Path, keys: Iterable[ResultKey], job: str) -> None:
    """Count an error of the GPU for all cells that a job was running, because any of them may have caused it.

    A cell with MAX_DEATHS crashed jobs is recorded as failed; its last jobs ran it alone (see `suspected`).
    """
    for key in keys:
        known = {job: GPU_ERROR} | _read(root, key.name)
        counted = {job: how for job, how in known.items() if how != FORGIVEN}
        # The job ends in any case; without the record, its cells only get one more attempt.
        with suppress(OSError):
            write_json(_place(root, key.name), known)
            if len(counted) >= MAX_DEATHS:
                cause = f"{len(counted)} jobs died on it: {', '.join(f'{job} {how}' for job, how in counted.items())}"
                results.write_failure(root, key, cause=cause, traceback="", kind="died")


def suspected(root: Path, names: Iterable[str]) -> set[str]:
    """Return the names of the cells that jobs have crashed on; each of them must run alone in its process."""
    return {name for name in names if any(how != FORGIVEN for how in _read(root, name).values())}


def forget(root: Path, names: Iterable[str]) -> None:
    """Reset the crash counts of cells that the user retries."""
    for name in names:
        # The jobs stay listed as forgiven; without an entry, the next count would find and count them again.
        write_json(_place(root, name), dict.fromkeys(_read(root, name), FORGIVEN))


def _place(root: Path, name: str) -> Path:
    return root / "state" / "deaths" / f"{name}.json"


def _read(root: Path, name: str) -> dict[str, str]:
    with suppress(OSError, ValueError):
        found = shapes.table(_place(root, name).read_bytes())
        if all(type(how) is str for how in found.values()):
            return found
    return {}
