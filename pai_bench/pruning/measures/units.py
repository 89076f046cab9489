"""The graph of a masked network: nodes, edges between them, and the tensors that hold them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Ints = NDArray[np.int64]


class Nodes:
    """Numbers of nodes, from 1 on; 0 stands for no node.

    A plain node is an element of the input or of a layer's output. A joint node stands for several plain ones that one
    element combines (as in a pool): an edge from it is an edge from each of them.
    """

    def __init__(self) -> None:
        self.count = 0
        self._joint: list[tuple[int, Ints, Ints]] = []
        """First number, offsets [n + 1] and plain members [m] of each set of joint nodes."""
        self._merged: list[tuple[Ints, Ints]] = []
        self._plain: NDArray[np.bool_] | None = None

    def new(self, count: int) -> Ints:
        """Return `count` new plain nodes."""
        self.count += count
        return np.arange(self.count - count + 1, self.count + 1)

    def join(self, members: Ints) -> Ints:
        """Return one node for each row of `members` [n, k]: the member itself where there is one, else a joint node."""
        # Sorted, so that the missing members (0) come first and a single one comes last.
        rows = np.sort(members, 1)
        single = (rows[:, :-1] == 0).all(1)
        result = rows[:, -1].copy()
        several = rows[~single]
        if len(several):
            owner, plain = self.expanded(np.repeat(np.arange(len(several)), several.shape[1]), several.ravel())
            order = np.argsort(owner, kind="stable")
            offsets = np.concatenate([[0], np.bincount(owner, minlength=len(several)).cumsum()])
            numbers = self.new(len(several))
            self._joint.append((int(numbers[0]), offsets, plain[order]))
            result[~single] = numbers
        return result

    def merge(self, one: Ints, other: Ints) -> Ints:
        """Return the nodes of a sum: two plain nodes become one, whatever else a joint one."""
        plain = self.is_plain(one) & self.is_plain(other)
        self._merged.append((one[plain], other[plain]))
        result = one.copy()
        result[~plain] = self.join(np.stack([one[~plain], other[~plain]], 1))
        return result

    def is_plain(self, numbers: Ints) -> NDArray[np.bool_]:
        """Return True for plain nodes."""
        if self._plain is None or len(self._plain) <= self.count:
            self._plain = np.ones(self.count + 1, dtype=bool)
            self._plain[0] = False
            for first, offsets, _ in self._joint:
                self._plain[first : first + len(offsets) - 1] = False
        plain: NDArray[np.bool_] = self._plain[numbers]
        return plain

    def expanded(self, partners: Ints, numbers: Ints) -> tuple[Ints, Ints]:
        """Replace joint nodes by their members, and repeat the partners; entries without a node are dropped."""
        plain = self.is_plain(numbers)
        found = [(partners[plain], numbers[plain])]
        if plain.all():
            return found[0]
        for first, offsets, members in self._joint:
            chosen = (numbers >= first) & (numbers < first + len(offsets) - 1)
            if not chosen.any():
                continue
            place = numbers[chosen] - first
            sizes = offsets[place + 1] - offsets[place]
            starts = np.repeat(offsets[place] - np.concatenate([[0], sizes.cumsum()[:-1]]), sizes)
            found.append((np.repeat(partners[chosen], sizes), members[starts + np.arange(sizes.sum())]))
        return np.concatenate([p for p, _ in found]), np.concatenate([n for _, n in found])

    def multiplicity(self) -> Ints:
        """Return the number of plain nodes by number [count + 1]."""
        result = np.ones(self.count + 1, dtype=np.int64)
        result[0] = 0
        for first, offsets, _ in self._joint:
            result[first : first + len(offsets) - 1] = np.diff(offsets)
        return result

    def groups(self) -> Ints:
        """Return the node that each plain node belongs to after all merges, by number [count + 1]."""
        return merged(self.count + 1, self._merged)

    def merged_pairs(self) -> Iterator[tuple[Ints, Ints]]:
        """Yield the pairs of plain nodes that sums have merged."""
        yield from self._merged


def merged(count: int, pairs: Sequence[tuple[Ints, Ints]]) -> Ints:
    """Return the component of each of `count` numbers under pairs of equal ones."""
    one, other = (np.concatenate([np.zeros(0, np.int64), *(pair[side] for pair in pairs)]) for side in (0, 1))
    matrix = coo_array((np.ones(len(one), dtype=np.int8), (one, other)), shape=(count, count))
    labels: Ints = connected_components(matrix, directed=False)[1].astype(np.int64)
    return labels


@dataclass(frozen=True, eq=False)
class Layer:
    """The edges of one product of a signal and a weight."""

    kind: str
    """"convolution", "matrix", or the name of an operation whose edges cannot be listed."""
    where: str
    """Layer of the operation."""
    inputs: Ints
    """Nodes of the signal: [C, …] of a convolution, [M, K] of a matrix product."""
    weight: NDArray[np.bool_]
    """Kept weights: [O, C / groups, …] or [K, N]."""
    outputs: Ints
    """Nodes of the result: [O, …] or [M, N]."""
    options: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int] = ((), (), (), 1)
    """Stride, padding and dilation of a convolution by dimension, and groups."""

    def channels(self) -> tuple[Ints, Ints]:
        """Return the nodes of the signal and of the result by channel: [C, P] and [O, P]."""
        if self.kind == "matrix":
            return self.inputs.T, self.outputs.T
        return self.inputs.reshape(len(self.inputs), -1), self.outputs.reshape(len(self.outputs), -1)

    def blocks(self) -> Iterator[tuple[Ints, Ints, NDArray[np.bool_], int]]:
        """Yield blocks of edges: inputs [C, P], outputs [O, P] at P positions, kept weights [O, I], number of groups.

        Weight (o, i) of a block makes an edge from inputs[i + o // (O / groups) * I, p] to outputs[o, p] for every p;
        an input 0 is not a node.
        """
        if self.kind == "matrix":
            yield self.inputs.T, self.outputs.T, self.weight.T, 1
            return
        stride, padding, dilation, groups = self.options
        spatial = self.outputs.shape[1:]
        padded = np.pad(self.inputs, [(0, 0), *((p, p) for p in padding)])
        outputs = self.outputs.reshape(len(self.outputs), -1)
        for place in np.ndindex(*self.weight.shape[2:]):
            cut = tuple(
                slice(k * d, k * d + (n - 1) * s + 1, s)
                for k, d, n, s in zip(place, dilation, spatial, stride, strict=True)
            )
            inputs = padded[(slice(None), *cut)].reshape(len(padded), -1)
            yield inputs, outputs, self.weight[(slice(None), slice(None), *place)], groups
