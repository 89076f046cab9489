"""The peak memory of one scoring, alone in a process: python -m tests.benchmarks.peak WHAT MODEL BATCH STEPS MOMENTUM.

WHAT is "ours" or "unrolled" (ProsPr with so many steps), "pass" (one forward and backward pass) or a method as a sweep
names it (one batch, all its rounds and the masks), in float32 on the CPU; or "sweep": ProsPr as a sweep has it, in
float64 and with an allocator that keeps what is freed. Prints bytes above what the process had after the same work on
two images.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import torch
from torch import Tensor, nn

import pai_bench
from pai_bench import models
from pai_bench.cells import MethodSpec
from pai_bench.experiment import process
from pai_bench.experiment.cost import measured
from tests.unrolling import unrolled_prospr

MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_TOP_PAD_": "0"}
"""With these glibc gives every tensor back when it is freed, so that the resident set is what is in use.

"sweep" goes without.
"""

CASES = [("pass", 128), ("pass", 100), ("magnitude", 128), ("random", 128), ("erk", 128), ("snip", 128), ("grasp", 100)]
CASES += [("synflow:rounds=2", 128), ("iterative-snip:rounds=2", 128), ("force:rounds=2", 128)]
CASES += [("ntk-sap:rounds=2,repeats=2", 128), ("px:rounds=2", 128)]
"""A pass and every scorer but ProsPr, with the images of each. A second round holds what any later one does."""


def in_a_process(what: str, model: str, batch: int, steps: int = 0, momentum: float = 0.0) -> int:
    command = [sys.executable, "-m", "tests.benchmarks.peak", what, model, str(batch), str(steps), str(momentum)]
    environment = os.environ if what == "sweep" else {**os.environ, **MALLOC}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return int(done.stdout)


def work(what: str, model: nn.Module, data: list[tuple[Tensor, Tensor]], momentum: float = 0.0) -> None:
    """Do it once, on any device; ProsPr has as many steps as there are batches but the last."""
    if what == "pass":
        nn.functional.cross_entropy(model(data[0][0]), data[0][1]).backward()
    elif what in ("ours", "sweep"):
        dtype = "float32" if what == "ours" else "float64"
        pai_bench.score(model, data, "prospr", steps=len(data) - 1, lr=0.1, momentum=momentum, dtype=dtype)
    elif what == "unrolled":
        unrolled_prospr(model, data, lr=0.1, momentum=momentum, dtype=torch.float32)
    else:
        spec = MethodSpec.parse(what)
        options: dict[str, Any] = dict(spec.hyperparameters)
        pai_bench.prune(model, data, spec.name, sparsity=0.98, dtype="float32", **options)


def main(what: str, name: str, batch: int, steps: int = 0, momentum: float = 0.0) -> int:
    torch.set_num_threads(1)
    if what == "sweep":
        process.prepare()
    model = models.build(name, 3, 32, 10)
    generator = torch.Generator().manual_seed(0)

    def draw_and_work(size: int) -> None:
        data = [(torch.randn(size, 3, 32, 32, generator=generator), torch.arange(size) % 10) for _ in range(steps + 1)]
        work(what, model, data, momentum)

    draw_and_work(2)
    with measured(torch.device("cpu")) as cost:
        draw_and_work(batch)
    return cost.peak_bytes or 0


if __name__ == "__main__":
    print(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])))
