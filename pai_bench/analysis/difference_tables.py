"""Tables of paired differences: methods to their baseline, and controls to their method."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from pai_bench.analysis import inference
from pai_bench.analysis.columns import AT_CHANCE, PANEL
from pai_bench.analysis.comparison import is_testable, testable
from pai_bench.analysis.grid import EMPTY, NONE, Cell, Column, Grid, Notes, Row, joined
from pai_bench.analysis.labels import Names, measure, measured_at, panel_title, per_cent, same_networks, series_label

_COMPARED = tuple(Column((), head) for head in ("Difference", "95 % interval", "n", "p", "smallest p", "Holm p"))
_POOLED = tuple(
    Column((), head)
    for head in ("Difference", "95 % interval", "N", "p", "Holm p", "p, new", "smallest p, new", "Holm p, new")
)


_FAILED = (
    "In parentheses, kf of m: k of the m runs of the method and the baseline failed (collapsed, diverged, or at chance:"
    f" an accuracy of at most {AT_CHANCE:g} / classes). They count at their accuracy, or at chance without"
    " one"
)


def _failed(line: dict[str, Any]) -> str:
    return f"{line['failed']}f of {line['runs']}" if line["failed"] else ""


def noted(table: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    """Return a table of differences with the column `note`: the notes about the runs of both sides of each row.

    table: of `compare`, `pool` or `compare_controls`. summary: of all points, with their notes.
    """
    keys = ["source", "method", *(PANEL if set(PANEL) <= set(table) else ["recipe"])]
    texts: dict[tuple[str, ...], list[str]] = {}
    for key, note, suspect in zip(
        summary[keys].itertuples(index=False, name=None), summary["note"], summary["suspect"], strict=True
    ):
        texts.setdefault(key, []).extend((note, suspect))
    of_control = "control" in table
    mine = table.assign(method=_specs(table)) if of_control else table
    other = table if of_control else table.assign(method=table["baseline"])
    if "baseline_source" in table:
        other = other.assign(source=table["baseline_source"])
    rows = []
    for own, reference in zip(*(part[keys].itertuples(index=False, name=None) for part in (mine, other)), strict=True):
        one, of_other = joined(texts.get(own, ())), joined(texts.get(reference, ()))
        side = "method" if of_control else "baseline"
        rows.append(joined((one, f"{side}: {of_other}" if of_other and of_other != one else "")))
    return table.assign(note=pd.Series(rows, index=table.index, dtype=object))


def comparison_grid(table: pd.DataFrame, names: Names) -> Grid:
    """Return the table of `comparison.compare`: one row per method, under a heading per panel."""
    several, notes = table["source"].nunique() > 1, Notes()
    rows = []
    panels: dict[str, list[dict[str, Any]]] = {}
    for line in table.to_dict("records"):
        panels.setdefault(panel_title(*names.panel(*(line[column] for column in PANEL))), []).append(line)
    for title, lines in panels.items():
        rows.append(Row(title, ()))
        for line in lines:
            label = series_label(names.methods[line["method"]], line["source"], several) + notes.mark(line["note"])
            n = Cell(str(line["n"]), extra=_failed(line))
            rows.append(Row(label, (Cell(_signed(line["difference"])), _interval(line), n, *_p_values(line))))
    baseline = names.methods[table["baseline"].iloc[0]]
    parts = [
        f"{measured_at(table['recipe'], table['epoch'])}, minus that of {baseline}, in points,"
        " averaged over the common sparsities and paired by seed: mean, Student t interval (not adjusted), number of"
        " seeds (n).",
        "p: two-sided sign-flip test; smallest p: the smallest that these differences could reach; Holm p: adjusted for"
        f" the methods of the panel. {_limits(table)}",
    ]
    if table["failed"].any():
        parts.append(f"{_FAILED}. A difference with such a run has no interval.")
    if (table["dropped"] != "").any():
        parts.append("Seeds without a complete pair are left out (comparison.csv names them).")
    parts += [*names.aliases(table["model"].unique()), *same_networks(names.models)]
    return Grid(f"Difference to {baseline}", " ".join(parts), "", _COMPARED, tuple(rows), notes.lines())


def pooled_grid(table: pd.DataFrame, names: Names) -> Grid:
    """Return the table of `comparison.pool`: one row per method, under a heading per recipe."""
    several, notes = table["source"].nunique() > 1, Notes()
    rows = []
    for recipe, members in table.groupby("recipe", sort=False):
        rows += [Row(recipe, ())] if recipe else []
        for line in members.to_dict("records"):
            label = series_label(names.methods[line["method"]], line["source"], several) + notes.mark(line["note"])
            count = Cell(str(line["settings"]), extra=_failed(line))
            numbers = (Cell(_signed(line["difference"])), _interval(line), count)
            p, _, adjusted = _p_values(line)
            rows.append(Row(label, (*numbers, p, adjusted, *_p_of_new_settings(line))))
    baseline = names.methods[table["baseline"].iloc[0]]
    few = table.loc[table["settings"] < inference.MIN_BLOCKS, "settings"]
    parts = [
        f"Mean difference to {baseline} over N settings (data set, network), in points; every setting and seed counts"
        " once, by its mean over the common sparsities. p: sign-flip test over settings and seeds, for these settings.",
        "For new data sets and networks: Student t interval and sign-flip test (p, new) over the means of the settings,"
        f" with the smallest p that could be reached. {_limits(table)}".rstrip(),
    ]
    if len(few):
        parts.append(f"Nothing is said of new settings from {few.max()} settings: this needs {inference.MIN_BLOCKS}.")
    if table["failed"].any():
        parts.append(f"{_FAILED}, in the means of their settings.")
    parts += same_networks(names.models)
    return Grid(f"Difference to {baseline}, pooled", " ".join(parts), "", _POOLED, tuple(rows), notes.lines())


def limits(table: pd.DataFrame) -> list[str]:
    """Return a sentence for each number of comparisons of which some adjusted p cannot be below 0.05."""
    small = table[~testable(table)]
    if "seeds_needed" not in table:
        return [f"{len(small)} of the pooled comparisons cannot be tested with these runs"] if len(small) else []
    found = []
    for (comparisons, needed), lines in small.groupby(["comparisons", "seeds_needed"], sort=False):
        noun = "comparisons" if comparisons > 1 else "comparison"
        counts = sorted(set(lines["n"]))
        if few := [n for n in counts if n < needed]:
            numbers = [", ".join(map(str, few[:-1])), str(few[-1])] if len(few) > 1 else [str(few[0])]
            seeds = f"{' or '.join(numbers)} {'seeds' if few[-1] > 1 else 'seed'}"
            family = f"{comparisons} {noun}" if comparisons < 2 else f"a family of {comparisons} {noun}"
            found.append(f"{family} cannot be tested with {seeds}; {needed} would")
        if many := int((lines["n"] >= needed).sum()):
            found.append(f"{many} of {comparisons} {noun} cannot be tested, because too many differences are exactly 0")
    return found


def _limits(table: pd.DataFrame) -> str:
    said = limits(table)
    return f"{NONE}: {'; '.join(said)}." if said else ""


def _p_values(line: dict[str, Any]) -> tuple[Cell, Cell, Cell]:
    """Return p, the smallest p and the adjusted p; no p where it could not have been below 0.05."""
    testable = is_testable(line)
    return (
        Cell(p_text(line["p"])) if testable else EMPTY,
        Cell(p_text(line["p_smallest"])),
        Cell(p_text(line["p_holm"])) if testable else EMPTY,
    )


def _p_of_new_settings(line: dict[str, Any]) -> tuple[Cell, Cell, Cell]:
    smallest = line["p_settings_smallest"]
    if smallest != smallest:
        return EMPTY, EMPTY, EMPTY
    if not is_testable(line, "p_settings_smallest"):
        return EMPTY, Cell(p_text(smallest)), EMPTY
    return Cell(p_text(line["p_settings"])), Cell(p_text(smallest)), Cell(p_text(line["p_settings_holm"]))


def p_text(p: float) -> str:
    """Format a p value with three significant digits, as "0.0625" or "0.000977"."""
    return f"{p:.3g}" if p >= 1e-4 else f"{p:.0e}".replace("e-0", "e-")


def controls_grids(comparison: pd.DataFrame, margin: float) -> Iterator[Grid]:
    """Yield the differences between controls and methods, one table per panel with one row per control."""
    # Controls have the names that they have in tables of accuracies: SNIP (invert).
    comparison = comparison.assign(method=_specs(comparison))
    names = Names.of(comparison)
    for key, panel in comparison.groupby(PANEL, sort=False):
        several, notes = panel["source"].nunique() > 1, Notes()
        columns = {sparsity: place for place, sparsity in enumerate(sorted(panel["sparsity"].unique()))}
        rows = []
        for (source, method), points in panel.groupby(["source", "method"], sort=False):
            cells = [EMPTY] * len(columns)
            for point in points.itertuples():
                cells[columns[point.sparsity]] = _control_cell(point)
            mark = notes.mark(joined(points["note"])) if "note" in points else ""
            rows.append(Row(series_label(names.methods[method], source, several) + mark, tuple(cells)))
        heads = tuple(Column((), per_cent(sparsity)) for sparsity in columns)
        caption = _controls_note(panel, margin)
        yield Grid(panel_title(*names.panel(*key)), caption, "Sparsity (%)", heads, tuple(rows), notes.lines())


def _specs(comparison: pd.DataFrame) -> list[str]:
    """Return the full name of the control of each row: snip:control=invert."""
    return [
        f"{method}{',' if ':' in method else ':'}control={control}"
        for method, control in zip(comparison["method"], comparison["control"], strict=True)
    ]


def _control_cell(point: Any) -> Cell:
    failed = ((point.collapsed, "c"), (point.diverged, "d"), (point.at_chance, "a"))
    counts = [f"{count}{letter}" for count, letter in failed if count]
    if point.failed_of_method and not counts:
        counts = [f"{point.failed_of_method}m"]
    extra = f"{', '.join(counts)} of {point.n}" if counts else str(point.n)
    if _needs_seeds(point):
        extra += f"; {int(point.seeds_needed)} needed"
    spread = f"[{_points(point.low90):.2f}, {_points(point.high90):.2f}]" if point.low90 == point.low90 else ""
    return Cell(_signed(point.difference), spread, extra, "≈" if point.equivalent else "")


def _needs_seeds(point: Any) -> bool:
    """Return True if more seeds might show equivalence: the interval is neither within nor outside the margin."""
    different = point.low90 > point.margin or point.high90 < -point.margin
    return bool(not point.equivalent and not different and point.seeds_needed > point.n)


def _controls_note(panel: pd.DataFrame, margin: float) -> str:
    parts = [
        f"{measure(panel['recipe'].unique())} of the control minus that of the method, in points, paired by seed: mean"
        " [90 % t interval] (n).",
        f"≈: the same to within {100 * margin:g} points: the interval is within ±{100 * margin:g} (two one-sided tests,"
        f" p < {inference.LEVEL:g}, not corrected for the number of tests).",
    ]
    if any(_needs_seeds(point) for point in panel.itertuples()):
        parts.append("(k needed): with this spread, about k seeds would show that equal accuracies are the same.")
    failures = ["collapsed", "diverged", "at_chance", "failed_of_method"]
    if panel[failures].any(axis=None):
        parts.append(
            "In parentheses, k of n runs: c, d, a: the control collapsed (a layer without weights), diverged or is at"
            f" chance (accuracy of at most {AT_CHANCE:g} / classes); m: the method failed in one of these ways and the"
            " control did not. Then there is neither an interval nor a test."
        )
    parts.append("Without ≈ they need not differ: few seeds show little.")
    return " ".join(parts)


def _interval(line: dict[str, Any]) -> Cell:
    if line["low"] != line["low"]:
        return EMPTY
    return Cell(f"[{_points(line['low']):.2f}, {_points(line['high']):.2f}]")


def _signed(fraction: float) -> str:
    return f"{_points(fraction):+.2f}"


def _points(fraction: float) -> float:
    """Convert a fraction to rounded percentage points without a negative zero."""
    return round(100 * fraction, 2) + 0.0
