"""Text of cost estimates, for the plan of a sweep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pai_bench.experiment.runner import Run
from pai_bench.sweep.execution.eta import duration
from pai_bench.sweep.planning.cost import Estimate


def lines(runs: Sequence[Run], found: Sequence[Estimate], device: str, places: int) -> list[str]:
    """Describe the total cost and, if there are several, the cost of each data set, model and recipe."""
    groups: dict[str, list[tuple[float, str]]] = {}
    unknown: dict[str, str] = {}
    for run, e in zip(runs, found, strict=True):
        if e.seconds is None:
            unknown.setdefault(f"{run.cell.model} on {run.cell.dataset}", e.source)
        else:
            name = f"{run.cell.dataset} · {run.cell.model} · recipe {run.recipe.name}"
            groups.setdefault(name, []).append((e.seconds, e.source))
    notes = [f"cost unknown for {name} ({reason})" for name, reason in unknown.items()]
    if not groups:
        return notes
    known = [each for es in groups.values() for each in es]
    total = sum(seconds for seconds, _ in known)
    workers = "1 worker" if places == 1 else f"{places} workers"
    head = f"cost: {_hours(total, device)}, {duration(total / places)} on {workers}"
    if len(groups) == 1:
        return [f"{head}; {_each(known)}", *notes]
    each = (f"  {name}: {_hours(sum(s for s, _ in es), device)}; {_each(es)}" for name, es in groups.items())
    return [head, *each, *notes]


def _hours(seconds: float, device: str) -> str:
    """Format hours with two significant digits, as 0.25, 42 or 5,600."""
    hours = float(f"{seconds / 3600:.2g}")
    amount = "less than 0.01" if seconds < 36 else f"about {hours:,.0f}" if hours >= 10 else f"about {hours:g}"
    return f"{amount} {'core' if device == 'cpu' else 'GPU'}-hours"


def _each(found: Sequence[tuple[float, str]]) -> str:
    """Describe the shortest and longest duration of a cell, and the most frequent source of the estimates."""
    least, most = duration(min(found)[0]), duration(max(found)[0])
    sources = [source for source, _ in Counter(source for _, source in found).most_common()]
    mostly = "mostly " if len(sources) > 1 else ""
    return f"{least if least == most else f'{least} to {most}'} a cell ({mostly}{sources[0]})"
