"""Tests of published results: each row matches the schema, and its match equals the computed one."""

from __future__ import annotations

import json
import math
import re
from importlib import resources

import pandas as pd
import pytest
import torch
from torch import nn

from pai_bench import models, recipes
from pai_bench.analysis import published
from pai_bench.analysis.published.matching import Difference, Point, Protocol, judge, protocols, prunable_weights
from pai_bench.cli import app
from pai_bench.core import method_index
from pai_bench.datasets.files import info
from pai_bench.errors import PaiBenchError

ALL = published.load(published.LEVELS, suspect=True)
KEYS = set(re.findall(r"^@\w+\{([^,]+),", published.bibliography(), re.MULTILINE))


def test_the_table_has_the_columns_of_the_schema() -> None:
    assert list(ALL.columns) == list(published.COLUMNS)
    assert ALL["id"].is_unique
    text = [column for column, kind in published.COLUMNS.items() if kind == "str"]
    assert not ALL[text].isna().any().any()
    for column in ("paper", "where", "source", "dataset", "model_published", "method_published", "counts", "split"):
        assert (ALL[column] != "").all(), column


def test_numbers_are_in_their_ranges() -> None:
    assert ALL["accuracy"].between(0, 1).all()
    assert (ALL["sparsity"].between(0, 1) & (ALL["sparsity"] < 1)).all()
    assert (ALL["std"].dropna() >= 0).all()
    assert (ALL["n"].dropna() >= 1).all()
    assert ALL["n"].isna().eq(ALL["paper"].isin(["gale2019", "lee2023", "sreenivasan2022", "sun2024"])).all()
    assert ALL["std"].isna().eq(ALL["std_ddof"].isna()).all()
    assert ALL.loc[ALL["n"] == 1, "std"].isna().all()
    assert set(ALL["std_ddof"].dropna()) <= {0, 1}
    assert set(ALL["epoch"]) <= set(published.EPOCHS) and set(ALL["match"]) == set(published.LEVELS)
    assert (ALL["n_prunable"].dropna() > 0).all()


def test_a_dense_id_names_the_unpruned_row_of_the_same_series() -> None:
    rows = ALL.set_index("id")
    linked = ALL[ALL["dense_id"] != ""]
    dense = rows.loc[linked["dense_id"]].reset_index()
    assert (dense["sparsity"] == 0).all()
    for column in ("paper", "dataset", "model_published", "method_published", "epoch", "match"):
        assert (dense[column].to_numpy() == linked[column].to_numpy()).all(), column
    assert set(ALL.loc[ALL["sparsity"] == 0, "method"]) == {"dense"}
    shown = published.load()
    assert set(shown["dense_id"]) - {""} <= set(shown["id"])


@pytest.mark.slow
def test_methods_and_models_are_those_of_pai_bench() -> None:
    method_index.check([spec for spec in sorted(set(ALL["method"])) if spec])
    assert set(ALL["model"]) - {""} <= set(models.names())


def test_papers_have_an_entry_in_the_bibliography() -> None:
    assert set(ALL["paper"]) == KEYS
    notice = resources.files(published).joinpath("NOTICE.md").read_text(encoding="utf-8")
    assert all(key in notice for key in KEYS)


def test_a_source_states_its_commit_or_the_table_of_the_paper() -> None:
    sources = ALL["source"].drop_duplicates()
    github = sources[sources.str.startswith("https://github.com/")]
    commits = github.str.extract(r"/(?:blob|tree)/([^/]+)/")[0]
    without = github[~commits.str.fullmatch("[0-9a-f]{7,40}").fillna(False).astype(bool)]
    # No commit of two files is known, which the rows and NOTICE.md state.
    assert sorted(source.partition("/saved/results/")[2] for source in without) == [
        "resnet20/concrete/gradbalance/init/long/fwkldlogit/finetuned_acc_val.json (commit not known)",
        "vgg16/mbt_acc_val.json (commit not known)",
    ]
    papers = ALL[~ALL["source"].isin(github)]
    assert papers["source"].str.fullmatch(r"https://arxiv\.org/abs/\d{4}\.\d{5} \((table|text) of the paper\)").all()
    assert papers["where"].str.match(r"(Table|Figure) \d").all()
    assert papers["source"].str.contains("table of").eq(papers["where"].str.startswith("Table")).all()


