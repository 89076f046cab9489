"""The numbers of weights in the kernels of one layer that balance nodes, paths and kernels (NPB), exactly."""

from __future__ import annotations

import torch
from torch import Tensor


def kernel_counts(
    paths: Tensor, outputs: int, size: int, total: int, alpha: float, beta: float, generator: torch.Generator
) -> Tensor:
    """Return counts M, int64 [groups, inputs, outputs], with the largest alpha A + (1 - alpha) B + beta R.

    paths: numbers P of paths into the inputs, float64 [groups, inputs]; outputs: number in each group; size: of a
    kernel. A: fraction of inputs and outputs with a weight; B: sum of P M over its largest possible value; R: fraction
    of the weights that are the first of a kernel. 0 <= M <= size, sum M = `total` (at most all weights).

    The optimum depends on the totals of the rows alone: weights of a row that are spread evenly over the outputs, each
    row going on where the last one ended, use as many kernels and reach as many outputs as the totals allow. In them
    the objective is concave and laminar (rows within groups), so that taking the weights of the largest gain one after
    another is optimal. Equal optima are drawn at random.
    """
    groups, inputs = paths.shape
    cpu = torch.device("cpu")  # whatever the default device
    # Rows are shuffled before the stable sorts below, so that ties are decided by chance and not by position.
    order = torch.rand(groups, inputs, generator=generator, device=cpu).argsort(1)
    # In float64, because the numbers of paths grow exponentially with the depth.
    rows = paths.detach().cpu().double().gather(1, order)
    node = alpha / (groups * (inputs + outputs))
    first = beta / max(1, total)
    room = outputs * size
    fullest = rows.flatten().sort(descending=True).values
    best = float((fullest * (total - torch.arange(len(fullest), device=cpu) * room).clamp(0, room)).sum())
    path = (1 - alpha) * rows / best if best > 0 else torch.zeros_like(rows)
    # The gain of the first weight of a row, of the first ones of further kernels, and of the others.
    gains = torch.cat([path + first + node, path + first, path], 1)
    counts = torch.tensor([1, outputs - 1, room - outputs], device=cpu).repeat_interleave(inputs).expand(groups, -1)
    owner = torch.arange(inputs, device=cpu).repeat(3).expand(groups, -1)
    gains, by_gain = gains.sort(dim=1, descending=True, stable=True)
    counts, owner = counts.gather(1, by_gain), owner.gather(1, by_gain)
    # The first weights of a group, as many as it has outputs, each reach an output more.
    reaching = (outputs - (counts.cumsum(1) - counts)).clamp(min=0).minimum(counts)
    gains = torch.cat([gains + node, gains], 1)
    counts = torch.cat([reaching, counts - reaching], 1)
    owner = (torch.cat([owner, owner], 1) + inputs * torch.arange(groups, device=cpu)[:, None]).flatten()
    # Stable: a row's first weight must come before its others where their gains are equal.
    by_gain = gains.flatten().argsort(descending=True, stable=True)
    sorted_counts = counts.flatten()[by_gain]
    taken = (total - (sorted_counts.cumsum(0) - sorted_counts)).clamp(min=0).minimum(sorted_counts)
    totals = torch.zeros(groups * inputs, dtype=torch.long, device=cpu).index_add_(0, owner[by_gain], taken)
    totals = totals.view(groups, inputs)
    rest = totals % outputs
    start = rest.cumsum(1) - rest
    column = torch.rand(groups, 1, outputs, generator=generator, device=cpu).argsort(2)
    spread = totals[:, :, None] // outputs + ((column - start[:, :, None]) % outputs < rest[:, :, None])
    return torch.empty_like(spread).scatter_(1, order[:, :, None].expand_as(spread), spread)


def objective(counts: Tensor, paths: Tensor, size: int, alpha: float, beta: float) -> float:
    """Return the value that `kernel_counts` maximises, for counts [groups, inputs, outputs]."""
    groups, inputs, outputs = counts.shape
    total, room = int(counts.sum()), outputs * size
    reached = int((counts.sum(2) > 0).sum() + (counts.sum(1) > 0).sum())
    fullest = paths.double().flatten().sort(descending=True).values
    best = float((fullest * (total - torch.arange(len(fullest), device=fullest.device) * room).clamp(0, room)).sum())
    share = float((paths.double() * counts.sum(2)).sum()) / best if best > 0 else 0.0
    kernels = int((counts > 0).sum()) / max(1, total)
    return alpha * reached / (groups * (inputs + outputs)) + (1 - alpha) * share + beta * kernels
