"""Run cells of Fashion-MNIST with the command line, kill the worker once, and continue the sweep."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

from tests.gpu import end_with_parent
from tests.gpu_steps.common import REAL, WORK, grid, missing, record

ROOT = WORK / "cells"
METHODS = "random,snip,synflow,prospr" if REAL else "random,snip"
SWEEP = ("sweep", *grid("fashionmnist"), "--methods", METHODS, "--sparsities", "0.9,0.98" if REAL else "0.9")
EPOCHS = "6" if REAL else "3"


def arguments(*command: str) -> list[str]:
    """Return a command line of pai-bench on this step's results folder."""
    return [sys.executable, "-m", "pai_bench", *command, "--results", str(ROOT)]


def workers(sweep: int) -> list[int]:
    """Return the process ids of the worker processes that the process `sweep` has started (Linux)."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in listed.splitlines()[1:]]
    return [int(pid) for pid, parent, args in rows if int(parent) == sweep and "pai_bench.sweep.local.worker" in args]


def results() -> int:
    """Return the number of results on disk."""
    return len(list((ROOT / "runs").rglob("*.json")))


def main() -> None:
    """Run the step; exit code 0 only when all cells are finished."""
    if missing("fashionmnist"):
        sys.exit(1)
    sweep = arguments(*SWEEP, "--seeds", "0", "--set", f"train.epochs={EPOCHS}")
    began, before = time.perf_counter(), results()
    process = subprocess.Popen(sweep, preexec_fn=end_with_parent)
    # The kill hits the first training after scoring: a checkpoint or a result exists by then.
    deadline = time.perf_counter() + (60 if REAL else 120)
    while process.poll() is None and time.perf_counter() < deadline and results() == before:
        time.sleep(0.2)
    killed = workers(process.pid)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    code = process.wait()
    record("killed", workers=len(killed), exit_code=code, results=results(), seconds=time.perf_counter() - began)
    again = subprocess.run(sweep, check=False, preexec_fn=end_with_parent)
    status = subprocess.run(arguments("status", "--json"), capture_output=True, text=True, check=False)
    record(
        "continued",
        exit_code=again.returncode,
        results=results(),
        seconds=time.perf_counter() - began,
        counts=json.loads(status.stdout)["counts"],
    )
    from pai_bench import load_results

    table = load_results(ROOT)
    for row in table.to_dict("records"):
        kept = ("method", "sparsity", "accuracy", "status", "train_seconds", "score_seconds", "peak_bytes")
        record("cell", **{name: row[name] for name in kept if name in row})
    if again.returncode:
        sys.exit(1)


if __name__ == "__main__":
    main()
