"""Channels of a masked network that can be removed without a change of its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pai_bench.pruning.masking import apply_masks, remove_masks, unwrapped
from pai_bench.pruning.model_copies import copy_to_score
from pai_bench.pruning.shrinking.analysis import analyse
from pai_bench.pruning.shrinking.slicing import Choice


@dataclass(frozen=True)
class Removable:
    """Numbers of channels."""

    channels: int
    """Output channels of all convolutions and linear layers with a rule, without those that make the outputs."""
    plain: int
    """Channels to which no output is connected, or whose value is zero for every input."""
    folded: int
    """The same, and channels of another constant value, which is folded into the next layer: those of `shrink`."""


def removable_channels(model: nn.Module, masks: Mapping[str, Tensor], shape: tuple[int, ...]) -> Removable:
    """Count the channels that can be removed from a masked model; `shape` is that of an input without batch dimension.

    The constants (biases, and BatchNorm in eval mode behind ReLU or another activation) have the values that they have
    in the model. See `pai_bench.shrink`, which removes `folded` channels.

    Raises: PaiBenchError for a model that torch.fx cannot trace.
    """
    network = copy_to_score(unwrapped(model)).cpu()
    remove_masks(network)
    # Applied and removed: the zeros stay, and torch.fx does not have to trace the hooks.
    apply_masks(network, {name: mask.cpu() for name, mask in masks.items()})
    remove_masks(network)
    network.eval()
    first = next(network.parameters())
    with torch.no_grad():
        structure = analyse(network, torch.zeros(1, *shape, dtype=first.dtype))
        removed = []
        for fold in (False, True):
            choice = Choice(network, structure, fold=fold)
            removed.append(sum(int((~choice.kept(layer.outputs)).sum()) for layer in structure.mixing))
    pinned = torch.zeros(len(structure.identities.all_roots()), dtype=torch.bool)
    pinned[structure.identities.all_roots()[structure.identities.pinned()]] = True
    roots = structure.identities.all_roots()
    channels = sum(int((~pinned[roots[layer.outputs.ids]]).sum()) for layer in structure.mixing)
    return Removable(channels, *removed)
