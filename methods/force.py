"""FORCE: foresight connection sensitivity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pai_bench.scoring import Facts, Problem, one_of, register


@register("force", Facts("De Jorge et al. 2021", "gradient", "labels", "3 * rounds * batches", "release"))
@dataclass(frozen=True)
class FORCE:
    """|w g|, w the dense weight and g the gradient in the pruned network: what was pruned may come back.

    De Jorge et al. 2021 (arXiv 2006.09081), eq. 6 and algorithm 1, with new batches in every round; 60 rounds are the
    example of the authors' code, whose default is 10. Differs from that code in the loss (cross entropy, as in the
    paper; the code takes minus the mean target logit) and in keeping the exact count: where fewer scores than that
    are not zero, the code silently returns the dense network. `schedule`: "exponential" or "linear". `count`: "exact"
    keeps round(density N) weights after every round, "released" floor(density N) after all but the last. `bn`: as for
    `snip`. SNIP in several rounds in Synaptic-Flow's code, where pruned weights may come back too, is `force:bn=eval`.
    """

    rounds: int = 60
    schedule: str = "exponential"
    count: str = "exact"
    bn: str = "train"
    added: ClassVar[tuple[str, ...]] = ("count", "bn")
    fresh: ClassVar[bool] = True
    costly: ClassVar[bool] = True
    revives: ClassVar[bool] = True
    invariant_to: ClassVar[tuple[str, ...]] = (
        "permutation",
        "rescaling",
        "norm-rescaling",
        "sample-order",
        "loss-scale",
        "loss-sign",
    )

    def __post_init__(self) -> None:
        one_of("force:count", self.count, ("exact", "released"))
        one_of("force:bn", self.bn, ("train", "eval"))

    def kept_after(self, density: float, size: int) -> int:
        """The number of weights after each round but the last."""
        return int(size * density) if self.count == "released" else round(density * size)

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        problem.train_mode(self.bn)
        gradients = problem.gradient()
        # The dense weights, because those of the pruned network are zero where a weight may come back.
        return {name: (w * gradients[name]).abs() for name, w in problem.dense_weights.items()}
