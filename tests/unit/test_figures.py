"""Tests of figures: nothing clipped or covered, distinguishable series, and every point drawn or marked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from pai_bench.analysis import figures, style
from pai_bench.scoring import registry

STEPS = (1, 2, 5, 10, 20, 50)
VARIANTS = [f"prospr:steps={steps}" for steps in STEPS]
SPARSITIES = (0.9, 0.95, 0.98)


def point(method: str, sparsity: float, mean: float = 0.9, **changes: object) -> dict[str, object]:
    """Return a row of a summary, complete with n = 3 by default."""
    n = changes.get("n", 3)
    row = {"source": "", "method": method, "dataset": "digits", "model": "conv8", "recipe": "quick"}
    row |= {"sparsity": sparsity, "n": n, "mean": mean if n else math.nan}
    row |= {"std": 0.01 if n not in (0, 1) else math.nan, "collapsed": 0, "diverged": 0, "planned": n}
    return row | changes


def series(*methods: str, **changes: object) -> list[dict[str, object]]:
    return [point(method, s, 0.95 - s / 10 - 0.001 * i, **changes) for i, method in enumerate(methods)
            for s in SPARSITIES]  # fmt: skip


def dense(mean: float = 0.95, **changes: object) -> dict[str, object]:
    return point("dense", 0.0, mean, **changes)


@contextmanager
def drawn(*rows: dict[str, object], controls: bool = False) -> Iterator[Figure]:
    """Draw the figure of a summary with its final layout."""
    panels = (figures.control_panels if controls else figures.accuracy_panels)(pd.DataFrame(rows))
    with figures._figure(panels) as figure:
        figure.draw_without_rendering()
        yield figure


def labels(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def handles(figure: Figure) -> dict[str, Line2D]:
    found = figure.legends[0].get_lines()
    return dict(zip(labels(figure), found, strict=True))


def marks(ax: Axes, marker: str) -> list[tuple[float, float]]:
    """Return the positions of the marks on a panel, in pixels."""
    found = [line for line in ax.get_lines() if line.get_marker() == marker]
    return [tuple(xy) for line in found for xy in line.get_transform().transform(line.get_xydata())]


def apart(boxes: Sequence[Bbox]) -> bool:
    return not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def within(figure: Figure, box: Bbox) -> bool:
    return figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 and box.y1 <= figure.bbox.y1


@pytest.mark.parametrize("names", [
    ["snip"], [f"method-{i}" for i in range(18)], [f"method-{i}" for i in range(45)],
    ["prospr:detach_first_buffer=true,lr=0.5,steps=10,variant=first_order", "x" * 90],
])  # fmt: skip
def test_every_entry_of_the_legend_is_in_the_figure(names: list[str]) -> None:
    with drawn(dense(), *series(*names), *series("snip", model="conv28")) as figure:
        entries = [text.get_window_extent() for text in figure.legends[0].get_texts()]
        assert len(entries) == 1 + len({*names, "snip"})
        assert all(within(figure, box) for box in entries) and apart(entries)
        note = figure._supxlabel.get_window_extent()
        assert apart([figure.legends[0].get_window_extent(), note, *(ax.get_window_extent() for ax in figure.axes)])


@pytest.mark.parametrize("recipes", [
    ["frankle+data.split=validation"], ["quick", "quick+train.epochs=2"],
    ["frankle+data.split=validation+train.epochs=20", "quick+scoring.dtype=float32+train.epochs=100"],
    ["quick", "x" * 70],
])  # fmt: skip
def test_titles_are_in_the_figure_and_cover_nothing(recipes: list[str]) -> None:
    models = ("resnet32-double", "vgg16-bn")
    rows = [row for recipe in recipes for model in models for row in series("snip", recipe=recipe, model=model)]
    with drawn(*rows) as figure:
        titles = [ax.title.get_window_extent() for ax in figure.axes]
        assert all(within(figure, box) for box in titles)
        assert apart([*titles, figure.legends[0].get_window_extent(), *(ax.get_window_extent() for ax in figure.axes)])
        said = "".join(ax.get_title() for ax in figure.axes) + figure.get_supxlabel()
        assert all(recipe in said.replace("\n", "") for recipe in recipes)
        assert within(figure, figure._supxlabel.get_window_extent())


def test_a_recipe_shared_by_all_panels_is_written_once() -> None:
    with drawn(*series("snip"), *series("snip", model="conv28")) as figure:
        assert [ax.get_title() for ax in figure.axes] == ["digits · conv8", "digits · conv28"]
        assert "Recipe quick." in figure.get_supxlabel()


def test_a_name_with_dollars_is_written_as_it_is() -> None:
    names = [r"a$\frac$b", "e$f$g"]
    with drawn(*series(*names, model="m$x$", recipe="r$y$"), *series("snip", recipe=r"r$\frac$")) as figure:
        texts = [*figure.legends[0].get_texts(), *(ax.title for ax in figure.axes), figure._supxlabel]
        assert set(names) < {text.get_text() for text in texts}
        assert not any(text.get_parse_math() for text in texts)


def test_variants_and_methods_can_be_told_apart_in_grey() -> None:
    looks = style.styles([*style.KNOWN, *VARIANTS, *(f"new-{i}" for i in range(12)), "new-1:a=1", "new-1:a=2"])
    assert len({(look.marker, look.line) for look in looks.values()}) == len(looks)
    variants = style.styles(["prospr", *VARIANTS])
    assert len({look.marker for look in variants.values()}) == len(variants)
    assert len({look.line for look in variants.values()}) > 3
    assert len({look.color for look in variants.values()}) == 3
    # These cannot be told from a circle or from each other at 4 points.
    assert not {look.marker for look in looks.values()} & {"8", "h", "H"}


def test_variants_are_sorted_by_their_values() -> None:
    with drawn(*series(*sorted(VARIANTS), "snip", "prospr")) as figure:
        assert labels(figure) == ["prospr", *VARIANTS, "snip"]
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


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_differ_for_colour_blind_eyes(sight: str) -> None:
    methods = [*(look.color for look in style.KNOWN.values()), *style._COLORS, "#555555"]
    controls = [look.color for look in style.CONTROL_STYLES.values()]
    for colors in (methods, controls):
        for one, other in combinations(colors, 2):
            assert np.linalg.norm(lab(one, sight) - lab(other, sight)) > 10, (one, other)


def test_sources_can_be_told_apart() -> None:
    rows = [row for source in ("", "a", "b") for row in (dense(source=source), *series("erk", "snip", source=source))]
    with drawn(*rows) as figure:
        shown = handles(figure)
        assert list(shown)[:4] == ["dense", "erk", "snip", "dense [a]"] and len(shown) == 9
        looks = {(line.get_marker(), line.get_fillstyle(), line._unscaled_dash_pattern) for line in shown.values()}
        assert len(looks) == len(shown)
        for name in ("dense", "snip"):
            dashes = {str(line._unscaled_dash_pattern) for label, line in shown.items() if label.startswith(name)}
            assert len(dashes) == 3


def test_a_panel_of_a_table_alone_says_so() -> None:
    with drawn(*series("snip"), *series("snip", source="lab", model="theirs")) as figure:
        assert labels(figure) == ["snip", "snip [lab]"]
        ours, theirs = (ax.get_lines()[0] for ax in figure.axes)
        assert ours.get_linestyle() != theirs.get_linestyle()


def test_one_seed_has_neither_band_nor_bar_nor_a_note_about_them() -> None:
    with drawn(dense(n=1), *series("snip", n=1), point("erk", 0.9, n=1)) as figure:
        (ax,) = figure.axes
        assert not ax.patches
        assert not any(np.isfinite(path.vertices[:, 1]).any() for band in ax.collections for path in band.get_paths())
        assert "deviation" not in figure.get_supxlabel() and "n = 1" in figure.get_supxlabel()


def test_a_deviation_between_single_seeds_is_a_bar() -> None:
    with drawn(point("snip", 0.9, n=1), point("snip", 0.95), point("snip", 0.98, n=1)) as figure:
        bars = [path.vertices for band in figure.axes[0].collections for path in band.get_paths()]
        assert any(len(bar) == 2 and np.allclose(bar[:, 1], [89, 91]) for bar in bars)
        assert "deviation" in figure.get_supxlabel()


def test_collapsed_and_missing_dense_references_are_marked() -> None:
    with drawn(dense(diverged=1, planned=4), *series("snip")) as figure:
        (ax,) = figure.axes
        height = ax.transData.transform((1, 95))[1]
        assert [y for _, y in marks(ax, "x")] == [pytest.approx(height)]
        assert labels(figure) == ["dense", "snip", figures._BAD, figures._PARTIAL]
    with drawn(dense(n=0, planned=3), *series("snip")) as figure:
        assert len(marks(figure.axes[0], "$?$")) == 1
        assert labels(figure) == ["dense", "snip", figures._ABSENT]


def test_marks_of_missing_points_cover_no_point() -> None:
    fallen = [point(f"low-{i}", 0.98, 0.1, std=0.0, collapsed=3) for i in range(3)]
    absent = [point(f"none-{i}", 0.98, n=0, planned=3) for i in range(5)]
    for others in ([], series("snip", "erk")):
        with drawn(*others, *fallen, *absent) as figure:
            (ax,) = figure.axes
            missing = marks(ax, "$?$")
            points = [xy for line in ax.get_lines() if line.get_marker() not in ("$?$", "None", "", "_", "|")
                      for xy in line.get_transform().transform(line.get_xydata())
                      if ax.bbox.contains(*xy)]  # fmt: skip
            assert len(missing) == 5 and len(points) >= 3
            size = 4.5 * figure.dpi / 72
            assert all(np.hypot(*np.subtract(one, other)) >= size for one in missing for other in points)
            assert all(np.hypot(*np.subtract(one, other)) >= size for one, other in combinations(missing, 2))


def test_a_broken_control_leaves_the_axis_to_the_others() -> None:
    inverted = [point("snip:control=invert", s, mean, std=0.05, collapsed=bad)
                for s, mean, bad in ((0.9, 0.46, 0), (0.95, 0.19, 2), (0.98, 0.1, 3))]  # fmt: skip
    with drawn(dense(), *series("snip", "snip:control=shuffle"), *inverted, controls=True) as figure:
        (ax,) = figure.axes
        heights = [ax.transAxes.inverted().transform((0, y))[1] for _, y in marks(ax, "o")]
        assert len(heights) == 3 and min(heights) > 0.1
        low, high = ax.get_ylim()
        assert high - low < 20 and all(tick >= 80 for tick in ax.get_yticks())
        # Below it each has its mark, and an x those that collapsed.
        assert len([y for _, y in marks(ax, "v") if ax.bbox.y0 < y < ax.bbox.y0 + 0.1 * ax.bbox.height]) == 3
        assert len(marks(ax, "x")) == 2
        assert "In the grey strip: below the axis." in figure.get_supxlabel()


def test_a_collapse_that_leaves_room_is_drawn_where_it_is() -> None:
    rows = [point("snip", s, mean, collapsed=bad) for s, mean, bad in ((0.9, 0.9, 0), (0.95, 0.5, 0), (0.98, 0.1, 3))]
    with drawn(*rows) as figure:
        (ax,) = figure.axes
        assert marks(ax, "x") == [pytest.approx(tuple(ax.transData.transform((0.02, 10))))]
        assert ax.get_ylim()[0] < 10 and "strip" not in figure.get_supxlabel()


def test_a_diverged_run_without_an_accuracy_is_not_a_missing_result() -> None:
    with drawn(*series("snip"), point("erk", 0.9), point("erk", 0.98, n=0, diverged=3)) as figure:
        (ax,) = figure.axes
        ((x, y),) = marks(ax, "x")
        assert x == pytest.approx(ax.transData.transform((0.02, 90))[0]) and ax.bbox.y0 < y
        assert labels(figure) == ["erk", "snip", figures._BAD]
        assert "without an accuracy" in figure.get_supxlabel()
    with drawn(point("snip", 0.9, n=0, diverged=3), dense(n=0, diverged=3)) as figure:
        assert len(marks(figure.axes[0], "x")) == 2
        assert "nan" not in figure.get_supxlabel()
