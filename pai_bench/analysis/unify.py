"""Unification of runs from several sources: names, the dense reference, chance, epochs and operating points.

Each step returns the rows and remarks: sentences about changes that the reader of a report must know.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pai_bench.analysis.columns import AT_CHANCE, CELL, EPOCHS, OURS, PANEL, SAME_POINT
from pai_bench.analysis.information import known
from pai_bench.cells import DENSE
from pai_bench.core import method_index
from pai_bench.datasets import files

_NAMED = 5
"""Number of names that a remark lists."""


_TEXT = (*CELL[:5], "status", "epoch", "note", "suspect", "method_reported", "saw")


@dataclass(frozen=True)
class Unified:
    """Rows of all sources with the columns of `columns`, and remarks on what was changed."""

    rows: pd.DataFrame
    remarks: tuple[str, ...]


def unify(rows: pd.DataFrame) -> Unified:
    """Unify the rows of all sources; `rows` has CELL, accuracy, status, epoch, chance and the reported columns."""
    rows = rows.copy()
    remarks = unify_names(rows)
    rows, dense = _unify_dense(rows)
    rows["chance"] = rows["chance"].fillna(rows["dataset"].map(_known_chance(rows["dataset"].unique())))
    by_name = rows["method"].map(known)
    # Older results and most tables do not say it; of built-in methods it is known.
    rows["saw"] = rows["saw"].where(rows["saw"].notna() & (rows["saw"] != ""), by_name) if "saw" in rows else by_name
    failed = rows["status"] != "ok"
    rows["counted"] = rows["accuracy"].where(rows["accuracy"].notna() | ~failed, rows["chance"])
    rows["at_chance"] = ~failed & (rows["accuracy"] <= AT_CHANCE * rows["chance"])
    points = _unify_sparsities(rows)
    rows = _one_epoch_a_source(rows)
    # Python strings: iterating over Arrow strings takes ten times as long.
    text = [column for column in _TEXT if column in rows]
    return Unified(rows.astype(dict.fromkeys(text, object)), (*remarks, *dense, *points))


def dense_names(rows: pd.DataFrame) -> pd.DataFrame:
    """Name the method of every row with sparsity 0 `dense`: without pruning, all methods train the same network."""
    return rows.assign(method=rows["method"].where(rows["sparsity"] != 0, DENSE))


def unify_names(rows: pd.DataFrame) -> list[str]:
    """Replace names of tables in place that differ from known names only in case; suggest known names for others."""
    ours = rows["source"] == OURS
    known = {
        "method": {*method_index.builtin(), DENSE, *rows.loc[ours, "method"]},
        "dataset": {*files.names(), *rows.loc[ours, "dataset"]},
        "model": set(rows.loc[ours, "model"]),
        "recipe": set(rows.loc[ours, "recipe"]),
    }
    found, near, apart = [], [], []
    for column, names in known.items():
        folded = {name.casefold(): name for name in sorted(names)}
        new = {}
        for name in sorted(set(rows.loc[~ours, column].unique()) - names - {""}):
            base, colon, rest = name.partition(":")
            if name.casefold() in folded:
                new[name] = folded[name.casefold()]
            elif colon and column == "method" and base.casefold() in folded:
                new[name] = folded[base.casefold()] + colon + rest
            elif not colon and column in ("method", "dataset"):
                close = _close(name.casefold(), folded)
                near += [f"{column} {name!r} is not known: did you mean {folded[close]!r}?"] if close else []
        new = {name: unified for name, unified in new.items() if name != unified}
        if both := _with_equal_cells(rows, column, new):
            same = "have the same cells as others" if len(both) > 1 else "has the same cells as another one"
            apart.append(f"{_listed(map(repr, sorted(both)))} {same} of that name: kept apart")
            new = {name: unified for name, unified in new.items() if name not in both}
        left = set(rows.loc[~ours, column].unique()) - set(new) - both
        others = Counter(name.casefold() for name in left)
        if several := sorted(name for name in left if others[name.casefold()] > 1):
            apart.append(f"{_listed(map(repr, several))} differ in case only: kept apart")
        if new:
            rows[column] = rows[column].where(ours, rows[column].replace(new))
            found += [f"{name!r} as {unified!r}" for name, unified in new.items()]
    counted = [f"names that differ in case only are unified: {_listed(found)}"] if found else []
    return [*counted, *apart, *near]


def _close(name: str, known: Collection[str]) -> str:
    """Return the known name that is most similar to a name, or an empty text if none is a likely typing error of it."""
    # In short names such as snip, two exchanged letters are a large difference to difflib.
    exchanged = (name[:i] + name[i + 1] + name[i] + name[i + 2 :] for i in range(len(name) - 1))
    close = [*filter(known.__contains__, exchanged), *difflib.get_close_matches(name, known, n=1, cutoff=0.8)]
    return close[0] if close else ""


def _with_equal_cells(rows: pd.DataFrame, column: str, new: dict[str, str]) -> set[str]:
    """Return the names that would give a second run of a cell to another name of the table, if they were replaced."""
    if not new:
        return set()
    keys = [*CELL, *["epoch"] * ("epoch" in rows), *["paper"] * ("paper" in rows)]
    # Tables list the dense network under every method.
    changed = rows[rows["sparsity"] != 0].assign(**{column: rows[column].replace(new)})
    twice = changed[changed.duplicated(keys, keep=False)].index.difference(
        rows[rows.duplicated(keys, keep=False)].index
    )
    return set(rows.loc[twice, column]) & set(new)


def _unify_dense(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Name all runs at sparsity 0 dense and drop copies of them; rename runs called dense at other sparsities."""
    remarks = []
    pruned = (rows["method"] == DENSE) & (rows["sparsity"] > 0)
    if pruned.any():
        shown = rows.loc[pruned, "sparsity"].map(lambda sparsity: f"{DENSE} at sparsity {100 * sparsity:.6g} %")
        rows.loc[pruned, "method"] = shown
        remarks.append(
            f"{_listed(sorted(set(shown)))} {'is' if shown.nunique() == 1 else 'are'} not dense: shown as a method,"
            " not used as the dense reference"
        )
    renamed = (rows["sparsity"] == 0) & (rows["method"] != DENSE)
    if renamed.any():
        names = sorted(set(rows.loc[renamed, "method"]))
        rows = dense_names(rows)
        copies = _copied_series(rows[rows["method"] == DENSE])
        rows = rows.drop(index=copies).reset_index(drop=True)
        remarks.append(f"sparsity 0 counts as dense ({_listed(names)})")
        if len(copies):
            remarks.append(
                f"{len(copies)} dense runs that repeat the seeds and accuracies of another method count once"
                if len(copies) > 1
                else "one dense run that repeats the seed and accuracy of another method counts once"
            )
    return rows, remarks


