"""The peak memory of one scoring, alone in a process: python -m tests.benchmarks.peak WHAT MODEL BATCH STEPS MOMENTUM.

WHAT is "ours", "unrolled" or "pass" (one forward and backward pass), in float32 on the CPU. Prints bytes above what the
process had after the same work on two images.
"""

from __future__ import annotations

import os
import subprocess
import sys

import torch
from torch import nn

import pai_bench
from pai_bench import models
from pai_bench.measures import measured
from tests.unrolling import unrolled_prospr

MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_TOP_PAD_": "0"}
"""With these glibc gives every tensor back when it is freed, so that the resident set is what is in use."""


def in_a_process(what: str, model: str, batch: int, steps: int, momentum: float) -> int:
    command = [sys.executable, "-m", "tests.benchmarks.peak", what, model, str(batch), str(steps), str(momentum)]
    done = subprocess.run(command, env={**os.environ, **MALLOC}, check=True, capture_output=True, text=True)
    return int(done.stdout)


def main(what: str, name: str, batch: int, steps: int, momentum: float) -> int:
    torch.set_num_threads(1)
    model = models.build(name, 3, 32, 10)
    generator = torch.Generator().manual_seed(0)

    def work(size: int) -> None:
        data = [(torch.randn(size, 3, 32, 32, generator=generator), torch.arange(size) % 10) for _ in range(steps + 1)]
        if what == "ours":
            pai_bench.score(model, data, "prospr", steps=steps, lr=0.1, momentum=momentum, dtype="float32")
        elif what == "unrolled":
            unrolled_prospr(model, data, lr=0.1, momentum=momentum, dtype=torch.float32)
        else:
            nn.functional.cross_entropy(model(data[0][0]), data[0][1]).backward()

    work(2)
    with measured(torch.device("cpu")) as cost:
        work(batch)
    return cost.peak_bytes or 0


if __name__ == "__main__":
    print(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])))
