"""The command `pai-bench cancel`: cancel a results folder's SLURM tasks, and stop its sweeps on this host."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from pai_bench import results
from pai_bench.core.filters import Filter, select
from pai_bench.errors import PaiBenchError
from pai_bench.results import ResultKey
from pai_bench.sweep.execution import claims
from pai_bench.sweep.planning.expected_cells import expected
from pai_bench.sweep.slurm import in_flight
from pai_bench.sweep.slurm.controller import Controller, ControllerUnavailable, tag
from pai_bench.sweep.slurm.in_flight import Task
from pai_bench.sweep.slurm.ledger import Chunk, complaints

Say = Callable[[str], None]


def run(folder: Path | None, filter_text: str | None, yes: bool, say: Say, ask: Callable[[str], bool]) -> bool:
    """Cancel tasks and stop sweeps, and report each through `say`; results, checkpoints and notes are kept.

    Returns True if everything was cancelled.

    Raises: PaiBenchError for an invalid filter, for one that matches no cell of the folder, and if confirmation is
        required without a terminal.
    """
    root = results.resolve_root(folder)
    if not root.is_dir():
        raise PaiBenchError(f"results folder {root} does not exist", "name the folder of the results with --results")
    chosen = None if filter_text is None else select(filter_text, [item.cell for item in _cells(root)])
    controller = Controller()
    # A job that one answer of squeue omits would continue; `sure` adds a second query.
    flight = in_flight.survey(root, controller, sure=True)
    for line in complaints(root):
        say(line)
    # A completing task has ended, and only its node is being cleaned up.
    going = [task for task in flight.tasks if task.state != "COMPLETING"]
    tasks = [task for task in going if chosen is None or all(_matches(chosen, name) for name in task.names)]
    processes = _processes(claims.survey(root, flight.jobs, say))
    if chosen is not None:
        mixed = [t for t in going if t not in tasks and any(_matches(chosen, name) for name in t.names)]
        if mixed:
            say(f"{len(mixed)} tasks also have other cells and continue, for example {mixed[0].job}")
        if processes:
            say(f"{len(processes)} processes on this host continue; omit --filter to stop them")
        processes = {}
    if flight.silent:
        say(f"SLURM did not respond ({flight.silent}): its tasks continue; cancel again later")
    unlisted = list(flight.unlisted) if chosen is None else []
    if not tasks and not processes and not unlisted:
        say(f"no running or pending work of {root} to cancel")
        return flight.silent is None
    what = " and ".join(
        [f"{len(tasks)} SLURM tasks"] * bool(tasks)
        + [f"{len(processes)} processes on this host"] * bool(processes)
        + [f"{len(unlisted)} jobs that squeue does not show"] * bool(unlisted)
    )
    if not yes:
        if not sys.stdin.isatty():
            raise PaiBenchError(f"this would cancel {what}", "add --yes")
        if not ask(f"cancel {what}?"):
            return True
    cancelled = _cancel(going, tasks, controller, say)
    for chunk in unlisted:
        cancelled &= _cancel_unlisted(chunk, controller, say)
    _stop(processes, say)
    say("finished results are kept; the same sweep resumes from the last checkpoints")
    return cancelled and flight.silent is None


def _cells(root: Path) -> list[ResultKey]:
    """Return all cells of the folder's plans and results."""
    return expected(results.read_plans(root).found, results.names(root / "runs", ".json"))


def _matches(chosen: Filter, name: str) -> bool:
    key = ResultKey.parse(name)
    return key is not None and chosen.matches(key.cell)


def _cancel(going: Iterable[Task], tasks: Iterable[Task], controller: Controller, say: Say) -> bool:
    """Cancel tasks with one scancel per array; use the array's id alone if all its remaining tasks are cancelled."""
    left = Counter(_array(task) for task in going)
    chosen: dict[str, list[Task]] = defaultdict(list)
    for task in tasks:
        chosen[_array(task)].append(task)
    worked = True
    for array, group in chosen.items():
        job = array
        if len(group) < left[array]:
            job = f"{array}_[{','.join(task.job.partition('_')[2] for task in group)}]"
        try:
            controller.ask("scancel", job)
        except ControllerUnavailable as error:
            say(f"job {array} was not cancelled: {error}")
            worked = False
        else:
            n_cells = sum(len(task.names) for task in group)
            say(f"job {array}: cancelled {len(group)} tasks of {n_cells} cells")
    return worked


def _cancel_unlisted(chunk: Chunk, controller: Controller, say: Say) -> bool:
    """Cancel a job that squeue does not list, by its id or its name; return True if it certainly no longer exists."""
    words = f"the job of chunk {chunk.sweep}/{chunk.token}" if chunk.job is None else f"job {chunk.job}"
    try:
        # If the reply of sbatch was lost, only the tag is known, which is also the name of the job.
        controller.ask("scancel", *([chunk.job] if chunk.job else ["--me", f"--name={tag(chunk.sweep, chunk.token)}"]))
    except ControllerUnavailable as error:
        say(f"{words}, which squeue does not show, was not cancelled: {error}")
        return False
    if chunk.job is None:
        say(f"{words} may still reach the queue: cancel again in {in_flight.GRACE_SECONDS / 60:.0f} minutes")
        return False
    say(f"{words}, which squeue does not show: cancelled")
    return True


def _array(task: Task) -> str:
    return task.job.partition("_")[0]


def _processes(held: Iterable[claims.ClaimStatus]) -> Mapping[int, int]:
    """Return the sweeps running on this host, by process number, with the number of cells claimed by each."""
    found: Counter[int] = Counter()
    for claim in held:
        # Processes inside a job are ended by SLURM; runs_here detects a reused process number.
        if claim.owner.job is None and claim.owner.runs_here():
            found[_in_charge(claim.owner.pid)] += 1
    return found


def _in_charge(pid: int) -> int:
    """Return the process to signal: the sweep of a worker, which would otherwise start a new worker, or `pid` itself.

    A worker whose sweep was killed survives for some seconds under an unrelated parent process.
    """
    with suppress(OSError):
        if re.search(rb"pai_bench\.sweep\.(local\.)?worker", _command_line(pid)):
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            if re.search(rb"pai[-_]bench", _command_line(parent)):
                return parent
    return pid


def _command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _stop(processes: Mapping[int, int], say: Say) -> None:
    for pid, n_cells in processes.items():
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            continue
        except PermissionError:
            say(f"process {pid} belongs to another user and continues")
        else:
            say(f"process {pid}: asked to save its {n_cells} cells and stop")
