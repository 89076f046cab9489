"""Sweeps with a binary loss, and masks that ties decide: in the results, in status and in the report."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from pai_bench.analysis.collect import collect
from pai_bench.analysis.command import status_lines
from pai_bench.sweep.monitoring import status
from tests.cli.program import pai_bench, recipe, results

PLUGIN = """
import numpy as np
from torch import nn
from pai_bench.data_files import Info, register_dataset
from pai_bench.models import register_model

@register_dataset("stripes", Info(channels=1, size=8, classes=2, train=256, test=100))
def stripes(root):
    y = np.arange(356) % 2
    stripe = np.where(np.arange(8) % 2, 180, 20)
    x = np.where(y[:, None, None] == 0, stripe[None, :, None], stripe[None, None, :])
    x = (x + np.random.default_rng(0).integers(0, 60, (356, 8, 8))).astype(np.uint8)[:, None]
    return x[:256], y[:256], x[256:], y[256:]

@register_model("plain")
def plain(channels, size, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size**2, 32), nn.ReLU(), nn.Linear(32, classes))

class ZeroHead(nn.Linear):
    def reset_parameters(self):
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

@register_model("zero-head")
def zero_head(channels, size, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size**2, 32), nn.ReLU(), ZeroHead(32, classes))
"""
SWEEP = ("sweep", "--plugin", "plugin.py", "--seeds", "0", "--where", "debug", "--sparsities", "0.5")
BINARY = ("--set", "train.loss=binary-cross-entropy")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of one sweep, in which a zero-initialised classifier ties all scores."""
    folder = tmp_path_factory.mktemp("losses")
    (folder / "plugin.py").write_text(PLUGIN)
    path = Path(recipe(folder, epochs=1))
    path.write_text(f"{path.read_text()}[datasets.stripes]\n")
    done = pai_bench(
        folder,
        *(*SWEEP, *BINARY, "--recipes", "fast1.toml", "--datasets", "stripes", "--models", "plain,zero-head"),
        *("--methods", "snip,magnitude,snip:control=shuffle"),
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_a_binary_loss_trains_scores_and_evaluates_one_logit(folder: Path) -> None:
    found = {(each["model"], each["method"]): each for each in results(folder / "results").values()}
    layers = [(layer["name"], layer["size"]) for layer in found["plain", "snip"]["layers"]]
    assert layers == [("1.weight", 64 * 32), ("3.weight", 32)]
    assert found["plain", "snip"]["accuracy"] > 0.9 and found["plain", "dense"]["accuracy"] > 0.9
    assert found["plain", "snip"]["chance"] == 0.5
    assert found["plain", "snip"]["recipe_values"]["train"]["loss"] == "binary-cross-entropy"
    assert "train.loss=binary-cross-entropy" in found["plain", "snip"]["recipe"]
    assert {key: each["tied_at_cut"] for key, each in found.items()} == {
        **{("plain", "dense"): 0, ("plain", "snip"): 0, ("plain", "magnitude"): None},
        **{("zero-head", "dense"): 0, ("zero-head", "snip"): 1040, ("zero-head", "magnitude"): None},
        **{("plain", "snip:control=shuffle"): 0, ("zero-head", "snip:control=shuffle"): 1040},
    }
    status = pai_bench(folder, "status")
    assert "2 results have kept weights whose score is tied with pruned ones (up to 100 %" in status.stdout
    assert "1 of snip on stripes with zero-head" in status.stdout
    report = pai_bench(folder, "report")
    assert report.returncode == 0, report.stderr
    assert "2 results have kept weights whose score is tied" in report.stderr
    with (folder / "results/report/results.csv").open() as file:
        column = {(row["model"], row["method"]): row["tied_at_cut"] for row in csv.DictReader(file)}
    assert float(column["zero-head", "snip"]) == 1040 and column["plain", "magnitude"] == ""
    table = (folder / "results/report/table.md").read_text()
    assert "1t" in table and "masks decided by ties of the scores" in table
    again = "\n".join(status_lines(collect(folder / "empty", [folder / "results/report/results.csv"])))
    assert "2 results have kept weights whose score is tied" in again


def test_a_binary_loss_is_refused_for_more_than_two_classes(folder: Path) -> None:
    for dry in ((), ("--dry-run",)):
        done = pai_bench(
            folder,
            *(*SWEEP, *BINARY, *dry, "--recipes", "fast1.toml", "--datasets", "digits", "--methods", "snip"),
        )
        assert done.returncode == 2
        assert "train.loss = 'binary-cross-entropy' is for data of 2 classes, and digits has 10" in done.stderr
    unknown = pai_bench(folder, *SWEEP, "--set", "train.loss=hinge")
    assert unknown.returncode == 2 and "cross-entropy or binary-cross-entropy" in unknown.stderr


def test_results_of_earlier_versions_have_no_number_of_ties(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "results", tmp_path / "results")
    for path in (tmp_path / "results/runs").rglob("*.json"):
        plain = json.loads(path.read_text())
        del plain["tied_at_cut"]
        path.write_text(json.dumps(plain))
    seen = status.collect(tmp_path / "results")
    assert seen.counts()["done"] == 8 and not any("tied" in note for note in seen.notes)
    collection = collect(tmp_path / "results")
    assert len(collection.rows) == 8 and not any("tied" in line for line in status_lines(collection))
