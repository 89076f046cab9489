"""The real command line in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PAI_BENCH = [sys.executable, "-m", "pai_bench"]

# One epoch and a small model, so that a cell takes a second; the values are no protocol of anybody.
FAST = """
[init]
scheme = { value = "torch", source = "test" }
[train]
epochs = { value = EPOCHS, source = "test" }
batch_size = { value = 64, source = "test" }
lr = { value = 0.1, source = "test" }
momentum = { value = 0.9, source = "test" }
nesterov = { value = false, source = "test" }
weight_decay = { value = 0, source = "test" }
schedule = { value = "step", source = "test" }
milestones = { value = [], source = "test" }
gamma = { value = 0.1, source = "test" }
warmup_epochs = { value = 0, source = "test" }
evaluate_every = { value = 1, source = "test" }
[data]
padding = { value = 0, source = "test" }
flip = { value = false, source = "test" }
mean = { value = [0.3], source = "test" }
std = { value = [0.4], source = "test" }
[scoring]
batch_size = { value = 20, source = "test" }
batches = { value = 1, source = "test" }
dtype = { value = "float64", source = "test" }
[datasets.digits]
"""


def environment(folder: Path) -> dict[str, str]:
    """The caller's, without settings of its user."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PAI_BENCH_")}
    return {
        **clean,
        "PAI_BENCH_WHERE": "local",  # also on a login node
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "COLUMNS": "200",
    }


def recipe(folder: Path, epochs: int = 1) -> str:
    """The path of a fast recipe."""
    path = folder / f"fast{epochs}.toml"
    path.write_text(FAST.replace("EPOCHS", str(epochs)))
    return str(path)


def pai_bench(
    folder: Path, *arguments: str, env: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run `pai-bench` in a folder to its end."""
    return subprocess.run(
        [*PAI_BENCH, *arguments],
        cwd=folder,
        env={**environment(folder), **(env or {})},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **options,
    )


def results(root: Path) -> dict[str, dict[str, Any]]:
    """All results below a root by path."""
    return {str(path.relative_to(root)): json.loads(path.read_text()) for path in (root / "runs").rglob("*.json")}
