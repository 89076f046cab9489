"""Data sets for training: load, split as in the recipe, and iterate in batches on the device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pai_bench.datasets import files
from pai_bench.datasets.augmentation import (
    Augment,
    Batch,
    TrainingBatches,
    epoch_boxes,
    epoch_flips,
    epoch_order,
    epoch_shifts,
    normalise,
    resize_crops,
    resized_boxes,
)
from pai_bench.datasets.files import Info, data_root, info, is_builtin, names, present, require
from pai_bench.datasets.in_memory import InMemoryDataset, InMemoryLoader, evaluation_batches
from pai_bench.datasets.scoring_data import ScoringBatches, scoring_batches
from pai_bench.datasets.splits import split
from pai_bench.datasets.streaming import StreamingDataset
from pai_bench.recipes import Data

__all__ = [
    "Augment",
    "InMemoryDataset",
    "InMemoryLoader",
    "Info",
    "ScoringBatches",
    "StreamingDataset",
    "TrainingBatches",
    "data_root",
    "epoch_boxes",
    "epoch_flips",
    "epoch_order",
    "epoch_shifts",
    "evaluation_batches",
    "info",
    "is_builtin",
    "load",
    "names",
    "normalise",
    "present",
    "require",
    "resize_crops",
    "resized_boxes",
    "scoring_batches",
    "test_batches",
    "training_batches",
]


def load(
    name: str,
    root: Path | None = None,
    device: torch.device | str = "cpu",
    data: Data | None = None,
) -> InMemoryDataset | StreamingDataset:
    """Load the data set `name` from `root` (see `data_root`), split as in a recipe's table `data`.

    With data.split == "validation", the test set is not read at all.

    Raises: PaiBenchError for an unknown name, and for files that are missing, damaged, or not the original.
    """
    device = torch.device(device)
    if files.source(name).streamed:
        return StreamingDataset.load(name, root, device, data)
    validation = data is not None and data.split == "validation"
    loaded = files.load(name, root, test=not validation)
    train_x, train_y = loaded.train
    kept, held_out = split(name, train_y, data)
    test_x, test_y = loaded.test if loaded.test is not None else (train_x[held_out], train_y[held_out])
    if len(kept) < len(train_y):
        train_x, train_y = train_x[kept], train_y[kept]
    resident = InMemoryDataset(
        name=name,
        train_x=_tensor(train_x),
        train_y=_tensor(train_y),
        test_x=_tensor(test_x),
        test_y=_tensor(test_y),
        classes=info(name).classes,
        content_hash=loaded.content_hash,
        origin=loaded.origin,
    )
    return resident.to(device)


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def training_batches(
    dataset: InMemoryDataset | StreamingDataset, batch_size: int, augment: Augment, seed: int, last: str = "keep"
) -> TrainingBatches:
    """Create the training batches of a data set; see `InMemoryLoader` for `last`."""
    if isinstance(dataset, StreamingDataset):
        return dataset.training_batches(batch_size, augment, seed, last)
    return InMemoryLoader(dataset.train_x, dataset.train_y, batch_size, augment, seed, last)


def test_batches(
    dataset: InMemoryDataset | StreamingDataset, batch_size: int, mean: Sequence[float], std: Sequence[float]
) -> Iterable[Batch]:
    """Create the batches for measuring accuracy: images in order, normalised, on the device."""
    if isinstance(dataset, StreamingDataset):
        return dataset.test_batches(batch_size, mean, std)
    return evaluation_batches(dataset.test_x, dataset.test_y, batch_size, mean, std)
