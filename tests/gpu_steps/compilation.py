"""Time a captured training step with the recipe option `train.compile` against one without it."""

from __future__ import annotations

import dataclasses
import time

import torch

from pai_bench.training import compilation
from pai_bench.training.step import make_step
from tests.gpu_steps.common import (
    PRECISIONS,
    REAL,
    STUB,
    batch,
    cifar_recipe,
    interleaved,
    median_and_spread,
    network,
    record,
    synchronize,
)

STEPS = 20 if REAL else 1


def main() -> None:
    """Run the step."""
    if not REAL or STUB:
        compilation.BACKEND = {"backend": "aot_eager"}  # no compiler for kernels
    x, y = batch(128 if REAL else 4)
    for precision in ("tf32", "bf16") if REAL else ("ieee",):
        settings = cifar_recipe(precision=PRECISIONS[precision], channels_last=True).train
        steps, compile_seconds = {}, 0.0
        for name in ("plain", "compiled"):
            model = network().to(memory_format=torch.channels_last)
            began = time.perf_counter()
            steps[name] = make_step(model, {}, dataclasses.replace(settings, compile=name == "compiled"))
            for _ in range(10):
                steps[name](x, y, 0.1)
            synchronize()
            compile_seconds = time.perf_counter() - began
        works = {name: lambda one=one: [one(x, y, 0.1) for _ in range(STEPS)] for name, one in steps.items()}  # type: ignore[misc]
        found = interleaved(works, 6.0)  # type: ignore[arg-type]
        times = {name: median_and_spread(samples)[0] / STEPS for name, samples in found.items()}
        # The ratio of each round, because neighbours in time share clock rate and load.
        ratios = sorted(plain / compiled for plain, compiled in zip(found["plain"], found["compiled"], strict=True))
        mechanisms = {f"{name}_mechanism": one.mechanism for name, one in steps.items()}
        record(
            "compilation", precision=precision, compile_seconds=compile_seconds, ratios=ratios, **times, **mechanisms
        )


if __name__ == "__main__":
    main()
