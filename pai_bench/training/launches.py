"""Launches of training steps: a step per launch from the batches of a loader, or several from tables on the device."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from pai_bench.core.randomness import derive_seed, seed_draws
from pai_bench.datasets.epoch_tables import EpochTables
from pai_bench.datasets.loading import InMemoryDataset, InMemoryLoader, StreamingDataset, TrainingBatches
from pai_bench.training.cooperative import Task, wait
from pai_bench.training.eager_step import Change
from pai_bench.training.mask_updates import MaskUpdates
from pai_bench.training.step import GraphStep, Step

AHEAD = 4
"""Launches that the device may have before it, if they take a second together: enough to keep it busy."""

SPARE = 4
"""The padded images are made only where so many times their size is free."""

STEPS = 16
"""Number of steps in a graph, approximately."""

CAPTURE_STEPS = 50
"""Several steps are captured in one graph only when at least so many times their number remain."""

LAUNCH_SECONDS = 1.0
"""Longest duration of a launch: checkpoints and stops have to wait for its end."""


@dataclass(frozen=True)
class Launch:
    """One or more training steps that the host launches at a time."""

    steps: int
    images: int
    run: Callable[[], None]


class Launches(Protocol):
    """The steps of a training by epoch, as launches."""

    def epoch(self, epoch: int, start: int) -> Iterator[Launch]:
        """Yield the launches of an epoch from step `start` on; each must run before the next one is taken."""
        ...

    def room(self, pause: Callable[[], Task[None]]) -> Task[None]:
        """Wait until the device can take another launch; meanwhile `pause` lets other tasks run."""
        ...


@dataclass(frozen=True)
class Schedule:
    """Inputs of a launch besides its batch: the learning rate by (epoch, step), the steps by epoch, and the seed."""

    rate: Callable[[int, int], float]
    lengths: Sequence[int]
    """Number of steps in each epoch; the last one may be incomplete."""
    seed: int
    updates: MaskUpdates | None = None
    """The mask updates, if the masks change."""

    def seeding(self, device: torch.device, epoch: int, step: int) -> Callable[[], None]:
        """Return a function that seeds the random draws of a forward pass."""
        return lambda: seed_draws(derive_seed(self.seed, "forward", epoch, step), device)

    def change(self, epoch: int, step: int) -> Change | None:
        """Return the change of the masks in a step, or None."""
        return None if self.updates is None else self.updates.at(epoch, step)


class Queue:
    """Launches that the device has not finished. A stop waits for them; with a few of them it takes about a second."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._running: deque[torch.cuda.Event] = deque()
        self._ahead = AHEAD

    def add(self, seconds: float | None) -> None:
        """Note that a launch is enqueued; `seconds` is its duration if it is known."""
        if self._cuda:
            event = torch.cuda.Event()
            event.record()
            self._running.append(event)
            self._ahead = max(1, min(AHEAD, int(LAUNCH_SECONDS / seconds))) if seconds else AHEAD

    def room(self, pause: Callable[[], Task[None]]) -> Task[None]:
        """Wait until the device can take another launch."""
        while len(self._running) >= self._ahead:
            yield from wait(self._running.popleft(), pause)


class LoaderLaunches:
    """One launch per step, with the batches of a loader."""

    def __init__(self, step: Step, batches: TrainingBatches, schedule: Schedule) -> None:
        self._step = step
        self._batches = batches
        self._schedule = schedule
        self._queue = Queue(step.device)
        self.room = self._queue.room

    def epoch(self, epoch: int, start: int) -> Iterator[Launch]:
        schedule = self._schedule
        batches = itertools.islice(self._batches.epoch(epoch, start), schedule.lengths[epoch] - start)
        for step, (x, y) in enumerate(batches, start):
            seed, rate = schedule.seeding(self._step.device, epoch, step), schedule.rate(epoch, step)
            change = schedule.change(epoch, step)

            def run() -> None:
                self._step(x, y, rate, seed, change)  # noqa: B023 (it runs before the next batch is taken)
                self._queue.add(self._step.replay_seconds(x.shape))  # noqa: B023

            yield Launch(1, len(y), run)


