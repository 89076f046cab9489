"""A program that kills cells with SIGKILL: in the middle of a mask update, and between two steps.

Processes are forked, which spares loading torch each time.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pai_bench.cells import Cell
from pai_bench.experiment.first_trainings import FirstTrainings
from pai_bench.experiment.runner import CellRunner, Run
from pai_bench.results import Result
from pai_bench.training.callbacks import Callback
from pai_bench.training.checkpoints import Checkpoints
from pai_bench.training.mask_updates import MaskUpdates

from . import killing

METHODS = (
    *("rigl:every=2,stop=1", "set:every=2,stop=1", "gmp:every=2,stop=1", "ltr:cycles=2,early=0.3"),
    *("after-training:tuning=0.5", "edge-popup", "gem-miner:every=1,epochs=3"),
)
FIELDS = ("accuracy", "status", "curve", "mask_hash", "mask_updates", "saw", "n_kept", "effective_sparsity", "measures")


def run(method: str) -> Run:
    return Run(
        Cell(method, "digits", "lenet-300-100", 0.9, 0),
        killing.recipe(epochs=2, batch_size=512),
    )


class KillAt(Callback):
    """Kills the process with SIGKILL at a sign of life in a phase."""

    def __init__(self, phase: str, ticks: int) -> None:
        self._wanted, self._left, self._phase = phase, ticks, ""

    def phase(self, phase: str) -> None:
        self._phase = phase

    def tick(self) -> None:
        self._left -= self._phase == self._wanted
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)


def killed_in_update(updates: MaskUpdates, number: int, new: Mapping[str, Tensor]) -> None:
    """Replace the first of the masks and kill the process."""
    first = next(iter(updates._masks))
    updates._masks[first].copy_(new[first])
    os.kill(os.getpid(), signal.SIGKILL)


def facts(result: Result) -> Any:
    """Return what must not depend on kills."""
    return json.loads(json.dumps([getattr(result, name) for name in FIELDS], default=vars))


def killed(runner: CellRunner, method: str, folder: Path, attempt: int, callback: Callback | None) -> int:
    """Run the cell in a process of its own, killed by `callback` or in a mask update; return the signal."""
    runner._trainings = FirstTrainings()  # the dense training of another cell must not be taken over
    child = os.fork()
    if child == 0:
        if callback is None:
            MaskUpdates.put = killed_in_update  # type: ignore[method-assign]
        runner.run(run(method), callback, Checkpoints(folder, f"a{attempt}", every=0.0))
        os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


def main(root: Path) -> None:
    """Print by method the signals that ended two processes, the undisturbed end, and the end after the kills."""
    torch.set_num_threads(1)
    runner = CellRunner(device="cpu")
    found = {}
    for method in METHODS:
        folder = root / method.partition(":")[0]
        undisturbed = facts(runner.run(run(method)).result)
        step = KillAt("searching" if method.startswith(("edge", "gem")) else "training", 2)
        signals = [killed(runner, method, folder, attempt, kill) for attempt, kill in enumerate((step, None))]
        runner._trainings = FirstTrainings()
        resumed = facts(runner.run(run(method), None, Checkpoints(folder, "last")).result)
        found[method] = signals, undisturbed, resumed
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
