"""Scores kept by what they follow from, so that none is computed twice: in a process, and by the workers of a sweep."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from pai_bench.core.tensor_files import Damaged, seal, unseal
from pai_bench.experiment.cost import Cost

Scored = tuple[dict[str, Tensor], Cost]
"""Tensors by parameter name, and what it took to compute them."""

LIMIT = 2**30
"""Bytes of host memory: a hundred scores of ResNet-20 in float64, or nine of VGG-16."""

SHELF_LIMIT = 2**32
"""Bytes of disk."""

WORTH_SECONDS = 1.0
"""What takes less is not worth a file."""

MAGIC = b"pai-bench scores 1"
ENDING = ".scores"


class Shelf:
    """Scores in a folder that other processes read and write too, those used last, as many as fit into `limit` bytes.

    It is a help and no more: what is damaged, gone or cannot be written is computed.
    """

    def __init__(self, folder: Path, limit: int = SHELF_LIMIT) -> None:
        self._folder = folder
        self._limit = limit

    def get(self, key: str) -> Scored | None:
        """What was put there under that key, bit for bit."""
        place = self._place(key)
        with suppress(OSError, Damaged):
            state = unseal(place, MAGIC)
            with suppress(OSError):
                os.utime(place)
            return state["tensors"], Cost(**state["cost"])
        return None

    def put(self, key: str, tensors: dict[str, Tensor], cost: Cost) -> None:
        """Let others have it."""
        with suppress(OSError):
            seal(self._place(key), MAGIC, {"tensors": tensors, "cost": asdict(cost)})
            self._make_room()

    def _place(self, key: str) -> Path:
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()}{ENDING}"

    def _make_room(self) -> None:
        found = [(path.stat(), path) for path in self._folder.glob(f"*{ENDING}")]
        excess = sum(stat.st_size for stat, _ in found) - self._limit
        for stat, path in sorted(found, key=lambda item: item[0].st_mtime_ns):
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= stat.st_size


class ScoreCache:
    """The scores (or masks) used last, in host memory, as many as fit into `limit` bytes; what took long also on a
    shelf, where there is one."""

    def __init__(self, limit: int = LIMIT, shelf: Shelf | None = None) -> None:
        self._limit = limit
        self._shelf = shelf
        self._bytes = 0
        self._kept: OrderedDict[str, Scored] = OrderedDict()

    def get(self, key: str, compute: Callable[[], Scored], device: torch.device) -> Scored:
        """What `compute` returns, bit for bit, on `device`; `key` must name all that it depends on."""
        if key in self._kept:
            self._kept.move_to_end(key)
            tensors, cost = self._kept[key]
        elif self._shelf is not None and (found := self._shelf.get(key)) is not None:
            tensors, cost = found
            self._keep(key, tensors, cost)
        else:
            tensors, cost = compute()
            on_host = {name: tensor.cpu() for name, tensor in tensors.items()}
            self._keep(key, on_host, cost)
            if self._shelf is not None and cost.seconds >= WORTH_SECONDS:
                self._shelf.put(key, on_host, cost)
        return {name: tensor.to(device) for name, tensor in tensors.items()}, cost

    def _keep(self, key: str, tensors: dict[str, Tensor], cost: Cost) -> None:
        size = _bytes(tensors)
        if size > self._limit:
            return
        self._kept[key] = tensors, cost
        self._bytes += size
        while self._bytes > self._limit:
            _, (oldest, _) = self._kept.popitem(last=False)
            self._bytes -= _bytes(oldest)


def _bytes(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
