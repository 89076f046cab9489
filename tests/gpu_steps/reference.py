"""Compute reference cells of CIFAR-10 with ResNet-20 and the recipe frankle until the time of the step is over.

A rehearsal trains one cell of random patterns.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from pai_bench import load_results
from tests.gpu import end_with_parent
from tests.gpu_steps.common import REAL, STUB, WORK, grid, missing, record

ROOT = WORK / "reference"
REHEARSED = STUB or not REAL
GRID = ("--recipe", "frankle", "--sparsities", "0.9,0.95,0.98", "--seeds", "0-2")
METHODS = ("--methods", "random,erk,magnitude,snip,grasp,synflow,prospr")
REHEARSAL = ("--methods", "random", "--sparsities", "0.9", "--seeds", "0", "--set", "train.epochs=60")
MEASURED = ("status", "accuracy", "train_seconds")
MARGIN = 60.0 if REHEARSED else 20.0
"""Seconds before the limit at which the sweep is interrupted, so that its cells save checkpoints."""


def main() -> None:
    """Run the step; exit code 0 only when all cells are finished."""
    if not REHEARSED and missing("cifar10"):
        sys.exit(1)
    cells = REHEARSAL if REHEARSED else (*GRID, *METHODS)
    command = [sys.executable, "-m", "pai_bench", "sweep", *grid("cifar10", REHEARSED), *cells, "--results", str(ROOT)]
    process = subprocess.Popen(command, preexec_fn=end_with_parent)
    limit = float(os.environ.get("PAI_GPU_SECONDS", "3600")) - MARGIN
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        code = process.wait()
    finished = len(list((ROOT / "runs").rglob("*.json")))
    record("reference", exit_code=code, results=finished)
    for row in load_results(ROOT).to_dict("records") if finished else ():
        record("reference cell", **{name: row[name] for name in ("method", "sparsity", "seed", *MEASURED)})
    sys.exit(code)


if __name__ == "__main__":
    main()
