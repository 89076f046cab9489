"""Tests of one cell from its name to its result: training and recording."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest
import torch
from torch import nn

from pai_bench import models, recipes
from pai_bench.cells import Cell
from pai_bench.core.tensor_files import tensors_hash
from pai_bench.datasets import loading
from pai_bench.errors import PaiBenchError
from pai_bench.experiment.cost import Cost
from pai_bench.experiment.runner import CellRunner, Outcome, Run
from pai_bench.experiment.score_cache import ScoreCache, Scored
from pai_bench.models import registry as building
from pai_bench.recipes import Recipe, Scoring, Train
from pai_bench.scoring import registry
from pai_bench.scoring.problem import prunable
from pai_bench.sweep.planning import checks
from pai_bench.training.callbacks import Callback
from pai_bench.training.checkpoints import Checkpoints, Interrupted
from pai_bench.training.evaluation import evaluate
from pai_bench.training.loop import train
from pai_bench.training.rates import epoch_steps, learning_rate
from pai_bench.training.step import Step
from tests.unit.nets import brief


def recipe(**changes: object) -> Recipe:
    quick = recipes.load("quick", "digits", "conv8")
    settings = {"epochs": 2, "warmup_epochs": 0.0, **changes}
    return dataclasses.replace(quick, train=dataclasses.replace(quick.train, **settings))  # type: ignore[arg-type]


def run(method: str = "snip", sparsity: float = 0.9, seed: int = 0, model: str = "conv8", **changes: object) -> Outcome:
    return CellRunner(device="cpu").run(Run(Cell(method, "digits", model, sparsity, seed), recipe(**changes)))


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return run()


@pytest.mark.slow
def test_the_same_cell_gives_the_same_result(outcome: Outcome) -> None:
    again = run()
    torch.manual_seed(77)
    assert again.result.accuracy == outcome.result.accuracy
    assert again.result.curve == outcome.result.curve
    assert again.result.mask_hash == outcome.result.mask_hash
    assert again.result.fingerprint == outcome.result.fingerprint


@pytest.mark.slow
def test_a_result_records_the_kept_weights(outcome: Outcome) -> None:
    result = outcome.result
    assert result.status == "ok" and result.accuracy is not None and result.accuracy > 0.5
    assert result.n_kept == round(0.1 * result.n_prunable) == sum(int(mask.sum()) for mask in outcome.masks.values())
    assert result.actual_sparsity == pytest.approx(0.9, abs=1e-4)
    assert result.actual_sparsity <= result.effective_sparsity < 1
    assert [(layer.name, layer.size, layer.kept) for layer in result.layers] == [
        (name, mask.size, int(mask.sum())) for name, mask in outcome.masks.items()
    ]
    assert result.curve[-1].accuracy == result.accuracy and len(result.curve) == 2
    assert result.costs["flops_sparse"] < result.costs["flops_dense"]  # type: ignore[operator]
    assert result.provenance["data_hash"] == loading.load("digits").content_hash
    assert result.provenance["versions"]["torch"] == torch.__version__
    assert result.recipe_values == recipe().values()


@pytest.mark.slow
def test_methods_of_a_seed_share_the_initial_network(outcome: Outcome) -> None:
    assert run("random", epochs=1).result.init_hash == outcome.result.init_hash
    assert run("dense", 0.0, epochs=1).result.init_hash == outcome.result.init_hash
    assert run("random", seed=1, epochs=1).result.init_hash != outcome.result.init_hash


@pytest.mark.slow
def test_sharing_scores_changes_no_mask() -> None:
    """Masks are equal for any order of the cells and any number of cached score vectors."""
    scored: list[str] = []

    class Counting(Callback):
        def tick(self) -> None:
            scored.append("")

    cells = [
        Run(Cell(method, "digits", "conv8", sparsity, 0), recipe(lr=lr))
        for method in ("snip", "erk", "synflow:rounds=3")
        for sparsity in (0.5, 0.9)
        for lr in (0.1, 0.2)
    ]
    random.Random(0).shuffle(cells)
    first = CellRunner(device="cpu").model(cells[0])
    size = sum(weight.nbytes for weight in prunable(first.double()).values())

    def hashes(limit: int) -> tuple[list[str], int]:
        scored.clear()
        runner = CellRunner(device="cpu", scores=ScoreCache(limit))
        found = []
        for cell in cells:
            masks = runner.masks(cell, runner.model(cell), Counting()).tensors
            found.append(tensors_hash(masks))
        return found, len(scored)

    alone, all_of_them = hashes(0)
    assert len(set(alone)) == len(cells) / 2
    little, some = hashes(size)
    everything, few = hashes(2**30)
    assert alone == little == everything
    assert few < some < all_of_them


def test_kept_scores_stay_within_their_bound() -> None:
    cache, made = ScoreCache(limit=20), []

    def get(key: str) -> float:
        def compute() -> Scored:
            made.append(key)
            return Scored({"w": torch.full((2,), float(len(made)))}, Cost())

        return float(cache.get(key, compute, torch.device("cpu")).tensors["w"][0])

    # Two of eight bytes fit: "b" is the one used longest ago when "c" comes.
    assert [get(key) for key in "abacab"] == [1, 2, 1, 3, 1, 4]
    assert made == ["a", "b", "c", "b"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in registry.names() if registry.is_builtin(name)])
def test_every_method_makes_a_result(name: str) -> None:
    result = run(brief(name), epochs=1).result
    assert result.accuracy is not None
    kept = result.n_prunable if name == "dense" else round(0.1 * result.n_prunable)
    # Whole channels of a smaller dense network: as close as its width allows.
    assert result.n_kept == kept if name != "small-dense" else abs(result.n_kept / kept - 1) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("nesterov", [True, False])
def test_pruned_weights_stay_exactly_zero(nesterov: bool) -> None:
    settings = recipe(weight_decay=0.1, momentum=0.9, nesterov=nesterov, lr=0.5)
    data = loading.load("digits")
    model = models.build("resnet20", 1, 8, 10)
    generator = torch.Generator().manual_seed(0)
    masks = {
        name: torch.rand(p.shape, generator=generator) < 0.2 for name, p in model.named_parameters() if p.dim() > 1
    }
    small = dataclasses.replace(data, train_x=data.train_x[:256], train_y=data.train_y[:256])
    train(model, masks, small, settings, seed=0)
    for name, mask in masks.items():
        weight = model.get_parameter(name)
        assert not weight[~mask].any()
        assert weight[mask].all()


@pytest.mark.slow
def test_the_last_epoch_is_reported_and_not_the_best() -> None:
    # The rate explodes in the last epoch, so the accuracy of the epochs before is lost.
    result = run(epochs=3, lr=0.05, schedule="step", milestones=(2,), gamma=200.0).result
    accuracies = [epoch.accuracy for epoch in result.curve]
    assert result.accuracy == accuracies[-1]
    assert max(a for a in accuracies if a is not None) > accuracies[-1]  # type: ignore[operator]


@pytest.mark.slow
def test_divergence_is_a_result() -> None:
    result = run(lr=1e30, epochs=5).result
    assert result.status == "diverged"
    assert result.accuracy is not None and result.curve[-1].loss is None
    assert len(result.curve) < 5


@pytest.mark.slow
def test_an_emptied_layer_is_a_result_that_names_it() -> None:
    result = run("magnitude", 0.999, model="lenet-300-100", epochs=1).result
    assert result.status == "collapsed"
    assert result.empty_layers and set(result.empty_layers) == {x.name for x in result.layers if x.kept == 0}
    assert result.effective_sparsity == 1.0
    assert result.accuracy is not None


@pytest.mark.slow
def test_evaluation_follows_its_interval_and_always_includes_the_last_epoch() -> None:
    curve = run(epochs=3, evaluate_every=2).result.curve
    assert [epoch.accuracy is not None for epoch in curve] == [False, True, True]


def test_learning_rates_follow_the_schedule() -> None:
    base = Train(10, 64, 0.1, 0.9, False, 0.0, "step", (5, 8), 0.1, 0.0, 1)
    rates = [learning_rate(base, epoch, 0, 4) for epoch in range(10)]
    assert rates == pytest.approx([0.1] * 5 + [0.01] * 3 + [0.001] * 2)
    cosine = dataclasses.replace(base, schedule="cosine", warmup_epochs=2.0)
    assert learning_rate(cosine, 0, 0, 4) == pytest.approx(0.1 / 8)
    assert learning_rate(cosine, 1, 3, 4) == pytest.approx(0.1)
    assert learning_rate(cosine, 6, 0, 4) == pytest.approx(0.05)
    assert 0 < learning_rate(cosine, 9, 3, 4) < 0.001


def test_milestones_and_the_length_in_steps() -> None:
    base = Train(0, 64, 0.1, 0.9, False, 0.0, "step", (2,), 0.1, 0.0, 1, steps=10, milestone_steps=(3, 6))
    rates = [learning_rate(base, step // 4, step % 4, 4) for step in range(10)]
    assert rates == pytest.approx([0.1] * 3 + [0.01] * 3 + [0.001] * 2 + [0.0001] * 2)  # the third drop is at epoch 2
    cosine = dataclasses.replace(base, schedule="cosine")
    assert learning_rate(cosine, 1, 1, 4) == pytest.approx(0.05)  # half of 10 steps
    assert epoch_steps(base, 4) == [4, 4, 2]
    assert epoch_steps(dataclasses.replace(base, steps=8), 4) == [4, 4]
    assert epoch_steps(dataclasses.replace(base, steps=0, epochs=3), 4) == [4, 4, 4]


@pytest.mark.slow
def test_a_length_in_steps_ends_the_training_inside_an_epoch_and_resumes_exactly(tmp_path: Path) -> None:
    """Steps of the incomplete last epoch are those of the complete one, so both give the same weights after them."""
    job = Run(Cell("snip", "digits", "conv8", 0.9, 0), recipe(epochs=0, steps=30, schedule="step"))
    whole = CellRunner(device="cpu").run(job)
    assert [epoch.epoch for epoch in whole.result.curve] == [1, 2]  # 23 steps and 7 steps

    class StopAt(Callback):
        steps = 0

        def tick(self) -> None:
            self.steps += 1
            if self.steps == 27:
                checkpoints.request_stop()

    checkpoints = Checkpoints(tmp_path, "first")
    with pytest.raises(Interrupted):
        CellRunner(device="cpu").run(job, StopAt(), checkpoints)
    resumed = CellRunner(device="cpu").run(job, checkpoints=Checkpoints(tmp_path, "second"))
    assert resumed.result.curve == whole.result.curve
    assert resumed.result.accuracy == whole.result.accuracy


@pytest.mark.slow
def test_training_matches_a_plain_loop() -> None:
    """The fused, gradient-masked step is SGD on the masked network (multiplied by its masks in forward)."""
    settings = recipe(epochs=1, weight_decay=1e-3)
    data = loading.load("digits")
    data = dataclasses.replace(data, train_x=data.train_x[:128], train_y=data.train_y[:128])
    ours = models.build("conv8", 1, 8, 10).double()
    theirs = models.build("conv8", 1, 8, 10).double()
    theirs.load_state_dict(ours.state_dict())
    masks = {n: torch.rand(p.shape) < 0.5 for n, p in ours.named_parameters() if p.dim() > 1}

    class Double(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x.double())  # type: ignore[no-any-return]

    train(Double(ours), {f"inner.{n}": m for n, m in masks.items()}, data, settings, seed=5)
    t = settings.train
    augment = loading.Augment(settings.data.padding, settings.data.flip, settings.data.mean, settings.data.std)
    loader = loading.InMemoryLoader(data.train_x, data.train_y, t.batch_size, augment, 5)
    for n, p in theirs.named_parameters():
        if n in masks:
            p.data *= masks[n]
    optimizer = torch.optim.SGD(
        theirs.parameters(), lr=1.0, momentum=t.momentum, nesterov=t.nesterov, weight_decay=t.weight_decay
    )
    theirs.train()
    for step, (x, y) in enumerate(loader.epoch(0)):
        optimizer.param_groups[0]["lr"] = learning_rate(t, 0, step, len(loader))
        weights = {n: p * masks[n] if n in masks else p for n, p in theirs.named_parameters()}
        optimizer.zero_grad()
        nn.functional.cross_entropy(torch.func.functional_call(theirs, weights, (x.double(),)), y).backward()
        optimizer.step()
    for n, p in theirs.named_parameters():
        value = p * masks[n] if n in masks else p
        torch.testing.assert_close(ours.get_parameter(n), value, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_evaluation_changes_nothing_and_sees_every_test_image() -> None:
    data = loading.load("digits")
    model = models.build("conv8", 1, 8, 10)
    before = tensors_hash(model.state_dict())
    tested = evaluate(model, data, recipe())
    assert tested.finite and tensors_hash(model.state_dict()) == before
    with torch.no_grad():
        logits = model(loading.normalise(data.test_x, recipe().data.mean, recipe().data.std))
    right = logits.argmax(1) == data.test_y
    assert tested.accuracy == pytest.approx(float(right.double().mean()))
    assert tested.by_class == pytest.approx([float(right[data.test_y == c].double().mean()) for c in range(10)])


@pytest.mark.slow
def test_a_method_that_reinitialises_gets_different_weights_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    initialise = models.initialise

    def noted(model: nn.Module, scheme: str, seed: int) -> None:
        seeds.append(seed)
        initialise(model, scheme, seed)

    monkeypatch.setattr(models, "initialise", noted)
    job = Run(Cell("ntk-sap:repeats=2,rounds=3", "digits", "conv8", 0.9, 0), recipe())
    runner = CellRunner(device="cpu")
    runner.masks(job, runner.model(job), Callback())
    assert len(seeds) == len(set(seeds)) == 1 + 2 * 3


def test_the_seed_determines_parameters_drawn_in_a_constructor() -> None:
    class Placed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.place, self.fc = nn.Parameter(torch.randn(4)), nn.Linear(64, 10)
            self.attention = nn.MultiheadAttention(4, 2)

    models.register_model("placed")(lambda channels, size, classes: Placed())
    state = torch.get_rng_state()
    seeds = [Run(Cell("snip", "digits", "placed", 0.9, seed), recipe()) for seed in (0, 0, 1)]
    one, again, other = (CellRunner(device="cpu").model(job).state_dict() for job in seeds)
    redrawn = CellRunner(device="cpu").model(seeds[0], "reinit").state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    for name in ("place", "attention.in_proj_weight", "fc.weight"):
        assert torch.equal(one[name], again[name])
        assert not torch.equal(one[name], other[name]) and not torch.equal(one[name], redrawn[name])


def test_the_runner_makes_its_device_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a worker on the second GPU would wait for events of the first."""
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for device in ("cpu", "cuda", "cuda:1"):
        CellRunner(device=device)
    assert chosen == [torch.device("cuda:1")]


