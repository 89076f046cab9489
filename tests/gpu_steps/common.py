"""Helpers for the steps of tests/gpu.py: records, interleaved timing, and the networks and data that are timed."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pai_bench import models, recipes
from pai_bench.datasets.files import present
from pai_bench.datasets.loading import InMemoryDataset
from pai_bench.recipes import Recipe
from pai_bench.training import launches
from pai_bench.training.callbacks import Callback
from pai_bench.training.cooperative import RoundRobin
from pai_bench.training.loop import Trained, training
from tests.cuda import patterns

DEVICE = torch.device(os.environ.get("PAI_TEST_DEVICE", "cuda"))
REAL = DEVICE.type == "cuda"
"""False in a rehearsal on a CPU, which uses tiny sizes."""
WORK = Path(os.environ.get("PAI_GPU_WORK", "build/gpu-work"))
STUB = bool(os.environ.get("PAI_TEST_STUB"))
"""True in a rehearsal on the stub of the CUDA libraries (tests/cuda_stub), whose kernels compute nothing."""
PRECISIONS = {"ieee": "float32", "tf32": "tf32", "bf16": "bfloat16"}
"""Value of the recipe option `train.precision` by the short name in the records."""

PLUGINS: tuple[str, ...] = ("--plugin", str(Path(__file__).parents[1] / "cuda_stub" / "rehearsal.py")) if STUB else ()
"""Options of pai-bench that prepare its processes for the stub."""


def grid(dataset: str, rehearsed: bool = not REAL) -> tuple[str, ...]:
    """Return the options of `pai-bench sweep` for a data set, or for one of random patterns in a rehearsal."""
    return (*patterns.PLUGIN, *PLUGINS, "--models", "conv8") if rehearsed else ("--datasets", dataset, *PLUGINS)


def missing(dataset: str) -> bool:
    """Return True, and record the reason for a step that is left out, if the files of a data set are absent."""
    if not REAL or present(dataset):
        return False
    record("skipped", reason=f"{dataset} is not in {os.environ.get('PAI_BENCH_DATA', 'the data folder')}")
    return True


if STUB:
    from tests.cuda_stub import rehearsal as _  # noqa: F401


def record(what: str, **values: Any) -> None:
    """Append one measurement of this step to the records, and print it."""
    line = json.dumps({"step": os.environ.get("PAI_GPU_STEP", "?"), "what": what, **values})
    print(line, flush=True)
    if path := os.environ.get("PAI_GPU_RECORDS"):
        with Path(path).open("a") as file:
            file.write(line + "\n")


def synchronize() -> None:
    """Wait until the device has finished."""
    if REAL:
        torch.cuda.synchronize(DEVICE)


def seconds(work: Callable[[], object], calls: int = 1) -> float:
    """Return the wall time of `calls` calls, including the work of the device, per call."""
    synchronize()
    began = time.perf_counter()
    for _ in range(calls):
        work()
    synchronize()
    return (time.perf_counter() - began) / calls


def interleaved(works: Mapping[str, Callable[[], object]], total: float, rounds: int = 5) -> dict[str, list[float]]:
    """Time all works in turn, A B C A B C …, within about `total` seconds; return the seconds per call of each round.

    A warm-up of half a second raises the clock rate of the GPU first.
    """
    if not REAL:
        total, rounds = 0.0, 2
    first = next(iter(works.values()))
    end = time.perf_counter() + (0.5 if REAL else 0.0)
    while time.perf_counter() < end:
        first()
        synchronize()
    share = total / (rounds * len(works))
    calls = {name: max(1, int(share / max(seconds(work), 1e-6))) for name, work in works.items()}
    # The second estimate counts: the first one includes lazy initialisation.
    calls = {name: max(1, int(share / max(seconds(work, min(5, calls[name])), 1e-6))) for name, work in works.items()}
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            found[name].append(seconds(work, calls[name]))
    return found


def median_and_spread(samples: list[float]) -> tuple[float, float]:
    """Return the median and the relative spread (max − min) / median."""
    middle = statistics.median(samples)
    return middle, (max(samples) - min(samples)) / middle


def network(name: str = "resnet20", dtype: torch.dtype = torch.float32) -> nn.Module:
    """Build a registered network for 32 x 32 colour images and 10 classes on the device."""
    model = models.build(name, 3, 32, 10)
    models.initialise(model, "kaiming-normal-fan-in", 0)
    return model.to(DEVICE, dtype)


def batch(size: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return random images [size, 3, 32, 32] and labels [size] on the device."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, 3, 32, 32, generator=generator, dtype=torch.float64)
    return x.to(DEVICE, dtype), (torch.arange(size) % 10).to(DEVICE)


def cifar_like() -> InMemoryDataset:
    """Return random images with the shapes of CIFAR-10; the time of a step does not depend on their content."""
    train, test = (50_000, 10_000) if REAL else (64, 16)
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (train + test, 3, 32, 32), dtype=torch.uint8, generator=generator).to(DEVICE)
    y = torch.arange(train + test, device=DEVICE) % 10
    return InMemoryDataset("random images", x[:train], y[:train], x[train:], y[train:], 10, "", "")


def cifar_recipe(**train: object) -> Recipe:
    """Return the recipe frankle for ResNet-20 on CIFAR-10 with other values of `train`."""
    recipe = recipes.load("frankle", "cifar10", "resnet20")
    # So many epochs that no measurement reaches the end or the next evaluation.
    sizes: dict[str, object] = {"epochs": 20_000, "evaluate_every": 20_000}
    sizes |= {} if REAL else {"batch_size": 4}
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, **{**sizes, **train}))  # type: ignore[arg-type]


class _Ticks(Callback):
    """A counter of training steps."""

    def __init__(self) -> None:
        self.n = 0

    def tick(self) -> None:
        self.n += 1


class Trainings:
    """Several trainings of ResNet-20 under random masks that keep a tenth, in one pack.

    `several`: captured steps may be several in a graph, as in a sweep.
    """

    def __init__(self, size: int, data: InMemoryDataset, recipe: Recipe, several: bool = True) -> None:
        self._several = several
        self.pack: RoundRobin[int, Trained] = RoundRobin(DEVICE)
        self._ticks = _Ticks()
        for seed in range(size):
            model = network()
            generator = torch.Generator().manual_seed(seed)
            masks = {
                name: (torch.rand(weight.shape, generator=generator) < 0.1).to(DEVICE)
                for name, weight in model.named_parameters()
                if weight.dim() > 1
            }
            self.pack.add(seed, training(model, masks, data, recipe, seed, self._ticks))

    def run(self, steps: int) -> None:
        """Run at least `steps` further training steps, all members together."""
        end, least = self._ticks.n + steps, launches.CAPTURE_STEPS
        if not self._several:
            launches.CAPTURE_STEPS = 10**12  # more than ever remain
        try:
            while self._ticks.n < end:
                for _, ended in self.pack.turn():
                    raise ended if isinstance(ended, Exception) else RuntimeError("the training has ended")
        finally:
            launches.CAPTURE_STEPS = least

    @property
    def steps(self) -> int:
        """Training steps so far."""
        return self._ticks.n
