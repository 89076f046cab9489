"""Results that keep more weights than their sparsity leaves."""

from __future__ import annotations

import math
from typing import Any

from pai_bench.results import surplus


def row(kept: float | None, *, method: str = "snip", effective: bool = False, sparsity: float = 0.9) -> dict[str, Any]:
    about = {"method": method, "dataset": "digits", "model": "conv8", "sparsity": sparsity}
    return {**about, "n_kept": kept, "n_prunable": 1000, "effective": effective}


def test_results_that_keep_more_than_asked_are_named_with_the_largest_ratio() -> None:
    line = surplus.line([row(100), row(104), row(117, method="random")])
    assert line and "2 points, most of all random on digits with conv8 at 90 %: 1.17 times as many" in line
    line = surplus.line([row(150, sparsity=0.95), row(150, sparsity=0.95)])
    assert line and "(snip on digits with conv8 at 95 %: 3.00 times as many)" in line


def test_exact_counts_whole_widths_weights_on_paths_and_unknown_counts_are_not_named() -> None:
    assert surplus.line([]) is None
    assert surplus.line([row(100), row(100.9), row(40), row(None), row(math.nan), row(1000, sparsity=0.0)]) is None
    assert surplus.line([row(120, method="small-dense:equal=flops"), row(300, effective=True)]) is None
