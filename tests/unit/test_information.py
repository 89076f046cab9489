"""Scores without information (ties at the cut) are counted, and losses without information are refused."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pai_bench
from pai_bench.pruning.pruner import Pruner
from pai_bench.results import ties
from pai_bench.scoring import Problem, registry

from .nets import BRIEF, batches, flat, tiny


def zero_head() -> nn.Sequential:
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 10))
    nn.init.zeros_(model[3].weight)
    return model


DATA = [(torch.randn(10, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(10))]


def test_a_mask_decided_by_positions_is_reported_with_the_number_of_ties() -> None:
    """Without gradients behind a head of zeros, and with weights of zero in it, all scores are zero."""
    with pytest.warns(pai_bench.TiedScoresWarning, match="371 of the 371 kept weights have the same score"):
        pai_bench.prune(zero_head(), DATA, "snip", sparsity=0.8)


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name in pai_bench.list_methods() if name != "magnitude"])
def test_no_method_warns_without_ties(method: str) -> None:
    fewer = {"rounds": 2} if "rounds" in registry.hyperparameters(registry.get(method)) else BRIEF.get(method, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error", pai_bench.TiedScoresWarning)
        pai_bench.prune(tiny(), batches(), method, sparsity=0.9, **fewer)


@pytest.mark.parametrize("method", ["magnitude", "random", "uniform", "erk", "dense"])
def test_ties_of_methods_without_data_are_not_reported(method: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", pai_bench.TiedScoresWarning)
        pai_bench.prune(zero_head(), DATA, method, sparsity=0.1)


def test_kept_weights_tied_with_pruned_ones_are_counted() -> None:
    scores = {"a": torch.tensor([3.0, 2, 2]), "b": torch.tensor([[2.0, 2], [1, 0]])}
    everything = {name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()}
    kept = {"a": torch.tensor([True, True, True]), "b": torch.tensor([[True, False], [False, False]])}
    assert ties.at_cut(scores, everything, kept, layers=False) == 3
    assert ties.at_cut(scores, everything, kept, layers=True) == 1
    assert ties.at_cut(scores, kept, kept, layers=False) == 0  # nothing is pruned now
    lowest = {"a": torch.tensor([False] * 3), "b": torch.tensor([[True, False], [True, True]])}
    assert ties.at_cut(scores, everything, lowest, layers=False) == 1


def cancelling(seed: int = 0, mean: bool = True) -> nn.Module:
    """Behind instance norm, the mean over all places is 0: exact gradients are 0, and computed ones rounding errors."""
    layers = [nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.InstanceNorm2d(8)]
    layers += [nn.AdaptiveAvgPool2d(1 if mean else 2), nn.Flatten(), nn.Linear(8 if mean else 32, 10)]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(*layers).apply(lambda m: m.reset_parameters() if hasattr(m, "reset_parameters") else None)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("method", "settings"), [("snip", {}), ("force", {"rounds": 2}), ("iterative-snip", {"rounds": 2}), ("grasp", {})]
)
def test_scores_that_are_rounding_errors_count_as_ties(method: str, settings: dict[str, int], dtype: str) -> None:
    task = Pruner(cancelling(), batches(1), registry.get(method, settings), name=method, dtype=dtype)
    masks = task.masks(0.8)
    kept = int(flat(masks).sum())
    assert task.noise > 0 and task.tied_at_cut > 0.9 * kept
    if not settings:
        scores = task.score(0.8)
        assert 0 < float(flat(scores).abs().max()) < (1e-12 if dtype == "float64" else 1e-4)
        assert 0 < task.noise <= float(flat(scores).abs().max())
    with pytest.warns(pai_bench.TiedScoresWarning, match="up to rounding errors"):
        pai_bench.prune(cancelling(), batches(1), method, sparsity=0.8, dtype=dtype, **settings)


@pytest.mark.parametrize("scale", [1e-9, 1.0])
@pytest.mark.parametrize("method", ["snip", "grasp", "ntk-sap", "random"])
def test_exact_small_scores_are_not_rounding_errors(method: str, scale: float) -> None:
    """A loss of another unit scales the scores, and weights that change by 1e-12 change them by as much."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return scale * F.cross_entropy(outputs, targets)

    settings = {"rounds": 1, "repeats": 1} if method == "ntk-sap" else {}
    given = {} if method in ("ntk-sap", "random") else {"loss": loss}
    scorer = registry.get(method, settings)
    task = Pruner(cancelling(mean=False), batches(1), scorer, name=method, **given)  # type: ignore[arg-type]
    masks = task.masks(0.8)
    assert task.noise == 0 and task.tied_at_cut == 0
    assert int(flat(masks).sum()) == round(0.2 * flat(masks).numel())


