"""Detection of scores that are rounding errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

SHARE = 1e-3
"""Smallest fraction of the weights with suspiciously low scores that leads to a second scoring."""
CHANGE = 0.1
"""Smallest relative change of a score that is a rounding error. Other scores change as little as the weights do."""


def noise_floor(scores: Mapping[str, Tensor], again: Callable[[float], Mapping[str, Tensor]]) -> float:
    """Return the magnitude up to which scores are rounding errors; 0.0 where none is.

    Layers whose gradients cancel (instance norm before a global average, a softmax at the end) get scores that would be
    0 in exact arithmetic. The weights are scored again only if the highest score is below 1e-12 (float32: 1e-6), or if
    more than SHARE of the scores are below 1e-12 (float32: 1e-9) of the highest, without being 0. `again` scores the
    weights after relative changes of the given size. No verdict is made on scores that differ without any change.
    """
    flat = _flat(scores)
    if flat.is_meta:  # without values
        return 0.0
    # The thresholds differ because float32 has a rounding error of 6e-8, and float64 one of 1e-16.
    double = flat.dtype == torch.float64
    sizes = flat.abs()
    highest = float(sizes.max())
    # Scores below this share of the largest one are suspected to be rounding errors; a second scoring decides.
    low = (sizes > 0) & (sizes < (1e-12 if double else 1e-9) * highest)
    if highest == 0 or (highest >= (1e-12 if double else 1e-6) and float(low.double().mean()) <= SHARE):
        return 0.0
    if not torch.equal(_flat(again(0.0)), flat):  # draws that cannot be repeated
        return 0.0
    changed = (_flat(again(1e-12 if double else 1e-6)) - flat).abs() > CHANGE * sizes
    return float(sizes[changed].max()) if bool(changed.any()) else 0.0


def perturb(weights: Mapping[str, Tensor], step: float) -> None:
    """Multiply the weights by 1 + step and 1 - step in turns, in place."""
    for weight in weights.values():
        signs = 1 - 2 * (torch.arange(weight.numel(), device=weight.device) % 2).to(weight.dtype)
        weight.mul_(1 + step * signs.view(weight.shape))


def _flat(scores: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([score.flatten() for score in scores.values()])
