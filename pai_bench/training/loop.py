"""Train and evaluate a network under masks that are fixed, or that a method changes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from pai_bench.core.precision import float32_products, forward, in_channels_last, laid_out, products
from pai_bench.core.randomness import derive_seed, seed_draws
from pai_bench.datasets import loading
from pai_bench.datasets.loading import Augment, InMemoryDataset, StreamingDataset
from pai_bench.recipes import Recipe
from pai_bench.results import Epoch
from pai_bench.scoring.losses import predictions
from pai_bench.training.callbacks import Callback
from pai_bench.training.checkpoints import Checkpoints, Interrupted
from pai_bench.training.cooperative import Share, SharedClock, Task, read, run_to_completion
from pai_bench.training.first_training import FirstTraining
from pai_bench.training.last_batch import last_batch
from pai_bench.training.launches import Schedule, make_launches
from pai_bench.training.mask_updates import Changing, MaskUpdates
from pai_bench.training.rates import epoch_steps, learning_rate, recipe_epochs
from pai_bench.training.step import Step, make_step

VERSION = 2
"""Version of the trainer, increased whenever a run would produce different numbers; makes older results stale."""

EVALUATION_BATCH = 1000

P = ParamSpec("P")
T = TypeVar("T")


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
    if share is None:
        with SharedClock().share() as own:
            more = callback, checkpoints, saved, record, own, changing, first
            return (yield from training(model, masks, dataset, recipe, seed, *more))
    settings = recipe.train
    callback = callback or Callback()
    device = next(model.parameters()).device
    channels_last = in_channels_last(settings.precision, settings.channels_last, device)
    one_step = make_step(laid_out(model, channels_last), masks, settings, lambda: share.alone, changing is not None)
    short = last_batch(model, dataset, recipe)
    batches = loading.training_batches(dataset, settings.batch_size, Augment.of(recipe.data), seed, short)
    steps = len(batches)
    of_recipe = epoch_steps(settings, steps)
    rewinding = None if changing is None else changing.rewinding(len(of_recipe))
    epochs = recipe_epochs(len(of_recipe), rewinding)
    lengths = [of_recipe[epoch] for epoch in epochs]
    plan = lengths, steps, seed, len(of_recipe)
    updates = None if changing is None else MaskUpdates(changing, model, masks, one_step, *plan)
    rate = lambda epoch, step: learning_rate(settings, epochs[epoch], step, steps)  # noqa: E731
    schedule = Schedule(rate, lengths, seed, updates)
    launches = make_launches(one_step, dataset, batches, schedule, channels_last)
    at = _Progress(model, one_step, share, updates)
    if saved is not None:
        at.restore(saved)

    def pause() -> Task[None]:
        yield
        if checkpoints is not None and (checkpoints.stop_requested or checkpoints.due()):
            checkpoints.save({**(record or {}), **at.capture()})
            if checkpoints.stop_requested:
                raise Interrupted(f"in epoch {at.epoch + 1}")

    def ticking() -> Task[None]:
        callback.tick()  # a cell that waits for another one must not be taken for one that hangs
        yield from pause()

    tested = Tested(0.0, True)
    finite = True
    while finite and at.epoch < len(lengths):
        model.train()
        if updates is not None and at.step == 0:
            updates.before(at.epoch)
            if first is not None and updates.may_jump(at.epoch):
                known = yield from first.awaited(ticking)
                if known is not None:
                    at.jump(known)
                    updates.after(at.epoch)
                    at.next_epoch()
                    continue
        for launch in launches.epoch(at.epoch, at.step):
            yield from pause()
            yield from launches.room(pause)
            launch.run()
            at.seen += launch.images
            at.step += launch.steps
            for _ in range(launch.steps):
                callback.tick()
        yield from pause()
        mean_loss = (yield from read(one_step.total, pause)) / at.seen
        finite = math.isfinite(mean_loss)
        last = at.epoch == len(lengths) - 1 or not finite
        measured = None
        if last or (at.epoch + 1) % settings.evaluate_every == 0:
            tested = yield from evaluation(model, dataset, recipe, seed, at.epoch, callback, pause)
            # Weights may overflow in the last step of an epoch, which its losses do not show yet.
            measured, finite = tested.accuracy, finite and tested.finite
        at.curve.append(Epoch(at.epoch + 1, mean_loss if math.isfinite(mean_loss) else None, measured))
        callback.epoch(at.curve[-1], len(lengths))
        if updates is not None and finite:
            if first is not None and updates.ends_first(at.epoch):
                first.store(at.capture())
            updates.after(at.epoch)
        at.next_epoch()
    if finite and not one_step.masked.intact():
        raise RuntimeError("a pruned weight is not zero after training")
    if finite and updates is not None:
        updates.finish()
    past = {} if updates is None else updates.record()
    lasted = at.seconds, past, steps, sum(lengths)
    return Trained(tested.accuracy, tuple(at.curve), not finite, one_step.mechanism, *lasted, tested.by_class)


def _completed(task: Callable[Concatenate[nn.Module, P], Task[T]]) -> Callable[Concatenate[nn.Module, P], T]:
    """Return a function that runs the task of a model to completion, with the same parameters."""

    def run(model: nn.Module, /, *arguments: P.args, **options: P.kwargs) -> T:
        return run_to_completion(task(model, *arguments, **options), next(model.parameters()).device)

    return run


train = _completed(training)
"""Run `training` to completion."""


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


evaluate = _completed(evaluation)
"""Run `evaluation` to completion."""
