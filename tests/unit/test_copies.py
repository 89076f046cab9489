"""Tests of the rule that all results of a folder use one copy of each data set."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pai_bench import recipes, results
from pai_bench.cells import Cell
from pai_bench.datasets import files
from pai_bench.datasets.files import DataChanged
from pai_bench.experiment.runner import CellRunner, Run
from pai_bench.sweep.execution import dataset_copy
from pai_bench.sweep.execution.attempt import AttemptOutcome, execute
from pai_bench.sweep.execution.claims import Owner
from pai_bench.sweep.execution.settings import RunSettings


def test_one_of_many_concurrent_copies_is_recorded(tmp_path: Path) -> None:
    def settle(number: int) -> bool:
        try:
            dataset_copy.settle(tmp_path, "cifar10", f"accepted:{number % 3}")
        except DataChanged:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        stood = list(pool.map(settle, range(24)))
    assert sum(stood) == 8 and len({number % 3 for number in range(24) if stood[number]}) == 1
    dataset_copy.settle(tmp_path, "cifar100", "official")


def test_another_copy_is_refused_once_there_are_results(tmp_path: Path) -> None:
    dataset_copy.settle(tmp_path, "digits", "built-in")
    with pytest.raises(DataChanged, match=r"data set digits changed since the plan: .* copy built-in, .* is official"):
        dataset_copy.settle(tmp_path, "digits", "official")
    # Without a result, planning with another copy takes the note back; a dry run leaves it.
    dataset_copy.check(tmp_path, {"digits": "official"}, forget=False)
    assert results.data_copy_path(tmp_path, "digits").exists()
    dataset_copy.check(tmp_path, {"digits": "official"}, forget=True)
    dataset_copy.settle(tmp_path, "digits", "official")
    (tmp_path / "runs/digits/conv8").mkdir(parents=True)
    (tmp_path / "runs/digits/conv8/a.json").write_text("{}")
    dataset_copy.check(tmp_path, {"digits": "official", "mnist": "official"}, forget=True)
    with pytest.raises(DataChanged) as caught:
        dataset_copy.check(tmp_path, {"digits": "built-in"}, forget=True)
    assert "--results" in caught.value.remedy


@pytest.mark.slow
def test_a_cell_whose_data_changed_during_a_sweep_fails_with_the_cause(tmp_path: Path) -> None:
    shift = [0]

    @files.register_dataset("blobs", files.Info(channels=1, size=8, classes=10, train=40, test=20))
    def blobs(root: Path) -> files.Arrays:
        x = (np.arange(60 * 64) + shift[0]).astype(np.uint8).reshape(60, 1, 8, 8)
        y = np.arange(60) % 10
        return x[:40], y[:40], x[40:], y[40:]

    recipe = recipes.load("quick", "digits", "conv8")
    recipe = replace(recipe, train=replace(recipe.train, epochs=1, warmup_epochs=0.0))

    def cell(seed: int) -> AttemptOutcome:
        run = Run(Cell("random", "blobs", "conv8", 0.5, seed), recipe)
        return execute(run, RunSettings(tmp_path / "results"), CellRunner(device="cpu"), Owner.current())

    assert cell(0).kind == "done"
    shift[0] = 1
    ended = cell(1)
    assert ended.kind == "failed" and ended.cause is not None
    assert ended.cause.startswith("data set blobs changed since the plan")
    shift[0] = 0
    assert cell(1).kind == "done"


def test_a_damaged_record_is_rewritten(tmp_path: Path) -> None:
    place = results.data_copy_path(tmp_path, "digits")
    place.parent.mkdir(parents=True)
    place.write_text("{")
    dataset_copy.settle(tmp_path, "digits", "built-in")
    with pytest.raises(DataChanged):
        dataset_copy.settle(tmp_path, "digits", "official")
