"""Channels of the tensors in a network's graph: identity across layers, constant values, and layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Channels:
    """The channels of one tensor, in order.

    ids: int64 [C], identities; channels that must be removed together (such as the two summands of a residual sum)
        have ids that `Identities` merges.
    constant: float64 [C], the value of a channel that has the same value for every input and position, else NaN.
    dim: dimension of the tensor that contains the channels.
    repeat: number of consecutive entries along `dim` that belong to one channel (after flattening a map of pixels).
    """

    ids: Tensor
    constant: Tensor
    dim: int
    repeat: int = 1

    @property
    def varying(self) -> Tensor:
        """True for each channel whose value depends on the input or the position; bool [C]."""
        return self.constant.isnan()

    def with_constant(self, constant: Tensor) -> Channels:
        """Return the same channels with other constants."""
        return replace(self, constant=constant)


class Identities:
    """Union-find structure over channel ids, with the ids that must not be removed."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._pinned: set[int] = set()

    def new(self, count: int, *, pinned: bool = False) -> Tensor:
        """Return `count` new ids, int64 [count]; pinned ids are never removed."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        ids = torch.arange(first, first + count)
        if pinned:
            self.pin(ids)
        return ids

    def find(self, number: int) -> int:
        """Return the representative of an id."""
        while self._parent[number] != number:
            # Path halving keeps later look-ups short.
            self._parent[number] = self._parent[self._parent[number]]
            number = self._parent[number]
        return number

    def merge(self, ids: Tensor, others: Tensor) -> None:
        """Merge two sequences of ids pairwise."""
        for one, other in zip(ids.tolist(), others.tolist(), strict=True):
            self._parent[self.find(one)] = self.find(other)

    def pin(self, ids: Tensor) -> None:
        """Exclude ids from removal."""
        self._pinned.update(ids.tolist())

    def all_roots(self) -> Tensor:
        """Return the representative of every id; int64 [ids]."""
        return torch.tensor([self.find(number) for number in range(len(self._parent))], dtype=torch.long)

    def pinned(self) -> Tensor:
        """Return all pinned ids, sorted."""
        return torch.tensor(sorted(self._pinned), dtype=torch.long)


def varying_channels(ids: Tensor, dim: int) -> Channels:
    """Return channels without any constant."""
    return Channels(ids, torch.full((len(ids),), torch.nan, dtype=torch.float64), dim)


def joined(parts: Sequence[Channels]) -> Channels:
    """Concatenate channels along their dimension."""
    ids, constant = (torch.cat([getattr(part, name) for part in parts]) for name in ("ids", "constant"))
    return replace(parts[0], ids=ids, constant=constant)
