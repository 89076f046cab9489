"""Train a network under masks that are fixed, or that a method changes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pai_bench.core.precision import in_channels_last, laid_out
from pai_bench.datasets import loading
from pai_bench.datasets.loading import Augment, InMemoryDataset, StreamingDataset
from pai_bench.recipes import Recipe
from pai_bench.results import Epoch
from pai_bench.training.callbacks import Callback
from pai_bench.training.checkpoints import Checkpoints, Interrupted
from pai_bench.training.cooperative import Share, SharedClock, Task, completed, read
from pai_bench.training.evaluation import Tested, evaluation
from pai_bench.training.first_training import FirstTraining
from pai_bench.training.last_batch import last_batch
from pai_bench.training.launches import Schedule, make_launches
from pai_bench.training.mask_updates import Changing, MaskUpdates
from pai_bench.training.rates import epoch_steps, learning_rate, recipe_epochs
from pai_bench.training.step import Step, make_step

VERSION = 2
"""Version of the trainer, increased whenever a run would produce different numbers; makes older results stale."""


@dataclass(frozen=True)
class Trained:
    """Outcome of a training: last-epoch accuracy (fraction), training curve, and a flag for non-finite values."""

    accuracy: float
    curve: tuple[Epoch, ...]
    diverged: bool
    mechanism: str
    """Launch mechanism of the steps: "eager" or "cuda-graph"."""
    seconds: float
    """This training's share of the wall time of its process, including the time before an interruption."""
    mask_updates: dict[str, list[int]]  # see `Result.mask_updates`
    epoch: int  # number of steps in a complete epoch
    steps: int  # number of steps of the training
    class_accuracy: tuple[float | None, ...] = ()  # of the last epoch; None for a class without test images


