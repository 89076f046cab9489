"""Dense networks with narrower layers: the closest width, what results record, and their place in reports."""

from __future__ import annotations

import itertools
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

import pai_bench
from pai_bench import models
from pai_bench.analysis import tables
from pai_bench.analysis.collect import Collection
from pai_bench.analysis.columns import CELL
from pai_bench.analysis.emphasis import emphasise
from pai_bench.analysis.information import SMALLER
from pai_bench.analysis.series import by_series
from pai_bench.analysis.statistics import summarise
from pai_bench.analysis.unify import unify
from pai_bench.cells import Cell
from pai_bench.core.method_index import smaller_dense
from pai_bench.errors import PaiBenchError
from pai_bench.experiment import narrowing
from pai_bench.experiment.runner import CellRunner, Run
from pai_bench.models.layers import scaled
from pai_bench.sweep import single_cell
from pai_bench.sweep.planning.checks import check
from pai_bench.sweep.planning.request import ALL, Request, expand

from . import killing
from .test_check import objections, sound
from .test_figures import dense, drawn, series
from .test_models import COUNTS, SIZES


def run(method: str = "small-dense", sparsity: float = 0.9, model: str = "conv8") -> Run:
    return Run(Cell(method, "digits", model, sparsity, 0), killing.recipe(epochs=1, batch_size=512))


@pytest.mark.parametrize("target", [0.0, 1.0, 7.0, 100.0, 131.5, 5_000.0, 60_000.0, 1e9])
def test_no_other_width_comes_closer(target: float) -> None:
    layers = (3, 20, 50, 500)

    def size(width: float) -> int:
        units = [scaled(n, width) for n in layers]
        return sum(one * other for one, other in itertools.pairwise(units))

    # Just below and at every width from which on a layer has another unit.
    steps = sorted({(k + 0.5) / n for n in layers for k in range(n)})
    widths = [width for step in steps for width in (step - 1e-9, step)] + [1.0]
    best = min(abs(size(width) - target) for width in widths)
    assert abs(size(models.closest_width(size, target)) - target) == best


@pytest.mark.slow
@pytest.mark.parametrize(("name", "classes"), {name: (name, classes) for name, classes in COUNTS}.values())
def test_every_network_can_be_built_narrower(name: str, classes: int) -> None:
    channels, size = SIZES.get(name, (3, 32))
    with torch.device("meta"):
        half = models.build(name, channels, size, classes, 0.5)
        assert half.eval()(torch.zeros(2, channels, size, size)).shape == (2, classes)
    full = COUNTS[name, classes][0]
    assert sum(p.numel() for p in half.parameters()) < 0.75 * full


@pytest.mark.slow
def test_results_record_the_real_size() -> None:
    runner = CellRunner(device="cpu")
    result = runner.run(run()).result
    width = result.provenance["width"]
    built = models.build("conv8", 1, 8, 10, width)
    kept = sum(w.numel() for w in built.parameters() if w.dim() > 1)
    assert (result.n_prunable, result.n_kept) == (14_288, kept)
    assert result.actual_sparsity == pytest.approx(1 - kept / result.n_prunable) and result.status == "ok"
    assert abs(kept / result.n_prunable - 0.1) < 0.006 and result.saw == "nothing"
    assert sum(layer.size for layer in result.layers) == result.n_prunable
    assert result.hyperparameters == {"equal": "params"}
    dense_flops = runner.run(run("dense", 0.0)).result.costs["flops_dense"]
    assert result.costs["flops_dense"] == dense_flops and dense_flops is not None
    assert (result.costs["flops_sparse"] or 0) < 0.2 * dense_flops


@pytest.mark.slow
def test_equal_flops_and_equal_weights_are_two_widths() -> None:
    mnist = [
        narrowing.complete(Run(Cell(f"small-dense{equal}", "mnist", "lenet-5-caffe", 0.8, 0), run().recipe))
        for equal in ("", ":equal=flops")
    ]
    assert mnist[0] is not None and mnist[1] is not None and mnist[0].width != mnist[1].width
    assert narrowing.width(run("erk")) == 1.0 and narrowing.complete(run("erk")) is None


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("dense:params=0.1", ("small-dense", 0.9)),
        ("dense:flops=0.02", ("small-dense:equal=flops", 0.98)),
        ("dense:params=1", ("small-dense", 0.0)),
        ("dense", None),
        ("snip:bn=eval", None),
    ],
)
def test_the_short_form_is_a_method_and_a_sparsity(text: str, cell: tuple[str, float] | None) -> None:
    assert smaller_dense(text) == cell


