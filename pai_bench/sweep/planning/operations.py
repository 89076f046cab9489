"""Number of operations of networks, and the measured rate at which a CPU core performs them."""

from __future__ import annotations

import time
from copy import deepcopy
from functools import cache
from statistics import median

import torch
from torch import nn

from pai_bench import models
from pai_bench.core.precision import forward, laid_out
from pai_bench.datasets import loading
from pai_bench.experiment.runner import Run
from pai_bench.pruning import flops
from pai_bench.scoring.losses import by_name, n_outputs
from pai_bench.sweep.planning import workload


class UnknownCost(Exception):
    """The operations of a model could not be counted; a sweep runs without an estimate then."""


@cache
def _network(dataset: str, model: str, loss: str) -> nn.Module:
    info = loading.info(dataset)
    return models.build(model, info.channels, info.size, n_outputs(loss, info.classes, dataset))


@cache
def _counted(dataset: str, model: str, loss: str) -> int | str:
    """Return the operations of one forward pass, or the reason why they cannot be counted; both are cached."""
    info = loading.info(dataset)
    try:
        counted = flops.flops(_network(dataset, model, loss), {}, info.shape)[0]
    except Exception as error:
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return counted or "no operation of a conv or linear layer was counted"


def dense_flops(run: Run) -> int:
    """Return the operations of one forward pass of the dense network of a run.

    Raises: UnknownCost when they cannot be counted.
    """
    counted = _counted(run.cell.dataset, run.cell.model, run.recipe.train.loss)
    if isinstance(counted, str):
        raise UnknownCost(counted)
    return counted


def calibrate(run: Run, seconds: float = 0.5) -> float:
    """Measure the operations per second of one CPU core that trains this network in the precision of the run's recipe.

    The measurement takes about `seconds` of processor time, which is independent of the load of other processes.
    """
    dataset, model, train = run.cell.dataset, run.cell.model, run.recipe.train
    info, flops = loading.info(dataset), dense_flops(run)
    # A batch of the usual size, unless a single step would take too long.
    # Batch norm needs two images.
    size = int(max(2, min(128, 2e9 / flops)))
    images, targets = torch.rand(size, *info.shape), torch.arange(size) % info.classes
    network = laid_out(deepcopy(_network(dataset, model, train.loss)), train.channels_last)

    def step(n_images: int) -> float:
        """Return the processor seconds of one forward and backward pass."""
        began = time.process_time()
        logits = forward(network, images[:n_images], train.precision == "bfloat16", train.channels_last)
        torch.autograd.backward(by_name(train.loss)(logits, targets[:n_images]))
        return time.process_time() - began

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        step(2)  # the first pass chooses kernels and allocates
        taken = [step(size)]
        # Processor time passes slowly on a busy machine, so the elapsed time has a limit too.
        end = time.monotonic() + 4 * seconds
        while sum(taken) < seconds and time.monotonic() < end:
            taken.append(step(size))
    finally:
        torch.set_num_threads(threads)
    # A process clock with a resolution of 10 ms can measure 0 for a tiny model.
    return workload.BACKWARD * flops * size / max(median(taken), 1e-6)
