"""Granularity of masks: units of weights that are kept or pruned together, and patterns that masks must have."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from pai_bench.core.facts import GRANULARITIES
from pai_bench.errors import unknown
from pai_bench.pruning.granularity.channels import example_for, find_channels, inputs_first
from pai_bench.pruning.granularity.units import Units
from pai_bench.pruning.selection import Select, keep_exactly, to_masks

__all__ = ["Units", "round_masks", "units_of"]


def units_of(granularity: str, model: nn.Module, weights: Mapping[str, Tensor], x: Tensor) -> Units | None:
    """Return the units of a model's prunable weights (by name); None for single weights.

    x: a batch of inputs; its values do not matter.

    Raises: PaiBenchError for an unknown granularity, and for channels of a model that torch.fx cannot trace.
    """
    if granularity not in GRANULARITIES:
        raise unknown("granularity", granularity, GRANULARITIES)
    if granularity == "weight":
        return None
    flipped = inputs_first(model, list(weights))
    channels = find_channels(model, weights, flipped, example_for(model, x)) if granularity == "channel" else None
    return Units(granularity, flipped, channels)


def round_masks(
    units: Units | None,
    scores: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    density: float,
    kept: int,
    *,
    quotas: Mapping[str, int] | None = None,
    select: Select = keep_exactly,
) -> dict[str, Tensor]:
    """Return the masks of one round, as `to_masks` does for single weights."""
    if units is None:
        return to_masks(scores, masks, density, kept, quotas=quotas, select=select)
    return units.masks(scores, masks, density, kept, quotas=quotas, select=select)
