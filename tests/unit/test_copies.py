"""A results folder is of one copy of each data set."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pai_bench import results
from pai_bench.data_files import DataChanged
from pai_bench.sweep import copies


def test_of_many_copies_at_once_one_stands(tmp_path: Path) -> None:
    def settle(number: int) -> bool:
        try:
            copies.settle(tmp_path, "cifar10", f"accepted:{number % 3}")
        except DataChanged:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        stood = list(pool.map(settle, range(24)))
    assert sum(stood) == 8 and len({number % 3 for number in range(24) if stood[number]}) == 1
    copies.settle(tmp_path, "cifar100", "official")


def test_another_copy_is_refused_once_there_are_results(tmp_path: Path) -> None:
    copies.settle(tmp_path, "digits", "built-in")
    with pytest.raises(DataChanged, match=r"data set digits changed since the plan: .* copy built-in, .* is official"):
        copies.settle(tmp_path, "digits", "official")
    # Without a result, planning with another copy takes the note back; a dry run leaves it.
    copies.check(tmp_path, {"digits": "official"}, forget=False)
    assert results.data_copy_path(tmp_path, "digits").exists()
    copies.check(tmp_path, {"digits": "official"}, forget=True)
    copies.settle(tmp_path, "digits", "official")
    (tmp_path / "runs/digits/conv8").mkdir(parents=True)
    (tmp_path / "runs/digits/conv8/a.json").write_text("{}")
    copies.check(tmp_path, {"digits": "official", "mnist": "official"}, forget=True)
    with pytest.raises(DataChanged) as caught:
        copies.check(tmp_path, {"digits": "built-in"}, forget=True)
    assert "--results" in caught.value.remedy


def test_a_damaged_note_is_written_anew(tmp_path: Path) -> None:
    place = results.data_copy_path(tmp_path, "digits")
    place.parent.mkdir(parents=True)
    place.write_text("{")
    copies.settle(tmp_path, "digits", "built-in")
    with pytest.raises(DataChanged):
        copies.settle(tmp_path, "digits", "official")
