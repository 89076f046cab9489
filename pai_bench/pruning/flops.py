"""Floating point operations of a forward pass, dense and with pruned weights left out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pai_bench.pruning.effective import record_forward
from pai_bench.scoring.paths.weight_uses import weight_uses


def flops(model: nn.Module, masks: Mapping[str, Tensor], shape: tuple[int, ...]) -> tuple[int, int]:
    """Count the floating point operations of one forward pass of one sample: dense, and with pruned weights left out.

    Two per multiply-add with a weight in convolutions and matrix products, however the model calls them, as
    torch.utils.flop_counter counts; nothing else is counted, nor are products of two signals (in attention).
    """
    graph, network = record_forward(model, shape, torch.float32)
    whole = {name: torch.ones_like(p) for name, p in network.named_parameters()}
    masked = whole | {name: mask.detach().cpu().float() for name, mask in masks.items()}
    with torch.no_grad():
        uses = weight_uses(graph, whole)
        kept = sum(use.positions * use.kept for use in weight_uses(graph, masked))
    dense = sum(use.positions * use.size for use in uses)
    # Computed weights may have zeros of their own, for instance behind a ReLU. Only zeros of the masks are left out.
    pruned = sum(use.positions * use.kept for use in uses) - kept
    return 2 * dense, 2 * (dense - pruned)
