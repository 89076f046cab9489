"""Interleaved measurement of networks: seconds of a forward pass, ratios to the dense network, and peak memory."""

from __future__ import annotations

import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves

from pai_bench.core.dispatch import DispatchMode

WINDOW = 0.02
"""Least seconds of one timing; short passes are repeated to fill it."""
WARMUP = 3
"""Number of passes of each network before the first timing, and of further ones that set the length of timings."""
QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Timing:
    """Seconds of a forward pass, and dense seconds / own seconds: quantiles 0.1, 0.5 and 0.9 over the rounds."""

    seconds: tuple[float, float, float]
    ratio: tuple[float, float, float]
    repeats: int
    """Number of passes of one timing."""


def interleaved(models: Sequence[nn.Module], x: Tensor, rounds: int) -> list[Timing]:
    """Time forward passes of networks in turn, in an order that rotates from round to round.

    The first model is the reference. It is timed a second time at another place of each round, and its own ratio, of
    these two timings, shows the noise of the machine. Ratios are those of timings of the same round.
    """
    entries = [*models, models[0]]
    repeats = []
    with torch.no_grad():
        for model in entries:
            for _ in range(WARMUP):
                model(x)
            # The shortest of several passes: after a single one that other processes interrupted, the timings would be
            # too short to be interrupted themselves, and this network would seem faster than the others.
            shortest = min(_seconds(model, x, 1) for _ in range(WARMUP))
            repeats.append(max(1, min(1000, round(WINDOW / max(shortest, 1e-9)))))
        found = np.empty((rounds, len(entries)))
        for number in range(rounds):
            for place in range(len(entries)):
                # The order rotates, because a clock that rises or falls within a round would favour fixed places.
                entry = (number + place) % len(entries)
                found[number, entry] = _seconds(entries[entry], x, repeats[entry])
    # The mean of both timings has less noise than one of them.
    dense = found[:, [0, -1]].mean(1)
    ratios = [found[:, -1] / found[:, 0], *(dense / found[:, n] for n in range(1, len(models)))]
    return [
        Timing(_quantiles(seconds), _quantiles(ratio), count)
        for seconds, ratio, count in zip(found.T[:-1], ratios, repeats[:-1], strict=True)
    ]


def _quantiles(values: Any) -> tuple[float, float, float]:
    low, middle, high = (float(value) for value in np.quantile(values, QUANTILES))
    return low, middle, high


def _seconds(model: nn.Module, x: Tensor, repeats: int) -> float:
    _wait(x)
    began = time.perf_counter()
    for _ in range(repeats):
        model(x)
    _wait(x)
    return (time.perf_counter() - began) / repeats


def _wait(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)


class _Live(DispatchMode):
    """Bytes of the tensors that operations have made and that still exist, and their maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {tensor.untyped_storage().data_ptr() for tensor in tree_leaves((args, kwargs)) if _plain(tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if not _plain(tensor):
                continue
            storage = tensor.untyped_storage()
            if storage.data_ptr() in given | self._seen:
                continue
            size, place = storage.nbytes(), storage.data_ptr()
            self.bytes += size
            self.peak = max(self.peak, self.bytes)
            self._seen.add(place)
            # The storage and not the tensor: views keep the memory alive after the tensor is gone.
            weakref.finalize(storage, self._free, size, place)
        return result

    def _free(self, size: int, place: int) -> None:
        self.bytes -= size
        self._seen.discard(place)


def _plain(value: Any) -> bool:
    # Subclasses, such as compressed 2:4 weights, may have no storage.
    return type(value) in (Tensor, nn.Parameter)


def _bytes(tensor: Tensor) -> int:
    """Return the bytes of a tensor; of a compressed 2:4 weight, the bytes of its values and positions."""
    if not is_traceable_wrapper_subclass(tensor):
        return tensor.nbytes
    return sum(getattr(tensor, part).nbytes for part in tensor.__tensor_flatten__()[0])


def peak_bytes(model: nn.Module, x: Tensor) -> int:
    """Return the bytes of parameters and buffers, and of the tensors that exist together in a forward pass at most.

    On a GPU as its allocator counts them, with the work spaces of kernels; on a CPU those of torch's operations.
    """
    held = sum(_bytes(tensor) for tensor in (*model.parameters(), *model.buffers()))
    with torch.no_grad():
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
            torch.cuda.reset_peak_memory_stats(x.device)
            before = torch.cuda.memory_allocated(x.device)
            model(x)
            torch.cuda.synchronize(x.device)
            return held + int(torch.cuda.max_memory_allocated(x.device) - before)
        live = _Live()
        with live:
            model(x)
    return held + live.peak
