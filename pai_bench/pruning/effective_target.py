"""Masks that keep an exact number of effective weights: weights on a path from the input to the output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pai_bench.errors import PaiBenchError
from pai_bench.pruning.effective import EffectivePaths
from pai_bench.pruning.selection import keep_exactly

Masks = dict[str, Tensor]

EVALUATIONS = 200
"""Limit of the masks that the search for one target counts."""


@dataclass(frozen=True)
class Pruned:
    """Masks, and the scores that ranked the weights in the last round; by parameter name."""

    masks: Mapping[str, Tensor]
    scores: Mapping[str, Tensor]


def meet(prune: Callable[[int], Pruned], paths: EffectivePaths, target: int, most: int, near: float) -> Masks:
    """Return masks with exactly `target` effective weights.

    `prune(count)` makes masks that keep `count` weights, at most `most`. The count rises until `target` weights are
    effective. Where the number of effective weights jumps over the target from one count to the next, weights between
    effective units are added to the lower mask, highest scores first: each of them adds one. The search ends earlier
    where no more than the fraction `near` of the target is missing (for methods that score in rounds).

    Raises: PaiBenchError where no such mask is found.
    """
    count, above = target, None
    low: tuple[int, Pruned, Masks, int] | None = None
    while True:
        pruned = prune(count)
        effective = paths.masks(pruned.masks)
        number = _count(effective)
        if number == target:
            return dict(pruned.masks)
        if number > target:
            above = count, pruned, effective
        else:
            low = count, pruned, effective, number
        if low is None:
            break
        if above is None and low[0] == most:
            raise PaiBenchError(
                f"only {low[3]} of all {most} weights are on a path from input to output, fewer than {target}",
                "ask for a higher sparsity",
            )
        if low[3] and target - low[3] <= near * target and (found := _filled(*low[1:3], paths, target)) is not None:
            return found
        if above is None:
            # An eighth more at least: at high sparsities most added weights lie on no path.
            count = min(most, low[0] + max(target - low[3], low[0] // 8, 1))
        elif above[0] - low[0] > 1:
            count = (low[0] + above[0]) // 2
        else:
            break
    if low is not None and (found := _filled(*low[1:3], paths, target)) is not None:
        return found
    if above is not None and (found := _thinned(*above[1:], paths, target)) is not None:
        return found
    jump = (low[3] if low is not None else 0, _count(above[2]) if above is not None else 0)
    raise PaiBenchError(
        f"no mask with {target} weights on a path from input to output was found: one more kept weight raises their"
        f" number from {jump[0]} to {jump[1]}",
        "ask for another sparsity, or score with a method that keeps paths (synflow, phew)",
    )


def approach(prune: Callable[[int], Masks], paths: EffectivePaths, target: int, most: int, near: float) -> Masks:
    """Return masks of whole units with as many effective weights as possible, at most `target`.

    `prune(count)` makes masks that keep about `count` weights, at most `most`. The search ends earlier where no more
    than the fraction `near` of the target is missing.
    """
    low, high, best = target, most + 1, prune(target)
    while high - low > 1:
        middle = min(2 * low, most) if high > most else (low + high) // 2
        masks = prune(middle)
        number = _count(paths.masks(masks))
        low, high, best = (middle, high, masks) if number <= target else (low, middle, best)
        if number <= target and target - number <= near * target:
            break
    if (number := _count(paths.masks(best))) > target:
        raise PaiBenchError(
            f"the smallest masks of this granularity keep {number} weights on a path from input to output,"
            f" more than {target}",
            "ask for a lower sparsity",
        )
    return best


def _count(masks: Mapping[str, Tensor]) -> int:
    return sum(int(mask.sum()) for mask in masks.values())


def _flat(tensors: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors.values()])


def _like(flat: Tensor, masks: Mapping[str, Tensor]) -> Masks:
    parts = torch.split(flat, [mask.numel() for mask in masks.values()])
    return {name: part.view_as(mask) for (name, mask), part in zip(masks.items(), parts, strict=True)}


def _filled(pruned: Pruned, effective: Masks, paths: EffectivePaths, target: int) -> Masks | None:
    """Add the highest-scored weights between effective units until `target` are effective; None if too few exist."""
    missing = target - _count(effective)
    candidates = _flat(paths.reached(effective)) & ~_flat(pruned.masks)
    if int(candidates.sum()) < missing:
        return None
    # A weight between effective units completes no other path, so that each one adds exactly itself.
    added = keep_exactly(_flat(pruned.scores), candidates, 0.0, missing)
    masks = _like(_flat(pruned.masks) | added, pruned.masks)
    return masks if _count(paths.masks(masks)) == target else None


def _thinned(pruned: Pruned, effective: Masks, paths: EffectivePaths, target: int) -> Masks | None:
    """Remove the lowest-scored effective weights, but none without which too few are left; None if it fails."""
    scores = _flat(pruned.scores)
    fixed = torch.zeros_like(_flat(effective))
    for _ in range(EVALUATIONS // 10):
        if (surplus := _count(effective) - target) == 0:
            return effective
        free = (_flat(effective) & ~fixed).nonzero().squeeze(1)
        order = free[scores[free].argsort(stable=True)][:surplus]
        low, high = 0, len(order)  # the largest number of removals that leaves enough
        while low < high:
            middle = (low + high + 1) // 2
            left = _flat(effective).index_fill(0, order[:middle], False)
            enough = _count(paths.masks(_like(left, effective))) >= target
            low, high = (middle, high) if enough else (low, middle - 1)
        effective = paths.masks(_like(_flat(effective).index_fill(0, order[:low], False), effective))
        if low < len(order):
            # Without this weight too few would be left: it stays, and the search continues with the others.
            fixed[order[low]] = True
        elif not len(order):
            return None
    return effective if _count(effective) == target else None
