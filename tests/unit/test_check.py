"""Tests of `report --check`: a sound comparison has no objection, and each weakness has exactly its own."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from pai_bench.analysis import check
from pai_bench.analysis.check.command import lines
from pai_bench.analysis.check.objection import sweep
from pai_bench.analysis.collect import Collection
from pai_bench.analysis.columns import CELL
from pai_bench.analysis.statistics import compare_controls, summarise
from pai_bench.analysis.unify import unify
from tests.cli.program import pai_bench
from tests.unit.test_analysis import put

SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98)
SEEDS = 4
Change = Callable[[pd.DataFrame], pd.DataFrame]


def sound() -> pd.DataFrame:
    """Two data sets with a network each, two methods and a control, five densities, four seeds, all equal in design."""
    methods = ("erk", "snip", "snip:control=shuffle")
    found = []
    for dataset, model in (("cifar10", "resnet20"), ("cifar100", "vgg16-bn")):
        cells = [("dense", 0.0), *itertools.product(methods, SPARSITIES)]
        for (method, sparsity), seed in itertools.product(cells, range(SEEDS)):
            accuracy = 0.9 - sparsity / 10 + seed / 1000 - 0.1 * (method == "erk") + 0.001 * ((seed * 7) % 3)
            accuracy += 0.0005 * ("shuffle" in method)
            row = {"source": "", "method": method, "dataset": dataset, "model": model, "recipe": "frankle",
                   "sparsity": sparsity, "seed": seed, "accuracy": accuracy}  # fmt: skip
            row |= {"n_kept": round(1000 * (1 - sparsity)), "init_hash": f"{dataset}{model}{seed}"}
            row |= {"path": f"runs/{len(found)}", "method_reported": method, "sparsity_reported": sparsity}
            found.append(row)
    constant = {"status": "ok", "epoch": "last", "chance": 0.1, "note": "", "suspect": "", "tied_at_cut": 0}
    return pd.DataFrame(found).assign(**constant, scoring_dtype="float64", float64_overlap=float("nan"))


def objections(rows: pd.DataFrame, dirty: dict[str, str] | None = None, **parts: object) -> dict[str, check.Objection]:
    missing = pd.DataFrame(columns=[*CELL, "state"])
    given = {"rows": unify(rows).rows, "missing": missing, "stale": (), "damaged": (), **parts}
    collection = Collection(**given)  # type: ignore[arg-type]
    found = check.find(collection, summarise(collection), compare_controls(collection), dirty or {})
    assert len({one.code for one in found}) == len(found)
    return {one.code: one for one in found}


def at(rows: pd.DataFrame, **values: object) -> pd.Series:
    """Rows with these values."""
    return (rows[list(values)] == pd.Series(values)).all(axis=1)


def changed(column: str, value: object, **where: object) -> Change:
    def change(rows: pd.DataFrame) -> pd.DataFrame:
        rows[column] = rows[column].astype(object).mask(at(rows, **where), value)
        return rows.infer_objects()

    return change


def without(**where: object) -> Change:
    return lambda rows: rows[~at(rows, **where)]


PANEL = {"dataset": "cifar10", "model": "resnet20"}
POINT = {**PANEL, "method": "snip", "sparsity": 0.9}
RULES: dict[str, tuple[Change, str]] = {
    "few-seeds": (lambda rows: rows[rows["seed"] < 2], "snip at 50, 80, 90, 95, 98 % (n = 2)"),
    "unequal-seeds": (without(**POINT, seed=3), "cifar10 · resnet20 · frankle: snip at 90 % (seeds 0-2)"),
    "no-dense": (without(**PANEL, method="dense"), "cifar10 · resnet20 · frankle"),
    "no-erk": (without(**PANEL, method="erk"), "cifar10 · resnet20 · frankle"),
    "few-densities": (without(**PANEL, sparsity=0.5), "cifar10 · resnet20 · frankle (4)"),
    "mixed-recipes": (changed("recipe", "grasp", **PANEL, method="erk"), "erk with grasp"),
    "one-dataset": (changed("dataset", "cifar10"), ""),
    "one-model": (changed("model", "resnet20"), ""),
    "best-test-epoch": (lambda rows: rows.assign(epoch="best-test"), "the results folder: 128 results"),
    "epoch-not-stated": (lambda rows: rows.assign(epoch=""), "the results folder: 128 results"),
    "unequal-kept-counts": (changed("n_kept", 99, **POINT, seed=1), "cifar10 · resnet20 · frankle at 90 %, seed 1: 99"),
    "unequal-initial-weights": (changed("init_hash", "other", **PANEL, method="erk", seed=2), "seed 2"),
    "float32-scores": (changed("scoring_dtype", "float32", method="snip", **PANEL), "snip (20 results)"),
    "failed-runs-in-mean": (changed("status", "collapsed", **POINT, seed=3), "snip at 90 % (1 collapsed of 4)"),
    "undecided-controls": (
        changed("accuracy", 0.7, method="snip:control=shuffle", sparsity=0.9, seed=3, **PANEL),
        "cifar10 · resnet20 · frankle: snip:control=shuffle at 90 % (n = 4; about",
    ),
}  # fmt: skip


@pytest.mark.slow
def test_a_sound_comparison_has_no_objection() -> None:
    assert objections(sound()) == {}
    assert list(lines(())) == ["no objection"]


@pytest.mark.slow
@pytest.mark.parametrize("code", RULES)
def test_each_weakness_has_its_objection(code: str) -> None:
    change, where = RULES[code]
    found = objections(change(sound()))
    assert code in found
    # A weakness may imply others: a missing run makes seeds unequal, a recipe of its own lacks references.
    implied = {
        "few-seeds": {"undecided-controls"},
        "mixed-recipes": {"no-dense", "no-erk", "few-densities"},
        "unequal-kept-counts": set(),
        "failed-runs-in-mean": {"undecided-controls"},
    }
    assert set(found) <= {code, *implied.get(code, set())}
    assert where in " ".join(found[code].where)
    assert found[code].cause and found[code].remedy


@pytest.mark.slow
def test_a_control_of_which_every_run_fails_differs_from_a_method_that_trains() -> None:
    control = {"method": "snip:control=shuffle", "sparsity": 0.9}
    rows = changed("status", "collapsed", **control)(sound())
    assert objections(rows) == {}
    at_chance = changed("accuracy", 0.12, **control)(sound())
    assert objections(at_chance) == {}
    both = changed("accuracy", 0.12, method="snip", sparsity=0.9)(at_chance)
    assert set(objections(both)) == {"undecided-controls"}, "two networks at chance are not equivalent"


@pytest.mark.slow
def test_a_table_of_another_epoch_is_an_objection() -> None:
    table = sound()[lambda rows: rows["method"] == "snip"].assign(source="paper", epoch="best-test", path=None)
    table = table.assign(n_kept=float("nan"), init_hash=None)
    found = objections(pd.concat([sound(), table], ignore_index=True))
    assert set(found) == {"best-test-epoch", "mixed-epochs"}
    assert found["best-test-epoch"].where == ("paper: 40 results",)
    assert "last epoch, best test epoch" in found["mixed-epochs"].where[0]


@pytest.mark.slow
def test_parts_of_the_folder_that_do_not_count_are_objections() -> None:
    missing = sound()[CELL].head(2).assign(state=["failed", "missing"])
    rows = sound().iloc[2:]
    found = objections(rows, stale=("runs/a",), damaged=("b is damaged",), missing=missing)
    assert {"stale-results", "damaged-files", "missing-runs"} <= set(found)
    assert "1 failed, 1 missing" in found["missing-runs"].cause
    assert found["missing-runs"].where[1] == "cifar10 · resnet20 · frankle: dense (missing: seeds 1)"
    assert "--retry failed" in found["missing-runs"].remedy


@pytest.mark.slow
def test_uncommitted_code_is_an_objection() -> None:
    (found,) = objections(sound(), dirty={"runs/0": "a" * 64, "runs/1": "b" * 64}).values()
    assert found.code == "uncommitted-code" and found.where == (
        "cifar10 · resnet20 · frankle: 2 results (aaaaaaaa, bbbbbbbb)",
    )


@pytest.mark.slow
def test_equal_float64_masks_and_other_weights_of_reinit_are_no_objections() -> None:
    rows = sound().assign(scoring_dtype="float32", float64_overlap=1.0)
    rows["method"] = rows["method"].str.replace("shuffle", "reinit")
    rows["init_hash"] += (rows["method"].str.contains("reinit")).map({True: " again", False: ""})
    assert objections(rows) == {}


@pytest.mark.slow
def test_results_without_pruned_runs_without_dense_runs_or_of_one_seed_can_be_checked() -> None:
    rows = sound()
    assert "no-erk" in objections(rows[rows["method"] == "dense"])
    assert "no-dense" in objections(rows[rows["method"] == "snip:control=shuffle"])
    plain = [*CELL, "accuracy", "status", "epoch", "chance", "note", "suspect", "method_reported", "sparsity_reported"]
    assert "few-seeds" in objections(rows[rows["seed"] == 0][plain].assign(source="table"))


@pytest.mark.slow
def test_points_with_equal_details_share_a_line() -> None:
    found = objections(sound()[lambda rows: rows["seed"] < 2])["few-seeds"]
    assert found.where[:3] == (
        "cifar10 · resnet20 · frankle: dense (n = 2)",
        "cifar10 · resnet20 · frankle: erk at 50, 80, 90, 95, 98 % (n = 2)",
        "cifar10 · resnet20 · frankle: snip at 50, 80, 90, 95, 98 % (n = 2)",
    )
    assert len(found.where) == 8


@pytest.mark.slow
def test_remedies_name_the_sweep() -> None:
    rows = sound()
    found = objections(rows[(rows["seed"] < 2) & (rows["dataset"] == "cifar10")].assign(recipe="frankle+train.lr=0.2"))
    assert (
        "pai-bench sweep --methods erk,snip,snip:control=shuffle --datasets cifar10 --models resnet20"
        " --recipes frankle --set train.lr=0.2 --sparsities 0.5,0.8,0.9,0.95,0.98 --seeds 0-4"
    ) in found["few-seeds"].remedy


def panels(*names: tuple[str, str, str]) -> pd.DataFrame:
    columns = ["dataset", "model", "recipe"]
    return pd.DataFrame(names, columns=columns).assign(source="", method="snip", sparsity=0.9, seed=0)


@pytest.mark.parametrize(
    ("rows", "grids"),
    [
        (
            panels(("a", "m", "r"), ("a", "n", "r"), ("b", "m", "r"), ("b", "n", "r")),
            ["--datasets a,b --models m,n --recipes r"],
        ),
        (panels(("a", "m", "r"), ("b", "n", "r")), ["--datasets a --models m --recipes r", "--datasets b --models n"]),
        (panels(("a", "m", "r"), ("a", "m", "s")), ["--datasets a --models m --recipes r,s"]),
        (
            panels(("a", "m", "r+x=1"), ("a", "m", "r+x=2"), ("a", "m", "r")),
            ["--recipes r --set x=1 --sp", "--recipes r --set x=2 --sp", "--recipes r --sp"],
        ),
    ],
    ids=["product", "two-pairs", "two-recipes", "settings"],
)
def test_remedies_compute_no_other_panels(rows: pd.DataFrame, grids: list[str]) -> None:
    commands = sweep(rows).split(" && ")
    assert len(commands) == len(grids)
    assert all(grid in command for grid, command in zip(grids, commands, strict=True))


def test_effective_sparsities_allow_other_numbers_of_kept_weights() -> None:
    rows = changed("n_kept", 99, **POINT, seed=1)(sound())
    assert "unequal-kept-counts" in objections(rows.assign(effective=False))
    assert objections(rows.assign(effective=True)) == {}


@pytest.mark.slow
def test_the_command_lists_objections_and_exits_with_3(tmp_path: Path) -> None:
    root = tmp_path / "results"
    put(root, "snip", provenance={"dirty_diff_hash": "c" * 64})
    done = pai_bench(tmp_path, "report", "--check", "--json")
    assert done.returncode == 3 and not (root / "report").exists()
    codes = {one["code"] for one in json.loads(done.stdout)["objections"]}
    assert {"few-seeds", "no-dense", "no-erk", "uncommitted-code", "one-dataset", "few-densities"} <= codes
