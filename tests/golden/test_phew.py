"""PHEW's walks have the authors' transition probabilities, and no holes in residual networks."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pai_bench
from pai_bench.pruning.effective import effective_masks
from pai_bench.scoring.paths.connections import OneByOne
from pai_bench.scoring.paths.tracing import trace
from pai_bench.scoring.paths.walk_steps import Linked
from pai_bench.scoring.paths.walks import Walker

from . import nets
from .test_golden import CASES, flat, read


def walker(model: nn.Module, seed: int = 0) -> Walker:
    """Walks along the conv and linear weights of a model of 3x16x16 inputs, numbered through in its order."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    names = [name for name, p in parameters.items() if p.ndim > 1]
    graph = trace(model.eval().double(), torch.ones(1, 3, 16, 16, dtype=torch.float64))
    return Walker(graph, parameters, names, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("net", ["tinyvgg", "tinyres"])
def test_transition_probabilities_equal_the_released_code(net: str) -> None:
    """Given the unit that a walk is at and the layer that it takes, the next unit and the position in the kernel.

    Masks are not compared for residual networks, where the released walks have holes at shortcuts.
    """
    with np.load(CASES / f"phew_{net}.npz", allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    layers = json.loads(str(arrays["meta"]))["prunable"]
    model = nets.build(net)
    nets.load(
        model, {k.partition("/")[2]: torch.from_numpy(v) for k, v in arrays.items() if k[:6] in ("param/", "buffer")}
    )
    shapes = [tuple(model.get_parameter(f"{layer}.weight").shape) for layer in layers]
    starts = np.cumsum([0, *(math.prod(shape) for shape in shapes)])
    walks = walker(model)
    counts = {kind: [np.zeros(shape) for shape in shapes] for kind in ("forward", "backward")}
    number = 250
    for turn in range(number):
        for kind in counts:
            edges = walks.walk(turn, forward=kind == "forward")
            assert net == "tinyres" or len(edges) == 4  # one weight a layer
            for edge in edges:
                layer = int(np.searchsorted(starts, edge, side="right")) - 1
                counts[kind][layer].ravel()[edge - starts[layer]] += 1
    for kind, found in counts.items():
        for layer, count in zip(layers, found, strict=True):
            units = count.reshape(*count.shape[:2], -1).sum(2)  # [out, in]
            units = units.T if kind == "forward" else units
            wanted = arrays[f"{kind}_prob/{layer}"]
            visits = units.sum(1, keepdims=True)
            assert visits.sum() > number / 4
            error = np.abs(units - visits * wanted) / np.sqrt(visits * wanted * (1 - wanted) + 1)
            assert error.max() < 5.5, (kind, layer)
    for layer, kernels in zip(layers, counts["backward"], strict=True):
        if f"kernel_prob/{layer}" not in arrays or kernels[0, 0].size == 1:
            continue
        wanted = arrays[f"kernel_prob/{layer}"].reshape(kernels.shape)
        visits = kernels.sum((2, 3), keepdims=True)
        assert (np.abs(kernels - visits * wanted) / np.sqrt(visits * wanted + 1)).max() < 5.5, layer


def test_walks_in_residual_networks_run_from_input_to_output() -> None:
    model = read("snip_milad_tinyres").model
    walks = walker(model)
    shapes = {name: p.shape for name, p in model.named_parameters() if p.ndim > 1}
    lengths = set()
    for turn in range(30):
        for forward in (True, False):
            edges = walks.walk(turn, forward)
            lengths.add(len(edges))
            bits = torch.zeros(sum(math.prod(shape) for shape in shapes.values()), dtype=torch.bool)
            bits[edges] = True
            parts = torch.split(bits, [math.prod(shape) for shape in shapes.values()])
            masks = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
            assert torch.equal(flat(effective_masks(model, masks, (3, 16, 16))), bits)
    # Stem and classifier, and of the two blocks the convolutions, the 1x1 shortcut, or nothing at the identity.
    assert lengths == {3, 4, 5, 6}


def test_kept_weights_are_on_paths_except_in_the_truncated_walk() -> None:
    model, data = read("snip_milad_tinyres").model, [(torch.zeros(1, 3, 16, 16), torch.zeros(1, dtype=torch.int64))]
    masks = pai_bench.prune(model, data, "phew", sparsity=0.98)
    kept = flat(masks)
    assert int(kept.sum()) == 102
    assert int(kept.sum()) - int(flat(effective_masks(model, masks, (3, 16, 16))).sum()) <= 6
    assert torch.equal(kept, flat(pai_bench.prune(model, data, "phew", sparsity=0.98)))
    assert not torch.equal(kept, flat(pai_bench.prune(model, data, "phew", sparsity=0.98, seed=1)))
    more = flat(pai_bench.prune(model, data, "phew", sparsity=0.9))
    assert torch.equal(more & kept, kept)  # the walks of a sparser mask are the first ones of a denser


class Odd(nn.Module):
    """Standardised convolution, gate, branches, pools, a broadcast weight, and attention, with 3x16x16 inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.down = nn.Conv2d(4, 4, 3, padding=1)
        self.gate = nn.Conv2d(4, 4, 1)
        self.scale = nn.Parameter(torch.tensor([0.5, 0.0, 2.0, 1.0]).view(4, 1, 1))
        self.qkv = nn.Linear(4, 12)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.stem.weight
        deviation, mean = torch.std_mean(weight, (1, 2, 3), keepdim=True)
        x = nn.functional.max_pool2d(nn.functional.conv2d(x, (weight - mean) / deviation, padding=1), 3, 2, 1)
        x = x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid() + self.scale * nn.functional.pad(x, (0, 1, 1, 0))[
            :, :, :8, 1:
        ].roll(1, 2)
        x = nn.functional.avg_pool2d(torch.cat([self.down(x), 2 * x], 1)[:, 2:6], 2)
        q, k, v = self.qkv(x.flatten(2).transpose(1, 2)).chunk(3, 2)
        y = (q @ k.mT).softmax(2) @ v - v.mean(1, keepdim=True)
        logits: Tensor = self.head(torch.cat([y.mean(1), x.amax((2, 3))], 1))
        return logits


def test_connections_that_are_found_at_once_equal_single_derivatives() -> None:
    torch.manual_seed(0)
    walks = walker(Odd())
    for turn in range(200):
        walks.walk(turn, forward=turn % 2 == 0)
    linked = [step for step in walks.steps.values() if isinstance(step, Linked)]
    assert {type(step.links).__name__ for step in linked} >= {"Numbered", "MatrixProduct", "EachChannel"}
    for step in linked:
        slow = OneByOne(step.operation)
        for slot, shape in step.operation.signals.items():
            for i in range(0, math.prod(shape), 13):
                assert step.links.onward((slot, i)) == slow.onward((slot, i)), (step.operation.node, slot, i)
        for slot, shape in step.operation.outputs().items():
            for i in range(0, math.prod(shape), 13):
                assert step.links.back((slot, i)) == slow.back((slot, i)), (step.operation.node, slot, i)


def test_walks_pass_through_weights_that_are_standardised() -> None:
    torch.manual_seed(0)
    model = Odd()
    walks, stem = walker(model), model.stem.weight.numel()
    assert all(walks.walk(turn, forward=True)[0] < stem for turn in range(20))


def test_walks_through_excluded_layers_keep_no_weight_of_the_last_layer() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    with torch.no_grad():
        model[5].weight[3, 7] = 0  # never on a walk
    masks = pai_bench.prune(model, [(torch.zeros(1, 3, 2, 2), torch.zeros(1).long())], "phew", 0.8, exclude=["3"])
    assert not masks["5.weight"][3, 7]


@pytest.mark.parametrize("forward", [True, False])
def test_walks_pass_every_weight_with_the_probability_of_the_paper(forward: bool) -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 2)).double().eval()
    weights = {name: p.detach() for name, p in model.named_parameters() if p.ndim > 1}
    start, number = 1, 400
    # The chance to be at a unit, layer by layer, times the chance of the next weight: |w| over the sum at the unit.
    at = torch.zeros(4 if forward else 2, dtype=torch.float64)
    at[start] = 1
    chances = []
    for weight in list(weights.values())[:: 1 if forward else -1]:
        size = weight.abs()
        passed = size / size.sum(0) * at if forward else size / size.sum(1, keepdim=True) * at[:, None]
        at = passed.sum(1 if forward else 0)
        chances.append(passed.flatten())
    expected = torch.cat(chances[:: 1 if forward else -1])
    graph = trace(model, torch.ones(1, 4, dtype=torch.float64))
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    walks = Walker(graph, parameters, list(weights), torch.Generator().manual_seed(1))
    counts = torch.zeros_like(expected)
    for _ in range(number):
        counts[walks.walk(start, forward)] += 1
    deviation = (number * expected * (1 - expected) + 1).sqrt()
    assert ((counts - number * expected).abs() / deviation).max() < 5
