"""Layer quotas agree with the authors' code to a weight a layer, where that code returns valid ones."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch

import pai_bench
from pai_bench import models
from pai_bench.cells import kept_count
from pai_bench.scoring.problem import prunable

from . import nets
from .test_golden import CASES

QUOTAS = json.loads((CASES / "quotas_effective_sparsity.json").read_text(encoding="utf-8"))
TURBOPRUNE = json.loads((CASES / "quotas_turboprune.json").read_text(encoding="utf-8"))
OURS = {"igq": "igq", "uniform_plus": "uniform-plus"}


@pytest.mark.parametrize("net", ["tinyres", "resnet20"])
def test_ideal_gas_quotas_and_uniform_plus_equal_the_released_code(net: str) -> None:
    model = nets.build(net)
    compared = 0
    for key, sparsities in QUOTAS[net].items():
        kind, _, sparsity = key.partition("@")
        if max(sparsities) > 1:  # the release raises AssertionError
            continue
        masks = pai_bench.prune(model, [], OURS[kind], sparsity=float(sparsity))
        for mask, theirs in zip(masks.values(), sparsities, strict=True):
            assert abs(int(mask.sum()) - mask.numel() * (1 - theirs)) < 1, key
        compared += 1
    assert compared >= 12


@pytest.mark.parametrize("net", ["tinyres", "resnet20", "mlp"])
def test_balanced_quotas_equal_the_released_code_where_no_layer_is_full(net: str) -> None:
    model = nets.build(net)
    for density, layers in TURBOPRUNE[net].items():
        masks = pai_bench.prune(model, [], "balanced", sparsity=1 - float(density))
        for mask, theirs in zip(masks.values(), layers, strict=True):
            assert abs(int(mask.sum()) - mask.numel() * theirs) < 1, density


def test_smart_ratios_and_masks_of_the_hybrid_equal_the_released_code() -> None:
    with np.load(CASES / "smartratio_tinyres.npz", allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    meta = json.loads(str(arrays["meta"]))
    model = nets.build("tinyres")
    nets.load(model, {key[6:]: torch.from_numpy(v) for key, v in arrays.items() if key.startswith("param/")})
    for key, quota in meta["quota"].items():
        shape, _, sparsity = key.partition("@")
        masks = pai_bench.prune(model, [], "smart-ratio", sparsity=float(sparsity), shape=shape, hybrid=True)
        counts = [int(mask.sum()) for mask in masks.values()]
        # The release rounds every layer and every excess down, and so keeps two to four weights too few.
        assert all(0 <= ours - theirs <= 2 for ours, theirs in zip(counts, quota, strict=True)), (key, counts)
        for name, mask in masks.items():
            theirs = arrays.get(f"hybrid_{key}/{name.removesuffix('.weight')}")
            assert theirs is None or bool((torch.from_numpy(theirs).bool() <= mask).all())
    assert sum(key.startswith("hybrid_") for key in arrays) == 28


def test_smart_ratios_keep_the_count_where_the_released_code_leaves_it() -> None:
    """Its linear layers stay at a density of 0.3 when the convolutions are full: it keeps 2292 of 2560 or 3584."""
    with np.load(CASES / "smartratio_tinyvgg.npz", allow_pickle=False) as file:
        meta = json.loads(str(file["meta"]))
    model = nets.build("tinyvgg")
    sizes = [w.numel() for w in prunable(model).values()]
    compared = 0
    for key, quota in meta["quota"].items():
        shape, _, sparsity = key.partition("@")
        masks = pai_bench.prune(model, [], "smart-ratio", sparsity=float(sparsity), shape=shape)
        counts = [int(mask.sum()) for mask in masks.values()]
        assert counts[:2] == quota[:2] == sizes[:2]
        assert all(ours > theirs for ours, theirs in zip(counts[2:], quota[2:], strict=True))
        assert sum(counts) == meta["asked"][key] > sum(quota)
        # Both linear layers have the same density, to one weight.
        assert abs(counts[2] / sizes[2] - counts[3] / sizes[3]) < 1 / sizes[3]
        compared += 1
    assert compared == 4
    # The release computes negative sizes, and raises RuntimeError.
    for key in meta["errors"]:
        shape, _, sparsity = key.partition("@")
        masks = pai_bench.prune(model, [], "smart-ratio", sparsity=float(sparsity), shape=shape)
        assert sum(int(mask.sum()) for mask in masks.values()) == kept_count(float(sparsity), sum(sizes))


def released_smart_ratios(sizes: list[int], linear: list[bool], density: float, shape: str) -> list[int]:
    """Return the layer counts of SmartRatio.py of sanity-checking-pruning, from its description."""
    total, count = sum(sizes), len(sizes)
    raw = [((count - i) ** 2 + count - i) / (1 if shape == "resnet" else (i + 1) ** 2) for i in range(count)]
    of_linear = sum(size for size, is_linear in zip(sizes, linear, strict=True) if is_linear)
    convolutions = [i for i in range(count) if not linear[i]]
    scale = (int(total * density) - int(0.3 * of_linear)) / sum(int(raw[i] * sizes[i]) for i in convolutions)
    densities = [0.3 if is_linear else scale * value for value, is_linear in zip(raw, linear, strict=True)]
    for here, following in itertools.pairwise(convolutions):
        if densities[here] <= 1:
            break
        densities[following] += (densities[here] - 1) * sizes[here] / sizes[following]
        densities[here] = 1.0
    return [int(min(value, 1) * size) for value, size in zip(densities, sizes, strict=True)]


@pytest.mark.parametrize("shape", ["resnet", "vgg"])
@pytest.mark.parametrize("name", ["conv8", "conv28", "resnet20"])
def test_smart_ratios_of_other_networks_follow_the_released_rule(name: str, shape: str) -> None:
    model = models.build(name, 1, 16, 10)
    weights = prunable(model)
    sizes, linear = [w.numel() for w in weights.values()], [w.ndim == 2 for w in weights.values()]
    for sparsity in (0.3, 0.5, 0.8, 0.9, 0.98):
        masks = pai_bench.prune(model, [], "smart-ratio", sparsity=sparsity, shape=shape)
        counts = [int(mask.sum()) for mask in masks.values()]
        theirs = released_smart_ratios(sizes, linear, 1 - sparsity, shape)
        assert sum(counts) == kept_count(sparsity, sum(sizes))
        # The release rounds down in every layer; ours gives the lost weights to the layers with the largest remainders.
        assert all(abs(ours - released) <= 2 for ours, released in zip(counts, theirs, strict=True)), sparsity
