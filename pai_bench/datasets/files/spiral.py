"""Cubist Spiral: two classes of points on the edges of two spirals of octagon vertices, generated without a download.

Source: Zhang and Papyan 2024, Sparsest models elude pruning (ICML), stephenqz/sparsest cubist_spiral/CubistSpiral.py.
The release tests on the training points, so both parts are the same. The points are standardised in float64, so that
they are the same on every machine; the release does it in float32.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pai_bench.datasets.files.types import Images

VERTICES = 17
OFFSET = 15.0
"""Distance of the vertices of each class from the spiral r = 10 θ + π, along the radius."""
POINTS = 50_000
"""Nominal number of points; each edge gets the whole part of its share, which leaves 49,982."""


def cubist_spiral(folder: Path, part: str) -> Images:
    """Generate the points, float32 [49982, 2], and their labels; `part` makes no difference."""
    del folder, part
    angles = np.linspace(math.pi, 5 * math.pi, VERTICES) + 0.4 * math.pi
    rays = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    middle = (10 * angles + math.pi)[:, None] * rays
    outer, inner = middle + OFFSET * rays, middle - OFFSET * rays
    shift = np.minimum(outer.min(axis=0), inner.min(axis=0))
    classes = [_points_on_edges(outer - shift), _points_on_edges(inner - shift)]
    x = np.concatenate(classes)
    x = (x - x.mean(axis=0)) / x.std(axis=0, ddof=1)
    y = np.repeat(np.arange(2), [len(points) for points in classes])
    return x.astype(np.float32), y.astype(np.int64)


def _points_on_edges(vertices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return evenly spaced points on each edge, from its second vertex to its first, both included, [N, 2]."""
    lengths = np.linalg.norm(np.diff(vertices, axis=0), axis=1)
    counts = (lengths / lengths.sum() * (POINTS / 2)).astype(int)
    edges = []
    for first, second, count in zip(vertices[:-1], vertices[1:], counts, strict=True):
        share = np.linspace(0, 1, count)[:, None]
        edges.append(share * first + (1 - share) * second)
    return np.concatenate(edges)
