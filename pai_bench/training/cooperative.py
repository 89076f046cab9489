"""Cooperative multitasking: resumable tasks that take turns in one process."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Concatenate, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from pai_bench.core.randomness import own_randomness, random_state

P = ParamSpec("P")
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

Task = Generator[None, None, T]
"""A resumable task: each `next()` runs one step, and the return value is the result of the task. Between steps it
holds no global state (precision, CUDA streams), and it seeds the random generators before each use."""

IDLE_SECONDS = 0.05
"""Pause of a task that waits for another process, after a turn in which no other task had anything to do."""


def run_to_completion(work: Task[T], device: torch.device) -> T:
    """Run a task to completion and return its result."""
    with own_randomness(device):
        while True:
            try:
                next(work)
            except StopIteration as end:
                result: T = end.value
                return result


def completed(task: Callable[Concatenate[nn.Module, P], Task[T]]) -> Callable[Concatenate[nn.Module, P], T]:
    """Return a function that runs the task of a model to completion, with the same parameters."""

    def run(model: nn.Module, /, *arguments: P.args, **options: P.kwargs) -> T:
        return run_to_completion(task(model, *arguments, **options), next(model.parameters()).device)

    return run


POLL_SECONDS = 0.0003
"""Pause between two looks at a busy device while no other task has anything to do."""


def read(value: Tensor, pause: Callable[[], Task[None]]) -> Task[float]:
    """Read a scalar from the device; while the device is busy, `pause` lets other tasks run."""
    if value.is_cuda:
        # Only a copy to pinned memory is asynchronous; `item()` would block the host, and with it all other tasks.
        host = torch.empty((), dtype=value.dtype, pin_memory=True).copy_(value.detach(), non_blocking=True)
        there = torch.cuda.Event()
        there.record()
        yield from wait(there, pause)
        return float(host)
    return value.item()


def wait(event: torch.cuda.Event, pause: Callable[[], Task[None]]) -> Task[None]:
    """Wait until the device has reached an event; meanwhile `pause` lets other tasks run."""
    while not event.query():
        looked = time.perf_counter()
        yield from pause()
        if (passed := time.perf_counter() - looked) < POLL_SECONDS:
            # No other task has launched anything: polling without a pause would keep a core busy.
            time.sleep(POLL_SECONDS - passed)


def waiting(seconds: float, pause: Callable[[], Task[None]]) -> Task[None]:
    """Wait for some seconds; meanwhile `pause`, which is called at least once, lets other tasks run."""
    end = time.monotonic() + seconds
    while True:
        looked = time.monotonic()
        yield from pause()
        if (now := time.monotonic()) >= end:
            return
        if now - looked < IDLE_SECONDS:
            time.sleep(IDLE_SECONDS)  # no other task has anything to do


def release() -> None:
    """Release the memory of deleted objects, including the cache of the CUDA allocator, for use by other work."""
    # Tensors in reference cycles (hooks, closures) are only freed by the collector.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class SharedClock:
    """Wall time of a process, divided equally among the tasks that train at the same time.

    A task's own turns would not do: a GPU works on while the host runs other tasks, or waits. The sum of the shares is
    the time during which at least one task trains.
    """

    def __init__(self) -> None:
        self._shares: list[Share] = []
        self._since = time.perf_counter()

    @contextmanager
    def share(self) -> Iterator[Share]:
        """Count a task as one that trains inside the context."""
        self.settle()
        own = Share(self)
        self._shares.append(own)
        for share in self._shares:
            share.most = max(share.most, len(self._shares))
        try:
            yield own
        finally:
            self.settle()
            self._shares.remove(own)

    @contextmanager
    def unshared(self) -> Iterator[None]:
        """Leave the time inside out of all shares: it is the scoring or the measuring of one cell."""
        self.settle()
        try:
            yield
        finally:
            self._since = time.perf_counter()

    def settle(self) -> None:
        """Divide the time since the last call."""
        now = time.perf_counter()
        for share in self._shares:
            share.settled += (now - self._since) / len(self._shares)
        self._since = now

    def __len__(self) -> int:
        return len(self._shares)


class Share:
    """The share of one task in the wall time of the process."""

    def __init__(self, clock: SharedClock) -> None:
        self._clock = clock
        self.settled = 0.0
        self.most = 0
        """Largest number of tasks that trained at the same time as this one, itself included."""

    @property
    def seconds(self) -> float:
        """Seconds counted so far."""
        self._clock.settle()
        return self.settled

    @property
    def alone(self) -> bool:
        """True while no other task trains."""
        return len(self._clock) <= 1


class RoundRobin(Generic[K, T]):
    """Round-robin scheduler of tasks on one device, each in its own CUDA stream.

    Tasks may be added at any time. They are isolated: an exception in one task does not affect the others. While there
    are tasks, the global random generators belong to them; afterwards these are as they were before the first one.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._members: dict[K, tuple[Task[T], torch.cuda.Stream | None]] = {}
        self._streams: list[torch.cuda.Stream] = []
        """Streams of finished tasks; reused because the allocator caches memory per stream."""
        self._restore: Callable[[], None] | None = None
        """Restores the random generators. Saving them at every turn would take a third of the host's time."""

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[K]:
        return iter(list(self._members))

    def add(self, key: K, work: Task[T]) -> None:
        """Add a task under a key that no current member has."""
        if self._restore is None:
            # Tasks seed the global generators before each use, so that one save for all of them is sufficient.
            self._restore = random_state(self._device)
        stream = None
        if self._device.type == "cuda":
            stream = self._streams.pop() if self._streams else torch.cuda.Stream(self._device)
            # The copies of the data that the task will read may still be pending in the current stream.
            stream.wait_stream(torch.cuda.current_stream(self._device))
        self._members[key] = work, stream

    def turn(self, of: Iterable[K] | None = None) -> list[tuple[K, T | Exception]]:
        """Run one step of every task, or of the tasks `of`; remove the finished ones and return their results or
        exceptions by key."""
        ended: list[tuple[K, T | Exception]] = []
        chosen = self._members if of is None else {key: self._members[key] for key in of if key in self._members}
        for key, (work, stream) in list(chosen.items()):
            try:
                with torch.cuda.stream(stream) if stream is not None else nullcontext():
                    next(work)
            except StopIteration as end:
                ended.append((key, end.value))
            except Exception as error:
                ended.append((key, error))
        for key, _ in ended:
            _, stream = self._members.pop(key)
            if stream is not None:
                # Kernels of the finished task may still read tensors whose memory the next task would reuse.
                stream.synchronize()
                self._streams.append(stream)
        if not self._members and self._restore is not None:
            self._restore()
            self._restore = None
        return ended

    def close(self) -> None:
        """End all tasks where they are, and restore the random generators."""
        for work, stream in self._members.values():
            with torch.cuda.stream(stream) if stream is not None else nullcontext():
                work.close()
            if stream is not None:
                # Kernels of the task may still use memory that the allocator would hand to other streams.
                stream.synchronize()
        self._members.clear()
        if self._restore is not None:
            self._restore()
            self._restore = None

    def drain(self) -> dict[K, T | Exception]:
        """Run all tasks to completion and return their results or exceptions by key."""
        ended: dict[K, T | Exception] = {}
        while self._members:
            ended |= dict(self.turn())
        return ended
