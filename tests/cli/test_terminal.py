"""Terminals without Unicode, interrupts, and which of several ways to say one thing counts."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from tests.cli.program import PAI_BENCH, environment, pai_bench, recipe

RUN = ("sweep", "--methods", "prospr:lr=0.1", "--sparsities", "0.5", "--seeds", "0", "--workers", "1")


def test_ascii_terminals_get_ascii(tmp_path: Path) -> None:
    settings = {**environment(tmp_path), "PYTHONIOENCODING": "ascii", "LANG": "C", "LC_ALL": "C"}
    command = [*PAI_BENCH, *RUN, "--recipe", recipe(tmp_path), "--dry-run"]
    done = subprocess.run(command, cwd=tmp_path, env=settings, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii() and done.stderr.isascii()
    assert b"digits - conv8" in done.stdout + done.stderr and b"Traceback" not in done.stderr


def test_typed_densities_beat_the_environment_and_filters_are_canonical(tmp_path: Path) -> None:
    env = {"PAI_BENCH_SPARSITIES": "0.9"}
    asked = ("sweep", "--methods", "prospr:steps=10,lr=0.5", "--densities", "0.25", "--seeds", "0", "--dry-run")
    done = pai_bench(tmp_path, *asked, "--filter", "method=prospr:lr=0.5,steps=10", env=env)
    assert done.returncode == 0, done.stderr
    assert "sparsities 0.75" in done.stderr and "1 to run" in done.stderr


def test_an_interrupt_at_any_moment_has_no_traceback(tmp_path: Path) -> None:
    for pause in (0.02, 0.1, 0.3):
        started = subprocess.Popen(
            [*PAI_BENCH, "list", "methods"],
            cwd=tmp_path,
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(pause)
        os.kill(started.pid, signal.SIGINT)
        _, err = started.communicate(timeout=300)
        if started.returncode not in (0, -signal.SIGINT):  # before Python runs, the signal ends the process itself
            assert "cells" not in err and "pai_bench" not in err, err
