"""Several cells at a time in one process: how many, and what when they do not fit."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import torch

from pai_bench.datasets.loading import Streamed
from pai_bench.errors import PaiBenchError
from pai_bench.experiment.runner import Laboratory, Run
from pai_bench.sweep.execution.attempt import Ended
from pai_bench.training.cooperative import Pack, Turns, release
from pai_bench.training.loop import Trained, training

SIZES = (1, 2, 4, 8)
GAIN = 1.05
"""How many times as many steps a second a larger pack must do to be worth it."""
MEMORY = 0.8
"""The part of the free memory that a pack may take."""
SETTLING_TURNS = 8
"""Before anything is measured; in these a step is captured as a CUDA graph."""
MEASURED_TURNS = 40


def parse_size(text: str) -> int | None:
    """The size that `--pack` asks for; None for "auto".

    Raises: PaiBenchError for anything else.
    """
    if text == "auto":
        return None
    if text.isdecimal() and int(text) >= 1:
        return int(text)
    raise PaiBenchError(f"--pack {text!r} cannot be", "it must be auto, or a number of cells, 1 or more")


def alike(one: Run, other: Run) -> bool:
    """Whether two runs may share a pack: one data set, model and recipe."""
    return (one.cell.dataset, one.cell.model, one.recipe) == (other.cell.dataset, other.cell.model, other.recipe)


def best_size(speed: Callable[[int], float | None]) -> int:
    """The pack size with the most steps a second by `speed` (None: that many do not fit)."""
    best, record = 1, speed(1)
    for size in SIZES[1:]:
        found = speed(size)
        if found is None or record is None or found < GAIN * record:
            break
        best, record = size, found
    return best


class Sizes:
    """How many cells of a kind this process does at a time: as wanted, else as many as are fastest."""

    def __init__(self, laboratory: Laboratory, wanted: int | None) -> None:
        self._laboratory = laboratory
        self._wanted = wanted
        self._found: list[tuple[Run, int]] = []
        """A run of each kind."""

    def of(self, run: Run) -> int:
        """The size for packs of such cells; measured on a GPU the first time, which takes some seconds."""
        for other, size in self._found:
            if alike(run, other):
                return size
        try:
            size = self._wanted or self._measure(run)
        except Exception:
            return 1  # whatever it is, the cell itself meets it too, and says so
        self._found.append((run, size))
        return size

    def lower(self, run: Run, size: int) -> None:
        """Take no more of such cells from now on."""
        self._found = [(other, min(size, old) if alike(run, other) else old) for other, old in self._found]

    def _measure(self, run: Run) -> int:
        laboratory, device = self._laboratory, self._laboratory.device
        # On a CPU processes do better; data that are read from disk are what a network of their size waits for.
        if device.type != "cuda" or isinstance(laboratory.dataset(run), Streamed):
            return 1
        dataset = laboratory.dataset(run)
        most = 1.0

        def member(seed: int) -> Turns[Trained]:
            return training(laboratory.model(run), {}, dataset, run.recipe, seed)

        def measured(size: int) -> float | None:
            nonlocal most
            if size > most and size > 1:
                return None
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            found = speed(device, member, size)
            if size == 1:
                one = torch.cuda.max_memory_allocated(device) - before
                release()
                most = MEMORY * torch.cuda.mem_get_info(device)[0] / max(1, one)
            return found

        return best_size(measured)


def speed(device: torch.device, member: Callable[[int], Turns[Trained]], size: int) -> float | None:
    """Steps a second of so many cells together (by their seeds); None when they do not fit."""
    pack: Pack[int, Trained] = Pack(device)
    try:
        for seed in range(size):
            pack.add(seed, member(seed))
        seconds = 0.0
        for turns in (SETTLING_TURNS, MEASURED_TURNS):
            _wait(device)
            began = time.perf_counter()
            for _ in range(turns):
                if any(isinstance(error, Exception) for _, error in pack.turn()):
                    return None
            _wait(device)
            seconds = time.perf_counter() - began
        return size * MEASURED_TURNS / seconds
    except torch.OutOfMemoryError:
        return None
    finally:
        _wait(device)
        del pack
        release()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Crew:
    """Does runs in this process, several of a kind at a time, and fewer when they do not fit."""

    def __init__(
        self, laboratory: Laboratory, sizes: Sizes, start: Callable[[Run, Callable[[], bool]], Turns[Ended]]
    ) -> None:
        """Take what starts a run; its second argument tells whether no other is under way."""
        self._sizes = sizes
        self._start = start
        self._pack: Pack[Run, Ended] = Pack(laboratory.device)
        self._crowded: deque[Run] = deque()
        """Those that had no room and wait for it."""

    @property
    def busy(self) -> bool:
        """Whether any run is under way."""
        return bool(len(self._pack) or self._crowded)

    def takes(self, run: Run) -> bool:
        """Whether it can do this one too."""
        if not self.busy:
            return True
        members = [*self._pack, *self._crowded]
        return run not in members and alike(run, members[0]) and len(members) < self._sizes.of(run)

    def add(self, run: Run) -> None:
        """Begin with it."""
        self._pack.add(run, self._start(run, lambda: len(self._pack) <= 1))

    def turn(self) -> list[tuple[Run, Ended]]:
        """A step of each; how those have ended that have."""
        done = []
        for run, ended in self._pack.turn():
            if isinstance(ended, Exception):
                raise ended
            if ended.kind == "crowded":
                # Half as many as they were, and this one after the others if it must be.
                self._sizes.lower(run, max(1, (len(self._pack) + 1) // 2))
                self._crowded.append(run)
            else:
                done.append((run, ended))
        while self._crowded and len(self._pack) < self._sizes.of(self._crowded[0]):
            self.add(self._crowded.popleft())
        return done