def _copied_series(dense: pd.DataFrame) -> list[int]:
    """Return the index of dense runs whose series of seeds and accuracies equals the series of another method."""
    seen, copies = set(), []
    for key, series in dense.groupby(["source", "epoch", *PANEL, "method_reported"], sort=False):
        runs = tuple(sorted(zip(series["seed"], series["accuracy"].astype(str), strict=True)))
        if (address := (*key[:-1], runs)) in seen:
            copies += list(series.index)
        seen.add(address)
    return copies


def _known_chance(names: Iterable[str]) -> dict[str, float]:
    """Return the chance accuracy of the data sets of pai-bench; hyphens, blanks and case are ignored."""

    def folded(name: str) -> str:
        return "".join(character for character in name.casefold() if character not in "-_ ")

    known = {folded(name): name for name in files.names()}
    return {name: 1 / files.info(known[folded(name)]).classes for name in names if folded(name) in known}


def _unify_sparsities(rows: pd.DataFrame) -> list[str]:
    """Merge sparsities of tables in place that are one operating point (see `operating_points`)."""
    if not operating_points(rows["sparsity"]):
        return []
    spread = 0.0
    for _, panel in rows.groupby(["dataset", "model"], sort=False):
        tables = panel[panel["source"] != OURS]
        anchors = set(panel.loc[panel["source"] == OURS, "sparsity"])
        merged = operating_points(tables["sparsity"], anchors)
        if not merged:
            continue
        changed = tables.assign(sparsity=tables["sparsity"].replace(merged))
        # Two runs of one method and seed are two operating points, however close they are.
        keys = ["source", "epoch", "method_reported", "recipe", "sparsity", "seed"]
        twice = changed["sparsity"].isin(changed.loc[changed.duplicated(keys), "sparsity"])
        changed = changed[~twice & (changed["sparsity"] != tables["sparsity"])]
        if len(changed):
            before = rows.loc[changed.index, "sparsity"]
            spread = max(spread, float(((before - changed["sparsity"]).abs() / (1 - before)).max()))
            rows.loc[changed.index, "sparsity"] = changed["sparsity"]
    if not spread:
        return []
    return [
        f"sparsities that differ by less than 1 % of the density are one operating point (up to {100 * spread:.2g} %)"
    ]


def operating_points(sparsities: pd.Series, anchors: Iterable[float] = ()) -> dict[float, float]:
    """Map each sparsity that is not its own operating point to that point.

    Densities that differ by less than SAME_POINT from the largest density of a group form a group. Its operating point
    is an anchor (a sparsity of the results folder) in reach, else the most frequent sparsity, among equals the one with
    the fewest digits.
    """
    fixed = set(anchors)
    counts = sparsities.value_counts()
    for anchor in fixed:
        # More than any sparsity can occur, so that an anchor always wins.
        counts[anchor] = len(sparsities) + 1
    # Grouped from the largest density of a group: a chain of close sparsities must not merge distant ones.
    groups: list[list[float]] = []
    for sparsity in sorted(value for value in counts.index if value > 0):
        start = groups[-1][0] if groups else None
        if start is not None and sparsity - start < SAME_POINT * (1 - start) * (1 - 1e-9):
            groups[-1].append(sparsity)
        else:
            groups.append([sparsity])
    merged: dict[float, float] = {}
    for group in groups:
        best = min(group, key=lambda value: (-counts[value], len(repr(float(value))), value))
        merged |= {value: best for value in group if value != best and value not in fixed}
    return merged


def _one_epoch_a_source(rows: pd.DataFrame) -> pd.DataFrame:
    """Split a source with results of several epochs into one source per epoch."""
    counts = rows.groupby("source")["epoch"].nunique()
    several = rows["source"].isin(counts[counts > 1].index)
    if not several.any():
        return rows
    return rows.assign(source=np.where(several, rows["source"] + ", " + rows["epoch"].map(EPOCHS), rows["source"]))


def _listed(names: Iterable[str]) -> str:
    texts = list(names)
    more = f" and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return ", ".join(texts[:_NAMED]) + more
