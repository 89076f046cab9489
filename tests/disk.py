"""A disk that does not answer for a while."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

AWAY = [errno.EIO, errno.ESTALE, errno.EACCES, errno.ETIMEDOUT, errno.EMFILE]
"""What it says then, also for a file of somebody else, and for want of file numbers."""


class Disk:
    """Lets files that match a pattern not be read, by one of the ways of `how`, so many `times`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, how: str = "read_bytes") -> None:
        self.pattern, self.code, self.times = "", 0, 0
        true = getattr(Path, how)

        def refusing(place: Path, *args: object, **options: object) -> object:
            if self.times and self.pattern and place.match(self.pattern):
                self.times -= 1
                raise OSError(self.code, os.strerror(self.code), str(place))
            return true(place, *args, **options)

        monkeypatch.setattr(Path, how, refusing)

    def refuse(self, pattern: str, code: int, times: int = 1_000_000) -> None:
        self.pattern, self.code, self.times = pattern, code, times

    def heal(self) -> None:
        self.times = 0
