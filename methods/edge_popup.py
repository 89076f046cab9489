"""Edge-Popup: a subnetwork of the initial weights, found by training a score for each of them."""

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
    apportion,
    more_than,
    register,
    straight_through,
    uniform,
)


@register("edge-popup", Facts("Ramanujan et al. 2020", "search", "training", "", "release"))
@dataclass(frozen=True)
class EdgePopup:
    """Scores are trained while the weights stay; each layer computes with its weights of the highest |score|.

    Ramanujan et al. 2020 (arXiv 1911.13299): dL/ds = sign(s) dL/dmask for all scores, which start uniform in
    ±1/sqrt(fan-in), with SGD and a cosine schedule (`lr`, `momentum` and `weight_decay` are those of their CIFAR
    configurations). All layers have the same density. `epochs=0` searches for as many epochs as the training has.

    Differences from the release: counts are exact and ties are in the order of position; weights are those of the
    recipe and are trained afterwards, where the paper keeps signed constants.
    """

    epochs: int = 0
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4

    costly: ClassVar[bool] = True
    may_tie: ClassVar[bool] = True

    def __post_init__(self) -> None:
        more_than("edge-popup:epochs", self.epochs, -1)
        more_than("edge-popup:lr", self.lr, 0)

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        generator = problem.generator
        draws = {name: torch.rand(w.shape, generator=generator, dtype=w.dtype) for name, w in problem.weights.items()}
        return {name: ((2 * draws[name] - 1) / w[0].numel() ** 0.5).to(w.device) for name, w in problem.weights.items()}

    def search(self) -> Search:
        return Search(self.epochs, self.lr, self.momentum, self.weight_decay)

    def subnetwork(self, scores: Mapping[str, Tensor], kept: int) -> dict[str, Tensor]:
        magnitudes = {name: s.abs() for name, s in scores.items()}
        counts = self.counts(magnitudes, kept)
        return {name: straight_through(_highest(s.detach(), counts[name]), s) for name, s in magnitudes.items()}

    def update_steps(self, length: Length) -> Sequence[int]:
        return [length.steps]

    def update_masks(self, moment: Moment) -> MaskChange:
        scores = {name: s.abs() for name, s in moment.weights.items()}
        return MaskChange(scores, self.counts(scores, moment.kept))

    def counts(self, scores: Mapping[str, Tensor], kept: int) -> dict[str, int]:
        """Return the number of weights that each layer keeps."""
        sizes = {name: s.numel() for name, s in scores.items()}
        return apportion(uniform(sizes, sizes, kept), kept)


def _highest(scores: Tensor, count: int) -> Tensor:
    chosen = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    # Stable, so that ties are decided by position on every device.
    order = scores.flatten().argsort(descending=True, stable=True)
    return chosen.index_fill_(0, order[:count], True).view_as(scores)
