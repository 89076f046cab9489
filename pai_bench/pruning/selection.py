"""Selection of the weights to keep, by the scores of one pruning round."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

Select = Callable[[Tensor, Tensor, float, int], Tensor]
"""(scores [N], candidates bool [N], density after this round, exact count) -> kept, bool [N]."""


def keep_exactly(scores: Tensor, candidates: Tensor, density: float, count: int) -> Tensor:
    """Keep the `count` highest scores among the candidates; equal scores are kept in the order of their position.

    scores [N] and candidates bool [N], flattened over all layers; returns bool [N]. `density` is not used here:
    released rules derive their own count from it (the golden tests do).
    """
    del density
    # In a type that NumPy supports; no float is rounded.
    scores = scores.detach() if scores.dtype == torch.float32 else scores.detach().double()
    if scores.is_cpu:
        pool = torch.from_numpy(np.compress(candidates.numpy(), scores.numpy()))
    else:
        pool = scores.masked_select(candidates)
    dropped = pool.numel() - count
    if dropped < 0 or count < 0:
        raise ValueError(f"of {pool.numel()} weights that may be kept, {count} cannot be")
    if dropped == 0:
        return candidates.clone()
    if count == 0:
        return torch.zeros_like(candidates)
    threshold = score_at(pool, dropped)
    kept = (scores >= threshold).logical_and_(candidates)
    if surplus := int((pool >= threshold).count_nonzero()) - count:
        tied = (scores == threshold).logical_and_(candidates).nonzero().squeeze(1)
        # Dropped from the end: of equal scores the first positions stay, on every device.
        kept[tied[-surplus:]] = False
    return kept


def score_at(scores: Tensor, place: int) -> Tensor:
    """Return the score at a place (from 0) in ascending order of scores [N]."""
    if scores.is_cpu:
        # Linear whatever the order of the scores; on a CPU kthvalue's time is quadratic for falling ones.
        return torch.from_numpy(np.partition(scores.numpy(), place))[place]
    # On a GPU kthvalue runs in a single block of threads, and a sort in all of them.
    return scores.sort().values[place]


def keep_lowest(scores: Tensor, candidates: Tensor, density: float, count: int) -> Tensor:
    """Keep the lowest scores instead of the highest; otherwise as `keep_exactly`."""
    return keep_exactly(-scores.double(), candidates, density, count)


class Sampling:
    """Selection rule that samples without replacement, with the positive scores as weights, by the Gumbel top-k trick.

    The next weight to be kept is w with probability score(w) / sum of the scores of those that are left (Plackett and
    Luce; Kool et al. 2019, arXiv 1903.06059). Scores of zero and below have no probability: they are kept, highest
    first and equal ones in random order, where fewer scores are positive than weights are to be kept. An instance
    draws new numbers at every call.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, scores: Tensor, candidates: Tensor, density: float, count: int) -> Tensor:
        """Keep `count` of the candidates; takes and returns what `keep_exactly` does."""
        uniform = torch.rand(scores.shape, generator=self._generator, dtype=torch.float64, device="cpu")
        order = torch.randperm(scores.numel(), generator=self._generator, device="cpu").to(scores.device)
        positive = candidates & (scores > 0)
        if (room := int(positive.sum())) >= count:
            # Gumbel top-k: the largest log(score) + Gumbel noise are a sample without replacement, weighted by score.
            keys = scores.detach().double().clamp_min(0).log() - (-uniform.log()).log().to(scores.device)
            return keep_exactly(keys, positive, density, count)
        rest = keep_exactly(scores[order], (candidates & ~positive)[order], density, count - room)
        return positive.index_put((order,), rest | positive[order])

    def keys(self, scores: Tensor, candidates: Tensor) -> Tensor:
        """Return keys [N] whose highest ones are what a call keeps, at every count; draws new numbers."""
        uniform = torch.rand(scores.shape, generator=self._generator, dtype=torch.float64, device="cpu")
        order = torch.randperm(scores.numel(), generator=self._generator, device="cpu").to(scores.device)
        positive = candidates & (scores > 0)
        keys = scores.detach().double().clamp_min(0).log() - (-uniform.log()).log().to(scores.device)
        least = float(keys[positive].min()) if positive.any() else 0.0
        falling = order[scores[order].argsort(descending=True, stable=True)]
        places = torch.empty_like(falling).index_put_((falling,), torch.arange(len(falling), device=falling.device))
        # Scores without a probability rank below all others, by score and in random order where they are equal.
        return torch.where(positive, keys, least - 1.0 - places)


def keys(select: Select, scores: Tensor, candidates: Tensor) -> Tensor:
    """Return keys [N], float64, whose highest ones a selection rule of this module keeps, ties by position."""
    if isinstance(select, Sampling):
        return select.keys(scores, candidates)
    return -scores.double() if select is keep_lowest else scores.double()


def restarted(select: Select) -> Select:
    """Return a selection rule that draws the same numbers again, where it draws any."""
    return Sampling(select.seed) if isinstance(select, Sampling) else select


def to_masks(
    scores: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    density: float,
    kept: int,
    *,
    quotas: Mapping[str, int] | None = None,
    revives: bool = False,
    select: Select = keep_exactly,
) -> dict[str, Tensor]:
    """Return the masks of one round: the best `kept` of the network, or the best quota of each layer.

    A weight that is pruned stays so unless the method `revives`.
    """
    if quotas is not None:
        if quotas.keys() != masks.keys():
            raise ValueError(f"there are quotas for {', '.join(quotas)}, and prunable are {', '.join(masks)}")
        if sum(quotas.values()) != kept:
            raise ValueError(f"the layer quotas sum to {sum(quotas.values())}, not to the {kept} weights to keep")
        found: dict[str, Tensor] = {}
        for key, mask in masks.items():
            layer = {key: scores[key]}, {key: mask}
            found |= to_masks(*layer, density, quotas[key], revives=revives, select=select)
        return found
    flat = torch.cat([scores[key].flatten() for key in masks])
    alive = torch.cat([masks[key].flatten() for key in masks])
    chosen = select(flat, torch.ones_like(alive) if revives else alive, density, kept)
    parts = torch.tensor_split(chosen, list(itertools.accumulate(mask.numel() for mask in masks.values()))[:-1])
    return {key: part.view_as(mask) for (key, mask), part in zip(masks.items(), parts, strict=True)}
