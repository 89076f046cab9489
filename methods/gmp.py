"""GMP: gradual magnitude pruning during training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pai_bench.errors import PaiBenchError
from pai_bench.scoring import (
    Facts,
    Length,
    MaskChange,
    Moment,
    Problem,
    apportion,
    cubic,
    more_than,
    register,
    uniform,
    within_training,
)


@register("gmp", Facts("Zhu and Gupta 2017", "dynamic", "training", "0", "release"))
@dataclass(frozen=True)
class GMP:
    """In each layer the smallest |w| are removed during training, to a sparsity that rises cubically.

    Zhu and Gupta 2017 (arXiv 1710.01878), eq. 1: all weights are there at the start. After every `every` steps from
    `start` x steps on, all layers have sparsity s (1 - (1 - p)^3), p from 0 to 1 at the last update, which is at most
    `every` steps before `stop` x steps. `every` is one of the paper's values (100 to 1,000 steps).

    Differences from ITOP's release: its denominator is one epoch too long, so that it never reaches s (0.892 instead of
    0.9 in five epochs), and it rounds every layer down. Here the count is exact after every update.
    """

    every: int = 100
    start: float = 0.0
    stop: float = 0.75

    optional: ClassVar[bool] = True
    starts_dense: ClassVar[bool] = True

    def __post_init__(self) -> None:
        more_than("gmp:every", self.every, 0)
        within_training("gmp:stop", self.stop)
        if not 0 <= self.start < self.stop:
            raise PaiBenchError(f"gmp:start must be from 0 to below stop, not {self.start:g}", "give another fraction")

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        return {name: w.abs() for name, w in problem.weights.items()}

    def update_steps(self, length: Length) -> Sequence[int]:
        first, last = round(self.start * length.steps), round(self.stop * length.steps)
        return range(first + self.every, last + 1, self.every)

    def update_masks(self, moment: Moment) -> MaskChange:
        sizes = {name: mask.numel() for name, mask in moment.masks.items()}
        kept = cubic(sum(sizes.values()), moment.kept, moment.progress)
        return MaskChange(
            keep={name: w.abs() for name, w in moment.weights.items()},
            # Rooms are the living weights, because nothing grows back.
            kept=apportion(uniform(sizes, moment.living(), kept), kept),
        )
