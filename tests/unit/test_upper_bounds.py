"""Methods that see training have a block of their own in reports, and unknown ones are objected to."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from pai_bench.analysis import tables
from pai_bench.analysis.collect import Collection
from pai_bench.analysis.columns import CELL
from pai_bench.analysis.emphasis import emphasise
from pai_bench.analysis.information import HEADING, is_upper_bound, known
from pai_bench.analysis.series import by_series
from pai_bench.analysis.statistics import summarise
from pai_bench.analysis.table_files import read_table
from pai_bench.analysis.unify import unify
from pai_bench.cells import Cell
from pai_bench.errors import PaiBenchError
from pai_bench.experiment.run import Run
from pai_bench.sweep.planning.checks import check

from . import killing
from .test_check import objections, sound
from .test_figures import dense, drawn, runs_of, series

MISSING = pd.DataFrame(columns=[*CELL, "state"])


@pytest.mark.parametrize("saw", ["training", "1 epoch", "120 epochs"])
def test_epochs_of_training_are_an_upper_bound_and_scoring_data_are_not(saw: str) -> None:
    assert is_upper_bound(saw)
    assert not any(map(is_upper_bound, ("nothing", "inputs", "labels", "unknown", "", None, float("nan"))))
    assert [known(name) for name in ("rigl:every=20", "erk", "snip", "px", "no such method", "file:masks")] == [
        *("training", "nothing", "labels", "inputs", "", "")
    ]


@pytest.mark.slow
def test_tables_have_a_block_of_upper_bounds_whose_numbers_are_not_emphasised() -> None:
    rows = [*dense(), *series("erk", "snip"), *series("rigl", "own", saw="9 epochs")]
    for row in rows:
        if row["method"] in ("rigl", "own"):
            row["accuracy"] = row["counted"] = row["accuracy"] + 0.01
    collection = Collection(unify(pd.DataFrame(rows).assign(method_reported="")).rows, MISSING, (), ())
    summary = summarise(collection)
    emphasis = emphasise(summary, by_series(collection.rows))
    for text in (*tables.accuracy(summary, emphasis), *tables.across(summary, emphasis)):
        below = text[text.index(HEADING) :]
        above = text[: text.index(HEADING)]
        assert "ERK" in above and "SNIP" in above and "RigL" not in above
        assert below.index("RigL") and below.index("own") and "ERK" not in below.partition("\n\n")[0]
        block = below.partition("\n\n")[0].partition("bottomrule")[0].partition("\n")[2]
        assert "**" not in block and "textbf" not in block
    assert emphasis.bold and set(summary.loc[list(emphasis.bold), "method"]) <= {"erk", "snip"}


@pytest.mark.slow
def test_tables_without_upper_bounds_have_one_block() -> None:
    collection = Collection(pd.DataFrame(series("erk", "snip")), MISSING, (), ())
    assert HEADING not in "".join(tables.accuracy(summarise(collection)))


@pytest.mark.slow
def test_captions_name_the_upper_bounds() -> None:
    rows = [*dense(), *series("erk", "rigl", "gmp")]
    assert "Masks found during training (upper bounds): GMP, RigL." in drawn("accuracy", rows).caption
    assert "upper bounds" not in drawn("accuracy", [*dense(), *runs_of("erk", 0.9)]).caption


@pytest.mark.slow
def test_masks_of_unknown_origin_are_objected_to_unless_a_table_states_it(tmp_path: Path) -> None:
    rows = sound()
    rows["method"] = rows["method"].replace({"snip": "their-method", "snip:control=shuffle": "file:masks-00000000"})
    found = objections(rows)["unknown-information"]
    assert found.where[0].endswith("cifar10 · resnet20 · frankle: file:masks-00000000, their-method")
    assert "unknown-information" not in objections(rows.assign(saw="9 epochs"))
    table = tmp_path / "lab.csv"
    lines = "x,digits,conv8,0.9,0,0.9,9 epochs\nsnip,digits,conv8,0.9,0,0.8,\n"
    table.write_text(f"method,dataset,model,sparsity,seed,accuracy,saw\n{lines}")
    assert list(unify(read_table(table).assign(chance=0.1)).rows["saw"]) == ["9 epochs", "labels"]


def test_a_plan_refuses_a_training_without_mask_updates_and_effective_sparsities() -> None:
    short = killing.recipe(epochs=1, batch_size=64)
    runs = [Run(Cell(method, "digits", "conv8", 0.9, 0), short) for method in ("rigl:every=10", "rigl")]
    assert check(runs[:1], None).runs == tuple(runs[:1])
    with pytest.raises(PaiBenchError, match="rigl would never change its masks in a training of 23 steps"):
        check(runs, None)
    effective = dataclasses.replace(short, scoring=dataclasses.replace(short.scoring, effective=True))
    with pytest.raises(PaiBenchError, match="rigl:every=10 changes its masks during training, so that their effective"):
        check([Run(runs[0].cell, effective)], None)
