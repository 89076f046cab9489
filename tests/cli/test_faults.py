"""Sweeps under faults: killed and hanging processes, lack of memory, and two sweeps on one folder."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import time
from pathlib import Path

from pai_bench import recipes
from pai_bench.cells import Cell
from pai_bench.experiment.runner import CellRunner, Run
from pai_bench.sweep.local import run as local
from tests.cli.program import (
    DEBUG,
    MOODY,
    alive,
    children,
    pai_bench,
    recipe,
    results,
    started,
    sweep,
    wait_for,
)
from tests.cli.test_bad_input import _without_override

EPOCHS = 40


def trained(text: str, epochs: int = EPOCHS) -> list[list[int]]:
    """The epochs that each attempt in a cell's log has ended."""
    parts = re.split(r": begins: ", text)[1:]
    return [[int(epoch) for epoch in re.findall(rf"epoch (\d+)/{epochs}:", part)] for part in parts]


def killed(worker: int, checkpoints: Path) -> list[Path]:
    """The checkpoints that a worker leaves when it is killed, the furthest first.

    It is stopped before they are listed: then nothing can be written, by it or its successor, between list and kill.
    """
    os.kill(worker, signal.SIGSTOP)
    wait_for(lambda: Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    left = sorted(checkpoints.rglob("*.checkpoint"), key=lambda path: path.name, reverse=True)
    os.kill(worker, signal.SIGKILL)
    return left


def epoch_in(checkpoint: Path) -> int:
    """The epoch that a checkpoint was taken in, counted from 1."""
    return int(checkpoint.name.split("-")[0][1:]) + 1


def test_a_cell_killed_during_training_resumes_from_its_checkpoint(tmp_path: Path) -> None:
    command = sweep(tmp_path, "--workers", "1", "--checkpoint-every", "0.1", "--filter", "method=snip,sparsity=0.9",
                    methods="snip", seeds="0", epochs=EPOCHS)  # fmt: skip
    logs = tmp_path / "results" / "state" / "logs" / "cells"
    checkpoints = tmp_path / "results" / "state" / "checkpoints"

    def attempts() -> list[list[int]]:
        return [epochs for path in logs.rglob("*.log") for epochs in trained(path.read_text())]

    def furthest() -> list[int]:
        return sorted(epoch_in(path) for path in checkpoints.rglob("*.checkpoint"))[-2:]

    with started(tmp_path, *command) as process:
        wait_for(lambda: len(attempts()) == 1 and len(furthest()) == 2 and min(furthest()) > 1)
        (worker,) = children(process.pid)
        before = killed(worker, checkpoints)
        wait_for(lambda: len(attempts()) == 2 and min(furthest()) > epoch_in(before[0]))
        process.kill()
        process.wait()
        (worker,) = [int(path.read_text().split('"pid":')[1].split(",")[0]) for path in tmp_path.rglob("*.claim")]
        newest, second_newest, *_ = killed(worker, checkpoints)
        wait_for(lambda: not alive(worker))
    newest.write_bytes(newest.read_bytes()[:-100])
    again = pai_bench(tmp_path, *command)
    assert again.returncode == 0, again.stderr

    (log,) = logs.rglob("*.log")
    text = log.read_text()
    first, second, third = attempts()
    assert first[0] == 1 and second[0] == epoch_in(before[0]) and third[0] == epoch_in(second_newest)
    assert third[-1] == EPOCHS and "is skipped" in text
    assert text.count("resumes from a checkpoint") == 2
    # The results equal those of an undisturbed run.
    path = Path(recipe(tmp_path, EPOCHS))
    cell = Cell("snip", "digits", "conv8", 0.9, 0)
    expected = CellRunner(device="cpu").run(Run(cell, recipes.load(str(path), "digits", "conv8"))).result
    (found,) = results(tmp_path / "results").values()
    assert found["accuracy"] == expected.accuracy and found["mask_hash"] == expected.mask_hash
    assert [epoch["loss"] for epoch in found["curve"]] == [epoch.loss for epoch in expected.curve]
    assert not list(checkpoints.rglob("*.checkpoint"))


def test_debug_keeps_checkpoints_on_request_and_redo_ignores_them(tmp_path: Path) -> None:
    command = sweep(tmp_path, "--where", "debug", "--checkpoint-every", "0", "--keep-checkpoints", methods="snip",
                    seeds="0", epochs=2)  # fmt: skip
    command += ["--filter", "method=snip,sparsity=0.9"]
    assert pai_bench(tmp_path, *command).returncode == 0
    (checkpoints,) = {path.parent for path in (tmp_path / "results" / "state" / "checkpoints").rglob("*.checkpoint")}
    again = pai_bench(tmp_path, *command, "--redo")
    assert again.returncode == 0, again.stderr
    (log,) = (tmp_path / "results" / "state" / "logs" / "cells").rglob("*.log")
    assert trained(log.read_text(), 2) == [[1, 2], [1, 2]] and "resumes from a checkpoint" not in log.read_text()
    assert list(checkpoints.glob("*.checkpoint"))


def test_debug_reports_cells_claimed_by_other_processes(tmp_path: Path) -> None:
    command = sweep(tmp_path, "--filter", "method=snip,sparsity=0.9", methods="snip", seeds="0", epochs=EPOCHS)
    with started(tmp_path, *command, "--workers", "1"):
        wait_for(lambda: list((tmp_path / "results" / "state" / "claims").rglob("*.claim")))
        run = pai_bench(tmp_path, *command, "--where", "debug")
    assert run.returncode == 1, run.stderr
    assert "snip · digits · conv8 · sparsity 0.9 · seed 0: another process has claimed it" in run.stderr


def test_a_sweep_that_ignores_sighup_continues() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with local._signals_as_interrupts():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert callable(signal.getsignal(signal.SIGTERM))
    finally:
        signal.signal(signal.SIGHUP, before)


def test_two_sweeps_on_one_folder_share_the_work(tmp_path: Path) -> None:
    command = sweep(tmp_path, "--workers", "1", seeds="0", epochs=20)
    with started(tmp_path, *command) as one, started(tmp_path, *command) as other:
        said = [process.communicate(timeout=300)[1] for process in (one, other)]
    assert (one.returncode, other.returncode) == (0, 0), said
    assert all("5/5 done, 0 running, 0 failed" in errors for errors in said), said
    others = [int(n) for errors in said for n in re.findall(r"(\d) of 5 were completed by other processes", errors)]
    # Each cell was done by one of them; should both have done it, that would have been noted.
    assert sum(others) == 5, said
    assert len(results(tmp_path / "results")) == 5
    assert not list((tmp_path / "results" / "state" / "duplicates").rglob("*.json"))
    assert not list((tmp_path / "results" / "state" / "claims").rglob("*.*"))


FAULTS = """
            if problem.density < 0.15:
                raise MemoryError("no room")
            if not Path("hung").exists():
                Path("hung").touch()
                time.sleep(3600)
"""


def test_a_hanging_worker_is_killed_and_lack_of_memory_fails_one_cell(tmp_path: Path) -> None:
    (tmp_path / "moody.py").write_text(MOODY.replace("HOW", FAULTS.strip()))
    # Longer than this machine needs for a worker that starts and trains, or a busy machine would seem to hang.
    began = time.monotonic()
    assert pai_bench(tmp_path, *sweep(tmp_path, "--workers", "1", methods="dense", seeds="0")).returncode == 0
    patience = str(max(9, math.ceil(1.5 * (time.monotonic() - began))))
    limits = ("--workers", "1", "--hang-after", patience)
    command = sweep(tmp_path, "--plugin", "moody.py", *limits, methods="moody", seeds="0")
    command[command.index("--sparsities") + 1] = "0.5,0.82,0.9"
    run = pai_bench(tmp_path, *command)
    assert run.returncode == 1, run.stderr
    assert f"the worker hung: no sign of progress for {patience} s; it will be run again" in run.stderr
    assert "1 x out of memory (MemoryError: no room); use fewer workers" in run.stderr
    assert len(results(tmp_path / "results")) == 3
    (log,) = (tmp_path / "results" / "state" / "logs").rglob("s0.82*.log")
    assert "moody.py" in log.read_text(), "it does not say where it hangs"
    (note,) = (tmp_path / "results" / "state" / "failed").rglob("*.json")
    assert json.loads(note.read_text())["kind"] == "oom"


def test_an_unwritable_folder_ends_the_sweep_without_loss(tmp_path: Path) -> None:
    locked = tmp_path / "results" / "runs"
    locked.mkdir(parents=True, mode=0o500)
    command = sweep(tmp_path, "--disk-patience", "1", seeds="0")
    run = pai_bench(tmp_path, *command, "--workers", "1", before=_without_override)
    assert run.returncode == 1, run.stderr
    assert "5 cells remain: the results folder cannot be written to: Permission denied" in run.stderr
    assert "Traceback" not in run.stderr and not list((tmp_path / "results" / "state" / "failed").rglob("*.json"))
    locked.chmod(0o700)
    again = pai_bench(tmp_path, *command, *DEBUG)
    assert again.returncode == 0 and "0 done, 5 to run" in again.stderr
    assert len(results(tmp_path / "results")) == 5
