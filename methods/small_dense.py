"""Smaller dense networks: the reference that spends its weights on nothing but narrower layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pai_bench.scoring import Facts, Problem, one_of, register


@register("small-dense", Facts("", "reference", "nothing", "0"))
@dataclass(frozen=True)
class SmallDense:
    """A dense network with narrower layers that has the density times the size of the network.

    All hidden layers are multiplied by one width, the one whose size is closest: the number of prunable weights
    (`equal=params`), or the FLOPs of a forward pass (`equal=flops`). "dense:params=0.1" and "dense:flops=0.1" are this
    method at a sparsity of 0.9.
    """

    equal: str = "params"

    optional: ClassVar[bool] = True
    prunes: ClassVar[bool] = False
    narrows: ClassVar[bool] = True

    def __post_init__(self) -> None:
        one_of("small-dense:equal", self.equal, ("params", "flops"))

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        return {name: torch.ones_like(w) for name, w in problem.weights.items()}
