"""Tests of the figures beside accuracy: layers, failures, cost, baseline, summary, masks, training, published."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from rich.console import Console

from pai_bench import results
from pai_bench.analysis import figures, inference, published, published_table
from pai_bench.analysis.collect import collect
from pai_bench.analysis.command import run
from pai_bench.analysis.figures import Drawing, Material, Options, curves, masks, overlay, pooling
from pai_bench.analysis.figures.cost import Spot, _number, cost_ticks, front, spots
from pai_bench.analysis.figures.failures import critical_compression, failed_runs
from pai_bench.analysis.figures.layout import style as style_of_figures
from pai_bench.analysis.figures.material import MUTED
from pai_bench.analysis.masks.overlap import Overlap
from pai_bench.analysis.published import tables as published_tables
from pai_bench.analysis.selection import Selection
from pai_bench.analysis.statistics import summarise
from pai_bench.errors import PaiBenchError
from pai_bench.results import Epoch, Layer
from tests.unit.test_figures import dense, drawn, labels, legible, material, page, runs_of, series
from tests.unit.test_results import result

DOCS = Path(__file__).parents[2] / "docs"
QUIET = Console(file=io.StringIO())


@pytest.fixture(autouse=True)
def _final_style() -> Iterator[None]:
    with style_of_figures():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of three methods with layers, masks, costs and curves."""
    root = tmp_path_factory.mktemp("results")
    generator = np.random.default_rng(0)
    for place, method in enumerate(("dense", "erk", "snip", "random")):
        for sparsity in (0.0,) if method == "dense" else (0.5, 0.95):
            for seed in range(2):
                bits = {
                    name: generator.random(size) >= sparsity for name, size in (("a.weight", 40), ("b.weight", 400))
                }
                sizes = {name: int(mask.sum()) for name, mask in bits.items()}
                costs = {**result().costs, "score_seconds": 0.1 * 4**place, "score_peak_bytes": 2.0**20 * (4 - place)}
                costs["flops_sparse"] = 1000.0 * (place + 1)
                accuracy = 0.9 - sparsity / 10 + 0.01 * place
                one = result(
                    method=method, sparsity=sparsity, seed=seed, accuracy=accuracy, costs=costs,
                    layers=tuple(Layer(name, bits[name].size, kept) for name, kept in sizes.items()),
                    curve=tuple(Epoch(e, 1.0, 0.2 * e) for e in (1, 2, 3)), effective_sparsity=sparsity + 0.01,
                )  # fmt: skip
                results.write(root, one, bits, redo=True)
    return root


def from_folder(folder: Path, name: str, **options: Any) -> Drawing:
    collection = collect(folder)
    made = figures.chosen([name])[name](Material(collection.rows, summarise(collection), Options(**options)))
    assert isinstance(made, Drawing), made
    made.pages[0].draw_without_rendering()
    return made


@pytest.mark.slow
def test_layers_show_the_kept_fraction_of_each_layer(folder: Path) -> None:
    made = from_folder(folder, "layers")
    legible(made.pages[0])
    table = made.table
    assert set(table["layer"]) == {"a.weight", "b.weight"} and set(table["n"]) == {2}
    own = table[(table["method"] == "snip") & (table["layer"] == "b.weight")].iloc[0]
    paths = collect(folder).rows.query("method == 'snip' and sparsity == 0.95")["path"]
    kept = [results.read_plain(Path(path))["layers"][1]["kept"] / 400 for path in paths]
    assert own["kept"] == pytest.approx(np.mean(kept)) and own["size"] == 400
    assert "95 % sparsity" in made.caption
    assert "Second line of the labels" in made.caption and "Grey bars" not in made.caption
    assert {"a\n40", "b\n400"} <= {text.get_text() for text in made.pages[0].findobj(Text)}
    assert "no numbers by layer" in str(figures.chosen(["layers"])["layers"](material(series("snip", source="lab"))))


@pytest.mark.slow
def test_cost_shows_time_and_memory_with_the_front(folder: Path) -> None:
    made = from_folder(folder, "cost")
    legible(made.pages[0])
    seconds, memory = made.pages[0].axes
    assert (seconds.get_xlabel(), memory.get_xlabel()) == ("Scoring time (s)", "Peak memory of scoring (MiB)")
    assert made.table["score_peak_bytes"].dropna().tolist() == [3.0, 1.0, 2.0]
    assert labels(made.pages[0]) == ["ERK", "Random", "SNIP"]
    assert "FLOPs of a forward pass" in from_folder(folder, "flops").pages[0].axes[0].get_xlabel()
    assert "no two methods" in str(figures.chosen(["cost"])["cost"](material(series("snip"))))
    assert "with FLOPs of a" in str(figures.chosen(["flops"])["flops"](material(series("snip"))))


@pytest.mark.parametrize(("left", "right", "inches", "ticks"), [
    (0.025, 3.5, 2.2, ["0.03", "0.1", "0.3", "1", "3"]),
    (0.025, 3.5, 1.6, ["0.1", "1"]),
    (1.1, 4.8, 2.2, ["2", "3", "4"]),
    (4e-6, 6e1, 2.0, ["0.00001", "0.001", "0.1", "10"]),  # one label at each decade would touch the next one
])  # fmt: skip
def test_ticks_of_costs_cover_their_range(left: float, right: float, inches: float, ticks: list[str]) -> None:
    ax = Figure().subplots()
    ax.set_xscale("log")
    cost_ticks(ax, left, right, inches)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ticks


def test_the_front_has_the_most_accurate_of_all_cheaper_methods() -> None:
    spots = [Spot(*spot, math.nan, 1) for spot in (("a", 1, 50), ("b", 2, 40), ("c", 3, 60), ("d", 3, 55))]
    assert [spot.method for spot in front(spots)] == ["a", "c"]


