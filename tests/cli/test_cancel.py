"""Cancellation on this host: only the processes that run or schedule claimed cells are asked to stop."""

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
from pai_bench.sweep.slurm import in_flight
from pai_bench.sweep.slurm.in_flight import InFlight
from tests.cli.test_status import CELLS, claim, plan, task

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


def test_a_filter_cancels_tasks_whose_cells_it_all_selects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan(tmp_path)
    snip, erk = CELLS[1:5], CELLS[5:]
    tasks = [task("7_0", "RUNNING", "None", *snip[:2]), task("7_1", "PENDING", "Priority", snip[2], erk[0])]
    tasks += [task("7_2", "PENDING", "Priority", erk[1]), task("8", "COMPLETING", "None", snip[3])]
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(in_flight, "survey", lambda *_, **__: InFlight(tuple(tasks), jobs={}))
    monkeypatch.setattr(cancel.Controller, "ask", lambda _, *command: asked.append(command) or "")
    worked, said = run(tmp_path, "method=snip")
    assert worked and asked == [("scancel", "7_[0]")]
    assert "1 tasks also have other cells and continue, for example 7_1" in said
    assert "job 7: cancelled 1 tasks of 2 cells" in said
    asked.clear()
    assert "no running or pending work" in run(tmp_path, "method=snip,seed=3")[1] and not asked
    with pytest.raises(PaiBenchError, match="leaves no cell of the results folder"):
        run(tmp_path, "method=grasp")
    assert run(tmp_path)[0] and asked == [("scancel", "7")]


def test_cancel_signals_a_worker_whose_sweep_was_killed(tmp_path: Path) -> None:
    """Its parent is the first process of the machine, or of the session, then."""
    start = f"{sys.executable} -c 'import time; time.sleep(120)' pai_bench.sweep.local.worker > /dev/null & echo $!"
    orphan = int(subprocess.run(["sh", "-c", start], stdout=subprocess.PIPE, text=True, check=True).stdout)
    try:
        assert cancel._in_charge(orphan) == orphan
    finally:
        os.kill(orphan, signal.SIGKILL)