def normed(channels: int, size: int, classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(channels * size * size, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, classes)
    )


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, build in {
        "normed": normed,
        "plain": lambda *facts: nn.Sequential(nn.Flatten(), nn.Linear(64, facts[2])),
    }.items():
        monkeypatch.setitem(building._builders._things, name, build)


# 1437 images: with batches of 718 the third one has one image.
@pytest.mark.slow
@pytest.mark.usefixtures("networks")
@pytest.mark.parametrize(
    ("model", "settings", "sizes"),
    [
        ("normed", {}, [718, 719]),
        ("normed", {"last_batch": "drop"}, [718, 718]),
        ("plain", {}, [718, 718, 1]),
        ("plain", {"last_batch": "drop"}, [718, 718, 1]),
        ("normed", {"batch_size": 719}, [719, 718]),
    ],
)
def test_a_last_batch_of_one_image_is_merged_where_batch_norm_cannot_take_it(
    monkeypatch: pytest.MonkeyPatch, model: str, settings: dict[str, object], sizes: list[int]
) -> None:
    seen: list[int] = []
    step = Step.__call__
    monkeypatch.setattr(
        Step,
        "__call__",
        lambda self, x, y, *others: (seen.append(len(y)), step(self, x, y, *others))[1],
    )
    found = run("snip", 0.5, model=model, **{"epochs": 1, "batch_size": 718, **settings}).result
    assert seen == sizes and found.curve[0].loss is not None


