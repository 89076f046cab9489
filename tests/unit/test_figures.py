"""Tests of figures: data, sizes and fonts; nothing clipped or covered, distinguishable series, every point drawn."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from pai_bench.analysis import figures, style
from pai_bench.analysis.collect import Collection
from pai_bench.analysis.columns import CELL
from pai_bench.analysis.figures import Drawing, Material, Options, drawing, scale, text, venues
from pai_bench.analysis.figures.arrange import even_width
from pai_bench.analysis.figures.layout import style as style_of_figures
from pai_bench.analysis.figures.panel import ALL_FAILED, MISSING, OTHERS, SOME_FAILED, question
from pai_bench.analysis.statistics import summarise
from pai_bench.analysis.style import KNOWN
from pai_bench.errors import PaiBenchError
from pai_bench.scoring import registry

STEPS = (1, 2, 5, 10, 20, 50)
VARIANTS = [f"prospr:steps={steps}" for steps in STEPS]
SPARSITIES = (0.9, 0.95, 0.98)


@pytest.fixture(autouse=True)
def _final_style() -> Iterator[None]:
    """Measure texts as they are saved."""
    with style_of_figures():
        yield


def runs_of(method: str, sparsity: float, accuracies: Sequence[float] = (0.89, 0.9, 0.91), **changes: Any) -> list[Any]:
    """Return the runs of a point, one per accuracy, as a report collects them."""
    row = {"source": "", "method": method, "dataset": "digits", "model": "conv8", "recipe": "quick"}
    row |= {"sparsity": sparsity, "sparsity_reported": sparsity, "status": "ok", "chance": 0.1, "epoch": "last"}
    row |= {"note": "", "suspect": ""}
    found = [{**row, "seed": seed, "accuracy": value, **changes} for seed, value in enumerate(accuracies)]
    for run in found:
        failed = run["status"] != "ok"
        run["counted"] = run["chance"] if failed and math.isnan(run["accuracy"]) else run["accuracy"]
        run["at_chance"] = not failed and run["accuracy"] <= 1.5 * run["chance"]
    return found


def series(*methods: str, seeds: int = 3, **changes: Any) -> list[Any]:
    """Return runs of methods at SPARSITIES."""
    return [
        run
        for i, method in enumerate(methods)
        for s in SPARSITIES
        for run in runs_of(method, s, [0.95 - s / 10 - 0.001 * i + 0.004 * seed for seed in range(seeds)], **changes)
    ]


def dense(seeds: int = 3, **changes: Any) -> list[Any]:
    return runs_of("dense", 0.0, [0.95 + 0.001 * seed for seed in range(seeds)], **changes)


def material(rows: Sequence[Any], missing: Sequence[Any] = (), **options: Any) -> Material:
    lacking = pd.DataFrame(list(missing), columns=[*CELL, "state"])
    collection = Collection(pd.DataFrame(list(rows)), lacking, (), ())
    return Material(collection.rows, summarise(collection), Options(**options))


def absent(method: str, sparsity: float, seeds: int = 3, first: int = 0) -> list[Any]:
    """Return planned runs without a result."""
    return [
        {**run, "seed": run["seed"] + first, "state": "missing"} for run in runs_of(method, sparsity, [0.5] * seeds)
    ]


def drawn(name: str, rows: Sequence[Any], missing: Sequence[Any] = (), **options: Any) -> Drawing:
    made = figures.chosen([name])[name](material(rows, missing, **options))
    assert isinstance(made, Drawing), made
    return made


def page(name: str, rows: Sequence[Any], missing: Sequence[Any] = (), **options: Any) -> Figure:
    """Draw the only page of a figure with its final layout."""
    (figure,) = drawn(name, rows, missing, **options).pages
    figure.draw_without_rendering()
    return figure


def labels(figure: Figure) -> list[str]:
    return [entry.get_text().replace("\n", " ") for legend in figure.legends for entry in legend.get_texts()]


def texts(figure: Figure) -> list[Text]:
    """Return all visible texts with ink."""
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and t.get_window_extent().width]


def lines(ax: Axes, method: str) -> list[Any]:
    """Return the lines in the colour of a method that have a marker for each point."""
    color = KNOWN[method].color.upper()
    return [
        line for line in ax.get_lines() if line.get_marker() != "None" and to_hex(line.get_color()).upper() == color
    ]


def marks(ax: Axes, marker: Any) -> list[tuple[float, float]]:
    """Return the positions of the marks on a panel, in pixels."""
    found = [line for line in ax.get_lines() if line.get_marker() is marker or line.get_marker() == marker]
    return [tuple(xy) for line in found for xy in line.get_transform().transform(line.get_xydata())]


def apart(boxes: Sequence[Bbox]) -> bool:
    return not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def within(figure: Figure, box: Bbox) -> bool:
    slack = 2  # pixels of 1/300 inch
    return (
        figure.bbox.x0 - slack <= box.x0
        and box.x1 <= figure.bbox.x1 + slack
        and box.y0 >= -slack
        and box.y1 <= figure.bbox.y1 + slack
    )


def legible(figure: Figure) -> None:
    """Check that all texts are inside the figure, that none covers another, and that all have 7 to 9 points."""
    shown = texts(figure)
    assert all(within(figure, t.get_window_extent()) for t in shown), [
        t.get_text() for t in shown if not within(figure, t.get_window_extent())
    ]
    assert all(7 <= t.get_fontsize() <= 9 for t in shown)
    boxes = [Bbox.from_extents(*np.add(t.get_window_extent().extents, [1, 1, -1, -1])) for t in shown]
    for (one, a), (other, b) in combinations(zip(shown, boxes, strict=True), 2):
        assert not a.overlaps(b), (one.get_text(), other.get_text())


@pytest.mark.slow
@pytest.mark.parametrize("names", [
    ["snip"], [f"method-{i}" for i in range(11)],
    ["prospr:detach_first_buffer=true,lr=0.5,steps=10,variant=first_order", "x" * 150],
])  # fmt: skip
def test_every_entry_of_the_legend_is_in_the_figure(names: list[str]) -> None:
    figure = page("accuracy", [*dense(), *series(*names), *series("snip", model="conv28")])
    assert len(labels(figure)) == 1 + len({*names, "snip"})
    legible(figure)
    boxes = [legend.get_window_extent() for legend in figure.legends]
    assert apart([*boxes, *(ax.get_window_extent() for ax in figure.axes)])


@pytest.mark.slow
@pytest.mark.parametrize("recipes", [
    ["frankle+data.split=validation"], ["quick", "quick+train.epochs=2"],
    ["frankle+data.split=validation+train.epochs=20", "quick+scoring.dtype=float32+train.epochs=100"],
    ["quick", "x" * 70],
])  # fmt: skip
def test_titles_are_in_the_figure_and_cover_nothing(recipes: list[str]) -> None:
    models = ("resnet32-double", "vgg16-bn")
    made = drawn(
        "accuracy", [r for recipe in recipes for model in models for r in series("snip", recipe=recipe, model=model)]
    )
    (figure,) = made.pages
    figure.draw_without_rendering()
    legible(figure)
    said = "".join(t.get_text() for t in texts(figure)).replace("\n", "") + made.caption
    assert all(recipe in said for recipe in recipes)
    assert len(recipes) > 1 or recipes[0] in made.caption, "a recipe that all panels share is in the caption"


@pytest.mark.slow
@pytest.mark.parametrize("venue", venues.VENUES)
@pytest.mark.parametrize("width", venues.WIDTHS)
def test_figures_have_the_width_of_the_venue(venue: str, width: str) -> None:
    rows = [
        r
        for d, model in [("cifar10", "vgg11-bn"), ("cifar10", "resnet18"), ("tiny-imagenet", "vgg11-bn")]
        for r in (*dense(model=model, dataset=d), *runs_of("iterative-snip", 0.9, model=model, dataset=d))
    ]
    figure = page("accuracy", rows, venue=venue, width=width)
    expected = {"neurips": (5.5, 2.7), "iclr": (5.5, 2.7), "icml": (6.75, 3.25), "ieee": (7.14, 3.487),
                "iccv": (6.875, 3.281)}[venue]  # fmt: skip
    assert figure.get_figwidth() == pytest.approx(expected[width == "column"], abs=0.005)
    assert figure.get_figheight() < venues.VENUES[venue].height
    legible(figure)


@pytest.mark.slow
def test_files_have_type_42_fonts_the_final_size_and_equal_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        pdf, png, points = drawing.save(drawn("accuracy", [*dense(), *series("snip")]), tmp_path / folder)
    raw = pdf.read_bytes()
    # matplotlib's name for Type 42 inside a PDF; Type 3 is what publishers refuse.
    assert b"/CIDFontType2" in raw and b"/Type3" not in raw and b"/FontFile2" in raw and b"STIXGeneral" in raw
    assert all(path.read_bytes() == (tmp_path / "one" / path.name).read_bytes() for path in (pdf, png, points))
    with Image.open(png) as image:
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.5)
        assert image.width == pytest.approx(5.5 * 300, abs=1)
    table = pd.read_csv(points)
    assert table[table["method"] == "snip"]["density"].tolist() == [0.1, 0.05, 0.02]


@pytest.mark.slow
def test_the_points_are_those_of_the_summary() -> None:
    rows = [*dense(), *series("snip", "erk")]
    (ax,) = page("accuracy", rows).axes
    (line,) = lines(ax, "snip")
    expected = summarise(Collection(pd.DataFrame(rows), pd.DataFrame(columns=[*CELL, "state"]), (), ()))
    expected = expected[expected["method"] == "snip"]
    assert np.allclose(line.get_xdata(), 1 - expected["sparsity"])
    assert np.allclose(line.get_ydata(), 100 * expected["mean"])
    assert ax.get_xscale() == "log" and ax.xaxis_inverted()
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["10", "5", "2"]
    band = ax.collections[-1].get_paths()[0].vertices
    assert np.isclose(band[:, 1].max(), 100 * (expected["mean"] + expected["std"]).max())


@pytest.mark.slow
@pytest.mark.parametrize(("x", "sparsities", "ticks"), [
    ("density", (0.5, 0.8, 0.9, 0.95, 0.98, 0.99), ["50", "20", "10", "5", "2", "1"]),
    ("sparsity", (0.5, 0.8, 0.9, 0.95, 0.98, 0.99), ["50", "80", "90", "95", "98", "99"]),
    ("compression", (0.5, 0.8, 0.9, 0.95, 0.98, 0.99), ["2", "5", "10", "20", "50", "100"]),
    ("density", (0.36, 0.5904, 0.7379, 0.8322, 0.8926, 0.9313), ["50", "20", "10"]),
    ("density", (0.93, 0.94), ["7", "6"]),
    ("sparsity", (0.99, 0.9999), ["99", "99.5", "99.8", "99.9", "99.95", "99.98", "99.99"]),
    ("density", (0.9,), ["10"]),
])  # fmt: skip
def test_ticks_are_round_numbers(x: str, sparsities: tuple[float, ...], ticks: list[str]) -> None:
    rows = [run for s in sparsities for run in runs_of("snip", s)]
    (ax,) = page("accuracy", rows, x=x).axes
    places = [(tick.get_position()[0], tick.get_text()) for tick in ax.get_xticklabels()]
    assert [label for _, label in sorted(places, reverse=True)] == ticks


@pytest.mark.slow
def test_data_sets_are_rows_and_models_are_columns() -> None:
    nets = {"cifar10": ("lottery_vgg11_bn", "tiny_resnet18"), "tinyimagenet": ("vgg11_bn", "resnet18")}
    made = drawn("accuracy", [r for d, models in nets.items() for m in models
                              for r in series("snip", dataset=d, model=m, recipe="")])  # fmt: skip
    (figure,) = made.pages
    figure.draw_without_rendering()
    rows = sorted({round(ax.get_position().y0, 6) for ax in figure.axes}, reverse=True)
    assert len(figure.axes) == 4 and len(rows) == 2
    assert [ax.get_title() for ax in figure.axes] == ["VGG-11-BN", "ResNet-18", "", ""]
    assert {"CIFAR-10", "Tiny-ImageNet"} <= {t.get_text() for t in texts(figure)}
    assert all(len({ax.get_ylim() for ax in figure.axes[i : i + 2]}) == 1 for i in (0, 2))
    assert "VGG-11-BN is lottery_vgg11_bn and vgg11_bn in the data." in made.caption


@pytest.mark.parametrize(("panels", "columns", "width"), [
    (0, 4, 1), (1, 4, 1), (4, 4, 4), (5, 4, 3), (6, 4, 3), (7, 4, 4), (9, 4, 3), (24, 4, 4), (3, 2, 2), (5, 1, 1),
])  # fmt: skip
def test_rows_of_panels_have_few_empty_places(panels: int, columns: int, width: int) -> None:
    assert even_width(panels, columns) == width


@pytest.mark.parametrize("x", ["density", "sparsity", "compression"])
def test_ticks_of_very_high_sparsities_have_no_exponent(x: str) -> None:
    for densities in ([1e-6, 1e-7], [1.3e-6, 1.1e-6]):
        texts = [text for _, text in scale.density_ticks(densities, x, 3.0)]
        assert len(texts) >= 2 and all(re.fullmatch(r"[\d.]+", text) for text in texts), texts


@pytest.mark.slow
def test_panels_of_a_column_share_the_density_axis_whose_labels_are_below_the_last() -> None:
    # The first slot of the last row is empty, so that the second panel has the labels of the row.
    spots = [("cifar10", "a", 0.5), ("cifar10", "b", 0.9), ("mnist", "b", 0.99)]
    figure = page("accuracy", [r for d, model, s in spots for end in (s, 1 - (1 - s) / 5)
                               for r in runs_of("snip", end, dataset=d, model=model, recipe="")])  # fmt: skip
    top, *column = figure.axes
    assert len(column) == 2 and len({ax.get_xlim() for ax in column}) == 1
    assert {tick.get_text() for tick in column[1].get_xticklabels()} == {"10", "5", "2", "1", "0.5", "0.2"}
    assert top.get_xlim() != column[0].get_xlim()
    with_labels = [ax for ax in figure.axes if any(tick.get_visible() and tick.get_text() for tick in
                   ax.get_yticklabels() if ax.yaxis.get_tick_params()["labelleft"])]  # fmt: skip
    assert with_labels == [top, column[1]]
    legible(figure)


@pytest.mark.slow
def test_a_line_leaves_the_zoom_where_all_runs_fail_at_the_next_density() -> None:
    failed = runs_of("snip", 0.99, [0.1, 0.1, 0.1], at_chance=True)
    made = drawn("difference-to-dense", [*dense(), *runs_of("snip", 0.9), *failed, *runs_of("snip", 0.999, [0.1] * 3)])
    (ax,) = made.pages[0].axes
    leaving = [line for line in ax.get_lines() if len(line.get_xdata()) == 2 and line.get_marker() == "None"]
    (line,) = [line for line in leaving if line.get_color() == KNOWN["snip"].color]
    assert list(line.get_xdata()) == [0.1, 0.01] and line.get_ydata()[1] < ax.get_ylim()[0]
    assert "Lines that leave the axis lead to points in the figure of accuracy" in made.caption


@pytest.mark.slow
def test_differences_to_dense_are_paired_by_seed_on_one_axis() -> None:
    rows = [*dense(), *runs_of("snip", 0.9, [0.94, 0.951, 0.932]), *series("erk", model="b"), *dense(model="b")]
    figure = page("difference-to-dense", rows)
    (line,) = lines(figure.axes[1], "snip")
    assert line.get_ydata() == pytest.approx([-1.0])  # 0.95, 0.951, 0.952 without pruning
    assert len({ax.get_ylim() for ax in figure.axes}) == 1
    bar = next(p.vertices for c in figure.axes[1].collections for p in c.get_paths() if len(p.vertices) == 2)
    assert np.ptp(bar[:, 1]) / 2 == pytest.approx(100 * np.std([-0.01, 0.0, -0.02], ddof=1))
    made = figures.chosen(["difference-to-dense"])["difference-to-dense"](material(series("snip")))
    assert made == "there is no dense result"


@pytest.mark.slow
def test_the_zoom_is_not_drawn_without_a_point_in_it() -> None:
    far = [run for s in SPARSITIES for run in runs_of("snip", s, [0.5, 0.6, 0.7])]
    made = figures.chosen(["difference-to-dense"])["difference-to-dense"](material([*dense(), *far]))
    assert made == "no point lies within 10 points of the dense network"


@pytest.mark.slow
def test_only_the_ten_highest_densities_are_in_the_zoom() -> None:
    sparsities = [0.5 + 0.04 * i for i in range(12)]
    made = drawn("difference-to-dense", [*dense(), *(r for s in sparsities for r in runs_of("snip", s))])
    assert len(made.table[made.table["method"] == "snip"]) == 10


@pytest.mark.slow
def test_thirteen_series_become_small_multiples() -> None:
    names = [f"m{i}" for i in range(13)]
    gaps = [row for name in names for s in SPARSITIES for row in absent(name, s, 1, first=1)]
    made = drawn("accuracy", [*dense(), *series(*names, seeds=1)], gaps)
    assert "Runs are missing at 39 of 40 points." in made.caption
    legend = [text for text in texts(made.pages[0]) if text not in [ax.title for ax in made.pages[0].axes]]
    assert {text.get_text() for text in legend} & {*names, "Dense", "Other methods"} == {"Dense", "Other methods"}
    assert len(made.pages) == 1 and [ax.get_title() for ax in made.pages[0].axes] == sorted(names)
    assert labels(made.pages[0]) == ["Dense", OTHERS]
    assert all(sum(len(line.get_xdata()) == 3 and line.get_marker() != "None" for line in ax.get_lines()) == 1
               for ax in made.pages[0].axes)  # fmt: skip
    assert len(drawn("accuracy", [*dense(), *series(*names[:12])]).pages[0].axes) == 1


@pytest.mark.slow
def test_highlighted_methods_keep_their_colour_and_all_others_are_grey() -> None:
    names = ["snip", "prospr", "prospr:steps=2", *(f"m{i}" for i in range(12))]
    figure = page("accuracy", [*dense(), *series(*names)], highlight=("prospr",))
    assert labels(figure) == ["Dense", "ProsPr", "ProsPr (steps = 2)", OTHERS]
    (ax,) = figure.axes
    assert len(lines(ax, "prospr")) == 2 and not lines(ax, "snip")
    assert sum(line.get_color() == "#BBBBBB" for line in ax.get_lines()) == 13
    legible(figure)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["accuracy", "baseline"])
def test_pages_of_a_narrow_column_leave_room_for_a_long_caption(name: str) -> None:
    rows = [run for d in ("a", "b", "c") for m in ("x", "y", "z", "w") for run in [
        *dense(dataset=d, model=m), *series("erk", "snip", "grasp", dataset=d, model=m, note="a long note " * 20),
        *runs_of("synflow", 0.99, [0.1, 0.1, 0.5], dataset=d, model=m)]]  # fmt: skip
    made = drawn(name, rows, venue="icml", width="column")
    lines_ = len(made.caption) / (16 * 3.25)
    assert len(made.pages) > 1
    for figure in made.pages:
        figure.draw_without_rendering()
        assert figure.get_figheight() + 12 / 72 * lines_ < venues.VENUES["icml"].height


@pytest.mark.slow
def test_more_than_twenty_four_panels_are_on_several_pages() -> None:
    made = drawn("accuracy", [r for i in range(26) for r in runs_of("snip", 0.9, [0.5], model=f"net{i:02}")])
    assert [len(figure.axes) for figure in made.pages] == [24, 2]
    assert made.stems() == ["accuracy", "accuracy-2"]
    assert all(len(figure.legends) == 1 for figure in made.pages)
    assert all(figure.get_figheight() < 9 for figure in made.pages)


@pytest.mark.slow
def test_a_name_with_dollars_or_without_glyphs_is_drawn(recwarn: pytest.WarningsRecorder, tmp_path: Path) -> None:
    names = [r"a$\frac$b", "e$f$g", "☃ β 日本 _ % # $x$ <b> |"]
    made = drawn("accuracy", [*series(*names, model="m$x$", recipe="r$y$"), *series("snip", recipe=r"r$\frac$")])
    drawing.save(made, tmp_path)
    # Here the names are labels of ticks and titles of rows.
    rows = [row for dataset in names for row in series(*names, dataset=dataset)]
    drawing.save(drawn("baseline", rows, baseline=names[0]), tmp_path)
    assert not recwarn.list
    shown = " ".join(labels(made.pages[0]))
    assert names[0] in shown and names[1] in shown and "☃ β U+65E5U+672C _ % # $x$ <b> |" in shown
    assert not any(t.get_parse_math() for t in texts(made.pages[0]))


def test_long_words_are_broken_to_fit() -> None:
    assert all(text.width(line) <= 1 for line in text.wrapped("x" * 90, 1).split("\n"))
    assert text.wrapped("a b", 5) == "a b"
    value = "(cycles = 3)"
    assert text.wrapped(f"LTR {value}", text.width(value) + 0.01) == f"LTR\n{value}"
    assert text.wrapped(value, text.width("(cycles =") + 0.01) == "(cycles =\n3)"


@pytest.mark.slow
def test_captions_are_not_in_the_picture() -> None:
    made = drawn("accuracy", [*dense(), *series("snip")])
    made.pages[0].draw_without_rendering()
    said = {t.get_text() for t in texts(made.pages[0])}
    assert "Test accuracy (%)" in said and not any("deviation" in t or "n = " in t for t in said)
    assert "n = 3; last epoch" in made.caption and "sample standard deviation" in made.caption


def test_variants_and_methods_can_be_told_apart_in_grey() -> None:
    looks = style.styles([*style.KNOWN, *VARIANTS, *(f"new-{i}" for i in range(12)), "new-1:a=1", "new-1:a=2"])
    assert len({(look.marker, look.line) for look in looks.values()}) == len(looks)
    variants = style.styles(["prospr", *VARIANTS])
    assert len({look.marker for look in variants.values()}) == len(variants)
    assert len({look.line for look in variants.values()}) > 3
    assert len({look.color for look in variants.values()}) == 3
    # These cannot be told from a circle or from each other at 4 points.
    assert not {look.marker for look in looks.values()} & {"8", "h", "H"}


def test_names_from_right_to_left_are_remarked_where_matplotlib_cannot_set_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(text, "SHAPES", False)
    assert "reverse order" in text.unshaped(["snip", "רשת"]) and "3.11" in text.unshaped(["شبكة"])
    assert text.unshaped(["snip", "β 日本"]) == ""
    monkeypatch.setattr(text, "SHAPES", True)
    assert text.unshaped(["רשת"]) == ""


@pytest.mark.slow
def test_variants_are_sorted_by_their_values() -> None:
    figure = page("accuracy", series(*sorted(VARIANTS), "snip", "prospr"))
    assert labels(figure) == ["ProsPr", *(f"ProsPr (steps = {steps})" for steps in STEPS), "SNIP"]
    mixed = ["a:lr=10", "a:lr=0.5", "a:lr=auto", "a", "a:control=invert", "no spec: at all", "a:control=shuffle"]
    assert sorted(mixed, key=style.by_value) == [
        *("a", "a:control=shuffle", "a:control=invert", "a:lr=0.5", "a:lr=10", "a:lr=auto", "no spec: at all")
    ]


def test_every_shipped_method_has_its_own_look_in_every_figure() -> None:
    shipped = {name for name in registry.names() if registry.is_builtin(name)}
    assert shipped - {"dense"} <= set(style.KNOWN)
    assert all(style.styles([name])[name] == look for name, look in style.KNOWN.items())


# Machado, Oliveira and Fernandes 2009: what eyes without red or green receptors see, on linear RGB.
SIGHT = {
    "common": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(color: str, sight: str) -> np.ndarray:
    """Return the CIELAB values of a colour under a colour vision deficiency."""
    rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(np.asarray(SIGHT[sight]) @ linear, 0, 1) / (0.9505, 1, 1.089)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


BOUNDS = ("rigl", "set", "gmp", "after-training", "ltr", "lr-rewinding", "edge-popup", "gem-miner")


def test_upper_bounds_are_grey_and_differ_from_references_and_from_each_other_in_print() -> None:
    """Lightness in CIELAB, which is all that is left of a colour in grey print."""
    looks = {name: style.KNOWN[name] for name in (*BOUNDS, "erk", "small-dense")} | {"dense": style.DENSE_LOOK}
    light = {name: lab(look.color, "common")[0] for name, look in looks.items()}
    for name in BOUNDS:
        assert np.hypot(*lab(looks[name].color, "common")[1:]) < 30, f"{name} is not grey"
        assert 30 < light[name] < 83, f"{name} is near black or near white"
        assert min(abs(light[name] - light[other]) for other in ("erk", "small-dense")) > 5
    for one, other in combinations(looks, 2):
        shapes = looks[one].marker != looks[other].marker and looks[one].line != looks[other].line
        assert shapes or abs(light[one] - light[other]) > 10, (one, other)
    usual = sorted(light[name] for name in ("erk", "small-dense", "dense", "ltr", "rigl"))
    assert np.diff(usual).min() > 10


@pytest.mark.slow
@pytest.mark.parametrize("sight", SIGHT)
def test_colours_differ_for_colour_blind_eyes(sight: str) -> None:
    methods = [*(look.color for look in style.KNOWN.values()), *style._COLORS, "#555555"]
    controls = [look.color for look in style.CONTROL_STYLES.values()]
    for colors in (methods, controls):
        for one, other in combinations(colors, 2):
            assert np.linalg.norm(lab(one, sight) - lab(other, sight)) > 10, (one, other)


@pytest.mark.slow
def test_sources_can_be_told_apart() -> None:
    rows = [row for source in ("", "a", "b") for row in (*dense(source=source), *series("erk", "snip", source=source))]
    figure = page("accuracy", rows)
    assert labels(figure) == [
        *("Dense", "Dense [a]", "Dense [b]", "ERK", "SNIP", "ERK [a]", "SNIP [a]", "ERK [b]", "SNIP [b]")
    ]
    handles = [line for legend in figure.legends for line in legend.get_lines()]
    looks = {(line.get_marker(), line.get_fillstyle(), line._unscaled_dash_pattern) for line in handles}
    assert len(looks) == len(handles) == 9


@pytest.mark.slow
def test_a_series_of_a_table_alone_names_the_table() -> None:
    figure = page("accuracy", [*series("snip"), *series("snip", source="lab", model="theirs")])
    assert labels(figure) == ["SNIP", "SNIP [lab]"]
    ours, theirs = (lines(ax, "snip")[0] for ax in figure.axes)
    assert ours.get_linestyle() != theirs.get_linestyle()


@pytest.mark.slow
def test_notes_have_a_dagger_in_the_legend_and_a_text_in_the_caption() -> None:
    made = drawn("accuracy", [*dense(), *series("snip"), *series("grasp", note="sign inverted")])
    assert labels(made.pages[0]) == ["Dense", "GraSP†", "SNIP"]
    assert "† sign inverted." in made.caption


@pytest.mark.slow
@pytest.mark.parametrize(("epoch", "words"), [("best-test", "best test epoch"), ("", "epoch not stated")])
def test_the_caption_states_the_epoch(epoch: str, words: str) -> None:
    assert words in drawn("accuracy", series("snip", source="lab", epoch=epoch)).caption


@pytest.mark.slow
def test_one_seed_has_neither_a_band_nor_a_bar_nor_a_caption_about_them() -> None:
    made = drawn("accuracy", [*dense(seeds=1), *series("snip", seeds=1), *runs_of("erk", 0.9, [0.9])])
    (ax,) = made.pages[0].axes
    assert not ax.patches and not ax.collections
    assert "deviation" not in made.caption and "n = 1;" in made.caption


@pytest.mark.slow
def test_a_deviation_between_single_seeds_is_a_bar() -> None:
    rows = [*runs_of("snip", 0.9, [0.9]), *runs_of("snip", 0.95), *runs_of("snip", 0.98, [0.9])]
    (ax,) = page("accuracy", rows).axes
    bars = [path.vertices for band in ax.collections for path in band.get_paths()]
    assert any(len(bar) == 2 and np.allclose(bar[:, 1], [89, 91]) for bar in bars)


@pytest.mark.slow
def test_collapsed_and_missing_dense_references_are_marked() -> None:
    broken = [*runs_of("dense", 0.0, [0.95, 0.96]), *runs_of("dense", 0.0, [0.1], seed=2, status="diverged")]
    figure = page("accuracy", [*broken, *series("snip")])
    (ax,) = figure.axes
    assert [y for _, y in marks(ax, "x")] == [pytest.approx(ax.transData.transform((1, 67))[1], abs=0.1)]
    assert labels(figure) == ["Dense", "SNIP", SOME_FAILED]
    figure = page("accuracy", series("snip"), absent("dense", 0.0))
    assert len(marks(figure.axes[0], question())) == 1
    assert labels(figure) == ["Dense", "SNIP", MISSING]


@pytest.mark.slow
def test_marks_of_missing_points_cover_no_other_mark() -> None:
    gaps = [row for i in range(5) for row in absent(f"none-{i}", 0.98)]
    figure = page("accuracy", series("snip", "erk"), gaps)
    missing = marks(figure.axes[0], question())
    assert len(missing) == 5
    size = 4.4 * figure.dpi / 72
    assert all(np.hypot(*np.subtract(one, other)) >= size for one, other in combinations(missing, 2))


@pytest.mark.slow
def test_marks_of_missing_runs_do_not_cover_titles() -> None:
    rows = [*series("snip"), *runs_of("erk", 0.5, [0.949, 0.951]), *runs_of("erk", 0.98, [0.5, 0.51])]
    figure = page("accuracy", [*rows, *dense()], [*absent("erk", 0.5, 1, first=2), *absent("erk", 0.98, 1, first=2)])
    (ax,) = figure.axes
    high, low = sorted((y for _, y in marks(ax, question())), reverse=True)
    assert high < ax.transData.transform((0.5, 95))[1] and low > ax.transData.transform((0.02, 50.5))[1]
    assert high + 2.2 * figure.dpi / 72 < ax.bbox.y1


@pytest.mark.slow
def test_an_unfinished_sweep_is_stated_in_the_caption_rather_than_marked_at_each_point() -> None:
    gaps = [row for s in SPARSITIES for row in absent("snip", s, 1, first=3)]
    made = drawn("accuracy", series("snip"), gaps)
    assert labels(made.pages[0]) == ["SNIP"] and "Runs are missing at 3 of 3 points." in made.caption
    made = drawn("accuracy", series("snip", "erk"), gaps[:1])
    assert labels(made.pages[0]) == ["ERK", "SNIP", MISSING] and "?: results are missing." in made.caption


@pytest.mark.slow
def test_points_at_chance_are_crosses_without_a_line_and_without_a_deviation() -> None:
    rows = [*runs_of("snip", 0.9), *runs_of("snip", 0.95, [0.1, 0.6, 0.62]), *runs_of("snip", 0.98, [0.1, 0.11, 0.1])]
    made = drawn("accuracy", rows)
    (ax,) = made.pages[0].axes
    curve = next(line for line in lines(ax, "snip") if line.get_marker() == "o")
    assert np.allclose(curve.get_xdata(), [0.1, 0.05])
    assert len(marks(ax, "x")) == 2 and labels(made.pages[0]) == ["SNIP", ALL_FAILED, SOME_FAILED]
    table = made.table.set_index("density")
    assert table["failed"].to_dict() == {0.1: 0, 0.05: 1, 0.02: 3}
    assert table["std"].notna().to_dict() == {0.1: True, 0.05: False, 0.02: False}
    assert "accuracy of guessing" in made.caption


@pytest.mark.slow
def test_crosses_of_methods_that_fail_at_one_density_lie_side_by_side() -> None:
    rows = [run for s in SPARSITIES for m in ("erk", "snip", "grasp") for run in runs_of(m, s, [0.1] * 3)]
    figure = page("accuracy", [*dense(), *rows, *runs_of("synflow", 0.9)])
    (ax,) = figure.axes
    point = figure.dpi / 72
    crosses = sorted(marks(ax, "x"))
    sizes = [line.get_markersize() for line in ax.get_lines() if line.get_marker() == "x"]
    assert len(crosses) == 9 and len(set(sizes)) == 1
    gaps = [(b[0] - a[0]) / point for a, b in pairwise(crosses)]
    assert min(gaps) >= 0.99 * sizes[0]
    for s, group in zip(SPARSITIES, (crosses[:3], crosses[3:6], crosses[6:]), strict=True):
        middle = ax.transData.transform((1 - s, 10))[0]
        assert np.mean([x for x, _ in group]) == pytest.approx(middle, abs=0.1)


@pytest.mark.slow
def test_a_diverged_run_without_an_accuracy_counts_at_chance() -> None:
    rows = [*runs_of("erk", 0.9), *runs_of("erk", 0.98, [math.nan] * 3, status="diverged")]
    made = drawn("accuracy", rows)
    assert made.table.set_index("density").loc[0.02, "mean"] == pytest.approx(10)
    assert labels(made.pages[0]) == ["ERK", ALL_FAILED]
    unknown = [*runs_of("erk", 0.9), *runs_of("erk", 0.98, [math.nan] * 3, status="diverged", chance=math.nan)]
    figure = page("accuracy", unknown)
    assert len(marks(figure.axes[0], "x")) == 1 and labels(figure) == ["ERK", ALL_FAILED]


def with_controls(inverted: Sequence[float] = (0.46, 0.19, 0.1)) -> list[Any]:
    broken = [run for s, mean in zip(SPARSITIES, inverted, strict=True)
              for run in runs_of("snip:control=invert", s, [mean - 0.01, mean, mean + 0.01])]  # fmt: skip
    return [*dense(), *series("snip", "snip:control=shuffle"), *broken]


@pytest.mark.slow
def test_methods_are_drawn_beside_their_controls() -> None:
    figure = page("controls", with_controls())
    assert [ax.get_title() for ax in figure.axes] == ["SNIP"]
    labelled = [style.CONTROL_LABELS[control] for control in (None, "shuffle", "invert")]
    assert labels(figure)[:4] == ["Dense", *labelled]
    color = style.CONTROL_STYLES[labelled[1]].color
    line = next(line for line in figure.axes[0].get_lines() if line.get_color() == color)
    assert np.allclose(line.get_ydata(), [100 * (0.95 - s / 10 - 0.001 + 0.004) for s in SPARSITIES])
    assert figures.chosen(["controls"])["controls"](material(series("snip"))) == "there are no results of controls"
    assert "SNIP" in labels(page("accuracy", with_controls())) and len(labels(page("accuracy", with_controls()))) == 2


@pytest.mark.slow
def test_the_axis_ignores_a_control_at_chance() -> None:
    made = drawn("controls", with_controls())
    (ax,) = made.pages[0].axes
    low, high = ax.get_ylim()
    assert low > 80 and high - low < 20
    # Each of its points has a marker on the lower edge.
    heights = [y for _, y in marks(ax, "v") if y < ax.bbox.y0 + 0.1 * ax.bbox.height]
    assert len([y for y in heights if y >= ax.bbox.y0]) >= 2
    assert "Markers on the lower edge: points below the axis." in made.caption
    shown = "Methods beside their controls: masks shuffled within each layer, scores inverted. Points:"
    assert made.caption.startswith(shown), "only the controls of the figure"
    (ax,) = page("controls", with_controls((0.8, 0.79, 0.78))).axes
    assert ax.get_ylim()[0] < 78


@pytest.mark.parametrize("changes", [{"venue": "cvpr"}, {"width": "wide"}, {"x": "log"}, {"published": "all"}])
def test_unknown_options_are_refused(changes: dict[str, str]) -> None:
    with pytest.raises(PaiBenchError):
        Options(**changes)
    with pytest.raises(PaiBenchError, match="figure"):
        figures.chosen(["acuracy"])


@pytest.mark.slow
def test_all_figures_of_a_report_share_the_look_of_a_method() -> None:
    made = figures.draw(material(with_controls())).drawings
    assert [one.name for one in made] == ["accuracy", "difference-to-dense", "controls"]
    assert lines(made[0].pages[0].axes[0], "snip") and lines(made[1].pages[0].axes[0], "snip")
