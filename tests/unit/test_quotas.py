"""Layer quotas follow their formulas and meet every budget exactly, also where the releases fail."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import pai_bench
from pai_bench.cells import Cell
from pai_bench.errors import PaiBenchError
from pai_bench.experiment.run import Run
from pai_bench.recipes import load
from pai_bench.scoring import registry

from .nets import flat

NETS = {
    "mlp": nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)),
    "one layer": nn.Linear(30, 7),
    "two layers": nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 5)),
    "wide head": nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3), nn.Linear(192, 20), nn.Linear(20, 10)),
    "depthwise": nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 8, 1)),
}
METHODS = ["er", "balanced", "igq", "uniform-plus", "smart-ratio", "smart-ratio:vgg"]


def counts(net: str, spec: str, sparsity: float) -> list[int]:
    method, _, shape = spec.partition(":")
    masks = pai_bench.prune(NETS[net], [], method, sparsity=sparsity, **({"shape": shape} if shape else {}))
    return [int(mask.sum()) for mask in masks.values()]


def sizes(net: str) -> list[int]:
    return [p.numel() for p in NETS[net].parameters() if p.ndim > 1]


@pytest.mark.slow
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("method", METHODS)
def test_every_budget_is_met_exactly(net: str, method: str) -> None:
    for sparsity in (0.0, 0.05, 0.3, 0.5, 0.8, 0.9, 0.95, 0.98, 0.999):
        budget = round((1000 - round(1000 * sparsity)) * sum(sizes(net)) / 1000)
        if budget == 0:
            with pytest.raises(PaiBenchError, match=f"keeps none of the {sum(sizes(net))} prunable weights"):
                counts(net, method, sparsity)
            continue
        found = counts(net, method, sparsity)
        assert sum(found) == budget
        assert all(0 <= own <= size for own, size in zip(found, sizes(net), strict=True))


def test_balanced_keeps_the_same_number_in_every_layer_that_has_room() -> None:
    assert counts("mlp", "balanced", 0.9) == [113, 113, 113]
    # 1696 of 3392: the last layer of 320 is full, and the two others share 1376.
    assert counts("mlp", "balanced", 0.5) == [688, 688, 320]


def test_er_densities_are_proportional_to_the_sides_without_the_kernel() -> None:
    found = counts("depthwise", "er", 0.8)
    # (C_in + C_out) k k a layer: 19 * 9, 17 * 9 and 24.
    assert found == [round(141 * share / 348) for share in (171, 153, 24)]


def test_ideal_gas_densities_have_one_force() -> None:
    found, own = counts("mlp", "igq", 0.9), sizes("mlp")
    forces = [(size / kept - 1) / size for kept, size in zip(found, own, strict=True)]
    assert max(forces) == pytest.approx(min(forces), rel=0.02)


def test_uniform_plus_has_a_dense_first_layer_and_a_fifth_of_the_last() -> None:
    assert counts("wide head", "uniform-plus", 0.9) == [216, 47, 209, 40]
    assert counts("wide head", "uniform-plus", 0.5)[0] == 216
    first, *between, last = counts("wide head", "uniform-plus", 0.98)  # both exemptions are more than the budget
    assert between == [0, 2] and last / first == pytest.approx(40 / 216, abs=0.03)


def test_linear_layers_of_smart_ratio_leave_half_to_the_convolutions() -> None:
    for shape in ("resnet", "vgg"):
        convolutions, linear = counts("wide head", f"smart-ratio:{shape}", 0.9)[:2], sizes("wide head")[2:]
        assert sum(convolutions) == 256 and sum(linear) * 0.3 > 256


def test_the_hybrid_keeps_the_largest_weights_of_each_layer() -> None:
    masks = pai_bench.prune(NETS["wide head"], [], "smart-ratio", sparsity=0.8, hybrid=True)
    for name, mask in masks.items():
        weight = NETS["wide head"].get_parameter(name).detach().abs()
        assert weight[mask].min() >= weight[~mask].max()
    other = pai_bench.prune(NETS["wide head"], [], "smart-ratio", sparsity=0.8)
    assert [int(m.sum()) for m in masks.values()] == [int(m.sum()) for m in other.values()]
    assert not torch.equal(flat(masks), flat(other))


def test_quotas_start_from_existing_masks() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3), nn.Linear(12, 10))
    before = pai_bench.prune(model, [], "random", sparsity=0.6)
    pai_bench.apply_masks(model, before)
    for method in ("er", "balanced", "igq", "uniform-plus", "smart-ratio"):
        masks = pai_bench.prune(model, [], method, sparsity=0.65)
        assert bool((flat(masks) <= flat(before)).all()) and int(flat(masks).sum()) == 420


def test_an_added_hyper_parameter_is_in_the_fingerprint_only_at_other_values() -> None:
    recipe = load("quick", "digits", "conv8")

    def fingerprint(spec: str) -> str:
        return Run(Cell(spec, "digits", "conv8", 0.9, 0), recipe).fingerprint()

    cls = registry.method_class("uniform-plus")
    plain, changed = fingerprint("uniform-plus"), fingerprint("uniform-plus:last=0.3")
    without = type("Later", (cls,), {"added": ("last",), "__module__": cls.__module__})
    assert registry.identity(without()) == {}
    assert registry.identity(without(last=0.3)) == registry.identity(cls(last=0.3)) == {"last": 0.3}
    assert plain != changed
