"""Train and evaluate a network under fixed masks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pai_bench import datasets
from pai_bench.arithmetic import float32_products, forward, laid_out
from pai_bench.checkpoints import Checkpoints, Interrupted
from pai_bench.datasets import Augment, Dataset, Streamed
from pai_bench.recipes import Recipe, Train
from pai_bench.results import Epoch
from pai_bench.seeds import derive_seed
from pai_bench.steps import Step, make_step
from pai_bench.watch import Watch

VERSION = 2
"""Raised whenever the same run would give other numbers; results of another version are stale."""

EVALUATION_BATCH = 1000


@dataclass(frozen=True)
class Trained:
    """What training gives: accuracy of the last epoch (a fraction), the curve, and whether a loss was not finite."""

    accuracy: float
    curve: tuple[Epoch, ...]
    diverged: bool
    mechanism: str
    """How the steps were launched: "eager" or "cuda-graph"."""


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


class _Progress:
    """Where training stands, and all that its next step depends on."""

    def __init__(self, model: nn.Module, one_step: Step) -> None:
        self._tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self._optimizer = one_step.optimizer
        self._total = one_step.total
        self.seen = 0
        """Images of this epoch so far."""
        self.epoch = 0
        self.step = 0
        """The next step of the epoch; the number of steps when only the evaluation is left."""
        self.curve: list[Epoch] = []
        self._earlier_seconds = 0.0
        self._began = time.perf_counter()

    def next_epoch(self) -> None:
        self.epoch += 1
        self.step = self.seen = 0
        self._total.zero_()

    def capture(self) -> dict[str, Any]:
        """Tensors (not copied) and plain values for a checkpoint."""
        return {
            "model": {name: tensor.detach() for name, tensor in self._tensors.items()},
            "optimizer": self._optimizer.state_dict(),
            "total": self._total,
            "seen": self.seen,
            "epoch": self.epoch,
            "step": self.step,
            "curve": [asdict(epoch) for epoch in self.curve],
            "seconds": self._earlier_seconds + time.perf_counter() - self._began,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to what `capture` gave."""
        with torch.no_grad():
            for name, tensor in self._tensors.items():
                tensor.copy_(state["model"][name])
            self._total.copy_(state["total"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.seen, self.epoch, self.step = state["seen"], state["epoch"], state["step"]
        self.curve = [Epoch(**epoch) for epoch in state["curve"]]
        self._earlier_seconds = state["seconds"]


@contextmanager
def _own_randomness(device: torch.device) -> Iterator[Callable[[int], None]]:
    """Yield what seeds the generators that a forward pass draws from; they are as they were before afterwards."""
    cuda = device.type == "cuda"
    generators = [torch.default_generator]
    with torch.random.fork_rng(devices=[device] if cuda else []):
        if cuda:
            index = torch.cuda.current_device() if device.index is None else device.index
            generators.append(torch.cuda.default_generators[index])

        def seed_all(seed: int) -> None:
            for generator in generators:
                generator.manual_seed(seed)

        yield seed_all


def train(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    dataset: Dataset | Streamed,
    recipe: Recipe,
    seed: int,
    watch: Watch | None = None,
    checkpoints: Checkpoints | None = None,
    saved: Mapping[str, Any] | None = None,
    record: Mapping[str, Any] | None = None,
) -> Trained:
    """Train `model` in place under `masks` (bool by parameter name) as the recipe says.

    The last epoch's test accuracy is the result, never the best one. A loss that is not finite ends training: what
    the network then predicts is the result. There is no host synchronisation inside an epoch but for a checkpoint that
    is due. Checkpoints hold `record` too; training from one of them (`saved`) ends as if it had never stopped: every
    draw, also of dropout, is a function of seed, epoch and step.

    Raises: Interrupted after the last checkpoint when a stop was requested; RuntimeError when a pruned weight is not
        exactly zero at the end (a defect of the trainer).
    """
    settings = recipe.train
    watch = watch or Watch()
    one_step = make_step(laid_out(model, settings.channels_last), masks, settings)
    batches = datasets.training_batches(dataset, settings.batch_size, Augment.of(recipe.data), seed)
    steps = len(batches)
    at = _Progress(model, one_step)
    if saved is not None:
        at.restore(saved)

    def pause() -> None:
        if checkpoints is not None and (checkpoints.stop_requested or checkpoints.due()):
            checkpoints.save({**(record or {}), **at.capture()})
            if checkpoints.stop_requested:
                raise Interrupted(f"in epoch {at.epoch + 1}")

    accuracy, finite = 0.0, True
    with (
        _own_randomness(one_step.device) as seed_draws,
        float32_products("tf32" if settings.precision == "tf32" else "ieee"),
    ):
        while finite and at.epoch < settings.epochs:
            model.train()
            for x, y in batches.epoch(at.epoch, at.step):
                pause()
                seed_draws(derive_seed(seed, "forward", at.epoch, at.step))
                one_step(x, y, learning_rate(settings, at.epoch, at.step, steps))
                at.seen += len(y)
                at.step += 1
                watch.tick()
            pause()
            mean_loss = one_step.total.item() / at.seen
            finite = math.isfinite(mean_loss)
            last = at.epoch == settings.epochs - 1 or not finite
            measured = None
            if last or (at.epoch + 1) % settings.evaluate_every == 0:
                accuracy, sound = evaluate(model, dataset, recipe, watch, pause)
                measured, finite = accuracy, finite and sound
            at.curve.append(Epoch(at.epoch + 1, mean_loss if math.isfinite(mean_loss) else None, measured))
            watch.epoch(at.curve[-1], settings.epochs)
            at.next_epoch()
    if finite and not one_step.masked.intact():
        raise RuntimeError("a pruned weight is not zero after training")
    return Trained(accuracy=accuracy, curve=tuple(at.curve), diverged=not finite, mechanism=one_step.mechanism)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    dataset: Dataset | Streamed,
    recipe: Recipe,
    watch: Watch | None = None,
    pause: Callable[[], None] = lambda: None,
) -> tuple[float, bool]:
    """Test accuracy as a fraction, and whether all outputs were finite; leaves the model in eval mode.

    Calls `pause` before each batch, which may save the model (it does not change) and raise.
    """
    model.eval()
    watch = watch or Watch()
    device = next(model.parameters()).device
    correct, seen = torch.zeros((), dtype=torch.long, device=device), 0
    finite = torch.ones((), dtype=torch.bool, device=device)
    data, settings = recipe.data, recipe.train
    for x, y in datasets.test_batches(dataset, EVALUATION_BATCH, data.mean, data.std):
        pause()
        logits = forward(model, x, settings.precision == "bfloat16", settings.channels_last)
        correct += (logits.argmax(1) == y).sum()
        finite &= torch.isfinite(logits).all()
        seen += len(y)
        watch.tick()
    return correct.item() / seen, bool(finite)