def test_masks_overlap_by_jaccard_and_beyond_the_quotas_of_layers() -> None:
    one = {"w": np.array([1, 1, 0, 0], bool), "v": np.array([1, 0], bool)}
    other = {"w": np.array([1, 0, 1, 0], bool), "v": np.array([1, 0], bool)}
    # 2 of 4 are common; random masks share 2·2/4 + 1·1/2 = 1.5 on average.
    assert masks.overlap(one, other) == Overlap(0.5, pytest.approx(1.5 / 4.5))
    assert masks.overlap(one, other).excess == pytest.approx(0.5 - 1.5 / 4.5)
    assert masks.overlap(one, one).jaccard == 1
    assert math.isnan(masks.overlap({"w": one["w"] & False}, {"w": one["w"] & False}).jaccard)


@pytest.mark.slow
def test_figures_on_request_are_drawn_from_the_results_folder(folder: Path) -> None:
    made = from_folder(folder, "mask-overlap")
    legible(made.pages[0])
    assert made.table["n"].tolist() == [2, 2, 2]
    made = from_folder(folder, "training")
    legible(made.pages[0])
    own = made.table.query("method == 'snip' and sparsity == 0.95")
    assert own["accuracy"].tolist() == pytest.approx([20, 40, 60])
    made = from_folder(folder, "effective-sparsity")
    legible(made.pages[0])
    assert made.table.query("method == 'snip' and sparsity == 0.95")["mean"].iloc[0] == pytest.approx(0.04)


@pytest.mark.slow
def test_a_narrow_column_has_the_critical_compression_below_or_on_a_second_page() -> None:
    made = drawn("failures", failing(), width="column")
    made.pages[0].draw_without_rendering()
    legible(made.pages[0])
    assert [ax.get_xlabel() for ax in made.pages[0].axes] == ["Weights remaining (%)", "Critical compression"]
    assert "Below: critical compression" in made.caption
    many = drawn("failures", [*failing(), *series(*(f"m{i:02d}" for i in range(30)))], width="column")
    assert len(many.pages) == 2 and "Second page: critical compression" in many.caption
    assert all(page.get_figheight() < 9 for page in many.pages)


def test_ticks_of_short_times_have_no_exponent() -> None:
    assert [_number(value) for value in (1e-5, 0.002, 3, 20000)] == ["0.00001", "0.002", "3", "20k"]


@pytest.mark.slow
def test_counts_of_failed_runs_are_legible_on_the_line_at_zero() -> None:
    rows = [*series("erk"), *runs_of("snip", 0.9, [0.1, 0.9, 0.9])]
    notes = [t for ax in drawn("baseline", rows).pages[0].axes for t in ax.texts if "/" in t.get_text()]
    assert notes and all(t.get_path_effects() and t.get_zorder() > 3 for t in notes)


def failing() -> list[Any]:
    lost = [run for s in (0.95, 0.98) for run in runs_of("erk", s, [0.1, 0.1, 0.8])]
    return [*series("snip"), *runs_of("erk", 0.9), *lost]


@pytest.mark.slow
def test_failures_show_the_share_of_runs_and_the_critical_compression() -> None:
    made = drawn("failures", failing())
    made.pages[0].draw_without_rendering()
    legible(made.pages[0])
    share = made.table.set_index(["method", "sparsity"])["share"]
    assert share["erk", 0.9] == 0 and share["erk", 0.98] == pytest.approx(2 / 3) and share["snip", 0.98] == 0
    assert "67" in {text.get_text() for text in made.pages[0].axes[0].texts}
    critical = critical_compression(failed_runs(material(failing()))).set_index("method")
    assert critical["compression"].to_dict() == pytest.approx({"snip": 50, "erk": 10})
    assert critical["open"].to_dict() == {"snip": True, "erk": False}
    none = figures.chosen(["failures"])["failures"](material(series("snip")))
    assert none == "no run of a method collapsed, diverged or is at chance"


@pytest.mark.slow
def test_the_difference_to_the_baseline_is_paired_with_a_t_interval_and_ticks() -> None:
    rows = [*runs_of("erk", 0.9, [0.90, 0.91, 0.92]), *runs_of("snip", 0.9, [0.93, 0.92, 0.95]),
            *runs_of("grasp", 0.9, [0.1, 0.1, 0.2])]  # fmt: skip
    made = drawn("baseline", rows)
    made.pages[0].draw_without_rendering()
    legible(made.pages[0])
    snip = made.table.set_index("method").loc["snip"]
    # 3, 1 and 3 points: mean 7/3, deviation 1.1547, t(2) = 4.3027.
    assert snip["difference"] == pytest.approx(7 / 3)
    assert snip["low"] == pytest.approx(7 / 3 - 4.302653 * 1.154701 / math.sqrt(3), abs=1e-5)
    ticks = next(
        line for line in made.pages[0].axes[0].get_lines() if line.get_marker() == "|" and max(line.get_xdata()) > 0
    )
    assert sorted(ticks.get_xdata()) == pytest.approx([1, 3, 3])
    # Failed runs have no interval, and do not set the axis.
    assert math.isnan(made.table.set_index("method").loc["grasp", "low"])
    assert made.pages[0].axes[0].get_xlim()[0] > -20
    assert "p that a two-sided sign flip of one comparison can reach is 0.25." in made.caption
    assert "--baseline" in str(figures.chosen(["baseline"])["baseline"](material(series("snip"))))
    made = drawn("baseline", rows, baseline="snip")
    assert set(made.table["method"]) == {"erk", "grasp"}


