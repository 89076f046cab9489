"""Data sets of vectors: the Cubist Spiral, loading, training, and budgets in weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pai_bench import recipes
from pai_bench.cells import Cell
from pai_bench.datasets import files, loading
from pai_bench.datasets.files.spiral import cubist_spiral
from pai_bench.errors import PaiBenchError
from pai_bench.experiment.runner import CellRunner, Run
from pai_bench.recipes import choose, parse_settings
from pai_bench.sweep.planning import checks, request

RELEASED = json.loads((Path(__file__).parent / "cubist_spiral.json").read_text(encoding="utf-8"))


def test_the_point_cloud_is_that_of_the_released_generator() -> None:
    """The release standardises in float32, which differs from float64 by some units in the last place."""
    x, y = cubist_spiral(Path(), "train")
    assert x.shape == (RELEASED["points"], 2) and x.dtype == np.float32 and y.dtype == np.int64
    np.testing.assert_allclose(x[RELEASED["index"]], RELEASED["x"], rtol=0, atol=2e-6)
    assert y[RELEASED["index"]].tolist() == RELEASED["y"] and int(y.sum()) == RELEASED["ones"]


def spiral(epochs: int, **data: object) -> recipes.Recipe:
    recipe = recipes.load("spiral", "cubist-spiral", "mlp-8x3")
    return replace(
        recipe, train=replace(recipe.train, epochs=epochs), data=replace(recipe.data, train_fraction=0.05, **data)
    )


@pytest.mark.slow
def test_a_cell_on_vectors_trains_one_logit_and_keeps_its_budget() -> None:
    (sparse,) = {
        run.cell.sparsity
        for run in request.expand(
            request.Request(("snip",), datasets=("cubist-spiral",), models=("mlp-8x3",), budgets=(45,), seeds=(0,))
        )
        if run.cell.sparsity
    }
    job = Run(Cell("snip", "cubist-spiral", "mlp-8x3", sparse, 0), spiral(6))
    result = CellRunner(device="cpu").run(job).result
    assert result.n_kept == 45 and result.n_prunable == 152 and result.chance == 0.5
    losses = [epoch.loss for epoch in result.curve]
    assert losses[0] is not None and losses[-1] is not None and losses[-1] < losses[0] < 0.7


def test_vectors_are_normalised_by_feature_and_batches_cover_every_sample() -> None:
    data = loading.load("cubist-spiral", data=spiral(1).data)
    assert isinstance(data, loading.InMemoryDataset)
    augment = loading.Augment.of(spiral(1, mean=(1.0, 2.0), std=(2.0, 4.0)).data)
    batches = list(loading.training_batches(data, 128, augment, seed=3).epoch(0))
    order = loading.epoch_order(len(data.train_y), 3, 0)
    x = torch.cat([x for x, _ in batches])
    torch.testing.assert_close(x, (data.train_x[order] - torch.tensor([1.0, 2.0])) / torch.tensor([2.0, 4.0]))
    assert torch.equal(torch.cat([y for _, y in batches]), data.train_y[order])


def test_budgets_that_prune_nothing_are_reported() -> None:
    asked = request.Request(
        ("snip",), datasets=("cubist-spiral",), models=("mlp-3x3", "mlp-4x3"), budgets=(60, 30, 15), seeds=(0,)
    )
    kept = {(run.cell.model, run.cell.sparsity) for run in request.expand(asked) if run.cell.method == "snip"}
    assert kept == {("mlp-3x3", 4 / 9), ("mlp-4x3", 7 / 22), ("mlp-4x3", 29 / 44)}
    assert request.budget_notes(asked) == [
        "mlp-3x3 on cubist-spiral has 27 prunable weights: budgets 30, 60 prune nothing and are not run there",
        "mlp-4x3 on cubist-spiral has 44 prunable weights: budgets 60 prune nothing and are not run there",
    ]


@pytest.mark.parametrize("setting", ["data.padding=1", "data.flip=true", "data.crop=random-resized"])
def test_vectors_are_not_augmented(setting: str) -> None:
    with pytest.raises(PaiBenchError, match="is not allowed") as error:
        choose(["cubist-spiral"], [], [], parse_settings([setting]))
    assert 'kind = "vectors"' in error.value.remedy


def test_a_recipe_for_images_does_not_fit_vectors(tmp_path: Path) -> None:
    text = (Path(recipes.__file__).parent / "spiral.toml").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("kind =")]
    (tmp_path / "flat.toml").write_text("\n".join(lines), encoding="utf-8")
    asked = request.Request(
        ("snip",), datasets=("cubist-spiral",), recipes=(str(tmp_path / "flat.toml"),), sparsities=(0.9,), seeds=(0,)
    )
    with pytest.raises(PaiBenchError, match="is for images, and cubist-spiral has vectors"):
        checks.check(request.expand(asked), None, tmp_path)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((4, 3), np.float64), "vectors float64"),
        (np.zeros((4, 2), np.float32), r"vectors \(4, 2\)"),
        (np.full((4, 3), np.nan, np.float32), "not finite"),
    ],
)
def test_bad_vectors_of_a_plug_in_are_refused(x: np.ndarray, words: str) -> None:
    y = np.array([0, 1, 0, 1])
    files.register_dataset("table", files.Info(3, 1, 2, 4, 4, kind="vectors"))(lambda root: (x, y, x, y))
    with pytest.raises(PaiBenchError, match=words):
        files.load("table")


def test_the_kind_of_a_data_set_is_checked() -> None:
    with pytest.raises(PaiBenchError, match="size = 8"):
        files.Info(3, 8, 2, 4, 4, kind="vectors")
    with pytest.raises(PaiBenchError, match="vectors"):
        files.Info(3, 8, 2, 4, 4, kind="vector")
    assert files.info("cubist-spiral").shape == (2,) and files.info("digits").shape == (1, 8, 8)