def test_all_papers_are_included_with_their_methods() -> None:
    assert ALL.groupby("paper").size().to_dict() == {
        "arora2025": 525,
        "comp6258": 64,
        "cunegatti2024": 775,
        "gale2019": 12,
        "hoang2023": 228,
        "lee2023": 27,
        "sreenivasan2022": 21,
        "sun2024": 47,
        "tanaka2020": 905,
    }
    dynamic = ALL[ALL["method_published"].str.contains("dynamic sparse training")]
    assert len(dynamic) == 271 and (dynamic["match"] == "context").all()
    assert set(dynamic["method"]) == {"rigl", ""} and (dynamic["method"] == "rigl").sum() == 69
    assert {"gmp", "ltr", "lr-rewinding", "rigl", "set", "uniform"} <= set(ALL["method"])
    # Measures that are not accuracies have data sets of their own, and so no panel of a report.
    other = ALL[ALL["where"].str.contains("mean")]
    assert len(other) == 47 and not (set(other["dataset"]) & set(ALL.drop(other.index)["dataset"]))


@pytest.mark.slow
def test_match_and_differences_are_the_computed_ones() -> None:
    columns = ["paper", "dataset", "model", "model_published", "method", "method_published", "epoch", "recipe"]
    for row in ALL.to_dict("records"):
        count = None if pd.isna(row["n_prunable"]) else int(row["n_prunable"])
        point = Point(n_prunable=count, **{column: row[column] for column in columns})
        assert judge(point, protocols()) == (row["match"], row["differs"]), row["id"]


@pytest.mark.slow
def test_epochs_are_those_of_the_protocol_and_of_the_recipe() -> None:
    for row in ALL.to_dict("records"):
        (protocol,) = (
            p
            for p in protocols()
            if (p.paper, True, True) == (row["paper"], row["dataset"] in p.datasets, row["model_published"] in p.models)
        )
        if "epochs" in protocol.train:
            assert row["epochs"] == protocol.train["epochs"], row["id"]
        if row["recipe"] and row["model"]:
            recipe = recipes.load(row["recipe"].split("+")[0], row["dataset"], row["model"])
            assert row["epochs"] == recipe.train.epochs, row["id"]


