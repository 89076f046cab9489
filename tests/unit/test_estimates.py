"""What a sweep will cost: by what was measured on the same device, else by arithmetic, and it is said which."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pai_bench import recipes, results
from pai_bench.cells import Cell
from pai_bench.experiment import Run
from pai_bench.recipes import parse_settings
from pai_bench.sweep import estimates
from pai_bench.sweep.estimates import estimate
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


def test_cells_like_those_that_were_measured_cost_what_they_did(tmp_path: Path) -> None:
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


def test_scores_that_are_shared_are_paid_once(tmp_path: Path) -> None:
    for method in ("snip", "synflow"):
        put(tmp_path, run(method, 0.5), 10.0, 2.0)
    runs = [run(method, s, seed) for method in ("snip", "synflow") for seed in (0, 1) for s in (0.8, 0.9, 0.95)]
    found = [e.seconds for e in estimate(runs, tmp_path, "cpu")]
    assert found == [12.0, 10.0, 10.0] * 2 + [12.0] * 6  # every sparsity of SynFlow has rounds of its own


def test_what_was_not_measured_is_counted(tmp_path: Path) -> None:
    calls = []

    def measure() -> float:
        calls.append(1)
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


def test_a_core_can_be_measured() -> None:
    assert 1e7 < estimates.calibrate("digits", "conv8", seconds=0.02) < 1e13


def test_a_median_needs_few_of_thousands_of_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "runs" / "digits" / "conv8" / "snip"
    put(tmp_path, run("snip", 0.5), 10.0, 2.0)
    (content,) = (path.read_bytes() for path in folder.glob("*.json"))
    for number in range(300):
        (folder / f"s0.9-seed{number}-quick-00000000.json").write_bytes(content)
    (folder / "s0.91-seed0-quick-00000000.json").write_text("{")  # a damaged one is passed over
    read = []
    monkeypatch.setattr(results, "read_plain", lambda path, whole=results.read_plain: read.append(path) or whole(path))
    found = estimate([run("snip", 0.9, seed) for seed in range(50)], tmp_path, "cpu")
    assert len(read) <= estimates.SAMPLE and {e.seconds for e in found} == {12.0}


def test_the_lines_say_what_it_comes_to(tmp_path: Path) -> None:
    put(tmp_path, run("snip", 0.5), 3596.0, 4.0)
    runs = [run("snip", 0.9, seed) for seed in range(4)]
    found = estimate(runs, tmp_path, "cpu")
    assert estimates.lines(runs, found, "cpu", 2) == [
        "cost: about 4 core-hours, 2h00m on 2 workers; 1h00m a cell (from 1 measured cell)"
    ]
    runs.append(run("snip", settings=("train.epochs=24",)))
    head, first, second = estimates.lines(runs, estimate(runs, tmp_path, "cpu"), "A100", 1)
    assert head == "cost: about 6 GPU-hours, 5h59m on 1 worker"
    assert (
        "recipe quick: about 4 GPU-hours; 1h00m a cell" in first
        and "quick+train.epochs=24: about 2 GPU-hours" in second
    )
