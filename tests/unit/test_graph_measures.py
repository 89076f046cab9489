"""Measures of masked networks: connectivity, cut edges and removable channels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import networkx
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pai_bench import models
from pai_bench.pruning.effective import record_forward
from pai_bench.pruning.measures import CHANNELS, GRAPH, attempted, bridges, channel_measures, graph_measures
from pai_bench.pruning.measures.recording import Recording
from pai_bench.pruning.shrinking import shrink
from pai_bench.scoring.problem import prunable


def masks_of_ones(model: nn.Module) -> dict[str, Tensor]:
    return {name: torch.ones_like(w, dtype=torch.bool) for name, w in prunable(model).items()}


def empty(model: nn.Module, *kept: tuple[str, tuple[int, ...]]) -> dict[str, Tensor]:
    masks = {name: torch.zeros_like(w, dtype=torch.bool) for name, w in prunable(model).items()}
    for name, place in kept:
        masks[name][place] = True
    return masks


def values(model: nn.Module, masks: dict[str, Tensor], shape: tuple[int, ...]) -> Mapping[str, float]:
    found = graph_measures(model, masks, shape)
    assert not found.absent
    return found.values


def reference(model: nn.Module, masks: dict[str, Tensor], shape: tuple[int, ...]) -> dict[str, int]:
    """The node measures of a network from an explicit graph, whose bridges networkx finds."""
    graph, network = record_forward(model, shape, torch.float64)
    ones = {name: torch.ones_like(p) for name, p in network.named_parameters()}
    recorded = Recording(graph, {**ones, **{name: mask.double() for name, mask in masks.items()}}).network()
    groups = recorded.nodes.groups()
    pairs: list[tuple[int, int]] = []
    for layer in recorded.layers:
        for inputs, outputs, kept, parts in layer.blocks():
            for o, i in np.argwhere(kept):
                i += o // (len(outputs) // parts) * kept.shape[1]
                targets, sources = recorded.nodes.expanded(outputs[o], inputs[i])
                pairs += zip(groups[sources].tolist(), groups[targets].tolist(), strict=True)
    plain = np.arange(1, recorded.nodes.count + 1)
    plain = plain[recorded.nodes.is_plain(plain)]
    many = networkx.MultiDiGraph(pairs)
    many.add_nodes_from(groups[plain].tolist())
    ends = {side: set(groups[numbers[numbers > 0]].tolist()) for side, numbers in
            (("in", recorded.inputs), ("out", recorded.outputs))}  # fmt: skip
    simple = networkx.Graph(pairs)
    times = Counter(map(frozenset, pairs))
    return {
        "nodes": len(many),
        "edges": len(pairs),
        "sink_nodes": sum(many.in_degree(n) > 0 == many.out_degree(n) and n not in ends["out"] for n in many),
        "source_nodes": sum(many.out_degree(n) > 0 == many.in_degree(n) and n not in ends["in"] for n in many),
        "disconnected_nodes": sum(many.degree(n) == 0 for n in many),
        "cut_edges": sum(times[frozenset(edge)] == 1 for edge in networkx.bridges(simple)),
    }


def test_units_and_nodes_of_a_perceptron_by_hand() -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))
    # unit 0: on a path; 1: fed only; 2: read only; 3: neither
    masks = empty(model, ("0.weight", (0, 0)), ("0.weight", (1, 1)), ("2.weight", (0, 0)), ("2.weight", (1, 2)))
    assert values(model, masks, (2,)) == {
        "units": 4,
        "disconnected_units": 1,
        "one_sided_units": 2,
        "nodes": 8,
        "edges": 4,
        "sink_nodes": 1,
        "source_nodes": 1,
        "disconnected_nodes": 1,
        "cut_edges": 4,
    }


@pytest.mark.slow
def test_an_edge_on_a_cycle_is_not_a_cut_edge() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    masks = masks_of_ones(model)
    assert values(model, masks, (2,))["cut_edges"] == 0
    masks["0.weight"][1, 1] = False  # input 1 hangs on unit 0; input 0, both units and the output are a cycle
    assert values(model, masks, (2,))["cut_edges"] == 1
    masks["0.weight"][1, 0] = False  # a tree
    assert values(model, masks, (2,))["cut_edges"] == 4


def test_positions_of_a_convolution_are_nodes_and_padding_is_none() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, bias=False))
    masks = empty(model, ("0.weight", (0, 0, 0, 1)))  # reads the row above
    found = values(model, masks, (1, 3, 3))
    # 9 pixels and 9 results; the first row of results reads padding, the last row of pixels is not read
    assert (found["nodes"], found["edges"], found["disconnected_nodes"]) == (18, 6, 6)
    assert found["cut_edges"] == 6
    masks = empty(model, ("0.weight", (0, 0, 1, 0)), ("0.weight", (0, 0, 1, 2)))
    assert values(model, masks, (1, 3, 3))["edges"] == 12


def test_a_pool_is_read_by_every_edge_that_follows() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2, 3))
    masks = empty(model, ("0.weight", (0, 0, 0, 0)), ("3.weight", (1, 0)))
    found = values(model, masks, (1, 2, 2))
    assert found["nodes"] == 4 + 8 + 3
    assert found["edges"] == 4 + 4  # four results are read through the pool
    assert (found["sink_nodes"], found["source_nodes"], found["cut_edges"]) == (0, 0, 8)
    assert found["disconnected_nodes"] == 4 + 2
    assert (found["units"], found["disconnected_units"], found["one_sided_units"]) == (2, 1, 0)


class Residual(nn.Module):
    """A convolution, and another one with an identity shortcut around it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x + self.inner(x.relu())
        return self.last(x.mean((2, 3)))


