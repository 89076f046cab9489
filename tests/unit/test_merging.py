"""Tests of merging results folders: equal results once, conflicts not at all, and no loss when it is killed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pai_bench import results
from pai_bench.analysis.collect import collect
from pai_bench.cells import Cell
from pai_bench.errors import PaiBenchError
from pai_bench.results import ResultKey
from pai_bench.results.merging import merge
from tests.cli.program import pai_bench
from tests.unit.test_results import MASKS, result

FINGERPRINT = result().fingerprint
CELLS = [Cell("snip", "digits", "conv8", 0.9, seed) for seed in range(6)]


def put(root: Path, seed: int, masks: dict[str, np.ndarray] | None = None, **changes: object) -> Path:
    one = result(**{**vars(CELLS[seed]), "accuracy": 0.5 + seed / 100, **changes})
    return results.write(root, one, MASKS if masks is None else masks)


def plan(root: Path, name: str, *seeds: int) -> None:
    cells = [{**vars(CELLS[seed]), "recipe": "quick", "fingerprint": FINGERPRINT} for seed in seeds]
    results.write_plan(root, f"{name}.json", {"created": name, "cells": cells})


def fail(root: Path, seed: int, cause: str) -> None:
    results.write_failure(root, ResultKey(CELLS[seed], "quick", FINGERPRINT), cause=cause, traceback="")


def record_copy(root: Path, origin: str) -> None:
    place = results.data_copy_path(root, "digits")
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps({"dataset": "digits", "origin": origin}))


def tree(root: Path) -> dict[str, str]:
    """Content by path of everything except temporary files of killed processes."""
    files = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".tmp")
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Two folders that share the results of seed 1, and the path of a third, which does not exist."""
    a, b = tmp_path / "a", tmp_path / "b"
    for seed in (0, 1):
        put(a, seed)
    for seed in (1, 2):
        put(b, seed, finished_at="2027-01-01T00:00:00+00:00", costs={"train_seconds": 9.0})
    plan(a, "20260101T000000-aaaaaa", 0, 1, 3)
    plan(b, "20260102T000000-bbbbbb", 1, 2, 4)
    fail(a, 3, "out of memory")
    fail(b, 2, "before it succeeded")
    record_copy(a, "standard")
    results.fixed_masks_path(b, "mine-01234567").parent.mkdir(parents=True)
    results.fixed_masks_path(b, "mine-01234567").write_bytes(b"masks")
    return a, b, tmp_path / "c"


@pytest.mark.slow
def test_the_union_has_equal_results_once(folders: tuple[Path, Path, Path]) -> None:
    a, b, c = folders
    merged = merge([a, b], c)
    assert merged.complete and (merged.copied, merged.present, merged.repeated) == (3, 0, 1)
    assert (merged.plans, merged.failures, merged.without_masks) == (2, 1, 0)
    first = ResultKey(CELLS[1], "quick", FINGERPRINT).path(c)
    assert first.read_bytes() == ResultKey(CELLS[1], "quick", FINGERPRINT).path(a).read_bytes()
    for place in results.result_paths(c):
        assert all(np.array_equal(mask, MASKS[name]) for name, mask in results.read_masks(place).items())
    found = collect(c)
    assert sorted(found.rows["seed"]) == [0, 1, 2] and not found.stale
    assert dict(zip(found.missing["seed"], found.missing["state"], strict=True)) == {3: "failed", 4: "missing"}
    assert results.data_copy_path(c, "digits").exists() and results.fixed_masks_path(c, "mine-01234567").exists()


@pytest.mark.slow
def test_a_second_merge_changes_nothing(folders: tuple[Path, Path, Path]) -> None:
    a, b, c = folders
    merge([a, b], c)
    before = tree(c)
    merged = merge([a, b], c)
    assert tree(c) == before and (merged.copied, merged.present, merged.failures) == (0, 3, 0)
    put(a, 3)
    assert merge([a, b], c).copied == 1
    assert not results.has_failed(
        c, ResultKey(CELLS[3], "quick", FINGERPRINT)
    )  # its record was copied before it succeeded


KILLED = """
import os, signal, sys
from pathlib import Path
from pai_bench.core.atomic import Draft
from pai_bench.results.merging import merge

put = Draft.put
for number in range(100):
    folder = Path(sys.argv[3], str(number))
    child = os.fork()
    if child == 0:
        left = [number]
        def count_down(draft):
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return put(draft)
        Draft.put = count_down
        merge([Path(sys.argv[1]), Path(sys.argv[2])], folder)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
print(number)
"""


@pytest.mark.slow
def test_a_merge_that_was_killed_is_completed_by_the_next(folders: tuple[Path, Path, Path]) -> None:
    a, b, c = folders
    merge([a, b], c)
    wanted = tree(c)
    killed = c.with_name("killed")
    done = subprocess.run([sys.executable, "-c", KILLED, a, b, killed], capture_output=True, text=True, check=True)
    kills = int(done.stdout)
    assert kills == len(wanted)  # every file is put in place exactly once
    for number in range(kills):
        assert merge([a, b], killed / str(number)).complete
        assert tree(killed / str(number)) == wanted


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "field"),
    [({"accuracy": 0.75}, "accuracy"), ({"mask_hash": "other"}, "mask_hash"), ({"status": "collapsed"}, "status"),
     ({"init_hash": "other"}, "init_hash"), ({"curve": ()}, "curve"),
     ({"fingerprint": FINGERPRINT[:8] + "00000000"}, "fingerprint")],
)  # fmt: skip
def test_conflicts_are_named_and_neither_is_taken(
    folders: tuple[Path, Path, Path], changes: dict[str, object], field: str
) -> None:
    a, b, c = folders
    ours, theirs = put(a, 5), put(b, 5, **changes)
    merged = merge([a, b], c)
    (conflict,) = merged.conflicts
    assert not merged.complete and merged.copied == 3
    assert conflict.files == (str(ours), str(theirs)) and list(conflict.differs) == [field]
    assert not (c / ours.relative_to(a)).exists()
    theirs.unlink()
    assert merge([a, b], c).complete and (c / ours.relative_to(a)).exists()


