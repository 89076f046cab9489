"""Packing of several cells into one process: choice of the pack size, and fallback when memory runs out."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable

from pai_bench.datasets.loading import StreamingDataset
from pai_bench.experiment.runner import CellRunner, Run
from pai_bench.sweep.execution.attempt import AttemptOutcome
from pai_bench.sweep.execution.device_fault import device_faults
from pai_bench.sweep.execution.trial import SIZES, speeds
from pai_bench.training.callbacks import Callback
from pai_bench.training.cooperative import RoundRobin, Task
from pai_bench.training.loop import Trained, training

GAIN = 1.05
"""Minimum speed-up in steps per second that justifies a larger pack."""


def alike(one: Run, other: Run) -> bool:
    """Return True if two runs may share a pack: same data set, model and recipe."""
    return (one.cell.dataset, one.cell.model, one.recipe) == (other.cell.dataset, other.cell.model, other.recipe)


def best_size(speed: Callable[[int], float | None]) -> int:
    """Return the pack size with the most steps per second; `speed` returns None for a size that does not fit."""
    best, record = 1, speed(1)
    for size in SIZES[1:]:
        found = speed(size)
        if found is None or record is None or found < GAIN * record:
            break
        best, record = size, found
    return best


class Sizes:
    """Pack sizes by kind of cell: the size given by the user, or the fastest measured one."""

    def __init__(self, runner: CellRunner, size: int | None) -> None:
        self._runner = runner
        self._size = size
        self._found: list[tuple[Run, int]] = []
        """One run of each kind."""

    def of(self, run: Run) -> int:
        """Return the pack size for runs like this one; the first call on a GPU measures it for some seconds."""
        for other, size in self._found:
            if alike(run, other):
                return size
        try:
            size = self._size or self._measure(run)
        except Exception as error:
            # If the cell is the reason, it raises the same error when it runs, and reports it.
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            print(
                f"pai-bench: the pack size of {run.cell.model} on {run.cell.dataset} could not be measured ({reason});"
                " cells run one at a time: give --pack a number",
                file=sys.stderr,
                flush=True,
            )
            return 1
        self._found.append((run, size))
        return size

    def lower(self, run: Run, size: int) -> None:
        """Limit packs of runs like this one to `size` from now on."""
        self._found = [(other, min(size, old) if alike(run, other) else old) for other, old in self._found]

    def _measure(self, run: Run) -> int:
        runner, device = self._runner, self._runner.device
        # On a CPU, separate processes are faster; training on streamed data is bound by reading, not by compute.
        if device.type != "cuda" or isinstance(runner.dataset(run), StreamingDataset):
            return 1
        dataset = runner.dataset(run)

        def member(seed: int, callback: Callback) -> Task[Trained]:
            return training(runner.model(run), {}, dataset, run.recipe, seed, callback)

        return best_size(speeds(device, member).get)


class PackedRunner:
    """Runs cells of one kind concurrently in this process, with fewer at a time when memory runs out."""

    def __init__(
        self, runner: CellRunner, sizes: Sizes, start: Callable[[Run, Callable[[], bool]], Task[AttemptOutcome]]
    ) -> None:
        """Take the function that starts a run; its second argument returns True when no other run is active."""
        self._sizes = sizes
        self._start = start
        self._pack: RoundRobin[Run, AttemptOutcome] = RoundRobin(runner.device)
        self._crowded: deque[Run] = deque()
        """Runs that did not fit in memory and wait for their turn."""

    @property
    def busy(self) -> bool:
        """Return True if any run is active."""
        return bool(len(self._pack) or self._crowded)

    def takes(self, run: Run) -> bool:
        """Return True if the run can join the active ones."""
        if not self.busy:
            return True
        members = [*self._pack, *self._crowded]
        return run not in members and alike(run, members[0]) and len(members) < self._sizes.of(run)

    def add(self, run: Run) -> None:
        """Start the run."""
        with device_faults():
            self._pack.add(run, self._start(run, lambda: len(self._pack) <= 1))

    def turn(self) -> list[tuple[Run, AttemptOutcome]]:
        """Advance each run by one step; return the runs that ended, with their outcomes."""
        done = []
        with device_faults():  # a cell that ends waits for its stream
            advanced = self._pack.turn()
        for run, ended in advanced:
            if isinstance(ended, Exception):
                raise ended
            if ended.kind == "crowded":
                # Halve the pack size; this run starts again when the others leave room for it.
                self._sizes.lower(run, max(1, (len(self._pack) + 1) // 2))
                self._crowded.append(run)
            else:
                done.append((run, ended))
        while self._crowded and len(self._pack) < self._sizes.of(self._crowded[0]):
            self.add(self._crowded.popleft())
        return done
