"""Cut edges of a large graph whose edges arrive in parts: bridges, of which each alone disconnects the graph."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

from pai_bench.pruning.measures.units import Ints, Layer, Nodes

Kept = NDArray[np.bool_]

PART = 1_000_000
"""Number of edges after which the groups are updated."""
MOST = 200_000_000
"""Largest number of edges that are looked at one by one."""
JOINING = 4
"""Number of weights at each place of a kernel that join the positions of a layer."""


class TooManyEdges(Exception):
    """A graph with more edges than `MOST` outside of its two-edge-connected groups."""


def cut_edges(layers: list[Layer], nodes: Nodes) -> int:
    """Return the number of edges whose removal, each alone, increases the number of connected components.

    The graph is undirected here, and parallel edges count one by one: none of two is a cut edge. Edges inside a group
    of nodes that two edge-disjoint paths connect are never cut edges, and change nothing elsewhere, so that they are
    dropped as soon as the group is known; most are never listed, because all positions of two channels are in one.

    Raises: TooManyEdges.
    """
    groups = Groups(nodes.groups())
    for layer in layers:
        _add_layer(groups, nodes, layer)
    groups.settle()
    return groups.bridges.shape[1]


def _add_layer(groups: Groups, nodes: Nodes, layer: Layer) -> None:
    """Add the edges of a layer in rounds, until all nodes of the layer are in one group.

    The first two rounds put all nodes of most layers into one group: edges from each channel at one place of the kernel
    join the channels of a position, and a few edges at every other place join the positions. The order of the edges
    changes the time alone.
    """
    blocks = list(layer.blocks())
    fullest = max(range(len(blocks)), key=lambda place: np.count_nonzero(blocks[place][2]))
    left = [kept.copy() for _, _, kept, _ in blocks]

    def add(places: Iterable[int], chosen: Callable[[Kept], Kept]) -> None:
        for place in places:
            inputs, outputs, kept, parts = blocks[place]
            now = chosen(left[place])
            left[place] &= ~now
            o, i = np.nonzero(now)
            i = i + o // (len(outputs) // parts) * kept.shape[1]
            ends = sources[i], targets[o]
            listed = (ends[0] != ends[1]) | (ends[0] < 0)
            _add(groups, nodes, inputs, outputs, i[listed], o[listed])
        groups.settle_if_worthwhile()

    rounds = ([fullest], _outermost), (range(len(blocks)), _some), (range(len(blocks)), _outermost)
    for places, chosen in (*rounds, (range(len(blocks)), np.copy)):
        sources, targets = (_common(groups, nodes, numbers) for numbers in layer.channels())
        if sources[0] >= 0 and (sources == sources[0]).all() and (targets == sources[0]).all():
            return
        add(places, chosen)


def _outermost(kept: Kept) -> Kept:
    """Return True for the first and the last kept weight of each row and of each column."""
    chosen = np.zeros_like(kept)
    rows, columns = np.arange(len(kept)), np.arange(kept.shape[1])
    chosen[rows, kept.argmax(1)] = chosen[kept.argmax(0), columns] = True
    chosen[rows, -1 - kept[:, ::-1].argmax(1)] = chosen[-1 - kept[::-1].argmax(0), columns] = True
    # argmax returns 0 for rows and columns without a kept weight, hence the intersection.
    return chosen & kept


def _some(kept: Kept) -> Kept:
    """Return True for a few kept weights."""
    chosen = np.zeros_like(kept)
    places = np.flatnonzero(kept)
    chosen.flat[places[:: max(1, len(places) // JOINING)]] = True
    return chosen


def _add(groups: Groups, nodes: Nodes, inputs: Ints, outputs: Ints, i: Ints, o: Ints) -> None:
    """Add the edges from inputs[i] to outputs[o] at every position."""
    # In parts, because one channel pair may have an edge at thousands of positions.
    step = max(1, PART // max(1, inputs.shape[1]))
    for start in range(0, len(o), step):
        sources, targets = inputs[i[start : start + step]].ravel(), outputs[o[start : start + step]].ravel()
        groups.add(*nodes.expanded(targets, sources))


def _common(groups: Groups, nodes: Nodes, numbers: Ints) -> Ints:
    """Return the group of all nodes of each row, -1 where a row has several groups or no node."""
    rows = np.repeat(np.arange(len(numbers)), numbers.shape[1])
    rows, members = nodes.expanded(rows, numbers.ravel())
    of = groups.of[members]
    smallest, largest = np.full(len(numbers), np.iinfo(np.int64).max), np.full(len(numbers), -1)
    np.minimum.at(smallest, rows, of)
    np.maximum.at(largest, rows, of)
    return np.where(smallest == largest, largest, -1)


class Groups:
    """Groups of nodes that two edge-disjoint paths connect, and the bridges between them, for the edges so far."""

    def __init__(self, numbers: Ints) -> None:
        """Take the node of each number; merged numbers are one node."""
        self.of = numbers.copy()
        """The group of each number."""
        self.bridges = np.zeros((2, 0), dtype=np.int64)
        """Pairs of groups."""
        self._waiting: list[Ints] = []
        self._size = self._seen = 0

    def add(self, one: Ints, other: Ints) -> None:
        """Add edges between numbers."""
        pairs = np.stack([self.of[one], self.of[other]])
        pairs = pairs[:, pairs[0] != pairs[1]]
        self._waiting.append(pairs)
        self._size += pairs.shape[1]
        self._seen += len(one)
        if self._seen > MOST:
            raise TooManyEdges
        if self._size > PART:
            self.settle()

    def settle_if_worthwhile(self) -> None:
        """Bring the groups up to date unless the bridges, which that goes through again, outnumber the new edges."""
        if self._size >= self.bridges.shape[1]:
            self.settle()

    def settle(self) -> None:
        """Bring the groups up to date."""
        pairs = np.concatenate([self.bridges, *self._waiting], axis=1)
        self._waiting, self._size = [], 0
        if not pairs.shape[1]:
            return
        is_used = np.zeros(len(self.of), dtype=bool)
        is_used[pairs] = True
        used = np.flatnonzero(is_used)
        count = len(used)
        place = np.zeros(len(self.of), dtype=np.int32)
        place[used] = np.arange(count)
        local = place[pairs]
        # A sparse matrix adds up equal pairs, in less time than a sort of all pairs takes.
        ones = np.ones(local.shape[1], dtype=np.int32)
        times = coo_array((ones, (local.min(0), local.max(0))), shape=(count, count)).tocsr().tocoo()
        a, b = (side.astype(np.int64) for side in times.coords)
        is_bridge = find_bridges(count, a, b, times.data > 1)
        inside = csr_array((np.ones((~is_bridge).sum(), np.int8), (a[~is_bridge], b[~is_bridge])), shape=(count,) * 2)
        joined = connected_components(inside, directed=False)[1]
        representative = used[np.unique(joined, return_index=True)[1]]
        into = np.arange(int(self.of.max()) + 1)
        into[used] = representative[joined]
        self.of = into[self.of]
        self.bridges = np.stack([into[used[a[is_bridge]]], into[used[b[is_bridge]]]])


def find_bridges(count: int, a: Ints, b: Ints, doubled: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return True for each edge (a, b) of a simple graph on 0 … count - 1 that is a bridge; doubled edges are none.

    Tarjan 1974 (Information Processing Letters 2, 160): number the nodes of a spanning forest in preorder; the edge
    above a node is a bridge if no other edge leads from its subtree to a node outside of it.
    """
    order, parent = _forest(count, a, b)
    place = np.empty(count + 1, dtype=np.int64)
    place[order] = np.arange(count + 1)
    a, b, above = place[a], place[b], place[parent[order[1:]]]
    above = np.concatenate([[0], above])  # by place in breadth-first order; the root is its own parent
    ends = [0, 1]
    while ends[-1] < count + 1:
        ends.append(int(np.searchsorted(above, ends[-1])))
    levels = [slice(start, end) for start, end in itertools.pairwise(ends[1:])]
    size = np.ones(count + 1, dtype=np.int64)
    for level in reversed(levels):
        np.add.at(size, above[level], size[level])
    before = np.zeros(count + 1, dtype=np.int64)  # preorder numbers
    for level in levels:
        up, total = above[level], size[level].cumsum() - size[level]
        heads = np.concatenate([[True], up[1:] != up[:-1]])
        before[level] = before[up] + 1 + total - total[heads][heads.cumsum() - 1]
    child = np.where(above[b] == a, b, np.where(above[a] == b, a, 0))
    low, high = before.copy(), before.copy()
    across = (child == 0) | doubled
    for one, other in ((a, b), (b, a)):
        np.minimum.at(low, one[across], before[other[across]])
        np.maximum.at(high, one[across], before[other[across]])
    for level in reversed(levels):
        np.minimum.at(low, above[level], low[level])
        np.maximum.at(high, above[level], high[level])
    closed = (low >= before) & (high < before + size)
    result: NDArray[np.bool_] = (child > 0) & closed[child]
    return result


def _forest(count: int, a: Ints, b: Ints) -> tuple[Ints, Ints]:
    """Return the breadth-first order and the parents of a spanning forest, below a root of number `count`."""
    ones = np.ones(len(a), np.int8)
    components = connected_components(csr_array((ones, (a, b)), shape=(count, count)), directed=False)[1]
    roots = np.unique(components, return_index=True)[1]
    rows = np.concatenate([a, b, np.full(len(roots), count)])
    columns = np.concatenate([b, a, roots])
    matrix = csr_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(count + 1, count + 1))
    order, parent = breadth_first_order(matrix, count)
    return order.astype(np.int64), parent.astype(np.int64)
