"""Lock of a results folder that allows one submitter at a time, so that concurrent sweeps do not submit a cell twice.

The lock is held for the seconds of planning and submission. It can fail (on a file system without hard links, or when
a suspended submitter resumes); in that case claims still prevent two workers from running the same cell at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from pai_bench import results
from pai_bench.core.atomic import as_json, draft, move_away
from pai_bench.errors import PaiBenchError
from pai_bench.results import shapes
from pai_bench.sweep.execution.owner import Owner

# Six intervals of TOUCH_SECONDS, because a slow file server delays single updates.
STALE_SECONDS = 120.0
TOUCH_SECONDS = 20.0


@contextmanager
def submitting(root: Path, owner: Owner, say: Callable[[str], None], patience: float = 600.0) -> Iterator[None]:
    """Hold the submission lock of a results folder; wait for another submitter, and replace the lock of a dead one.

    Raises: PaiBenchError when another submitter holds the lock for more than `patience` seconds.
    """
    place = results.sweeps_folder(root) / "submitting"
    began, reported = time.monotonic(), False
    while not _take(place, owner):
        if not reported:
            say(f"another sweep is submitting to {root}; waiting for it")
            reported = True
        if time.monotonic() - began > patience:
            raise PaiBenchError(
                f"another sweep holds {place}", "check which process it names, and remove it if that process has ended"
            )
        time.sleep(0.5)
    end = threading.Event()
    thread = threading.Thread(target=_touch, args=(place, end), daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
        with suppress(OSError):
            if place.read_bytes() == as_json(asdict(owner)):  # another submitter may have replaced a stale lock
                place.unlink()


def _take(place: Path, owner: Owner) -> bool:
    with draft(place) as new:
        with new.writing() as file:
            file.write(as_json(asdict(owner)))
        if new.put():
            return True
        with suppress(FileNotFoundError):
            seen = place.stat()
            age = new.temporary.stat().st_mtime - seen.st_mtime  # both times from the file server's clock
            # The stale lock replaces our temporary file, which `draft` removes.
            if _is_dead(place, age) and move_away(place, new.temporary, seen):
                return _take(place, owner)
    return False


def _is_dead(place: Path, age: float) -> bool:
    try:
        here = Owner(**shapes.table(place.read_bytes())).runs_here()
    except (ValueError, TypeError):
        here = None
    # The processes of another machine cannot be examined, so that only the age of the lock counts.
    return age > STALE_SECONDS if here is None else not here


def _touch(place: Path, end: threading.Event) -> None:
    while not end.wait(TOUCH_SECONDS):
        with suppress(OSError):
            place.touch()
