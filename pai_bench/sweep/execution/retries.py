"""Retries of reads and writes while the results folder is temporarily unusable."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

from pai_bench.training.callbacks import Callback

_FULL_OR_FORBIDDEN = ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EMFILE", "ENFILE")
_DISK_AWAY = ("EIO", "ESTALE", "ETIMEDOUT", "ENOTCONN", "ESHUTDOWN", "EREMOTEIO", "ENOLCK", "EHOSTDOWN")
UNWRITABLE = {getattr(errno, name) for name in (*_FULL_OR_FORBIDDEN, *_DISK_AWAY) if hasattr(errno, name)}
"""Error numbers of a folder that temporarily accepts no writes, also on NFS, Lustre and FUSE."""

T = TypeVar("T")


class Unusable(Exception):
    """The results folder stayed unusable for longer than the retries lasted."""


def retrying(
    action: Callable[[], T],
    patience: float,
    stopped: Callable[[], bool],
    phases: Callback,
    ticks: Callback,
    *,
    cannot: str = "be written to",
) -> T:
    """Run an action on the results folder; while the folder cannot be read or written, wait and retry.

    `phases` receives the cause of each wait, and `ticks` a tick several times per second. A stop ends the retries.

    Raises: Unusable when the action still fails after `patience` seconds.
    """
    end = time.monotonic() + patience
    pause = 0.5
    while True:
        try:
            return action()
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            cause = f"the results folder cannot {cannot}: {error.strerror}"
        if time.monotonic() >= end or stopped():
            raise Unusable(cause)
        phases.phase(f"waiting: {cause}")
        again = min(end, time.monotonic() + pause)
        # The wait has short steps: a stop ends it, and ticks show that the worker does not hang.
        while time.monotonic() < again and not stopped():
            time.sleep(0.1)
            ticks.tick()
        # Many workers may wait for the same server, which frequent retries would slow down further.
        pause = min(2 * pause, 30.0)
