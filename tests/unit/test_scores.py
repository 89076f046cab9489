"""Scores of the second-order, flow and iterative methods obey the laws of their formulas."""

from __future__ import annotations

import itertools
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pai_bench
from pai_bench.pruning.pruner import Pruner
from pai_bench.pruning.selection import keep_exactly
from pai_bench.scoring import registry

from .nets import batches, flat, tiny


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max()).item()


def small() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(nn.Flatten(), nn.Linear(108, 4), nn.Tanh(), nn.Linear(4, 10)).double()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fisher", "fisher-pruning", "fts"])
def test_fisher_scores_are_means_over_samples_however_they_are_batched(method: str) -> None:
    ((x, y),) = batches(1)
    whole = flat(pai_bench.score(tiny(), [(x, y)], method))
    parts = flat(pai_bench.score(tiny(), [(x[:5], y[:5]), (x[5:], y[5:])], method))
    assert relative(parts, whole) < 1e-12
    singles = [(x[i : i + 1], y[i : i + 1]) for i in range(len(x))]
    assert relative(flat(pai_bench.score(tiny(), singles, method, per="batch")), whole) < 1e-12


def test_one_batch_without_samples_apart_is_the_square_of_the_gradient() -> None:
    data = batches(1)
    norm = flat(pai_bench.score(tiny(), data, "grad-norm"))
    assert relative(flat(pai_bench.score(tiny(), data, "fisher", per="batch")), norm.square()) < 1e-12
    weights = flat({n: p.detach() for n, p in tiny().named_parameters() if p.ndim > 1}).double()
    assert relative(weights.abs() * norm, flat(pai_bench.score(tiny(), data, "snip", bn="eval"))) < 1e-12


@pytest.mark.slow
def test_fisher_taylor_is_the_sum_of_its_two_terms() -> None:
    data = batches(1)
    weights = flat({n: p.detach() for n, p in tiny().named_parameters() if p.ndim > 1}).double()
    signed = flat(pai_bench.score(tiny(), data, "fts", ranking="signed"))
    first_order = signed - flat(pai_bench.score(tiny(), data, "fisher-pruning"))
    assert relative(first_order.abs(), flat(pai_bench.score(tiny(), data, "snip", bn="eval"))) < 1e-12
    assert torch.equal(signed.abs(), flat(pai_bench.score(tiny(), data, "fts")))
    assert bool((first_order.sign() * weights.sign() != 0).any())


@pytest.mark.slow
def test_hutchinson_over_all_probes_is_the_diagonal_of_the_hessian(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2, bias=False)).double()
    x, y, weight = torch.randn(7, 3, dtype=torch.float64), torch.arange(7) % 2, model[1].weight.detach()

    def loss(w: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(F.linear(x, w) / 2, y)

    exact = torch.autograd.functional.hessian(loss, weight).reshape(6, 6).diagonal().view(2, 3)
    signs = itertools.cycle(itertools.product((-1.0, 1.0), repeat=6))
    home = sys.modules[registry.method_class("hutchinson").__module__]
    monkeypatch.setattr(home, "rademacher", lambda like, _: torch.tensor(next(signs)).to(like).view_as(like))
    options = {"probes": 64, "temperature": 2.0}
    found = {
        method: pai_bench.score(model, [(x[:3], y[:3]), (x[3:], y[3:])], method, **options)["1.weight"]
        for method in ("hutchinson", "hutchinson:ranking=absolute", "hutchinson-pruning", "hts")
    }
    assert relative(found["hutchinson"], exact) < 1e-12
    assert torch.equal(found["hutchinson:ranking=absolute"], found["hutchinson"].abs())
    assert relative(found["hutchinson-pruning"], weight.square() * exact / 2) < 1e-12
    slope = torch.autograd.functional.jacobian(loss, weight)
    assert relative(found["hts"], (weight * slope + weight.square() * exact / 2).abs()) < 1e-12
    with pytest.raises(pai_bench.PaiBenchError, match="'signed' or 'absolute'"):
        pai_bench.score(model, [(x, y)], "hts", ranking="both")


def test_signed_and_absolute_hutchinson_keep_other_weights() -> None:
    signed, absolute = (
        flat(pai_bench.prune(tiny(), batches(1), "hutchinson", sparsity=0.8, probes=2, ranking=ranking))
        for ranking in ("signed", "absolute")
    )
    assert int(signed.sum()) == int(absolute.sum()) and int((signed & absolute).sum()) < 0.9 * int(signed.sum())


@pytest.mark.slow
def test_the_temperature_weighs_the_terms_of_hutchinson_taylor() -> None:
    data = batches(1)
    snip = flat(pai_bench.score(tiny(), data, "snip", bn="eval"))
    # Without the second term, which falls with the square of the temperature, it is SNIP on logits / temperature.
    cold, hot = (flat(pai_bench.score(tiny(), data, "hts", temperature=t, probes=1)) * t for t in (1.0, 1e6))
    assert relative(cold, snip) > 1e-3
    uniform_softmax = flat(pai_bench.score(tiny(), data, "hts", temperature=1e7, probes=1)) * 1e7
    assert relative(hot, uniform_softmax) < 1e-4


@pytest.mark.slow
def test_absolute_grasp_is_the_absolute_value_of_grasp() -> None:
    data = batches(2)
    plain, absolute = (pai_bench.score(tiny(), data, "grasp", absolute=absolute) for absolute in (False, True))
    assert torch.equal(flat(plain).abs(), flat(absolute)) and bool((flat(plain) < 0).any())


@pytest.mark.slow
def test_grasp_in_rounds_scores_the_pruned_network_again() -> None:
    data = batches(2)
    once, twice, thrice = (flat(pai_bench.prune(tiny(), data, "grasp", sparsity=0.9, rounds=r)) for r in (1, 1, 3))
    assert torch.equal(once, twice) and not torch.equal(once, thrice) and int(thrice.sum()) == 48


def test_one_round_of_iterative_grasp_is_the_squared_gradient() -> None:
    scores = pai_bench.score(tiny(), batches(1), "iterative-grasp", rounds=1)
    snip = pai_bench.score(tiny(), batches(1), "snip")
    for name, weight in tiny().named_parameters():
        if weight.ndim > 1:
            assert relative(scores[name] * weight.detach().double().square(), snip[name].square()) < 1e-12


def test_synflow_l2_of_a_chain_is_the_path_sum_of_squares() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 7, bias=False), nn.ReLU(), nn.Linear(7, 10, bias=False))
    a, b = (model[i].weight.detach().double() for i in (1, 3))
    scores = pai_bench.score(model, batches(1), "synflow-l2")
    assert relative(scores["1.weight"], a.abs() * b.square().sum(0)[:, None]) < 1e-12
    assert relative(scores["3.weight"], b.abs() * a.square().sum(1)) < 1e-12


