"""Numbers change only with a new version, because results of the old one would be taken for those of the new method."""

from __future__ import annotations

from typing import Any

import pytest

from . import versions

TABLE = versions.read()
UPDATE = "then write the table again with `python -m tests.golden.versions`"


def compare(name: str, now: dict[str, Any], tolerance: float, where: str) -> None:
    assert name in TABLE, f"{name} is not in {versions.TABLE.name}: look at its numbers, {UPDATE}"
    before = TABLE[name]
    if now["version"] == before["version"]:
        assert not versions.moved(before, now, tolerance), (
            f"the numbers of {name} moved: raise {where} (results of the old one become stale), {UPDATE}"
        )
    else:
        assert now["version"] > before["version"], f"the version of {name} went back; it may only be raised"
        pytest.fail(f"{name} has a new version, {now['version']}: {UPDATE}")


@pytest.mark.parametrize("spec", versions.specs())
def test_a_method_with_changed_scores_has_a_new_version(spec: str) -> None:
    where = f"`version` of the method {spec.partition(':')[0]}"
    compare(spec, versions.method_numbers(spec), versions.SCORE_TOLERANCE, where)


def test_a_trainer_with_changed_results_has_a_new_version() -> None:
    compare("trainer", versions.trainer_numbers(), versions.TRAINER_TOLERANCE, "training.VERSION")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mask": "0"}, "the numbers of snip moved: raise `version`"),
        ({"numbers": [[1.0]]}, "the numbers of snip moved: raise `version`"),
        ({"version": 2, "mask": "0"}, "snip has a new version, 2: then write the table again"),
        ({"version": 0}, "the version of snip went back"),
    ],
)
def test_the_version_guard_states_a_remedy(change: dict[str, Any], words: str) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception), match=words):
        compare("snip", {**TABLE["snip"], **change}, 1e-6, "`version`")
