"""Laws that the methods obey whatever the network."""

from __future__ import annotations

import copy
import sys
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pai_bench
from pai_bench.pruning import pruner
from pai_bench.pruning.pruner import Pruner
from pai_bench.pruning.selection import keep_exactly
from pai_bench.scoring import registry
from pai_bench.scoring.layer_budgets import apportion, erdos_renyi_kernel

from .nets import BRIEF, batches, flat, tiny


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max()).item()


def test_all_methods_of_the_first_release_exist() -> None:
    expected = {"dense", "random", "uniform", "erk", "magnitude", "snip", "grasp", "synflow", "prospr"}
    assert expected <= set(pai_bench.list_methods())


def test_prospr_without_inner_steps_is_snip() -> None:
    model, data = tiny(), batches(1)
    prospr = pai_bench.score(model, data, "prospr", steps=0)
    assert relative(flat(prospr), flat(pai_bench.score(model, data, "snip"))) < 1e-12


@pytest.mark.parametrize("method", ["iterative-snip", "force"])
def test_one_round_is_snip(method: str) -> None:
    model, data = tiny(), batches(1)
    once = pai_bench.prune(model, data, method, sparsity=0.9, rounds=1)
    assert torch.equal(flat(once), flat(pai_bench.prune(model, data, "snip", sparsity=0.9)))


@pytest.mark.slow
@pytest.mark.parametrize(("method", "revives"), [("iterative-snip", False), ("force", True)])
def test_force_alone_lets_pruned_weights_come_back(method: str, revives: bool) -> None:
    rounds: list[torch.Tensor] = []

    def select(scores: torch.Tensor, candidates: torch.Tensor, density: float, count: int) -> torch.Tensor:
        rounds.append(keep_exactly(scores, candidates, density, count))
        return rounds[-1]

    task = Pruner(tiny(), batches(10), registry.get(method, {"rounds": 10}), name=method)
    task.masks(0.9, select)
    returned = [int((later & ~earlier).sum()) for earlier, later in pairwise(rounds)]
    assert any(returned) == revives
    assert [int(kept.sum()) for kept in rounds] == [round(task.size * 0.1 ** (t / 10)) for t in range(1, 11)]


@pytest.mark.slow
def test_prospr_with_one_detached_step_is_first_order() -> None:
    model, data = tiny(), batches(2)
    options = {"steps": 1, "momentum": 0.9, "lr": 0.1}
    detached = pai_bench.score(model, data, "prospr", detach_first_buffer=True, **options)
    first_order = pai_bench.score(model, data, "prospr", variant="first_order", **options)
    full = pai_bench.score(model, data, "prospr", **options)
    assert relative(flat(detached), flat(first_order)) < 1e-12
    assert relative(flat(full), flat(first_order)) > 1e-3


@pytest.mark.parametrize("new_batches", [True, False])
def test_prospr_meta_gradient_agrees_with_finite_differences(new_batches: bool) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 7), nn.Tanh(), nn.Linear(7, 10)).double()
    data = [(x.double(), y) for x, y in batches(4)]
    steps, lr, momentum = 3, 0.2, 0.9
    used = data if new_batches else data[:1] * 4

    def meta_loss(scale: float) -> float:
        params = {name: p.detach().clone() for name, p in model.named_parameters()}
        params["1.weight"][2, 5] *= scale
        buffers: dict[str, torch.Tensor] = {}
        for x, y in used[:steps]:
            leaves = {name: p.requires_grad_() for name, p in params.items()}
            loss = F.cross_entropy(torch.func.functional_call(model, leaves, (x,)), y)
            gradients = torch.autograd.grad(loss, list(leaves.values()))
            for (name, p), g in zip(leaves.items(), gradients, strict=True):
                buffers[name] = momentum * buffers[name] + g if name in buffers else g
                params[name] = (p - lr * buffers[name]).detach()
        x, y = used[steps]
        return F.cross_entropy(torch.func.functional_call(model, params, (x,)), y).item()

    numeric = abs(meta_loss(1 + 1e-5) - meta_loss(1 - 1e-5)) / 2e-5
    scores = pai_bench.score(model, data, "prospr", lr=lr, momentum=momentum, new_batches=new_batches)
    assert scores["1.weight"][2, 5].item() == pytest.approx(numeric, rel=1e-5)


def test_synflow_conserves_the_flow_through_every_layer() -> None:
    layers = [nn.Flatten(), nn.Linear(108, 20, bias=False), nn.ReLU(), nn.Linear(20, 15, bias=False), nn.ReLU()]
    scores = pai_bench.score(nn.Sequential(*layers, nn.Linear(15, 10, bias=False)), batches(1), "synflow")
    sums = torch.stack([score.sum() for score in scores.values()])
    assert relative(sums, sums[0].expand_as(sums)) < 1e-12


