"""Cache of pruning scores, keyed by everything that determines them: in memory, and on disk for all workers."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pai_bench.core.tensor_files import CorruptFile, load_checksummed, save_checksummed
from pai_bench.experiment.cost import Cost, cost_of


@dataclass(frozen=True)
class Scored:
    """Scores or masks, and the cost of computing them."""

    tensors: dict[str, Tensor]
    """By parameter name."""
    cost: Cost
    tied: int = 0
    """Number of kept weights that are tied at the cut (see `ties`); 0 for scores, which have no cut yet."""
    noise: float = 0.0
    """Magnitude up to which scores are rounding errors."""

    def to(self, device: torch.device) -> Scored:
        """Return the same with the tensors on another device."""
        return replace(self, tensors={name: tensor.to(device) for name, tensor in self.tensors.items()})


LIMIT = 2**30
"""Limit of the cache in bytes of host memory: a hundred score sets of ResNet-20 in float64, or nine of VGG-16."""

DISK_CACHE_LIMIT = 2**32
"""Limit of the disk cache in bytes."""

WORTH_SECONDS = 1.0
"""Scores that are computed faster than this are not written to disk."""

MAGIC = b"pai-bench scores 3"
ENDING = ".scores"


class FileCache:
    """Checksummed files in a folder shared with other processes; least recently used ones are evicted.

    The cache holds up to `limit` bytes. It is only an optimisation: entries that are damaged, missing or not
    writable are computed again.
    """

    def __init__(self, folder: Path, magic: bytes, ending: str, limit: int = DISK_CACHE_LIMIT) -> None:
        self._folder = folder
        self._magic = magic
        self._ending = ending
        self._limit = limit

    def read(self, key: str) -> dict[str, Any] | None:
        """Return the state stored under the key, bit for bit and with tensors on the CPU, or None."""
        place = self.place(key)
        with suppress(OSError, CorruptFile):
            state = load_checksummed(place, self._magic)
            with suppress(OSError):
                # The last use decides which entries are evicted; access times are often switched off (noatime).
                os.utime(place)
            return state
        return None

    def write(self, key: str, state: Mapping[str, Any]) -> None:
        """Store a state; write errors are ignored."""
        with suppress(OSError):
            save_checksummed(self.place(key), self._magic, state)
            self._make_room()

    def place(self, key: str) -> Path:
        """Return the path of the file of a key."""
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()}{self._ending}"

    def _make_room(self) -> None:
        found = [(path.stat(), path) for path in self._folder.glob(f"*{self._ending}")]
        excess = sum(stat.st_size for stat, _ in found) - self._limit
        for stat, path in sorted(found, key=lambda item: item[0].st_mtime_ns):
            if excess <= 0:
                break
            # Another process may evict the same entry at the same time.
            path.unlink(missing_ok=True)
            excess -= stat.st_size


class DiskCache(FileCache):
    """Disk cache of scores."""

    def __init__(self, folder: Path, limit: int = DISK_CACHE_LIMIT) -> None:
        super().__init__(folder, MAGIC, ENDING, limit)

    def get(self, key: str) -> Scored | None:
        """Return the entry stored under the key, bit for bit, or None."""
        state = self.read(key)
        return (
            None if state is None else Scored(state["tensors"], cost_of(state["cost"]), state["tied"], state["noise"])
        )

    def put(self, key: str, scored: Scored) -> None:
        """Store an entry; write errors are ignored."""
        self.write(key, {**vars(scored), "cost": asdict(scored.cost)})


class ScoreCache:
    """Least-recently-used cache of scores or masks in host memory, up to `limit` bytes, with an optional disk cache
    for entries that are slow to compute."""

    def __init__(self, limit: int = LIMIT, cache: DiskCache | None = None) -> None:
        self._limit = limit
        self._disk_cache = cache
        self._bytes = 0
        self._kept: OrderedDict[str, Scored] = OrderedDict()

    def get(self, key: str, compute: Callable[[], Scored], device: torch.device) -> Scored:
        """Return the result of `compute` on `device`, cached bit for bit; `key` must contain all that determines it."""
        if key in self._kept:
            self._kept.move_to_end(key)
            scored = self._kept[key]
        elif self._disk_cache is not None and (found := self._disk_cache.get(key)) is not None:
            scored = found
            self._keep(key, scored)
        else:
            scored = compute()
            # Device memory is scarcer, and the training needs it.
            on_host = scored.to(torch.device("cpu"))
            self._keep(key, on_host)
            if self._disk_cache is not None and scored.cost.seconds >= WORTH_SECONDS:
                self._disk_cache.put(key, on_host)
        return scored.to(device)

    def _keep(self, key: str, scored: Scored) -> None:
        size = _bytes(scored.tensors)
        if size > self._limit:
            return
        self._kept[key] = scored
        self._bytes += size
        while self._bytes > self._limit:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= _bytes(oldest.tensors)


def _bytes(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
