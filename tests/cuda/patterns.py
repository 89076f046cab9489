"""A data set of noisy patterns, one per class, for machines without scikit-learn: an import, or a plug-in of pai-bench.

The numbers of images and their size are those of the digits of scikit-learn.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pai_bench.datasets.files import Info, names, register_dataset
from pai_bench.datasets.files.types import Arrays

NAME = "patterns"
TRAIN, TEST, CLASSES, SIDE = 1437, 360, 10, 8
RECIPE = str(Path(__file__).with_suffix(".toml"))
PLUGIN: tuple[str, ...] = ("--plugin", str(Path(__file__)), "--datasets", NAME, "--recipe", RECIPE)
"""Options of `pai-bench sweep` that train on the data set for an epoch."""


def patterns(root: Path) -> Arrays:
    """Return images, uint8 [N, 1, 8, 8], and labels [N] for training and test."""
    del root
    generator = np.random.default_rng(0)
    y = np.arange(TRAIN + TEST) % CLASSES
    x = generator.integers(0, 256, (CLASSES, 1, SIDE, SIDE))[y] + generator.normal(0, 60, (len(y), 1, SIDE, SIDE))
    x = x.clip(0, 255).astype(np.uint8)
    return x[:TRAIN], y[:TRAIN], x[TRAIN:], y[TRAIN:]


if NAME not in names():  # both imported and loaded as a plug-in
    register_dataset(NAME, Info(1, SIDE, CLASSES, TRAIN, TEST))(patterns)
