"""Published tables as files: content, verdicts, smallest budgets, and the files that are written."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from pai_bench.cells import Cell, parse_sparsities, split_specs
from pai_bench.cli.options import INTERRUPTED
from pai_bench.cli.program import app
from pai_bench.errors import PaiBenchError
from pai_bench.recipes import parse_settings
from pai_bench.reproductions import command, output, page, schema
from pai_bench.reproductions.judge import Judged, beside, budgets, judge, judge_entry
from pai_bench.reproductions.schema import Entry
from pai_bench.sweep.planning import operations, request


def entry(value: str = "1.6", spread: float | None = None, **changes: object) -> Entry:
    place = {"dataset": "mnist", "model": "lenet-300-100", "method": "snip", "sparsity": 0.95, "recipe": "snip"}
    return Entry("95 %", **{**place, "planned": 5, "measure": "error", "source": "Table 1", **changes}, value=value,
                 spread=spread)  # type: ignore[arg-type]  # fmt: skip


@pytest.mark.parametrize(("text", "half"), [("1.6", 0.05), ("93.25", 0.005), ("2", 0.5), ("0.80", 0.005)])
def test_the_rounding_of_a_printed_number_is_half_a_unit_of_its_last_digit(text: str, half: float) -> None:
    assert schema.half_unit(text) == pytest.approx(half)


def test_a_value_is_reproduced_if_it_is_inside_the_widened_interval() -> None:
    """Three runs with mean 2 and deviation 0.1: the interval is 2 ± 4.3027 x 0.1 / √3 = 2 ± 0.24841."""
    runs = [1.9, 2.0, 2.1]
    judged = judge_entry(entry("2.0", planned=3), runs)
    assert (judged.n, judged.mean) == (3, pytest.approx(2.0))
    assert (judged.low, judged.high) == (pytest.approx(2 - 0.24841, abs=1e-5), pytest.approx(2 + 0.24841, abs=1e-5))
    for value, spread, verdict in (
        ("2.25", None, "reproduced"),  # up to 2 + 0.24841 + 0.005
        ("2.26", None, "not reproduced"),
        ("2.2", None, "reproduced"),
        ("2.3", None, "not reproduced"),  # beyond 2 + 0.24841 + 0.05
        ("2.3", 0.06, "reproduced"),  # up to 2 + 0.24841 + 0.06
        ("1.69", 0.06, "not reproduced"),
    ):
        assert judge_entry(entry(value, spread, planned=3), runs).verdict == verdict


@pytest.mark.parametrize("runs", [[], [1.6]])
def test_fewer_than_two_runs_give_no_interval(runs: list[float]) -> None:
    judged = judge_entry(entry("1.6"), runs)
    assert (
        judged.verdict == ("not finished" if runs else "not run")
        and math.isnan(judged.low)
        and math.isnan(judged.mean) == (not runs)
    )


def test_no_verdict_is_given_before_the_last_planned_run() -> None:
    runs = [1.6, 1.7, 1.6, 1.7]
    judged = judge_entry(entry("1.6", planned=5), runs)
    assert judged.verdict == "not finished" and judged.low < 1.65 < judged.high
    assert judge_entry(entry("1.6", planned=5), [*runs, 1.6]).verdict == "reproduced"


def test_only_the_runs_of_an_entrys_point_count() -> None:
    point = {"method": "snip", "dataset": "mnist", "model": "lenet-300-100", "recipe": "snip", "sparsity": 0.95}
    others = [{**point, key: value} for key, value in (("recipe", "quick"), ("sparsity", 0.9), ("model", "conv28"))]
    rows = pd.DataFrame([{**point, "accuracy": a} for a in (0.98, 0.985)] + [{**o, "accuracy": 0.1} for o in others])
    table = schema.Reproduction("x", "", "", (), (), {}, (entry(),))
    (judged,) = judge(table, rows)
    assert (judged.n, judged.mean) == (2, pytest.approx(1.75))
    (judged,) = judge(schema.Reproduction("x", "", "", (), (), {}, (entry(measure="accuracy"),)), rows)
    assert judged.mean == pytest.approx(98.25)


def test_other_methods_at_the_points_of_an_entry_are_shown_beside_it() -> None:
    point = {"dataset": "mnist", "model": "lenet-300-100", "recipe": "snip", "sparsity": 0.95}
    wide = {**point, "sparsity": 0.98, "method": "random", "accuracy": 0.5}
    rows = pd.DataFrame(
        [{**point, "method": m, "accuracy": a} for m, a in (("snip", 0.98), ("random", 0.97), ("random", 0.96))]
        + [wide]
    )
    (found,) = beside(schema.Reproduction("x", "", "", (), (), {}, (entry(),)), rows)
    assert (found.method, found.n) == ("random", 2)
    assert (found.mean, found.std) == (pytest.approx(3.5), pytest.approx(0.5**0.5))


def test_results_of_the_other_recipes_of_the_sweeps_are_shown_with_their_recipe() -> None:
    recipes = {("mnist", "lenet-300-100"): ("snip", "snip+scoring.data=noise")}
    entries = (entry(), entry(recipe="snip+init.scheme=normal"), entry(method="dense", sparsity=0.0))
    table = schema.Reproduction("x", "", "", (), (), {}, entries, (), recipes)
    point = {"dataset": "mnist", "model": "lenet-300-100", "sparsity": 0.95, "method": "snip", "accuracy": 0.97}
    names = ["snip", "snip+scoring.data=noise", "snip+train.epochs=2"]
    dense = {**point, "method": "dense", "sparsity": 0.0, "recipe": names[1]}  # the same in every kind of scoring data
    text = output.markdown(table, pd.DataFrame([*({**point, "recipe": name} for name in names), dense]))
    lines = [line for line in text.splitlines() if line.startswith("| lenet-300-100")]
    assert [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines] == [
        ["lenet-300-100", "95", "data=noise", "snip", "3.00", "1"]
    ]


@pytest.mark.parametrize("quick", [False, True], ids=["full", "quick"])
@pytest.mark.parametrize("name", schema.names())
def test_every_entry_is_a_cell_of_its_sweep(name: str, quick: bool) -> None:
    """In the smoke test the recipes have other names, and fewer cells run."""
    reproduction = schema.load(name, quick)
    assert reproduction.summary.endswith(".") and reproduction.paper
    assert reproduction.quick["seeds"] == "0"  # one run gives no verdict
    planned = set()
    for sweep, arguments in zip(reproduction.sweeps, schema.sweep_arguments(reproduction), strict=True):
        settings = tuple(arguments[i + 1] for i, part in enumerate(arguments) if part == "--set")
        asked = request.Request(
            tuple(split_specs(str(sweep["methods"]))),
            datasets=(str(sweep["datasets"]),),
            models=tuple(str(sweep["models"]).split(",")),
            recipes=(str(sweep["recipes"]),),
            settings=parse_settings(settings),
            sparsities=parse_sparsities(str(sweep["sparsities"])) if "sparsities" in sweep else (),
            budgets=tuple(map(int, str(sweep["budgets"]).split(","))) if "budgets" in sweep else (),
            seeds=(0,),
        )
        planned |= {(run.cell, run.recipe.name) for run in request.expand(asked)}
    for item in reproduction.entries:
        cell = Cell(item.method, item.dataset, item.model, item.sparsity, 0)
        assert quick or (cell, item.recipe) in planned, item.label
        assert item.published > 0 and item.tolerance >= 0 and item.source


BUDGETS = """
summary = "x."
paper = "y"
[[sweep]]
datasets = "cubist-spiral"
models = "mlp-8x3"
methods = "snip"
budgets = "15,30"
seeds = "0-1"
recipes = "spiral"
[[budgets.target]]
accuracy = 0.95
weights = 27
source = "z"
"""


def test_the_smallest_budgets_are_by_the_mean_and_by_the_best_run() -> None:
    point = {"dataset": "cubist-spiral", "model": "mlp-8x3", "recipe": "spiral", "source": ""}
    accuracies = {("snip", 15): (0.9, 0.97), ("snip", 30): (0.95, 0.96), ("dense", 152): (0.94, 0.93)}
    rows = pd.DataFrame(
        [
            {**point, "method": method, "n_kept": kept, "seed": seed, "accuracy": accuracy}
            for (method, kept), values in accuracies.items()
            for seed, accuracy in enumerate(values)
        ]
        + [{**point, "recipe": "other", "method": "snip", "n_kept": 5, "seed": 0, "accuracy": 1.0}]
    )
    reproduction = schema.parse("spiral", BUDGETS)
    snip, dense = budgets(reproduction, rows)
    assert (snip.method, snip.n, snip.tried, snip.by_mean, snip.by_best) == ("snip", 2, (15, 30), 30, 15)
    assert (dense.by_mean, dense.by_best) == (None, None)
    assert "| mlp-8x3          | snip   | 2 | 15 to 30    | 30         | 15   |" in output.markdown(reproduction, rows)
    assert "| snip   | 1 of 2 |" in output.markdown(reproduction, rows[rows["seed"] == 0])


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("summary", "sumary", "did you mean summary"),
        ('paper = "y"', "", "add paper"),
        ("[[budgets.target]]\naccuracy = 0.95\nweights = 27\nsource = \"z\"\n", "", "add \\[\\[entry"),
        ("[[budgets", '[[entry]]\nlabel = "a"\ndataset = "mnist"\nmodel = "m"\nmethod = "snip"\nsparsity = 0.5\n'
         'measure = "error"\nvalue = "1"\nsource = "s"\n[[budgets', "correct the entry or the sweep"),
    ],
)  # fmt: skip
def test_mistakes_in_a_file_are_named(old: str, new: str, words: str) -> None:
    with pytest.raises(PaiBenchError) as error:
        schema.parse("spiral", BUDGETS.replace(old, new, 1))
    assert pd.Series([error.value.remedy]).str.contains(words).all() and "spiral.toml" in error.value.cause


def test_entries_of_published_rows_are_told_apart_by_sparsity() -> None:
    labels = [entry.label for entry in schema.load("resnet20-cifar10").entries]
    assert "SNIP, 60 % pruned" in labels and "SNIP, 98 % pruned" in labels and len(set(labels)) == len(labels) == 30


def test_two_entries_with_one_label_are_refused() -> None:
    entry = """[[entry]]
