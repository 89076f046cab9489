"""Checkpoints of a running cell: whole or not used, and gone when the result is safe."""

from __future__ import annotations

import re
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pai_bench.core.tensor_files import Damaged, seal, unseal

MAGIC = b"pai-bench checkpoint 1"
KEPT = 2
"""Checkpoints of an attempt that stay: the last one, and the one before it should the last be damaged."""

_NAME = re.compile(r"e(\d+)-s(\d+)-(.+)\.checkpoint")


class Interrupted(Exception):
    """A cell was asked to stop and has stopped; what it had done is in its last checkpoint."""


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=3)


class Checkpoints:
    """The checkpoints of one cell in a folder of its own, as one attempt to run it sees them.

    Several attempts may have left files there, or even be alive: names carry the attempt, and nobody writes another's
    file.
    """

    def __init__(self, folder: Path, attempt: str, every: float = 60.0, note: Callable[[str], None] = _warn) -> None:
        """Take the folder, a name for this attempt, the seconds between saves, and who is told of damage."""
        self.folder = folder
        self.attempt = re.sub(r"[^\w.-]", "_", attempt)
        self.every = every
        self.stop_requested = False
        self._note = note
        self._last = time.monotonic()
        self._saved: list[Path] = []
        self._earlier: list[Path] = []

    def request_stop(self) -> None:
        """Ask the cell to save at its next step and to stop with Interrupted; only sets a flag, for signal handlers."""
        self.stop_requested = True

    def due(self) -> bool:
        """Whether so many seconds have passed since the last save, or since this object was made."""
        return time.monotonic() - self._last >= self.every

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a checkpoint of tensors and plain values, among them `epoch` and `step`.

        A disk that is full or cannot be written to is noted, and the cell goes on.
        """
        place = self.folder / f"e{state['epoch']:06d}-s{state['step']:08d}-{self.attempt}.checkpoint"
        try:
            seal(place, MAGIC, state)
            self._saved = [path for path in self._saved if path != place] + [place]
            self._tidy()
        except OSError as error:
            self._note(f"no checkpoint could be written: {error}; the cell goes on")
        self._last = time.monotonic()

    def _tidy(self) -> None:
        """Remove our files before the last two, and then those that earlier attempts have left."""
        old, self._saved = self._saved[:-KEPT], self._saved[-KEPT:]
        if len(self._saved) == KEPT:
            old += [path for path in self._earlier if path not in self._saved]
            self._earlier = []
        for path in old:
            path.unlink(missing_ok=True)

    def load(self, **wanted: Any) -> dict[str, Any] | None:
        """The furthest good checkpoint of any attempt whose values are those `wanted`, on the CPU; None without one.

        Damaged ones are noted and passed over.
        """
        found = self._files()
        self._earlier = [*self.folder.glob(".*.tmp"), *(path for _, path in found)]
        for _, path in sorted(found, reverse=True):
            try:
                state = unseal(path, MAGIC)
            except FileNotFoundError:
                continue
            except (OSError, Damaged) as error:
                self._note(f"checkpoint {path.name} is damaged ({error}); it is passed over")
                continue
            if all(state.get(key) == value for key, value in wanted.items()):
                return state
        return None

    def _files(self) -> list[tuple[tuple[int, int], Path]]:
        """Progress and path of each checkpoint in the folder."""
        try:
            matches = [(path, _NAME.fullmatch(path.name)) for path in self.folder.iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [((int(match[1]), int(match[2])), path) for path, match in matches if match]

    def clear(self) -> None:
        """Remove the folder."""
        try:
            shutil.rmtree(self.folder)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._note(f"checkpoints in {self.folder} could not be removed: {error}")