def test_multiflow_of_linear_layers_is_its_formula_with_the_counts_of_magnitude() -> None:
    model, data = small(), batches(2)
    x = torch.cat([x for x, _ in data]).double().flatten(1)
    w = model[1].weight.detach()
    signal = w.abs() * (x.square().sum(0) / len(x)).sqrt()
    expected = w.abs() * signal.mean(1, keepdim=True) * signal.mean(0)
    assert relative(pai_bench.score(model, data, "multiflow")["1.weight"], expected) < 1e-12
    ours, magnitude = (pai_bench.prune(model, data, method, sparsity=0.8) for method in ("multiflow", "magnitude"))
    assert [int(m.sum()) for m in ours.values()] == [int(m.sum()) for m in magnitude.values()]
    assert not torch.equal(flat(ours), flat(magnitude))


@pytest.mark.parametrize("transposed", [False, True])
def test_multiflow_of_a_convolution_is_the_linear_layer_of_its_patches(transposed: bool) -> None:
    """A 1x1 convolution in groups is one linear layer a group."""
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    conv = kind(6, 4, 1, groups=2, bias=False).double()
    x = torch.randn(5, 6, 3, 3, dtype=torch.float64)
    model = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    score = pai_bench.score(model, [(x, torch.arange(5) % 4)], "multiflow")["0.weight"]
    for group in range(2):
        w = conv.weight.detach()[3 * group : 3 * group + 3, :, 0, 0].T if transposed else None
        w = conv.weight.detach()[2 * group : 2 * group + 2, :, 0, 0] if w is None else w
        a = (x[:, 3 * group : 3 * group + 3].square().sum((0, 2, 3)) / 5).sqrt()
        expected = w.abs() * (w.abs() * a).mean(1, keepdim=True) * (w.abs() * a).mean(0)
        part = score[3 * group : 3 * group + 3, :, 0, 0].T if transposed else score[2 * group : 2 * group + 2, :, 0, 0]
        assert relative(part, expected) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "released"),
    [
        ("synflow", lambda density, size: size - int((1 - density) * size)),
        ("force", lambda density, size: int(size * density)),
        ("iterative-snip", lambda density, size: int(size * density)),
    ],
)
def test_the_released_count_holds_between_rounds_and_the_exact_one_at_the_end(method: str, released: object) -> None:
    for count in ("exact", "released"):
        kept: list[int] = []

        def select(scores: torch.Tensor, candidates: torch.Tensor, density: float, number: int) -> torch.Tensor:
            kept.append(number)  # noqa: B023
            return keep_exactly(scores, candidates, density, number)

        task = Pruner(tiny(), batches(6), registry.get(method, {"rounds": 6, "count": count}), name=method)
        task.masks(0.9, select)
        densities = [0.1 ** (t / 6) for t in range(1, 6)]
        rule = released if count == "released" else lambda density, size: round(density * size)
        assert kept == [*(rule(density, 482) for density in densities), 48]  # type: ignore[operator]
    with pytest.raises(pai_bench.PaiBenchError, match="'exact' or 'released'"):
        pai_bench.prune(tiny(), batches(1), method, count="both")
