"""Cooperative multitasking: resumable tasks that take turns in one process."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Generator, Hashable, Iterator
from contextlib import nullcontext
from typing import Generic, TypeVar

import torch
from torch import Tensor

from pai_bench.core.randomness import own_randomness

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

Task = Generator[None, None, T]
"""A resumable task: each `next()` runs one step, and the return value is the result of the task. Between steps it
holds no global state (random generators, precision, CUDA streams)."""


def run_to_completion(work: Task[T], device: torch.device) -> T:
    """Run a task to completion and return its result."""
    with own_randomness(device):
        while True:
            try:
                next(work)
            except StopIteration as end:
                result: T = end.value
                return result


def read(value: Tensor, pause: Callable[[], Task[None]]) -> Task[float]:
    """Read a scalar from the device; while the device is busy, `pause` lets other tasks run."""
    if value.is_cuda:
        host = torch.empty((), dtype=value.dtype, pin_memory=True).copy_(value.detach(), non_blocking=True)
        there = torch.cuda.Event()  # type: ignore[no-untyped-call]
        there.record()
        while not there.query():  # type: ignore[no-untyped-call]
            yield from pause()
        return float(host)
    return value.item()


def release() -> None:
    """Release the memory of deleted objects, including the cache of the CUDA allocator, for use by other work."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Stopwatch:
    """A stopwatch that can be paused and resumed; it counts seconds."""

    def __init__(self, seconds: float = 0.0) -> None:
        """Start at `seconds`, the time counted before (for example in an interrupted run)."""
        self._before = seconds
        self._began: float | None = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds counted so far."""
        return self._before + (0.0 if self._began is None else time.perf_counter() - self._began)

    def stop(self) -> None:
        """Pause the stopwatch until `go` is called."""
        self._before, self._began = self.seconds, None

    def go(self) -> None:
        """Resume the stopwatch."""
        self._began = time.perf_counter()


class RoundRobin(Generic[K, T]):
    """Round-robin scheduler of tasks on one device, each in its own CUDA stream.

    Tasks may be added at any time. They are isolated: an exception in one task does not affect the others.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._members: dict[K, tuple[Task[T], torch.cuda.Stream | None]] = {}
        self._streams: list[torch.cuda.Stream] = []
        """Streams of finished tasks; reused because the allocator caches memory per stream."""

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[K]:
        return iter(list(self._members))

    def add(self, key: K, work: Task[T]) -> None:
        """Add a task under a key that no current member has."""
        stream = None
        if self._device.type == "cuda":
            stream = self._streams.pop() if self._streams else torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            # The copies of the data that the task will read may still be pending in the current stream.
            stream.wait_stream(torch.cuda.current_stream(self._device))
        self._members[key] = work, stream

    def turn(self) -> list[tuple[K, T | Exception]]:
        """Run one step of every task; remove the finished tasks and return their results or exceptions by key."""
        ended: list[tuple[K, T | Exception]] = []
        with own_randomness(self._device):
            for key, (work, stream) in list(self._members.items()):
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
        return ended

    def drain(self) -> dict[K, T | Exception]:
        """Run all tasks to completion and return their results or exceptions by key."""
        ended: dict[K, T | Exception] = {}
        while self._members:
            ended |= dict(self.turn())
        return ended
