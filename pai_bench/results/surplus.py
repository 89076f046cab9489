"""Detection of masks that keep more weights than the requested sparsity leaves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pai_bench.cells import SMALL_DENSE

SHARE = 0.01
"""Smallest surplus, relative to the requested number of weights, that is reported."""


def line(rows: Iterable[Mapping[str, Any]]) -> str | None:
    """Return one line on results that keep more weights than requested, None when there are none.

    Granularities of whole units keep one unit of each layer, even where these have more weights than the request. A row
    has method, dataset, model, sparsity, n_kept, n_prunable and effective; the last three may be unknown (None or NaN).
    """
    # Effective sparsities count weights on paths, and widths of narrower dense networks are whole numbers of channels.
    exact = [row for row in rows if row.get("effective") is not True and row["method"].partition(":")[0] != SMALL_DENSE]
    ratios = {
        f"{row['method']} on {row['dataset']} with {row['model']} at {100 * row['sparsity']:.4g} %": ratio
        for row in exact
        if (ratio := _ratio(row)) > 1 + SHARE
    }
    if not ratios:
        return None
    most = max(ratios, key=lambda name: ratios[name])
    which = "" if len(ratios) == 1 else f"{len(ratios)} points, most of all "
    return (
        f"more weights are kept than the sparsity leaves ({which}{most}: {ratios[most]:.2f} times as many), because one"
        " unit of each layer stays; compare with methods at the density that is reached, or ask for a lower sparsity"
    )


def _ratio(row: Mapping[str, Any]) -> float:
    """Return kept weights relative to requested ones, 0 if unknown."""
    kept, size = row.get("n_kept"), row.get("n_prunable")
    if not kept or not size or kept != kept or size != size:
        return 0.0
    wanted = (1 - row["sparsity"]) * size
    # Rounding to whole weights is not a surplus, whatever its share of a small number.
    return float(kept) / wanted if kept >= wanted + 1 else 0.0
