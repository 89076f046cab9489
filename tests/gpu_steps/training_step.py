"""Time a training step of ResNet-20 at batch 128 by precision, memory layout and mechanism, and packs of cells."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from pai_bench.datasets.epoch_tables import EpochTables
from pai_bench.datasets.loading import Augment, InMemoryDataset, InMemoryLoader, training_batches
from pai_bench.training import launches
from pai_bench.training.evaluation import evaluate
from tests.gpu_steps.common import (
    DEVICE,
    PRECISIONS,
    REAL,
    Trainings,
    batch,
    cifar_like,
    cifar_recipe,
    interleaved,
    median_and_spread,
    network,
    record,
    seconds,
)

STEPS = 20 if REAL else 1
"""Training steps per call."""
SETTLING = 60 if REAL else 2
"""Training steps before the first measurement; they include the capture."""


MECHANISMS = ("eager", "captured", "k steps")
"""Launches of a step: kernel by kernel, one step per graph, and several steps per graph (the default of a sweep)."""


def started(
    size: int, data: InMemoryDataset, precision: str, channels_last: bool, mechanism: str = MECHANISMS[-1]
) -> Trainings:
    """Return trainings that have passed warm-up and capture."""
    captured = mechanism != "eager"
    recipe = cifar_recipe(precision=PRECISIONS[precision], channels_last=channels_last, cuda_graph=captured)
    made = Trainings(size, data, recipe, several=mechanism == MECHANISMS[-1])
    made.run(SETTLING * size)
    return made


def matrix(data: InMemoryDataset) -> None:
    """Time one cell in every arithmetic, layout and mechanism, all interleaved."""
    cases = list(itertools.product(PRECISIONS, (False, True), MECHANISMS))
    trainings = {" ".join(map(str, case)): started(1, data, *case) for case in cases}
    found = interleaved({name: lambda made=made: made.run(STEPS) for name, made in trainings.items()}, 24.0)  # type: ignore[misc]
    for name, (precision, last, mechanism) in zip(trainings, cases, strict=True):
        middle, spread = median_and_spread(found[name])
        host = time.thread_time()
        trainings[name].run(STEPS)
        host = (time.thread_time() - host) / STEPS
        record(
            "step",
            precision=precision,
            layout="NHWC" if last else "NCHW",
            mechanism=mechanism,
            seconds=middle / STEPS,
            spread=round(spread, 3),
            host_seconds=host,
        )


def packs(data: InMemoryDataset) -> None:
    """Time packs of 1, 2, 4 and 8 captured cells, interleaved; seconds per training step of any member."""
    for precision, last in (("tf32", True), ("bf16", True), ("ieee", False)):
        sizes = (1, 2, 4, 8) if REAL else (1, 2)
        trainings = {size: started(size, data, precision, last) for size in sizes}
        works = {str(size): lambda made=made: made.run(5 * 8 if REAL else 1) for size, made in trainings.items()}  # type: ignore[misc]
        found = interleaved(works, 12.0)
        for size in sizes:
            middle, spread = median_and_spread(found[str(size)])
            record(
                "pack",
                precision=precision,
                layout="NHWC" if last else "NCHW",
                size=size,
                seconds=middle / (5 * 8 if REAL else 1),
                spread=round(spread, 3),
            )
        del trainings, works
        if REAL:
            torch.cuda.empty_cache()


def gathering(loader: InMemoryLoader, data: InMemoryDataset) -> Callable[[], None]:
    """Return a function that makes `launches.STEPS` batches as a graph of so many training steps does."""
    tables = EpochTables(loader, data.padded(loader.augment.padding), channels_last=True)
    tables.fill(0, 0, [0.1] * len(loader))
    rate = torch.zeros(1, device=DEVICE)

    def work() -> None:
        for offset in range(launches.STEPS):
            tables.rate(offset, rate)
            tables.batch(offset, loader.batch_size)

    if not REAL:
        return work
    work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def data_path(data: InMemoryDataset) -> None:
    """Time the batches of an epoch without training, and an evaluation."""
    recipe = cifar_recipe()
    batches = training_batches(data, recipe.train.batch_size, Augment.of(recipe.data), 0)
    count = min(100, len(batches))
    loading = seconds(lambda: list(itertools.islice(batches.epoch(0), count))) / count
    record("batch", mechanism="loader", seconds=loading)
    assert isinstance(batches, InMemoryLoader)
    gather = gathering(batches, data)
    gather()
    record("batch", mechanism="graph", seconds=seconds(gather, 20 if REAL else 1) / launches.STEPS)
    model = network()
    evaluate(model, data, recipe)
    whole, host = seconds(lambda: evaluate(model, data, recipe)), time.thread_time()
    evaluate(model, data, recipe)
    host = time.thread_time() - host
    record("evaluation", seconds=whole, host_seconds=host, images=len(data.test_y))


def main() -> None:
    """Run the step."""
    torch.backends.cudnn.benchmark = False
    data = cifar_like()
    size = cifar_recipe().train.batch_size
    x, y = batch(size)
    with FlopCounterMode(display=False) as counter:
        torch.nn.functional.cross_entropy(network()(x), y).backward()
    record("sizes", images=len(data.train_y), batch=size, flops=counter.get_total_flops(), device=str(DEVICE))
    data_path(data)
    matrix(data)
    packs(data)


if __name__ == "__main__":
    main()