@pytest.mark.slow
def test_a_result_of_the_output_folder_stays_in_a_conflict(folders: tuple[Path, Path, Path]) -> None:
    a, b, c = folders
    merge([a, b], c)
    kept = (c / put(b, 0, accuracy=0.9).relative_to(b)).read_bytes()
    (conflict,) = merge([a, b], c).conflicts
    assert len(conflict.files) == 3 and conflict.files[0].startswith(str(c))
    assert (c / Path(conflict.files[0])).read_bytes() == kept


def test_different_copies_of_a_data_set_are_a_conflict(folders: tuple[Path, Path, Path]) -> None:
    a, b, c = folders
    record_copy(b, "accepted 123")
    merged = merge([a, b], c)
    (conflict,) = merged.conflicts
    assert conflict.name == "digits" and conflict.differs == {"copy of the data set": ("standard", "accepted 123")}
    assert merged.copied == 0 and not list(results.result_paths(c))


def test_results_of_other_settings_are_both_copied_and_reported(folders: tuple[Path, Path, Path]) -> None:
    a, b, c = folders
    put(b, 0, fingerprint="f" * 16)
    merged = merge([a, b], c)
    assert merged.complete and merged.copied == 4
    assert merged.several_settings == ("digits/conv8/snip (quick)",)


def test_damaged_files_are_named_and_not_copied(folders: tuple[Path, Path, Path]) -> None:
    a, b, c = folders
    broken, misplaced = put(a, 3), put(a, 4)
    broken.write_text("{")
    misplaced.rename(misplaced.with_name(misplaced.name.replace("seed4", "seed5")))
    (a / "plans" / "20260103T000000-cccccc.json").write_text("[]")
    masks = results.masks_path(ResultKey(CELLS[1], "quick", FINGERPRINT).path(a))
    masks.write_bytes(masks.read_bytes()[:-30])
    merged = merge([a, b], c)
    assert not merged.complete and len(merged.damaged) == 4 and merged.copied == 3
    # The masks of the equal result of the other folder are valid.
    assert results.read_masks(ResultKey(CELLS[1], "quick", FINGERPRINT).path(c)).keys() == MASKS.keys()
    damaged = "\n".join(merged.damaged)
    assert all(name in damaged for name in ("seed3", "seed5", "cccccc", masks.name))


@pytest.mark.slow
def test_results_of_a_newer_version_are_named_and_not_copied(folders: tuple[Path, Path, Path]) -> None:
    a, b, c = folders
    newer = put(a, 3, schema=99)
    put(b, 3)
    merged = merge([a, b], c)
    assert not merged.complete and merged.damaged == (f"{newer} was written by a newer pai-bench (schema 99)",)
    assert (c / newer.relative_to(a)).exists(), "the result of the other folder is valid"
    # One in the output folder stays there.
    (c / newer.relative_to(a)).write_bytes(newer.read_bytes())
    newer.unlink()
    merged = merge([a, b], c)
    assert len(merged.damaged) == 1 and str(c) in merged.damaged[0] and merged.present == 3


def test_results_without_masks_are_copied_and_counted(folders: tuple[Path, Path, Path]) -> None:
    a, b, c = folders
    masks = results.masks_path(ResultKey(CELLS[0], "quick", FINGERPRINT).path(a))
    content = masks.read_bytes()
    masks.unlink()
    merged = merge([a, b], c)
    assert merged.complete and (merged.copied, merged.without_masks) == (3, 1)
    masks.write_bytes(content)
    assert merge([a, b], c).without_masks == 0
    assert (c / masks.relative_to(a)).read_bytes() == content


@pytest.mark.parametrize(
    ("folders_", "out", "message"),
    [(["a"], "c", "at least two"), (["a", "a/../a"], "c", "given twice"), (["a", "b"], "a", "overlaps"),
     (["a", "b"], "a/runs/c", "overlaps"), (["a", "b"], ".", "overlaps"), (["a", "elsewhere"], "c", "not a results")],
)  # fmt: skip
def test_unusable_folders_are_refused(
    folders: tuple[Path, Path, Path], folders_: list[str], out: str, message: str
) -> None:
    top = folders[0].parent
    with pytest.raises(PaiBenchError, match=message):
        merge([top / name for name in folders_], top / out)


def test_a_file_in_place_of_the_output_folder_is_refused(folders: tuple[Path, Path, Path]) -> None:
    a, b, c = folders
    c.write_text("not a folder")
    with pytest.raises(PaiBenchError, match="cannot be written to"):
        merge([a, b], c)


@pytest.mark.slow
def test_the_command_prints_conflicts_and_exits_with_1(folders: tuple[Path, Path, Path]) -> None:
    a, b, _ = folders
    put(b, 0, accuracy=0.25)
    done = pai_bench(a.parent, "merge", "a", "b", "--out", "c", "--json")
    assert done.returncode == 1, done.stderr
    content = json.loads(done.stdout)
    assert content["copied"] == 2 and content["conflicts"][0]["differs"]["accuracy"] == [0.5, 0.25]
    assert "conflict: digits/conv8/snip/s0.9-seed0-quick" in done.stderr and "accuracy 0.25" in done.stderr