@pytest.mark.slow
def test_methods_of_other_tables_are_compared_with_the_baseline_as_in_the_table() -> None:
    ours = [*runs_of("erk", 0.9, [0.90, 0.91, 0.92]), *runs_of("snip", 0.9, [0.93, 0.92, 0.95])]
    lab = [*runs_of("mine", 0.9, [0.95, 0.96, 0.96], source="lab"), *runs_of("snip", 0.9, source="lab")]
    best = runs_of("other", 0.9, source="web", epoch="best-test")
    both = [
        *runs_of("erk", 0.9, [0.5, 0.51, 0.52], source="own"),
        *runs_of("grasp", 0.9, [0.6, 0.62, 0.61], source="own"),
    ]
    made = drawn("baseline", [*ours, *lab, *best, *both])
    figure = page("baseline", [*ours, *lab, *best, *both])
    legible(figure)
    rows = made.table.set_index(["source", "method"])["difference"]
    assert set(rows.index) == {("", "snip"), ("lab", "mine"), ("lab", "snip"), ("own", "grasp")}
    assert rows["lab", "mine"] == pytest.approx(14 / 3) and rows["own", "grasp"] == pytest.approx(10)
    assert {"SNIP", "mine [lab]", "SNIP [lab]", "GraSP [own]"} <= {text.get_text() for text in figure.findobj(Text)}


def settings(count: int, *methods: str, step: float = 0.01) -> list[Any]:
    return [
        run
        for i in range(count)
        for place, method in enumerate(methods)
        for run in (*series(method, model=f"net{i}"), *dense(model=f"net{i}"))
        if method == methods[0] or run["method"] != "dense"
        for run in [{**run, "counted": run["counted"] - step * place * (run["method"] != "dense")}]
    ]


@pytest.mark.slow
def test_the_summary_depends_on_the_number_of_settings() -> None:
    made = drawn("summary", settings(6, "synflow", "snip", "random"))
    made.pages[0].draw_without_rendering()
    legible(made.pages[0])
    assert [ax.get_title() for ax in made.pages[0].axes][:3] == [
        "IQM, normalised", "P(SynFlow > …)", "Performance profile"
    ]  # fmt: skip
    assert made.pages[0].axes[3].get_title().startswith("Mean rank, CD")
    table = made.table.set_index("method")
    assert table["mean_rank"].to_dict() == {"synflow": 1, "snip": 2, "random": 3}
    assert (table["low"] <= table["iqm"]).all() and table["strata"].unique().tolist() == [18]
    page_ = (DOCS / "statistics.md").read_text(encoding="utf-8")
    covered = re.findall(r"IQM of 12 strata.*?\| (\d+) seeds \| 95 % \| ([\d.]+) % \|", page_)
    assert {int(n): float(share) / 100 for n, share in covered} == inference.IQM_COVERAGE
    assert f"contains the true value in {float(covered[0][1]):.0f} % of simulations with 3 seeds" in made.caption
    assert set(table["seeds"]) == {3} and set(table["simulated_coverage"]) == {inference.IQM_COVERAGE[3]}
    assert "Accuracies: last epoch." in made.caption
    made = drawn("summary", settings(4, "synflow", "snip", "random"))
    assert len(made.pages[0].axes) == 3 and "Not drawn: mean ranks: 4 settings and 3 methods, 6 and 3" in made.caption
    none = figures.chosen(["summary"])["summary"](material(settings(2, "synflow", "snip", "random")))
    assert "6 pairs of setting and sparsity" in str(none) and "10 are needed" in str(none)
    made = drawn("summary", settings(6, "synflow", "snip"), highlight=("snip",))
    assert "P(SNIP > …)" in {ax.get_title() for ax in made.pages[0].axes}


@pytest.mark.slow
def test_pages_of_differences_leave_room_for_the_caption() -> None:
    made = drawn("baseline", settings(12, "erk", "snip"))
    assert len(made.pages) == 2 and all(page.get_figheight() < 9.0 - 1.0 for page in made.pages)


@pytest.mark.slow
def test_from_thirteen_methods_on_each_has_a_panel(tmp_path: Path) -> None:
    curve = tuple(Epoch(epoch, 1.0, 0.5) for epoch in (1, 2))
    for place in range(13):
        layers = (Layer("a.weight", 40, 2 + place % 3), Layer("b.weight", 400, 20))
        made = result(method=f"m{place:02d}", curve=curve, layers=layers, effective_sparsity=0.96)
        results.write(tmp_path, made, {})
    for name in ("layers", "training", "effective-sparsity"):
        pages = from_folder(tmp_path, name).pages
        assert sum(ax.get_title() != "" for page in pages for ax in page.axes) == 13, name
        grey = [sum(line.get_color() == MUTED for line in ax.get_lines()) for page in pages for ax in page.axes]
        assert grey == [12] * 13 and "Other methods" in labels(pages[0]), name
        words = [text.get_text() for page in pages for text in page.findobj(Text)]
        assert sum("m07" in text for text in words) == 1, name
        pages[0].draw_without_rendering()
        legible(pages[0])
        narrow = from_folder(tmp_path, name, width="column").pages
        assert all(page.get_figheight() < 9.0 - 0.9 for page in (*pages, *narrow)), name
        (figure,) = from_folder(tmp_path, name, highlight=("m03",)).pages
        assert len([ax for ax in figure.axes if ax.get_title()]) == 1 and labels(figure) == ["m03", "Other methods"]


@pytest.mark.slow
def test_an_overlap_of_many_methods_is_legible(tmp_path: Path) -> None:
    first, generator = np.arange(400) % 2 == 0, np.random.default_rng(0)
    for place in range(30):
        mask = first ^ (generator.random(400) < 0.02 * (place % 5 + 1))
        results.write(tmp_path, result(method=f"m{place:02d}"), {"a.weight": mask})
    full, column = (from_folder(tmp_path, "mask-overlap", width=width) for width in ("full", "column"))
    texts = {text.get_text() for text in full.pages[0].axes[0].texts}
    assert "90" in texts and not any(text.startswith("+") for text in texts), "no room for signs"
    assert not any(text.get_text() for text in column.pages[0].axes[0].texts)
    assert "shade only" in column.caption and "shade only" not in full.caption
    legible(column.pages[0])


