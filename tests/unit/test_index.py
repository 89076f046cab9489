"""Tests of the index: it equals the result files even if its cache is damaged, and parses only changed files."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pai_bench import results
from pai_bench.results import index
from tests.disk import AWAY, Disk
from tests.unit.test_results import result

COUNT = index.WORTH_WRITING + 5


def put(root: Path, seed: int, **changes: Any) -> Path:
    return results.write(root, result(seed=seed, **changes), {}, redo=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed in range(COUNT):
        put(tmp_path, seed, method=("snip", "prospr:lr=0.1")[seed % 2], accuracy=None if seed == 3 else seed / 100)
    return tmp_path


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Record the files that are parsed."""
    places: list[Path] = []
    true = results.read_plain

    def read_plain(place: Path) -> dict[str, Any]:
        places.append(place)
        return true(place)

    monkeypatch.setattr(results, "read_plain", read_plain)
    return places


def from_files(root: Path) -> list[dict[str, Any]]:
    rows = []
    for place in results.result_paths(root):
        plain = results.read_plain(place)
        row = {key: plain[key] for key in index.COLUMNS}
        scoring = plain["recipe_values"].get("scoring", {})
        derived = {"scoring_dtype": scoring.get("dtype"), "effective": scoring.get("effective") is True}
        rows.append({**row, "device": plain["provenance"].get("device"), **derived, "path": str(place)})
    return rows


@pytest.mark.slow
def test_rows_equal_the_content_of_the_files(root: Path, parsed: list[Path]) -> None:
    expected = from_files(root)
    assert list(index.read(root).rows) == expected
    parsed.clear()
    assert list(index.read(root).rows) == expected
    assert not parsed


@pytest.mark.slow
def test_only_changed_files_are_read_again(root: Path, parsed: list[Path]) -> None:
    index.read(root)
    parsed.clear()
    changed = put(root, 1, method="prospr:lr=0.1", accuracy=0.9)
    new = put(root, 1000)
    put(root, 2, method="snip").unlink()
    rows = index.read(root).rows
    assert set(parsed) == {changed, new}
    assert list(rows) == from_files(root)
    assert len(rows) == COUNT


@pytest.mark.slow
def test_a_damaged_file_is_reported_until_it_is_replaced(root: Path) -> None:
    place = put(root, 0, method="snip")
    whole = place.read_bytes()
    place.write_bytes(whole[:100])
    for _ in range(2):
        found = index.read(root)
        assert len(found.rows) == COUNT - 1 and str(place) in found.damaged[0]
    place.write_bytes(whole)
    assert len(index.read(root).rows) == COUNT and not index.read(root).damaged


@pytest.mark.slow
@pytest.mark.parametrize("code", AWAY, ids=errno.errorcode.get)
def test_unreadable_files_are_listed_and_neither_damaged_nor_missing(root: Path, disk: Disk, code: int) -> None:
    place = put(root, 0, method="snip")
    disk.refuse(f"*/{place.parent.name}/{place.name}", code)
    found = index.read(root)
    assert len(found.rows) == COUNT - 1 and not found.damaged
    assert found.unreadable == {str(place): os.strerror(code)}
    assert found.hides(place) and not found.hides(put(root, 2, method="snip"))
    disk.heal()
    assert len(index.read(root).rows) == COUNT and not index.read(root).unreadable


@pytest.mark.slow
def test_a_folder_that_cannot_be_read_hides_its_results(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = put(root, 0, method="snip")
    true = os.scandir

    def scandir(folder: str) -> Any:
        if folder == str(place.parent):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
        return true(folder)

    monkeypatch.setattr(index.os, "scandir", scandir)
    found = index.read(root)
    assert 0 < len(found.rows) < COUNT and found.unreadable == {str(place.parent): "Permission denied"}
    assert found.hides(place) and not found.hides(put(root, 1, method="prospr:lr=0.1"))


def overwrite(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda place: (place.write_bytes(change(place.read_bytes())), None)[1]


def folder_instead(place: Path) -> None:
    place.unlink()
    place.mkdir()


def not_writable(place: Path) -> None:
    place.unlink()
    place.parent.rmdir()
    place.parent.write_text("a file where a folder should be")


@pytest.mark.slow
@pytest.mark.parametrize(
    "spoil",
    [
        overwrite(lambda text: b""),
        overwrite(lambda text: text[:-10]),
        overwrite(lambda text: text.replace(b"0.04", b"0.05")),
        overwrite(lambda text: text.replace(b'"chance"', b'"luck"')),
        overwrite(lambda text: b"\xff\xfe not an index\n[]"),
        folder_instead,
        not_writable,
    ],
)
def test_an_invalid_index_is_rebuilt_or_not_used(root: Path, spoil: Callable[[Path], None]) -> None:
    expected = list(index.read(root).rows)
    spoil(results.index_path(root))
    for _ in range(2):
        assert list(index.read(root).rows) == expected


def test_an_empty_folder_has_no_rows_and_gets_no_index(tmp_path: Path) -> None:
    assert index.read(tmp_path) == index.Index((), ())
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_cell_is_finished_only_with_a_result_at_its_own_path(root: Path) -> None:
    whole = result(seed=1, method="prospr:lr=0.1")
    assert len(index.finished(root)) == COUNT
    assert whole.key in index.finished(root)
    place = whole.key.path(root)
    other = result(seed=999, fingerprint=whole.fingerprint, recipe=whole.recipe).key.path(root)
    place.rename(other)
    assert len(index.finished(root)) == COUNT - 1


def test_a_named_pipe_in_place_of_a_result_is_listed_and_does_not_block(tmp_path: Path) -> None:
    results.write(tmp_path, result(), {})
    place = result().key.path(tmp_path)
    place.unlink()
    os.mkfifo(place)
    held = index.read(tmp_path)
    assert not held.rows and held.unreadable == {str(place): "is a named pipe"}
