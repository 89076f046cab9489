"""Measurement of the steps per second of packs of different sizes, with temporary networks."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from statistics import median

import torch

from pai_bench.training.callbacks import Callback
from pai_bench.training.cooperative import RoundRobin, Task, release
from pai_bench.training.loop import Trained

SIZES = (1, 2, 4, 8)
MEMORY = 0.8
"""Fraction of the free memory that a pack may use."""
SETTLING_TURNS = 10
"""Turns of a new member before any measurement; during them its steps are captured as CUDA graphs."""
WARM_UP_SECONDS = 0.5
"""Time for which all members train before the measurement: a GPU that has been idle is clocked low."""
ROUNDS = 3
ROUND_SECONDS = 0.15
"""Duration of a round of one size. Sizes take turns, so that a change of the clock or of the load affects all alike."""

Member = Callable[[int, Callback], Task[Trained]]
"""Creates a training from a seed and a callback."""


def speeds(device: torch.device, member: Member) -> dict[int, float]:
    """Return the median steps per second of each pack size that fits into the memory."""
    trial = _Trial(device, member)
    try:
        sizes = trial.fitting()
        trial.run(max(sizes), WARM_UP_SECONDS)
        rounds = [{size: trial.run(size, ROUND_SECONDS) for size in sizes} for _ in range(ROUNDS)]
        return {size: median(found[size] for found in rounds) for size in sizes}
    finally:
        trial.close()


class _Steps(Callback):
    """A counter of training steps."""

    def __init__(self) -> None:
        self.count = 0

    def tick(self) -> None:
        self.count += 1


class _Trial:
    """A pack, of which the first members train: as many as the size that is measured."""

    def __init__(self, device: torch.device, member: Member) -> None:
        self._device = device
        self._member = member
        self._pack: RoundRobin[int, Trained] = RoundRobin(device)
        self._seeds = itertools.count()
        self._steps = _Steps()

    def fitting(self) -> list[int]:
        """Add members, and return the sizes that fit into the memory, estimated from the first member's peak."""
        cuda = self._device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_allocated(self._device) if cuda else 0
        self._grow(1)
        most = float(max(SIZES))
        if cuda:
            one = torch.cuda.max_memory_allocated(self._device) - before
            release()
            # mem_get_info counts the memory of other processes too; the cache of this one was released before.
            most = 1 + MEMORY * torch.cuda.mem_get_info(self._device)[0] / max(1, one)
        found = [1]
        for size in SIZES[1:]:
            try:
                if size > most:
                    break
                self._grow(size)
            except torch.OutOfMemoryError:
                break
            found.append(size)
        return found

    def run(self, size: int, seconds: float) -> float:
        """Train the first `size` members for some seconds; return their steps per second."""
        self._wait()
        began, self._steps.count = time.perf_counter(), 0
        while not self._steps.count or time.perf_counter() - began < seconds:
            self._turn(range(size))
        self._wait()
        return self._steps.count / (time.perf_counter() - began)

    def close(self) -> None:
        """End all trainings and release their memory."""
        self._pack.close()
        release()

    def _grow(self, size: int) -> None:
        new = range(len(self._pack), size)
        for key in new:
            self._pack.add(key, self._member(next(self._seeds), self._steps))
        for _ in range(SETTLING_TURNS):
            self._turn(new)

    def _turn(self, keys: range) -> None:
        for key, ended in self._pack.turn(keys):
            if isinstance(ended, Exception):
                raise ended
            self._pack.add(key, self._member(next(self._seeds), self._steps))  # a short training: begin another one

    def _wait(self) -> None:
        if self._device.type == "cuda":
            # Kernels run asynchronously; without the wait, the clock would measure their launches.
            torch.cuda.synchronize(self._device)