@pytest.mark.slow
def test_points_below_the_axis_of_costs_lie_in_a_band_below_all_bars(tmp_path: Path) -> None:
    accuracies = {"snip": 0.92, "erk": 0.9, "grasp": 0.91, "random": 0.3, "uniform": 0.2}
    for place, (method, accuracy) in enumerate(accuracies.items()):
        for seed in range(2):
            costs = {**result().costs, "score_seconds": 0.1 * 1.5**place, "score_peak_bytes": 2.0 ** (20 + 2 * place)}
            one = result(method=method, seed=seed, accuracy=accuracy + 0.02 * seed, costs=costs)
            results.write(tmp_path, one, {"a.weight": np.ones((16, 4), bool)})
    made = from_folder(tmp_path, "cost")
    legible(made.pages[0])
    axes = made.pages[0].axes
    (same,) = {ax.get_ylim() for ax in axes}
    for ax in axes:
        (low,) = (patch.get_extents().transformed(ax.transData.inverted()).y1 for patch in ax.patches)
        shown = [line.get_ydata()[0] for line in ax.get_lines() if line.get_marker() != "None"]
        bars = [y for container in ax.containers for part in container[2] for y in part.get_segments()[0][:, 1]]
        assert same[0] < low < min(bars) and sum(y < low for y in shown) == 2
        assert all(tick >= low for tick in ax.get_yticks())
    assert "Points in the grey band are below the axis" in made.caption


@pytest.mark.slow
def test_methods_that_score_no_weight_have_no_cost_of_scoring(tmp_path: Path) -> None:
    for method, seconds in (("snip", 0.5), ("erk", 0.003), ("small-dense:equal=flops", 1e-5)):
        costs = {**result().costs, "score_seconds": seconds, "flops_sparse": 1e6 * seconds}
        results.write(tmp_path, result(method=method, costs=costs), {"a.weight": np.ones((16, 4), bool)})
    made = from_folder(tmp_path, "cost")
    assert made.pages[0].axes[0].get_xlim()[0] > 1e-3 and set(made.table["method"]) == {"snip", "erk"}
    assert "Not drawn, because no weight is scored: Smaller dense (equal = flops)." in made.caption
    assert len(labels(made.pages[0])) == 2
    operations = from_folder(tmp_path, "flops")
    assert len(set(operations.table["method"])) == 3 and "Not drawn" not in operations.caption


@pytest.mark.slow
def test_lines_of_training_and_profiles_have_the_markers_of_their_methods(tmp_path: Path) -> None:
    for method in ("dense", "erk", "snip"):
        for seed in range(2):
            curve = tuple(Epoch(e, 1.0, 0.9 - 0.5 / e) for e in range(1, 31))
            one = result(method=method, sparsity=0.0 if method == "dense" else 0.9, seed=seed, curve=curve)
            results.write(tmp_path, one, {"a.weight": np.ones((16, 4), bool)})
    panel = from_folder(tmp_path, "training").pages[0].axes[0]
    found = {line.get_marker(): line.get_markevery() for line in panel.get_lines()}
    assert found == {"None": None, "D": (2, 6), "o": (4, 6)}
    rows = [run for d in range(4) for run in [*dense(dataset=f"d{d}"), *series("snip", "erk", dataset=f"d{d}")]]
    profile = next(ax for ax in page("summary", rows).axes if ax.get_title() == "Performance profile")
    assert {line.get_marker() for line in profile.get_lines()} == {"o", "D"}


@pytest.mark.slow
def test_effective_densities_have_an_axis_to_the_highest_of_them(folder: Path) -> None:
    for ax in from_folder(folder, "effective-sparsity").pages[0].axes:
        assert 0.5 < ax.get_ylim()[1] < 0.7


def test_masks_of_smaller_dense_networks_are_not_compared(tmp_path: Path) -> None:
    for method, channels in (("snip", 16), ("erk", 16), ("small-dense", 3)):
        results.write(tmp_path, result(method=method), {"a.weight": np.ones((channels, 4), bool)})
    made = from_folder(tmp_path, "mask-overlap")
    assert {*made.table["method"], *made.table["other"]} == {"snip", "erk"}


@pytest.mark.slow
def test_the_summary_is_legible_in_a_narrow_column() -> None:
    for names in (("iterative-snip", "snip", "synflow"), ("grasp", "magnitude", "random", "snip", "synflow")):
        legible(page("summary", settings(6, *names), width="column", baseline="snip"))


@pytest.mark.slow
def test_trainings_of_different_length_have_their_own_axis(tmp_path: Path) -> None:
    for model, epochs in (("a", 2), ("b", 40)):
        curve = tuple(Epoch(epoch, 1.0, 0.5) for epoch in range(1, epochs + 1))
        results.write(tmp_path, result(method="snip", model=model, curve=curve), {})
    figure = from_folder(tmp_path, "training").pages[0]
    short, long = figure.axes
    assert short.get_xlim() == pytest.approx((0, 1.03 * 2)) and long.get_xlim() == pytest.approx((0, 1.03 * 40))
    assert all(ax.xaxis.get_tick_params()["labelbottom"] for ax in figure.axes)


@pytest.mark.slow
def test_requested_sparsities_of_a_column_share_an_axis(tmp_path: Path) -> None:
    for place in range(5):
        for sparsity in (0.5, 0.9) if place else (0.9, 0.99):
            one = result(method="snip", model=f"m{place}", sparsity=sparsity, effective_sparsity=sparsity)
            results.write(tmp_path, one, {})
    axes = from_folder(tmp_path, "effective-sparsity").pages[0].axes
    assert axes[0].get_xlim() == axes[3].get_xlim() != axes[1].get_xlim()


