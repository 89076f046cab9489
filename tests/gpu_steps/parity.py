"""Train the same cells of Fashion-MNIST in IEEE float32 and in TF32, for a comparison of their accuracies."""

from __future__ import annotations

import subprocess
import sys

from pai_bench import load_results
from tests.gpu import end_with_parent
from tests.gpu_steps.common import REAL, WORK, grid, missing, record

ROOT = WORK / "parity"
METHODS, SEEDS = ("random,snip", "0-2") if REAL else ("random", "0")
EPOCHS = "8" if REAL else "2"


def main() -> None:
    """Run the step; exit code 0 only when all cells are finished."""
    if missing("fashionmnist"):
        sys.exit(1)
    cells = (*grid("fashionmnist"), "--methods", METHODS, "--sparsities", "0.9", "--seeds", SEEDS)
    for precision in ("ieee", "tf32"):
        root = ROOT / precision
        settings = ("--set", f"train.epochs={EPOCHS}", "--set", f"train.precision={precision}")
        command = [sys.executable, "-m", "pai_bench", "sweep", *cells, *settings, "--results", str(root)]
        if code := subprocess.run(command, check=False, preexec_fn=end_with_parent).returncode:
            sys.exit(code)
        for row in load_results(root).to_dict("records"):
            kept = {name: row[name] for name in ("method", "sparsity", "seed", "accuracy", "train_seconds")}
            record("parity", precision=precision, **kept)


if __name__ == "__main__":
    main()
