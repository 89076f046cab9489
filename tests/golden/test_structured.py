"""ProsPr's scores of channels, its kept channels and the logits of the pruned network equal its authors' code."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

import pai_bench
from pai_bench.pruning.selection import keep_exactly

from .test_golden import CASES, Case, method, read

NAMES = sorted(path.stem for path in CASES.glob("prospr_*.npz") if "structured" in path.stem)
# Three of the files are without the logits of the pruned network, and with two sparsities.
MASKS = [(n, p) for n in NAMES for p in (0.3, 0.5, 0.9, 0.98) if p >= 0.9 or n.startswith("prospr_structured")]


def channel_scores(case: Case, name: str) -> dict[str, Tensor]:
    """Return our scores [O] by layer; the release leaves out linear layers with as many outputs as classes."""
    method_name, options = method(case, name)
    output = "fc2" if "tinyvgg" in name else "fc"
    found = pai_bench.score(case.model, case.batches, method_name, exclude=output, structured=True, **options)
    return {key.removesuffix(".weight"): score.flatten(1).sum(1) for key, score in found.items()}


@pytest.mark.parametrize("name", NAMES)
def test_scores_of_channels_equal_the_release(name: str) -> None:
    case = read(name)
    ours = channel_scores(case, name)
    assert list(ours) == case.layers
    theirs = case.reference("score64")
    assert ((torch.cat([*ours.values()]) - theirs).abs().max() / theirs.abs().max()).item() < 1e-9


@pytest.mark.parametrize(("name", "sparsity"), MASKS)
def test_kept_channels_and_logits_equal_the_release(name: str, sparsity: float) -> None:
    """The release keeps ceil(C (1 - p)) of all C channels, without ties and without a floor."""
    case = read(name)
    ours = channel_scores(case, name)
    scores = torch.cat([*ours.values()])
    kept = keep_exactly(
        scores, torch.ones_like(scores, dtype=torch.bool), 0.0, int(np.ceil(len(scores) * (1 - sparsity)))
    )
    assert torch.equal(kept, case.reference(f"mask64@{sparsity}"))
    if f"logits64@{sparsity}" not in case.arrays:
        return
    masks = {}
    for layer, channels in zip(ours, kept.split([len(score) for score in ours.values()]), strict=True):
        weight = case.model.get_parameter(f"{layer}.weight")
        masks[f"{layer}.weight"] = channels.view(-1, *(1,) * (weight.dim() - 1)).expand_as(weight)
    model = copy.deepcopy(case.model).double().eval()
    x = case.batches[0][0].double()
    smaller = pai_bench.shrink(model, masks, x)
    pai_bench.apply_masks(model, masks)
    theirs = torch.from_numpy(case.arrays[f"logits64@{sparsity}"])
    with torch.no_grad():
        for network in (model, smaller):
            assert (network(x) - theirs).abs().max() < 1e-9 * theirs.abs().max()


def test_the_harness_ties_residual_sums_and_keeps_a_channel_of_every_layer() -> None:
    """Kept channels of the harness differ from the release only by the ties, the floor and the count of weights."""
    name = "prospr_structured_tinyvgg_full_m0.9_M3_new_lr0.1"
    case = read(name)
    method_name, options = method(case, name)
    options |= {"structured": True, "exclude": "fc2", "granularity": "channel"}
    masks = pai_bench.prune(case.model, case.batches, method_name, sparsity=0.8, **options)
    kept = {key: mask.flatten(1).any(1) for key, mask in masks.items()}
    assert all(channels.any() for channels in kept.values())
    scores = channel_scores(case, name)
    # Without shortcuts, a layer's channels are those of the highest scores.
    for key, channels in kept.items():
        best = scores[key.removesuffix(".weight")].topk(int(channels.sum())).indices
        assert set(channels.nonzero().flatten().tolist()) == set(best.tolist())