@pytest.mark.slow
def test_the_methods_paragraph_describes_the_summary_that_is_drawn() -> None:
    both = pooling.described(material(settings(6, "synflow", "snip", "random")))
    assert both[0].startswith("Over 18 pairs of setting") and "mean [[agarwal2021]], with the percentile" in both[0]
    assert len(both) == 2 and "(6 settings) [[demsar2006]]; we report the Friedman test [[friedman1937]]" in both[1]
    assert len(pooling.described(material(settings(4, "synflow", "snip", "random")))) == 1
    assert pooling.described(material(settings(2, "synflow", "snip", "random"))) == []


@pytest.mark.slow
def test_the_summary_has_no_interval_of_two_seeds_and_counts_failed_runs() -> None:
    rows = [run for run in settings(6, "synflow", "snip", "random") if run["seed"] < 2]
    rows[1] = {**rows[1], "counted": 0.1, "at_chance": True}
    made = drawn("summary", rows)
    assert made.table["iqm"].notna().all() and made.table[["low", "high", "simulated_coverage"]].isna().all(axis=None)
    assert "without an interval, because some pairs have fewer than 3 seeds" in made.caption
    assert "1 of 108 runs collapsed, diverged or are at chance" in made.caption


@pytest.mark.slow
def test_a_network_with_two_names_and_other_recipes_count_once() -> None:
    twice = [{**run, "model": name} for run in settings(1, "synflow", "snip") for name in ("resnet18", "wide_resnet18")]
    rows = [*settings(5, "synflow", "snip"), *twice]
    made = drawn("summary", [*rows, *({**run, "recipe": "other"} for run in rows[:20])])
    assert made.table["settings"].unique().tolist() == [6]
    assert "second name: wide_resnet18" in made.caption


@pytest.mark.slow
def test_failures_count_a_network_with_two_names_once() -> None:
    rows = [run for model in ("resnet18", "wide_resnet18") for run in failing() for run in [{**run, "model": model}]]
    made = drawn("failures", rows)
    assert set(made.table["n"]) == {3} and "over 1 setting (n = 3 runs a cell)" in made.caption
    assert "WideResNet-18 is the same network as ResNet-18" in made.caption


def test_costs_of_runs_at_chance_have_no_deviation() -> None:
    rows = pd.DataFrame([{**run, "score_seconds": 1.0} for run in failing()])
    found = {spot.method: spot for spot in spots(rows[rows["sparsity"] == 0.95], "score_seconds", ["snip", "erk"])}
    assert math.isnan(found["erk"].std) and found["snip"].std > 0


@pytest.mark.slow
def test_a_report_states_that_no_published_number_matches() -> None:
    other = material(series("snip", model="vgg16-bn", dataset="cifar100", recipe="quick"))
    other = Material(other.runs, other.summary, other.options, published.load())
    assert published_table.absence(other).startswith("no published number matches these results (near:")
    assert "pai-bench list published" in published_table.absence(other)
    assert published_table.absence(overlaid()) == ""
    assert published_table.absence(material(series("snip"), published="none")) == ""
    assert "no published number of paper.csv" in published_table.absence(
        material(series("snip"), published="paper.csv")
    )


@pytest.mark.slow
@pytest.mark.parametrize(("x", "words"), [("density", "weights remaining"), ("compression", "compression ratio")])
def test_requested_sparsity_has_the_chosen_axis(folder: Path, x: str, words: str) -> None:
    made = from_folder(folder, "effective-sparsity", x=x)
    assert any(text.get_text().startswith(f"Requested: {words}") for text in made.pages[0].findobj(Text))


@cache
def overlaid() -> Material:
    """Return results with the network, recipe and names of published ones."""
    rows = [
        *runs_of("dense", 0.0, [0.72, 0.73, 0.74], dataset="cifar100", model="vgg16-bn", recipe="synflow"),
        *runs_of("synflow", 0.99, [0.62, 0.63, 0.64], dataset="cifar100", model="vgg16-bn", recipe="synflow"),
        *runs_of("synflow", 0.99, [0.62, 0.63, 0.64], dataset="cifar100", model="vgg16-bn", recipe="quick"),
    ]
    base = material(rows)
    return Material(base.runs, base.summary, base.options, published.load())


@pytest.mark.slow
def test_published_numbers_are_hollow_in_the_panel_of_their_recipe() -> None:
    subject = overlaid()
    made = figures.chosen(["accuracy"])["accuracy"](subject)
    assert isinstance(made, Drawing)
    (figure,) = made.pages
    figure.draw_without_rendering()
    legible(figure)
    assert {"Published: Tanaka et al. 2020, last epoch, n = 3", "Dense, published"} <= set(labels(figure))
    hollow = [line for ax in figure.axes for line in ax.get_lines() if line.get_markerfacecolor() == "white"
              and line.get_marker() == "p"]  # fmt: skip
    assert hollow and all(line.get_linestyle() == "None" for line in hollow)
    (panel,) = [p for s in subject.settings if (p := curves.accuracy_panel(subject, s)).published]
    assert panel.setting.recipe == "synflow" and {c.match for c in panel.published} == {"exact"}
    # No mean includes them: our numbers equal those of a report without them.
    ours = made.table[(made.table["source"] == "") & (made.table["method"] == "synflow")]
    assert ours["mean"].tolist() == pytest.approx([63, 63]) and set(ours["n"]) == {3}
    assert "ours minus published" in made.caption


@pytest.mark.slow
def test_the_difference_to_published_has_a_welch_interval() -> None:
    subject = overlaid()
    panel = next(p for s in subject.settings if (p := curves.accuracy_panel(subject, s)).published)
    table = overlay.differences(panel).set_index("method")
    row = table.loc["synflow"]
    theirs = next(c for c in panel.published if c.method == "synflow").points
    point = next(p for p in theirs if abs(p.density - 0.01) < 1e-4)
    assert row["difference"] == pytest.approx(63 - point.mean)
    one, two = 1.0 / 3, point.std**2 / 3
    freedom = (one + two) ** 2 / (one**2 / 2 + two**2 / 2)
    from scipy import stats

    assert row["half"] == pytest.approx(stats.t.ppf(0.975, freedom) * math.sqrt(one + two))
    assert row["match"] == "exact" and row["epoch"] == "last" and "dense" in table.index


