"""Tests of cost estimates: from results measured on the same device, or else from FLOPs, with the source stated."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pai_bench import recipes, results
from pai_bench.cells import Cell
from pai_bench.experiment.runner import Run
from pai_bench.recipes import parse_settings
from pai_bench.sweep.execution.eta import duration
from pai_bench.sweep.planning import cost, cost_text, operations
from pai_bench.sweep.planning.cost import estimate
from tests.unit.test_results import result

QUICK = recipes.load("quick", "digits", "conv8")


def run(method: str = "snip", sparsity: float = 0.9, seed: int = 0, settings: tuple[str, ...] = ()) -> Run:
    (recipe,) = recipes.variants(QUICK, parse_settings(settings))
    return Run(Cell(method, "digits", "conv8", sparsity, seed), recipe)


def put(root: Path, done: Run, train: float, score: float, device: str = "cpu", peak: int | None = 1000) -> None:
    cell = done.cell
    plain = replace(
        result(),
        **{name: getattr(cell, name) for name in ("method", "dataset", "model", "sparsity", "seed")},
        recipe=done.recipe.name,
        recipe_values=done.recipe.values(),
        fingerprint=done.fingerprint(),
        costs={"train_seconds": train, "score_seconds": score, "train_peak_bytes": peak, "score_peak_bytes": 1},
        provenance={"device": device},
    )
    results.write(root, plain, {"w": np.ones((2, 2), dtype=bool)})


def test_similar_cells_cost_as_much_as_measured_ones(tmp_path: Path) -> None:
    for seed, seconds in enumerate((10.0, 11.0, 90.0)):
        put(tmp_path, run("snip", 0.5, seed), seconds, 2.0)
    put(tmp_path, run("grasp", 0.5), 11.0, 5.0)
    put(tmp_path, run("snip", 0.5, 7), 1.0, 1.0, device="NVIDIA H100 80GB HBM3", peak=5)
    (snip,) = estimate([run("snip")], tmp_path, "cpu")
    assert (snip.seconds, snip.peak_bytes, snip.source) == (13.0, 1000, "from 4 measured cells")
    (longer,) = estimate([run("snip", settings=("train.epochs=24",))], tmp_path, "cpu")
    assert longer.seconds == 2 * 11 + 2
    (elsewhere,) = estimate([run("snip")], tmp_path, "NVIDIA H100 80GB HBM3")
    assert (elsewhere.seconds, elsewhere.peak_bytes, elsewhere.source) == (2.0, 5, "from 1 measured cell")


def test_shared_scores_are_counted_once(tmp_path: Path) -> None:
    for method in ("snip", "synflow"):
        put(tmp_path, run(method, 0.5), 10.0, 2.0)
    runs = [run(method, s, seed) for method in ("snip", "synflow") for seed in (0, 1) for s in (0.8, 0.9, 0.95)]
    found = [e.seconds for e in estimate(runs, tmp_path, "cpu")]
    assert found == [12.0, 10.0, 10.0] * 2 + [12.0] * 6  # every sparsity of SynFlow has rounds of its own


def test_unmeasured_costs_are_estimated_from_flops(tmp_path: Path) -> None:
    calls = []

    def measure(run: Run) -> float:
        calls.append(run.recipe.train.precision)
        return 4e9

    runs = [run("dense", 0.0), run("snip"), run("synflow")]
    dense, snip, synflow = estimate(runs, tmp_path, "cpu", measure)
    assert len(calls) == 1 and dense.source == "from FLOPs at 4 GFLOP/s measured just now" and dense.peak_bytes is None
    evaluations = -(-QUICK.train.epochs // QUICK.train.evaluate_every)
    images = 3 * 1437 * QUICK.train.epochs + 360 * evaluations
    per_image = dense.seconds * 4e9 / images
    assert per_image == pytest.approx(2 * (8 * 8 * 144 + 4 * 4 * 4608 + 2 * 2 * 9216 + 320), rel=1)
    assert snip.seconds - dense.seconds == pytest.approx(2 * 3 * 100 * per_image / 4e9)
    assert synflow.seconds - dense.seconds == pytest.approx(100 * (snip.seconds - dense.seconds))
    put(tmp_path, run("snip", 0.5), 10.0, 2.0)
    (other,) = estimate([run("grasp")], tmp_path, "cpu", measure)
    assert other.source == "from 1 measured cell, scoring from FLOPs at 4 GFLOP/s measured just now"
    assert 10 < other.seconds < 12
    assert "assumed of Some GPU" in estimate([run("snip")], tmp_path / "none", "Some GPU")[0].source


@pytest.mark.slow
def test_a_core_can_be_measured() -> None:
    for setting in ("train.precision=float32", "train.precision=bfloat16", "train.channels_last=true"):
        assert 1e6 < operations.calibrate(run(settings=(setting,)), seconds=0.01) < 1e13


def test_the_rate_of_a_core_is_independent_of_other_load(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = itertools.count()
    monkeypatch.setattr(operations.time, "process_time", lambda: 0.25 * next(clock))
    monkeypatch.setattr(operations.time, "monotonic", lambda: 1e6 * next(clock))  # the machine is busy with others
    flops, size = operations.dense_flops(run()), 128
    assert operations.calibrate(run()) == pytest.approx(3 * flops * size / 0.25)


@pytest.mark.parametrize(
    ("settings", "trained", "evaluated"),
    [
        ((), 1437, 360),
        (("data.train_fraction=0.05",), 0.05 * 1437, 360),
        (("data.split=validation",), 0.9 * 1437, 0.1 * 1437),
        (("data.split=validation", "data.train_fraction=0.95"), 0.9 * 1437, 0.1 * 1437),
        (("data.split=validation", "data.train_fraction=0.5", "train.epochs=2"), 0.5 * 1437, 0.1 * 1437),
    ],
)
def test_the_cost_counts_the_images_of_training_and_evaluation(
    tmp_path: Path, settings: tuple[str, ...], trained: float, evaluated: float
) -> None:
    one = run("dense", 0.0, settings=settings)
    (found,) = estimate([one], tmp_path, "cpu", lambda _: 1e9)
    epochs = one.recipe.train.epochs
    flops = operations.dense_flops(one)
    assert found.seconds == pytest.approx((3 * trained + evaluated) * epochs * flops / 1e9)
    # A pilot on a part of the images tells the time of the whole, and the other way round.
    put(tmp_path, one, 10.0, 0.0)
    (whole,) = estimate([run("dense", 0.0)], tmp_path, "cpu")
    expected = 10 * (3 * 1437 + 360) * QUICK.train.epochs / ((3 * trained + evaluated) * epochs)
    assert whole.seconds == pytest.approx(expected) and "1 measured cell" in whole.source


def test_eager_steps_on_a_gpu_take_the_time_of_their_launches(tmp_path: Path) -> None:
    (captured,) = estimate([run("dense", 0.0)], tmp_path, "Some GPU")
    (eager,) = estimate([run("dense", 0.0, settings=("train.cuda_graph=false",))], tmp_path, "Some GPU")
    steps = QUICK.train.epochs * 1437 / QUICK.train.batch_size
    assert eager.seconds == pytest.approx(steps * cost.GPU_STEP_SECONDS) and captured.seconds < eager.seconds / 3


@pytest.mark.parametrize(
    "setting",
    ["train.precision=bfloat16", "train.channels_last=true", "train.batch_size=32", "train.cuda_graph=true"],
)
def test_cells_of_another_speed_are_ignored(tmp_path: Path, setting: str) -> None:
    put(tmp_path, run("dense", 0.0, settings=(setting,)), 1e6, 0.0)
    calls: list[str] = []
    (found,) = estimate([run("dense", 0.0)], tmp_path, "cpu", lambda of: calls.append(of.recipe.train.precision) or 1e9)
    assert found.seconds < 1000 and "measured just now" in found.source and calls == ["float32"]
    put(tmp_path, run("dense", 0.0, seed=1), 10.0, 0.0)
    assert estimate([run("dense", 0.0)], tmp_path, "cpu")[0].seconds == 10


def test_each_kind_of_arithmetic_is_measured_once(tmp_path: Path) -> None:
    calls: list[str] = []

    def measure(of: Run) -> float:
        calls.append(of.recipe.train.precision)
        return {"float32": 4e9, "bfloat16": 4e7}[calls[-1]]

    kinds = ("float32", "bfloat16", "float32", "bfloat16")
    runs = [run("snip", seed=n, settings=(f"train.precision={kind}",)) for n, kind in enumerate(kinds)]
    found = estimate(runs, tmp_path, "cpu", measure)
    assert calls == ["float32", "bfloat16"]
    assert found[1].seconds == pytest.approx(100 * found[0].seconds)
    assert "0.04 GFLOP/s" in found[1].source


@pytest.mark.slow
def test_each_network_is_measured_up_to_a_limit(tmp_path: Path) -> None:
    """Another order of the networks gives the same estimates."""
    rates = {"conv8": 4e9, "lenet-300-100": 4e8}

    def at(*models: str) -> dict[str, float]:
        calls: list[str] = []
        runs = [replace(run(), cell=replace(run().cell, model=model)) for model in models]
        found = estimate(runs, tmp_path, "cpu", lambda of: calls.append(of.cell.model) or rates.get(of.cell.model, 1e9))
        assert len(calls) == len(set(calls)) == min(len(set(models)), cost.NETWORKS)
        return {model: each.seconds for model, each in zip(models, found, strict=True)}

    assert at("conv8", "lenet-300-100") == pytest.approx(at("lenet-300-100", "conv8"))
    at("conv8", "lenet-300-100", "resnet20", "resnet32", "resnet20-conv", "vgg11-bn", "resnet18", "wrn-28-2")


def test_few_results_of_a_recipe_are_found_among_many_of_another(tmp_path: Path) -> None:
    pilot = run("snip", 0.5, settings=("train.precision=bfloat16",))
    put(tmp_path, pilot, 1000.0, 2.0)
    folder = tmp_path / "runs" / "digits" / "conv8" / "snip"
    (content,) = (path.read_bytes() for path in folder.glob("*.json"))
    for number in range(100):
        (folder / f"s0.9-seed{number}-{pilot.recipe.name}-00000000.json").write_bytes(content)
    put(tmp_path, run("snip", 0.5), 10.0, 2.0)
    assert estimate([run("snip")], tmp_path, "cpu")[0].seconds == 12


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (42, "42s"),
        (185, "3m05s"),
        (7620, "2h07m"),
        (172740, "47h59m"),
        (216000, "2.5 days"),
        (2810 * 3600, "117 days"),
        (5e9, "57,870 days"),
    ],
)
def test_long_times_are_shown_in_days(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("hours", "words"), [(5620, "about 5,600"), (0.25, "about 0.25"), (42.4, "about 42"), (0.001, "less than 0.01")]
)
def test_large_costs_are_written_out(tmp_path: Path, hours: float, words: str) -> None:
    found = [cost.Estimate(3600 * hours, None, "measured")]
    (line,) = cost_text.lines([run()], found, "cpu", 2)
    assert line.startswith(f"cost: {words} core-hours, {duration(1800 * hours)} on 2 workers")


@pytest.mark.slow
def test_a_median_needs_few_of_thousands_of_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "runs" / "digits" / "conv8" / "snip"
    put(tmp_path, run("snip", 0.5), 10.0, 2.0)
    (content,) = (path.read_bytes() for path in folder.glob("*.json"))
    for number in range(300):
        (folder / f"s0.9-seed{number}-quick-00000000.json").write_bytes(content)
    (folder / "s0.91-seed0-quick-00000000.json").write_text("{")  # a damaged one is skipped
    read = []
    monkeypatch.setattr(results, "read_plain", lambda path, whole=results.read_plain: read.append(path) or whole(path))
    found = estimate([run("snip", 0.9, seed) for seed in range(50)], tmp_path, "cpu")
    assert len(read) <= cost.SAMPLE and {e.seconds for e in found} == {12.0}


def test_the_lines_show_the_total_cost(tmp_path: Path) -> None:
    put(tmp_path, run("snip", 0.5), 3596.0, 4.0)
    runs = [run("snip", 0.9, seed) for seed in range(4)]
    found = estimate(runs, tmp_path, "cpu")
    assert cost_text.lines(runs, found, "cpu", 2) == [
        "cost: about 4 core-hours, 2h00m on 2 workers; 1h00m a cell (from 1 measured cell)"
    ]
    runs.append(run("snip", settings=("train.epochs=24",)))
    head, first, second = cost_text.lines(runs, estimate(runs, tmp_path, "cpu"), "A100", 1)
    assert head == "cost: about 6 GPU-hours, 5h59m on 1 worker"
    assert (
        "recipe quick: about 4 GPU-hours; 1h00m a cell" in first
        and "quick+train.epochs=24: about 2 GPU-hours" in second
    )
