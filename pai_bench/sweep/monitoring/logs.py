"""The command `pai-bench logs`: print a cell's log, the cause of its failure, and the output of its SLURM job."""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from pai_bench import results
from pai_bench.core.filters import select
from pai_bench.errors import PaiBenchError
from pai_bench.results import ResultKey
from pai_bench.sweep.monitoring.find_cell import find
from pai_bench.sweep.monitoring.status import cause_key
from pai_bench.sweep.planning.expected_cells import expected, slug
from pai_bench.sweep.slurm.ledger import sweep_chunks

JOB_LINES = 50
"""Number of final lines shown of a SLURM task's output, which may cover many cells."""

POLL_SECONDS = 0.2

Say = Callable[[str], None]


def run(
    folder: Path | None,
    text: str | None,
    filter_text: str | None = None,
    *,
    failed: bool,
    every: bool,
    follow: bool,
    tail: int | None,
    say: Say,
) -> None:
    """Print the log of the cell that `text` matches, or logs of failed cells: one for each cause, or all.

    A filter selects among failed cells.

    Raises: PaiBenchError when no cell or more than one cell matches, or the cell has no log.
    """
    root = results.resolve_root(folder)
    if (text is None) != failed:
        raise PaiBenchError("logs needs one cell, or --failed", "for example pai-bench logs snip/digits/conv8/0.9/0")
    if every and not failed:
        raise PaiBenchError("--all requires --failed", "use logs --failed --all")
    if filter_text is not None and not failed:
        raise PaiBenchError("--filter requires --failed", "use logs --failed --filter 'method=snip'")
    if follow and failed:
        raise PaiBenchError("--follow requires one cell", "name the cell instead of --failed")
    if not root.is_dir():
        raise PaiBenchError(f"results folder {root} does not exist", "name the folder of the results with --results")
    plans = results.read_plans(root)
    for line in plans.damaged:
        say(line)
    cells = expected(plans.found, results.names(root / "runs", ".json"))
    logs = _Logs(root, tail, say)
    if text is None:
        if filter_text is not None:
            chosen = select(filter_text, [item.cell for item in cells])
            cells = [item for item in cells if chosen.matches(item.cell)]
        logs.print_failed(cells, every)
        return
    cell = find(text, cells, root)
    if follow:
        with suppress(KeyboardInterrupt):
            logs.follow(cell)
    elif not logs.print(cell):
        raise PaiBenchError(f"{slug(cell.cell)} has no log yet", "pai-bench status shows its state")


class _Logs:
    """Printer of cell logs: the whole files or their last `tail` lines, with file names passed to `say`."""

    def __init__(self, root: Path, tail: int | None, say: Say) -> None:
        self._root = root
        self._tail = tail
        self._say = say
        self._printed = _printed(root)

    def print(self, cell: ResultKey) -> bool:
        """Print all logs of the cell; return True if there are any."""
        found = self._print_file(cell.log_path(self._root), self._tail)
        for place in self._printed.get(cell.name, ()):
            found = self._print_file(place, self._tail or JOB_LINES) or found
        failure = self._failure(cell)
        if failure is not None:
            self._say(f"--- failed {failure.attempts} time{'s' if failure.attempts > 1 else ''}")
            print(failure.traceback.rstrip() or failure.cause)
        return found or failure is not None

    def print_failed(self, cells: Iterable[ResultKey], every: bool) -> None:
        """Print the log of one failed cell for each cause, or of every failed cell."""
        noted = results.names(results.failures_folder(self._root), ".json") - results.names(
            self._root / "runs", ".json"
        )
        causes: dict[ResultKey, str] = {}
        for cell in cells:
            if cell.name in noted and (failure := self._failure(cell)) is not None:
                causes[cell] = cause_key(failure.cause)
        if not causes:
            self._say(f"no cell in {self._root} has failed")
        counts = Counter(causes.values())
        shown: set[str] = set()
        for cell, cause in causes.items():
            if every or cause not in shown:
                others = "" if every or counts[cause] == 1 else f", one of {counts[cause]} that failed for this cause"
                print(f"==> {slug(cell.cell)}{others}")
                self.print(cell)
            shown.add(cause)

    def follow(self, cell: ResultKey) -> None:
        """Print the cell's log as it grows, until no process has claimed the cell; wait for the log to appear first."""
        place = cell.log_path(self._root)
        claim, result = cell.claim_path(self._root), cell.path(self._root)
        if not place.exists():
            self._say(f"waiting for {place}")
        while not place.exists() and not result.exists() and self._failure(cell) is None:
            time.sleep(POLL_SECONDS)
        if place.exists():
            for text in _growing(place, self._tail, claim.exists):
                sys.stdout.write(text)
                sys.stdout.flush()
        if (failure := self._failure(cell)) is not None:
            self._say(f"--- failed: {failure.cause}")

    def _failure(self, cell: ResultKey) -> results.Failure | None:
        return results.read_failure(self._root, cell)

    def _print_file(self, place: Path, tail: int | None) -> bool:
        try:
            with place.open(encoding="utf-8", errors="replace") as file:
                lines = deque(file, maxlen=tail)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except IsADirectoryError:
            self._say(f"{place} is a folder, not a log, and was skipped")
            return False
        if lines:
            self._say(f"--- {place}")
            sys.stdout.write("".join(lines))
            if not lines[-1].endswith("\n"):
                sys.stdout.write("\n")
            sys.stdout.flush()
        return bool(lines)


def _printed(root: Path) -> dict[str, list[Path]]:
    """Return the output files of SLURM tasks by the names of their cells, oldest first."""
    found: dict[str, list[Path]] = defaultdict(list)
    for ledger in sorted(results.sweeps_folder(root).glob("*/ledger.jsonl")):
        for chunk in sweep_chunks(root, ledger.parent.name) if ledger.is_file() else ():
            tasks = chunk.tasks()
            for index, task in enumerate(tasks):
                job = chunk.job if len(tasks) == 1 else f"{chunk.job}_{index}"
                for name in task:
                    found[name] += [ledger.parent / chunk.token / f"{job}_0_log.{kind}" for kind in ("out", "err")]
    return found


def _growing(place: Path, tail: int | None, is_active: Callable[[], bool]) -> Iterator[str]:
    """Yield the text of a file and later additions, until `is_active` returns False."""
    with place.open(encoding="utf-8", errors="replace") as file:
        yield "".join(deque(file, maxlen=tail))
        while True:
            last = not is_active()  # asked before reading, so that nothing written before the end is missed
            text = file.read()
            if text:
                yield text
            elif last:
                return
            else:
                time.sleep(POLL_SECONDS)
