"""Checkpoints of a running cell: checksummed files, ignored when damaged and deleted once the result is stored."""

from __future__ import annotations

import re
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pai_bench.core.tensor_files import CorruptFile, load_checksummed, save_checksummed

MAGIC = b"pai-bench checkpoint 1"
KEPT = 2
"""Number of checkpoints kept per attempt: the last one, and a spare in case the last one is damaged."""

_NAME = re.compile(r"e(\d+)-s(\d+)-(.+)\.checkpoint")


class Interrupted(Exception):
    """A cell stopped on request; its last checkpoint holds all progress."""


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=3)


class Checkpoints:
    """The checkpoints of one cell, stored in a folder of its own and accessed by one attempt to run the cell.

    Files of several attempts, some possibly still running, may share the folder. File names contain the attempt, so
    that no attempt overwrites a file of another one.
    """

    def __init__(self, folder: Path, attempt: str, every: float = 60.0, note: Callable[[str], None] = _warn) -> None:
        """Take the folder, the name of this attempt, the seconds between saves, and a callback for warnings."""
        self.folder = folder
        self.attempt = re.sub(r"[^\w.-]", "_", attempt)
        self.every = every
        self.stop_requested = False
        self._note = note
        self._last = time.monotonic()
        self._saved: list[Path] = []
        self._earlier: list[Path] = []

    def request_stop(self) -> None:
        """Request a save at the next step, followed by Interrupted. Only sets a flag: safe inside a signal handler."""
        self.stop_requested = True

    def due(self) -> bool:
        """Return True when `every` seconds have passed since the last save, or since the object was created."""
        # Monotonic, because the wall clock may be set during a training.
        return time.monotonic() - self._last >= self.every

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a checkpoint of tensors and plain values, which must include `epoch` and `step`.

        A write error, such as a full disk, is reported as a warning and does not stop the cell.
        """
        place = self.folder / f"e{state['epoch']:06d}-s{state['step']:08d}-{self.attempt}.checkpoint"
        try:
            save_checksummed(place, MAGIC, state)
            self._saved = [path for path in self._saved if path != place] + [place]
            self._tidy()
        except OSError as error:
            self._note(f"a checkpoint could not be written: {error}; the cell continues")
        self._last = time.monotonic()

    def _tidy(self) -> None:
        """Remove all but the last two files of this attempt and, once there are two, the files of earlier attempts."""
        old, self._saved = self._saved[:-KEPT], self._saved[-KEPT:]
        if len(self._saved) == KEPT:
            old += [path for path in self._earlier if path not in self._saved]
            self._earlier = []
        for path in old:
            path.unlink(missing_ok=True)

    def load(self, **expected: Any) -> dict[str, Any] | None:
        """Load the most advanced valid checkpoint of any attempt whose entries equal `expected`, or return None.

        Tensors are loaded to the CPU. Damaged checkpoints are reported as warnings and skipped.
        """
        found = self._files()
        self._earlier = [*self.folder.glob(".*.tmp"), *(path for _, path in found)]
        for _, path in sorted(found, reverse=True):
            try:
                state = load_checksummed(path, MAGIC)
            except FileNotFoundError:
                continue
            except (OSError, CorruptFile) as error:
                self._note(f"checkpoint {path.name} is damaged ({error}) and is skipped")
                continue
            if all(state.get(key) == value for key, value in expected.items()):
                return state
        return None

    def _files(self) -> list[tuple[tuple[int, int], Path]]:
        """List the progress (epoch, step) and the path of each checkpoint in the folder."""
        try:
            matches = [(path, _NAME.fullmatch(path.name)) for path in self.folder.iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [((int(match[1]), int(match[2])), path) for path, match in matches if match]

    def clear(self) -> None:
        """Remove the folder with all checkpoints."""
        try:
            shutil.rmtree(self.folder)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._note(f"checkpoints in {self.folder} could not be removed: {error}")
