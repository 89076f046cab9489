"""All rules, in the order in which their objections are listed."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from pai_bench.analysis.check import design, provenance, seeds
from pai_bench.analysis.check.objection import Objection
from pai_bench.analysis.collect import Collection


def find(
    collection: Collection, points: pd.DataFrame, comparison: pd.DataFrame, dirty: Mapping[str, str]
) -> tuple[Objection, ...]:
    """Return the objections to a report.

    points: one row per point, from `summarise`.
    comparison: one row per point and control, from `compare_controls`.
    dirty: hash of the uncommitted changes by path of the result, for results of such code.
    """
    rows = collection.rows
    return (
        *seeds.few_seeds(points),
        *seeds.unequal_seeds(points),
        *seeds.missing_runs(collection.missing),
        *seeds.failed_runs_in_means(points),
        *seeds.undecided_controls(comparison),
        *design.without_reference(points),
        *design.few_densities(points),
        *design.mixed_recipes(points),
        *design.single_setting(points),
        *design.unknown_information(points),
        *provenance.stale(collection.stale, (*collection.damaged, *collection.unreadable)),
        *provenance.uncommitted_code(rows, dirty),
        *provenance.epochs(rows),
        *provenance.unequal_masks(rows),
        *provenance.unequal_sizes(rows),
        *provenance.unequal_weights(rows),
        *provenance.float32_scores(rows),
    )
