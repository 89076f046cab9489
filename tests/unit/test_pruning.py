"""Laws of masks: exact counts, a model left alone, and zeros that stay."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pai_bench
from pai_bench.core.tensor_files import tensors_hash
from pai_bench.errors import PaiBenchError
from pai_bench.pruning.pruner import Pruner
from pai_bench.pruning.score_checks import checked_scores
from pai_bench.pruning.selection import keep_exactly
from pai_bench.scoring import registry
from pai_bench.scoring.problem import Problem, round_densities

from .nets import BRIEF, batches, flat, tiny

SLOW = {"ntk-sap", "px"}
PRUNING = [
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
    for name in pai_bench.list_methods()
    if name != "dense"
]


@pytest.mark.slow
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.7, 0.9, 0.995])
@pytest.mark.parametrize("method", PRUNING)
def test_a_mask_keeps_exactly_the_rounded_count(method: str, sparsity: float) -> None:
    model = tiny()
    masks = pai_bench.prune(model, batches(), method, sparsity=sparsity, **BRIEF.get(method, {}))
    total = sum(mask.numel() for mask in masks.values())
    assert int(flat(masks).sum()) == round((1000 - round(1000 * sparsity)) * total / 1000)
    assert list(masks) == ["conv1.weight", "conv2.weight", "fc.weight"]
    assert all(mask.dtype == torch.bool and mask.shape == model.get_parameter(k).shape for k, mask in masks.items())


def test_the_dense_method_keeps_all_weights() -> None:
    assert bool(flat(pai_bench.prune(tiny(), batches(), "dense")).all())


class Elsewhere(torch.Tensor):
    """On a CPU, and says that it is not: threshold and pool are then found as on a GPU."""

    is_cpu = property(lambda self: False)


HOMES = pytest.mark.parametrize("home", [torch.Tensor, Elsewhere])


@HOMES
@pytest.mark.parametrize("count", [0, 1, 5, 7, 10])
def test_ties_are_kept_in_the_order_of_their_position(count: int, home: type[torch.Tensor]) -> None:
    scores = torch.tensor([1.0, 3.0, 1.0, 1.0, 3.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    kept = keep_exactly(scores.as_subclass(home), torch.ones(10, dtype=torch.bool), 0.5, count)
    best = sorted(range(10), key=lambda i: (-scores[i].item(), i))[:count]
    assert kept.nonzero().flatten().tolist() == sorted(best)


def test_scores_whose_sum_overflows_are_accepted() -> None:
    scores = {"weight": torch.full((3,), 3e38)}
    assert torch.equal(checked_scores("mine", scores, scores)["weight"], scores["weight"])
    scores["weight"][1] = torch.inf
    with pytest.raises(PaiBenchError, match="1 scores for weight that are not finite"):
        checked_scores("mine", scores, scores)


def test_only_candidates_are_kept() -> None:
    scores, candidates = torch.arange(10.0), torch.arange(10) < 4
    assert keep_exactly(scores, candidates, 0.2, 2).nonzero().flatten().tolist() == [2, 3]


@HOMES
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])
@pytest.mark.parametrize("order", ["rising", "falling", "shuffled"])
def test_the_highest_scores_are_kept_for_any_order_and_type(
    dtype: torch.dtype, order: str, home: type[torch.Tensor]
) -> None:
    scores = torch.arange(1, 101) + (2**40 if dtype == torch.int64 else 0)
    if order != "rising":
        scores = scores.flip(0) if order == "falling" else scores[torch.randperm(100)]
    for candidates in (torch.ones(100, dtype=torch.bool), torch.arange(100) % 3 > 0):
        kept = keep_exactly(scores.to(dtype).as_subclass(home), candidates, 0.2, 20)
        assert set(scores[kept].tolist()) == set(scores[candidates].sort().values[-20:].tolist())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pai_bench.TiedScoresWarning")
@pytest.mark.parametrize("method", PRUNING)
def test_a_dead_network_never_yields_a_dense_mask(method: str) -> None:
    model = tiny()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    if method == "synflow":  # its scores are paths, and there are none
        with pytest.raises(PaiBenchError, match="all paths through it have the value 0"):
            pai_bench.prune(model, batches(), method, sparsity=0.9)
        return
    masks = pai_bench.prune(model, batches(), method, sparsity=0.9, **BRIEF.get(method, {}))
    total = sum(mask.numel() for mask in masks.values())
    assert int(flat(masks).sum()) == round(total / 10)


@pytest.mark.slow
@pytest.mark.parametrize("method", pai_bench.list_methods())
def test_scoring_does_not_change_the_callers_state(method: str) -> None:
    model = tiny(dropout=0.3)
    model.bn2.eval()
    F.cross_entropy(model(batches(1)[0][0]), batches(1)[0][1]).backward()
    loader = torch.utils.data.DataLoader(list(zip(*batches(1, size=48)[0], strict=True)), batch_size=12, shuffle=True)
    before = tensors_hash(model.state_dict())
    gradients = tensors_hash({name: p.grad for name, p in model.named_parameters()})
    modes = [module.training for module in model.modules()]
    versions = [p._version for p in model.parameters()]
    torch.manual_seed(5)
    states = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    pai_bench.prune(model, loader, method, sparsity=0.8, **BRIEF.get(method, {}))
    assert tensors_hash(model.state_dict()) == before
    assert tensors_hash({name: p.grad for name, p in model.named_parameters()}) == gradients
    assert [module.training for module in model.modules()] == modes
    assert [p._version for p in model.parameters()] == versions
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]


@pytest.mark.slow
@pytest.mark.parametrize("method", PRUNING)
def test_masks_are_repeatable_with_a_shuffling_loader_and_dropout(method: str) -> None:
    loader = torch.utils.data.DataLoader(list(zip(*batches(1, size=48)[0], strict=True)), batch_size=12, shuffle=True)
    model = tiny(dropout=0.3)
    options = BRIEF.get(method, {})
    first, second = (flat(pai_bench.prune(model, loader, method, sparsity=0.8, **options)) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.slow
@pytest.mark.parametrize("method", PRUNING)
def test_frozen_weights_are_scored_too(method: str) -> None:
    model = tiny()
    reference = flat(pai_bench.score(model, batches(), method, **BRIEF.get(method, {})))
    model.requires_grad_(False)
    assert torch.equal(flat(pai_bench.score(model, batches(), method, **BRIEF.get(method, {}))), reference)


def test_float32_scoring_is_allowed_and_half_precision_is_refused() -> None:
    scores = pai_bench.score(tiny(), batches(), "snip", dtype="float32")
    assert all(score.dtype == torch.float32 for score in scores.values())
    with pytest.raises(pai_bench.PaiBenchError, match="float16"):
        pai_bench.score(tiny(), batches(), "snip", dtype="float16")


def test_densities_of_rounds_decrease_to_the_target() -> None:
    assert round_densities(0.01, 2, "exponential") == pytest.approx([0.1, 0.01])
    assert round_densities(0.2, 4, "linear") == pytest.approx([0.8, 0.6, 0.4, 0.2])
    with pytest.raises(pai_bench.PaiBenchError, match="schedule"):
        round_densities(0.2, 4, "cubic")


def test_each_round_prunes_from_the_remaining_weights() -> None:
    seen: list[tuple[int, int]] = []

    @dataclass(frozen=True)
    class Spy:
        rounds: int = 5

        def __call__(self, problem: Problem) -> dict[str, Tensor]:
            seen.append((int(flat(dict(problem.masks)).sum()), problem.kept))
            assert all(bool((w[~problem.masks[k]] == 0).all()) for k, w in problem.weights.items())
            assert all(bool((problem.dense_weights[k] != 0).all()) for k in problem.weights)
            return {name: -w.abs() for name, w in problem.weights.items()}

    Pruner(tiny(), batches(), Spy(), name="spy").masks(0.9)
    assert len(seen) == 5
    assert all(now == before for (now, _), (_, before) in zip(seen[1:], seen, strict=False))


@pytest.mark.slow
@pytest.mark.parametrize("norm", [True, False])
def test_masked_weights_stay_exactly_zero(norm: bool) -> None:
    model = tiny(norm=norm)
    masks = pai_bench.prune(model, batches(), "random", sparsity=0.8)
    keys = list(model.state_dict())
    pai_bench.apply_masks(model, masks)
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    for x, y in batches(6):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        assert all(not bool(model.get_parameter(name)[~mask].any()) for name, mask in masks.items())
    assert list(model.state_dict()) == keys
    assert all(bool(model.get_parameter(name)[mask].all()) for name, mask in masks.items())


@pytest.mark.slow
def test_masked_training_equals_a_forward_multiply() -> None:
    model = tiny().double()
    masks = pai_bench.prune(model, batches(), "random", sparsity=0.7)
    other = copy.deepcopy(model)
    pai_bench.apply_masks(model, masks)
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
    ours, theirs = (torch.optim.SGD(m.parameters(), **settings) for m in (model, other))
    for x, y in batches(6):
        for optimizer, output in (
            (ours, lambda x: model(x)),
            (
                theirs,
                lambda x: torch.func.functional_call(
                    other, {n: other.get_parameter(n) * m for n, m in masks.items()}, (x,)
                ),
            ),
        ):
            optimizer.zero_grad()
            F.cross_entropy(output(x.double()), y).backward()
            optimizer.step()
    for name, parameter in other.named_parameters():
        expected = parameter * masks[name] if name in masks else parameter
        assert torch.equal(model.get_parameter(name), expected)


def test_new_masks_replace_old_ones() -> None:
    model = tiny()
    first = {"fc.weight": torch.zeros(10, 5, dtype=torch.bool)}
    second = {"fc.weight": torch.ones(10, 5, dtype=torch.bool)}
    pai_bench.apply_masks(model, first)
    pai_bench.apply_masks(model, second)
    F.cross_entropy(model(batches(1)[0][0]), batches(1)[0][1]).backward()
    assert bool(model.fc.weight.grad.any())


@pytest.mark.parametrize(
    ("masks", "what"),
    [
        ({"nope.weight": torch.ones(1, dtype=torch.bool)}, "nope"),
        ({"fc.weight": torch.ones(10, 5)}, "torch.bool"),
        ({"fc.weight": torch.ones(5, 10, dtype=torch.bool)}, "10, 5"),
    ],
)
def test_masks_that_do_not_fit_are_refused(masks: dict[str, Tensor], what: str) -> None:
    model = tiny()
    before = tensors_hash(model.state_dict())
    with pytest.raises(pai_bench.PaiBenchError, match=what):
        pai_bench.apply_masks(model, masks)
    assert tensors_hash(model.state_dict()) == before


@pytest.mark.parametrize("kind", ["missing", "extra", "shape", "nan", "type"])
def test_unusable_scores_are_refused(kind: str) -> None:
    @dataclass(frozen=True)
    class Broken:
        def __call__(self, problem: Problem) -> dict[str, Tensor]:
            scores = {name: w.abs() for name, w in problem.weights.items()}
            if kind == "missing":
                del scores["fc.weight"]
            elif kind == "extra":
                scores["fc.bias"] = torch.ones(10)
            elif kind == "shape":
                scores["fc.weight"] = scores["fc.weight"].sum(0)
            elif kind == "nan":
                scores["fc.weight"] = scores["fc.weight"] * float("nan")
            return scores if kind != "type" else [1.0]  # type: ignore[return-value]

    with pytest.raises(pai_bench.PaiBenchError, match="method broken returned"):
        Pruner(tiny(), batches(), Broken(), name="broken").masks(0.9)


def test_models_that_cannot_be_pruned_are_refused_with_a_reason() -> None:
    with pytest.raises(pai_bench.PaiBenchError, match="nothing to prune"):
        pai_bench.prune(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(108)), batches(), "snip")
    with pytest.raises(pai_bench.PaiBenchError, match="needs 4 scoring batches"):
        pai_bench.prune(tiny(), batches(2), "prospr")
    with pytest.raises(pai_bench.PaiBenchError, match="contain no batch"):
        pai_bench.prune(tiny(), [], "snip")
    with pytest.raises(pai_bench.PaiBenchError, match="did you mean snip"):
        pai_bench.prune(tiny(), batches(), "snp")
    with pytest.raises(pai_bench.PaiBenchError, match="did you mean steps"):
        pai_bench.prune(tiny(), batches(), "prospr", step=3)
    with pytest.raises(pai_bench.PaiBenchError, match="takes int"):
        registry.get("prospr", {"steps": "three"})
    with pytest.raises(pai_bench.PaiBenchError, match=r"0\.9"):
        pai_bench.prune(tiny(), batches(), "snip", sparsity=90)


@dataclass(frozen=True)
class Reader:
    """Notes the first number of every batch that it reads."""

    seen: list[list[float]]
    rounds: int = 3
    fresh: bool = True

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        self.seen.append([x.flatten()[0].item() for x, _ in problem.batches()])
        assert [x.flatten()[0].item() for x, _ in problem.batches()] == self.seen[-1]
        return dict(problem.weights)


@pytest.mark.parametrize(
    ("count", "fresh", "expected"),
    [
        (7, True, [[0, 1], [2, 3], [4, 5]]),
        (2, True, [[0], [1], [0]]),
        (2, False, [[0, 1], [0, 1], [0, 1]]),
    ],
)
def test_rounds_get_new_batches_if_the_method_declares_fresh(
    count: int, fresh: bool, expected: list[list[float]]
) -> None:
    data = [(torch.full((2, 3, 6, 6), float(i)), torch.zeros(2, dtype=torch.long)) for i in range(count)]
    reader = Reader([], fresh=fresh)
    Pruner(tiny(), data, reader, name="reader").masks(0.5)
    assert reader.seen == expected
    with pytest.raises(pai_bench.PaiBenchError, match="contain no batch"):
        Pruner(tiny(), [], reader, name="reader").masks(0.5)
