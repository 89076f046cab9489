"""Baselines of every comparison: random masks with three layer-wise budgets, magnitude, and no pruning at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pai_bench.scoring import Facts, Problem, apportion, erk_quotas, random_scores, register, uniform


@register("dense", Facts("", "reference", "nothing", "0"))
@dataclass(frozen=True)
class Dense:
    """The reference: nothing is pruned at any sparsity."""

    prunes: ClassVar[bool] = False
    invariant_to: ClassVar[tuple[str, ...]] = ("permutation", "rescaling", "norm-rescaling", "weight-signs", "weights")

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        return {name: torch.ones_like(w) for name, w in problem.weights.items()}


@register("random", Facts("Liu et al. 2022", "random", "nothing", "0", "formula"))
@dataclass(frozen=True)
class Random:
    """Every prunable weight of the network is equally likely to stay; layer densities are equal in expectation only."""

    controls: ClassVar[bool] = False
    invariant_to: ClassVar[tuple[str, ...]] = ("rescaling", "norm-rescaling", "weight-signs", "weights")

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        return random_scores(problem)


@register("uniform", Facts("Liu et al. 2022", "random", "nothing", "0", "formula"))
@dataclass(frozen=True)
class Uniform:
    """Random weights, the same density in every layer (to the nearest weight)."""

    controls: ClassVar[bool] = False
    invariant_to: ClassVar[tuple[str, ...]] = ("rescaling", "norm-rescaling", "weight-signs", "weights")

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        return random_scores(problem)

    def quotas(self, problem: Problem) -> dict[str, int]:
        sizes = {name: w.numel() for name, w in problem.weights.items()}
        return apportion(uniform(sizes, problem.living(), problem.kept), problem.kept)


@register("erk", Facts("Evci et al. 2020", "random", "nothing", "0", "formula"))
@dataclass(frozen=True)
class ERK:
    """Random weights, layer densities of the Erdős–Rényi kernel.

    Evci et al. 2020 (arXiv 1911.11134): density of a layer proportional to (C_in + C_out + k_h + k_w) /
    (C_in C_out k_h k_w). A layer that would exceed density 1 is made dense and the rest is solved again, so that
    the budget is met exactly; TurboPrune's release clamps without solving again and is up to 16 % too sparse.
    """

    controls: ClassVar[bool] = False
    invariant_to: ClassVar[tuple[str, ...]] = ("rescaling", "norm-rescaling", "weight-signs", "weights")

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        return random_scores(problem)

    def quotas(self, problem: Problem) -> dict[str, int]:
        return erk_quotas(problem)


@register("magnitude", Facts("Han et al. 2015", "magnitude", "nothing", "0", "release"))
@dataclass(frozen=True)
class Magnitude:
    """|w|, ranked over the whole network. At initialisation this mostly ranks layers by their scale."""

    may_tie: ClassVar[bool] = True  # of equal weights, zeros above all, one is as good as another
    invariant_to: ClassVar[tuple[str, ...]] = ("permutation", "weight-signs")

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        return {name: w.abs() for name, w in problem.weights.items()}