@pytest.mark.slow
def test_the_table_of_published_numbers_states_what_differs() -> None:
    table = published_table.compare(overlaid())
    row = table.set_index("method").loc["synflow"]
    assert row["ours"] == pytest.approx(63) and row["difference"] == pytest.approx(63 - row["published"])
    text = published_table.markdown(table)
    assert "| method | remaining (%) | ours | published | difference | differs in |" in text
    assert "| SynFlow | 1 | 63.00 (3) |" in text and "scored in float32 |" in text
    assert "Tanaka et al. 2020, last epoch" in text
    tex = published_table.latex(table)
    (sentence,) = published_table.described(table)
    assert f"given at {len(table)} points, with a 95 % Welch t interval" in sentence
    (some,) = published_table.described(table.assign(half_width=[math.nan, *table["half_width"][1:]]))
    assert f"given at {len(table)} points, at {len(table) - 1} of them with a 95 % Welch t interval" in some
    unknown = published_table.described(table.assign(half_width=math.nan))
    assert "without an interval" in unknown[0] and published_table.described(table.iloc[:0]) == []
    assert r"\emph{SynFlow}" in tex and "\n1 & 63.00 (3) &" in tex and tex.isascii() and "scored in float32" in tex
    assert published_table.compare(material(series("snip"))).empty


@pytest.mark.slow
def test_suspect_published_numbers_are_filled_with_grey_and_explained() -> None:
    spec = "grasp:temperature=1,bn=eval"
    base = material(runs_of(spec, 0.9, [0.6, 0.61], dataset="cifar100", model="vgg16-bn", recipe="synflow"))
    loaded = published.load(recipe="synflow", dataset="cifar100", model="vgg16-bn", suspect=True)
    subject = Material(base.runs, base.summary, base.options, loaded)
    made = figures.chosen(["accuracy"])["accuracy"](subject)
    assert isinstance(made, Drawing)
    shown = [label for label in labels(made.pages[0]) if label.startswith("Published")]
    assert len(shown) == 1 and shown[0].startswith("Published, suspect: Tanaka et al. 2020, last epoch")
    lines = [line for ax in made.pages[0].axes for line in ax.get_lines() if line.get_marker() not in ("o", "None")]
    grey = [line for line in lines if line.get_markerfacecolor() == overlay.SUSPECT_FILL]
    assert grey and "Grey-filled points: published numbers that are suspect (GraSP" in made.caption
    assert "(Tanaka et al. 2020: " in made.caption, "papers of other panels are not named"
    differs = published_table.compare(subject).set_index("method").loc[spec, "differs"]
    assert differs.startswith("suspect: ")


@pytest.mark.slow
def test_published_rows_of_one_own_network_are_told_apart() -> None:
    rows = [
        *runs_of("dense", 0.0, [0.94, 0.95], dataset="cifar10", model="resnet18", recipe="synflow"),
        *runs_of("synflow", 0.9, [0.93, 0.94], dataset="cifar10", model="resnet18", recipe="synflow"),
    ]
    base = material(rows)
    table = published_table.compare(Material(base.runs, base.summary, base.options, published.load()))
    ours = table[table["method"] == "synflow"]["differs"]
    assert len(ours) == 2 and ours.str.contains("published as ResNet-18 (weiaicunzai)", regex=False).sum() == 1
    assert ours.str.contains("published as WideResNet-18 (weiaicunzai)", regex=False).sum() == 1
    dense_rows = table[table["method"] == "dense"]["differs"]
    assert len(dense_rows) == 8 and dense_rows.is_unique and dense_rows.str.contains("series SNIP").sum() == 2


def two_papers(methods: Sequence[str], **options: Any) -> Material:
    """Return results of methods at one density, with the numbers of two papers for each, one without a recipe."""
    base = material([*dense(), *(run for method in methods for run in runs_of(method, 0.9, [0.9, 0.91]))], **options)
    setting = base.settings[0].columns
    rows = [
        {**setting, **which, "method": method, "sparsity": sparsity, "accuracy": accuracy, "n": 3.0, "std": 0.002}
        for which in (
            {"paper": "later", "recipe": "", "match": "context", "epoch": "unknown", "differs": "other data"},
            {"paper": "arora2025", "match": "near", "epoch": "best-test", "differs": ""},
        )
        for method, sparsity, accuracy in [("dense", 0.0, 0.95), *((method, 0.9, 0.89) for method in methods)]
    ]
    return Material(base.runs, base.summary, base.options, pd.DataFrame(rows).assign(suspect=""))


@pytest.mark.slow
def test_papers_of_one_panel_differ_in_marker_and_dense_line() -> None:
    subject = two_papers(["snip", "erk"])
    made = figures.chosen(["accuracy"])["accuracy"](subject)
    assert isinstance(made, Drawing)
    first = "Arora and Teuscher 2025"
    texts = [text for text in labels(made.pages[0]) if "published" in text.lower()]
    assert texts == [
        f"Dense, published: {first}",
        f"Published: {first}, best test epoch, n = 3",
        "Dense, published: later",
        "Published: later, epoch not stated, n = 3",
    ], "the best match comes first"
    points = [line for line in made.pages[0].axes[0].get_lines() if line.get_marker() == "o" and len(line.get_xdata())]
    hollow = [line for line in points if line.get_markerfacecolor() == "white"]
    half = [line for line in points if line.get_fillstyle() == "left"]
    assert len(hollow) == len(half) == 1 and half[0].get_markerfacecoloralt() == "white"
    assert hollow[0].get_xdata()[0] != half[0].get_xdata()[0]
    flat = [line for line in made.pages[0].axes[0].get_lines() if set(np.asarray(line.get_ydata())) == {95.0}]
    assert len({str(line._dash_pattern) for line in flat}) == 2  # type: ignore[attr-defined]
    assert f"({first}: best test epoch, n = 3; later: epoch not stated, n = 3) for" in made.caption
    table = published_table.compare(subject)
    assert table.groupby("paper", sort=False).size().to_dict() == {"arora2025": 3, "later": 3}
    text = published_table.markdown(table)
    assert f"| SNIP, {first} | 10 |" in text and "| SNIP, later | 10 |" in text
    assert f"{first}, best test epoch; later, epoch not stated." in text
    assert r"\emph{SNIP, later}" in published_table.latex(table)