@pytest.mark.slow
def test_the_second_scoring_changes_neither_masks_nor_scores() -> None:
    plain = Pruner(cancelling(), batches(1), registry.get("snip"), name="snip")
    plain.warns_of_ties = False
    other = Pruner(cancelling(), batches(1), registry.get("snip"), name="snip")
    assert torch.equal(flat(plain.score(0.8)), flat(other.score(0.8))) and other.noise > plain.noise == 0
    assert torch.equal(flat(plain.masks(0.8)), flat(other.masks(0.8)))


def test_rounding_errors_at_the_cut_are_ties_and_elsewhere_they_are_not() -> None:
    scores = {"a": torch.tensor([3.0, 1e-17, -2e-17, 5e-18]), "b": torch.tensor([2.0, 3e-17, 1.0, -4.0])}
    everything = {name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()}
    cut = {"a": torch.tensor([True, True, False, False]), "b": torch.tensor([True, True, True, False])}
    assert ties.at_cut(scores, everything, cut, layers=False) == 0
    assert ties.at_cut(scores, everything, cut, layers=False, noise=3e-17) == 2
    # The pruned weight is far below all rounding errors.
    above = {"a": torch.tensor([True] * 4), "b": torch.tensor([True, True, True, False])}
    assert ties.at_cut(scores, everything, above, layers=False, noise=3e-17) == 0


@pytest.mark.slow
@pytest.mark.parametrize("ordinal", [True, False])
def test_scores_that_are_ranks_have_no_rounding_errors(ordinal: bool) -> None:
    """Ranks of random draws change with the last bit of a weight, and small scores (1 of 32 here) lead to a test."""

    class Ranks:
        def __call__(self, problem: Problem) -> dict[str, Tensor]:
            parts = {name: (w.double() * 1e12) % 1 for name, w in problem.weights.items()}
            return {name: (1 + part).where(part > 1 / 32, 1e-13 * part) for name, part in parts.items()}

    if ordinal:
        Ranks.ordinal = True  # type: ignore[attr-defined]
    pruner = Pruner(tiny(), batches(), Ranks(), name="ranks")
    pruner.masks(0.5)
    assert (pruner.noise == 0, pruner.tied_at_cut <= 1) == (ordinal, ordinal)
    assert registry.get("phew").ordinal  # type: ignore[attr-defined]


def test_ties_of_the_last_round_count(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Pruner(zero_head(), DATA, registry.get("force", {"rounds": 3}), name="force")
    masks = task.masks(0.8)
    assert task.tied_at_cut == int(flat(masks).sum())
    task = Pruner(tiny(), batches(), registry.get("snip"), name="snip")
    task.masks(0.8)
    assert task.tied_at_cut == 0


def classifier(outputs: int, shape: Callable[[Tensor], Tensor] = lambda y: y) -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, outputs))

        def forward(self, x: Tensor) -> Tensor:
            return shape(self.body(x))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net()


X = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
SILENT = {
    "one logit": (classifier(1), torch.zeros(4, dtype=torch.long), "one logit is constant"),
    "one logit, float targets": (classifier(1), torch.rand(4, 1), "one logit is constant"),
    "flat logits": (classifier(1, lambda y: y[:, 0]), torch.rand(4), "needs logits [B, classes]"),
    "flat logits, indices": (classifier(1, lambda y: y[:, 0]), torch.arange(4) % 2, "needs logits [B, classes]"),
    "all ignored": (classifier(3), torch.full((4,), -100), "all labels of a scoring batch are ignored"),
    "floats [B]": (classifier(3), torch.rand(4), "not class indices"),
    "floats [B, 1]": (classifier(3), torch.rand(4, 1), "for targets [4, 1]"),
    "one-hot integers": (classifier(3), torch.eye(4, 3).long(), "one-hot"),
}


