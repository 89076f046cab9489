"""Iterative GraSP in the form of FORCE's authors: the squared gradient, round after round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pai_bench.scoring import Facts, Problem, one_of, register


@register("iterative-grasp", Facts("De Jorge et al. 2021", "gradient", "labels", "3 * rounds * batches", "release"))
@dataclass(frozen=True)
class IterativeGraSP:
    """g^2 of the pruned network in each of `rounds` rounds, g = dL/dw; what is pruned stays so. New batches each round.

    De Jorge et al. 2021 (arXiv 2006.09081), `GRASP-It` of the release: the weights with the largest gradients carry
    the gradient norm that GraSP preserves. (For GraSP's own score in several rounds write `grasp:rounds=10`.) Differs
    from the release, whose loss is minus the mean target logit, in the loss and in the exact count.
    `bn`: as for `snip`.
    """

    rounds: int = 60
    schedule: str = "exponential"
    bn: str = "train"
    added: ClassVar[tuple[str, ...]] = ("bn",)
    fresh: ClassVar[bool] = True
    costly: ClassVar[bool] = True
    invariant_to: ClassVar[tuple[str, ...]] = ("permutation", "sample-order", "loss-scale", "loss-sign")

    def __post_init__(self) -> None:
        one_of("iterative-grasp:bn", self.bn, ("train", "eval"))

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        problem.train_mode(self.bn)
        return {name: g.square() * problem.masks[name] for name, g in problem.gradient().items()}
