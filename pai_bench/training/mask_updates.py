"""Masks that a method changes during training: in place, with exact counts, as a function of seed and step."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from pai_bench.core.randomness import derive_seed
from pai_bench.errors import PaiBenchError
from pai_bench.pruning.selection import keep_exactly, to_masks
from pai_bench.scoring.mask_updates import ChangesMasks, Length, MaskChange, Moment, Rewinding
from pai_bench.training.eager_step import Change, Step


@dataclass(frozen=True)
class Changing:
    """A method that changes its masks during training, and the number of weights that it keeps at the end."""

    method: ChangesMasks
    name: str
    kept: int
    size: int
    """Number of prunable weights."""

    def rewinding(self, epochs: int) -> Rewinding | None:
        """Return the cycles of the method under a recipe of so many epochs, or None if there is one training.

        Raises: PaiBenchError for no cycle, or an epoch that the recipe does not have.
        """
        rule = getattr(self.method, "rewinding", None)
        if rule is None:
            return None
        found: Rewinding = rule(epochs, self.kept / self.size)
        if found.cycles < 1 or not 0 <= found.epoch < epochs:
            raise PaiBenchError(
                f"{self.name} would train again {found.cycles} times from epoch {found.epoch} on",
                f"cycles must be 1 or more, and the epoch from 0 to {epochs - 1}",
            )
        return found


class MaskUpdates:
    """The mask updates of one training. The masks are the caller's tensors; their addresses never change.

    All state besides the masks is the list of past updates: schedules and random draws depend on the step only.
    """

    def __init__(
        self,
        changing: Changing,
        model: nn.Module,
        masks: Mapping[str, Tensor],
        one_step: Step,
        lengths: Sequence[int],
        epoch: int,
        seed: int,
        recipe_length: int = 0,
    ) -> None:
        """Take the steps of each epoch (`lengths`) and of a complete one (`epoch`), the cell's seed, and the number of
        epochs of the recipe for methods with cycles.

        Raises: PaiBenchError when no update falls into the training, or one lies outside of it.
        """
        self._changing = changing
        self._masks = masks
        parameters = dict(model.named_parameters())
        self._weights = {name: parameters[name] for name in masks}
        self._one_step = one_step
        self._length = Length(sum(lengths), epoch)
        self._seed = seed
        self._replaces = bool(getattr(changing.method, "replaces_step", False))
        self.past: list[tuple[int, int, int]] = []
        """Past updates: number of the step, kept weights after it, and weights that were pruned before it."""
        self.early: dict[str, Tensor] = {}
        """Parameters and buffers to which a method rewinds."""
        self._ends = list(itertools.accumulate(lengths))
        self._tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self._rewinding = changing.rewinding(recipe_length)
        cycles = 0 if self._rewinding is None else self._rewinding.cycles
        self._last_epochs = [
            recipe_length - 1 + cycle * (recipe_length - self._rewinding.epoch)
            for cycle in range(cycles)
            if self._rewinding is not None
        ]
        """Epochs after which the network is pruned and trained again."""
        self._due = frozenset() if cycles else update_steps(changing, self._length)

    def at(self, epoch: int, step: int) -> Change | None:
        """Return the change that is due in a step (both from 0), or None."""
        number = self._ends[epoch - 1] * (epoch > 0) + step + 1
        return partial(self._change, number) if number in self._due else None

    @torch.no_grad()
    def before(self, epoch: int) -> None:
        """Note the state at the beginning of the epoch to which weights are rewound."""
        if self._rewinding is not None and self._rewinding.weights and epoch == self._rewinding.epoch:
            self.early = {name: tensor.detach().clone() for name, tensor in self._tensors.items()}

    @torch.no_grad()
    def after(self, epoch: int) -> None:
        """Prune and rewind if a cycle ends with this epoch."""
        if self._rewinding is None or epoch not in self._last_epochs:
            return
        number, progress = self._ends[epoch], (self._last_epochs.index(epoch) + 1) / self._rewinding.cycles
        change = self._changing.method.update_masks(self._moment(number, {}, progress))
        if _is_finite(change):
            self.put(number, changed(self._masks, change))
        for name, tensor in self.early.items():
            self._tensors[name].copy_(tensor)
        self._one_step.masked.reset()
        for state in self._one_step.optimizer.state.values():
            if state.get("momentum_buffer") is not None:
                # Set to zero instead of deleted: captured graphs contain the buffer's address.
                state["momentum_buffer"].zero_()

    def may_jump(self, epoch: int) -> bool:
        """Return True in epochs of the first training from which another cell's end of it may be taken over."""
        if self._rewinding is None or epoch > self._last_epochs[0]:
            return False
        return bool(self.early) or not self._rewinding.weights

    def ends_first(self, epoch: int) -> bool:
        """Return True for the last epoch of the first training."""
        return bool(self._last_epochs) and epoch == self._last_epochs[0]

    def resume(self, past: Sequence[Sequence[int]], early: Mapping[str, Tensor]) -> None:
        """Restore the past updates and the early state of a checkpoint."""
        self.past = [(step, kept, grown) for step, kept, grown in past]
        self.early = {name: tensor.to(self._tensors[name].device) for name, tensor in early.items()}

    def _moment(self, number: int, gradients: Mapping[str, Tensor], progress: float) -> Moment:
        return Moment(
            number,
            self._length,
            {name: weight.detach() for name, weight in self._weights.items()},
            gradients,
            self._masks,
            self._changing.kept,
            # A function of the step alone, so that a resumed training draws the same numbers.
            torch.Generator().manual_seed(derive_seed(self._seed, "mask update", number)),
            progress,
        )

    def within(self, epoch: int, step: int, count: int) -> bool:
        """Return True if a change is due in one of `count` steps."""
        return any(self.at(epoch, step + offset) for offset in range(count))

    def finish(self) -> None:
        """Check the number of kept weights at the end of the training.

        Raises: PaiBenchError when it is not the one that the sparsity asks for.
        """
        kept = sum(int(mask.sum()) for mask in self._masks.values())
        if kept != self._changing.kept:
            raise PaiBenchError(
                f"method {self._changing.name} keeps {kept} weights at the end of training, not {self._changing.kept}",
                "correct update_steps or update_masks, so that the last update keeps moment.kept weights",
            )

    def record(self) -> dict[str, list[int]]:
        """Return the past updates for a result: lists of steps, of kept weights and of grown weights."""
        columns = {key: [past[place] for past in self.past] for place, key in enumerate(("step", "kept", "grown"))}
        return columns if self.past else {}

    @torch.no_grad()
    def _change(self, number: int, descend: Callable[[], None]) -> None:
        # Copied before the update, which sets gradients of pruned weights to zero.
        gradients = {
            name: torch.zeros_like(w) if w.grad is None else w.grad.clone() for name, w in self._weights.items()
        }
        if not self._replaces:
            with torch.enable_grad():
                descend()
        progress = (sorted(self._due).index(number) + 1) / len(self._due)
        change = self._changing.method.update_masks(self._moment(number, gradients, progress))
        if _is_finite(change):  # else the training has diverged, and ends with this epoch
            self.put(number, changed(self._masks, change))

    def put(self, number: int, new: Mapping[str, Tensor]) -> None:
        """Replace the masks in place; weights and momentum of pruned weights become zero."""
        # One read from the device for all layers, instead of two per layer.
        counts = torch.stack([torch.stack([new[n].sum(), (new[n] & ~m).sum()]) for n, m in self._masks.items()])
        kept, grown = counts.sum(0).tolist()
        for name, mask in self._masks.items():
            # In place, because captured graphs contain the addresses of these tensors.
            mask.copy_(new[name])
        self._one_step.masked.refresh(self._masks)
        for name, weight in self._weights.items():
            momentum = self._one_step.optimizer.state[weight].get("momentum_buffer")
            if momentum is not None:
                # A weight that grows again later must start without its earlier momentum.
                momentum.masked_fill_(~self._masks[name], 0)
        self.past.append((number, kept, grown))


