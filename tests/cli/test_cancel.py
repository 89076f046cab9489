"""Cancelling on this host: who is in charge of a claimed cell is asked to stop, and nobody else."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pai_bench.errors import PaiBenchError
from pai_bench.sweep.execution import owner
from pai_bench.sweep.monitoring import cancel
from tests.cli.test_status import CELLS, claim, plan

SWEEP = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)", "pai_bench.sweep.local.worker"])
print(child.pid, flush=True)
time.sleep(120)
"""


def run(root: Path, filter_text: str | None = None, yes: bool = True) -> tuple[bool, str]:
    said: list[str] = []
    return cancel.run(root, filter_text, yes, said.append, lambda _: False), "\n".join(said)


def test_cancel_stops_the_sweep_of_a_worker_and_skips_dead_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan(tmp_path)
    assert run(tmp_path) == (True, f"no running or pending work of {tmp_path} to cancel")
    with subprocess.Popen([sys.executable, "-c", SWEEP], stdout=subprocess.PIPE, text=True) as sweep:
        assert sweep.stdout is not None
        worker = int(sweep.stdout.readline())
        try:
            claim(tmp_path, CELLS[1], pid=worker, ticks=owner.Owner.current().ticks)  # the number, used again
            claim(tmp_path, CELLS[2], job="7_1")
            assert "no running or pending work" in run(tmp_path)[1]
            claim(tmp_path, CELLS[3], pid=worker, ticks=None)
            monkeypatch.setattr(sys, "stdin", io.StringIO())
            with pytest.raises(PaiBenchError, match="this would cancel 1 processes on this host"):
                run(tmp_path, yes=False)
            assert "continue" in run(tmp_path, "method=snip")[1] and sweep.poll() is None
            worked, said = run(tmp_path)
            assert worked and f"process {sweep.pid}: asked to save its 1 cells and stop" in said
            assert sweep.wait(60) == -signal.SIGTERM
        finally:
            sweep.kill()
            subprocess.run(["kill", str(worker)], check=True)


def test_cancel_signals_a_worker_whose_sweep_was_killed(tmp_path: Path) -> None:
    """Its parent is the first process of the machine, or of the session, then."""
    start = f"{sys.executable} -c 'import time; time.sleep(120)' pai_bench.sweep.local.worker > /dev/null & echo $!"
    orphan = int(subprocess.run(["sh", "-c", start], stdout=subprocess.PIPE, text=True, check=True).stdout)
    try:
        assert cancel._in_charge(orphan) == orphan
    finally:
        os.kill(orphan, signal.SIGKILL)
