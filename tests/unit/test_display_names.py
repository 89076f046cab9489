"""Names of recipes in figures."""

from __future__ import annotations

import pytest

from pai_bench.analysis.display_names import recipe_names


@pytest.mark.parametrize(
    ("recipes", "names"),
    [
        ([], []),
        (["quick+train.epochs=2"], [""]),
        ([""], [""]),
        (["quick", "quick+train.epochs=2"], ["quick", "epochs=2"]),
        (
            ["quick+scoring.granularity=channel+train.epochs=2", "quick+train.epochs=2"],
            ["granularity=channel", "quick"],
        ),
        (["quick+train.lr=0.2", "frankle+train.lr=0.2"], ["quick", "frankle"]),
        (["quick+train.lr=0.2", "frankle"], ["quick, lr=0.2", "frankle"]),
        (
            ["quick+scoring.batch_size=8", "quick+train.batch_size=8"],
            ["quick+scoring.batch_size=8", "quick+train.batch_size=8"],
        ),
        (["", "quick"], ["", "quick"]),
    ],
)
def test_recipes_are_named_by_their_differences(recipes: list[str], names: list[str]) -> None:
    assert recipe_names([*recipes, *recipes]) == dict(zip(recipes, names, strict=True))
