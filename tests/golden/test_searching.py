"""Searches with Edge-Popup and Gem-Miner agree with released code: masks during the search, and scores at its end.

The files state repository, commit and settings in `meta`. Counts of the releases that differ from ours (rounded in
each layer, or up in each round) are written here, so that all else is compared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pai_bench import recipes
from pai_bench.experiment.searching import SearchNetwork, key
from pai_bench.scoring import MaskChange, Moment, registry
from pai_bench.training.eager_step import Step
from pai_bench.training.mask_updates import Changing, MaskUpdates

from .test_mask_updates import Case

EdgePopup: Any = registry.method_class("edge-popup")
GemMiner: Any = registry.method_class("gem-miner")


def search(case: Case, method: Any, lengths: list[int], after: Callable[[int, SearchNetwork, Any], None]) -> Any:
    """Search with the batches of the file; `after` is called with the number of steps done, the network and masks."""
    scores = {f"{name}.weight": s.double() for name, s in case.under("score_init/").items()}
    size = sum(s.numel() for s in scores.values())
    network = SearchNetwork(case.model, scores, method, kept := round(size * (1 - case.sparsity)))
    network.train()
    masks = {key(name): torch.ones_like(s, dtype=torch.bool) for name, s in scores.items()}
    settings = dataclasses.replace(
        recipes.load("quick", "digits", "conv8").train,
        **{name: getattr(method.search(), name) for name in ("lr", "momentum", "weight_decay")},
        nesterov=False,
    )
    one_step = Step(network, masks, settings, changing=True)
    updates = MaskUpdates(Changing(method, "golden", kept, size), network, masks, one_step, lengths, lengths[0], 0)
    after(0, network, masks)
    for number in range(sum(lengths)):
        x, y = case.arrays[f"x{number % 8}"].double(), case.arrays[f"y{number % 8}"]
        epoch, step = divmod(number, lengths[0])
        one_step(x, y, settings.lr, change=updates.at(epoch, step))
        after(number + 1, network, masks)
    return network, masks


class Search(Case):
    """A golden file of a search."""

    def __init__(self, name: str, sparsity: float) -> None:
        super().__init__(name, "tinyres")
        self.sparsity = sparsity

    def compare_masks(self, prefix: str, ours: Mapping[str, Tensor]) -> None:
        for name, theirs in self.under(prefix).items():
            assert torch.equal(theirs.bool(), ours[f"{name}.weight"]), (prefix, name)

    def compare_scores(self, network: SearchNetwork, masks: Mapping[str, Tensor]) -> None:
        for name, theirs in self.under("score64/").items():
            place = key(f"{name}.weight")
            chosen = masks[place]
            ours = network.get_parameter(place).detach().clone()
            getattr(network._method, "project", lambda scores: None)(ours)  # the release does so after an epoch, too
            assert (ours - theirs)[chosen].abs().max() <= 5e-9 * theirs.abs().max(), name


@pytest.mark.parametrize("sparsity", [0.5, 0.9])
def test_edge_popup_equals_the_release(sparsity: float) -> None:
    case = Search(f"edgepopup_tinyres_S{sparsity}_20steps", sparsity)
    density = case.meta["hyper"]["kept_fraction_k_per_layer"]

    class Released(EdgePopup):  # type: ignore[misc]
        def counts(self, scores: Mapping[str, Tensor], kept: int) -> dict[str, int]:
            return {name: s.numel() - int((1 - density) * s.numel()) for name, s in scores.items()}

        def update_masks(self, moment: Moment) -> MaskChange:  # the end of the file is not the end of a search
            return MaskChange(dict(moment.weights), {name: m.numel() for name, m in moment.masks.items()})

    seen = []

    def after(number: int, network: SearchNetwork, _: Any) -> None:
        if f"mask_{number}/conv" in case.arrays:
            scores = {name: network.get_parameter(key(name)) for name in network._names}
            chosen = Released().subnetwork(scores, 0)
            case.compare_masks(f"mask_{number}/", {name: factors > 0 for name, factors in chosen.items()})
            seen.append(number)

    optimizer = case.meta["hyper"]["optimizer"]
    method = Released(lr=optimizer["lr"], momentum=optimizer["momentum"], weight_decay=optimizer["weight_decay"])
    case.compare_scores(*search(case, method, [20], after))
    assert seen == [0, 1, 10, 20]


@pytest.mark.parametrize(
    ("name", "sparsity"), [("gemminer_tinyres_S0.9_E13_T3", 0.9), ("gemminer_tinyres_S0.98_E9_T2_lam1e-2", 0.98)]
)
def test_gem_miner_equals_the_release(name: str, sparsity: float) -> None:
    case = Search(name, sparsity)
    hyper = case.meta["hyper"]
    left = {4 * (update["epoch"] + 1): update["active_after"] for update in case.meta["updates"]}

    class Released(GemMiner):  # type: ignore[misc]
        def update_masks(self, moment: Moment) -> MaskChange:
            change: MaskChange = super().update_masks(moment)
            assert isinstance(change.kept, int) and abs(change.kept - left[moment.step]) <= 3  # its rounding adds up
            return dataclasses.replace(change, kept=left[moment.step])

    def after(number: int, network: SearchNetwork, masks: Any) -> None:
        if number in left:
            found = {name: masks[key(name)] for name in network._names}
            case.compare_masks(f"mask_{number // 4 - 1}/", found)

    # The release holds its penalty in float32.
    method = Released(every=hyper["iter_period"], penalty=float(np.float32(hyper["lmbda"])), lr=0.1, momentum=0.9)
    network, masks = search(case, method, [4] * hyper["epochs"], after)
    assert sum(int(mask.sum()) for mask in masks.values()) == case.meta["updates"][-1]["active_after"]
    case.compare_scores(network, masks)
    rounded = {name: masks[key(name)] & (network.get_parameter(key(name)) > 0.5) for name in network._names}
    case.compare_masks("mask_rounded/", rounded)
