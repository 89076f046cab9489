"""Train the same cells of Fashion-MNIST in IEEE float32 and in TF32, for a comparison of their accuracies."""

from __future__ import annotations

import subprocess
import sys

from pai_bench import load_results
from pai_bench.datasets.files import present
from tests.gpu_steps.common import PLUGINS, REAL, WORK, record

ROOT = WORK / "parity"
DATASET = "fashionmnist" if REAL else "digits"
METHODS, SEEDS = ("random,snip", "0-2") if REAL else ("random", "0")
EPOCHS = "8" if REAL else "2"


def main() -> None:
    """Run the step; exit code 0 only when all cells are finished."""
    if DATASET != "digits" and not present(DATASET):
        record("skipped", reason=f"{DATASET} is not in the data folder")
        sys.exit(1)
    grid = ("--datasets", DATASET, "--methods", METHODS, "--sparsities", "0.9", "--seeds", SEEDS)
    for precision in ("ieee", "tf32"):
        root = ROOT / precision
        settings = ("--set", f"train.epochs={EPOCHS}", "--set", f"train.precision={precision}")
        command = [sys.executable, "-m", "pai_bench", "sweep", *grid, *settings, "--results", str(root), *PLUGINS]
        if code := subprocess.run(command, check=False).returncode:
            sys.exit(code)
        for row in load_results(root).to_dict("records"):
            kept = {name: row[name] for name in ("method", "sparsity", "seed", "accuracy", "train_seconds")}
            record("parity", precision=precision, **kept)


if __name__ == "__main__":
    main()
