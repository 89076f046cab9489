"""`pai-bench logs`: the log of a cell, why it failed, and what its SLURM job printed."""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from pai_bench import results
from pai_bench.errors import PaiBenchError
from pai_bench.sweep import queue
from pai_bench.sweep.find import find
from pai_bench.sweep.status import cause_key
from pai_bench.sweep.wanted import Wanted, slug, wanted

Say = Callable[[str], None]


def run(
    folder: Path | None, text: str | None, *, failed: bool, every: bool, follow: bool, tail: int | None, say: Say
) -> None:
    """Print the log of the cell that `text` means, or those of failed cells: one for each cause, or all.

    Raises: PaiBenchError when no cell or more than one is meant, or nothing has been logged of it.
    """
    root = results.resolve_root(folder)
    if (text is None) != failed:
        raise PaiBenchError("logs needs one cell, or --failed", "for instance pai-bench logs snip/digits/conv8/0.9/0")
    if every and not failed:
        raise PaiBenchError("--all belongs to --failed", "write logs --failed --all")
    if follow and failed:
        raise PaiBenchError("--follow is for one cell", "name the cell instead of --failed")
    cells = wanted(root, results.names(root / "runs", ".json"))
    if text is None:
        _print_failed(root, cells, every, tail, say)
        return
    cell = find(text, cells, root)
    if follow:
        with suppress(KeyboardInterrupt):
            _follow(root, cell, tail, say)
    elif not _print(root, cell, tail, say):
        raise PaiBenchError(
            f"nothing has been logged of {slug(cell.cell)} yet", "pai-bench status shows whether it runs"
        )


def _print_failed(root: Path, cells: Iterable[Wanted], every: bool, tail: int | None, say: Say) -> None:
    present, noted = results.names(root / "runs", ".json"), results.names(results.failures_folder(root), ".json")
    failed = [cell for cell in cells if cell.name in noted - present]
    if not failed:
        say(f"no cell in {root} has failed")
        return
    keys = {cell: cause_key(_failure(root, cell).cause) for cell in failed}
    counts = Counter(keys.values())
    shown: set[str] = set()
    for cell in failed:
        key = keys[cell]
        if every or key not in shown:
            others = "" if every or counts[key] == 1 else f", one of {counts[key]} that failed for this cause"
            print(f"==> {slug(cell.cell)}{others}")
            _print(root, cell, tail, say)
        shown.add(key)


def _failure(root: Path, cell: Wanted) -> results.Failure:
    return results.read_failure(root, cell.cell, cell.recipe, cell.fingerprint) or results.Failure("", "", 0, "error")


def _print(root: Path, cell: Wanted, tail: int | None, say: Say) -> bool:
    """Print what there is of the cell; returns whether there is anything."""
    found = False
    for place in _files(root, cell):
        with suppress(FileNotFoundError, NotADirectoryError):
            lines = _lines(place, tail)
            say(f"--- {place}")
            for line in lines:
                print(line)
            found = True
    failure = _failure(root, cell)
    if failure.attempts:
        say(f"--- failed {failure.attempts} time{'s' if failure.attempts > 1 else ''}")
        print(failure.traceback.rstrip() or failure.cause)
        found = True
    return found


def _log(root: Path, cell: Wanted) -> Path:
    return results.cell_log_path(root, cell.cell, cell.recipe, cell.fingerprint)


def _files(root: Path, cell: Wanted) -> list[Path]:
    """The cell's own log, then what its SLURM jobs printed."""
    return [_log(root, cell), *queue.output_files(root, cell.name)]


def _lines(place: Path, tail: int | None) -> Iterable[str]:
    with place.open(encoding="utf-8", errors="replace") as file:
        return deque((line.rstrip("\n") for line in file), maxlen=tail)


def _follow(root: Path, cell: Wanted, tail: int | None, say: Say) -> None:
    """Print the cell's log and what is added to it, until nobody is at work on the cell."""
    place = _log(root, cell)
    claim = results.claim_path(root, cell.cell, cell.recipe, cell.fingerprint)
    if not place.exists():
        say(f"waiting for {place}")
    for text in _growing(place, tail, lambda: claim.exists()):
        sys.stdout.write(text)
        sys.stdout.flush()


def _growing(place: Path, tail: int | None, goes_on: Callable[[], bool]) -> Iterator[str]:
    """The text of a file and what is added to it; waits for the file, and ends when it is there and nothing goes on."""
    while not place.exists():
        time.sleep(0.2)
    with place.open(encoding="utf-8", errors="replace") as file:
        yield "".join(deque(file, maxlen=tail))
        while True:
            last = not goes_on()  # asked before reading, so that nothing written before the end is missed
            text = file.read()
            if text:
                yield text
            elif last:
                return
            else:
                time.sleep(0.2)
