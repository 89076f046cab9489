"""A data set as a plug-in: one bright blob on a noisy image, in one of four quadrants.

pai-bench sweep --plugin examples/blobs.py --datasets blobs --models conv8 --recipes examples/blobs.toml --methods snip
--sparsities 0.5,0.9 --seeds 0-2
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pai_bench import Info, register_dataset

TRAIN, TEST, SIZE = 800, 200, 8


@register_dataset("blobs", Info(channels=1, size=SIZE, classes=4, train=TRAIN, test=TEST))
def blobs(
    data_root: Path,
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]:
    """Return images uint8 [N, 1, 8, 8] and labels int64 [N] for training, then the same for testing.

    A data set with files reads them from below `data_root`. The arrays must be the same at every call, because their
    hash is recorded in each result.
    """
    draws = np.random.default_rng(0)
    labels = np.arange(TRAIN + TEST) % 4
    half = SIZE // 2
    top = draws.integers(1, half - 1, len(labels)) + half * (labels // 2)
    left = draws.integers(1, half - 1, len(labels)) + half * (labels % 2)
    rows, columns = np.arange(SIZE)[None, :, None], np.arange(SIZE)[None, None, :]
    squares = (rows - top[:, None, None]) ** 2 + (columns - left[:, None, None]) ** 2
    images = 160 * np.exp(-squares / 2) + draws.integers(0, 90, (len(labels), SIZE, SIZE))
    images = images.astype(np.uint8)[:, None]
    return images[:TRAIN], labels[:TRAIN], images[TRAIN:], labels[TRAIN:]