def update_steps(changing: Changing, length: Length) -> frozenset[int]:
    """Return the numbers of the steps at which a method changes its masks in a training of that length.

    Raises: PaiBenchError when there is none, or one outside of the training.
    """
    due = frozenset(changing.method.update_steps(length))
    if not due:
        raise PaiBenchError(
            f"{changing.name} would never change its masks in a training of {length.steps} steps",
            "lower its hyper-parameter `every` (distance between two updates), or train longer",
        )
    if not 1 <= min(due) <= max(due) <= length.steps:
        raise PaiBenchError(
            f"{changing.name} would change its masks in step {min(due) if min(due) < 1 else max(due)}",
            f"steps of this training are numbered from 1 to {length.steps}",
        )
    return due


def changed(masks: Mapping[str, Tensor], change: MaskChange) -> dict[str, Tensor]:
    """Return masks after a change, with exact counts; equal scores in the order of their position."""
    quotas = change.kept if isinstance(change.kept, Mapping) else None
    total = change.kept if isinstance(change.kept, int) else sum(change.kept.values())
    kept = to_masks(change.keep, masks, 0.0, total, quotas=quotas)
    if change.grow is None:
        return kept
    found = {}
    for name, mask in masks.items():
        dropped = int(mask.sum()) - int(kept[name].sum())
        grown = keep_exactly(change.grow[name].flatten(), ~kept[name].flatten(), 0.0, dropped)
        found[name] = kept[name] | grown.view_as(mask)
    return found


def _is_finite(change: MaskChange) -> bool:
    """Return True if all scores are finite; waits for the device once."""
    scores = [*change.keep.values(), *(change.grow or {}).values()]
    return bool(torch.stack([torch.isfinite(score).all() for score in scores]).all())
