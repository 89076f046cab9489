"""Split of the training images into a part to train on and a held-out part for choosing hyper-parameters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pai_bench.core.randomness import derive_seed
from pai_bench.errors import PaiBenchError
from pai_bench.recipes import Data

Indices = NDArray[np.int64]


def split(name: str, labels: NDArray[np.int64], data: Data | None) -> tuple[Indices, Indices]:
    """Return ascending indices of the images to train on, and of the held-out images (if data.split asks for them).

    The split is stratified by class and depends on data.split_seed and the data set's name, not on the cell's seed.

    Raises: PaiBenchError when a part is empty.
    """
    everything = np.arange(len(labels))
    if data is None or (data.split == "test" and data.train_fraction == 1):
        return everything, everything[:0]
    # NumPy guarantees that RandomState's stream never changes; newer generators of NumPy and torch may change.
    draws = np.random.RandomState(derive_seed(data.split_seed, f"split {name}") % 2**32)
    rank = np.empty(len(labels))
    for label in np.unique(labels):
        members = everything[labels == label]
        # The ranks of each class spread evenly over (0, 1), so that a threshold takes the same share of every class.
        rank[draws.permutation(members)] = (np.arange(len(members)) + 0.5) / len(members)
    held_out = rank < (data.validation_size if data.split == "validation" else 0)
    # Training takes the upper ranks, so that train_fraction does not change the held-out images.
    kept = ~held_out & (rank > 1 - data.train_fraction)
    if not kept.any():
        lower = f"lower data.validation_size ({data.validation_size}) or " if data.split == "validation" else ""
        raise PaiBenchError(
            f"the split of {name} leaves no image to train on",
            f"{lower}raise data.train_fraction ({data.train_fraction})",
        )
    if data.split == "validation" and not held_out.any():
        raise PaiBenchError(
            f"the split of {name} leaves no image for validation",
            f"raise data.validation_size ({data.validation_size})",
        )
    return everything[kept], everything[held_out]
