"""Evaluation of a network on the test set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from pai_bench.core.precision import float32_products, forward, in_channels_last, products
from pai_bench.core.randomness import derive_seed, seed_draws
from pai_bench.datasets import loading
from pai_bench.datasets.loading import InMemoryDataset, StreamingDataset
from pai_bench.recipes import Recipe
from pai_bench.scoring.losses import predictions
from pai_bench.training.callbacks import Callback
from pai_bench.training.cooperative import Task, completed, read

EVALUATION_BATCH = 1000


def _no_pause() -> Task[None]:
    yield


@dataclass(frozen=True)
class Tested:
    """Outcome of an evaluation: accuracy (fraction), also by class, and False where an output was not finite."""

    accuracy: float
    finite: bool
    by_class: tuple[float | None, ...] = ()
    """None for a class without images."""


def evaluation(
    model: nn.Module,
    dataset: InMemoryDataset | StreamingDataset,
    recipe: Recipe,
    seed: int = 0,
    epoch: int = 0,
    callback: Callback | None = None,
    pause: Callable[[], Task[None]] = _no_pause,
) -> Task[Tested]:
    """Measure the test accuracy and check that all outputs are finite; one batch per `next()`.

    The model is left in eval mode. Random draws of a network in eval mode are seeded by seed, epoch and batch.
    `pause` runs between batches; it may save the model, which does not change here, and may raise Interrupted.
    """
    model.eval()
    callback = callback or Callback()
    device = next(model.parameters()).device
    # On the device: reading a count after every batch would make the host wait for it.
    correct, images = torch.zeros(2, dataset.classes, dtype=torch.long, device=device)  # by class
    finite = torch.ones((), dtype=torch.bool, device=device)
    data, settings, seen = recipe.data, recipe.train, 0
    channels_last = in_channels_last(settings.precision, settings.channels_last, device)
    for batch, (x, y) in enumerate(loading.test_batches(dataset, EVALUATION_BATCH, data.mean, data.std)):
        yield from pause()
        seed_draws(derive_seed(seed, "evaluation", epoch, batch), device)
        with torch.no_grad(), float32_products(products(settings.precision)):
            logits = forward(model, x, settings.precision == "bfloat16", channels_last)
        correct.index_add_(0, y, (predictions(settings.loss, logits) == y).long())
        images.index_add_(0, y, torch.ones_like(y))
        seen += len(y)
        # Accumulated on the device and read once, like the counts.
        finite &= torch.isfinite(logits).all()
        callback.tick()
    right, sound = (yield from read(correct.sum(), pause)), (yield from read(finite, pause))
    counts = zip(correct.tolist(), images.tolist(), strict=True)
    by_class = tuple(hits / total if total else None for hits, total in counts)
    return Tested(right / seen, bool(sound), by_class)


evaluate = completed(evaluation)
"""Run `evaluation` to completion."""
