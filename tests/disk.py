"""A disk that does not answer for a while."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

AWAY = [errno.EIO, errno.ESTALE, errno.EACCES, errno.ETIMEDOUT, errno.EMFILE]
"""Numbers of the errors that a read may raise, also for a file of another user and without free file descriptors."""


class Disk:
    """Makes reads by `how` of files that match a pattern fail, so many `times`."""

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