@pytest.mark.parametrize("method", ["snip", "grasp", "prospr"])
@pytest.mark.parametrize(("model", "y", "words"), SILENT.values(), ids=list(SILENT))
def test_a_constant_loss_is_refused(method: str, model: nn.Module, y: Tensor, words: str) -> None:
    with pytest.raises(pai_bench.PaiBenchError, match=re.escape(words)):
        pai_bench.prune(model, [(X, y)] * 4, method)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda outputs, targets: (outputs - targets).square(), "the loss returned a tensor [4, 3]"),
        (lambda outputs, targets: 1.0, "the loss returned a float"),
        (lambda outputs, targets: outputs.softmax(1).sum(), "does not change with the outputs"),
        (lambda outputs, targets: targets.double().mean(), "does not change with the outputs"),
        (nn.CrossEntropyLoss(reduction="sum"), "reduction='sum'"),
        ("hinge", "unknown loss 'hinge'"),
        (3, "an object of type int"),
    ],
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_unusable_losses_are_refused(loss: Any, words: str, dtype: str) -> None:
    with pytest.raises(pai_bench.PaiBenchError, match=re.escape(words)):
        pai_bench.score(classifier(3), [(X, torch.rand(4, 3))], "snip", loss=loss, dtype=dtype)


def expected(model: nn.Module, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """SNIP's scores by hand."""
    model = model.double()
    weights = [parameter for name, parameter in model.named_parameters() if "weight" in name]
    gradients = torch.autograd.grad(loss(model(X.double())), weights)
    return torch.cat([(w * g).abs().flatten() for w, g in zip(weights, gradients, strict=True)]).detach()


@pytest.mark.parametrize("flat_logits", [False, True])
@pytest.mark.parametrize("loss", ["binary-cross-entropy", F.binary_cross_entropy_with_logits])
def test_a_binary_classifier_is_scored_by_its_loss(loss: Any, flat_logits: bool) -> None:
    model, y = classifier(1, (lambda y: y[:, 0]) if flat_logits else lambda y: y), torch.tensor([0.0, 1, 1, 0])
    y = y if flat_logits else y[:, None]
    found = flat(pai_bench.score(model, [(X, y)], "snip", loss=loss))
    wanted = expected(model, lambda outputs: F.binary_cross_entropy_with_logits(outputs, y.double()))
    assert torch.allclose(found, wanted, rtol=1e-12, atol=0)


def test_regression_is_scored_with_mean_squared_errors_over_all_samples() -> None:
    model, y = classifier(2), torch.randn(4, 2, generator=torch.Generator().manual_seed(2))
    parts = [(X[:3], y[:3]), (X[3:], y[3:])]
    found = flat(pai_bench.score(model, parts, "snip", loss=nn.MSELoss()))
    wanted = expected(model, lambda outputs: (outputs - y.double()).square().mean())
    assert torch.allclose(found, wanted, rtol=1e-12, atol=0)


def test_a_module_as_a_loss_is_cast_and_not_changed() -> None:
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2, 3]))
    assert len(pai_bench.score(classifier(3), [(X, torch.tensor([0, 1, 2, 0]))], "snip", loss=loss)) == 2
    assert loss.weight is not None and loss.weight.dtype == torch.float32


class Tokens(nn.Module):
    def __init__(self, shape: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.embedding, self.head, self.shape = nn.Embedding(7, 5), nn.Linear(5, 7), shape

    def forward(self, x: Tensor) -> Tensor:
        return self.shape(self.head(self.embedding(x)))


def test_all_shapes_of_a_language_model_give_the_same_scores() -> None:
    """Logits [B, V, T], and nanoGPT's [B·T, V], with targets [B, T] or [B·T]."""
    model = Tokens(lambda logits: logits.transpose(1, 2))
    x, y = (torch.randint(0, 7, (4, 6), generator=torch.Generator().manual_seed(n)) for n in range(2))
    wanted = flat(pai_bench.score(model, [(x[:1], y[:1]), (x[1:], y[1:])], "snip"))
    model.shape = lambda logits: logits.flatten(0, 1)
    for kept in ([(x[:1], y[:1]), (x[1:], y[1:])], [(x[:1], y[:1].flatten()), (x[1:], y[1:].flatten())]):
        assert torch.allclose(flat(pai_bench.score(model, kept, "snip")), wanted, rtol=1e-12, atol=0)
    model.shape = lambda logits: logits
    with pytest.raises(pai_bench.PaiBenchError, match="class indices"):
        pai_bench.score(model, [(x, y)], "snip")
