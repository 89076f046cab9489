"""Masks that meet a number of weights, whatever their granularity and whichever weights count."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from pai_bench.cells import exact_sparsity, kept_count
from pai_bench.errors import PaiBenchError
from pai_bench.pruning.effective import EffectivePaths
from pai_bench.pruning.effective_target import Pruned, approach, meet
from pai_bench.pruning.granularity import Units, round_masks, units_of
from pai_bench.pruning.selection import Select, restarted
from pai_bench.scoring.problem import round_densities


class Prune(Protocol):
    """A function that makes masks with `kept` weights, by units, or with `counts` weights in the layers."""

    def __call__(self, kept: int, units: Units | None = None, counts: Mapping[str, int] | None = None, /) -> Pruned: ...


@dataclass(frozen=True)
class Goal:
    """Options of the masks besides their number of weights."""

    effective: bool = False
    """Count only weights on a path from the input to the output."""
    granularity: str = "weight"
    """Units that are kept or pruned together (see `Units`)."""
    by_weight: bool = False
    """Keep single weights, as many in each layer as the masks of that granularity keep."""


PLAIN = Goal()
"""Exactly as many single weights as asked for."""


def masks_for(
    prune: Prune,
    target: int,
    most: int,
    units: Units | None,
    paths: Callable[[], EffectivePaths],
    goal: Goal,
    near: float = 0.0,
) -> dict[str, Tensor]:
    """Return masks with `target` of at most `most` weights: exactly, or to within one of the `units`.

    The search for effective weights ends where no more than the fraction `near` of them is missing.

    Raises: PaiBenchError where there are no such masks.
    """
    if units is None:
        return meet(prune, paths(), target, most, near) if goal.effective else dict(prune(target).masks)
    if not goal.effective:
        masks = dict(prune(target, units).masks)
        units.check(masks, target)
    else:
        masks = approach(lambda count: dict(prune(count, units).masks), paths(), target, most, near)
    if not goal.by_weight:
        return masks
    counts = {name: int(mask.sum()) for name, mask in masks.items()}
    return dict(prune(sum(counts.values()), None, counts).masks)


def masks_from_scores(
    scores: Mapping[str, Tensor],
    sparsity: float,
    select: Select,
    goal: Goal,
    model: nn.Module,
    shape: tuple[int, ...],
) -> dict[str, Tensor]:
    """Return the masks of a single-shot method at any sparsity, from its one set of scores.

    model: the network without masks; shape: of an input, without the batch dimension.
    """
    full = {name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()}
    size = sum(score.numel() for score in scores.values())
    target = kept_count(sparsity, size)
    units = units_of(goal.granularity, model, scores, torch.zeros(1, *shape))

    def prune(kept: int, units: Units | None = None, counts: Mapping[str, int] | None = None, /) -> Pruned:
        density = kept / size if goal.effective else float(1 - exact_sparsity(sparsity))
        masks = round_masks(units, scores, full, density, kept, quotas=counts, select=restarted(select))
        return Pruned(masks, scores)

    return masks_for(prune, target, size, units, lambda: EffectivePaths(model, list(scores), shape), goal)


def check_target(target: int, living: int, size: int, sparsity: float) -> None:
    """Check that masks on the model keep as many weights as asked for.

    Raises: PaiBenchError if `target` is more than the `living` of its `size` weights.
    """
    if target > living:
        raise PaiBenchError(
            f"the masks on the model keep {living} of {size} prunable weights, fewer than the {target} of sparsity"
            f" {sparsity:g}",
            "ask for a higher sparsity, or call pai_bench.remove_masks first and restore the weights",
        )


def counts_after(
    counts: Mapping[str, int], before: Mapping[str, Tensor], position: int, rounds: int, schedule: str
) -> dict[str, int]:
    """Return the numbers of weights of the layers after a round, on the way from the masks `before` to `counts`."""
    found = {}
    for name, count in counts.items():
        size, living = before[name].numel(), int(before[name].sum())
        # `living` is 0 only where `count` is; the exponential schedule would then divide by zero.
        share = round_densities(count / size, rounds, schedule, living / size)[position - 1] if count else 0.0
        found[name] = count if position == rounds else max(count, min(round(share * size), living))
    return found
