"""Plugin of `make quick`: the tests run in forks of one process, which imports and collects everything once.

    python -m pytest -p tests.forks --forks auto tests/unit

Each worker of pytest-xdist imports and collects all tests and sends every report to the controller; for short tests
this takes longer than the tests. Here each process takes one file after the other and prints its own summary.
"""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
from itertools import groupby

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--forks", default="1", help="number of processes, or auto: one per core")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    config = session.config
    asked = config.getoption("--forks")
    files = [list(items) for _, items in groupby(session.items, lambda item: item.path)]
    count = min(os.cpu_count() or 1 if asked == "auto" else int(asked), len(files))
    # Libraries of macOS do not work in a fork.
    if count < 2 or sys.platform == "darwin" or config.option.collectonly or session.testsfailed:
        return None  # pytest's own loop
    # The queue is a pipe with the numbers of the files; a read of four bytes takes one, in one process only.
    queue, source = os.pipe()
    os.write(source, b"".join(number.to_bytes(4, "big") for number in range(len(files))))
    os.close(source)
    lock = tempfile.TemporaryFile()  # noqa: SIM115, closed after the summary
    config.add_cleanup(lock.close)
    children = _fork(config, count - 1)
    try:
        _run(session, files, queue)
    finally:
        failed = sum(os.waitpid(child, 0)[1] != 0 for child in children)
        session.testsfailed += failed
        if failed:
            config.get_terminal_writer().line("\ntests of another process have failed: see above", red=True)
    if not children:
        fcntl.lockf(lock, fcntl.LOCK_EX)  # until the process ends: one summary at a time
    return True


def _fork(config: pytest.Config, count: int) -> list[int]:
    """Start `count` child processes; return their ids, in a child an empty list."""
    children: list[int] = []
    config.get_terminal_writer().flush()
    capture = config.pluginmanager.getplugin("capturemanager")
    for _ in range(count):
        child = os.fork()
        if child == 0:
            # The file that captures output would be shared, and with it the position in it.
            capture.stop_global_capturing()
            capture.start_global_capturing()
            return []
        children.append(child)
    return children


def _run(session: pytest.Session, files: list[list[pytest.Item]], queue: int) -> None:
    """Run the tests of the files that this process takes from the queue."""
    numbers = iter(lambda: os.read(queue, 4), b"")
    items = (item for number in numbers for item in files[int.from_bytes(number, "big")])
    item = next(items, None)
    while item is not None:
        following = next(items, None)
        session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        item = following