@pytest.mark.slow
@pytest.mark.parametrize("width", ["full", "column"])
def test_labels_of_rows_with_strips_cover_nothing_and_the_points_beside_a_density_stay_inside(width: str) -> None:
    rows = [run for d, model in (("cifar10", "a"), ("cifar10", "b"), ("mnist", "b")) for method in ("snip", "erk")
            for s in (0.9, 0.95) for run in runs_of(method, s, [0.9, 0.91], dataset=d, model=model)]  # fmt: skip
    base = material(rows, width=width)
    theirs = base.summary.rename(columns={"mean": "accuracy"})[["method", "dataset", "model", "sparsity", "accuracy"]]
    columns = {"recipe": "", "paper": "own", "match": "near", "epoch": "last", "differs": "", "suspect": ""}
    subject = Material(base.runs, base.summary, base.options, theirs.assign(**columns, n=3.0, std=0.01))
    made = figures.chosen(["accuracy"])["accuracy"](subject)
    assert isinstance(made, Drawing)
    (figure,) = made.pages
    figure.draw_without_rendering()
    legible(figure)
    labels = [text.get_text().replace("\n", " ") for text in figure.texts]
    assert labels.count("Ours \N{MINUS SIGN} published (points)") == labels.count("Test accuracy (%)") == 2
    for ax in figure.axes:
        right, left = sorted(ax.get_xlim())
        inside = [right < x < left for line in ax.get_lines() if line.get_linestyle() == "None"
                  for x in np.asarray(line.get_xdata())]  # fmt: skip
        assert inside and all(inside)


@pytest.mark.slow
def test_a_panel_draws_no_more_papers_than_series_allow() -> None:
    subject = two_papers(["snip", "erk", "random", "grasp", "synflow"])
    made = figures.chosen(["accuracy"])["accuracy"](subject)
    assert isinstance(made, Drawing) and "too many series: the published numbers of later." in made.caption
    assert not any("later" in text for text in labels(made.pages[0]))
    assert set(published_table.compare(subject)["paper"]) == {"arora2025", "later"}
    chosen = two_papers(["snip", "erk", "random", "grasp", "synflow"], highlight=("snip",))
    made = figures.chosen(["accuracy"])["accuracy"](chosen)
    assert isinstance(made, Drawing) and "too many series" not in made.caption
    hollow = [line.get_color() for line in made.pages[0].axes[0].get_lines() if line.get_markerfacecolor() == "white"]
    assert hollow == [chosen.look("snip").color], "methods in grey have no published points"


@pytest.mark.slow
def test_more_than_26_differences_have_letters() -> None:
    table = pd.concat([published_table.compare(two_papers(["snip"]))[1:2]] * 28).reset_index(drop=True)
    tex = published_table.latex(table.assign(differs=[f"difference {place}" for place in range(28)]))
    assert "z: difference 25" in tex and "aa: difference 26" in tex and "ab: difference 27" in tex and "{:" not in tex


@pytest.mark.slow
def test_a_table_of_published_numbers_keeps_papers_and_epochs_apart(tmp_path: Path) -> None:
    table = tmp_path / "ours.csv"
    head = "method,dataset,model,sparsity,seed,accuracy,paper,epoch,std,n\n"
    table.write_text(
        f"{head}SNIP,Digits,CONV8,0.9,0,0.8,,last,0.01,3\nSNIP,Digits,CONV8,0.9,0,0.9,,best-test,0.01,3\n"
        "SNIP,Digits,CONV8,0.9,1,0.7,Own 2026,last,,\n"
    )
    beside = pd.DataFrame([{"method": "snip", "dataset": "digits", "model": "conv8", "recipe": ""}])
    rows, remarks = published_tables.read(table, beside)
    assert rows[["paper", "epoch", "accuracy", "n"]].to_numpy().tolist() == [
        ["ours", "last", 0.8, 3],
        ["ours", "best-test", 0.9, 3],
        ["Own 2026", "last", 0.7, 1],
    ]
    assert set(rows["method"] + rows["dataset"] + rows["model"]) == {"snipdigitsconv8"}
    assert remarks == [
        "names that differ in case only are unified: 'SNIP' as 'snip', 'Digits' as 'digits', 'CONV8' as 'conv8'"
    ]
    for std, n, problem in (("0.9", "3", "std 0.9"), ("-0.1", "3", "std -0.1"), ("0.1", "0", "n 0 ")):
        table.write_text(f"{head}snip,digits,conv8,0.9,0,0.8,,last,{std},{n}\n")
        with pytest.raises(PaiBenchError, match=problem):
            published_tables.read(table)


