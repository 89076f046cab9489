"""Effective sparsities are met exactly: the number of weights on a path from input to output is the one asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import pai_bench
from pai_bench.errors import PaiBenchError
from pai_bench.experiment.runner import CellRunner
from pai_bench.pruning.effective import effective_masks
from pai_bench.training.callbacks import Callback

from .nets import batches, flat, tiny
from .test_experiment import recipe
from .test_scoring_data import run


def on_paths(model: nn.Module, masks: dict[str, torch.Tensor], shape: tuple[int, ...] = (3, 6, 6)) -> int:
    return int(flat(effective_masks(model, masks, shape)).sum())


@pytest.mark.slow
@pytest.mark.parametrize(("method", "options"), [("snip", {}), ("random", {}), ("erk", {}), ("force", {"rounds": 3})])
@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.95])
def test_the_weights_on_paths_equal_the_target(method: str, options: dict[str, int], sparsity: float) -> None:
    masks = pai_bench.prune(tiny(), batches(), method, sparsity=sparsity, effective=True, **options)
    wanted = round((100 - round(100 * sparsity)) * 482 / 100)
    assert on_paths(tiny(), masks) == wanted <= int(flat(masks).sum())


@pytest.mark.slow
def test_a_mask_without_dead_weights_equals_the_ordinary_mask() -> None:
    plain, effective = (pai_bench.prune(tiny(), batches(), "snip", sparsity=0.3, effective=e) for e in (False, True))
    assert on_paths(tiny(), plain) == int(flat(plain).sum())
    assert torch.equal(flat(plain), flat(effective))


@pytest.mark.slow
def test_a_jump_over_the_target_is_filled_by_weights_between_effective_units() -> None:
    """The two units of a hidden layer are joined by their last weights: the fourth weight makes four effective."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2, bias=False), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[9.0, 8, 7], [6, 0.5, 0.4]]))
        model[2].weight.copy_(torch.tensor([[0.2, 0.1], [0.3, 0.15]]))
    data = [(torch.ones(1, 3), torch.zeros(1, dtype=torch.int64))]
    for target in range(2, 11):
        masks = pai_bench.prune(model, data, "magnitude", sparsity=1 - target / 10, effective=True)
        assert on_paths(model, masks, (3,)) == target
    with pytest.raises(PaiBenchError, match="no mask with 1 weights on a path"):
        pai_bench.prune(model, data, "magnitude", sparsity=0.9, effective=True)


@pytest.mark.slow
def test_a_sweep_meets_effective_sparsities() -> None:
    settings = recipe(epochs=1)
    settings = replace(settings, scoring=replace(settings.scoring, effective=True))
    runner = CellRunner(device="cpu")
    for method in ("snip", "snip:control=sample", "erk"):
        task = run(method, settings, 0.98)
        network = runner.model(task)
        masks = runner.masks(task, network, Callback()).tensors
        assert on_paths(network, masks, (1, 8, 8)) == round(0.02 * flat(masks).numel())