@pytest.mark.parametrize("relu", [nn.ReLU(), nn.ReLU(inplace=True), F.relu, torch.relu, torch.Tensor.relu])
def test_px_equals_the_formula_of_its_paper(relu: object) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(108, 7), nn.Linear(7, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(relu(self.first(x.flatten(1))))  # type: ignore[operator]

    model, ((x, y),) = Net().double(), batches(1)
    scores = pai_bench.score(model, [(x, y)], "px")
    x = x.flatten(1).double()
    a, b = model.first.weight.detach().square(), model.second.weight.detach().square()
    gates = (model.first(x).detach() > 0).double()
    # All outputs of h are alike: every weight is 1.
    open_paths = (x.square().sum(1, keepdim=True) * gates).sum()
    expected = torch.cat([(open_paths * a * b.sum(0)[:, None]).flatten(), (open_paths * b * a.sum(1)).flatten()])
    ours = flat(scores)
    assert relative(ours / ours.sum(), expected / expected.sum()) < 1e-12


def test_px_gives_every_layer_of_a_chain_the_same_sum() -> None:
    sums = torch.stack([score.sum() for score in pai_bench.score(tiny(), batches(2), "px").values()])
    assert relative(sums, sums[0].expand_as(sums)) < 1e-12 and sums[0] > 0


@pytest.mark.slow
def test_grasp_agrees_with_finite_differences() -> None:
    model, data, temperature = tiny().double(), batches(2), 3.0
    data = [(x.double(), y) for x, y in data]
    names = ["conv1.weight", "conv2.weight", "fc.weight"]

    def gradient(shift: dict[str, torch.Tensor], size: float) -> dict[str, torch.Tensor]:
        moved = copy.deepcopy(model)
        with torch.no_grad():
            for name in names:
                moved.get_parameter(name).add_(shift[name], alpha=size)
        loss = sum(F.cross_entropy(moved(x) / temperature, y) for x, y in data) / 2
        return dict(zip(names, torch.autograd.grad(loss, [moved.get_parameter(n) for n in names]), strict=True))

    g = gradient({name: torch.zeros_like(model.get_parameter(name)) for name in names}, 0.0)
    up, down = gradient(g, 1e-5), gradient(g, -1e-5)
    numeric = {name: model.get_parameter(name) * (up[name] - down[name]) / 2e-5 for name in names}
    scores = pai_bench.score(model, data, "grasp", temperature=temperature)
    assert relative(flat(scores), flat(numeric)) < 1e-5


@pytest.mark.parametrize("method", ["snip", "grasp"])
def test_batches_are_weighted_by_their_samples(method: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 6), nn.ReLU(), nn.Linear(6, 10))
    (x, y), *_ = batches(1, size=12)
    whole = pai_bench.score(model, [(x, y)], method)
    parts = pai_bench.score(model, [(x[:5], y[:5]), (x[5:], y[5:])], method)
    assert relative(flat(parts), flat(whole)) < 1e-12


@pytest.mark.parametrize("method", ["snip", "grasp"])
def test_batchnorm_mode_is_an_option(method: str) -> None:
    model, data = tiny(), batches(1)
    train, evaluation = (flat(pai_bench.score(model, data, method, bn=bn)) for bn in ("train", "eval"))
    assert relative(train, evaluation) > 1e-3
    with pytest.raises(pai_bench.PaiBenchError, match="'train' or 'eval'"):
        pai_bench.score(model, data, method, bn="both")


def test_erk_is_solved_until_no_density_exceeds_one() -> None:
    shapes = {"conv1": (16, 3, 3, 3), "conv2": (64, 64, 3, 3), "fc": (10, 64)}
    for density in (0.5, 0.2, 0.05):
        total = round(density * (432 + 36864 + 640))
        shares = erdos_renyi_kernel(shapes, total)
        assert sum(shares.values()) == pytest.approx(total)
        assert all(shares[name] <= torch.tensor(shape).prod() for name, shape in shapes.items())
        free = [name for name, shape in shapes.items() if shares[name] < torch.tensor(shape).prod()]
        assert len({round(shares[name] / sum(shapes[name]), 9) for name in free}) == 1


def test_apportion_hits_the_total() -> None:
    assert apportion({"a": 1.5, "b": 2.5, "c": 3.0}, 7) == {"a": 2, "b": 2, "c": 3}
    with pytest.raises(ValueError, match="not to 9"):
        apportion({"a": 1.5, "b": 2.5}, 9)


def test_uniform_has_the_same_density_in_every_layer() -> None:
    masks = pai_bench.prune(tiny(), [], "uniform", sparsity=0.75)
    assert all(abs(int(mask.sum()) - 0.25 * mask.numel()) <= 1 for mask in masks.values())


@pytest.mark.parametrize("method", ["random", "uniform", "erk"])
def test_random_masks_follow_from_the_seed(method: str) -> None:
    masks = [flat(pai_bench.prune(tiny(), [], method, sparsity=0.5, seed=seed)) for seed in (0, 0, 1)]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
@pytest.mark.parametrize("method", pai_bench.list_methods())
def test_scores_are_on_the_device_of_the_network(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On PyTorch's device without numbers, where a tensor of the CPU among the others is an error as on a GPU."""
    monkeypatch.setattr(
        pruner, "checked_scores", lambda _, scores, weights, __: {name: scores[name] for name in weights}
    )
    rounds = {"rounds": 2} if hasattr(registry.get(method), "rounds") else BRIEF.get(method, {})
    data = [(x.to("meta"), y.to("meta")) for x, y in batches(8)]
    scores = Pruner(tiny().to("meta"), data, registry.get(method, rounds), name=method).score(0.9)
    assert {score.device.type for score in scores.values()} == {"meta"}


def test_no_method_file_has_the_name_of_a_standard_module() -> None:
    homes = {registry.method_class(name).__module__.rpartition(".")[2] for name in registry.names()}
    assert not homes & set(sys.stdlib_module_names)
