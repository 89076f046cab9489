"""SNIP: connection sensitivity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pai_bench.scoring import Facts, Problem, one_of, register


@register("snip", Facts("Lee et al. 2019", "gradient", "labels", "3 * batches", "release"))
@dataclass(frozen=True)
class SNIP:
    """|w dL/dw|, L the mean loss over all scoring samples. Lee et al. 2019 (arXiv 1810.02340), eq. 4.

    Scores the weights that are then trained (the releases score a second draw), no biases, without the
    normalisation by the sum, which does not change the ranking. `bn`: "train" normalises with the statistics of
    the scoring batch, as training does; "eval" with the running ones, as the TensorFlow release and Synaptic-Flow.
    """

    bn: str = "train"

    invariant_to: ClassVar[tuple[str, ...]] = (
        "permutation",
        "rescaling",
        "norm-rescaling",
        "sample-order",
        "loss-scale",
        "loss-sign",
    )

    def __post_init__(self) -> None:
        one_of("snip:bn", self.bn, ("train", "eval"))

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        problem.train_mode(self.bn)
        # The derivative by a mask factor c at c = 1 is w dL/dw, so that no masks are needed.
        gradients = problem.gradient()
        return {name: (w * gradients[name]).abs() for name, w in problem.weights.items()}