@pytest.mark.slow
@pytest.mark.usefixtures("networks")
def test_batches_of_one_image_are_refused_where_batch_norm_cannot_take_them() -> None:
    with pytest.raises(PaiBenchError, match="batch norm cannot be trained on batches of one image"):
        run("dense", 0.0, model="normed", epochs=1, batch_size=1)
    with pytest.raises(PaiBenchError, match="scoring batch 1 has 1 image"):
        batches_of_one = dataclasses.replace(recipe(epochs=1), scoring=Scoring(1, 1, "float64"))
        CellRunner(device="cpu").run(Run(Cell("snip", "digits", "normed", 0.5, 0), batches_of_one))


@pytest.mark.usefixtures("networks")
def test_plans_refuse_batches_of_one_image_where_batch_norm_cannot_take_them() -> None:
    def planned(method: str, model: str, **sizes: int) -> Run:
        made = recipe(epochs=1)
        scoring = dataclasses.replace(made.scoring, batch_size=sizes.get("scoring", made.scoring.batch_size))
        training = dataclasses.replace(made.train, batch_size=sizes.get("train", made.train.batch_size))
        return Run(Cell(method, "digits", model, 0.5, 0), dataclasses.replace(made, scoring=scoring, train=training))

    with pytest.raises(PaiBenchError, match=r"snip cannot score normed with scoring\.batch_size = 1") as refused:
        checks.check([planned("random", "normed", scoring=1), planned("snip", "normed", scoring=1)], None)
    assert "scoring.batch_size to 2" in refused.value.remedy
    with pytest.raises(PaiBenchError, match="batch norm in normed cannot be trained on batches of one image"):
        checks.check([planned("random", "normed", train=1)], None)
    fine = [planned("snip", "plain", scoring=1, train=1), planned("random", "normed", scoring=1)]
    assert checks.check([*fine, planned("snip", "normed")], None).runs == (*fine, planned("snip", "normed"))


@pytest.mark.parametrize("last", ["keep", "merge", "drop"])
@pytest.mark.parametrize("n", [3, 8, 9, 10])
def test_merged_batches_hold_the_same_images_in_the_same_order(last: str, n: int) -> None:
    augment = loading.Augment.of(recipe().data)
    x = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 1, 4, 4)
    whole = [y for _, y in loading.InMemoryLoader(x, torch.arange(n), 4, augment, seed=1).epoch(2)]
    loader = loading.InMemoryLoader(x, torch.arange(n), 4, augment, seed=1, last=last)
    found = [y for _, y in loader.epoch(2)]
    assert len(found) == len(loader)
    kept = n if last != "drop" or n < 4 else n // 4 * 4
    assert torch.equal(torch.cat(found), torch.cat(whole)[:kept])
    for start in range(len(loader)):
        assert all(map(torch.equal, (y for _, y in loader.epoch(2, start)), found[start:]))
