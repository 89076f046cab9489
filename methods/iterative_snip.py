"""Iterative SNIP: connection sensitivity, round after round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pai_bench.scoring import Facts, Problem, one_of, register


@register("iterative-snip", Facts("De Jorge et al. 2021", "gradient", "labels", "3 * rounds * batches", "release"))
@dataclass(frozen=True)
class IterativeSNIP:
    """|w dL/dw| of the pruned network in each of `rounds` rounds; what is pruned stays so. New batches every round.

    De Jorge et al. 2021 (arXiv 2006.09081), section 4; 60 rounds are the example of the authors' code, whose default
    is 10. Differs from that code, whose loss is minus the mean target logit instead of the cross entropy that the
    paper names, in the loss and in the exact count. `schedule` of the density: "exponential" or "linear". `count`:
    "exact" keeps round(density N) weights after every round, "released" floor(density N) after all but the last. `bn`:
    statistics of the scoring batch ("train") or the running ones ("eval"), as for `snip`.
    """

    rounds: int = 60
    schedule: str = "exponential"
    count: str = "exact"
    bn: str = "train"
    added: ClassVar[tuple[str, ...]] = ("count", "bn")
    fresh: ClassVar[bool] = True
    costly: ClassVar[bool] = True
    invariant_to: ClassVar[tuple[str, ...]] = (
        "permutation",
        "rescaling",
        "norm-rescaling",
        "sample-order",
        "loss-scale",
        "loss-sign",
    )

    def __post_init__(self) -> None:
        one_of("iterative-snip:count", self.count, ("exact", "released"))
        one_of("iterative-snip:bn", self.bn, ("train", "eval"))

    def kept_after(self, density: float, size: int) -> int:
        """The number of weights after each round but the last."""
        return int(size * density) if self.count == "released" else round(density * size)

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        problem.train_mode(self.bn)
        gradients = problem.gradient()
        return {name: (w * gradients[name]).abs() for name, w in problem.weights.items()}
