"""Number of training images that a recipe's split leaves, found without reading the data set where that is possible."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pai_bench.datasets import loading as datasets
from pai_bench.datasets.splits import split
from pai_bench.errors import PaiBenchError
from pai_bench.recipes import Data


def training_images(name: str, data: Data, data_root: Path | None, *, present: bool) -> int:
    """Return the number of training images of a data set that the split `data` leaves.

    It is computed for classes of equal size. Only where these would have one image or none is the data set read:
    larger classes may have more. An absent data set (`present` is False) is treated as a single class, so that only
    splits that are empty for every choice of labels are refused.

    Raises: PaiBenchError when no image is left to train on or for validation.
    """
    info = datasets.info(name)
    if not present:
        return len(split(name, np.zeros(info.train, np.int64), data)[0])
    try:
        left = len(split(name, np.arange(info.train) % info.classes, data)[0])
    except PaiBenchError:
        left = 0
    return left if left > info.classes else len(datasets.load(name, data_root, data=data).train_y)