def test_a_shortcut_makes_its_ends_one_unit() -> None:
    model = Residual()
    masks = masks_of_ones(model)
    masks["inner.weight"][:] = False
    found = values(model, masks, (1, 1, 1))
    # the sum is fed by `first` and read by `last`: without the shortcut, the units of `inner` would feed nothing
    assert (found["units"], found["one_sided_units"], found["disconnected_units"]) == (2, 0, 0)
    assert (found["nodes"], found["edges"], found["sink_nodes"], found["source_nodes"]) == (5, 6, 0, 0)


def random_masks(model: nn.Module, density: float, seed: int) -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return {name: torch.rand(w.shape, generator=draws) < density for name, w in prunable(model).items()}


class Mixed(nn.Module):
    """Groups, stride, dilation, overlapping pools, concatenation, zero padding of channels, gates, adaptive pools."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=6)
        self.grouped = nn.Conv2d(6, 4, (1, 3), padding=(0, 1), groups=2)
        self.gate = nn.Linear(4, 4)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(10 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        x = F.max_pool2d(self.depthwise(x), 3, 1, 1) + x
        y = self.grouped(x)
        y = y * torch.sigmoid(self.gate(y.mean((2, 3))))[:, :, None, None]
        z = torch.cat([F.pad(y, (0, 0, 0, 0, 1, 1)), y], 1) + F.pad(x, (0, 0, 0, 0, 0, 4))
        return F.log_softmax(self.head(F.adaptive_avg_pool2d(z, 2).flatten(1)), 1)


@pytest.mark.slow
@pytest.mark.parametrize("density", [1.0, 0.3, 0.1])
@pytest.mark.parametrize("name", ["mixed", "resnet20", "conv8"])
def test_the_nodes_are_those_of_an_explicit_graph(name: str, density: float) -> None:
    side = 7 if name == "mixed" else 4
    model = Mixed() if name == "mixed" else models.build(name, 2, side, 3)
    if name != "mixed" and density > 0.1:
        density /= 20  # networks of many channels
    masks = random_masks(model, density, 1)
    found = values(model, masks, (2, side, side))
    expected = reference(model, masks, (2, side, side))
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("seed", range(6))
def test_bridges_are_those_of_networkx_also_when_the_edges_come_in_parts(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = np.random.default_rng(seed)
    count = 40
    pairs = draws.integers(0, count, (2, (32, 40, 60)[seed % 3]))
    monkeypatch.setattr(bridges, "PART", 7)
    groups = bridges.Groups(np.arange(count))
    for start in range(0, pairs.shape[1], 5):
        groups.add(*pairs[:, start : start + 5])
    groups.settle()
    both = [frozenset(pair) for pair in pairs.T.tolist()]
    simple = networkx.Graph(pair for pair in pairs.T.tolist() if pair[0] != pair[1])
    expected = [edge for edge in networkx.bridges(simple) if both.count(frozenset(edge)) == 1]
    assert groups.bridges.shape[1] == len(expected)
    assert 0 < len(expected) < len(pairs.T)


def test_few_edges_of_a_dense_network_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [0]
    add = bridges.Groups.add

    def counted(groups: bridges.Groups, one: bridges.Ints, other: bridges.Ints) -> None:
        listed[0] += len(one)
        add(groups, one, other)

    monkeypatch.setattr(bridges.Groups, "add", counted)
    layers = nn.Conv2d(3, 32, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(32, 32, 3, padding=1), nn.MaxPool2d(2)
    model = nn.Sequential(*layers, nn.Conv2d(32, 32, 3, padding=1), nn.Flatten(), nn.Linear(512, 10))
    found = values(model, masks_of_ones(model), (3, 16, 16))
    assert found["edges"] > 2_500_000 and found["cut_edges"] == 0
    assert listed[0] < found["edges"] / 5


def test_removable_channels_by_hand() -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))
    masks = masks_of_ones(model)
    masks["2.weight"][:, 0] = False  # channel 0 is not read
    masks["0.weight"][1:3] = False  # channels 1 and 2 are constant
    with torch.no_grad():
        model[0].bias.copy_(torch.tensor([1.0, -1.0, 1.0, 1.0]))  # ReLU makes channel 1 zero, and channel 2 one
    found = channel_measures(model, masks, (2,)).values
    assert found == {"channels": 4, "removable_channels": 2, "removable_channels_folded": 3}


def test_a_constant_behind_batch_norm_is_folded() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 1, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 1)).eval()
    masks = masks_of_ones(model)
    masks["0.weight"][:2] = False
    with torch.no_grad():
        model[1].bias.copy_(torch.tensor([-0.5, 0.5, 0.5]))
    found = channel_measures(model, masks, (1, 4, 4)).values
    assert found == {"channels": 3, "removable_channels": 1, "removable_channels_folded": 2}


@pytest.mark.slow
def test_removable_channels_are_those_that_shrink_removes() -> None:
    model = models.build("resnet20", 3, 8, 10)
    masks = random_masks(model, 0.01, 3)
    example = torch.zeros(2, 3, 8, 8)
    smaller = shrink(model, masks, example)
    layers = [
        (before.weight, after.weight)
        for before, after in zip(model.modules(), smaller.modules(), strict=True)
        if isinstance(before, (nn.Conv2d, nn.Linear)) and isinstance(after, (nn.Conv2d, nn.Linear))
    ]
    found = channel_measures(model, masks, (3, 8, 8)).values
    assert found["removable_channels_folded"] == sum(len(before) - len(after) for before, after in layers) > 0
    assert found["channels"] == sum(len(before) for before, _ in layers[:-1])
    assert found["removable_channels"] <= found["removable_channels_folded"]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(4, 1, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(x, x, x)[0].mean(1))


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.sum() > 0 else self.layer(-x)


def test_measures_that_cannot_be_computed_are_absent_with_a_reason() -> None:
    attention, untraceable = Attention(), Untraceable()
    found = attempted(graph_measures, GRAPH, attention, masks_of_ones(attention), (3, 4))
    assert not found.values
    assert found.absent["units"] == "no rule for a product of two signals in attention"
    found = attempted(channel_measures, CHANNELS, untraceable, masks_of_ones(untraceable), (3,))
    assert set(found.absent) == set(CHANNELS)
    assert found.absent["channels"].startswith("Untraceable cannot be traced by torch.fx")
    turned = nn.Sequential(nn.ConvTranspose2d(1, 2, 2), nn.Flatten(), nn.Linear(18, 2))
    found = attempted(graph_measures, GRAPH, turned, masks_of_ones(turned), (1, 2, 2))
    assert found.values["edges"] == 4 * 4 * 2 + 18 * 2
    assert found.absent == {"cut_edges": "no rule for transposed convolution in 0"}


def test_measuring_leaves_the_model_as_it_is() -> None:
    model = models.build("lenet-300-100", 1, 6, 10)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    masks = random_masks(model, 0.2, 0)
    for measure in (graph_measures, channel_measures):
        measure(model, masks, (1, 6, 6))
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