class _Progress:
    """Progress of a training and all state on which its next step depends."""

    def __init__(self, model: nn.Module, one_step: Step, share: Share, updates: MaskUpdates | None) -> None:
        self._share = share
        self._updates = updates
        self._seconds_before = 0.0
        self._tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self._optimizer = one_step.optimizer
        self._total = one_step.total
        self.seen = 0
        """Number of images processed in this epoch so far."""
        self.epoch = 0
        self.step = 0
        """Index of the next step in the epoch; equal to the number of steps when only the evaluation remains."""
        self.curve: list[Epoch] = []

    @property
    def seconds(self) -> float:
        """Seconds of this training so far, including those before an interruption."""
        return self._seconds_before + self._share.seconds

    def next_epoch(self) -> None:
        self.epoch += 1
        self.step = self.seen = 0
        self._total.zero_()

    def capture(self) -> dict[str, Any]:
        """Return the tensors (not copied) and plain values for a checkpoint."""
        return {
            "model": {name: tensor.detach() for name, tensor in self._tensors.items()},
            "optimizer": self._optimizer.state_dict(),
            "total": self._total,
            "seen": self.seen,
            "epoch": self.epoch,
            "step": self.step,
            "curve": [asdict(epoch) for epoch in self.curve],
            "seconds": self.seconds,
            "mask_updates": [] if self._updates is None else list(self._updates.past),
            "rewound": {} if self._updates is None else self._updates.early,
        }

    def jump(self, state: Mapping[str, Any]) -> None:
        """Take a state of another cell, with the time that it took, and keep the early state of this one."""
        early = {} if self._updates is None else self._updates.early
        self.restore({**state, "rewound": early, "seconds": state["seconds"] - self._share.seconds})

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a state returned by `capture`."""
        with torch.no_grad():
            for name, tensor in self._tensors.items():
                tensor.copy_(state["model"][name])
            self._total.copy_(state["total"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.seen, self.epoch, self.step = state["seen"], state["epoch"], state["step"]
        self.curve = [Epoch(**epoch) for epoch in state["curve"]]
        self._seconds_before = state["seconds"]
        if self._updates is not None:
            self._updates.resume(state["mask_updates"], state["rewound"])


class _Training:
    """A training with its step, its launches and its progress."""

    def __init__(
        self,
        model: nn.Module,
        masks: Mapping[str, Tensor],
        dataset: InMemoryDataset | StreamingDataset,
        recipe: Recipe,
        seed: int,
        callback: Callback,
        checkpoints: Checkpoints | None,
        record: Mapping[str, Any],
        share: Share,
        changing: Changing | None,
        first: FirstTraining | None,
    ) -> None:
        self._model, self._dataset, self._recipe, self._seed = model, dataset, recipe, seed
        self._callback, self._checkpoints, self._record, self._first = callback, checkpoints, record, first
        settings = recipe.train
        channels_last = in_channels_last(settings.precision, settings.channels_last, next(model.parameters()).device)
        placed = laid_out(model, channels_last)
        self._step = make_step(placed, masks, settings, lambda: share.alone, changing is not None)
        short = last_batch(model, dataset, recipe)
        batches = loading.training_batches(dataset, settings.batch_size, Augment.of(recipe.data), seed, short)
        self._steps = steps = len(batches)
        of_recipe = epoch_steps(settings, steps)
        epochs = recipe_epochs(len(of_recipe), None if changing is None else changing.rewinding(len(of_recipe)))
        self._lengths = [of_recipe[epoch] for epoch in epochs]
        plan = self._lengths, steps, seed, len(of_recipe)
        self._updates = None if changing is None else MaskUpdates(changing, model, masks, self._step, *plan)
        rate = lambda epoch, step: learning_rate(settings, epochs[epoch], step, steps)  # noqa: E731
        schedule = Schedule(rate, self._lengths, seed, self._updates)
        self._launches = make_launches(self._step, dataset, batches, schedule, channels_last)
        self.at = _Progress(model, self._step, share, self._updates)

    def to_the_end(self) -> Task[Trained]:
        """Train the epochs that are left, and return the outcome."""
        at, updates = self.at, self._updates
        tested, finite = Tested(0.0, True), True
        while finite and at.epoch < len(self._lengths):
            self._model.train()
            if updates is not None and at.step == 0:
                updates.before(at.epoch)
                if self._first is not None and updates.may_jump(at.epoch) and (yield from self._jump(self._first)):
                    updates.after(at.epoch)
                    at.next_epoch()
                    continue
            yield from self._launch_epoch()
            mean_loss = (yield from read(self._step.total, self._pause)) / at.seen
            finite = math.isfinite(mean_loss)
            measured = None
            last = at.epoch == len(self._lengths) - 1 or not finite
            if last or (at.epoch + 1) % self._recipe.train.evaluate_every == 0:
                where = self._dataset, self._recipe, self._seed, at.epoch
                tested = yield from evaluation(self._model, *where, self._callback, self._pause)
                # Weights may overflow in the last step of an epoch, which its losses do not show yet.
                measured, finite = tested.accuracy, finite and tested.finite
            at.curve.append(Epoch(at.epoch + 1, mean_loss if math.isfinite(mean_loss) else None, measured))
            self._callback.epoch(at.curve[-1], len(self._lengths))
            if updates is not None and finite:
                if self._first is not None and updates.ends_first(at.epoch):
                    self._first.store(at.capture())
                updates.after(at.epoch)
            at.next_epoch()
        return self._outcome(tested, finite)

    def _launch_epoch(self) -> Task[None]:
        """Run the steps of this epoch that are left."""
        at = self.at
        for launch in self._launches.epoch(at.epoch, at.step):
            yield from self._pause()
            yield from self._launches.room(self._pause)
            launch.run()
            at.seen += launch.images
            at.step += launch.steps
            for _ in range(launch.steps):
                self._callback.tick()
        yield from self._pause()

    def _jump(self, first: FirstTraining) -> Task[bool]:
        """Take over the end of the first training if another cell has it; return True if it did."""
        known = yield from first.awaited(self._ticking)
        if known is not None:
            self.at.jump(known)
        return known is not None

    def _pause(self) -> Task[None]:
        """Let other tasks run, then save a checkpoint that is due, and stop if that was requested."""
        yield
        checkpoints = self._checkpoints
        if checkpoints is not None and (checkpoints.stop_requested or checkpoints.due()):
            checkpoints.save({**self._record, **self.at.capture()})
            if checkpoints.stop_requested:
                raise Interrupted(f"in epoch {self.at.epoch + 1}")

    def _ticking(self) -> Task[None]:
        """Pause, with a sign of life: a cell that waits for another one must not be taken for one that hangs."""
        self._callback.tick()
        yield from self._pause()

    def _outcome(self, tested: Tested, finite: bool) -> Trained:
        if finite and not self._step.masked.intact():
            raise RuntimeError("a pruned weight is not zero after training")
        if finite and self._updates is not None:
            self._updates.finish()
        return Trained(
            tested.accuracy,
            tuple(self.at.curve),
            not finite,
            self._step.mechanism,
            self.at.seconds,
            {} if self._updates is None else self._updates.record(),
            self._steps,
            sum(self._lengths),
            tested.by_class,
        )


def training(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    dataset: InMemoryDataset | StreamingDataset,
    recipe: Recipe,
    seed: int,
    callback: Callback | None = None,
    checkpoints: Checkpoints | None = None,
    saved: Mapping[str, Any] | None = None,
    record: Mapping[str, Any] | None = None,
    share: Share | None = None,
    changing: Changing | None = None,
    first: FirstTraining | None = None,
) -> Task[Trained]:
    """Train `model` in place under `masks` (bool by parameter name) with the recipe, as a resumable task.

    A method that is `changing` its masks changes these tensors; `record` must then contain them, to be resumed. Its
    `first` training may end with a state that is known from another cell.

    Each `next()` runs one launch (one training step, or several captured ones on a GPU) or one evaluation batch. The
    reported accuracy is the last epoch's test accuracy, never the best one. A non-finite loss ends the training; the
    accuracy is then measured with the weights at that point. The host does not synchronise with the device inside an
    epoch, except for a due checkpoint, and so that it is no more than a few captured launches ahead of it.

    Checkpoints include `record`. `share` counts the time if other cells train in this process. Training resumed from a
    checkpoint (`saved`) gives bit-identical results, because every random draw, including dropout, is a function of
    seed, epoch and step. For the same reason the results do not depend on other tasks that run in between.

    Raises: Interrupted after the last checkpoint when a stop was requested; RuntimeError when a pruned weight is not
        exactly zero at the end (a defect of the trainer); PaiBenchError when a method never changes its masks, or
        keeps another number of weights at the end.
    """
    with nullcontext(share) if share is not None else SharedClock().share() as own:
        more = callback or Callback(), checkpoints, record or {}, own, changing, first
        run = _Training(model, masks, dataset, recipe, seed, *more)
        if saved is not None:
            run.at.restore(saved)
        return (yield from run.to_the_end())


train = completed(training)
"""Run `training` to completion."""