label = "95 %"
dataset = "cubist-spiral"
model = "mlp-8x3"
method = "snip"
sparsity = 0.95
measure = "error"
value = "1"
source = "s"
"""
    with pytest.raises(PaiBenchError, match="entries share a label: 95 %"):
        schema.parse("spiral", BUDGETS + 2 * entry)


def some_results() -> pd.DataFrame:
    """One of the tables with results for its first entry."""
    first = schema.load("snip-lenet-300-100-short").entries[0]
    point = {key: getattr(first, key) for key in ("dataset", "model", "method", "sparsity", "recipe")}
    return pd.DataFrame([{**point, "seed": s, "accuracy": 0.983 + s / 1000, "n_kept": 266200.0} for s in range(3)])


@pytest.mark.slow
def test_a_reproduction_is_written_in_all_formats(tmp_path: Path) -> None:
    reproduction = schema.load("snip-lenet-300-100-short")
    paths = output.write(reproduction, some_results(), tmp_path)
    assert [path.name for path in paths] == ["table.md", "table.csv", "table.tex", "figure.pdf", "figure.png"]
    text = paths[0].read_text(encoding="utf-8")
    assert "| error       | 1.60 [1.35, 1.85] | 3 of 5 | 1.7" in text and "Reproduced: the published value" in text
    table = pd.read_csv(paths[1])
    assert list(table["verdict"]) == ["not finished", "not run", "not run"]
    assert table["ours"][0] == pytest.approx(1.6) and table["published"].tolist() == [1.7, 1.6, 2.4]
    latex = paths[2].read_text(encoding="utf-8")
    assert r"95 \% pruned" in latex and latex.count(r"\\") == 4
    first = paths[3].read_bytes()
    assert output.write(reproduction, some_results(), tmp_path)[3].read_bytes() == first


@pytest.mark.slow
def test_the_page_lists_all_verdicts_first(tmp_path: Path) -> None:
    text = page.write(tmp_path, some_results()).read_text(encoding="utf-8")
    sections = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert sections == ["Run one yourself", *schema.names()]
    row = next(line for line in text.splitlines() if line.startswith("| [snip-lenet-300-100-short]"))
    assert [cell.strip() for cell in row.split("|")[3:7]] == ["", "", "1", "2"]
    assert (tmp_path / "figures" / "reproduction-snip-lenet-300-100-short.png").exists()


@pytest.mark.slow
def test_reproduce_lists_judges_and_refuses_bad_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app(["reproduce", "list"], standalone_mode=False)
    listed = capsys.readouterr().out
    assert all(name in listed for name in schema.names())
    table = tmp_path / "mine.csv"
    some_results().to_csv(table, index=False)
    given = ["--results", str(tmp_path / "none"), "--from", str(table), "--out", str(tmp_path / "out")]
    app(["reproduce", "snip-lenet-300-100-short", "--judge", *given], standalone_mode=False)
    printed = capsys.readouterr().out
    assert "1.60 [1.35, 1.85]" in printed and str(tmp_path / "out" / "table.md") in printed
    with pytest.raises(PaiBenchError, match="unknown reproduction"):
        app(["reproduce", "snip-lenet", "--judge"], standalone_mode=False)
    with pytest.raises(PaiBenchError, match="--workers 1 has no effect"):
        app(["reproduce", "snip-lenet-300-100-short", "--judge", "--workers", "1"], standalone_mode=False)


@pytest.mark.slow
def test_a_quick_reproduction_runs_its_sweeps_and_gives_no_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep runs in this process, with a table of one cell on digits."""
    text = BUDGETS.replace("cubist-spiral", "digits").replace("mlp-8x3", "conv8").replace('"spiral"', '"quick"')
    text = text.replace("15,30", "300") + '[quick]\nseeds = "0"\n[quick.set]\n"train.epochs" = 1\n'
    text += '"train.warmup_epochs" = 0\n"data.train_fraction" = 0.1\n'
    monkeypatch.setattr(operations, "calibrate", lambda run: 1e10)  # a measurement would take half a second
    monkeypatch.setattr(command, "load", lambda name, quick: schema.parse(name, text, quick))
    app(["reproduce", "tiny", "--quick", "--where", "debug", "--results", str(tmp_path)], standalone_mode=False)
    said = capsys.readouterr()
    assert "| conv8            | snip   | 1 | 300" in said.out
    assert "--set 'train.epochs=1'" in said.err and "a smoke test" in said.err
    app(["reproduce", "tiny", "--quick", "--dry-run", "--results", str(tmp_path)], standalone_mode=False)
    assert "2 cells = 2 done" in capsys.readouterr().err


@pytest.mark.slow
def test_an_interrupt_ends_a_reproduction_of_several_sweeps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = BUDGETS.replace("cubist-spiral", "digits").replace("mlp-8x3", "conv8").replace('"spiral"', '"quick"')
    sweep = text[text.index("[[sweep]]") : text.index("[[budgets.target]]")]
    twice = schema.parse("tiny", text.replace(sweep, 2 * sweep))
    assert len(command.sweep_arguments(twice)) == 2
    begun = []

    def interrupted(run: object) -> float:
        begun.append(run)
        raise KeyboardInterrupt

    monkeypatch.setattr(operations, "calibrate", interrupted)
    monkeypatch.setattr(command, "load", lambda name, quick: twice)
    arguments = ["reproduce", "tiny", "--where", "local", "--results", str(tmp_path)]
    assert app(arguments, standalone_mode=False) == INTERRUPTED
    assert len(begun) == 1 and not capsys.readouterr().out


def test_an_interval_is_printed_only_with_two_runs() -> None:
    assert output.ours(Judged(entry(), 1, 1.6, math.nan, math.nan, "not run")) == "1.60"
    assert output.ours(Judged(entry(), 0, math.nan, math.nan, math.nan, "not run")) == output.DASH
