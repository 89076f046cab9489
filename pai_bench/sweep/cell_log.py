"""The log of a cell: what happens to it and what it prints, all its attempts in one file."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType


class CellLog:
    """Appends to a cell's log; while it is entered, what this process prints goes there too.

    A log that cannot be written is no reason to stop: it stays shorter then.
    """

    def __init__(self, place: Path, attempt: str) -> None:
        self._place = place
        self._attempt = attempt
        self._file: int | None = None
        self._printed_to: list[tuple[int, int]] = []

    def __enter__(self) -> CellLog:
        with suppress(OSError):
            self._place.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._place, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            _flush()
            self._printed_to = [(os.dup(stream), stream) for stream in (1, 2)]
            for _, stream in self._printed_to:
                os.dup2(self._file, stream)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _flush()
        for before, stream in self._printed_to:
            os.dup2(before, stream)
            os.close(before)
        if self._file is not None:
            os.close(self._file)
        self._printed_to, self._file = [], None

    def say(self, text: str) -> None:
        """Append a line (or several) with the time and the attempt that says it."""
        if self._file is not None:
            _flush()
            with suppress(OSError):
                now = datetime.now(UTC).isoformat(timespec="seconds")
                os.write(self._file, f"{now} {self._attempt}: {text}\n".encode())


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
