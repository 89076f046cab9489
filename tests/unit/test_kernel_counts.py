"""NPB: the exact optimum of its objective, and the paths that it is given."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor, nn

from pai_bench import models
from pai_bench.pruning.functions import prune
from pai_bench.scoring.kernel_counts import kernel_counts, objective
from pai_bench.scoring.paths.in_order import Inputs, choose_in_order
from pai_bench.scoring.paths.tracing import trace

from .nets import batches, tiny


def found(paths: Tensor, outputs: int, size: int, total: int, alpha: float, beta: float) -> Tensor:
    counts = kernel_counts(paths, outputs, size, total, alpha, beta, torch.Generator().manual_seed(0))
    assert counts.shape == (*paths.shape, outputs)
    assert int(counts.sum()) == total and int(counts.min()) >= 0 and int(counts.max()) <= size
    return counts


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("alpha", "beta"), [(0.99, 0.001), (0.01, 1.0), (0.3, 0.01), (0.001, 0.1)])
def test_no_placement_of_a_small_layer_is_better(groups: int, alpha: float, beta: float) -> None:
    inputs, outputs, size = (2, 2, 2) if groups == 1 else (1, 2, 2)
    paths = torch.tensor([5.0, 1.0]).view(groups, inputs)
    kernels = groups * inputs * outputs
    for total in range(1, kernels * size + 1):
        every = (c for c in itertools.product(range(size + 1), repeat=kernels) if sum(c) == total)
        best = max(objective(torch.tensor(c).view(groups, inputs, outputs), paths, size, alpha, beta) for c in every)
        value = objective(found(paths, outputs, size, total, alpha, beta), paths, size, alpha, beta)
        assert value == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize(("alpha", "beta"), [(0.99, 0.001), (0.05, 0.02)])
@pytest.mark.parametrize("total", [5, 17, 60, 200])
def test_the_optimum_is_that_of_a_solver_of_integer_programs(total: int, alpha: float, beta: float) -> None:
    inputs, outputs, size = 6, 5, 9
    paths = torch.tensor([[7.0, 1, 0, 3, 3, 20]])
    cells, nodes = inputs * outputs, inputs + outputs
    index = np.arange(cells)
    ones = np.ones((1, cells))
    rows, columns = (np.equal.outer(np.arange(n), place).astype(float) for n, place in
                     ((inputs, index // outputs), (outputs, index % outputs)))  # fmt: skip
    # variables: M, then for each row, column and kernel whether it has a weight
    none = np.zeros((1, nodes + cells))
    reached = np.block([[rows, -np.eye(inputs), np.zeros((inputs, outputs + cells))],
                        [columns, np.zeros((outputs, inputs)), -np.eye(outputs), np.zeros((outputs, cells))],
                        [np.eye(cells), np.zeros((cells, nodes)), -np.eye(cells)]])  # fmt: skip
    fullest = np.sort(paths.numpy()[0])[::-1]
    best = (fullest * np.clip(total - np.arange(inputs) * outputs * size, 0, outputs * size)).sum()
    gain = (1 - alpha) * paths.numpy()[0][index // outputs] / best
    value = np.concatenate([gain, np.full(nodes, alpha / nodes), np.full(cells, beta / total)])
    solved = milp(
        -value,
        constraints=[
            LinearConstraint(np.block([[ones, none]]), total, total),
            LinearConstraint(reached, 0, np.inf),
        ],
        integrality=np.ones(len(value)),
        bounds=Bounds(0, np.concatenate([np.full(cells, size), np.ones(nodes + cells)])),
    )
    counts = found(paths, outputs, size, total, alpha, beta)
    assert objective(counts, paths, size, alpha, beta) == pytest.approx(-solved.fun, rel=1e-6)


@pytest.mark.parametrize(("alpha", "beta"), [(0.99, 0.001), (0.01, 1.0)])
def test_the_value_is_the_one_of_the_released_program_but_for_a_constant(alpha: float, beta: float) -> None:
    paths, size, inputs, outputs = torch.tensor([3.0, 0.0, 7.0]), 4, 3, 2
    for seed in range(5):
        counts = torch.randint(0, size + 1, (inputs, outputs), generator=torch.Generator().manual_seed(seed))
        total = int(counts.sum())
        # The release minimises the numbers of channels and of kernels without a weight.
        nodes = inputs + outputs
        missing = int((1 - counts.sum(1)).clamp(0).sum() + (1 - counts.sum(0)).clamp(0).sum())
        unused = int((1 - counts).clamp(0).sum())
        most = sum(float(p) * max(0, min(outputs * size, total - i * outputs * size)) for i, p in enumerate((7, 3, 0)))
        share = float((paths[:, None] * counts).sum()) / most
        released = alpha * (nodes - missing) / nodes + (1 - alpha) * share + beta * (total - unused) / total
        constant = beta * (1 - inputs * outputs / total)
        found = objective(counts[None], paths[None], size, alpha, beta)
        assert found == pytest.approx(released - constant, rel=1e-12)


def test_paths_are_counted_through_the_layers_chosen_before() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 2, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)).double().eval()
    x = torch.ones(1, 2, 3, 3, dtype=torch.float64)
    plain = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    seen: dict[str, Inputs] = {}

    def choose(name: str, inputs: Inputs) -> Tensor:
        seen[name] = inputs
        mask = torch.ones_like(plain[name])
        if name == "0.weight":
            mask[0] = 0
            mask[1, 0] = 0
        return mask

    masks = choose_in_order(trace(model, x), plain, list(plain), x, choose)
    assert list(masks) == ["0.weight", "3.weight"]
    assert seen["0.weight"].paths.tolist() == [9, 9]
    # channels of 4 positions with 0, 4 and 8 paths each
    assert seen["3.weight"].paths.tolist() == [0] * 4 + [4] * 4 + [8] * 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "resnet20", "mobilenetv2"])
def test_masks_reach_as_many_channels_as_their_counts_allow(name: str) -> None:
    torch.manual_seed(0)
    model = tiny() if name == "tiny" else models.build(name, 3, 8, 10)
    data = batches(1) if name == "tiny" else [(torch.randn(2, 3, 8, 8), torch.tensor([0, 1]))]
    size = sum(w.numel() for w in model.parameters() if w.ndim > 1)
    masks = prune(model, data, "npb", sparsity=0.9)
    assert sum(int(mask.sum()) for mask in masks.values()) == round(0.1 * size)
    for mask in masks.values():
        kept = mask.flatten(2).sum(2) if mask.ndim > 2 else mask.long()
        wide = mask.ndim > 2 and mask.shape[1] == 1 < mask.shape[0]  # depthwise
        reached = int((kept.sum(1) > 0).sum()) + (0 if wide else int((kept.sum(0) > 0).sum()))
        room = len(kept) if wide else sum(kept.shape)
        assert reached >= min(room, int(mask.sum()))
