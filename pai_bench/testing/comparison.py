"""Comparison of the masks of two runs, which leaves weights with equal scores at the cut aside."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pai_bench.testing.runs import Run

TOLERANCE = 1e-7
"""Difference of scores, relative to the highest one, up to which two weights are tied."""


def difference(one: Run, other: Run, renamed: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict) -> list[str]:
    """Return in words how the masks of two runs differ beyond ties; `renamed` puts those of the first in new places.

    Rounds are compared one after the other, and after a round whose masks differ in ties no further one.
    """
    if not (one.masks and other.masks):
        return [] if one.refused and other.refused else [f"only one of two runs has masks ({_end(one)}; {_end(other)})"]
    rounds = [*one.before[1:], one.masks], [*other.before[1:], other.masks]
    for number, (mine, theirs) in enumerate(zip(*rounds, strict=True)):
        differing = {name: mask.cpu() ^ theirs[name].cpu() for name, mask in renamed(mine).items()}
        count = sum(int(where.sum()) for where in differing.values())
        if not count:
            continue
        ties = _tied(other, number, theirs)
        beyond = sum(int((where & ~ties[name]).sum()) for name, where in differing.items())
        if not beyond:
            return []
        kept = sum(int(mask.sum()) for mask in theirs.values())
        of = f" of round {number + 1}" if len(rounds[0]) > 1 else ""
        return [f"{count} mask entries{of} differ, {beyond} of them beyond ties; {kept} weights are kept"]
    return []


def _tied(run: Run, number: int, masks: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return which weights could be kept or pruned as well in a round: ties of the network, or of each layer."""
    scores = {name: score.cpu().double() for name, score in run.scores[number].items()}
    found: dict[str, Tensor] = {}
    for names in [[name] for name in scores] if run.quotas else [list(scores)]:
        flat = torch.cat([scores[name].flatten() for name in names])
        kept = torch.cat([masks[name].cpu().flatten() for name in names])
        before = torch.cat([run.before[number][name].cpu().flatten() for name in names])
        pruned = ~kept if run.revives else ~kept & before
        # Another order of summation changes scores in their last digits, also where a method is invariant.
        slack = TOLERANCE * float(flat.abs().max())
        low = flat[kept].min() if kept.any() else flat.max()
        high = flat[pruned].max() if pruned.any() else flat.min()
        tied = (kept & (flat <= high + slack)) | (pruned & (flat >= low - slack))
        parts = torch.split(tied, [scores[name].numel() for name in names])
        found |= {name: part.view_as(scores[name]) for name, part in zip(names, parts, strict=True)}
    return found


def _end(run: Run) -> str:
    return "masks" if run.masks else f"{type(run.error).__name__}: {str(run.error)[:120]}"
