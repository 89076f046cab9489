"""Effective sparsity, arithmetic and costs."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pai_bench import models
from pai_bench.core.tensor_files import tensors_hash
from pai_bench.experiment.cost import measured
from pai_bench.pruning.effective import effective_masks
from pai_bench.pruning.flops import flops
from pai_bench.scoring.problem import prunable


def all_kept(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: torch.ones_like(w, dtype=torch.bool) for name, w in prunable(model).items()}


@pytest.mark.slow
def test_flops_equal_pytorchs_count() -> None:
    for name in ("lenet-300-100", "conv8", "resnet20", "resnet20-conv", "mobilenetv2"):
        model = models.build(name, 3, 16, 10).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.zeros(1, 3, 16, 16))
        dense, sparse = flops(model, all_kept(model), (3, 16, 16))
        assert dense == sparse == counter.get_total_flops()


def test_sparse_flops_weigh_each_weight_by_its_positions() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 25, 3))
    masks = all_kept(model)
    masks["0.weight"].flatten()[5:] = False
    masks["2.weight"].flatten()[7:] = False
    assert flops(model, masks, (2, 5, 5))[1] == 2 * (5 * 25 + 7)


def test_a_weight_without_a_path_is_not_effective() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    masks = {name: torch.zeros_like(w, dtype=torch.bool) for name, w in prunable(model).items()}
    masks["0.weight"][0, 1] = True  # on a path
    masks["0.weight"][1, 2] = True  # leads to a unit that nothing reads
    masks["2.weight"][1, 0] = True  # on a path
    masks["2.weight"][0, 2] = True  # reads a unit that nothing feeds
    effective = effective_masks(model, masks, (3,))
    assert effective["0.weight"].nonzero().tolist() == [[0, 1]]
    assert effective["2.weight"].nonzero().tolist() == [[1, 0]]


@pytest.mark.slow
def test_a_broken_path_leaves_nothing_effective_without_a_shortcut() -> None:
    model = models.build("resnet20", 3, 8, 10)
    masks = all_kept(model)
    masks["layer2.1.conv1.weight"][:] = False
    effective = effective_masks(model, masks, (3, 8, 8))
    assert not effective["layer2.1.conv2.weight"].any()
    assert effective["layer2.2.conv1.weight"].all()
    masks["conv1.weight"][:] = False
    assert not any(mask.any() for mask in effective_masks(model, masks, (3, 8, 8)).values())


@pytest.mark.slow
def test_a_dense_network_is_fully_effective_and_unchanged() -> None:
    model = models.build("resnet20-conv", 3, 8, 10)
    before = tensors_hash(model.state_dict())
    effective = effective_masks(model, all_kept(model), (3, 8, 8))
    assert all(mask.all() for mask in effective.values())
    flops(model, all_kept(model), (3, 8, 8))
    assert tensors_hash(model.state_dict()) == before
    assert model.training


def test_the_hash_covers_names_shapes_types_and_values() -> None:
    base = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    others = [
        {"c": torch.zeros(2, 3), "b": torch.ones(1)},
        {"a": torch.zeros(3, 2), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3, dtype=torch.int32), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "b": torch.full((1,), 2.0)},
    ]
    assert tensors_hash(base) == tensors_hash({key: value.clone() for key, value in base.items()})
    assert len({tensors_hash(base), *map(tensors_hash, others)}) == 5


@pytest.mark.slow
def test_a_cost_has_its_memory_and_time() -> None:
    with measured(torch.device("cpu")) as cost:
        block = torch.ones(50_000_000 // 4)
        del block
    assert cost.seconds > 0
    assert cost.peak_bytes is None or cost.peak_bytes > 25_000_000
