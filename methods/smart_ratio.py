"""Random masks with smart ratios, and hybrid tickets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pai_bench.scoring import Facts, Problem, apportion, one_of, random_scores, register, within


@register("smart-ratio", Facts("Su et al. 2020", "random", "nothing", "0", "release"))
@dataclass(frozen=True)
class SmartRatio:
    """Random weights, convolutions ever sparser with depth, linear layers of density `linear`; or the largest weights.

    Su et al. 2020 (arXiv 2009.11094), section 4: of L layers the i-th has a density proportional to
    (L - i + 1)^2 + (L - i + 1), with `shape="vgg"` to that over i^2; what exceeds a layer goes to the next convolution.
    `hybrid=True` keeps the largest weights of each layer instead of random ones (hybrid tickets, section 5).

    Differs from the release in the exact count (its layers are rounded down), in that every full convolution, not only
    the first ones in a row, passes its excess on, and in that linear layers take at most half of the budget as long as
    the convolutions have room for the other half; the release computes negative sizes for small convolutional parts.
    """

    shape: str = "resnet"
    linear: float = 0.3
    hybrid: bool = False

    controls: ClassVar[bool] = False
    optional: ClassVar[bool] = True
    may_tie: ClassVar[bool] = True  # the hybrid, as `magnitude`

    def __post_init__(self) -> None:
        one_of("smart-ratio:shape", self.shape, ("resnet", "vgg"))

    @property
    def invariant_to(self) -> tuple[str, ...]:
        """The hybrid ranks the absolute values of the weights; other masks do not depend on them."""
        others = ("permutation",) if self.hybrid else ("rescaling", "norm-rescaling", "weights")
        return ("weight-signs", *others)

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        return {name: w.abs() for name, w in problem.weights.items()} if self.hybrid else random_scores(problem)

    def quotas(self, problem: Problem) -> dict[str, int]:
        sizes = {name: w.numel() for name, w in problem.weights.items()}
        matrices = [name for name, w in problem.weights.items() if w.ndim == 2]
        convolutions = {name: n for name, n in sizes.items() if name not in matrices}
        size = sum(sizes[name] for name in matrices)
        least = problem.kept - sum(convolutions.values())
        # At least what the convolutions have no room for.
        of_matrices = max(least, min(self.linear * size, problem.kept / 2))
        shares = {name: sizes[name] * of_matrices / size for name in matrices}
        raw = {}
        for position, name in enumerate(sizes, start=1):
            rank = len(sizes) - position + 1
            raw[name] = (rank**2 + rank) / (1 if self.shape == "resnet" else position**2) * sizes[name]
        scale = (problem.kept - of_matrices) / max(sum(raw[name] for name in convolutions), 1)
        excess = 0.0
        for name, n in convolutions.items():
            share = scale * raw[name] + excess
            shares[name] = min(share, n)
            excess = share - shares[name]
        for name in reversed(convolutions):  # none left behind the last one: what still exceeds goes backwards
            more = min(excess, sizes[name] - shares[name])
            shares[name], excess = shares[name] + more, excess - more
        return apportion(within({name: shares[name] for name in sizes}, problem.living(), problem.kept), problem.kept)
