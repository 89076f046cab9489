"""Cost of scoring in float64 by device, and advice to the user where the cost is high."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

GPUS_FOR_FLOAT64 = ("H100", "H200", "GH200", "A100", "A30", "V100", "P100", "B200")
"""Substrings of the names of GPUs with float64 at half the speed of float32; on other GPUs it is 1/32 or 1/64."""

SLOW_SECONDS = 60.0
SLOW_FRACTION = 0.05
"""Fraction of the training time above which float64 scoring counts as slow."""


def float64_slowdown(device: str) -> int:
    """Return the assumed factor by which float64 is slower than float32 on "cpu" or a GPU of that name.

    For estimates of devices that are not at hand; `experiment.cost.float64_slowdown` measures the device in use.
    """
    return 2 if device == "cpu" or any(name in device for name in GPUS_FOR_FLOAT64) else 64


def advice(rows: Iterable[Mapping[str, Any]]) -> str | None:
    """Return one line of advice about results with slow float64 scoring on a GPU, or None if there are none.

    Each row has device, scoring_dtype, score_seconds and train_seconds.
    """
    on_gpus = [row for row in rows if row["device"] not in (None, "cpu") and row["scoring_dtype"] == "float64"]
    known = [row for row in on_gpus if row["score_seconds"] and row["train_seconds"]]
    slow = [
        row
        for row in known
        if row["score_seconds"] > min(SLOW_SECONDS, SLOW_FRACTION * row["train_seconds"]) and row["score_seconds"] > 1
    ]
    if not slow:
        return None
    seconds = median(row["score_seconds"] for row in slow)
    share = median(row["score_seconds"] / row["train_seconds"] for row in slow)
    return (
        f"scoring in float64 took {seconds:.0f} s ({100 * share:.0f} % of the training) in {len(slow)} cells on"
        f" {slow[0]['device']}: --set scoring.dtype=float32 is faster, but masks change; how much is recorded"
    )


def overlap_line(overlaps: Iterable[float]) -> str | None:
    """Return one line about the overlap of float32 masks with float64 masks, or None if there are no data."""
    known = sorted(overlaps)
    if not known:
        return None
    return (
        f"{len(known)} masks scored in float32 share {100 * median(known):.1f} % with those of float64"
        f" (median of intersection over union; the least: {100 * known[0]:.1f} %)"
    )
