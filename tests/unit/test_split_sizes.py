"""Number of training images that a split leaves: the same when a sweep is planned as when its cells run."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from torch import nn

from pai_bench import recipes
from pai_bench.cells import Cell
from pai_bench.datasets import loading
from pai_bench.datasets.files import register_dataset
from pai_bench.datasets.files.types import Info
from pai_bench.errors import PaiBenchError
from pai_bench.experiment.runner import Run
from pai_bench.models import registry as building
from pai_bench.sweep.planning import checks
from pai_bench.sweep.planning.split_sizes import training_images
from tests.unit.test_datasets import recipe_data

# The largest class of digits has 146 training images, so that its last image goes at a fraction of 0.5 / 146. The data
# set "uneven" has 50 images of the first class and 10 of the second.
NOTHING, DIGITS, SINGLE = 1e-9, 0.5 / 146, 0.5 / 40


@pytest.fixture(autouse=True)
def uneven(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.repeat([0, 1], [50, 10])
    images = np.zeros((60, 1, 8, 8), np.uint8)
    register_dataset("uneven", Info(1, 8, 2, 60, 60))(lambda _: (images, labels, images, labels))
    normed = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    monkeypatch.setitem(building._builders._things, "normed", lambda *facts: normed)


def run(values: dict[str, object], dataset: str = "digits", model: str = "conv8") -> Run:
    recipe = dataclasses.replace(recipes.load("quick", "digits", "conv8"), data=recipe_data(**values))
    return Run(Cell("snip", dataset, model, 0.5, 0), recipe)


@pytest.mark.parametrize(
    ("dataset", "values", "expected"),
    [
        ("digits", {"train_fraction": 1.001 * DIGITS}, 2),
        ("digits", {"split": "validation", "validation_size": 0.996}, 10),
        ("uneven", {"train_fraction": SINGLE}, 1),
        ("uneven", {"train_fraction": 0.5}, 30),
        ("uneven", {"split": "validation", "train_fraction": 0.02}, 1),
    ],
)
def test_the_plan_counts_as_many_training_images_as_the_cells_get(
    dataset: str, values: dict[str, object], expected: int
) -> None:
    data = recipe_data(**values)
    assert len(loading.load(dataset, data=data).train_y) == expected
    assert training_images(dataset, data, None, present=True) == expected


@pytest.mark.parametrize(
    ("values", "cause", "remedy"),
    [
        ({"train_fraction": NOTHING}, "no image to train on", "raise data.train_fraction (1e-09)"),
        ({"train_fraction": DIGITS}, "no image to train on", "raise data.train_fraction"),
        ({"split": "validation", "validation_size": NOTHING}, "no image for validation", "raise data.validation_size"),
        ({"split": "validation", "validation_size": 0.9999}, "no image to train on", "lower data.validation_size"),
        ({"split": "validation", "train_fraction": NOTHING}, "no image to train on", "raise data.train_fraction"),
    ],
)
def test_plans_refuse_splits_that_leave_no_image(values: dict[str, object], cause: str, remedy: str) -> None:
    with pytest.raises(PaiBenchError, match=f"the split of digits leaves {cause}") as refused:
        checks.check([run(values)], None)
    assert remedy in refused.value.remedy


def test_plans_without_the_data_refuse_only_splits_that_are_empty_for_all_labels() -> None:
    assert training_images("digits", recipe_data(train_fraction=DIGITS), None, present=False) == 5
    with pytest.raises(PaiBenchError, match="leaves no image to train on"):
        training_images("digits", recipe_data(train_fraction=NOTHING), None, present=False)


def test_plans_refuse_a_single_training_image_where_batch_norm_cannot_be_trained_on_it() -> None:
    fine = run({"train_fraction": SINGLE}, "uneven")
    with pytest.raises(PaiBenchError, match="batch norm in normed cannot be trained on the one image of uneven") as no:
        checks.check([run({"train_fraction": SINGLE}, "uneven", "normed")], None)
    assert "raise data.train_fraction (0.0125)" in no.value.remedy
    assert checks.check([fine], None).runs == (fine,)
