"""SET: random masks whose smallest weights move to random places, during training."""

from __future__ import annotations

from collections.abc import Sequence
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
    cosine,
    erk_quotas,
    more_than,
    one_of,
    random_scores,
    register,
    within_training,
)


@register("set", Facts("Mocanu et al. 2018", "dynamic", "training", "0", "release"))
@dataclass(frozen=True)
class SET:
    """In each layer the smallest |w| are dropped, and as many weights grow at random, during training.

    Mocanu et al. 2018 (arXiv 1707.04780): sparse evolutionary training, with the schedule in which Evci et al. 2020
    (arXiv 1911.11134) compare it: masks of `erk` at the start, and after every multiple of `every` steps before
    T = `stop` x steps, a layer of n weights drops int(n fraction/2 (1 + cos(pi t / T))) of them. With
    `drops=constant` it drops int(n fraction), as Mocanu et al. do once an epoch until the end (stop=1).
    Weights grow at zero, not at random values, and may be those that were just dropped.

    Differences from ITOP's release: its growth is a coin toss for each weight, which loses weights from update to
    update, and its rule `death=SET` keeps the smallest negative weights.
    """

    every: int = 100
    fraction: float = 0.3
    stop: float = 0.75
    drops: str = "cosine"

    optional: ClassVar[bool] = True

    def __post_init__(self) -> None:
        more_than("set:every", self.every, 0)
        more_than("set:fraction", self.fraction, 0)
        within_training("set:stop", self.stop)
        one_of("set:drops", self.drops, ("cosine", "constant"))

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        return random_scores(problem)

    def quotas(self, problem: Problem) -> dict[str, int]:
        return erk_quotas(problem)

    def update_steps(self, length: Length) -> Sequence[int]:
        return range(self.every, round(self.stop * length.steps), self.every)

    def update_masks(self, moment: Moment) -> MaskChange:
        end = round(self.stop * moment.length.steps)
        share = cosine(self.fraction, moment.step, end) if self.drops == "cosine" else self.fraction
        # Drawn on the CPU, so that masks do not depend on the device.
        draws = {name: torch.rand(w.shape, generator=moment.generator) for name, w in moment.weights.items()}
        return MaskChange(
            keep={name: w.abs() for name, w in moment.weights.items()},
            kept={name: n - int(n * share) for name, n in moment.living().items()},
            grow={name: draw.to(moment.weights[name].device) for name, draw in draws.items()},
        )
