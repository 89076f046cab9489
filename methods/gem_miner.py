"""Gem-Miner: scores of the initial weights are trained between 0 and 1 and pruned in rounds, before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pai_bench.scoring import (
    Facts,
    Length,
    MaskChange,
    Moment,
    Problem,
    Search,
    geometric,
    more_than,
    register,
    straight_through,
)


@register("gem-miner", Facts("Sreenivasan et al. 2022", "search", "training", "", "release"))
@dataclass(frozen=True)
class GemMiner:
    """Scores between 0 and 1 are trained while the weights stay; weights with scores above 1/2 compute, in rounds.

    Sreenivasan et al. 2022 (Rare Gems, arXiv 2202.12002): dL/ds = dL/dmask, plus `penalty` times the sum of s² in the
    loss; scores start uniform in [0, 1] and are clamped to it before each step. After epochs `every` + 1,
    2 `every` + 1, …, the weights with the lowest scores of the network are pruned, so that the density falls
    geometrically. `lr`, `momentum`, `penalty` and `every` are those of the released configurations, which search for
    150 epochs; `epochs=0` searches for as many epochs as the training has.

    Differences from the release: counts are exact and ties are in the order of position, where the release removes all
    tied scores and rounds up; the ticket is the set of weights that were not pruned ("unflag_before_finetune"); weights
    are those of the recipe, not signed constants.
    """

    epochs: int = 0
    every: int = 5
    lr: float = 0.1
    momentum: float = 0.9
    penalty: float = 1e-4

    costly: ClassVar[bool] = True
    may_tie: ClassVar[bool] = True

    def __post_init__(self) -> None:
        more_than("gem-miner:epochs", self.epochs, -1)
        more_than("gem-miner:every", self.every, 0)
        more_than("gem-miner:lr", self.lr, 0)

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        generator = problem.generator
        return {
            name: torch.rand(w.shape, generator=generator, dtype=w.dtype).to(w.device)
            for name, w in problem.weights.items()
        }

    def search(self) -> Search:
        return Search(self.epochs, self.lr, self.momentum, 2 * self.penalty)  # d/ds of penalty s² is 2 penalty s

    def project(self, scores: Tensor) -> None:
        scores.clamp_(0, 1)

    def subnetwork(self, scores: Mapping[str, Tensor], kept: int) -> dict[str, Tensor]:
        return {name: straight_through(s.detach() > 0.5, s) for name, s in scores.items()}

    def update_steps(self, length: Length) -> Sequence[int]:
        return range((self.every + 1) * length.epoch, length.steps + 1, self.every * length.epoch)

    def update_masks(self, moment: Moment) -> MaskChange:
        # The last SGD step may have moved scores beyond the interval, which `project` clamps before a step only.
        return MaskChange({name: s.clamp(0, 1) for name, s in moment.weights.items()}, geometric(moment))
