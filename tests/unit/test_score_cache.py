"""Tests of the score cache shared by the processes of a sweep: faults of the cache never fail a cell."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch

from pai_bench import results
from pai_bench.cells import Cell
from pai_bench.core import plugins
from pai_bench.core.tensor_files import tensors_hash
from pai_bench.experiment import score_cache
from pai_bench.experiment.cost import Cost
from pai_bench.experiment.runner import CellRunner, Run
from pai_bench.experiment.score_cache import DiskCache, ScoreCache, Scored
from pai_bench.results.cleanup import DAY
from pai_bench.sweep.execution.settings import RunSettings
from pai_bench.sweep.execution.shared import shared_scores
from tests.unit.test_controls import Counting
from tests.unit.test_experiment import recipe

CPU = torch.device("cpu")
MASKS = {"w": torch.tensor([[True, False]]), "v": torch.tensor([0.1, -0.2], dtype=torch.float64)}
COST = Cost(2.5, 1000)


def never() -> Scored:
    raise AssertionError("it is there")


def get(cache: DiskCache | None, key: str = "key", cost: Cost = COST) -> bool:
    """Return True if the entry had to be computed, with a new cache as in a new process."""
    made = []

    def compute() -> Scored:
        made.append(key)
        return Scored(MASKS, cost, tied=3)

    scored = ScoreCache(cache=cache).get(key, compute, CPU)
    tensors, found = scored.tensors, scored.cost
    assert scored.tied == 3
    assert found == cost
    assert list(tensors) == list(MASKS) and all(torch.equal(tensors[name], MASKS[name]) for name in MASKS)
    assert [tensor.dtype for tensor in tensors.values()] == [tensor.dtype for tensor in MASKS.values()]
    return bool(made)


def test_scores_of_one_process_are_read_by_another(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    assert get(cache)
    assert not get(cache)
    assert get(cache, "another key")
    assert get(None)


def test_an_entry_is_read_from_disk_once(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    get(cache)
    cache = ScoreCache(cache=cache)
    cache.get("key", never, CPU)
    for path in tmp_path.iterdir():
        path.unlink()
    cache.get("key", never, CPU)


def test_quickly_computed_scores_are_not_written(tmp_path: Path) -> None:
    get(DiskCache(tmp_path), cost=Cost(score_cache.WORTH_SECONDS / 2))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", [b"", b"half", None])
def test_a_damaged_file_is_recomputed_and_replaced(tmp_path: Path, damage: bytes | None) -> None:
    cache = DiskCache(tmp_path)
    get(cache)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content if damage is None else damage)
    assert get(cache)
    assert not get(cache)


def test_a_folder_that_is_not_writable_is_not_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert get(DiskCache(tmp_path / "file"))
    assert get(DiskCache(tmp_path / "file"))


def test_the_most_recently_used_scores_are_kept(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    get(cache, "a")
    (first,) = tmp_path.iterdir()
    size = first.stat().st_size
    cache = DiskCache(tmp_path, limit=2 * size)
    get(cache, "b")
    (second,) = set(tmp_path.iterdir()) - {first}
    old = time.time() - 100
    for age, path in enumerate((first, second)):
        os.utime(path, (old + age, old + age))
    assert not get(cache, "a")
    get(cache, "c")
    assert first.exists() and not second.exists()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_cells_of_two_processes_are_scored_once_and_keep_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_cache, "WORTH_SECONDS", 0.0)
    callback = Counting()

    def masks(method: str, sparsity: float, scores: ScoreCache | None) -> str:
        runner = CellRunner(device="cpu", scores=scores)
        run = Run(Cell(method, "digits", "conv8", sparsity, 0), recipe())
        return tensors_hash(runner.masks(run, runner.model(run), callback).tensors)

    for method in ("snip", "synflow:rounds=2"):
        alone = masks(method, 0.9, None)
        assert masks(method, 0.9, shared_scores(RunSettings(tmp_path))) == alone
        callback.ticks = 0
        assert masks(method, 0.9, shared_scores(RunSettings(tmp_path))) == alone
        assert callback.ticks == 0
        assert masks(method, 0.9, shared_scores(RunSettings(tmp_path, redo=True))) == alone
        assert callback.ticks > 0, "a cell that runs again is scored again"


@pytest.mark.slow
def test_other_code_or_another_device_does_not_share_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_cache, "WORTH_SECONDS", 0.0)
    run = Run(Cell("snip", "digits", "conv8", 0.9, 0), recipe())

    def passes() -> int:
        callback = Counting()
        runner = CellRunner(device="cpu", scores=shared_scores(RunSettings(tmp_path)))
        runner.masks(run, runner.model(run), callback)
        return callback.ticks

    assert passes() > 0
    assert passes() == 0
    for name, other in (
        ("provenance.source_hash", lambda: "other sources"),
        ("device_name", lambda device: "another device"),
        ("torch.__version__", "another PyTorch"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"pai_bench.experiment.runner.{name}", other)
            assert passes() > 0, name
    with monkeypatch.context() as patch:
        patch.setattr(plugins, "plugins", lambda: {"mine.py": "0123"})
        assert passes() > 0
    assert passes() == 0


def test_scores_unused_for_a_day_are_removed(tmp_path: Path) -> None:
    cache = DiskCache(results.scores_folder(tmp_path))
    get(cache, "old")
    (old,) = results.scores_folder(tmp_path).iterdir()
    get(cache, "new")
    long_ago = time.time() - DAY - 60
    os.utime(old, (long_ago, long_ago))
    results.tidy(tmp_path)
    assert not old.exists()
    assert get(cache, "old")
    assert not get(cache, "new")
