"""Tables of accuracies: one per panel, and one across panels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any

import pandas as pd

from pai_bench.analysis.columns import AT_CHANCE, PANEL
from pai_bench.analysis.emphasis import RULE, Emphasis
from pai_bench.analysis.grid import EMPTY, NONE, Cell, Column, Grid, Notes, Row, joined
from pai_bench.analysis.information import HEADING, SMALLER, is_small_dense, is_upper_bound
from pai_bench.analysis.labels import (
    Names,
    decimals,
    measured_at,
    panel_title,
    per_cent,
    same_networks,
    series_label,
)
from pai_bench.cells import DENSE

_NO_EMPHASIS = Emphasis(frozenset(), frozenset())
_LETTERS = {
    "collapsed": ("c", "collapsed (a layer without weights)"),
    "diverged": ("d", "diverged"),
    "at_chance": ("a", f"at chance (accuracy of at most {AT_CHANCE:g} / classes)"),
    "tied": ("t", "masks decided by ties of the scores"),
}
"""Letter and description by column that counts runs."""

Points = Sequence[Any]
"""Points of a summary as named tuples with the columns of `columns` and the value of its index."""


def panel_grids(
    summary: pd.DataFrame, emphasis: Emphasis = _NO_EMPHASIS, points: Points | None = None
) -> Iterator[Grid]:
    """Yield one table per data set, model and recipe: methods in rows, sparsities in columns, dense in the caption.

    points: the rows of `summary`, where the caller has them.
    """
    names = Names.of(summary)
    for key, panel in _grouped(points or summary.itertuples(), *PANEL).items():
        dense = [point for point in panel if point.method == DENSE]
        methods = [point for point in panel if point.method != DENSE]
        shown = methods or dense
        labels = _labels(panel, names)
        n, notes = _common_n(shown), Notes()
        columns = {sparsity: place for place, sparsity in enumerate(sorted({point.sparsity for point in shown}))}
        rows = [
            (_block(address[1], series), _row(labels[address], series, columns, n, notes, emphasis))
            for address, series in _grouped(shown, "source", "method").items()
        ]
        with_std = any(point.std == point.std for point in shown)
        parts = [_measured(panel, n, with_std)]
        parts += [_dense(dense, labels, n, notes)] if methods and dense else []
        parts += [*_explained(panel, emphasis, with_std), *names.aliases([key[1]])]
        heads = tuple(Column((), per_cent(sparsity)) for sparsity in columns)
        yield Grid(
            panel_title(*names.panel(*key)), " ".join(parts), "Sparsity (%)", heads, _blocks(rows), notes.lines()
        )


def _block(method: str, series: Points) -> str:
    """Return the heading of the block of a method; "" for methods that compete."""
    if is_small_dense(method):
        return SMALLER
    return HEADING if any(is_upper_bound(point.saw) for point in series) else ""


def _blocks(rows: Sequence[tuple[str, Row]]) -> tuple[Row, ...]:
    """Return the rows of methods, then the other blocks, each under its heading."""
    found: list[Row] = []
    for heading in ("", SMALLER, HEADING):
        block = [row for name, row in rows if name == heading]
        found += [*([Row(heading, ())] if block and heading else []), *block]
    return tuple(found)


def across_grid(summary: pd.DataFrame, emphasis: Emphasis = _NO_EMPHASIS, points: Points | None = None) -> Grid:
    """Return one table of all panels: methods in rows, sparsities by panel in columns; means only."""
    points = points or list(summary.itertuples())
    methods = [point for point in points if point.method != DENSE]
    names = Names.of(summary)
    labels, notes, n = _labels(points, names), Notes(), _common_n(methods)
    several = len({point.recipe for point in points}) > 1
    columns: list[Column] = []
    places: dict[tuple[Any, ...], int] = {}
    panels = _grouped(methods, *PANEL)
    for key, panel in panels.items():
        for sparsity in sorted({point.sparsity for point in panel}):
            places[*key, sparsity] = len(columns)
            heading = names.panel(*key)
            columns.append(Column(heading if several else heading[:2], per_cent(sparsity)))
    rows: list[tuple[str, Row]] = []
    for address, series in _grouped(points, "source", "method").items():
        mark, inner = _shared_note(series, notes)
        entries = [(point, _cell(point, n, inner, emphasis, with_std=False)) for point in series]
        if address[1] == DENSE:
            found = {_key(point): entry for point, entry in entries}
            row = Row(labels[address] + mark, tuple(found.get(key, EMPTY) for key in panels), by_group=True)
            rows.append(("", row))
            continue
        cells = [EMPTY] * len(columns)
        for point, entry in entries:
            cells[places[*_key(point), point.sparsity]] = entry
        rows.append((_block(address[1], series), Row(labels[address] + mark, tuple(cells))))
    # The sort is stable: dense networks come first, and the other rows keep their order.
    rows.sort(key=lambda entry: not entry[1].by_group)
    models = dict.fromkeys(point.model for point in points)
    said = [*_explained(points, emphasis, with_std=False), *names.aliases(models), *same_networks(models)]
    caption = " ".join([_measured(points, n, with_std=False), *said])
    return Grid("All data sets and networks", caption, "Sparsity (%)", tuple(columns), _blocks(rows), notes.lines())


def _grouped(points: Iterable[Any], *names: str) -> dict[tuple[str, ...], list[Any]]:
    """Group points by two attributes or more, in the order of the first of each group."""
    groups: dict[tuple[str, ...], list[Any]] = defaultdict(list)
    key = attrgetter(*names)
    for point in points:
        groups[key(point)].append(point)
    return groups


def _key(point: Any) -> tuple[str, ...]:
    return point.dataset, point.model, point.recipe


def _labels(points: Points, names: Names) -> dict[tuple[str, ...], str]:
    """Return the label of each (source, method); it names the epoch where the table has several."""
    several = len({point.source for point in points}) > 1
    epochs = {point.epoch for point in points}
    usual = "last" if "last" in epochs else None
    return {
        address: series_label(
            names.methods[address[1]],
            address[0],
            several,
            series[0].epoch if len(epochs) > 1 and series[0].epoch != usual else None,
        )
        for address, series in _grouped(points, "source", "method").items()
    }


def _common_n(points: Points) -> int | None:
    """Return the number of seeds if all points have the same number of planned runs, else None."""
    counts = {point.planned for point in points}
    return counts.pop() if len(counts) == 1 else None


def _row(label: str, series: Points, columns: dict[float, int], n: int | None, notes: Notes, emphasis: Emphasis) -> Row:
    mark, inner = _shared_note(series, notes)
    cells = [EMPTY] * len(columns)
    for point in series:
        cells[columns[point.sparsity]] = _cell(point, n, inner, emphasis)
    return Row(label + mark, tuple(cells))


def _shared_note(series: Points, notes: Notes) -> tuple[str, Notes | None]:
    """Return the mark for the label if all points share a note, and the notes for marks at single points if not."""
    texts = {joined(pair) for pair in {(point.note, point.suspect) for point in series}}
    return (notes.mark(texts.pop()), None) if len(texts) == 1 else ("", notes)


def _cell(point: Any, n: int | None, notes: Notes | None, emphasis: Emphasis, with_std: bool = True) -> Cell:
    """Return the entry of a point; its notes are marked unless `notes` is None."""
    digits = decimals(point.std)
    # NaN is the only value that is not equal to itself.
    known = point.mean == point.mean
    return Cell(
        f"{100 * point.mean:.{digits}f}" if known else NONE,
        f"± {100 * point.std:.{digits}f}" if with_std and point.std == point.std else "",
        _extra(point, n),
        notes.mark(joined((point.note, point.suspect))) if notes else "",
        point.Index in emphasis.bold,
        point.Index in emphasis.second,
        "a" if _is_at_chance(point) else "",
    )


def _is_at_chance(point: Any) -> bool:
    """Return True if all runs are at chance without a recorded failure; a superscript marks such a point."""
    return bool(point.at_chance and point.at_chance == point.runs == point.planned)


def _extra(point: Any, n: int | None) -> str:
    """Return the words on the runs of a point: "3", "2 of 3" (finished of planned), "1c of 3" (collapsed)."""
    letters = (
        [
            f"{count}{letter}"
            for column, (letter, _) in _LETTERS.items()
            if (count := getattr(point, column)) and not (letter == "a" and _is_at_chance(point))
        ]
        if point.collapsed or point.diverged or point.at_chance or point.tied
        else []
    )
    missing = f"{point.runs} of {point.planned}" if point.planned > point.runs else ""
    if letters:
        return f"{', '.join(letters)} of {missing or point.runs}"
    return missing or ("" if n is not None and point.planned == n else str(point.runs))


def _measured(points: Points, n: int | None, with_std: bool) -> str:
    """Return the sentence on the entries: accuracy, epoch, mean, deviation, number of seeds."""
    what = measured_at({point.recipe for point in points}, {point.epoch for point in points})
    if n == 1:
        return f"{what}, one seed."
    spread = "mean ± sample standard deviation" if with_std else "mean"
    seeds = "seeds (their number in parentheses)" if n is None else f"n = {n} seeds"
    return f"{what}, {spread} over {seeds}."


def _dense(dense: Points, labels: dict[tuple[str, ...], str], n: int | None, notes: Notes) -> str:
    """Return the sentence on the dense references."""
    texts = []
    for point in dense:
        cell = _cell(point, n, notes, _NO_EMPHASIS)
        extra = f" ({cell.extra})" if cell.extra else ""
        label = labels[point.source, point.method].removeprefix("Dense")
        texts.append(f"{cell.number}{f' {cell.spread}' if cell.spread else ''}{extra}{cell.mark}{label}")
    return f"Dense network: {', '.join(texts)}."


def _explained(points: Points, emphasis: Emphasis, with_std: bool) -> list[str]:
    """Return sentences that explain what occurs in the table: emphasis, letters, missing runs, merged sparsities."""
    parts = [RULE] if any(point.Index in emphasis.bold for point in points) else []
    marked = [point for point in points if point.collapsed or point.diverged or point.at_chance or point.tied]
    letters = [
        f"{letter} {text}"
        for column, (letter, text) in _LETTERS.items()
        if any(getattr(point, column) and not (letter == "a" and _is_at_chance(point)) for point in marked)
    ]
    missing = any(point.planned > point.runs for point in points)
    if missing:
        parts.append("(k of n): k of n planned runs have finished.")
    if letters:
        parts.append(f"In parentheses, k of n runs: {', '.join(letters)}.")
    if any(map(_is_at_chance, marked)):
        described = any(letter.startswith("a ") for letter in letters)
        parts.append(f"Superscript a: all runs {'at chance' if described else _LETTERS['at_chance'][1]}.")
    if any(point.collapsed or point.diverged or point.at_chance for point in marked):
        parts.append(
            "Runs that collapsed, diverged or are at chance count at their accuracy, or at chance without one"
            f"{'; then no ± is given' if with_std else ''}."
        )
    width = max((point.sparsity_high - point.sparsity_low) / (1 - point.sparsity) for point in points)
    if width > 1e-9:
        parts.append(f"Densities of the runs of one entry differ by up to {100 * width:.2g} %.")
    return parts
