"""Prunable weights: attention, recurrent layers and Conv1D, patterns, frozen weights, and excluded weights."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import pai_bench
from pai_bench import recipes
from pai_bench.errors import PaiBenchError
from pai_bench.pruning.effective import effective_masks
from pai_bench.pruning.pruner import Pruner
from pai_bench.scoring.layer_budgets import proportional

from .nets import BRIEF, batches, flat, tiny

PRUNING = [name for name in pai_bench.list_methods() if name != "dense"]
FEW = BRIEF | {name: {"rounds": 2} for name in ("synflow", "px", "ntk-sap", "force", "iterative-snip")}
DATA = [(torch.randn(6, 3, 6, generator=torch.Generator().manual_seed(i)), torch.arange(6) % 4) for i in range(4)]


class Conv1D(nn.Module):
    """A linear layer whose weight is [in, out], as in transformers/pytorch_utils.py."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf)), nn.Parameter(torch.zeros(nf))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.flatten(0, -2), self.weight).view(*x.shape[:-1], self.nf)


class Recurrent(nn.Module):
    def __init__(self, kind: Callable[..., nn.Module], **options: object) -> None:
        super().__init__()
        self.layer, self.head = kind(6, 8, batch_first=True, **options), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0].flatten(1)[:, -8:])


class Attention(nn.Module):
    def __init__(self, **options: int) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(6, 8), nn.Linear(8, 4)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True, **options)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.embed(x))
        other = hidden[..., : self.attend.kdim]
        return self.head((hidden + self.attend(hidden, other, other)[0]).mean(1))


class Convs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c, self.d = Conv1D(12, 6), Conv1D(4, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.d(torch.relu(self.c(x.mean(1, keepdim=True)))).squeeze(1)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "lstm": (
        lambda: Recurrent(nn.LSTM, num_layers=2),
        ["layer.weight_ih_l0", "layer.weight_hh_l0", "layer.weight_ih_l1", "layer.weight_hh_l1", "head.weight"],
    ),
    "gru": (lambda: Recurrent(nn.GRU), ["layer.weight_ih_l0", "layer.weight_hh_l0", "head.weight"]),
    "attention": (Attention, ["embed.weight", "head.weight", "attend.in_proj_weight", "attend.out_proj.weight"]),
    "cross attention": (
        lambda: Attention(kdim=4, vdim=4),
        [
            *("embed.weight", "head.weight", "attend.q_proj_weight", "attend.k_proj_weight", "attend.v_proj_weight"),
            "attend.out_proj.weight",
        ],
    ),
    "conv1d": (Convs, ["c.weight", "d.weight"]),
}


def network(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return NETWORKS[name][0]()


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("method", PRUNING)
def test_every_method_prunes_attention_recurrent_layers_and_conv1d(name: str, method: str) -> None:
    options = FEW.get(method, {})
    model = network(name)
    masks = pai_bench.prune(model, DATA, method, sparsity=0.5, **options)
    assert list(masks) == NETWORKS[name][1] == list(pai_bench.prunable(model).weights)
    assert int(flat(masks).sum()) == round(0.5 * flat(masks).numel())
    pai_bench.apply_masks(model, masks)
    nn.functional.cross_entropy(model(DATA[0][0]), DATA[0][1]).backward()
    assert not any(bool(model.get_parameter(name).grad[~mask].any()) for name, mask in masks.items())


@pytest.mark.slow
def test_conv1d_is_scored_as_the_linear_layer_that_it_is() -> None:
    model = network("conv1d")
    linear = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4))
    with torch.no_grad():
        for mine, theirs in ((linear[0], model.c), (linear[2], model.d)):
            mine.weight.copy_(theirs.weight.T)
            mine.bias.copy_(theirs.bias)
    flattened = [(x.double().mean(1), y) for x, y in DATA]
    for method in ("snip", "grasp", "synflow", "prospr", "px", "magnitude"):
        ours = pai_bench.score(model, DATA, method)
        theirs = pai_bench.score(linear, flattened, method)
        for one, other in zip(ours.values(), theirs.values(), strict=True):
            torch.testing.assert_close(one, other.T, rtol=1e-9, atol=1e-12)
    quotas = [int(m.sum()) for m in pai_bench.prune(model, DATA, "erk", sparsity=0.5).values()]
    assert quotas == [int(m.sum()) for m in pai_bench.prune(linear, flattened, "erk", sparsity=0.5).values()]


