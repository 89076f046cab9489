"""Channels of a network as units of pruning: rows of weights, joined where they meet in a sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from pai_bench.pruning.model_copies import copy_to_score
from pai_bench.pruning.shrinking.analysis import analyse

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Channels:
    """The channels of all prunable layers."""

    rows: Mapping[str, Ints]
    """Unit of each output channel, by name of the weight; equal numbers are pruned together."""
    fixed: NDArray[np.bool_]
    """True for the units that contain an output of the network, which stay."""
    families: Ints
    """Family of each unit: layers that share a unit are of one family, and so are all their units."""


def inputs_first(model: nn.Module, names: Sequence[str]) -> frozenset[str]:
    """Return the weights whose first dimension is the inputs: those of transposed convolutions and of Conv1D."""

    def first(name: str) -> bool:
        module = model.get_submodule(name.rpartition(".")[0])
        return isinstance(module, _ConvTransposeNd) or type(module).__name__ == "Conv1D"

    return frozenset(name for name in names if first(name))


def find_channels(
    model: nn.Module, weights: Mapping[str, Tensor], flipped: frozenset[str], example: Tensor
) -> Channels:
    """Return the channels of a model that runs on `example` [B, ...]; the model is not changed.

    Channels that meet in a sum, and those of a depthwise convolution and of the layer before it, are one unit. A layer
    without a rule (attention, grouped convolutions, layers that are called twice) has one unit for each row.

    Raises: PaiBenchError for a model that torch.fx cannot trace.
    """
    # Unstructured cells can run where SciPy is not installed.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # On the CPU, where the identities of the channels are.
    copy = copy_to_score(model).cpu().eval()
    structure = analyse(copy, example.cpu())
    roots = structure.identities.all_roots()
    known = {layer.name: layer.outputs.ids for layer in structure.mixing}
    known |= {other.name: other.channels.ids for other in structure.per_channel if other.parameter_dim is None}
    first = len(roots)
    rows: dict[str, Ints] = {}
    for name, weight in weights.items():
        count = weight.shape[1 if name in flipped else 0]
        ids = known.get(name.rpartition(".")[0])
        # A layer without a rule gets rows of its own, which nothing else shares.
        if ids is None or len(ids) != count or name in flipped:
            rows[name] = np.arange(first, first + count)
            first += count
        else:
            rows[name] = roots[ids].numpy()
    _, place, numbers = np.unique(np.concatenate(list(rows.values())), return_index=True, return_inverse=True)
    # np.unique numbers by id; ties between units are broken by position in the network instead.
    numbers = np.argsort(np.argsort(place))[numbers]  # in the order of their first channel
    layers = np.repeat(np.arange(len(rows)), [len(ids) for ids in rows.values()])
    joined = coo_array((np.ones(len(numbers)), (numbers, layers)), shape=(len(place), len(rows))).tocsr()
    families = connected_components(joined.T @ joined, directed=False)[1].astype(np.int64)
    family = np.zeros(len(place), dtype=np.int64)
    family[numbers] = families[layers]
    parts = np.split(numbers, np.cumsum([len(ids) for ids in rows.values()])[:-1])
    rows = dict(zip(rows, parts, strict=True))
    fixed = np.zeros(len(place), dtype=bool)
    for name, units in rows.items():
        if _in(name, structure.last):
            fixed[units] = True
    return Channels(rows, fixed, family)


def _in(name: str, modules: set[str]) -> bool:
    """Return True if a parameter is, or belongs to, one of the modules and parameters."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return bool(name)


def example_for(model: nn.Module, x: Tensor) -> Tensor:
    """Return up to two samples of a batch, in the type of the model's parameters if they are floating-point."""
    first = next(model.parameters())
    x = x[:2].to(first.device)
    return x.to(first.dtype) if torch.is_floating_point(x) else x
