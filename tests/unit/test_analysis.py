"""Tests of the report: counted, missing, stale and damaged results in numbers, tables and figures."""

from __future__ import annotations

import errno
import io
import json
import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from rich.console import Console
from scipy import stats

from pai_bench import results
from pai_bench.analysis import figures, latex_text, tables
from pai_bench.analysis.collect import collect, read_table
from pai_bench.analysis.command import run, status_lines
from pai_bench.analysis.figures import Drawing, Material
from pai_bench.analysis.figures.panel import ALL_FAILED, MISSING
from pai_bench.analysis.statistics import MARGIN, compare_controls, summarise
from pai_bench.analysis.style import CONTROL_LABELS, KNOWN, styles
from pai_bench.cells import Cell, parse_compressions
from pai_bench.errors import PaiBenchError
from pai_bench.results import ResultKey
from tests.disk import Disk
from tests.unit.test_results import result

QUIET = Console(file=io.StringIO())


def accuracy_figure(rows: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """Draw the first page of the figure of accuracy."""
    made = figures.chosen(["accuracy"])["accuracy"](Material(rows, summary))
    assert isinstance(made, Drawing)
    return made.pages[0]


def words(figure: Figure) -> set[str]:
    """Return all texts of a figure."""
    return {text.get_text() for text in figure.findobj(Text)}


ACCURACIES = {0: 0.80, 1: 0.83, 2: 0.89}


def put(root: Path, method: str = "snip", sparsity: float = 0.9, seed: int = 0, **changes: object) -> Path:
    accuracy = changes.pop("accuracy", ACCURACIES.get(seed, 0.5) - sparsity / 10)
    mine = {"method": method, "sparsity": sparsity, "seed": seed, "accuracy": accuracy, **changes}
    return results.write(root, result(**mine), {}, redo=True)


def plan(root: Path, name: str, cells: list[Cell], fingerprint: str = result().fingerprint) -> None:
    lines = [{**vars(cell), "recipe": "quick", "fingerprint": fingerprint} for cell in cells]
    results.write_plan(root, f"{name}.json", {"created": name, "cells": lines})


def cell(method: str = "snip", sparsity: float = 0.9, seed: int = 0) -> Cell:
    return Cell(method, "digits", "conv8", sparsity, seed)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Complete results of two methods and the dense reference, three seeds and two sparsities."""
    for seed in ACCURACIES:
        put(tmp_path, "dense", 0.0, seed)
        for method in ("snip", "random"):
            for sparsity in (0.9, 0.98):
                put(tmp_path, method, sparsity, seed)
    return tmp_path


@pytest.mark.slow
def test_points_have_n_mean_and_sample_deviation(root: Path) -> None:
    summary = summarise(collect(root))
    point = summary[(summary.method == "snip") & (summary.sparsity == 0.9)].iloc[0]
    expected = np.array(list(ACCURACIES.values())) - 0.09
    assert (point.n, point.planned) == (3, 3)
    assert point["mean"] == pytest.approx(expected.mean())
    assert point["std"] == pytest.approx(expected.std(ddof=1))
    assert summary.method.iloc[0] == "dense"


@pytest.mark.slow
def test_one_seed_has_no_deviation(tmp_path: Path) -> None:
    put(tmp_path)
    summary = summarise(collect(tmp_path))
    assert summary["n"].tolist() == [1] and np.isnan(summary["std"].iloc[0])
    assert "71.00 |" in tables.markdown(summary) and "one seed" in tables.markdown(summary)


@pytest.mark.slow
def test_missing_cells_are_those_of_the_plans(root: Path) -> None:
    plan(root, "1", [cell(seed=seed) for seed in range(4)] + [cell("erk")])
    results.write_failure(root, ResultKey(cell("erk"), "quick", result().fingerprint), cause="boom", traceback="")
    collection = collect(root)
    assert collection.missing[["method", "seed", "state"]].values.tolist() == [
        ["snip", 3, "missing"],
        ["erk", 0, "failed"],
    ]
    markdown = tables.markdown(summarise(collection))
    assert "(3 of 4)" in markdown and "– (0 of 1)" in markdown


@pytest.mark.slow
def test_stale_results_are_named_and_never_mixed(root: Path) -> None:
    old = put(root, "snip", 0.9, 5, fingerprint="f" * 16, finished_at="2020-01-01T00:00:00+00:00")
    # Without a plan the newest settings count.
    assert collect(root).stale == (str(old),)
    plan(root, "1", [cell()], fingerprint="f" * 16)
    plan(root, "2", [cell()])
    collection = collect(root)
    assert collection.stale == (str(old),)
    assert 5 not in set(collection.rows.seed)
    # A newer plan with the old settings turns it round, for this method alone.
    plan(root, "3", [cell(seed=5)], fingerprint="f" * 16)
    collection = collect(root)
    snip = collection.rows[collection.rows.method == "snip"]
    assert snip.seed.tolist() == [5]
    assert len(collection.stale) == 6
    assert (collection.rows.method == "random").sum() == 6


@pytest.mark.slow
def test_damaged_files_are_named_and_not_counted(root: Path) -> None:
    place = put(root, "erk")
    place.write_text(place.read_text()[:100])
    collection = collect(root)
    assert "erk" not in set(collection.rows.method)
    assert len(collection.damaged) == 1 and str(place) in collection.damaged[0]


@pytest.mark.slow
def test_unreadable_results_are_listed_and_not_counted_as_missing(root: Path, disk: Disk) -> None:
    place = put(root, "erk")
    plan(root, "1", [cell("erk"), cell("erk", seed=1)])
    disk.refuse(f"*/erk/{place.name}", errno.EIO)
    collection = collect(root)
    assert dict(zip(collection.missing.seed, collection.missing.state, strict=True)) == {0: "unreadable", 1: "missing"}
    assert collection.unreadable == (f"{place} cannot be read: Input/output error",) and not collection.damaged
    text = "\n".join(status_lines(collection))
    assert "1 unreadable: correct" in text and f"{place} cannot be read: Input/output error; not counted" in text
    disk.refuse("*/runs/*/*/*/*.json", errno.EIO)
    with pytest.raises(PaiBenchError, match=r"no result can be read: .*Input/output error"):
        collect(root)


@pytest.mark.slow
def test_a_plan_with_a_future_timestamp_does_not_stay_the_newest(root: Path) -> None:
    old = put(root, "snip", 0.9, 5, fingerprint="f" * 16)
    plan(root, "20990101T000000-ffffff", [cell(seed=5)], fingerprint="f" * 16)
    plan(root, results.plan_name(root).removesuffix(".json"), [cell()])
    assert collect(root).stale == (str(old),)


@pytest.mark.slow
def test_collapsed_and_diverged_runs_count_and_are_marked(root: Path) -> None:
    put(root, "erk", seed=0, status="collapsed", accuracy=0.1)
    put(root, "erk", seed=1, status="diverged", accuracy=0.1)
    put(root, "erk", seed=2)
    summary = summarise(collect(root))
    point = summary[summary.method == "erk"].iloc[0]
    assert (point.n, point.collapsed, point.diverged) == (3, 1, 1)
    assert "(1c, 1d of 3)" in tables.markdown(summary)


@pytest.mark.slow
def test_recipes_and_models_are_never_averaged(root: Path) -> None:
    put(root, recipe="other")
    put(root, model="conv28")
    summary = summarise(collect(root))
    assert len(summary.groupby(["dataset", "model", "recipe"])) == 3
    assert tables.markdown(summary).count("###") == 3


@pytest.mark.slow
def test_numbers_on_the_validation_split_are_not_called_test_accuracy(root: Path) -> None:
    put(root, recipe="quick+data.split=validation", fingerprint="f" * 16)
    summary = summarise(collect(root))
    for text in (tables.markdown(summary), tables.latex(summary).replace("\\", "")):
        assert text.count("Test accuracy (%)") == 1 and text.count("Validation accuracy (%)") == 1
    rows = collect(root).rows
    assert "Test or validation accuracy (%)" in words(accuracy_figure(rows, summary))
    validation = accuracy_figure(rows[rows.recipe != "quick"], summary[summary.recipe != "quick"])
    assert "Validation accuracy (%)" in words(validation)


def test_a_report_without_results_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PaiBenchError, match="no finished result"):
        collect(tmp_path)
    plan(tmp_path, "1", [cell()])
    with pytest.raises(PaiBenchError, match=r"yet \(1 cell planned\)\n"):
        collect(tmp_path)
    put(tmp_path).write_text("{}")
    with pytest.raises(PaiBenchError, match=r"no finished result in .*; 1 damaged: result \S+ is damaged: KeyError"):
        collect(tmp_path)


def tidy(**changes: object) -> pd.DataFrame:
    columns: dict[str, object] = {
        "method": ["snip", "snip", "theirs"],
        "dataset": "digits",
        "model": "conv8",
        "sparsity": [0.9, 0.9, 0.9],
        "seed": [0, 1, 0],
        "accuracy": [0.7, 0.9, 0.5],
        "note": "x",
    }
    return pd.DataFrame(columns | changes)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tidy_tables_are_merged_with_own_results(root: Path, kind: str) -> None:
    path = root / f"lab.{kind}"
    tidy(recipe="quick").to_csv(path, index=False) if kind == "csv" else tidy(recipe="quick").to_parquet(path)
    summary = summarise(collect(root, [path]))
    markdown = tables.markdown(summary)
    assert (
        "| SNIP [lab, epoch not stated]† " in markdown
        and "| theirs [lab, epoch not stated]" in markdown
        and "| SNIP  " in markdown
    )
    assert markdown.count("###") == 1
    lab = summary[(summary.source == "lab") & (summary.method == "snip")].iloc[0]
    assert (lab.n, lab["mean"]) == (2, pytest.approx(0.8))


@pytest.mark.slow
def test_a_table_alone_needs_no_results(tmp_path: Path) -> None:
    path = tmp_path / "lab.csv"
    tidy().to_csv(path, index=False)
    assert run(tmp_path / "none", tmp_path / "out", [path], False, QUIET)
    assert "[lab]" not in (tmp_path / "out" / "table.md").read_text()


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (tidy().drop(columns="seed"), "no column seed"),
        (tidy(accuracy=[70.0, 90.0, 50.0]), r"accuracy 70 \(row 2\)"),
        (tidy(sparsity=[0.9, 1.0, 0.9]), r"sparsity 1 \(row 3\)"),
        (tidy(accuracy=["good", "bad", "x"]), r"accuracy has a value that is not a number: 'good' \(row 2\)"),
        (tidy(sparsity=["0.5", "90 %", "0.9"]), r"'90 %' \(row 3\)\nwrite fractions, not per cent"),
        (tidy(seed=[0, 0, 0]), "row 3 repeats snip"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path, frame: pd.DataFrame, words: str) -> None:
    frame.to_csv(tmp_path / "lab.csv", index=False)
    with pytest.raises(PaiBenchError, match=words):
        read_table(tmp_path / "lab.csv")


@pytest.mark.parametrize(
    ("name", "content"), [("a.csv", ""), ("a.parquet", "no parquet"), ("a.txt", "x"), ("b.csv", None)]
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, name: str, content: str | None) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(PaiBenchError, match=name):
        read_table(tmp_path / name)


@pytest.mark.slow
def test_names_that_differ_in_case_are_kept_apart_where_they_have_the_same_cells(tmp_path: Path) -> None:
    cells = [("SNIP", 0), ("snip", 1), ("Erk", 0), ("ERK", 0), ("Own", 0), ("OWN", 0)]
    rows = [f"{name},mnist,conv8,0.9,{seed},0.5,ok\n" for name, seed in cells]
    collection = collect(tmp_path, [lab(tmp_path, HEAD + "".join(rows))])
    assert set(collection.rows["method"]) == {"snip", "Erk", "ERK", "Own", "OWN"}
    assert collection.remarks[:3] == (
        "names that differ in case only are unified: 'SNIP' as 'snip'",
        "'ERK', 'Erk' have the same cells as others of that name: kept apart",
        "'OWN', 'Own' differ in case only: kept apart",
    )


@pytest.mark.slow
def test_one_name_with_the_cells_of_another_is_named_once(tmp_path: Path) -> None:
    rows = [f"{name},mnist,conv8,0.9,0,0.5,ok\n" for name in ("snip", "Snip")]
    collection = collect(tmp_path, [lab(tmp_path, HEAD + "".join(rows))])
    assert [line for line in collection.remarks if "apart" in line] == [
        "'Snip' has the same cells as another one of that name: kept apart"
    ]


def test_commas_within_values_are_told_apart_from_other_separators(tmp_path: Path) -> None:
    head, row = "method;dataset;model;sparsity;seed;accuracy\n", "snip;mnist;conv8;0,9;0;0,5\n"
    with pytest.raises(PaiBenchError, match="separator seems to be ';'"):
        collect(tmp_path, [lab(tmp_path, f"{head}erk;mnist;conv8;0;0;0,5\n{row}")])
    with pytest.raises(PaiBenchError, match="in double quotes"):
        collect(tmp_path, [lab(tmp_path, f"{HEAD}erk,mnist,conv8,0.9,0,0.5,ok\na:b=1,c=2,mnist,conv8,0.9,0,0.5,ok\n")])
    with pytest.raises(PaiBenchError, match=r"no row with a result in .*lab\.csv"):
        collect(tmp_path, [lab(tmp_path, HEAD)])


@pytest.mark.slow
def test_a_report_reads_its_own_csv(root: Path) -> None:
    run(root, root / "out", [], False, QUIET)
    again = read_table(root / "out" / "results.csv")
    ours = collect(root).rows
    columns = ["method", "dataset", "model", "recipe", "sparsity", "seed", "accuracy", "status"]
    pd.testing.assert_frame_equal(again[columns], ours[columns], check_dtype=False)


@pytest.mark.slow
def test_all_files_are_written_and_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan(root, "1", [cell("erk")])
    assert not run(root, None, [], False, QUIET)
    named = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert {path.name for path in named} == {
        *("report.md", "report.html", "table.md", "table.tex", "table.csv", "results.csv"),
        *("captions.md", "captions.tex", "numbers.tex", "references.bib", "methods.md", "methods.tex"),
        *(
            f"{name}{end}"
            for name in ("accuracy", "difference-to-dense", "layers", "cost")
            for end in (".pdf", ".png", "-points.csv")
        ),
    }
    assert all(path.parent == root / "report" and path.stat().st_size for path in named)
    assert "erk at 90 %, seeds 0 (missing)" in (root / "report" / "report.md").read_text()
    run(root, None, [], True, QUIET)
    content = json.loads(capsys.readouterr().out)
    assert content["complete"] is False and content["missing"][0]["method"] == "erk"
    assert len(content["points"]) == 6


def test_styles_of_methods_are_stable_and_distinct() -> None:
    names = ["snip", "prospr", "prospr:steps=1", "prospr:steps=2", *(f"new-{i}" for i in range(12))]
    looks = styles(names)
    assert len(set(looks.values())) == len(names)
    assert looks["snip"] == KNOWN["snip"]
    assert looks["prospr:steps=1"].color == KNOWN["prospr"].color
    assert styles(["new-3"])["new-3"] == styles(["snip", "new-3"])["new-3"]
    # In grey, marker and line must do: no two methods of ours share both.
    assert len({(look.marker, look.line) for look in KNOWN.values()}) == len(KNOWN)
    # There are 12 shapes that a reader can tell apart: the first 12 methods, among them the default ones, share none,
    # and no shape occurs more often than the number of methods requires.
    shapes = Counter(look.marker for look in KNOWN.values())
    assert len({look.marker for look in list(KNOWN.values())[:12]}) == 12 == len(shapes)
    assert max(shapes.values()) == -(-len(KNOWN) // 12)


@pytest.mark.parametrize(
    ("sparsity", "text"),
    [(0.9, "90"), (0.98, "98"), (0.995, "99.5"), (0.437659, "43.77"), (0.5904, "59.04"), (0.0, "0"), (0.9999, "99.99")],
)
def test_sparsities_are_written_without_being_rounded_away(sparsity: float, text: str) -> None:
    assert tables.per_cent(sparsity) == text


@pytest.mark.slow
def test_latex_is_escaped_and_balanced(root: Path) -> None:
    put(root, "my_method:a=1", model="net_50%")
    text = tables.latex(summarise(collect(root)))
    assert r"my\_method:a=1" in text and r"net\_50\%" in text
    assert not re.search(r"(?<!\\)[%_&](?=\w)", "\n".join(line for line in text.splitlines()[1:] if "&" not in line))
    for line in text.splitlines():
        if line.endswith(r"\\"):
            assert line.count(" & ") in (1, 2)
    assert text.count(r"\begin{") == text.count(r"\end{")


@pytest.mark.slow
def test_copies_of_a_result_count_once(root: Path) -> None:
    place = put(root)
    place.with_name("copy.json").write_bytes(place.read_bytes())
    rows = collect(root).rows
    assert len(rows) == 15


@pytest.mark.slow
def test_a_newer_schema_is_named_and_not_counted(root: Path) -> None:
    put(root, "erk", schema=results.SCHEMA + 1)
    collection = collect(root)
    assert "newer pai-bench" in collection.damaged[0]
    assert "erk" not in set(collection.rows.method)


@pytest.mark.slow
def test_a_result_may_be_replaced_during_a_report(root: Path) -> None:
    """A result may be replaced while a report is read; the newest file counts."""
    before = collect(root).rows
    put(root, "snip", 0.9, 0, accuracy=0.5)
    after = collect(root).rows
    assert len(before) == len(after)
    assert replace(result(), accuracy=0.5).accuracy in set(after.accuracy)


def with_controls(root: Path) -> dict[str, list[float]]:
    """Write results of four seeds for each control, and return their differences to snip at 0.9."""
    put(root, seed=3, accuracy=0.7)
    differences = {"invert": [-0.5, -0.4, -0.6, -0.5], "shuffle": [0.001, -0.001, 0.002, 0.0]}
    for control, values in differences.items():
        for seed, difference in enumerate(values):
            plain = 0.7 if seed == 3 else ACCURACIES[seed] - 0.09
            put(root, f"snip:control={control}", seed=seed, accuracy=plain + difference)
    return differences


@pytest.mark.slow
def test_controls_are_compared_with_their_method_seed_by_seed(root: Path) -> None:
    differences = with_controls(root)
    put(root, "snip:control=reinit", seed=1, accuracy=0.5)  # one pair
    put(root, "snip:control=reinit", seed=9, accuracy=0.5)  # without the method's
    put(root, "synflow:control=shuffle", seed=0)  # without a method
    table = compare_controls(collect(root))
    assert list(table["control"]) == ["shuffle", "reinit", "invert"]
    assert set(table["method"]) == {"snip"}
    for line in table.itertuples():
        if line.control == "reinit":
            assert line.n == 1 and np.isnan([line.low, line.high, line.p]).all() and not line.equivalent
            continue
        values = differences[line.control]
        expected = stats.ttest_1samp(values, 0)
        assert line.n == 4 and line.difference == pytest.approx(np.mean(values))
        assert (line.low, line.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
        above = stats.ttest_1samp(values, -MARGIN, alternative="greater").pvalue
        below = stats.ttest_1samp(values, MARGIN, alternative="less").pvalue
        assert line.p == pytest.approx(max(above, below))
        assert line.equivalent == (line.control == "shuffle")


@pytest.mark.slow
@pytest.mark.parametrize("difference", [0.0, MARGIN / 2, 2 * MARGIN])
def test_differences_without_spread_give_no_p_value(root: Path, difference: float) -> None:
    for seed in ACCURACIES:
        put(root, seed=seed, accuracy=0.5)
        put(root, "snip:control=shuffle", seed=seed, accuracy=0.5 + difference)
    (line,) = compare_controls(collect(root)).itertuples()
    assert line.low == pytest.approx(difference) == line.high and math.isnan(line.p) and not line.equivalent


@pytest.mark.slow
def test_networks_at_chance_give_no_p_value_and_collapsed_controls_are_marked(root: Path) -> None:
    for seed in ACCURACIES:
        put(root, seed=seed, accuracy=0.1 + seed / 10000, status="collapsed")
        put(root, "snip:control=invert", seed=seed, accuracy=0.1, status="collapsed")
    comparison = compare_controls(collect(root))
    (line,) = comparison.itertuples()
    assert not line.equivalent and math.isnan(line.p) and (line.collapsed, line.diverged) == (3, 0)
    assert "(3c of 3) |" in tables.controls(comparison)[0]


def lab(folder: Path, content: str, name: str = "lab.csv") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(content)
    return folder / name


HEAD = "method,dataset,model,sparsity,seed,accuracy,status\n"


@pytest.mark.slow
def test_two_tables_of_one_name_are_two_sources(tmp_path: Path) -> None:
    places = [lab(tmp_path / f, f"{HEAD}snip,mnist,conv8,0.9,0,0.{n},ok\n") for f, n in (("a", 5), ("b", 7))]
    rows = collect(tmp_path, places).rows
    assert dict(zip(rows["source"], rows["accuracy"], strict=True)) == {"a/lab": 0.5, "b/lab": 0.7}
    with pytest.raises(PaiBenchError, match="given twice"):
        collect(tmp_path, [places[0], places[0]])


@pytest.mark.slow
def test_a_report_of_several_sources_is_read_back_as_such(root: Path) -> None:
    table = lab(root / "theirs", f"{HEAD}snip,digits,conv8,0.9,0,0.5,ok\n")
    first = collect(root, [table])
    run(root, root / "out", [table], False, QUIET)
    again = summarise(collect(root / "nothing", [root / "out" / "results.csv"]))
    before = summarise(first)
    assert again["mean"].tolist() == pytest.approx(before["mean"].tolist()) and len(again) == len(before)
    assert set(again["source"]) == {"results", "results/lab"}


@pytest.mark.slow
def test_rows_without_a_recipe_count(tmp_path: Path) -> None:
    head = HEAD.replace("status", "recipe")
    table = lab(tmp_path, f"{head}snip,mnist,conv8,0.9,0,0.5,\nsnip,mnist,conv8,0.9,1,0.6,quick\n")
    assert summarise(collect(tmp_path, [table]))["n"].tolist() == [1, 1]
    run(tmp_path, tmp_path / "out", [lab(tmp_path, f"{head}snip,mnist,conv8,0.9,0,0.5,\n", "one.csv")], False, QUIET)


@pytest.mark.slow
def test_a_run_that_diverged_is_never_dropped(tmp_path: Path) -> None:
    lines = "".join(f"snip,mnist,conv8,0.98,{seed},,diverged\n" for seed in range(3))
    table = lab(tmp_path, f"{HEAD}snip,mnist,conv8,0.9,0,0.5,ok\n{lines}erk,mnist,conv8,0.9,0,,ok\n")
    collection = collect(tmp_path, [table])
    summary = summarise(collection)
    # Without an accuracy they count at chance; the other data set has no known chance, so it has no mean.
    assert "10.00 (3d of 3)" in tables.markdown(summary)
    unknown = summarise(collect(tmp_path, [lab(tmp_path, f"{HEAD}{lines}".replace("mnist", "faces"))]))
    assert "– (3d of 3)" in tables.markdown(unknown)
    assert any("1 row of tables has no accuracy" in line for line in status_lines(collection))
    legend = words(accuracy_figure(collection.rows, summary))
    assert ALL_FAILED in legend and MISSING not in legend


@pytest.mark.slow
def test_a_method_may_be_called_none(tmp_path: Path) -> None:
    lines = [f"{name},mnist,conv8,0.9,0,0.5,ok\n" for name in ("None", "NA", "null", "nan", "snip")]
    assert len(collect(tmp_path, [lab(tmp_path, HEAD + "".join(lines))]).rows) == 5


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("snip,mnist,conv8,0.9,,0.5,ok", "row 2 has no seed"),
        (",mnist,conv8,0.9,0,0.5,ok", "row 2 has no method"),
        ("snip;mnist;conv8;0.9;0;0.5;ok", "row 2 has no dataset\n.*by commas, not ';'"),
        ("snip,mnist,conv8,0.9,0.5,0.5,ok", "seed 0.5 .row 2. is not a whole number"),
        ("snip,mnist,conv8,0.9,inf,0.5,ok", "seed inf"),
        ("snip,mnist,conv8,0.9,1e30,0.5,ok", "seed 1e.30"),
        ("snip,mnist,conv8,0.9,0,True,ok", "not a number: True or False"),
        ("snip,mnist,conv8,0.9,0,0.5,failed", "status 'failed' .row 2. is not known"),
    ],
)
def test_invalid_rows_are_refused(tmp_path: Path, line: str, cause: str) -> None:
    with pytest.raises(PaiBenchError, match=cause):
        collect(tmp_path, [lab(tmp_path, f"{HEAD}{line}\n")])


@pytest.mark.slow
def test_rounded_sparsities_are_merged_and_statuses_ignore_case(tmp_path: Path) -> None:
    table = lab(tmp_path, f"{HEAD}erk,mnist,conv8,{1 - 0.9},0,0.5,OK\nsnip,mnist,conv8,0.1,0,0.5,Collapsed\n")
    summary = summarise(collect(tmp_path, [table]))
    assert summary["sparsity"].tolist() == [0.1, 0.1] and summary["collapsed"].sum() == 1
    assert tables.per_cent(1 - 1e-10) != "100"


@pytest.mark.slow
def test_names_from_tables_are_escaped_in_latex_markdown_and_figures(tmp_path: Path) -> None:
    names = [r"a\b", "p^2", "x~y", "<tag>", "a|b", "e$f$g", r"a$\frac$b"]
    table = lab(tmp_path, HEAD + "".join(f"{name},mnist,conv8,0.9,0,0.5,ok\n" for name in names))
    summary = summarise(collect(tmp_path, [table]))
    text = tables.latex(summary)
    for escaped in (r"a\textbackslash{}b", r"p\textasciicircum{}2", r"x\textasciitilde{}y", r"\textless{}tag"):
        assert escaped in text
    assert r"a\|b" in tables.markdown(summary)
    assert "e$f$g" in words(accuracy_figure(collect(tmp_path, [table]).rows, summary))


@pytest.mark.slow
def test_sparsities_have_one_canonical_value_in_results_tables_and_reports(root: Path, tmp_path: Path) -> None:
    (third,) = parse_compressions("3")
    for seed in (0, 1):
        put(root, sparsity=third, seed=seed)
    plan(root, "1", [cell(sparsity=third, seed=seed) for seed in range(3)])
    texts = (repr(1 - 1 / 3), "0.666666666667", "0.66666666666666674", repr(third))
    table = lab(tmp_path / "lab", HEAD + "".join(f"m{i},digits,conv8,{s},0,0.5,ok\n" for i, s in enumerate(texts)))
    run(root, root / "out", [table], False, QUIET)
    again = collect(root, [table, root / "out" / "results.csv"])
    assert set(again.rows["sparsity"]) == {0.0, third, 0.9, 0.98}
    assert set(again.missing["sparsity"]) == {third}
    assert tables.latex(summarise(again)).count("66.67") == 2  # the panels of both recipes, one column each
    assert summarise(again).set_index("sparsity").loc[third, "planned"].max() == 3


@pytest.mark.slow
def test_json_and_csv_have_every_digit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (third,) = parse_compressions("3")
    put(tmp_path, sparsity=third, seed=0)
    plan(tmp_path, "1", [cell(sparsity=third, seed=seed) for seed in (0, 1)])
    run(tmp_path, None, [], True, QUIET)
    told = json.loads(capsys.readouterr().out)
    assert [row["sparsity"] for row in (*told["points"], *told["missing"])] == [third, third]
    assert told["points"][0]["std"] is None and told["points"][0]["density"] == 1 / 3
    assert f",{third!r},{1 / 3!r}," in (tmp_path / "report" / "table.csv").read_text()


@pytest.mark.slow
def test_32_bit_floats_are_read_as_their_shortest_decimals(tmp_path: Path) -> None:
    table = pd.read_csv(lab(tmp_path, f"{HEAD}snip,mnist,conv8,0.9,0,0.5,ok\n"))
    table.astype({"sparsity": "float32"}).to_parquet(tmp_path / "lab.parquet")
    assert read_table(tmp_path / "lab.parquet")["sparsity"].tolist() == [0.9]


@pytest.mark.slow
def test_whitespace_around_names_headers_and_numbers_is_ignored(tmp_path: Path) -> None:
    content = "method, dataset, model , sparsity, seed, accuracy, time\nsnip ,cifar10 , conv8,0.9 , 0, 0.5 , 3.5\n"
    rows = read_table(lab(tmp_path, content + "snip,cifar10,conv8,0.9,1,0.7, \n"))
    assert rows[["method", "dataset", "model", "sparsity", "seed", "accuracy"]].values.tolist() == [
        ["snip", "cifar10", "conv8", 0.9, 0, 0.5],
        ["snip", "cifar10", "conv8", 0.9, 1, 0.7],
    ]
    assert rows["time"].tolist()[0] == 3.5 and np.isnan(rows["time"].tolist()[1])
    rows.rename(columns={"seed": " seed"}).replace("snip", "snip ").to_parquet(tmp_path / "lab.parquet")
    assert set(read_table(tmp_path / "lab.parquet")["method"]) == {"snip"}
    with pytest.raises(PaiBenchError, match="two columns method"):
        read_table(lab(tmp_path, "method,method ,dataset,model,sparsity,seed,accuracy\na,b,mnist,conv8,0.9,0,0.5\n"))
    with pytest.raises(PaiBenchError, match="two columns accuracy"):
        read_table(lab(tmp_path, f"{HEAD.strip()},accuracy\nsnip,mnist,conv8,0.9,0,0.5,ok,0.6\n"))


@pytest.mark.slow
def test_remedies_for_a_table_name_the_faulty_value(tmp_path: Path) -> None:
    for row, words in (("90,0,0.5", "per cent"), ("0.9,0,93.1", "per cent"), ("-0.1,0,0.5", "correct the sparsity")):
        with pytest.raises(PaiBenchError) as caught:
            read_table(lab(tmp_path, f"{HEAD}snip,mnist,conv8,{row},ok\n"))
        assert words in caught.value.remedy
    with pytest.raises(PaiBenchError) as caught:
        read_table(lab(tmp_path, f"{HEAD.upper()}snip,mnist,conv8,0.9,0,0.5,ok\n"))
    assert "lower case" in caught.value.remedy
    for column, formula in (("density", "1 - density"), ("compression", "1 - 1 / compression")):
        with pytest.raises(PaiBenchError) as caught:
            read_table(lab(tmp_path, f"{HEAD.replace('sparsity', column)}snip,mnist,conv8,0.1,0,0.5,ok\n"))
        assert f"sparsity = {formula}" in caught.value.remedy


@pytest.mark.slow
def test_latex_rows_that_begin_with_a_bracket_or_star_are_protected(tmp_path: Path) -> None:
    names = ("[12] SNIP", "*ours", "plain")
    table = lab(tmp_path, HEAD + "".join(f"{name},mnist,conv8,0.9,0,0.5,ok\n" for name in names))
    lines = tables.latex(summarise(collect(tmp_path, [table]))).splitlines()
    assert not [line for line in lines if line.startswith(("[", "*"))]
    after_rule = lines[lines.index(r"\midrule") + 1]
    assert after_rule.startswith(("{}[12] SNIP &", "{}*ours &")) and any(line.startswith("plain &") for line in lines)


@pytest.mark.parametrize(
    ("text", "escaped", "transliterated"),
    [
        ("ours (α=0.5)", r"ours ($\alpha$=0.5)", False),
        ("Σ-Ω Αθήνα", r"$\Sigma$-$\Omega$ A$\theta$$\eta$$\nu$$\alpha$", False),
        ("Müller & Łoś", r"M\"{u}ller \& \L{}o\'{s}", False),
        ("x² → ∞ – “a”", r"x2 $\rightarrow$ $\infty$ -- ``a''", False),
        ("Щука", "Shchuka", True),
        ("スニップ", "sunitupu", True),
        ("剪枝", "U+526AU+679D", True),
        ("ệ\tx\u200b", r"\^{\d{e}} x", False),
    ],
)
def test_letters_without_a_font_become_commands_or_latin_letters(text: str, escaped: str, transliterated: bool) -> None:
    assert latex_text.escape(text) == escaped and escaped.isascii()
    assert latex_text.is_transliterated(text) is transliterated


@pytest.mark.slow
def test_every_character_becomes_ascii_latex() -> None:
    for code in (*range(0x20, 0x3000), *range(0x1F000, 0x1FA00)):
        assert latex_text.escape(chr(code)).isascii(), hex(code)


@pytest.mark.slow
def test_a_latex_table_states_once_that_letters_are_transliterated(tmp_path: Path) -> None:
    table = lab(tmp_path, HEAD + "".join(f"{name},mnist,conv8,0.9,0,0.5,ok\n" for name in ("Щука", "ёж", "β")))
    text = tables.latex(summarise(collect(tmp_path, [table])))
    assert text.count("transliterated") == 1 and r"$\beta$ &" in text and "Shchuka &" in text


@pytest.mark.slow
def test_wide_tables_are_split_into_blocks(tmp_path: Path) -> None:
    lines = [f"snip,mnist,conv8,{s / 100},0,0.5,ok\n" for s in range(10, 95, 10)]
    text = tables.latex(summarise(collect(tmp_path, [lab(tmp_path, HEAD + "".join(lines))])))
    assert text.count(r"\begin{tabular}") == 1
    narrow = tables.accuracy(summarise(collect(tmp_path, [tmp_path / "lab.csv"])), page=tables.Page(200))[1]
    # Nine columns in two blocks of about equal size.
    assert narrow.count(r"\begin{tabular}{@{}lccccc@{}}") == 1 and narrow.count(r"\begin{tabular}{@{}lcccc@{}}") == 1
    assert text.count(r"\begin{table}") == 1


@pytest.mark.slow
def test_control_files_of_an_earlier_report_are_removed(root: Path) -> None:
    (root / "report").mkdir()
    (root / "report" / "controls.md").write_text("somebody's own")
    run(root, None, [], False, QUIET)
    assert (root / "report" / "controls.md").exists(), "there was no report of ours"
    run(root, None, [], False, QUIET)
    assert not (root / "report" / "controls.md").exists()


@pytest.mark.slow
def test_a_report_without_controls_does_not_mention_them(root: Path) -> None:
    assert compare_controls(collect(root)).empty
    run(root, None, [], False, QUIET)
    assert not list((root / "report").glob("controls*"))
    assert "control" not in (root / "report" / "report.md").read_text().lower()


@pytest.mark.slow
def test_methods_precede_their_controls_and_each_figure_shows_its_own_series(root: Path) -> None:
    with_controls(root)
    put(root, "snip:bn=eval")
    summary = summarise(collect(root))
    order = list(dict.fromkeys(summary["method"]))
    assert order == ["dense", "random", "snip", "snip:control=shuffle", "snip:control=invert", "snip:bn=eval"]
    run(root, None, [], False, QUIET)
    points = pd.read_csv(root / "report" / "controls-points.csv")
    labels = [CONTROL_LABELS[control] for control in (None, "shuffle", "invert")]
    assert list(dict.fromkeys(points["method"])) == ["dense", *labels]
    expected = summary[summary["method"] == "snip:control=shuffle"]
    assert np.allclose(points.loc[points["method"] == labels[1], "mean"], 100 * expected["mean"])
    report = (root / "report" / "report.md").read_text()
    assert "## Controls" in report and "controls.png" in report
    assert "-50.00 [" in report and "≈" in report
    text = (root / "report" / "controls.tex").read_text()
    assert r"$\approx$" in text and r"p \textless{} 0.05" in text
    assert r"SNIP (invert) & $-$50.00\paibenchsd{[$-$59.61, $-$40.39]} (4) \\" in text


@pytest.mark.slow
def test_controls_alone_can_be_reported(tmp_path: Path) -> None:
    put(tmp_path, "snip:control=shuffle")
    run(tmp_path, None, [], False, QUIET)
    assert (tmp_path / "report" / "accuracy.png").exists()
    assert not (tmp_path / "report" / "controls.png").exists()
