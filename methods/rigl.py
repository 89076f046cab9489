"""RigL: random masks whose smallest weights move to where the gradient is largest, during training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pai_bench.scoring import (
    Facts,
    Length,
    MaskChange,
    Moment,
    Problem,
    cosine,
    erk_quotas,
    more_than,
    random_scores,
    register,
    within_training,
)


@register("rigl", Facts("Evci et al. 2020", "dynamic", "training", "0", "release"))
@dataclass(frozen=True)
class RigL:
    """In each layer the smallest |w| are dropped, and as many of the largest |dL/dw| grow, during training.

    Evci et al. 2020 (arXiv 1911.11134), algorithm 1: training starts with the masks of `erk`. At every multiple of
    `every` steps before T = `stop` x steps, a layer of n weights drops int(n fraction/2 (1 + cos(pi t / T))) of them.
    That step trains no weight. Weights that grow start at zero without momentum; a dropped one that grows at once keeps
    both. `every` and `fraction` are the paper's, and `stop` is its 25,000 of 32,000 steps, rounded.

    Differences from the releases: rigl-torch leaves linear layers dense by default, and so misses the sparsity; the
    authors' optimizer spends an additional batch on each update, and draws noise that differs between processes.
    """

    every: int = 100
    fraction: float = 0.3
    stop: float = 0.75

    optional: ClassVar[bool] = True
    replaces_step: ClassVar[bool] = True

    def __post_init__(self) -> None:
        more_than("rigl:every", self.every, 0)
        more_than("rigl:fraction", self.fraction, 0)
        within_training("rigl:stop", self.stop)

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        return random_scores(problem)

    def quotas(self, problem: Problem) -> dict[str, int]:
        return erk_quotas(problem)

    def update_steps(self, length: Length) -> Sequence[int]:
        # The range excludes T, where the cosine is zero and nothing would be dropped.
        return range(self.every, round(self.stop * length.steps), self.every)

    def update_masks(self, moment: Moment) -> MaskChange:
        share = cosine(self.fraction, moment.step, round(self.stop * moment.length.steps))
        return MaskChange(
            keep={name: w.abs() for name, w in moment.weights.items()},
            kept={name: n - int(n * share) for name, n in moment.living().items()},
            grow={name: g.abs() for name, g in moment.gradients.items()},
        )