@pytest.mark.slow
def test_published_numbers_can_come_from_a_table(tmp_path: Path, folder: Path) -> None:
    table = tmp_path / "paper.csv"
    table.write_text("method,dataset,model,sparsity,seed,accuracy\n" + "".join(
        f"snip,digits,conv8,0.95,{seed},{0.5 + seed / 100}\n" for seed in range(3)))  # fmt: skip
    run(folder, tmp_path / "out", [], False, QUIET, Options(published=str(table), figures=("accuracy",)))
    points = pd.read_csv(tmp_path / "out" / "accuracy-points.csv")
    own = points[points["source"] == "published"].iloc[0]
    assert (own["mean"], own["n"]) == (pytest.approx(51), 3) and own["std"] == pytest.approx(1)
    beside = pd.read_csv(tmp_path / "out" / "published.csv")
    assert beside["difference"].tolist() == pytest.approx([100 * (0.9 - 0.095 + 0.02) - 51])
    paragraph = (tmp_path / "out" / "methods.tex").read_text(encoding="utf-8")
    assert r"given at 1 point, with a 95 \% Welch t interval for independent samples~\citep{welch1947}" in paragraph
    assert "@article{welch1947," in (tmp_path / "out" / "references.bib").read_text(encoding="utf-8")
    assert "(paper: epoch not stated, n = 3)" in (tmp_path / "out" / "captions.md").read_text()
    head = "method,dataset,model,sparsity,seed,accuracy,suspect"
    table.write_text(f"{head}\nsnip,digits,conv8,0.95,0,0.5,sign inverted\n")
    run(folder, tmp_path / "out", [], False, QUIET, Options(published=str(table), figures=("accuracy",)))
    assert not (tmp_path / "out" / "published.csv").exists(), "suspect rows are shown with --suspect only"
    collection = collect(folder)
    theirs, _ = published_tables.read(table, collection.rows)
    subject = Material(collection.rows, summarise(collection), Options(published=str(table), suspect=True), theirs)
    assert published_table.compare(subject)["differs"].tolist() == ["suspect: sign inverted"]
    with pytest.raises(PaiBenchError, match="does not exist"):
        run(folder, tmp_path / "out", [], False, QUIET, Options(published="none.csv"))


@pytest.mark.slow
def test_a_table_of_published_points_needs_no_seed(tmp_path: Path, folder: Path) -> None:
    table = tmp_path / "paper.csv"
    head = "method,dataset,model,sparsity,accuracy"
    table.write_text(f"{head},std,n\nsnip,digits,conv8,0.95,0.5,0.01,5\nerk,digits,conv8,0.95,0.6,,\n")
    run(folder, tmp_path / "out", [], False, QUIET, Options(published=str(table), figures=("accuracy",)))
    beside = pd.read_csv(tmp_path / "out" / "published.csv").set_index("method")
    assert beside["n_published"].to_dict() == {"snip": 5, "erk": pytest.approx(math.nan, nan_ok=True)}
    captions = (tmp_path / "out" / "captions.md").read_text(encoding="utf-8")
    assert "ours minus published with 95 % Welch intervals" in captions
    table.write_text(f"{head}\nsnip,digits,conv8,0.95,0.5\n")
    run(folder, tmp_path / "out", [], False, QUIET, Options(published=str(table), figures=("accuracy",)))
    captions = (tmp_path / "out" / "captions.md").read_text(encoding="utf-8")
    assert "n not stated" in captions and "ours minus published; grey" in captions
    table.write_text(f"{head}\nsnip,digits,conv8,0.95,0.5\nsnip,digits,conv8,0.95,0.6\n")
    with pytest.raises(PaiBenchError, match="row 3 repeats snip, digits, conv8, sparsity"):
        published_tables.read(table)


@pytest.mark.slow
def test_a_selection_keeps_the_dense_reference(folder: Path) -> None:
    collection = collect(folder)
    chosen = Selection(methods=("snip",)).apply(collection)
    assert set(chosen.rows["method"]) == {"snip", "dense"}
    chosen = Selection(matches=lambda cell: cell.sparsity > 0.9 and cell.seed == 0).apply(collection)
    assert set(chosen.rows["seed"]) == {0} and set(chosen.rows["sparsity"]) == {0.0, 0.95}
    for wrong in (Selection(methods=("snipp",)), Selection(datasets=("mnist",)), Selection(matches=lambda _: False)):
        with pytest.raises(PaiBenchError):
            wrong.apply(collection)


@pytest.mark.slow
def test_all_figures_of_a_folder_are_written_with_their_captions(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(folder, out, [], False, QUIET, Options(figures=("layers", "cost", "baseline"), width="column"))
    assert {path.name for path in out.glob("*.pdf")} == {"layers.pdf", "cost.pdf", "baseline.pdf"}
    text = (out / "captions.tex").read_text()
    assert text.count(r"\begin{figure}") == 3 and r"\includegraphics[width=2.70in]{layers}" in text
    run(folder, out, [], False, QUIET, Options(figures=("summary",)))
    assert not list(out.glob("*.pdf")), "figures of the earlier report are gone"
    assert "- summary: interquartile mean" in (out / "report.md").read_text()


@pytest.mark.slow
def test_a_figure_with_many_layers_has_numbers_and_bars_of_sizes(tmp_path: Path) -> None:
    layers = tuple(Layer(f"layer{i}.conv.weight", 10 ** (2 + i % 4), 5) for i in range(20))
    for method in ("snip", "erk"):
        one = result(method=method, sparsity=0.95, layers=layers, model="conv28")
        results.write(tmp_path, one, {}, redo=True)
    made = from_folder(tmp_path, "layers")
    legible(made.pages[0])
    assert len(made.pages[0].axes) == 2
    assert [bar.get_height() for bar in made.pages[0].axes[1].patches] == [layer.size for layer in layers]


@pytest.mark.slow
def test_every_default_figure_is_legible_in_a_column() -> None:
    rows = [*settings(6, "synflow", "snip", "erk"), *runs_of("random", 0.9, [0.1, 0.1], model="net0")]
    for name in ("accuracy", "difference-to-dense", "failures", "baseline", "summary"):
        for figure in drawn(name, rows, width="column", venue="icml").pages:
            figure.draw_without_rendering()
            legible(figure)
    for long in ("synflow-l2", "prospr:detach_first_buffer=true,lr=0.5,steps=10"):
        legible(page("baseline", settings(2, "snip", long), width="column", baseline=long))