@pytest.mark.parametrize("text", ["dense:params=0", "dense:flops=1.5", "dense:params=wide"])
def test_ratios_outside_of_0_to_1_are_refused(text: str) -> None:
    with pytest.raises(PaiBenchError, match="is not in \\(0, 1\\]"):
        smaller_dense(text)


def test_a_plan_has_the_smaller_network_at_its_density_once() -> None:
    request = Request(("erk", "dense:params=0.1", "small-dense", "dense:flops=0.3"), sparsities=(0.9, 0.98), seeds=(0,))
    cells = [(run.cell.method, run.cell.sparsity) for run in expand(request)]
    assert sorted(cells) == [
        *(("dense", 0.0), ("erk", 0.9), ("erk", 0.98), ("small-dense", 0.9), ("small-dense", 0.98)),
        ("small-dense:equal=flops", 0.7),
    ]


def test_models_without_width_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def rigid(channels: int, size: int, classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, classes))

    monkeypatch.setitem(models.registry._builders._things, "rigid", rigid)
    checked = check([run("dense", 0.0, "rigid"), run("erk", 0.5, "rigid"), run("small-dense", 0.5, "rigid")], None)
    assert [run.cell.method for run in checked.runs] == ["dense", "erk"]
    assert checked.refused[0].cause == "model rigid has no width, so that no smaller one can be built"
    with pytest.raises(PaiBenchError, match="model rigid has no width"):
        models.build("rigid", 1, 8, 10, 0.5)
    everything = expand(Request((ALL,), models=("rigid",), sparsities=(0.5,), seeds=(0,)))
    assert "small-dense" not in {run.cell.method for run in everything}


def test_prune_refuses_small_dense(tmp_path: Path) -> None:
    assert "small-dense" not in pai_bench.list_methods()
    with pytest.raises(PaiBenchError, match="small-dense trains a narrower network and prunes nothing"):
        pai_bench.prune(nn.Linear(3, 2), [(torch.ones(2, 3), torch.tensor([0, 1]))], "small-dense", sparsity=0.5)
    options = single_cell.Options("digits", "conv8", None, (), 0, None, (), as_json=False)
    with pytest.raises(PaiBenchError, match="small-dense trains a narrower network"):
        single_cell.prune(options, "small-dense", "0.9", tmp_path / "masks.npz")


@pytest.mark.slow
def test_tables_have_a_block_of_references_that_do_not_compete() -> None:
    rows = [*dense(), *series("erk", "snip", "small-dense")]
    for row in rows:
        if row["method"] == "small-dense":
            row["accuracy"] = row["counted"] = row["accuracy"] + 0.01
    collection = Collection(unify(pd.DataFrame(rows).assign(method_reported="")).rows, MISSING, (), ())
    summary = summarise(collection)
    emphasis = emphasise(summary, by_series(collection.rows))
    for text in (*tables.accuracy(summary, emphasis), *tables.across(summary, emphasis)):
        assert "ERK" in text[: text.index(SMALLER)] and "Smaller dense" in text[text.index(SMALLER) + len(SMALLER) :]
    assert emphasis.bold and set(summary.loc[list(emphasis.bold), "method"]) <= {"erk", "snip"}
    caption = drawn("accuracy", rows).caption
    assert "Smaller dense: unpruned networks with narrower layers, as large as the pruned ones." in caption


MISSING = pd.DataFrame(columns=[*CELL, "state"])


@pytest.mark.slow
def test_sizes_and_weights_may_differ_but_not_by_much() -> None:
    rows = sound()
    rows["method"] = rows["method"].replace({"snip:control=shuffle": "small-dense"})
    chosen = rows["method"] == "small-dense"
    rows["n_prunable"] = 1000
    rows["n_kept"] = (1000 * (1 - rows["sparsity"])).round()
    rows.loc[chosen, "n_kept"] += 1
    rows.loc[chosen, "init_hash"] = "other"
    assert not {"unequal-kept-counts", "unequal-initial-weights", "unequal-sizes"} & objections(rows).keys()
    rows.loc[chosen, "n_kept"] *= 1.2
    assert "small-dense has 1.2" in objections(rows)["unequal-sizes"].where[0]
