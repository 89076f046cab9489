"""Objections to the origin of results: code, epochs, masks, initial weights and the precision of scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from pai_bench.analysis.check.objection import Objection, counted, panel_name, sweep
from pai_bench.analysis.columns import EPOCHS, OURS, PANEL
from pai_bench.analysis.information import is_small_dense
from pai_bench.analysis.labels import panel_title, per_cent
from pai_bench.analysis.statistics import split_control
from pai_bench.cells import SMALL_DENSE

FAR = 0.1
"""Relative difference of sizes from which a dense network with narrower layers is objected to."""

REINIT = "reinit"
"""Control that trains other initial weights by design."""


def stale(paths: Sequence[str], damaged: Sequence[str]) -> Iterator[Objection]:
    """Object to results of other settings or versions, and to damaged files, in the results folder."""
    if paths:
        yield Objection(
            "stale-results",
            f"{counted(len(paths), 'result')} made with other settings or by another version than the newest plan",
            "run pai-bench sweep again, which computes them with the current settings",
            tuple(paths),
        )
    if damaged:
        yield Objection(
            "damaged-files",
            f"{counted(len(damaged), 'damaged or unreadable file')}, not counted",
            "restore them from a copy, or run pai-bench sweep again, which computes the results again",
            tuple(damaged),
        )


def uncommitted_code(rows: pd.DataFrame, dirty: Mapping[str, str]) -> Iterator[Objection]:
    """Object to results of code with uncommitted changes; `dirty` maps result paths to hashes of the changes."""
    if not dirty:
        return
    changed = rows[rows["path"].isin(dirty)] if "path" in rows else rows.iloc[:0]
    where = []
    for key, panel in changed.groupby(PANEL, sort=False):
        hashes = ", ".join(sorted({dirty[path][:8] for path in panel["path"]}))
        where.append(f"{panel_title(*key)}: {counted(len(panel), 'result')} ({hashes})")
    if where:
        yield Objection(
            "uncommitted-code",
            f"{counted(len(changed), 'result')} of code with uncommitted changes, which nobody can restore",
            f"commit the changes and compute the results again: {sweep(changed, redo=True)}",
            tuple(where),
        )


def epochs(rows: pd.DataFrame) -> Iterator[Objection]:
    """Object to accuracies of the best test epoch, and to tables that do not state the epoch."""
    for epoch, code, remedy in (
        ("best-test", "best-test-epoch", "report the last epoch, or the epoch that a validation set selects"),
        ("", "epoch-not-stated", "add a column epoch with last, best-val or best-test to the table"),
    ):
        found = rows[rows["epoch"] == epoch]
        if len(found):
            counts = found.groupby("source", sort=False).size()
            yield Objection(
                code,
                f"{EPOCHS[epoch]}: {'selected with the test set, so too high' if epoch else 'it may be the best one'}",
                remedy,
                tuple(
                    f"{source or 'the results folder'}: {counted(count, 'result')}" for source, count in counts.items()
                ),
            )
    several = [panel for _, panel in rows.groupby(PANEL, sort=False) if panel["epoch"].nunique() > 1]
    if several:
        yield Objection(
            "mixed-epochs",
            "accuracies of different epochs in one panel",
            "compare accuracies of the same epoch only; leave the table out, or use its last epoch",
            tuple(
                f"{panel_title(*panel.iloc[0][PANEL])}: {', '.join(EPOCHS[epoch] for epoch in panel['epoch'].unique())}"
                for panel in several
            ),
        )


def unequal_masks(rows: pd.DataFrame) -> Iterator[Objection]:
    """Object to methods that keep different numbers of weights at one density and seed.

    Narrower dense networks come as close as whole channels allow; `unequal_sizes` is about them. Effective sparsities
    count the weights on paths, to which any number of weights without a path may be added.
    """
    where = []
    exact = ~rows["method"].map(is_small_dense).astype(bool)
    if "effective" in rows:
        exact &= rows["effective"].ne(True)
    for group in _unequal(rows[exact], [*PANEL, "sparsity", "seed"], "n_kept"):
        first = group.iloc[0]
        at = f"{panel_name(first)} at {per_cent(first['sparsity'])} %, seed {int(first['seed'])}"
        counts = group.groupby("n_kept")["method"].agg(_names)
        where.append(f"{at}: {'; '.join(f'{int(kept):,} weights: {names}' for kept, names in counts.items())}")
    if where:
        yield Objection(
            "unequal-kept-counts",
            "methods keep different numbers of weights at the same density, so that the comparison is not fair",
            "compute masks with exactly round(density x N) kept weights, or compare at equal counts; state the counts"
            " where masks of whole units differ by less than one unit",
            tuple(where),
        )


def unequal_sizes(rows: pd.DataFrame) -> Iterator[Objection]:
    """Object to narrower dense networks whose size is far from the density (`FAR`), where it is known."""
    measured = {"params": ("n_kept", "n_prunable"), "flops": ("flops_sparse", "flops_dense")}
    where = []
    for equal, (part, whole) in measured.items():
        if part not in rows or whole not in rows:
            continue
        names = (SMALL_DENSE, f"{SMALL_DENSE}:equal=params") if equal == "params" else (f"{SMALL_DENSE}:equal={equal}",)
        chosen = rows["method"].isin(names)
        small = rows.loc[chosen]
        ratio = small[part].astype(float) / small[whole].astype(float) / (1 - small["sparsity"])
        far = small.assign(ratio=ratio)[(ratio - 1).abs() > FAR]
        for _, group in far.groupby([*PANEL, "method", "sparsity"], sort=False):
            first = group.iloc[0]
            at = f"{panel_name(first)} at {per_cent(first['sparsity'])} %"
            where.append(f"{at}: {first['method']} has {first['ratio']:.2f} times the size")
    if where:
        yield Objection(
            "unequal-sizes",
            "dense networks with narrower layers are not of the size of the pruned ones: no width comes closer",
            "compare at a density that a width reaches, or state the size",
            tuple(where),
        )


def unequal_weights(rows: pd.DataFrame) -> Iterator[Objection]:
    """Object to methods that start from different weights at one seed.

    The control reinit and narrower dense networks do so by design.
    """
    where = []
    paired = rows.loc[[split_control(m)[1] != REINIT and not is_small_dense(m) for m in rows["method"]]]
    for group in _unequal(paired, [*PANEL, "seed"], "init_hash"):
        counts = group.groupby("init_hash")["method"].agg(_names)
        shown = "; ".join(f"{init[:8]}: {names}" for init, names in counts.items())
        where.append(f"{panel_name(group.iloc[0])}, seed {int(group['seed'].iloc[0])}: {shown}")
    if where:
        yield Objection(
            "unequal-initial-weights",
            "methods start from different initial weights at the same seed, so that differences are not paired",
            f"compute the results again with one version of the code: {sweep(paired, redo=True)}",
            tuple(where),
        )


def _unequal(rows: pd.DataFrame, keys: list[str], column: str) -> Iterator[pd.DataFrame]:
    """Yield the groups of runs with equal `keys` of which not all have the same value of `column`, where known."""
    if column not in rows:
        return
    known = rows[rows[column].notna()]
    odd = known[known.groupby(keys)[column].transform("nunique") > 1]
    for _, group in odd.groupby(keys, sort=False):
        yield group


def _names(methods: pd.Series) -> str:
    return ", ".join(sorted(set(methods)))


def float32_scores(rows: pd.DataFrame) -> Iterator[Objection]:
    """Object to masks of float32 scores, unless they were measured to equal the masks of float64 scores."""
    if "scoring_dtype" not in rows:
        return
    single = rows[(rows["scoring_dtype"] == "float32") & (rows["source"] == OURS) & (rows["sparsity"] > 0)]
    single = single[~(single["float64_overlap"] == 1)]
    where = []
    for (method, *key), group in single.groupby(["method", *PANEL], sort=False):
        overlap = group["float64_overlap"].min()
        # The comparison with itself is False for NaN: no overlap was measured.
        known = f", overlap with float64 at least {100 * overlap:.1f} %" if overlap == overlap else ""
        where.append(f"{panel_title(*key)}: {method} ({counted(len(group), 'result')}{known})")
    if where:
        yield Objection(
            "float32-scores",
            "scores were computed in float32, whose rounding errors change the masks of some methods",
            "compute the scores in float64: --set scoring.dtype=float64, or state the overlap",
            tuple(where),
        )
