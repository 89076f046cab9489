"""Train and evaluate a network under fixed masks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pai_bench import datasets
from pai_bench.datasets import Augment, Dataset
from pai_bench.recipes import Recipe, Train
from pai_bench.results import Epoch
from pai_bench.watch import Watch

VERSION = 1
"""Raised whenever the same run would give other numbers; results of another version are stale."""

EVALUATION_BATCH = 1000


@dataclass(frozen=True)
class Trained:
    """What training gives: accuracy of the last epoch (a fraction), the curve, and whether a loss was not finite."""

    accuracy: float
    curve: tuple[Epoch, ...]
    diverged: bool


def learning_rate(train: Train, epoch: int, step: int, steps: int) -> float:
    """The learning rate of a step (of `steps` in the epoch), epochs and steps from 0.

    "step" multiplies by gamma at each milestone, "cosine" falls to 0 at the end; both after a linear warm-up.
    """
    done = epoch + step / steps
    if done < train.warmup_epochs:
        return train.lr * (done + 1 / steps) / train.warmup_epochs
    if train.schedule == "cosine":
        progress = (done - train.warmup_epochs) / (train.epochs - train.warmup_epochs)
        return train.lr * 0.5 * (1 + math.cos(math.pi * progress))
    return train.lr * train.gamma ** sum(epoch >= milestone for milestone in train.milestones)


class MaskedGradients:
    """Zeroes the gradients of pruned weights, all in one fused operation; the weights start at zero and stay there."""

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        parameters = dict(model.named_parameters())
        # A layer that is kept whole needs no mask.
        partial = {name: mask for name, mask in masks.items() if not bool(mask.all())}
        self._weights = [parameters[name] for name in partial]
        self._removed = [~mask.to(weight.device) for mask, weight in zip(partial.values(), self._weights, strict=True)]
        self._masks = [(~removed).to(w.dtype) for removed, w in zip(self._removed, self._weights, strict=True)]
        self.reset()

    def reset(self) -> None:
        """Set the pruned weights to exactly zero."""
        with torch.no_grad():
            for weight, removed in zip(self._weights, self._removed, strict=True):
                weight.masked_fill_(removed, 0)

    def __call__(self) -> None:
        """Mask the gradients that a backward pass has just left."""
        if self._weights:
            torch._foreach_mul_([weight.grad for weight in self._weights], self._masks)  # type: ignore[misc,arg-type]

    def intact(self) -> bool:
        """Whether every pruned weight is exactly zero."""
        return not any(bool(w[removed].any()) for w, removed in zip(self._weights, self._removed, strict=True))


def train(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    dataset: Dataset,
    recipe: Recipe,
    seed: int,
    watch: Watch | None = None,
) -> Trained:
    """Train `model` in place under `masks` (bool by parameter name) as the recipe says.

    The last epoch's test accuracy is the result, never the best one. A loss that is not finite ends training: what
    the network then predicts is the result. There is no host synchronisation inside an epoch.

    Raises: RuntimeError when a pruned weight is not exactly zero at the end (a defect of the trainer).
    """
    settings = recipe.train
    watch = watch or Watch()
    device = next(model.parameters()).device
    masked = MaskedGradients(model, masks)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    data = recipe.data
    augment = Augment(data.padding, data.flip, data.mean, data.std)
    batches = datasets.training_batches(dataset, settings.batch_size, augment, seed)
    steps = len(batches)
    curve: list[Epoch] = []
    accuracy, finite = 0.0, True
    for epoch in range(settings.epochs):
        model.train()
        total, seen = torch.zeros((), device=device), 0
        for step, (x, y) in enumerate(batches.epoch(epoch)):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, epoch, step, steps)
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            masked()
            optimizer.step()
            total += loss.detach() * len(y)
            seen += len(y)
            watch.tick()
        mean_loss = total.item() / seen
        finite = math.isfinite(mean_loss)
        last = epoch == settings.epochs - 1 or not finite
        measured = None
        if last or (epoch + 1) % settings.evaluate_every == 0:
            accuracy, sound = evaluate(model, dataset, recipe)
            measured, finite = accuracy, finite and sound
        curve.append(Epoch(epoch=epoch + 1, loss=mean_loss if math.isfinite(mean_loss) else None, accuracy=measured))
        watch.epoch(curve[-1], settings.epochs)
        if not finite:
            break
    if finite and not masked.intact():
        raise RuntimeError("a pruned weight is not zero after training")
    return Trained(accuracy=accuracy, curve=tuple(curve), diverged=not finite)


@torch.no_grad()
def evaluate(model: nn.Module, dataset: Dataset, recipe: Recipe) -> tuple[float, bool]:
    """Test accuracy as a fraction, and whether all outputs were finite; leaves the model in eval mode."""
    model.eval()
    device = next(model.parameters()).device
    correct, seen = torch.zeros((), dtype=torch.long, device=device), 0
    finite = torch.ones((), dtype=torch.bool, device=device)
    data = recipe.data
    for x, y in datasets.test_batches(dataset, EVALUATION_BATCH, data.mean, data.std):
        logits = model(x)
        correct += (logits.argmax(1) == y).sum()
        finite &= torch.isfinite(logits).all()
        seen += len(y)
    return correct.item() / seen, bool(finite)
