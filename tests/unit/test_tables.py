"""Tests of the tables of a report: entries, emphasis, comparison with a baseline, numbers.tex, references, methods."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pai_bench import recipes
from pai_bench.analysis import bibliography, published, tables
from pai_bench.analysis.collect import Collection, collect
from pai_bench.analysis.comparison import compare, pairs, pool
from pai_bench.analysis.difference_tables import limits
from pai_bench.analysis.emphasis import emphasise
from pai_bench.analysis.inference import holm, sign_flip
from pai_bench.analysis.labels import Names, decimals
from pai_bench.analysis.numbers import key_part
from pai_bench.analysis.report_tables import Choices, ReportTables, report_tables
from pai_bench.analysis.series import by_series, sources_with_epoch
from pai_bench.analysis.statistics import summarise
from pai_bench.core import method_index
from pai_bench.datasets import files
from pai_bench.models import names as model_names

HEAD = "method,dataset,model,sparsity,seed,accuracy,status,recipe"
WORKED = [0.0030, 0.0050, -0.0010, 0.0040, 0.0040]
"""Differences with mean 0.0030 and 95 % interval [0.000088, 0.005912]; 4 of 32 sign flips are as extreme."""


def lines(method: str, accuracies: list[float], sparsity: float = 0.9, model: str = "conv8", **more: str) -> list[str]:
    """Return a line per seed."""
    status, recipe, dataset = more.get("status", "ok"), more.get("recipe", "quick"), more.get("dataset", "mnist")
    return [
        f"{method},{dataset},{model},{sparsity},{seed},{accuracy:.6f},{status},{recipe}"
        for seed, accuracy in enumerate(accuracies)
    ]


def gathered(folder: Path, rows: list[str], name: str = "lab.csv", head: str = HEAD) -> Collection:
    (folder / name).write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return collect(folder / "none", [folder / name])


def written(collection: Collection, baseline: str = "erk") -> ReportTables:
    return report_tables(collection, summarise(collection), Choices(baseline))


def compared(collection: Collection, baseline: str = "erk") -> pd.DataFrame:
    return compare(pairs(by_series(collection.rows), sources_with_epoch(collection.rows), baseline))


BASE = [0.925, 0.921, 0.928, 0.93, 0.924]
ABOVE = [value + difference for value, difference in zip(BASE, WORKED, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, -1])
def test_the_comparison_has_the_worked_numbers(tmp_path: Path, order: int) -> None:
    rows = [*lines("erk", BASE), *lines("snip", ABOVE), "snip,mnist,conv8,0.9,7,0.5,ok,quick"]
    (line,) = compared(gathered(tmp_path, rows[::order])).to_dict("records")
    assert [line["difference"], line["low"], line["high"]] == pytest.approx([0.003, 0.000088, 0.005912], abs=1e-6)
    assert (line["n"], line["p"], line["p_smallest"], line["p_holm"]) == (5, 0.125, 0.0625, 0.125)
    assert (line["comparisons"], line["seeds_needed"], line["dropped"]) == (1, 6, "7")


@pytest.mark.slow
def test_p_values_are_printed_only_where_they_can_be_small(tmp_path: Path) -> None:
    files_ = written(gathered(tmp_path, [*lines("erk", BASE), *lines("snip", ABOVE)])).files
    assert "1 comparison cannot be tested with 5 seeds; 6 would" in files_["comparison.md"]
    row = next(line for line in files_["comparison.md"].splitlines() if line.startswith("| SNIP"))
    assert [cell.strip() for cell in row.split("|")[1:-1]] == ["SNIP", "+0.30", "[0.01, 0.59]", "5", "–", "0.0625", "–"]
    assert "cannot be tested with 5 seeds; 6 would" in files_["methods.md"].replace("1 comparison ", "")
    more = written(gathered(tmp_path, [*lines("erk", BASE * 2), *lines("snip", [b + 0.01 for b in BASE * 2])]))
    row = next(line for line in more.files["comparison.md"].splitlines() if line.startswith("| SNIP"))
    assert row.split("|")[5:8] == [" 0.00195 ", " 0.00195    ", " 0.00195 "]
    assert "cannot" not in more.files["comparison.md"]


@pytest.mark.slow
def test_exact_ties_and_different_numbers_of_seeds_are_stated_once(tmp_path: Path) -> None:
    rows = [*lines("erk", BASE * 2), *lines("snip", [*(BASE * 2)[:8], 0.95, 0.96])]
    text = written(gathered(tmp_path, rows)).files["comparison.md"]
    assert "–: 1 of 1 comparison cannot be tested, because too many differences are exactly 0." in text
    rows = [*lines("erk", BASE), *lines("snip", ABOVE), *lines("grasp", ABOVE[:3]), *lines("synflow", ABOVE[:1])]
    assert limits(compared(gathered(tmp_path, rows))) == [
        "a family of 3 comparisons cannot be tested with 1, 3 or 5 seeds; 7 would"
    ]


@pytest.mark.slow
def test_p_values_of_a_panel_are_adjusted_together(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    base = generator.normal(0.9, 0.005, 9)
    methods = {f"m{i}": base + generator.normal(0.004, 0.005, 9) for i in range(3)}
    rows = lines("erk", list(base)) + [line for name, values in methods.items() for line in lines(name, list(values))]
    table = compared(gathered(tmp_path, rows))
    p = [sign_flip(np.round(methods[name], 6) - np.round(base, 6)).p for name in table["method"]]
    assert table["p"].tolist() == p
    assert table["p_holm"].tolist() == pytest.approx(list(holm(p)))


@pytest.mark.slow
def test_a_seed_counts_once_by_its_mean_over_the_common_sparsities(tmp_path: Path) -> None:
    rows = [*lines("erk", [0.9, 0.9]), *lines("erk", [0.8, 0.8], 0.98), *lines("snip", [0.91, 0.92])]
    rows += [*lines("snip", [0.83, 0.84], 0.98), *lines("snip", [0.1, 0.1], 0.99)]
    (line,) = compared(gathered(tmp_path, rows)).to_dict("records")
    assert (line["n"], line["sparsities"]) == (2, 2) and line["difference"] == pytest.approx((0.02 + 0.03) / 2)


@pytest.mark.slow
def test_failed_runs_leave_a_difference_without_interval(tmp_path: Path) -> None:
    rows = [*lines("erk", BASE), *lines("snip", ABOVE)]
    rows[-1] = "snip,mnist,conv8,0.9,4,,diverged,quick"
    collection = gathered(tmp_path, rows)
    (line,) = compared(collection).to_dict("records")
    assert line["failed"] == 1 and np.isnan([line["low"], line["std"]]).all()
    assert line["difference"] == pytest.approx((sum(WORKED[:4]) + 0.1 - BASE[4]) / 5)
    assert "| 5 (1f of 10) |" in written(collection).files["comparison.md"]


@pytest.mark.slow
def test_runs_at_chance_leave_no_interval_in_the_comparison_the_figure_and_the_numbers(tmp_path: Path) -> None:
    rows = [*lines("erk", BASE), *lines("snip", ABOVE), *lines("grasp", ABOVE)]
    rows[5] = "snip,mnist,conv8,0.9,0,0.12,ok,quick"  # 1.2 times chance
    collection = gathered(tmp_path, rows)
    table = compared(collection).set_index("method")
    assert table["failed"].to_dict() == {"snip": 1, "grasp": 0} and set(table["runs"]) == {10}
    assert np.isnan(table.loc["snip", ["low", "high", "std"]].astype(float)).all() and table.loc["grasp", "low"] > 0
    assert table.loc["snip", "difference"] == pytest.approx((sum(WORKED[1:]) + 0.12 - BASE[0]) / 5)
    files_ = written(collection).files
    assert re.search(r"\| SNIP +\| -15\.\d+ +\| – +\| 5 \(1f of 10\) \|", files_["comparison.md"])
    assert "(collapsed, diverged, or at chance: an accuracy of at most 1.5 / classes)" in files_["comparison.md"]
    assert "1 of the 2 differences has no interval, because" in files_["methods.md"]
    values = dict(re.findall(r"\\paibench@set\{/(.*?)\}\{(.*)\}\n", files_["numbers.tex"]))
    assert values["snip/mnist/conv8/all/failed"] == "1" and values["snip/mnist/conv8/all/runs"] == "10"
    assert "snip/mnist/conv8/all/low" not in values and "grasp/mnist/conv8/all/low" in values
    # One of five runs is at chance: two populations, without a common deviation.
    assert "snip/mnist/conv8/0.9/std" not in values and values["snip/mnist/conv8/0.9/at-chance"] == "1"
    assert "(1a of 5)" in files_["table.md"] and "then no ± is given" in files_["table.md"]


@pytest.mark.slow
def test_controls_at_chance_have_neither_an_interval_nor_a_test(tmp_path: Path) -> None:
    rows = [*lines("snip", [0.10, 0.11, 0.12]), *lines("snip:control=shuffle", [0.101, 0.11, 0.121])]
    rows += [*lines("grasp", [0.8, 0.81, 0.82]), *lines("grasp:control=invert", [0.10, 0.11, 0.12])]
    text = written(gathered(tmp_path, rows)).files["controls.md"]
    assert re.search(r"\| SNIP \(shuffle\) +\| \+0\.07 \(3a of 3\) ", text), "networks at chance are not equivalent"
    assert re.search(r"\| GraSP \(invert\) +\| -70\.00 \(3a of 3\) ", text)
    assert "there is neither an interval nor a test" in text
    rows = [*lines("snip", [0.10, 0.8, 0.8]), *lines("snip:control=shuffle", [0.8, 0.79, 0.8])]
    text = written(gathered(tmp_path, rows)).files["controls.md"]
    assert re.search(r"\| SNIP \(shuffle\) +\| \+23\.00 \(1m of 3\) ", text)


def test_runs_with_other_initial_weights_are_not_paired() -> None:
    rows = pd.DataFrame(
        {
            **{"source": "", "dataset": "mnist", "model": "conv8", "recipe": "", "sparsity": 0.9, "epoch": "last"},
            **{"method": ["erk", "erk", "snip", "snip"], "seed": [0, 1, 0, 1], "status": "ok"},
            **{"counted": [0.8, 0.8, 0.9, 0.9], "init_hash": ["a", "b", "a", "c"]},
        }
    )
    (pair,) = pairs(by_series(rows), sources_with_epoch(rows))
    assert (pair.seeds, pair.dropped) == ((0,), (1,))


@pytest.mark.slow
def test_a_network_with_two_names_is_one_setting(tmp_path: Path) -> None:
    rows = []
    for model, gain in (("resnet18", 0.01), ("wide_resnet18", 0.05), ("vgg11", 0.03)):
        rows += [*lines("erk", [0.8, 0.81], model=model), *lines("snip", [0.8 + gain, 0.81 + gain], model=model)]
    collection = gathered(tmp_path, rows)
    (line,) = pool(pairs(by_series(collection.rows), sources_with_epoch(collection.rows))).to_dict("records")
    assert (line["settings"], line["units"]) == (2, 4) and line["difference"] == pytest.approx(0.02)
    assert np.isnan(line["low"]), "two settings do not bound the difference in new ones"
    assert "Nothing is said of new settings" in written(collection).files["comparison.md"]


@pytest.mark.slow
def test_pooling_has_a_p_value_over_settings_from_six_on(tmp_path: Path) -> None:
    rows = []
    for place in range(6):
        rows += [*lines("erk", [0.8], model=f"n{place}"), *lines("snip", [0.81 + place / 1000], model=f"n{place}")]
    collection = gathered(tmp_path, rows)
    (line,) = pool(pairs(by_series(collection.rows), sources_with_epoch(collection.rows))).to_dict("records")
    assert (line["p_settings"], line["p_settings_smallest"]) == (2 / 64, 2 / 64)
    assert line["difference"] == pytest.approx(0.0125) and line["low"] < 0.0125 < line["high"]
    text = written(collection).files["methods.md"]
    assert "two-sided sign-flip test over 6 pairs of setting and seed (exact) refers to these settings" in text
    assert "adjusted over the methods of a recipe (1 comparison) by Holm's procedure (Holm 1979)" in text
    twice = [line.replace("0.9,0,", f"0.9,{seed},") for line in rows for seed in range(3)]
    text = written(gathered(tmp_path, twice)).files["methods.md"]
    assert "18 pairs of setting and seed (99,999 random flips)" in text


def emphasised(collection: Collection) -> tuple[set[str], set[str]]:
    summary = summarise(collection)
    chosen = emphasise(summary, by_series(collection.rows))
    return tuple({summary.at[index, "method"] for index in points} for points in (chosen.bold, chosen.second))


@pytest.mark.slow
def test_the_best_and_all_that_are_not_distinguished_from_it_are_bold(tmp_path: Path) -> None:
    rows = [*lines("best", [0.92, 0.93, 0.94, 0.95]), *lines("like", [0.93, 0.92, 0.95, 0.935])]
    rows += [*lines("worse", [0.82, 0.831, 0.839, 0.85]), *lines("dense", [0.99] * 4, 0.0)]
    assert emphasised(gathered(tmp_path, rows)) == ({"best", "like"}, {"like"})
    # A method that lacks a seed does not compete, whatever its mean.
    few = [*rows, *lines("few", [0.99, 0.98, 0.97])]
    assert emphasised(gathered(tmp_path, few)) == ({"best", "like"}, {"like"})
    # A failed run leaves no interval, so only the best mean may be bold.
    rows[5] = rows[5].replace("ok", "collapsed")
    assert emphasised(gathered(tmp_path, rows)) == ({"best"}, {"like"})


@pytest.mark.slow
def test_one_seed_distinguishes_nothing_and_one_method_is_not_best(tmp_path: Path) -> None:
    rows = [*lines("a", [0.9]), *lines("b", [0.5]), *lines("c", [0.4])]
    assert emphasised(gathered(tmp_path, rows)) == ({"a", "b", "c"}, {"b"})
    assert emphasised(gathered(tmp_path, lines("a", [0.9, 0.8]))) == (set(), set())


@pytest.mark.slow
def test_controls_and_other_epochs_do_not_compete(tmp_path: Path) -> None:
    rows = [f"{line},last" for line in [*lines("a", [0.9, 0.9]), *lines("b", [0.5, 0.51])]]
    rows += [f"{line},last" for line in lines("snip:control=shuffle", [0.95, 0.95])]
    rows += [f"{line},best-test" for line in lines("c", [0.99, 0.99])]
    collection = gathered(tmp_path, rows, head=f"{HEAD},epoch")
    assert emphasised(collection) == ({"a"}, set())
    markdown = written(collection).files["table.md"]
    assert "| c [lab, best test epoch]" in markdown and "| a [lab, last epoch]" in markdown
    assert "after the last epoch unless stated in brackets" in markdown


@pytest.mark.parametrize(
    ("std", "digits"), [(0.0004, 2), (0.0099, 2), (0.00999, 1), (0.011, 1), (0.0994, 1), (0.12, 0), (np.nan, 2)]
)
def test_entries_show_the_digits_of_their_deviation(std: float, digits: int) -> None:
    assert decimals(std) == digits


@pytest.mark.slow
def test_an_entry_states_its_failed_and_missing_runs(tmp_path: Path) -> None:
    rows = [*lines("a", [0.90, 0.91, 0.92]), *lines("b", [0.5, 0.6, 0.7]), *lines("dense", [0.95, 0.96, 0.97], 0.0)]
    same = written(gathered(tmp_path, rows)).files["table.md"]
    assert "**91.0** ± 1.0 " in same and "60 ± 10 " in same and "over n = 3 seeds" in same
    assert "Dense network: 96.0 ± 1.0." in same
    rows += [*lines("c", [0.7, 0.8]), *lines("d", [0.1, 0.11, 0.12])]
    rows[1] = rows[1].replace("ok", "collapsed")
    other = written(gathered(tmp_path, rows)).files["table.md"]
    assert "**91.00** (1c of 3)" in other and "75.0 ± 7.1 (2)" in other and "11.00<sup>a</sup> (3)" in other
    assert "number in parentheses" in other and "c collapsed" in other and "Superscript a: all runs at chance" in other


@pytest.mark.slow
def test_unequal_numbers_of_seeds_are_stated_and_printed_at_each_entry(tmp_path: Path) -> None:
    rows = [*lines("a", [0.90, 0.91, 0.93]), *lines("b", [0.8]), *lines("dense", [0.95, 0.96], 0.0)]
    made = written(gathered(tmp_path, rows))
    assert "numbers of seeds differ between points: 1 to 3" in made.remarks
    table = made.files["table.md"]
    assert re.search(r"\| a +\| 91\.3 ± 1\.5 \(3\) ", table) and re.search(r"\| b +\| 80\.00 \(1\) ", table)
    assert "seeds (their number in parentheses)" in table and "Dense network: 95.50 ± 0.71 (2)." in table
    assert "**" not in table, "one method alone has all seeds"
    assert "over 1 to 3 seeds (dense networks: 2 runs)" in made.files["methods.md"]
    equal = written(gathered(tmp_path, rows[:3] + lines("b", [0.8, 0.81, 0.82])))
    assert not any("numbers of seeds" in remark for remark in equal.remarks)


@pytest.mark.slow
def test_notes_are_marked_and_written_below(tmp_path: Path) -> None:
    rows = [f"{line},odd" for line in lines("a", [0.9, 0.8])] + [f"{line}," for line in lines("b", [0.9, 0.8])]
    rows += [f"{line},{note}" for line, note in zip(lines("b", [0.7, 0.6], 0.98), ("rerun", ""), strict=True)]
    files_ = written(gathered(tmp_path, rows, head=f"{HEAD},note")).files
    assert "| a† " in files_["table.md"] and "65.0 ± 7.1 ‡ |" in files_["table.md"]
    assert "\n† odd\n\n‡ rerun" in files_["table.md"]
    assert r"a\dag{} &" in files_["table.tex"] and r"\dag{} odd\\ \ddag{} rerun" in files_["table.tex"]


@pytest.mark.slow
def test_notes_about_either_side_of_a_difference_are_marked_and_written_below(tmp_path: Path) -> None:
    rows = [f"{row},odd" for row in (*lines("grasp", BASE), *lines("snip:control=shuffle", ABOVE))]
    rows += [f"{row}," for row in (*lines("erk", ABOVE), *lines("snip", BASE), *lines("dense", ABOVE, 0.0))]
    found = written(gathered(tmp_path, rows, head=f"{HEAD},note"))
    comparison, controls = found.files["comparison.md"], found.files["controls.md"]
    assert re.search(r"\| GraSP† ", comparison) and re.search(r"\| SNIP +\|", comparison) and "† odd" in comparison
    assert r"GraSP\dag{}" in found.files["comparison.tex"] and r"\dag{} odd" in found.files["comparison.tex"]
    assert "| SNIP (shuffle)† |" in controls and "† odd" in controls
    assert dict(zip(found.compared["method"], found.compared["note"], strict=True)) == {"grasp": "odd", "snip": ""}
    suspect = written(gathered(tmp_path, rows, head=f"{HEAD},note"), "grasp").files["comparison.md"]
    assert "SNIP†" in suspect and "† baseline: odd" in suspect


@pytest.mark.slow
def test_several_panels_have_a_table_of_all(tmp_path: Path) -> None:
    rows = []
    for model in ("resnet20", "vgg16-bn"):
        for method, level in (("dense", 0.95), ("snip", 0.9), ("erk", 0.8)):
            for sparsity in (0.0,) if method == "dense" else (0.9, 0.98):
                rows += lines(method, [level, level + 0.001, level - 0.001], sparsity, model, dataset="cifar10")
    files_ = written(gathered(tmp_path, rows)).files
    across = files_["table_across.md"]
    head = [cell.strip() for cell in across.splitlines()[2].split("|")[1:-1]]
    assert head[1:] == [f"CIFAR-10 {model} {s}" for model in ("ResNet-20", "VGG-16-BN") for s in (90, 98)]
    assert re.search(r"\| Dense +\| 95\.00 +\| 95\.00", across) and re.search(r"\| SNIP +\| \*\*90\.00\*\*", across)
    assert r"\multicolumn{2}{c}{VGG-16-BN}" in files_["table_across.tex"]
    one = written(gathered(tmp_path, [line for line in rows if "resnet20" in line]))
    assert "table_across.md" not in one.files


@pytest.mark.slow
@pytest.mark.parametrize("width", [235, 397])
def test_the_columns_of_a_panel_stay_together(tmp_path: Path, width: int) -> None:
    rows = [
        line
        for model in ("resnet20", "vgg16-bn", "resnet32", "resnet18")
        for method, level in (("snip", 0.9), ("erk", 0.8))
        for sparsity in (0.9, 0.95, 0.98, 0.99)
        for line in lines(method, [level, level + 0.001], sparsity, model, dataset="cifar10")
    ]
    collection = gathered(tmp_path, rows)
    text = tables.across(summarise(collection), page=tables.Page(width))[1]
    assert text.count(r"\begin{tabular}") > 1
    assert all(text.count(rf"\multicolumn{{4}}{{c}}{{{name}}}") == 1 for name in ("ResNet-20", "VGG-16-BN"))


@pytest.mark.slow
def test_no_deviation_and_no_interval_stand_where_runs_are_at_chance(tmp_path: Path) -> None:
    rows = [*lines("erk", [0.8, 0.81, 0.82]), *lines("snip", [0.1, 0.7, 0.71]), *lines("grasp", [0.1, 0.11, 0.1])]
    collection, summary = both(tmp_path, rows)
    assert summary.set_index("method")["std"].notna().to_dict() == {"erk": True, "snip": False, "grasp": False}
    made = compared(collection).set_index("method")
    assert made["failed"].to_dict() == {"grasp": 3, "snip": 1} and made["low"].isna().all()
    table = written(collection).files
    assert "<u>50.33</u> (1a of 3)" in table["table.md"] and "then no ± is given" in table["table.md"]
    assert "(1f of 6)" in table["comparison.md"] and "has no interval" in table["comparison.md"]


@pytest.mark.slow
def test_a_table_without_deviations_does_not_speak_of_them(tmp_path: Path) -> None:
    rows = [row for model in ("conv8", "vgg16-bn") for row in lines("erk", [0.1, 0.3, 0.31], 0.98, model)]
    files_ = written(gathered(tmp_path, rows)).files
    across = files_["table_across.md"]
    assert "count at their accuracy, or at chance without one." in across and "±" not in across


@pytest.mark.slow
def test_a_note_about_some_dense_runs_is_not_a_note_about_the_dense_network(tmp_path: Path) -> None:
    rows = [f"{line},odd" for line in (*lines("grasp", [0.9, 0.8]), *lines("grasp", [0.95, 0.96], 0.0))]
    rows += [f"{line}," for line in (*lines("snip", [0.9, 0.8]), *lines("snip", [0.94, 0.97], 0.0))]
    text = written(gathered(tmp_path, rows, head=f"{HEAD},note")).files["table.md"]
    assert "| GraSP† " in text and re.search(r"Dense network: \S+ ± \S+ \(4\)\.", text)


@pytest.mark.slow
def test_a_note_states_that_two_names_are_one_network(tmp_path: Path) -> None:
    rows = [
        line
        for model in ("resnet18", "wide_resnet18")
        for method, level in (("erk", 0.8), ("snip", 0.9))
        for line in lines(method, [level, level + 0.01], model=model)
    ]
    files_ = written(gathered(tmp_path, rows)).files
    words = "WideResNet-18 is the same network as ResNet-18"
    assert words in files_["table_across.md"] and words in files_["comparison.md"]
    alone = written(gathered(tmp_path, [line for line in rows if "wide" in line])).files
    assert "same network" not in alone["comparison.md"], "nothing counts twice"


@pytest.mark.slow
def test_thirty_methods_fit_into_floats(tmp_path: Path) -> None:
    rows = [line for i in range(30) for s in range(50, 99, 4) for line in lines(f"method-{i}", [0.9, 0.8], s / 100)]
    text = written(gathered(tmp_path, rows)).files["table.tex"]
    floats = text.split(r"\begin{table}")[1:]
    assert len(floats) > 1 and all(part.count(r"\\") <= 48 for part in floats)
    assert sum(part.count("method-29") for part in floats) == text.count(r"\begin{tabular}")


@pytest.mark.slow
def test_numbers_have_a_key_for_every_point_and_comparison(tmp_path: Path) -> None:
    rows = [*lines("erk", BASE), *lines("snip", ABOVE), *lines("snip", BASE, 0.0)]
    text = written(gathered(tmp_path, rows)).files["numbers.tex"]
    values = dict(re.findall(r"\\paibench@set\{(.*?)\}\{(.*)\}\n", text))
    assert values["/snip/mnist/conv8/0.9/mean"] == "92.86" and values["/snip/mnist/conv8/0.9/n"] == "5"
    assert values["/snip/mnist/conv8/0.9/pm"] == r"92.86 \ensuremath{\pm} 0.31"
    assert values["quick/snip/mnist/conv8/all/difference"] == "0.30" and "/dense/mnist/conv8/0/mean" in values
    assert "/snip/mnist/conv8/all/p" not in values, "five seeds cannot be tested"
    assert values["/snip/mnist/conv8/all/p-smallest"] == "0.0625"


@pytest.mark.slow
def test_a_number_in_two_recipes_needs_the_recipe(tmp_path: Path) -> None:
    text = written(gathered(tmp_path, [*lines("snip", BASE), *lines("snip", ABOVE, recipe="frankle")])).files[
        "numbers.tex"
    ]
    assert "{/snip/" not in text and "{quick/snip/mnist/conv8/0.9/mean}{92.56}" in text
    assert key_part(r"a_b%c#d\e{f}☃ é") == "a_b-c-d-e-f-- e"


def test_every_built_in_name_has_its_references() -> None:
    keys, entries = bibliography.keys(), bibliography.entries()
    for kind, names in (
        ("methods", [*method_index.builtin(), "dense"]),
        ("datasets", [name for name in files.names() if files.is_builtin(name)]),
        ("models", model_names()),
        ("recipes", recipes.names()),
    ):
        lacking = [name for name in names if bibliography.keys_of(kind, name) is None]
        assert not lacking, f"add the new {kind} to bibliography/references.toml"
    used = {key for names in keys.values() for found in names.values() for key in found}
    papers = set(published.load(published.LEVELS, suspect=True)["paper"])
    assert used | set(bibliography.STATISTICS) | papers == set(entries)
    assert all(re.match(r"@\w+\{[a-z]+\d{4},\n", entry) and entry.endswith("\n}") for entry in entries.values())
    assert all(entry.count("{") == entry.count("}") for entry in entries.values())
    needed = {
        "inproceedings": "booktitle",
        "article": "journal",
        "techreport": "institution",
        "misc": "(note|howpublished)",
        "phdthesis": "school",
    }
    for key, entry in entries.items():
        kind = re.match(r"@(\w+)", entry)[1]
        fields = ("author", "title", "year", needed[kind])
        assert all(re.search(rf"^  {field} += \{{.+\}},?$", entry, re.MULTILINE) for field in fields), key


@pytest.mark.slow
def test_references_are_those_of_the_names_in_the_report(tmp_path: Path) -> None:
    rows = [*lines("erk", BASE * 2, dataset="cifar10"), *lines("mine", [b + 0.01 for b in BASE * 2], dataset="cifar10")]
    text = written(gathered(tmp_path, rows)).files["references.bib"]
    assert set(re.findall(r"@\w+\{(\w+)", text)) == {"evci2020", "mocanu2018", "krizhevsky2009", "holm1979"}
    assert "% no reference known: method mine" in text


@pytest.mark.slow
def test_models_displayed_alike_share_the_name_unless_they_share_a_data_set(tmp_path: Path) -> None:
    rows = [*lines("snip", BASE, model="lottery_vgg11_bn"), *lines("snip", BASE, model="vgg11_bn", dataset="cifar10")]
    text = written(gathered(tmp_path, rows)).files["table.md"]
    assert "### MNIST · VGG-11-BN" in text and "VGG-11-BN is lottery_vgg11_bn in the data." in text
    across = written(gathered(tmp_path, rows)).files["table_across.md"]
    assert "VGG-11-BN is vgg11_bn and lottery_vgg11_bn in the data." in across
    rows = [*rows, *lines("snip", BASE, model="vgg11_bn")]
    text = written(gathered(tmp_path, rows)).files["table.md"]
    assert "· vgg11_bn" in text and "· lottery_vgg11_bn" in text and "in the data" not in text


def test_papers_of_published_numbers_are_added_once() -> None:
    text = bibliography.with_papers(bibliography.entries()["tanaka2020"] + "\n", ["tanaka2020", "arora2025", "", "x"])
    assert re.findall(r"@\w+\{(\w+)", text) == ["tanaka2020", "arora2025"] and text.endswith("}\n")
    assert published.bibliography().count("@inproceedings{tanaka2020,") == 1


@pytest.mark.slow
def test_the_methods_paragraph_counts_dense_runs_and_runs_at_chance(tmp_path: Path) -> None:
    rows = [*lines("snip", BASE), *lines("dense", [0.97] * 3, sparsity=0.0)]
    rows.append(rows[0].replace("snip", "grasp").replace(f"{BASE[0]:.6f}", "0.1"))
    text = written(gathered(tmp_path, rows)).files["methods.md"]
    assert f"over 1 to {len(BASE)} seeds (dense networks: 3 runs) with" in text
    assert " 1 run is at chance, with" in text and "No deviation is given for means over such runs." in text


@pytest.mark.slow
def test_the_methods_paragraph_states_what_was_done(tmp_path: Path) -> None:
    rows = [*lines("erk", BASE * 2), *lines("snip", [b + 0.01 for b in BASE * 2])]
    rows += lines("snip:control=shuffle", [b + 0.01 + d / 1000 for d, b in enumerate(BASE * 2)])
    rows[3] = rows[3].replace("ok", "collapsed")
    files_ = written(gathered(tmp_path, rows)).files
    text = files_["methods.md"]
    for words in (
        "mean test accuracy (epoch not stated) over 10 seeds",
        "1 of 30 runs collapsed or diverged",
        "compared with ERK by paired differences",
        "an exact two-sided sign-flip test",
        "(1 comparison) by Holm's procedure (Holm 1979)",
        "Controls (shuffle) of 1 method",
        "within ±0.5 points (two one-sided tests (Schuirmann 1987), p < 0.05",
    ):
        assert words in text
    assert "\n\\providecommand{\\citep}{\\cite}\n" in files_["methods.tex"]
    assert r"~\citep{holm1979}" in files_["methods.tex"] and r"$\pm$0.5" in files_["methods.tex"]
    assert limits(compared(gathered(tmp_path, rows))) == []


def test_display_names_that_coincide_stay_as_they_are() -> None:
    table = pd.DataFrame({"method": ["snip", "dense"], "dataset": "cifar10", "model": ["resnet18", "tiny_resnet18"]})
    names = Names.of(table)
    assert names.methods == {"snip": "SNIP", "dense": "Dense"} and names.models["tiny_resnet18"] == "tiny_resnet18"


@pytest.mark.slow
def test_tables_are_no_wider_than_the_page(tmp_path: Path) -> None:
    rows = [line for s in range(10, 99, 8) for line in lines("snip", [0.9, 0.8], s / 100)]
    summary = summarise(gathered(tmp_path, rows))
    counts = [
        tables.accuracy(summary, page=tables.Page(width))[1].count(r"\begin{tabular}") for width in (235, 397, 900)
    ]
    assert counts[0] > counts[1] > counts[2] == 1


@pytest.mark.slow
def test_a_control_that_may_be_equivalent_states_the_seeds_that_would_show_it(tmp_path: Path) -> None:
    rows = lines("snip", [0.80, 0.80, 0.80])
    rows += lines("snip:control=shuffle", [0.804, 0.797, 0.802]) + lines("snip:control=invert", [0.5, 0.51, 0.52])
    text = written(gathered(tmp_path, rows)).files["controls.md"]
    assert re.search(r"\| SNIP \(shuffle\) \| \+0\.10 \[-0\.51, 0\.71\] \(3; 7 needed\) ", text)
    assert re.search(r"\| SNIP \(invert\) +\| -29\.00 \[-30\.69, -27\.31\] \(3\) ", text)
    wide = report_tables(*both(tmp_path, rows), Choices(margin=0.01)).files["controls.md"]
    assert "+0.10 [-0.51, 0.71] (3) ≈" in wide and "needed" not in wide and "±1 " in wide


def both(folder: Path, rows: list[str]) -> tuple[Collection, pd.DataFrame]:
    collection = gathered(folder, rows)
    return collection, summarise(collection)
