"""Text output of a plan: its grid, and the methods or cells to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pai_bench.cells import DENSE, Cell, MethodSpec
from pai_bench.experiment.runner import Run
from pai_bench.sweep.planning.plan import Plan

Group = tuple[str, str, str]
"""Data set, model and recipe."""

SEVERAL = 5
"""Number of cells per compilation below which it can cost more time than it saves."""


def _group(run: Run) -> Group:
    return run.cell.dataset, run.cell.model, run.recipe.name


def methods(plan: Plan) -> Iterator[str]:
    """Yield a line for each method, data set, model and recipe with cells to do."""
    groups: dict[tuple[str, Group], list[Cell]] = {}
    for planned in plan.todo:
        groups.setdefault((planned.run.cell.method, _group(planned.run)), []).append(planned.run.cell)
    for (method, (dataset, model, recipe)), cells in groups.items():
        sparsities = "" if method == DENSE else f"; sparsities {_list(sorted({cell.sparsity for cell in cells}))}"
        seeds = _list(sorted({cell.seed for cell in cells}))
        number = "1 cell" if len(cells) == 1 else f"{len(cells)} cells"
        yield f"{method} · {dataset} · {model} · {recipe}: {number}{sparsities}; seeds {seeds}"


def cells(plan: Plan) -> Iterator[str]:
    """Yield a line for each cell to do, with its recipe if one data set and model have several."""
    groups = {_group(planned.run) for planned in plan.runs}
    several = len(groups) > len({group[:2] for group in groups})
    for planned in plan.todo:
        yield f"{planned.run.cell} · {planned.run.recipe.name}" if several else str(planned.run.cell)


def _list(numbers: Sequence[float]) -> str:
    """Join numbers with commas; of more than six, give the first, the last and the count."""
    texts = [f"{number:g}" for number in numbers]
    return ",".join(texts) if len(texts) <= 6 else f"{texts[0]} to {texts[-1]} ({len(texts)})"


def grid(runs: Sequence[Run]) -> list[str]:
    """Describe the grid of a plan in one line per data set, model and recipe."""
    lines = []
    groups: dict[tuple[str, str, str], list[Cell]] = {}
    for run in runs:
        cell = run.cell
        groups.setdefault((cell.dataset, cell.model, run.recipe.name), []).append(cell)
    for (dataset, model, recipe), group in groups.items():
        specs = dict.fromkeys(MethodSpec.parse(method) for method in dict.fromkeys(c.method for c in group))
        methods = ",".join(dict.fromkeys(str(spec.uncontrolled) for spec in specs))
        if controls := dict.fromkeys(spec.control for spec in specs if spec.control is not None):
            methods += f"; controls {','.join(controls)}"
        sparsities = ",".join(f"{s:g}" for s in sorted({cell.sparsity for cell in group if cell.method != DENSE}))
        seeds = ",".join(str(seed) for seed in sorted({cell.seed for cell in group}))
        lines.append(f"{dataset} · {model} · recipe {recipe}: {methods}; sparsities {sparsities}; seeds {seeds}")
    return lines


def compilations(shares: Sequence[Sequence[Run]]) -> list[str]:
    """Return a line if `train.compile` is on in a plan whose workers (or tasks) compile for few cells each.

    `shares` are the runs of each worker; each of them compiles a network once for all of its cells with one recipe.
    """
    compiled = [[_group(run) for run in share if run.recipe.train.compile] for share in shares]
    n_cells, n_times = sum(map(len, compiled)), sum(len(set(groups)) for groups in compiled)
    if n_cells >= SEVERAL * n_times:
        return []
    return [
        f"train.compile: networks are compiled {n_times} times for {n_cells} cells, half a minute or more each time;"
        f" with fewer than {SEVERAL} cells per worker (or task), network and recipe this can take longer than it saves"
    ]