class TableLaunches:
    """Launches of captured graphs that gather their batches themselves; after the first steps several steps each."""

    def __init__(self, step: GraphStep, loader: InMemoryLoader, tables: EpochTables, schedule: Schedule) -> None:
        self._step = step
        self._loader = loader
        self._tables = tables
        self._schedule = schedule
        step.add_state(tables.step)
        self._whole = sum(loader.images(index) == loader.batch_size for index in range(len(loader)))
        self._queue = Queue(step.device)
        self.room = self._queue.room

    def epoch(self, epoch: int, start: int) -> Iterator[Launch]:
        rates = [self._schedule.rate(epoch, step) for step in range(len(self._loader))]
        self._tables.fill(epoch, start, rates)
        step = start
        while step < self._schedule.lengths[epoch]:
            count = self._several(epoch, step)
            size = self._loader.images(step)

            def run() -> None:
                self._launch(epoch, step, count, size)  # noqa: B023 (it runs before the next launch is taken)

            yield Launch(count, count * size, run)
            step += count

    def _several(self, epoch: int, step: int) -> int:
        """Return the number of steps of the launch that begins at a step."""
        # None also for steps that draw random numbers: each of them must be seeded by the host.
        seconds = self._step.replay_seconds(self._key(1, self._loader.batch_size))
        if seconds is None:
            return 1
        count = min(in_a_graph(self._whole), int(LAUNCH_SECONDS / max(seconds, 1e-9)))
        if count < 2 or step + count > min(self._whole, self._schedule.lengths[epoch]) or not self._step.several:
            return 1
        if self._schedule.updates is not None and self._schedule.updates.within(epoch, step, count):
            return 1
        if self._step.replay_seconds(self._key(count, self._loader.batch_size)) is not None:  # captured already
            return count
        left = sum(self._schedule.lengths[epoch:]) - step
        return count if left >= CAPTURE_STEPS * count else 1

    @staticmethod
    def _key(count: int, size: int) -> tuple[int, int]:
        return count, size

    def _launch(self, epoch: int, step: int, count: int, size: int) -> None:
        change = self._schedule.change(epoch, step)
        seed = self._schedule.seeding(self._step.device, epoch, step)

        def work() -> None:
            for offset in range(count):
                self._tables.rate(offset, self._step.rate)
                self._step.on_batch(*self._tables.batch(offset, size), change)
            self._tables.step.add_(count)

        if change is None:
            self._step.launch(self._key(count, size), work, seed, steps=count)
        else:
            self._step.by_hand(work, seed)
        self._queue.add(self._step.replay_seconds(self._key(count, size)))


def in_a_graph(steps: int) -> int:
    """Return the number of steps to capture in one graph: a divisor of the whole steps of an epoch near STEPS."""
    # A divisor, because steps that remain at the end of an epoch are launched one by one.
    near = [count for count in range(STEPS // 2, 3 * STEPS // 2 + 1) if count <= steps and steps % count == 0]
    return min(near, key=lambda count: abs(count - STEPS)) if near else min(STEPS, steps)


def make_launches(
    step: Step,
    dataset: InMemoryDataset | StreamingDataset,
    batches: TrainingBatches,
    schedule: Schedule,
    channels_last: bool,
) -> Launches:
    """Choose the launches: from tables for a captured step on data in device memory that are cropped by padding."""
    if (
        isinstance(step, GraphStep)
        and isinstance(dataset, InMemoryDataset)
        and isinstance(batches, InMemoryLoader)
        and batches.augment.crop == "pad"
        and batches.x.dtype == torch.uint8
    ):
        padding = batches.augment.padding
        height, width = batches.x.shape[2:]
        size = batches.x.numel() // (height * width) * (height + 2 * padding) * (width + 2 * padding)
        # The padded copy stays on the device for the whole training; without room for it, the loader pads each batch.
        if SPARE * size <= torch.cuda.mem_get_info(step.device)[0]:
            tables = EpochTables(batches, dataset.padded(padding), channels_last)
            return TableLaunches(step, batches, tables, schedule)
    return LoaderLaunches(step, batches, schedule)
