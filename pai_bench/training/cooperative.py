"""Work that is done in turns, so that one process can have several pieces of it under way."""

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

Turns = Generator[None, None, T]
"""Does a step of a piece of work each time it is asked, and returns what came of all; holds nothing that is the
process's (random generators, precision, streams) from one step to the next."""


def finish(work: Turns[T], device: torch.device) -> T:
    """Do it to its end."""
    with own_randomness(device):
        while True:
            try:
                next(work)
            except StopIteration as end:
                result: T = end.value
                return result


def read(value: Tensor, pause: Callable[[], Turns[None]]) -> Turns[float]:
    """A scalar's value, once the device has got there; others have their turns meanwhile, by `pause`."""
    if value.is_cuda:
        host = torch.empty((), dtype=value.dtype, pin_memory=True).copy_(value.detach(), non_blocking=True)
        there = torch.cuda.Event()  # type: ignore[no-untyped-call]
        there.record()
        while not there.query():  # type: ignore[no-untyped-call]
            yield from pause()
        return float(host)
    return value.item()


def release() -> None:
    """Give back the memory of what is no more, so that other work has it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Stopwatch:
    """Counts seconds while it runs."""

    def __init__(self, seconds: float = 0.0) -> None:
        """Start with what has been counted before."""
        self._before = seconds
        self._began: float | None = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Counted so far."""
        return self._before + (0.0 if self._began is None else time.perf_counter() - self._began)

    def stop(self) -> None:
        """Count no more until `go`."""
        self._before, self._began = self.seconds, None

    def go(self) -> None:
        """Count on."""
        self._began = time.perf_counter()


class Pack(Generic[K, T]):
    """Pieces of work that take turns on a device, each in a CUDA stream of its own; they may come and go at any time.

    What one does, or raises, is nothing to the others.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._members: dict[K, tuple[Turns[T], torch.cuda.Stream | None]] = {}
        self._streams: list[torch.cuda.Stream] = []
        """Of members that have ended: the memory that the allocator keeps for a stream serves the next one."""

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[K]:
        return iter(list(self._members))

    def add(self, key: K, work: Turns[T]) -> None:
        """Let it have turns from now on, under a name that no other member has."""
        stream = None
        if self._device.type == "cuda":
            stream = self._streams.pop() if self._streams else torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            # What it will read (the data) may still be on its way in ours.
            stream.wait_stream(torch.cuda.current_stream(self._device))
        self._members[key] = work, stream

    def turn(self) -> list[tuple[K, T | Exception]]:
        """A step of each; what those returned or raised that came to their end, which are members no more."""
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
                # What it reads may go with it, and its memory to the next one.
                stream.synchronize()
                self._streams.append(stream)
        return ended

    def drain(self) -> dict[K, T | Exception]:
        """Turns until no member is left."""
        ended: dict[K, T | Exception] = {}
        while self._members:
            ended |= dict(self.turn())
        return ended
