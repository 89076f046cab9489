"""Tests of result records: written atomically, read back unchanged, and checked for damage."""

from __future__ import annotations

import errno
import json
import math
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import MISSING, asdict, fields, replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from pai_bench import results
from pai_bench.cells import Cell
from pai_bench.core.atomic import Draft, check_writable, replacing
from pai_bench.errors import PaiBenchError
from pai_bench.results import DamagedResult, Epoch, Layer, Result, ResultKey, record
from pai_bench.results.key import NAME_BYTES
from tests.disk import AWAY, Disk

ROOT = Path(__file__).parents[2]

MASKS = {"a.weight": np.array([[True, False, True], [False, False, True]]), "b.weight": np.zeros((3, 5), bool)}


def result(**changes: object) -> Result:
    whole = Result(
        method="prospr:lr=0.1",
        dataset="digits",
        model="conv8",
        sparsity=0.9,
        seed=3,
        accuracy=0.75,
        status="ok",
        actual_sparsity=0.9,
        effective_sparsity=0.91,
        init_hash="i",
        mask_hash="m",
        fingerprint="0123456789abcdef",
        recipe="quick",
        recipe_values={"train": {"lr": 0.1, "milestones": [1, 2]}},
        hyperparameters={"lr": 0.1},
        method_version=1,
        n_prunable=21,
        n_kept=3,
        layers=(Layer("a.weight", 6, 3), Layer("b.weight", 15, 0)),
        empty_layers=("b.weight",),
        curve=(Epoch(1, 2.0, None), Epoch(2, 1.0, 0.75)),
        costs={"score_seconds": 0.5, "score_peak_bytes": None},
        chance=0.1,
        finished_at="2026-01-01T00:00:00+00:00",
        provenance={"commit": None, "versions": {"torch": "2"}},
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def test_a_written_result_is_read_back(tmp_path: Path) -> None:
    place = results.write(tmp_path, result(), MASKS)
    assert results.read(place) == result()
    masks = results.read_masks(place)
    assert list(masks) == list(MASKS)
    assert all(mask.dtype == bool and np.array_equal(mask, MASKS[name]) for name, mask in masks.items())


@pytest.mark.parametrize("left_out", [each.name for each in fields(Result)])
def test_a_field_with_a_default_may_be_missing_in_older_results(tmp_path: Path, left_out: str) -> None:
    (each,) = (each for each in fields(Result) if each.name == left_out)
    place = results.write(tmp_path, result(), MASKS)
    plain = json.loads(place.read_text())
    del plain[left_out]
    place.write_text(json.dumps(plain))
    if left_out != "schema" and (each.default, each.default_factory) != (MISSING, MISSING):
        default = each.default if each.default_factory is MISSING else each.default_factory()
        assert results.read(place) == replace(result(), **{left_out: default})
    else:
        with pytest.raises(DamagedResult, match=f"KeyError: '{left_out}'"):
            results.read(place)


def test_a_result_has_the_documented_path(tmp_path: Path) -> None:
    place = results.write(tmp_path, result(), MASKS)
    assert place.parent == tmp_path / "runs" / "digits" / "conv8" / "prospr:lr=0.1"
    assert place.name == "s0.9-seed3-quick-01234567.json"
    assert [path.suffix for path in sorted(place.parent.iterdir())] == [".json", ".npz"]
    keys = json.loads(place.read_text())
    contract = "method dataset model sparsity seed accuracy status actual_sparsity effective_sparsity"
    assert set(f"{contract} init_hash mask_hash fingerprint schema".split()) <= set(keys)
    assert list(results.result_paths(tmp_path)) == [place]


def test_a_name_is_parsed_into_the_cell(tmp_path: Path) -> None:
    for changes in ({}, {"sparsity": 1e-05, "recipe": "quick+train.lr=0.05-a"}, {"method": "dense", "sparsity": 0.0}):
        whole = result(**changes)
        place = results.write(tmp_path / "-".join(changes), whole, {})
        (name,) = results.names(tmp_path / "-".join(changes) / "runs", ".json")
        assert name == whole.key.name == results.name_of(place)
        assert ResultKey.parse(name) == replace(whole.key, fingerprint=whole.fingerprint[:8])
    assert ResultKey.parse("digits/conv8/snip/notes") is None
    assert ResultKey.parse("digits/conv8/snip/s0.90-seed0-quick-01234567") is None  # a renamed file
    assert ResultKey.of(whole.key.as_dict()) == whole.key


def test_the_first_result_counts_and_a_second_one_is_compared_and_recorded(tmp_path: Path) -> None:
    place = results.write(tmp_path, result(), MASKS, owner="first")
    other = {name: ~mask for name, mask in MASKS.items()}
    assert results.deliver(tmp_path, result(finished_at="later"), other, owner="same").differs == ()
    late = results.deliver(tmp_path, result(accuracy=0.5, mask_hash="n"), other, owner="other")
    assert late == results.Delivery(place, duplicate=True, differs=("accuracy", "mask_hash"))
    assert results.read(place) == result()
    assert np.array_equal(results.read_masks(place)["a.weight"], MASKS["a.weight"])
    notes = {path.name: json.loads(path.read_text()) for path in results.duplicates_folder(tmp_path).rglob("*.json")}
    assert {name: note["equal"] for name, note in notes.items()} == {
        f"{place.stem}.same.json": True,
        f"{place.stem}.other.json": False,
    }
    assert notes[f"{place.stem}.other.json"]["differs"]["accuracy"] == {"counted": 0.75, "duplicate": 0.5}
    results.write(tmp_path, result(accuracy=0.5), other, redo=True)
    assert results.read(place).accuracy == 0.5
    assert np.array_equal(results.read_masks(place)["a.weight"], other["a.weight"])


@pytest.mark.slow
@pytest.mark.parametrize("renames", [0, 1])
def test_a_process_that_is_killed_while_it_replaces_a_result_leaves_no_result_with_other_masks(
    tmp_path: Path, renames: int
) -> None:
    place = results.write(tmp_path, result(), MASKS)
    code = """
import os, signal, sys
from pathlib import Path
from pai_bench import results
from pai_bench.core.atomic import Draft
from tests.unit.test_results import MASKS, result

renames, replace = int(sys.argv[2]), Draft.replace

def killed(draft):
    global renames
    if not renames:
        os.kill(os.getpid(), signal.SIGKILL)
    renames -= 1
    replace(draft)

Draft.replace = killed
results.write(Path(sys.argv[1]), result(accuracy=0.5), {name: ~mask for name, mask in MASKS.items()}, redo=True)
"""
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path), str(renames)], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    assert results.state(tmp_path, result().key) == "missing" and not place.exists()
    assert not results.deliver(tmp_path, result(accuracy=0.5), MASKS).duplicate
    assert np.array_equal(results.read_masks(place)["a.weight"], MASKS["a.weight"])


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_damaged_results_and_orphaned_masks_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:

        def refuse(self: Path, target: Path) -> None:
            raise OSError(errno.EPERM, "no hard links here")

        monkeypatch.setattr(Path, "hardlink_to", refuse)
    other = {name: ~mask for name, mask in MASKS.items()}
    place = results.write(tmp_path, result(), other)
    place.write_text("{")
    assert not results.deliver(tmp_path, result(), MASKS).duplicate
    assert results.read(place) == result() and len(list(place.parent.glob("*.damaged-*"))) == 1
    assert np.array_equal(results.read_masks(place)["a.weight"], MASKS["a.weight"])
    assert results.deliver(tmp_path, result(), MASKS).duplicate
    assert not list(place.parent.glob(".*"))


