"""Runs by series, sparsity and seed, for comparisons of methods at equal seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from pai_bench.analysis.columns import PANEL
from pai_bench.analysis.information import is_small_dense
from pai_bench.analysis.statistics import split_control
from pai_bench.cells import DENSE


@dataclass(frozen=True)
class Series:
    """A method of one source in one panel."""

    source: str
    method: str
    dataset: str
    model: str
    recipe: str

    @property
    def panel(self) -> tuple[str, str, str]:
        """Data set, model and recipe."""
        return self.dataset, self.model, self.recipe

    @property
    def is_reference(self) -> bool:
        """True for dense networks, also narrower ones, and for controls, which do not compete with methods."""
        return self.method == DENSE or is_small_dense(self.method) or split_control(self.method)[1] is not None


class Run(NamedTuple):
    """Accuracy, initial weights and failure of a run, for comparisons."""

    counted: float
    init_hash: str
    """"" where it is not known."""
    failed: bool
    """True if the run collapsed, diverged or is at chance: such runs are another population, without an interval."""


Runs = dict[Series, dict[float, dict[int, Run]]]
"""Runs by series, sparsity and seed."""


def by_series(rows: pd.DataFrame) -> Runs:
    """Return the counted runs by series, sparsity and seed; without dense runs, of which a seed may have several."""
    counted = rows[rows["counted"].notna() & (rows["method"] != DENSE)]
    hashes = counted["init_hash"].fillna("") if "init_hash" in counted else pd.Series("", index=counted.index)
    columns = ["source", "method", *PANEL]
    found: Runs = {}
    number = counted.groupby(columns, sort=False).ngroup()
    names = [Series(*key) for key in counted.loc[~number.duplicated(), columns].itertuples(index=False, name=None)]
    failed = (counted["status"] != "ok") | counted.get("at_chance", False)
    runs = zip(counted["counted"].tolist(), hashes.tolist(), failed.tolist(), strict=True)
    points = [found.setdefault(name, {}) for name in names]
    addresses = zip(number.tolist(), counted["sparsity"].tolist(), counted["seed"].tolist(), strict=True)
    for (place, sparsity, seed), run in zip(addresses, map(Run._make, runs), strict=True):
        points[place].setdefault(sparsity, {})[seed] = run
    return found


def paired_runs(ours: dict[int, Run], theirs: dict[int, Run]) -> dict[int, tuple[Run, Run]]:
    """Return the pairs of runs by seed, where both have the seed and, if known, the same initial weights."""
    found = {}
    for seed in sorted(ours.keys() & theirs.keys()):
        one, other = ours[seed], theirs[seed]
        if one.init_hash == other.init_hash or not (one.init_hash and other.init_hash):
            found[seed] = (one, other)
    return found


def sources_with_epoch(rows: pd.DataFrame) -> dict[str, str]:
    """Return the epoch by source; each source has one."""
    return dict(rows[["source", "epoch"]].drop_duplicates("source").itertuples(index=False, name=None))
