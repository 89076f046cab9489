"""Scoring data have the content that their kind states, warm-up settles BatchNorm, and both are in the fingerprint."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

import pai_bench
from pai_bench.cells import Cell
from pai_bench.datasets import loading
from pai_bench.datasets.scoring_data import altered
from pai_bench.experiment.run import Run
from pai_bench.experiment.runner import CellRunner
from pai_bench.recipes import SCORING_DATA, Recipe, load
from pai_bench.sweep.planning import unread_data
from pai_bench.training.callbacks import Callback

from .nets import batches, flat, tiny
from .test_experiment import recipe

SEED = 7
DATA = loading.load("digits")


def drawn(kind: str, count: int = 2) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(loading.scoring_batches(DATA, 30, count, SEED, (0.3,), (0.4,), kind))


def test_other_data_are_the_training_images_with_one_change() -> None:
    plain = drawn("train")
    for kind in ("noise", "shuffled-pixels", "random-labels"):
        for (x, y), (other_x, other_y) in zip(plain, drawn(kind), strict=True):
            assert torch.equal(x, other_x) == (kind == "random-labels")
            assert torch.equal(y, other_y) == (kind != "random-labels")
            assert other_x.shape == x.shape and other_x.dtype == x.dtype and other_y.dtype == y.dtype
    for kind in SCORING_DATA:
        first, again = drawn(kind), drawn(kind)
        assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(first, again, strict=True))


def test_shuffled_pixels_are_the_pixels_of_the_same_image() -> None:
    x = torch.randn(4, 3, 5, 5)
    shuffled, _ = altered((x, torch.arange(4)), "shuffled-pixels", 4, torch.Generator().manual_seed(0))
    for one, other in zip(x, shuffled, strict=True):
        pixels, moved = ({tuple(p) for p in image.flatten(1).T.tolist()} for image in (one, other))
        assert pixels == moved  # the channels of a pixel stay together
    orders = [[x[n, 0].flatten().tolist().index(v) for v in shuffled[n, 0].flatten().tolist()] for n in range(4)]
    assert len({tuple(order) for order in orders}) == 4
    vectors = torch.randn(3, 7)
    shuffled, _ = altered((vectors, torch.arange(3)), "shuffled-pixels", 3, torch.Generator().manual_seed(0))
    assert torch.equal(shuffled.sort(1).values, vectors.sort(1).values) and not torch.equal(shuffled, vectors)


def test_noise_is_standard_normal_and_random_labels_are_uniform() -> None:
    noise = torch.cat([x for x, _ in drawn("noise", 20)])
    assert abs(float(noise.mean())) < 0.02 and abs(float(noise.std()) - 1) < 0.02
    labels = torch.cat([y for _, y in drawn("random-labels", 20)])
    assert labels.bincount(minlength=10).min() > 30
    assert len({int(y[0]) for y in labels.split(60)}) > 1


def test_the_seed_selects_the_class_of_one_class_data() -> None:
    chosen = {
        int(y[0]): len(set(y.tolist()))
        for seed in range(8)
        for _, y in loading.scoring_batches(DATA, 20, 1, seed, (0.3,), (0.4,), "one-class")
    }
    assert len(chosen) > 1 and set(chosen.values()) == {1}


def run(method: str, settings: Recipe, sparsity: float = 0.9) -> Run:
    return Run(Cell(method, "digits", "conv8", sparsity, 0), settings)


def scored(method: str, **scoring: Any) -> torch.Tensor:
    settings = recipe(epochs=1)
    settings = replace(settings, scoring=replace(settings.scoring, **scoring))
    runner, task = CellRunner(device="cpu"), run(method, settings)
    return flat(runner.masks(task, runner.model(task), Callback()).tensors)


def test_images_that_are_repeated_count_once() -> None:
    drawn = {kind: loading.scoring_batches(DATA, 30, 100, SEED, (0.3,), (0.4,), kind) for kind in SCORING_DATA}
    found = {kind: batches.different for kind, batches in drawn.items()}
    label = next(iter(drawn["one-class"]))[1][0]
    size = len(DATA.train_y)
    rest = dict.fromkeys(("train", "shuffled-pixels", "random-labels"), size)
    assert found == {**rest, "noise": 3000, "one-class": int((DATA.train_y == label).sum())}
    assert loading.scoring_batches(DATA, 30, 2, SEED, (0.3,), (0.4,)).different == 60


@pytest.mark.slow
@pytest.mark.parametrize("kind", SCORING_DATA[1:])
def test_a_method_that_reads_data_scores_the_same_on_the_same_tensors(kind: str) -> None:
    settings = recipe(epochs=1)
    task = run("snip", replace(settings, scoring=replace(settings.scoring, data=kind)))
    runner = CellRunner(device="cpu")
    network = runner.model(task)
    data = list(runner.scoring_batches(task, task.scorer()))
    masks = flat(runner.masks(task, network, Callback()).tensors)
    assert torch.equal(masks, flat(pai_bench.prune(network, data, "snip", sparsity=0.9)))
    assert not torch.equal(masks, scored("snip"))
    assert torch.equal(scored("magnitude", data=kind), scored("magnitude"))


def test_settings_are_in_the_fingerprint_only_at_other_values() -> None:
    plain = load("quick", "digits", "conv8")
    changes: list[dict[str, object]] = [
        {},
        {"data": "noise"},
        {"data": "one-class"},
        {"warmup": 3},
        {"effective": True},
    ]
    prints = {run("snip", replace(plain, scoring=replace(plain.scoring, **c))).fingerprint() for c in changes}  # type: ignore[arg-type]
    assert len(prints) == len(changes)
    assert {"data", "warmup", "effective"}.isdisjoint(plain.identity()["scoring"])


@pytest.mark.slow
def test_warm_up_runs_forward_passes_in_train_mode_before_scoring() -> None:
    model, data = tiny().double(), [(x.double(), y) for x, y in batches(3)]
    warmed = copy.deepcopy(model).train()
    with torch.no_grad():
        for x, _ in [*data, *data][:5]:
            warmed(x)
    for method in ("fisher-pruning", "synflow-l2"):
        found = flat(pai_bench.score(model, data, method, warmup=5))
        assert torch.equal(found, flat(pai_bench.score(warmed, data, method)))
        assert not torch.equal(found, flat(pai_bench.score(model, data, method)))
    # Statistics of the batch do not depend on the running ones.
    assert torch.equal(flat(pai_bench.score(model, data, "snip", warmup=5)), flat(pai_bench.score(model, data, "snip")))
    assert torch.equal(scored("grad-norm", warmup=4), scored("grad-norm", warmup=4))
    with pytest.raises(pai_bench.PaiBenchError, match="warmup must be 0 or more"):
        pai_bench.score(model, data, "snip", warmup=-1)


def scored_with(method: str, data: str, warmup: int = 0) -> Run:
    loaded = load("quick", "digits", "conv8")
    changed = replace(loaded, scoring=replace(loaded.scoring, data=data, warmup=warmup))
    return Run(Cell(method, "digits", "conv8", 0.9, 0), changed)


def test_the_plan_names_methods_that_do_not_read_what_is_changed() -> None:
    methods = ("dense", "erk", "px", "snip", "synflow:rounds=3", "synflow:rounds=3,control=shuffle", "rigl")
    assert unread_data.notes([scored_with(method, "train") for method in methods]) == []
    kinds = ("noise", "random-labels")
    assert unread_data.notes([scored_with(method, data) for method in methods for data in kinds]) == [
        "note: the masks of erk, synflow:rounds=3 are the same with --scoring-data noise,random-labels as with train:"
        " they read no scoring data",
        "note: the masks of px are the same with --scoring-data random-labels as with train: it reads no labels",
        "note: the masks of rigl are the same with --scoring-data noise,random-labels as with train: it reads training"
        " batches alone",
    ]


def test_passes_that_settle_batch_norm_read_inputs_for_every_method_but_no_labels() -> None:
    assert unread_data.notes([scored_with("synflow", "noise", warmup=1)]) == []
    (line,) = unread_data.notes([scored_with("synflow", "random-labels", warmup=1)])
    assert line.endswith("it reads no labels")
