"""Magnitude pruning after training: once with fine-tuning, or in cycles with rewinding of weights or learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pai_bench.scoring import (
    Facts,
    MaskChange,
    Moment,
    Problem,
    Rewinding,
    geometric,
    more_than,
    register,
    within_training,
)


class _AfterTraining:
    """Common part of the methods: all weights at the start, and the largest |w| of the network after each training."""

    costly: ClassVar[bool] = True
    starts_dense: ClassVar[bool] = True

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        return {name: w.abs() for name, w in problem.weights.items()}

    def update_masks(self, moment: Moment) -> MaskChange:
        return MaskChange({name: w.abs() for name, w in moment.weights.items()}, geometric(moment))


@register("after-training", Facts("Han et al. 2015", "after training", "training", "0", "formula"))
@dataclass(frozen=True)
class AfterTraining(_AfterTraining):
    """The largest |w| of the trained network, which then trains on for the last epochs of the recipe once more.

    Han et al. 2015 (arXiv 1506.02626), one-shot: `tuning` is the share of the epochs that are repeated, with their
    learning rates (at a step schedule the last and lowest one).
    """

    tuning: float = 0.25

    def __post_init__(self) -> None:
        within_training("after-training:tuning", self.tuning)

    def rewinding(self, epochs: int, density: float) -> Rewinding:
        return Rewinding(1, epochs - max(1, round(self.tuning * epochs)), False)


@register("ltr", Facts("Frankle et al. 2020", "after training", "training", "0", "release"))
@dataclass(frozen=True)
class LTR(_AfterTraining):
    """The largest |w| after each of several trainings, which all start from the weights of an early epoch.

    Frankle et al. 2020 (arXiv 1912.05671): iterative magnitude pruning that rewinds the weights to the epoch after the
    share `early` of the recipe (their 2,000 of 63,000 steps for ResNet-20). All cycles divide the number of weights by
    one factor; `cycles=0` makes as many as the removal of `fraction` of the weights in each needs. Differs from
    open_lth in the exact count: its threshold removes one weight more than asked in each cycle.
    """

    cycles: int = 0
    fraction: float = 0.2
    early: float = 0.03

    rewinds: ClassVar[bool] = True

    def __post_init__(self) -> None:
        more_than("ltr:cycles", self.cycles, -1)
        within_training("ltr:fraction", self.fraction)
        within_training("ltr:early", self.early)

    def rewinding(self, epochs: int, density: float) -> Rewinding:
        # The small term keeps a quotient that rounding has put just above a whole number from adding a cycle.
        needed = math.ceil(math.log(density) / math.log(1 - self.fraction) - 1e-9) if self.fraction < 1 else 1
        return Rewinding(self.cycles or max(1, needed), min(math.ceil(self.early * epochs), epochs - 1), self.rewinds)


@register("lr-rewinding", Facts("Renda et al. 2020", "after training", "training", "0", "release"))
@dataclass(frozen=True)
class LearningRateRewinding(LTR):
    """Variant of `ltr`: only the learning rate returns to the early epoch. Renda et al. 2020 (arXiv 2003.02389)."""

    rewinds: ClassVar[bool] = False