@pytest.mark.parametrize("name", NETWORKS)
def test_dense_attention_and_recurrent_layers_are_wholly_effective(name: str) -> None:
    model = network(name)
    kept = {key: torch.ones_like(model.get_parameter(key), dtype=torch.bool) for key in NETWORKS[name][1]}
    assert all(bool(mask.all()) for mask in effective_masks(model, kept, (3, 6)).values())


class Mixed(nn.Module):
    """A bare matrix, an embedding and a linear layer; 64, 32 and 32 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.table, self.head = nn.Parameter(torch.randn(8, 8)), nn.Embedding(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.table(x).mean(1) @ self.mix)


def test_weights_that_are_not_prunable_are_listed_with_a_warning() -> None:
    found = pai_bench.prunable(Mixed())
    assert found.weights == {"head.weight": 32} and found.left_out == {"mix": 64} and found.share == 1 / 3
    assert found.embeddings == {"table.weight": 32} and not found.frozen
    assert str(found).startswith("32 of 96 matrix weights are prunable (33.3 %); not prunable: mix (64)")
    data = [(torch.zeros(4, 2, dtype=torch.long), torch.arange(4))]
    with pytest.warns(UserWarning, match=r"Mixed: 32 of 96 matrix weights are prunable .* mix \(64\)"):
        pai_bench.prune(Mixed(), data, "magnitude", sparsity=0.5)
    pai_bench.prune(Mixed(), data, "magnitude", sparsity=0.5, only="head")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"only": "fc"}, ["fc.weight"]),
        ({"only": ["conv*"]}, ["conv1.weight", "conv2.weight"]),
        ({"exclude": "fc.weight"}, ["conv1.weight", "conv2.weight"]),
        ({"only": "*conv*", "exclude": ("conv1",)}, ["conv2.weight"]),
    ],
)
def test_patterns_choose_layers(options: dict[str, object], expected: list[str]) -> None:
    masks = pai_bench.prune(tiny(), batches(), "snip", sparsity=0.5, **options)  # type: ignore[arg-type]
    assert list(masks) == expected == list(pai_bench.prunable(tiny(), **options).weights)  # type: ignore[arg-type]
    assert int(flat(masks).sum()) == round(0.5 * flat(masks).numel())
    assert list(pai_bench.score(tiny(), batches(), "snip", **options)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"only": "cnov1"}, "only: 'cnov1' matches no prunable weight"),
        ({"exclude": "bn1"}, "exclude: 'bn1' matches no prunable weight"),
        ({"exclude": "*"}, "leave no weight"),
    ],
)
def test_patterns_that_choose_nothing_are_refused(options: dict[str, str], cause: str) -> None:
    with pytest.raises(PaiBenchError, match=cause) as caught:
        pai_bench.prune(tiny(), batches(), "snip", **options)  # type: ignore[arg-type]
    assert "conv1.weight" in caught.value.remedy


@pytest.mark.slow
def test_frozen_weights_are_left_alone_unless_named() -> None:
    model = tiny()
    model.conv1.requires_grad_(False)
    assert list(pai_bench.prune(model, batches(), "snip")) == ["conv2.weight", "fc.weight"]
    assert pai_bench.prunable(model).frozen == {"conv1.weight": 162}
    assert list(pai_bench.prune(model, batches(), "snip", only="conv*")) == ["conv1.weight", "conv2.weight"]
    model.requires_grad_(False)
    assert len(pai_bench.prune(model, batches(), "snip")) == 3


def test_recipes_hold_patterns_and_their_defaults_change_no_fingerprint() -> None:
    recipe = recipes.load("quick", "digits", "conv8")
    assert "only" not in recipe.identity()["scoring"] and "exclude" not in recipe.identity()["scoring"]
    (changed,) = recipes.variants(recipe, recipes.parse_settings(["scoring.exclude=fc,conv1.*"]))
    assert changed.scoring.exclude == ("fc", "conv1.*") and changed.identity() != recipe.identity()
    old = recipe.as_dict()
    del old["scoring"]["only"], old["scoring"]["exclude"]
    assert recipes.Recipe.from_dict(old) == recipe


# Pruning that continues from masks


@pytest.mark.slow
@pytest.mark.parametrize("method", pai_bench.list_methods())
def test_pruning_goes_on_from_the_masks_that_are_there(method: str) -> None:
    options = FEW.get(method, {})
    model = tiny()
    first = pai_bench.prune(model, batches(), "random", sparsity=0.5)
    pai_bench.apply_masks(model, first)
    second = pai_bench.prune(model, batches(), method, sparsity=0.7, **options)
    assert not any(bool((mask & ~first[name]).any()) for name, mask in second.items())
    kept = 241 if method == "dense" else 145
    assert int(flat(second).sum()) == kept == round((0.5 if method == "dense" else 0.3) * 482)
    same = pai_bench.prune(model, batches(), method, sparsity=0.5, **options)
    assert all(torch.equal(same[name], mask) for name, mask in first.items())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["random", "uniform", "erk", "grasp", "magnitude"])
def test_pruning_goes_on_from_the_zeros_that_removed_masks_leave(method: str) -> None:
    model = tiny()
    first = pai_bench.prune(model, batches(), "random", sparsity=0.5)
    pai_bench.apply_masks(model, first)
    pai_bench.remove_masks(model)
    copied = copy.deepcopy(model)
    second = pai_bench.prune(copied, batches(), method, sparsity=0.7)
    assert not any(bool((mask & ~first[name]).any()) for name, mask in second.items())
    assert int(flat(second).sum()) == 145
    with torch.no_grad():  # a weight that lives again is like any other
        for name in first:
            model.get_parameter(name).copy_(tiny().get_parameter(name))
    assert int(flat(pai_bench.prune(model, batches(), method, sparsity=0.2)).sum()) == 386
    pai_bench.apply_masks(copied, {name: torch.ones_like(mask) for name, mask in first.items()})
    assert int(flat(pai_bench.prune(copied, batches(), "random", sparsity=0.2)).sum()) == 386


def test_zeros_of_an_initialisation_may_be_kept() -> None:
    model = tiny()
    nn.init.zeros_(model.get_parameter("fc.weight"))
    assert bool(pai_bench.prune(model, batches(), "random", sparsity=0.5)["fc.weight"].any())


def test_densities_above_the_one_of_earlier_masks_are_refused() -> None:
    model = tiny()
    pai_bench.apply_masks(model, pai_bench.prune(model, batches(), "random", sparsity=0.5))
    with pytest.raises(PaiBenchError, match="keep 241 of 482 prunable weights, fewer than the 386") as caught:
        pai_bench.prune(model, batches(), "erk", sparsity=0.2)
    assert "remove_masks" in caught.value.remedy


def test_layers_that_are_nearly_empty_leave_their_share_to_the_others() -> None:
    assert proportional({"a": 1, "b": 1, "c": 2}, {"a": 2, "b": 100, "c": 100}, 32) == {"a": 2.0, "b": 10.0, "c": 20.0}
    with pytest.raises(ValueError, match="do not fit"):
        proportional({"a": 1}, {"a": 2}, 3)
    model = tiny()
    masks = {"conv2.weight": torch.zeros(5, 6, 3, 3, dtype=torch.bool)}
    masks["conv2.weight"][0] = True
    pai_bench.apply_masks(model, masks)
    for method in ("uniform", "erk"):
        found = pai_bench.prune(model, batches(), method, sparsity=0.5)
        assert int(found["conv2.weight"].sum()) == 54 and int(flat(found).sum()) == 241


def test_recurrent_layers_are_scored_without_cudnn() -> None:
    seen: list[bool] = []

    class Spy:
        def __call__(self, problem: object) -> dict[str, Tensor]:
            seen.append(torch.backends.cudnn.enabled)
            return dict(problem.weights)  # type: ignore[attr-defined]

    for model in (network("lstm"), network("conv1d")):
        Pruner(model, DATA, Spy(), name="spy").score(0.5)
    assert seen == [False, True] and torch.backends.cudnn.enabled
