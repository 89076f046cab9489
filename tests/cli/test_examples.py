"""The files of `examples/`, run as a user runs them."""

from __future__ import annotations

import runpy
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from matplotlib import pyplot as plt

import pai_bench as public
from pai_bench import models
from pai_bench.scoring.problem import prunable
from tests.cli.program import pai_bench, recipe, results

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of one sweep of the example method on the example model."""
    folder = tmp_path_factory.mktemp("examples")
    plugins = [part for name in ("lamp", "mixer") for part in ("--plugin", str(EXAMPLES / f"{name}.py"))]
    cells = ["--methods", "lamp,lamp:power=1.5", "--models", "mixer", "--sparsities", "0.8", "--seeds", "0"]
    options = ["--recipe", recipe(folder), "--where", "debug"]
    done = pai_bench(folder, "sweep", *plugins, *cells, *options)
    assert done.returncode == 0, done.stderr
    return folder / "results"


def test_the_method_and_the_model_run_in_a_sweep(swept: Path) -> None:
    found = {result["method"]: result for result in results(swept).values()}
    assert set(found) == {"dense", "lamp", "lamp:power=1.5"}
    assert found["lamp"]["n_kept"] == round(0.2 * found["lamp"]["n_prunable"])
    assert found["lamp"]["mask_hash"] != found["lamp:power=1.5"]["mask_hash"]


def test_the_data_set_runs_with_its_recipe(tmp_path: Path) -> None:
    blobs = ["--plugin", str(EXAMPLES / "blobs.py"), "--datasets", "blobs", "--recipes", str(EXAMPLES / "blobs.toml")]
    cells = ["--models", "conv8", "--methods", "snip", "--sparsities", "0.5", "--seeds", "0", "--where", "debug"]
    done = pai_bench(tmp_path, "sweep", *blobs, *cells)
    assert done.returncode == 0, done.stderr
    assert all(result["accuracy"] > 0.9 for result in results(tmp_path / "results").values())


def test_the_recipe_normalises_the_images_of_the_data_set() -> None:
    images, labels, *_ = runpy.run_path(str(EXAMPLES / "blobs.py"))["blobs"](Path())
    said = tomllib.loads((EXAMPLES / "blobs.toml").read_text(encoding="utf-8"))["datasets"]["blobs"]["data"]
    assert said["mean"]["value"] == pytest.approx([images.mean() / 255], abs=0.005)
    assert said["std"]["value"] == pytest.approx([images.std() / 255], abs=0.005)
    assert torch.bincount(torch.from_numpy(labels)).tolist() == [200] * 4


def test_scores_of_the_method_are_those_of_the_paper() -> None:
    """score(u) = w_u^2 / sum of w_v^2 over all v of the layer with |w_v| >= |w_u|."""
    weight = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = [w * w / weight[weight.abs() >= w.abs()].pow(2).sum() for w in weight.flatten()]
    scores = runpy.run_path(str(EXAMPLES / "lamp.py"))["LAMP"]()._layer(weight)
    assert torch.allclose(scores, torch.stack(expected).view(3, 4))


def test_the_model_takes_images_of_several_sizes() -> None:
    mixer = runpy.run_path(str(EXAMPLES / "mixer.py"))["Mixer"](3, 12, 7)
    assert mixer(torch.zeros(2, 3, 12, 12)).shape == (2, 7)
    assert "patches.weight" in prunable(mixer) and "norm.weight" not in prunable(mixer)
    assert "mixer" in models.names()


def test_a_custom_training_loop_keeps_the_masks(capsys: pytest.CaptureFixture[str]) -> None:
    accuracy = runpy.run_path(str(EXAMPLES / "own_training_loop.py"))["main"]()
    said = capsys.readouterr().out
    assert accuracy > 0.7
    assert said.startswith("1702 weights kept, 1702 of them nonzero")  # a tenth of 64 x 128 + 128 x 64 + 64 x 10


def test_results_become_a_figure(swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = tmp_path / "figure.png"
    monkeypatch.setattr(sys, "argv", ["results_to_figure.py", str(swept), str(figure)])
    try:
        names = runpy.run_path(str(EXAMPLES / "results_to_figure.py"))
    finally:
        plt.close("all")
    by_method = {result["method"]: result["accuracy"] for result in results(swept).values()}
    assert names["table"].loc[("lamp", 0.8), "mean"] == pytest.approx(100 * (by_method["dense"] - by_method["lamp"]))
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_the_page_of_examples_shows_them_all() -> None:
    files = {path.name for path in EXAMPLES.glob("*") if path.suffix in (".py", ".toml")}
    for page in (EXAMPLES / "README.md", EXAMPLES.parent / "docs" / "site" / "examples.md"):
        text = page.read_text(encoding="utf-8")
        assert not {name for name in files if name not in text}, page


def test_the_python_api_page_documents_every_public_name() -> None:
    page = (EXAMPLES.parent / "docs" / "site" / "api.md").read_text(encoding="utf-8")
    documented = {line.split("::")[1].strip().rpartition(".")[2] for line in page.splitlines() if "::" in line}
    assert set(public.__all__) <= documented
