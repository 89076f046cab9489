"""Notes on scoring data that methods of a sweep do not read, so that their masks do not change with it."""

from __future__ import annotations

from collections.abc import Iterable

from pai_bench.cells import DENSE, SMALL_DENSE
from pai_bench.experiment.runner import Run
from pai_bench.scoring import registry

REASONS = {
    "nothing": "no scoring data",
    "inputs": "no labels",
    "training": "training batches alone",
    "unknown": "masks from a file",
}
"""What the masks of a method depend on, by the data that it sees (see `registry.sees`)."""


def notes(runs: Iterable[Run]) -> list[str]:
    """Return a line for each group of methods whose masks are the same with other scoring data as with training images.

    The facts of a method, which `check_method` verifies, state the data that it sees. Warm-up passes read inputs for
    every method.
    """
    kinds: dict[tuple[str, str], dict[str, None]] = {}
    for run in runs:
        name, scoring = run.cell.spec.name, run.recipe.scoring
        if scoring.data == "train" or name in (DENSE, SMALL_DENSE):
            continue
        sees = registry.sees(name)
        if sees == "inputs" or (sees == "nothing" and scoring.warmup):
            unread = scoring.data == "random-labels"
        else:
            # A plug-in that changes masks during training may also score at its beginning.
            unread = sees in REASONS and (sees != "training" or registry.is_builtin(name))
        if unread:
            reason = "inputs" if sees == "nothing" and scoring.warmup else sees
            kinds.setdefault((reason, str(run.cell.spec.uncontrolled)), {})[scoring.data] = None
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (reason, method), found in kinds.items():
        groups.setdefault((reason, tuple(found)), []).append(method)
    return [
        f"note: the masks of {', '.join(methods)} are the same with --scoring-data {','.join(data)} as with train:"
        f" {'they read' if len(methods) > 1 else 'it reads'} {REASONS[reason]}"
        for (reason, data), methods in groups.items()
    ]
