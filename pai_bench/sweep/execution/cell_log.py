"""The log of a cell: events and captured output of all its attempts, in one file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType


class CellLog:
    """Appends messages to a cell's log, and the output of this process inside `printing`.

    Write errors are ignored: a missing line in a log must not stop the cell.
    """

    def __init__(self, place: Path, attempt: str) -> None:
        self._place = place
        self._attempt = attempt
        self._file: int | None = None

    def __enter__(self) -> CellLog:
        with suppress(OSError):
            self._place.parent.mkdir(parents=True, exist_ok=True)
            # Appending keeps the lines of earlier attempts, and of a process that was wrongly taken for dead.
            # The umask limits the mode: in a group's folder, another user may resume the cell and append to its log.
            self._file = os.open(self._place, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None

    @contextmanager
    def printing(self) -> Iterator[None]:
        """Redirect stdout and stderr to the log while the context is active; costs a few microseconds."""
        if self._file is None:
            yield
            return
        # Text that is still in a buffer was printed before the redirection and does not belong to this cell.
        _flush()
        # File descriptors are redirected, because compiled libraries do not write through sys.stdout.
        before = [(os.dup(stream), stream) for stream in (1, 2)]
        for _, stream in before:
            os.dup2(self._file, stream)
        try:
            yield
        finally:
            _flush()
            for old, stream in before:
                os.dup2(old, stream)
                os.close(old)

    def say(self, text: str) -> None:
        """Append a message of one or more lines, prefixed with the time and the name of the attempt."""
        if self._file is not None:
            _flush()
            with suppress(OSError):
                now = datetime.now(UTC).isoformat(timespec="seconds")
                # A single write keeps the message whole if several processes append to the log.
                os.write(self._file, f"{now} {self._attempt}: {text}\n".encode())


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
