"""Compare the masks of every method on the GPU with the masks on the CPU, in float64 on ResNet-20."""

from __future__ import annotations

import copy
import os
import sys
import time
import traceback
from pathlib import Path

import torch

import pai_bench
from pai_bench import models
from tests.gpu import Records
from tests.gpu_steps.common import DEVICE, REAL, STUB, record

ROUNDS = {name: {"rounds": 5} for name in ("iterative-snip", "iterative-grasp", "force", "ntk-sap")}
ROUNDS |= {"dpai": {"steps": 10}, **{name: {"probes": 1} for name in ("hutchinson", "hutchinson-pruning", "hts")}}
"""Fewer rounds for methods that take minutes on a CPU with all of their rounds."""
CHEAP_FIRST = ("random", "magnitude", "snip", "synflow", "grasp", "prospr")


def left() -> list[str]:
    """Return the methods that are not in the records yet, quick ones first; in a rehearsal a few."""
    path = os.environ.get("PAI_GPU_RECORDS")
    recorded = {r["method"] for r in (Records(Path(path)).read() if path else ()) if r.get("what") == "mask"}
    methods = sorted(pai_bench.list_methods(), key=lambda name: name not in CHEAP_FIRST)
    if STUB or not REAL:
        methods = methods[: len(CHEAP_FIRST)] if STUB else ["random", "snip"]
    return [method for method in methods if method not in recorded]


def main() -> None:
    """Run the step; exit code 1 when a method fails for another reason than an input that it refuses."""
    model = models.build("resnet20", 3, 32, 10)
    models.initialise(model, "kaiming-normal-fan-in", 0)
    generator = torch.Generator().manual_seed(0)
    size = 20 if REAL else 4
    data = [
        (torch.randn(size, 3, 32, 32, generator=generator, dtype=torch.float64), torch.arange(size) % 10)
        for _ in range(4)
    ]
    on_device = copy.deepcopy(model).to(DEVICE), [(x.to(DEVICE), y.to(DEVICE)) for x, y in data]
    failed = False
    for method in left():
        options = ROUNDS.get(method, {})
        try:
            began = time.perf_counter()
            ours = pai_bench.prune(*on_device, method, sparsity=0.9, **options)
            middle = time.perf_counter()
            theirs = pai_bench.prune(model, data, method, sparsity=0.9, **options)
        except pai_bench.PaiBenchError as error:
            record("mask", method=method, refused=str(error))
            continue
        except Exception as error:  # the other methods are compared all the same
            traceback.print_exc()
            record("failed mask", method=method, error=str(error))
            failed = True
            continue
        record(
            "mask",
            method=method,
            kept=sum(int(mask.sum()) for mask in theirs.values()),
            different=sum(int((ours[name].cpu() != mask).sum()) for name, mask in theirs.items()),
            seconds=middle - began,
            cpu_seconds=time.perf_counter() - middle,
        )
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
