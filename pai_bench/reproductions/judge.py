"""Verdict on each published value: our mean, its interval, and one rule."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pandas as pd
from scipy.special import stdtrit

from pai_bench.cells import DENSE, parse_seeds
from pai_bench.reproductions.schema import Entry, Reproduction, Target

REPRODUCED, NOT_REPRODUCED, NOT_FINISHED, NOT_RUN = VERDICTS = (
    "reproduced",
    "not reproduced",
    "not finished",
    "not run",
)

RULE = (
    "Reproduced: the published value is inside our 95 % interval (Student t over seeds), widened on both sides by the"
    " published standard deviation, or by half a unit of the last printed digit if none was printed. Not reproduced:"
    " it is outside. Not finished: some of the planned runs are still to do, and no verdict is given before the last."
)
LEVEL = 0.95


@dataclass(frozen=True)
class Judged:
    """A published value, our value in the same unit (per cent), and the verdict."""

    entry: Entry
    n: int
    mean: float
    """NaN without a run."""
    low: float
    high: float
    """95 % Student t interval; NaN with fewer than two runs."""
    verdict: str

    @property
    def difference(self) -> float:
        """Our mean minus the published value."""
        return self.mean - self.entry.published


def judge(reproduction: Reproduction, rows: pd.DataFrame) -> list[Judged]:
    """Judge all entries of a reproduction by results (`rows` as in `load_results`)."""
    return [judge_entry(entry, _values(entry, rows)) for entry in reproduction.entries]


def judge_entry(entry: Entry, values: list[float]) -> Judged:
    """Judge an entry by the values of our runs, in per cent."""
    n = len(values)
    mean = sum(values) / n if n else math.nan
    if n < 2:
        return Judged(entry, n, mean, math.nan, math.nan, NOT_FINISHED if n else NOT_RUN)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    # Student's t, because the deviation is estimated from few seeds; scipy.special avoids the import of scipy.stats.
    half = float(stdtrit(n - 1, 0.5 + LEVEL / 2)) * deviation / math.sqrt(n)
    # One hundred-thousandth of a point allows for the rounding of sums of decimals.
    inside = abs(mean - entry.published) <= half + entry.tolerance + 1e-5
    # A verdict on the first seeds would depend on when somebody looked.
    verdict = NOT_FINISHED if n < entry.planned else REPRODUCED if inside else NOT_REPRODUCED
    return Judged(entry, n, mean, mean - half, mean + half, verdict)


def _values(entry: Entry, rows: pd.DataFrame) -> list[float]:
    """Return the measure of each run of an entry's point, in per cent."""
    if not len(rows):
        return []
    # Sparsities read from files may differ from the entry's in the last digits.
    place = rows["sparsity"].sub(entry.sparsity).abs() < 1e-12
    for column in ("dataset", "model", "method", "recipe"):
        place &= rows[column] == getattr(entry, column)
    accuracies = rows.loc[place, "accuracy"].dropna()
    return [100 * (1 - value if entry.measure == "error" else value) for value in accuracies]


@dataclass(frozen=True)
class Beside:
    """Results of another method or control at the points of a reproduction's entries."""

    model: str
    sparsity: float
    recipe: str
    method: str
    n: int
    mean: float
    """In the measure of the entries, in per cent."""
    std: float
    """Sample standard deviation; NaN with one run."""


def beside(reproduction: Reproduction, rows: pd.DataFrame) -> list[Beside]:
    """Return the results of masks that no entry names, at its model and sparsity, in the recipes of the sweeps."""
    found: dict[tuple[str, float, str, str], Beside] = {}
    judged = {(entry.model, entry.recipe, entry.sparsity, entry.method) for entry in reproduction.entries}
    for entry in {(e.model, e.recipe, e.sparsity): e for e in reproduction.entries}.values():
        here = rows[(rows["dataset"] == entry.dataset) & (rows["model"] == entry.model)]
        own = {e.recipe for e in reproduction.entries if e.model == entry.model}
        others = [name for name in reproduction.recipes.get((entry.dataset, entry.model), ()) if name not in own]
        for recipe in (entry.recipe, *others):
            for method in sorted(set(here["method"]) - {DENSE}):
                place = (entry.model, entry.sparsity, recipe, method)
                values = pd.Series(_values(replace(entry, recipe=recipe, method=method), rows), dtype=float)
                if len(values) and (entry.model, recipe, entry.sparsity, method) not in judged:
                    found[place] = Beside(*place, len(values), float(values.mean()), float(values.std()))
    return list(found.values())


@dataclass(frozen=True)
class Reached:
    """Smallest budgets at which a method reaches a target on a model."""

    model: str
    method: str
    target: Target
    n: int
    """Smallest number of runs over the budgets."""
    planned: int
    """Number of seeds in the sweep."""
    tried: tuple[int, ...]
    by_mean: int | None
    """Smallest budget whose mean over seeds reaches the target; None if none does."""
    by_best: int | None
    """Smallest budget at which one of the runs reaches it."""


def budgets(reproduction: Reproduction, rows: pd.DataFrame) -> list[Reached]:
    """Return the smallest budgets for each model, method and target of a reproduction.

    The dense network counts as a budget of all its weights.
    """
    found = []
    names = {(str(s["datasets"]), str(s["recipes"]), str(s["models"])) for s in reproduction.sweeps}
    selected = pd.Series(False, index=rows.index)
    for dataset, recipe, models in sorted(names):
        stem = rows["recipe"].map(lambda name: name.partition("+")[0]) == recipe
        selected |= (rows["dataset"] == dataset) & stem & rows["model"].isin(models.split(","))
    seeds = {
        model: len(parse_seeds(str(sweep["seeds"])))
        for sweep in reproduction.sweeps
        for model in str(sweep["models"]).split(",")
    }
    for (model, method), group in rows[selected].groupby(["model", "method"], sort=False):
        accuracy = group.groupby(group["n_kept"].astype(int))["accuracy"]
        mean, best, count = accuracy.mean(), accuracy.max(), accuracy.count()
        for target in reproduction.targets:
            reached = [series.index[series >= target.accuracy] for series in (mean, best)]
            first = [int(index.min()) if len(index) else None for index in reached]
            tried = tuple(sorted(mean.index))
            found.append(Reached(str(model), str(method), target, int(count.min()), seeds[model], tried, *first))
    return found