@pytest.mark.parametrize(("dataset", "model"), sorted(prunable_weights()))
def test_counts_of_prunable_weights_are_those_of_the_networks(dataset: str, model: str) -> None:
    data = info(dataset)
    with torch.device("meta"):
        network = models.build(model, data.channels, data.size, data.classes)
    layers = [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    assert sum(layer.weight.numel() for layer in layers) == prunable_weights()[dataset, model]


def test_the_default_level_keeps_rows_that_may_be_compared_with_a_recipe() -> None:
    counts = published.load().groupby(["recipe", "match", "epoch"]).size().to_dict()
    assert counts == {
        ("synflow", "exact", "last"): 100,
        ("synflow", "near", "best-test"): 572,
        ("frankle", "near", "last"): 105,
        ("frankle+train.weight_decay=0.0005", "near", "last"): 35,
    }
    exact = published.load(("exact",), recipe="synflow", dataset="cifar100", model="vgg16-bn")
    assert len(exact) == 100 and set(exact["method"]) == {"dense", "magnitude", "random", "snip:bn=eval", "synflow"}
    assert published.load(recipe="synflow", dataset="cifar10", model="resnet20").empty
    suspect = published.load(suspect=True)
    assert (suspect["method_published"][suspect["suspect"] != ""] == "GraSP").all()
    assert len(suspect) == 812 + 25 + 143


@pytest.mark.slow
def test_values_are_those_of_the_sources() -> None:
    def value(dataset: str, model: str, method: str, sparsity: float, epoch: str) -> tuple[float, float]:
        rows = published.load(dataset=dataset, model=model)
        near = (rows["sparsity"] - sparsity).abs() < 1e-9
        (row,) = rows[near & (rows["method"] == method) & (rows["epoch"] == epoch)].to_dict("records")
        return row["accuracy"], row["std"]

    # Figure 6 of Tanaka et al.: VGG-16-BN on CIFAR-10 at 90 %.
    assert value("cifar10", "vgg16-bn", "random", 0.9, "best-test") == pytest.approx((0.9115, 0.0024), abs=6e-5)
    assert value("cifar10", "vgg16-bn", "snip:bn=eval", 0.9, "best-test") == pytest.approx((0.9226, 0.0038), abs=6e-5)
    assert value("cifar10", "vgg16-bn", "synflow", 0.99, "best-test") == pytest.approx((0.9008, 0.0010), abs=6e-5)
    # Cunegatti et al.: ResNet-20 on CIFAR-10 at 95 %.
    assert value("cifar10", "resnet20-conv", "prospr", 0.95, "last")[0] == pytest.approx(0.8177, abs=6e-5)
    assert value("cifar10", "resnet20-conv", "erk", 0.95, "last")[0] == pytest.approx(0.8381, abs=6e-5)


def test_the_last_epoch_is_below_the_best_one() -> None:
    rows = published.load(dataset="cifar100", model="vgg16-bn", suspect=True)
    keys = ["method_published", "sparsity"]
    pairs = rows[rows["epoch"] == "last"].merge(rows[rows["epoch"] == "best-test"], on=keys, suffixes=("", "_best"))
    gap = pairs["accuracy_best"] - pairs["accuracy"]
    assert len(pairs) == 65 and (gap >= -1e-5).all()
    assert gap.mean() == pytest.approx(0.0042, abs=5e-5)


def test_a_standard_deviation_over_n_is_brought_to_n_minus_1() -> None:
    rows = ALL[(ALL["paper"] == "arora2025") & (ALL["model_published"] == "VGG-16") & (ALL["sparsity"] == 0)]
    (dense,) = rows[rows["method_published"] == "Magnitude (at init)"].to_dict("records")
    # saved/results/vgg16/mbt_acc_val.json: 93.835, std 0.117 % with ddof 0.
    assert (dense["accuracy"], dense["std_ddof"]) == (0.93835, 0)
    assert dense["std"] == pytest.approx(0.00117 * math.sqrt(3 / 2), abs=1e-6)


PROTOCOL = Protocol(
    "paper",
    ("cifar10",),
    ("VGG",),
    "test",
    {key: getattr(recipes.load("synflow", "cifar10", "vgg16-bn").train, key) for key in published.matching.COMPARED},
    (Difference("float32", "exact", ("A",)), Difference("other constants", "near", ("B",))),
)


def point(**changes: object) -> Point:
    values = {"paper": "paper", "dataset": "cifar10", "model": "vgg16-bn", "model_published": "VGG", "method": "snip"}
    more = {"method_published": "SNIP", "n_prunable": 14715584, "epoch": "last", "recipe": "synflow"}
    return Point(**{**values, **more, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({}, "exact", ""),
        ({"method_published": "A"}, "exact", "float32"),
        ({"method_published": "A", "method": "dense"}, "exact", ""),
        ({"method_published": "B"}, "near", "other constants"),
        ({"epoch": "best-test"}, "near", "best test epoch"),
        ({"epoch": "unknown"}, "near", "epoch not stated"),
        ({"n_prunable": 14715585}, "context", "14,715,585 prunable weights (vgg16-bn: 14,715,584)"),
        ({"n_prunable": None}, "context", "number of prunable weights not known"),
        ({"model": ""}, "context", "network not in pai-bench"),
        ({"model": "resnet18", "n_prunable": 11164352}, "context", "weight decay 0.0001 (recipe: 0.0005)"),
        ({"recipe": "synflow+train.epochs=20+train.milestones=10"}, "context", "epochs 160 (recipe: 20)"),
        ({"recipe": ""}, "context", "160 epochs, batch size 128, lr 0.1, weight decay 0.0001, drops at 60, 120"),
    ],
)
def test_the_match_of_a_point(changes: dict[str, object], level: str, words: str) -> None:
    found = judge(point(**changes), (PROTOCOL,))
    assert found[0] == level
    assert words in found[1] and bool(words) == bool(found[1])


def test_a_point_without_a_protocol_is_refused() -> None:
    with pytest.raises(PaiBenchError, match="0 protocols apply"):
        judge(point(dataset="cifar100"), (PROTOCOL,))
    with pytest.raises(PaiBenchError, match="did you mean exact"):
        published.load(("exat",))
    with pytest.raises(PaiBenchError, match="unknown group"):
        published.describe("synflow/cifar10/resnet20")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    app(["list", "published", *arguments], standalone_mode=False)
    return capsys.readouterr().out


@pytest.mark.slow
def test_list_published_names_the_groups(capsys: pytest.CaptureFixture[str]) -> None:
    names = run(capsys).splitlines()
    assert names == json.loads(run(capsys, "--json")) == published.names()
    assert names[0].startswith("frankle") and names[-1].startswith("-/")
    groups = {group["name"]: group for group in json.loads(run(capsys, "--json", "--long"))}
    assert groups["synflow/cifar100/vgg16-bn"] == {
        "name": "synflow/cifar100/vgg16-bn",
        "recipe": "synflow",
        "dataset": "cifar100",
        "model": "vgg16-bn",
        "rows": 190,
        "match": {"exact": 125, "near": 65},
        "epoch": {"last": 125, "best-test": 65},
        "suspect": 38,
        "methods": ["dense", "grasp:temperature=1,bn=eval", "magnitude", "random", "snip:bn=eval", "synflow"],
        "papers": ["tanaka2020"],
    }
    assert sum(group["rows"] for group in groups.values()) == len(ALL)
    table = run(capsys, "--long")
    assert re.search(r"synflow/cifar100/vgg16-bn +190 +exact=125 .* +38 +6 +tanaka2020", table)