def test_nan_and_infinity_are_written_as_null(tmp_path: Path) -> None:
    diverged = result(status="diverged", accuracy=math.nan, curve=(Epoch(1, math.inf, math.nan),))
    place = results.write(tmp_path, diverged, MASKS)
    assert "NaN" not in place.read_text() and "Infinity" not in place.read_text()
    read = results.read(place)
    assert read.accuracy is None
    assert read.curve == (Epoch(1, None, None),)


def test_masks_take_a_bit_a_weight(tmp_path: Path) -> None:
    masks = {"w": np.random.default_rng(0).random(268_336) < 0.5}
    place = results.write(tmp_path, result(), masks)
    assert results.masks_path(place).stat().st_size < 268_336 / 8 + 2000


def damage(place: Path, how: str) -> None:
    text = place.read_text()
    if how == "cut short":
        place.write_text(text[: len(text) // 2])
    elif how == "empty":
        place.write_text("")
    elif how == "not an object":
        place.write_text("[1, 2]")
    elif how == "zeros":
        place.write_bytes(bytes(len(text)))
    else:
        key, value = how.split("=")
        content = json.loads(text)
        if value == "gone":
            del content[key]
        else:
            content[key] = json.loads(value)
        place.write_text(json.dumps(content))


HARM = ["cut short", "empty", "not an object", "zeros", "accuracy=gone", 'accuracy="high"', "accuracy=93.5"]
HARM += ['status="fine"', "sparsity=null", "seed=true", "layers=3", "schema=gone"]


@pytest.mark.parametrize("how", HARM)
def test_damaged_files_are_reported_renamed_and_never_deleted(tmp_path: Path, how: str) -> None:
    place = results.write(tmp_path, result(), MASKS)
    damage(place, how)
    harmed = place.read_bytes()
    with pytest.raises(DamagedResult, match=r"s0\.9-seed3"):
        results.read(place)
    key = result().key
    with pytest.raises(DamagedResult):
        results.state(tmp_path, key)
    aside = results.set_aside(place)
    assert aside.read_bytes() == harmed
    assert results.state(tmp_path, key) == "missing"
    assert list(results.result_paths(tmp_path)) == []
    # A second one does not overwrite the first.
    results.write(tmp_path, result(), MASKS)
    assert results.set_aside(place) != aside
    assert aside.read_bytes() == harmed


def test_a_file_of_another_cell_is_not_this_cells_result(tmp_path: Path) -> None:
    place = results.write(tmp_path, result(seed=4), MASKS)
    place.rename(result().key.path(tmp_path))
    with pytest.raises(DamagedResult, match="seed 4"):
        results.state(tmp_path, result().key)


def test_a_newer_schema_is_not_taken_for_damage(tmp_path: Path) -> None:
    place = results.write(tmp_path, result(schema=results.SCHEMA + 1), MASKS)
    with pytest.raises(PaiBenchError, match="newer pai-bench") as caught:
        results.read(place)
    assert not isinstance(caught.value, DamagedResult)


def test_damaged_masks_are_named(tmp_path: Path) -> None:
    place = results.write(tmp_path, result(), MASKS)
    masks = results.masks_path(place)
    masks.write_bytes(masks.read_bytes()[:50])
    with pytest.raises(DamagedResult, match="masks"):
        results.read_masks(place)


@pytest.mark.parametrize("code", AWAY, ids=errno.errorcode.get)
def test_a_result_that_cannot_be_read_is_not_damaged(tmp_path: Path, disk: Disk, code: int) -> None:
    place = results.write(tmp_path, result(), MASKS)
    key = result().key
    disk.refuse(f"*/{place.name}", code)
    for look in (
        lambda: results.read(place),
        lambda: results.state(tmp_path, key),
        lambda: results.deliver(tmp_path, result(), MASKS),
    ):
        with pytest.raises(OSError) as caught:
            look()
        assert caught.value.errno == code
    disk.heal()
    assert results.state(tmp_path, key) == "done" and not list(place.parent.glob("*.damaged-*"))
    disk.refuse("*.masks.npz", code)
    with pytest.raises(OSError):
        results.read_masks(place)


def test_a_result_that_is_replaced_while_it_is_read_is_read_again(tmp_path: Path, disk: Disk) -> None:
    place = results.write(tmp_path, result(), MASKS)
    disk.refuse(f"*/{place.name}", errno.ESTALE, times=1)
    assert results.read(place) == result()


def test_an_unreadable_failure_record_still_counts_as_a_failure(tmp_path: Path, disk: Disk) -> None:
    key = result().key
    results.write_failure(tmp_path, key, cause="boom", traceback="")
    disk.refuse("*/failed/*/*/*/*.json", errno.EIO)
    noted = results.read_failure(tmp_path, key)
    assert noted is not None and noted.kind == results.UNREAD and "Input/output error" in noted.cause
    disk.refuse("*/failed/*/*/*/*.json", errno.ESTALE)
    assert results.read_failure(tmp_path, key) is None  # given back while we read


def test_the_plan_written_last_is_the_newest_for_any_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cells(seed: int) -> list[dict[str, object]]:
        return [{**asdict(replace_seed(result().cell, seed)), "recipe": "quick", "fingerprint": "0123456789"}]

    # Plans of an earlier version and of a host whose clock is ahead.
    results.write_plan(tmp_path, "20250101T000000-ffffff.json", {"cells": cells(101)})
    results.write_plan(tmp_path, "20990101T000000-ffffff.json", {"cells": cells(102)})
    for number, clock in enumerate((time.time(), 0.0, 0.0)):
        monkeypatch.setattr(import_module("pai_bench.results.plans"), "server_time", lambda folder, clock=clock: clock)
        results.write_plan(tmp_path, results.plan_name(tmp_path), {"cells": cells(number)})
        assert results.plans(tmp_path)[-1]["cells"] == cells(number)
    assert len(results.plans(tmp_path)) == 5
    monkeypatch.undo()
    assert (
        abs(time.time() - time.mktime(time.strptime(results.plan_name(tmp_path / "new")[:15], "%Y%m%dT%H%M%S"))) < 1e5
    )


@pytest.mark.parametrize("recipe", ["r", "é"])
def test_no_file_name_of_a_cell_exceeds_the_computed_length(tmp_path: Path, recipe: str) -> None:
    cell = Cell("prospr:lr=0.1", "digits", "conv8", 0.123456789, 123456789)
    while results.excess(cell, recipe + recipe[0]) == (0, 0):
        recipe += recipe[0]
    owner = "f" * 16
    whole = result(**{**vars(cell), "recipe": recipe})
    key = whole.key
    place = results.write(tmp_path, whole, MASKS)
    claim = key.claim_path(tmp_path)
    files = [place, results.masks_path(place), claim, results.beat_path(claim, owner), key.log_path(tmp_path)]
    files += [key.duplicate_path(tmp_path, owner), key.failure_path(tmp_path)]
    lengths = [len(os.fsencode(Draft(file).temporary.name)) for file in files]
    assert max(lengths) <= NAME_BYTES < max(lengths) + len(os.fsencode(recipe[0]))
    assert results.deliver(tmp_path, whole, MASKS, owner=owner).duplicate
    assert results.set_aside(place) is not None


def test_states_follow_from_the_files_on_disk(tmp_path: Path) -> None:
    key = result().key
    assert results.state(tmp_path, key) == "missing"
    results.write(tmp_path, result(fingerprint="f" * 16), MASKS)
    assert results.state(tmp_path, key) == "stale"
    assert results.state(tmp_path, replace(key, recipe="qui")) == "missing"  # another recipe's files do not count
    assert results.state(tmp_path, replace(key, cell=replace_seed(key.cell, 33))) == "missing"
    results.write_failure(tmp_path, key, cause="boom", traceback="")
    assert results.state(tmp_path, key) == "failed"
    results.clear_failure(tmp_path, key)
    results.write(tmp_path, result(), MASKS)
    assert results.state(tmp_path, key) == "done"


def replace_seed(cell: Cell, seed: int) -> Cell:
    return replace(cell, seed=seed)


def test_every_field_is_checked_when_read() -> None:
    assert {field.name for field in fields(Result)} == set(record._KINDS)
    plain = json.loads(json.dumps(asdict(result())))
    assert all(type(plain[name]) in kinds for name, kinds in record._KINDS.items())


def _write_forever(root: str, redo: bool) -> None:
    while True:
        results.write(Path(root), result(), MASKS, redo=redo)


@pytest.mark.slow
@pytest.mark.parametrize("redo", [True, False], ids=["replacing", "first wins"])
def test_a_killed_writer_leaves_no_partial_file(tmp_path: Path, redo: bool) -> None:
    context = multiprocessing.get_context("spawn")
    place = result().key.path(tmp_path)
    for pause in (0.0, 0.003, 0.011):
        writer = context.Process(target=_write_forever, args=(str(tmp_path), redo))
        writer.start()
        while not place.exists():
            time.sleep(0.01)
        time.sleep(pause)
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        if redo and not place.exists():
            continue  # while a result is replaced, there is none, so that none has the masks of another run
        assert results.read(place) == result()
        assert len(results.read_masks(place)) == 2
        assert list(results.result_paths(tmp_path)) == [place]
        if not redo:
            place.unlink()


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("old")
    with pytest.raises(RuntimeError), replacing(place) as file:
        file.write(b"new")
        raise RuntimeError
    assert place.read_text() == "old"
    assert list(tmp_path.iterdir()) == [place]


def test_a_folder_that_cannot_be_made_is_named_with_its_option(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PaiBenchError, match="cannot be written to") as caught:
        check_writable(tmp_path / "file" / "results", "--results")
    assert "--results" in caught.value.remedy
    check_writable(tmp_path / "new" / "results", "--results")
    assert list((tmp_path / "new" / "results").iterdir()) == []


def test_a_full_disk_that_accepts_empty_files_is_refused(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(PaiBenchError, match="cannot be written to: File too large") as caught:
            check_writable(tmp_path / "results", "--results")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "make room" in caught.value.remedy and not list((tmp_path / "results").iterdir())


def test_the_root_is_the_option_then_the_environment_then_the_working_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PAI_BENCH_RESULTS", raising=False)
    assert results.resolve_root() == tmp_path / "results"
    monkeypatch.setenv("PAI_BENCH_RESULTS", str(tmp_path / "env"))
    assert results.resolve_root() == tmp_path / "env"
    assert results.resolve_root(tmp_path / "option") == tmp_path / "option"


@pytest.mark.parametrize(
    ("name", "value"),
    [("sparsity", 1.0), ("sparsity", -0.1), ("seed", -1), ("recipe_values", []), ("curve", {}), ("status", "fine")],
)
def test_invalid_values_are_reported_as_damage(tmp_path: Path, name: str, value: object) -> None:
    place = results.write(tmp_path, result(), MASKS)
    place.write_text(json.dumps({**json.loads(place.read_text()), name: value}))
    with pytest.raises(results.DamagedResult, match=name):
        results.read(place)
