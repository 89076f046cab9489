"""Tests of checkpoints: stops, kills and damaged files must not change the result of a cell."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from pai_bench.cells import Cell
from pai_bench.experiment.runner import CellRunner, Run
from pai_bench.models import registry as building
from pai_bench.training import evaluation
from pai_bench.training.callbacks import Callback
from pai_bench.training.checkpoints import MAGIC, Checkpoints, Interrupted
from tests.unit import killed_updates, killing


def state(epoch: int, step: int, **more: object) -> dict[str, object]:
    return {"epoch": epoch, "step": step, "weights": {"w": torch.arange(5.0)}, "curve": [{"loss": None}], **more}


def at(checkpoints: Checkpoints, **wanted: object) -> tuple[int, int] | None:
    found = checkpoints.load(**wanted)
    return None if found is None else (found["epoch"], found["step"])


def test_saved_states_are_loaded_and_the_last_two_files_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "cell", "host-1")
    assert checkpoints.load() is None
    for step in range(4):
        checkpoints.save(state(0, step))
    assert len(list((tmp_path / "cell").iterdir())) == 2
    found = Checkpoints(tmp_path / "cell", "host-2").load()
    assert found is not None and torch.equal(found["weights"].pop("w"), torch.arange(5.0))
    assert found == state(0, 3, weights={})
    checkpoints.clear()
    assert not (tmp_path / "cell").exists()
    checkpoints.clear()


def test_the_most_advanced_attempt_is_loaded_and_others_are_removed_after_two_saves(tmp_path: Path) -> None:
    first, second = Checkpoints(tmp_path, "1"), Checkpoints(tmp_path, "2")
    first.save(state(9, 0))
    second.save(state(10, 1))
    (tmp_path / ".e000011-s00000000-1.checkpoint.abc.tmp").write_bytes(b"half")
    third = Checkpoints(tmp_path, "2/3")
    assert at(third) == (10, 1)
    first.save(state(9, 1))
    third.save(state(10, 2))
    assert len(list(tmp_path.iterdir())) == 5
    third.save(state(10, 3))
    # Those that the third attempt did not see when it began belong to somebody who may be alive.
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "e000009-s00000001-1.checkpoint",
        "e000010-s00000002-2_3.checkpoint",
        "e000010-s00000003-2_3.checkpoint",
    ]


def test_only_a_checkpoint_with_matching_values_is_loaded(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "1")
    checkpoints.save(state(1, 0, fingerprint="ours"))
    checkpoints.save(state(2, 0, fingerprint="other"))
    assert at(checkpoints, fingerprint="ours") == (1, 0)
    assert at(checkpoints, fingerprint="third") is None


def test_a_file_that_pytorch_cannot_read_is_damaged_too(tmp_path: Path) -> None:
    content = b"not a zip archive"
    head = b"%s %s %d\n" % (MAGIC, hashlib.sha256(content).hexdigest().encode(), len(content))
    (tmp_path / "e000001-s00000000-1.checkpoint").write_bytes(head + content)
    with pytest.warns(RuntimeWarning, match="cannot be read"):
        assert Checkpoints(tmp_path, "2").load() is None


@pytest.mark.parametrize("place", [0, 30, 60, 110, 400, -1])
@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_damaged_checkpoint_is_reported_and_the_previous_one_is_used(tmp_path: Path, damage: str, place: int) -> None:
    checkpoints = Checkpoints(tmp_path, "1")
    checkpoints.save(state(1, 0))
    checkpoints.save(state(2, 0))
    path = max(tmp_path.iterdir())
    content = bytearray(path.read_bytes())
    if damage == "cut":
        del content[place:]
    else:
        content[place] ^= 1
    path.write_bytes(content)
    notes: list[str] = []
    assert at(Checkpoints(tmp_path, "2", note=notes.append)) == (1, 0)
    assert len(notes) == 1 and path.name in notes[0]


def test_a_full_disk_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path / "cell", "1", every=1e6)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(RuntimeWarning, match="No space left"):
        checkpoints.save(state(0, 0))
    assert list((tmp_path / "cell").iterdir()) == []
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    with pytest.warns(RuntimeWarning, match="a checkpoint could not be written"):
        Checkpoints(tmp_path / "file" / "cell", "1").save(state(0, 0))
    assert Checkpoints(tmp_path / "file" / "cell", "1").load() is None


@pytest.mark.slow
def test_a_training_stopped_at_any_step_gives_the_result_of_an_uninterrupted_one(tmp_path: Path) -> None:
    data, settings = killing.small_data(200), killing.recipe()
    undisturbed = killing.trained(data, settings)
    for steps in (1, 2, 3, 4, 7):
        end, stops = killing.interrupted_until_done(data, settings, tmp_path / str(steps), steps)
        assert end == undisturbed and stops == 8 // steps


@pytest.mark.slow
def test_a_stop_during_an_evaluation_repeats_only_the_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", 50)
    data, settings = killing.small_data(200), killing.recipe()
    checkpoints = Checkpoints(tmp_path, "1")
    with pytest.raises(Interrupted):
        killing.trained(data, settings, killing.StopAfter(checkpoints, 8 + 3), checkpoints)
    counted = Ticks()
    end = killing.trained(data, settings, counted, Checkpoints(tmp_path, "2"))
    assert end == killing.trained(data, settings) and counted.steps == -(-len(data.test_y) // 50)


@pytest.mark.slow
def test_saving_does_not_change_the_result(tmp_path: Path) -> None:
    data, settings = killing.small_data(200), killing.recipe(epochs=1)
    torch.manual_seed(5)
    killing.network()
    before = torch.get_rng_state()
    torch.manual_seed(5)
    end = killing.trained(data, settings, None, Checkpoints(tmp_path, "1", every=0.0))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert killing.trained(data, settings) == end


@pytest.mark.slow
def test_a_damaged_checkpoint_repeats_a_step_and_does_not_change_the_result(tmp_path: Path) -> None:
    data, settings = killing.small_data(200), killing.recipe()
    checkpoints = Checkpoints(tmp_path, "1", every=0.0)
    with pytest.raises(Interrupted):
        killing.trained(data, settings, killing.StopAfter(checkpoints, 6), checkpoints)
    path = max(tmp_path.iterdir())
    path.write_bytes(path.read_bytes()[:-100])
    counted = Ticks()
    again = Checkpoints(tmp_path, "2", every=1e6)
    with pytest.warns(RuntimeWarning, match="is damaged"):
        assert killing.trained(data, settings, counted, again) == killing.trained(data, settings)
    assert counted.steps == 8 - 5 + 1  # the last is of the evaluation


class Ticks(Callback):
    """A callback that counts steps."""

    def __init__(self) -> None:
        self.steps = 0
        self.phases: list[str] = []

    def phase(self, phase: str) -> None:
        self.phases.append(phase)
        self.steps = 0

    def tick(self) -> None:
        self.steps += 1


@pytest.mark.slow
def test_a_killed_training_gives_the_result_of_an_uninterrupted_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.unit.killing", str(tmp_path), "10"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    told = json.loads(done.stdout)
    assert told["died"] == 10
    assert all(end == told["undisturbed"] for end in told["ends"])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["random", "synflow:rounds=3"])
def test_a_stopped_cell_is_neither_scored_nor_trained_twice(tmp_path: Path, method: str) -> None:
    run = Run(Cell(method, "digits", "conv8", 0.9, 0), killing.recipe(epochs=1, batch_size=256))
    undisturbed = CellRunner(device="cpu").run(run)
    watches = []
    for attempt, steps in enumerate((0, 1, 2, 1000)):
        checkpoints = Checkpoints(tmp_path, str(attempt))
        callback = StopInTraining(checkpoints, steps)
        watches.append(callback)
        if steps == 1000:
            outcome = CellRunner(device="cpu").run(run, callback, checkpoints)
        else:
            with pytest.raises(Interrupted):
                CellRunner(device="cpu").run(run, callback, checkpoints)
    assert ["scoring" in callback.phases for callback in watches] == [True, False, False, False]
    same = ("accuracy", "curve", "mask_hash", "init_hash", "fingerprint", "layers", "effective_sparsity", "status")
    for name in same:
        assert getattr(outcome.result, name) == getattr(undisturbed.result, name), name
    assert [a["attempt"] for a in outcome.result.provenance["earlier_attempts"]] == ["0", "1", "2"]
    assert undisturbed.result.provenance["earlier_attempts"] == []
    assert all((outcome.masks[name] == mask).all() for name, mask in undisturbed.masks.items())
    found = Checkpoints(tmp_path, "9").load()
    assert found is not None
    assert outcome.result.costs["train_seconds"] > found["seconds"] > 0  # type: ignore[operator]
    assert outcome.result.costs["score_seconds"] == found["scoring_cost"]["seconds"]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "ties"), [("snip", 296), ("force:rounds=2", 296), ("magnitude", None)])
def test_the_number_of_ties_is_the_same_after_resuming(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, method: str, ties: int | None
) -> None:
    """A classifier that begins at zero ties all scores; a resumed cell has no scores to count."""

    class ZeroHead(nn.Linear):
        def reset_parameters(self) -> None:
            nn.init.zeros_(self.weight)
            nn.init.zeros_(self.bias)

    def zero_head(channels: int, size: int, classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(channels * size**2, 8), nn.ReLU(), ZeroHead(8, classes))

    monkeypatch.setitem(building._builders._things, "zero-head", zero_head)
    recipe = killing.recipe(epochs=1, batch_size=512)
    recipe = dataclasses.replace(recipe, init=dataclasses.replace(recipe.init, scheme="torch"))
    run = Run(Cell(method, "digits", "zero-head", 0.5, 0), recipe)
    with pytest.raises(Interrupted):
        checkpoints = Checkpoints(tmp_path, "1")
        CellRunner(device="cpu").run(run, StopInTraining(checkpoints, 1), checkpoints)
    callback = Ticks()
    outcome = CellRunner(device="cpu").run(run, callback, Checkpoints(tmp_path, "2"))
    assert "scoring" not in callback.phases and outcome.result.tied_at_cut == ties


class StopInTraining(Ticks):
    """A callback that requests a stop after a number of training steps; at 0 after scoring."""

    def __init__(self, checkpoints: Checkpoints, steps: int) -> None:
        super().__init__()
        self.checkpoints, self.stop = checkpoints, steps

    def phase(self, phase: str) -> None:
        super().phase(phase)
        if phase == "training" and self.stop == 0:
            self.checkpoints.request_stop()

    def tick(self) -> None:
        super().tick()
        if self.phases[-1] == "training" and self.steps == self.stop:
            self.checkpoints.request_stop()


@pytest.mark.slow
def test_cells_killed_in_a_mask_update_and_in_a_step_resume_to_the_bit(tmp_path: Path) -> None:
    """Cells of all kinds of methods that see training are killed with SIGKILL, and equal undisturbed ones."""
    command = [sys.executable, "-m", "tests.unit.killed_updates", str(tmp_path)]
    without_gpu = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}  # its threads do not survive a fork
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=without_gpu)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found) == list(killed_updates.METHODS)
    for method, (signals, undisturbed, resumed) in found.items():
        assert signals == [signal.SIGKILL, signal.SIGKILL], method
        assert resumed == undisturbed, method


@pytest.mark.slow
def test_a_checkpoint_of_other_data_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(Cell("random", "digits", "conv8", 0.9, 0), killing.recipe(epochs=1, batch_size=512))
    runner = CellRunner(device="cpu")
    checkpoints = Checkpoints(tmp_path, "1")
    with pytest.raises(Interrupted):
        runner.run(run, StopInTraining(checkpoints, 1), checkpoints)
    other = dataclasses.replace(runner.dataset(run), content_hash="other")
    monkeypatch.setattr(runner, "dataset", lambda run: other)
    callback = Ticks()
    runner.run(run, callback, Checkpoints(tmp_path, "2"))
    assert "scoring" in callback.phases


def test_a_stop_requested_before_the_start_stops_the_cell(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "1")
    checkpoints.request_stop()
    with pytest.raises(Interrupted):
        CellRunner(device="cpu").run(Run(Cell("snip", "digits", "conv8", 0.9, 0), killing.recipe()), None, checkpoints)
