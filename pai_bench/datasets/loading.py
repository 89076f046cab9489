"""Data sets for training: load, split as in the recipe, and iterate in batches on the device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
    generator,
    normalise,
    resize_crops,
    resized_boxes,
)
from pai_bench.datasets.files import Info, data_root, info, is_builtin, names, present, require
from pai_bench.datasets.in_memory import InMemoryDataset, InMemoryLoader, evaluation_batches
from pai_bench.datasets.splits import split
from pai_bench.datasets.streaming import StreamingDataset
from pai_bench.recipes import Data

__all__ = [
    "Augment",
    "InMemoryDataset",
    "InMemoryLoader",
    "Info",
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


class ScoringBatches:
    """Batches of training images, created lazily during iteration."""

    def __init__(
        self,
        dataset: InMemoryDataset | StreamingDataset,
        chosen: Sequence[Tensor],
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self._dataset = dataset
        self._chosen = chosen
        self._mean = mean
        self._std = std

    def __len__(self) -> int:
        return len(self._chosen)

    def __iter__(self) -> Iterator[Batch]:
        return (self._dataset.batch(chosen, self._mean, self._std) for chosen in self._chosen)


def scoring_batches(
    dataset: InMemoryDataset | StreamingDataset,
    batch_size: int,
    count: int,
    seed: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> ScoringBatches:
    """Draw `count` batches of training images for scoring: class-balanced, shuffled, not augmented, fixed by the seed.

    In every batch, and over all batches, the numbers of images of two classes differ by at most one. No image is
    repeated before all images of its class have been used.
    """
    draws = generator(seed, "scoring")
    labels = dataset.train_y.cpu()
    members = [torch.nonzero(labels == label).flatten() for label in range(dataset.classes)]
    members = [images for images in members if len(images)]
    # Repeat one random order of the classes: every window of this cycle is as balanced as possible.
    turn = torch.randperm(len(members), generator=draws).repeat(-(-batch_size * count // len(members)))
    turn = turn[: batch_size * count]
    index = torch.empty_like(turn)
    for position, images in enumerate(members):
        places = torch.nonzero(turn == position).flatten()
        rounds = -(-len(places) // len(images))
        drawn = [images[torch.randperm(len(images), generator=draws)] for _ in range(rounds)]
        if drawn:
            index[places] = torch.cat(drawn)[: len(places)]
    shuffled = [chosen[torch.randperm(batch_size, generator=draws)] for chosen in index.view(count, batch_size)]
    return ScoringBatches(dataset, shuffled, mean, std)
