"""Interface of methods that change their masks during training.

Such a method is a scorer whose masks are those that training starts with (all weights with `starts_dense`). It has two
more functions, see `ChangesMasks`. The harness calls them, keeps exact counts, draws seeds and saves the state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor

from pai_bench.errors import PaiBenchError


@dataclass(frozen=True)
class Length:
    """Length of a training, and of one of its complete epochs, in steps."""

    steps: int
    epoch: int


@dataclass(frozen=True)
class Rewinding:
    """Cycles of a method that trains, prunes at the end, and trains again from an epoch of the recipe on."""

    cycles: int
    """Number of times that the network is pruned and trained again."""
    epoch: int
    """Epoch of the recipe (from 0) with which each repetition begins; the learning rate is the one of that epoch."""
    weights: bool
    """True if weights and running statistics, too, return to their values at the beginning of that epoch."""


@dataclass(frozen=True)
class Moment:
    """State of a training at a mask update; tensors by parameter name, the caller's own: not to be changed."""

    step: int
    """Number of this step, from 1."""
    length: Length
    weights: Mapping[str, Tensor]
    """Prunable weights, pruned ones at zero. After this step's update of the weights, unless `replaces_step`."""
    gradients: Mapping[str, Tensor]
    """dL/dw of this step's batch for all prunable weights, pruned ones included; without weight decay. Empty between
    cycles (see `Rewinding`)."""
    masks: Mapping[str, Tensor]
    """Bool, True = kept."""
    kept: int
    """Number of weights to keep at the end of the training."""
    generator: torch.Generator
    """Source of random draws; lives on the CPU, and depends on the seed and the step only."""
    progress: float = 1.0
    """Number of this update divided by the number of all updates of the training."""

    def living(self) -> dict[str, int]:
        """Return the number of kept weights by parameter name."""
        return {name: int(mask.sum()) for name, mask in self.masks.items()}


@dataclass(frozen=True)
class MaskChange:
    """Change of the masks: the lowest scores are dropped, and as many weights grow in each layer if `grow` is given.

    Dropped weights may grow at once; then they keep their value. Others grow at zero, without momentum.
    """

    keep: Mapping[str, Tensor]
    """Scores of kept weights; the highest stay."""
    kept: Mapping[str, int] | int
    """Number of weights that stay: of each layer, or of the whole network."""
    grow: Mapping[str, Tensor] | None = None
    """Scores of weights to grow; the highest grow."""


class ChangesMasks(Protocol):
    """Functions of a method that changes its masks during training.

    The class may declare `replaces_step = True`: no weight is trained in a step with a mask update. By default the
    masks change after the weights do. A class with `rewinding(epochs, density) -> Rewinding` needs no `update_steps`:
    its masks change at the end of each cycle, after the evaluation.
    """

    def update_steps(self, length: Length) -> Sequence[int]:
        """Return the numbers (from 1) of the steps at which masks change, in ascending order."""
        ...

    def update_masks(self, moment: Moment) -> MaskChange:
        """Return the change of the masks at one of these steps."""
        ...


def changes_masks(method: Any) -> TypeGuard[ChangesMasks]:
    """Return True for a method, or the class of one, that changes its masks during training.

    A method that searches its masks before training (see `searching`) changes them in the search alone.
    """
    return hasattr(method, "update_masks") and not hasattr(method, "search")


def within_training(option: str, fraction: float) -> None:
    """Check that an option such as "rigl:stop" is a fraction of the training, more than 0 and at most 1.

    Raises: PaiBenchError for another value.
    """
    if not 0 < fraction <= 1:
        raise PaiBenchError(f"{option} must be more than 0 and at most 1, not {fraction:g}", "give another fraction")


def cosine(fraction: float, step: int, end: int) -> float:
    """Return fraction/2 (1 + cos(pi step / end)): Evci et al. 2020 (arXiv 1911.11134), section 3."""
    return fraction / 2 * (1 + math.cos(math.pi * step / end))


def cubic(start: int, final: int, progress: float) -> int:
    """Return the number of kept weights final + (start - final) (1 - progress)^3, rounded; `progress` from 0 to 1.

    Zhu and Gupta 2017 (arXiv 1710.01878), eq. 1, in numbers of weights.
    """
    return final + round((start - final) * (1 - progress) ** 3)


def geometric(moment: Moment) -> int:
    """Return the number of kept weights at `moment.progress` of a geometric fall from all weights to `moment.kept`."""
    size = sum(mask.numel() for mask in moment.masks.values())
    # At the end, a power could round to another number than the one asked for.
    return round(size * (moment.kept / size) ** moment.progress) if moment.progress < 1 else moment.kept
