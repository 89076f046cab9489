"""Tests of float32 scoring: recorded, compared with float64; slow float64 scoring gives advice."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from pai_bench import recipes, results
from pai_bench.analysis.collect import collect
from pai_bench.analysis.command import status_lines
from pai_bench.cells import Cell
from pai_bench.experiment.cost import float64_slowdown
from pai_bench.experiment.runner import CellRunner, Run
from pai_bench.experiment.score_cache import Scored
from pai_bench.recipes import parse_settings, variants
from pai_bench.results import float64, index
from pai_bench.training.callbacks import Callback
from tests.unit.test_results import result


def run(method: str, dtype: str, sparsity: float = 0.9) -> Run:
    quick = recipes.load("quick", "digits", "conv8")
    settings = ("train.epochs=1", "train.warmup_epochs=0", f"scoring.dtype={dtype}")
    (recipe,) = variants(quick, parse_settings(settings))
    return Run(Cell(method, "digits", "conv8", sparsity, 0), recipe)


@pytest.mark.slow
def test_float32_results_record_the_overlap_with_float64_masks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runner = CellRunner(device="cpu")
    found = {}
    for method, sparsity in (("snip", 0.9), ("synflow:rounds=3", 0.9), ("dense", 0.0)):
        for dtype in ("float32", "float64"):
            found[method, dtype] = runner.run(run(method, dtype, sparsity))
    for method in ("snip", "synflow:rounds=3"):
        narrow, wide = (found[method, dtype] for dtype in ("float32", "float64"))
        both = sum((narrow.masks[name] & wide.masks[name]).sum() for name in wide.masks)
        either = sum((narrow.masks[name] | wide.masks[name]).sum() for name in wide.masks)
        assert narrow.result.float64_overlap == both / either
        assert "scoring.dtype=float32" in narrow.result.recipe and narrow.result.fingerprint != wide.result.fingerprint
    assert all(found[key].result.float64_overlap is None for key in found if key[1] == "float64" or key[0] == "dense")
    place = results.write(tmp_path, found["snip", "float32"].result, {})
    assert results.read(place).float64_overlap == found["snip", "float32"].result.float64_overlap
    monkeypatch.setattr("pai_bench.experiment.runner.OVERLAP_SECONDS", 0.0)
    assert runner.run(run("snip", "float32")).result.float64_overlap is None


@pytest.mark.slow
def test_memory_that_is_short_for_the_overlap_makes_a_pack_smaller_and_costs_a_single_cell_the_overlap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A result does not depend on the cells beside it."""
    runner = CellRunner(device="cpu")
    masks = runner.masks

    def full(run: Run, network: nn.Module, callback: Callback) -> Scored:
        if run.recipe.scoring.dtype == "float64":
            raise torch.OutOfMemoryError("full")
        return masks(run, network, callback)

    monkeypatch.setattr(runner, "masks", full)
    narrow = run("snip", "float32")
    assert runner.run(narrow).result.float64_overlap is None
    with runner._clock.share(), pytest.raises(torch.OutOfMemoryError):
        runner.run(narrow)


def test_results_without_an_overlap_are_read(tmp_path: Path) -> None:
    place = results.write(tmp_path, result(), {})
    plain = json.loads(place.read_text())
    del plain["float64_overlap"]
    place.write_text(json.dumps(plain))
    assert results.read(place).float64_overlap is None and index.read(tmp_path).rows[0]["float64_overlap"] is None


GPU = "NVIDIA GeForce RTX 4090"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("score", "train", "device", "dtype", "said"),
    [
        (61.0, 10_000.0, GPU, "float64", True),
        (12.0, 200.0, GPU, "float64", True),
        (9.0, 200.0, GPU, "float64", False),
        (0.5, 1.0, GPU, "float64", False),
        (61.0, 100.0, GPU, "float32", False),
        (61.0, 100.0, "cpu", "float64", False),
        (None, 100.0, GPU, "float64", False),
    ],
)
def test_slow_float64_scoring_on_a_gpu_gives_advice(
    tmp_path: Path, score: float | None, train: float, device: str, dtype: str, said: bool
) -> None:
    made = dataclasses.replace(
        result(),
        costs={"score_seconds": score, "train_seconds": train},
        provenance={"device": device},
        recipe_values={"scoring": {"dtype": dtype}},
        float64_overlap=0.75 if dtype == "float32" else None,
    )
    results.write(tmp_path, made, {})
    text = "\n".join(status_lines(collect(tmp_path)))
    assert ("--set scoring.dtype=float32" in text) == said
    assert ("1 masks scored in float32 share 75.0 %" in text) == (dtype == "float32")


def test_gpus_made_for_float64_are_known() -> None:
    assert float64.float64_slowdown("NVIDIA H100 80GB HBM3") == float64.float64_slowdown("cpu") == 2
    assert float64.float64_slowdown(GPU) == 64
    assert float64_slowdown(torch.device("cpu")) == 2
