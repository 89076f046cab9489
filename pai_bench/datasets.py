"""Images on the device: loaded once, then cropped, flipped and normalised there in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pai_bench import data_files
from pai_bench.data_files import Info, data_root, info, names, present, require
from pai_bench.seeds import derive_seed

__all__ = [
    "Augment",
    "Batcher",
    "Dataset",
    "Info",
    "TrainingBatches",
    "data_root",
    "epoch_flips",
    "epoch_order",
    "epoch_shifts",
    "evaluation_batches",
    "info",
    "load",
    "names",
    "normalise",
    "present",
    "require",
    "scoring_batches",
    "test_batches",
    "training_batches",
]

Batch = tuple[Tensor, Tensor]
"""Inputs float32 [B, C, H, W] and targets int64 [B]."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set on one device, raw bytes as they were read."""

    name: str
    train_x: Tensor
    """uint8 [N, C, H, W]"""
    train_y: Tensor
    """int64 [N]"""
    test_x: Tensor
    test_y: Tensor
    classes: int
    content_hash: str
    """SHA-256 of the arrays that were read: which images a result is about, whatever files they came from."""
    origin: str
    """Which copy of the data set it was: "official", "accepted:…" and so on (see `data_files.Check`)."""

    def to(self, device: torch.device | str) -> Dataset:
        """The same data set on `device`."""
        return replace(
            self,
            train_x=self.train_x.to(device),
            train_y=self.train_y.to(device),
            test_x=self.test_x.to(device),
            test_y=self.test_y.to(device),
        )


def load(
    name: str, root: Path | None = None, device: torch.device | str = "cpu", expected: str | None = None
) -> Dataset:
    """The data set `name`, read from below `root` (see `data_root`). `expected` is the origin that was planned.

    Raises: PaiBenchError for an unknown name, or files that are missing, damaged, or not those that were planned.
    """
    loaded = data_files.load(name, root, expected=expected)
    assert loaded.test is not None, "it was not left out"
    arrays = (*loaded.train, *loaded.test)
    train_x, train_y, test_x, test_y = (torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
    return Dataset(name, train_x, train_y, test_x, test_y, info(name).classes, loaded.content_hash, loaded.origin).to(
        device
    )


@dataclass(frozen=True)
class Augment:
    """What happens to a training image: a random crop after zero padding, a random flip, and normalisation."""

    padding: int
    """Pixels of zeros on each side before the crop to the old size; 0 for no crop."""
    flip: bool
    mean: tuple[float, ...]
    """By channel, in units of [0, 1]."""
    std: tuple[float, ...]


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """The order of the n training images in this epoch, int64 [n] on the CPU."""
    return torch.randperm(n, generator=_generator(seed, "order", epoch))


def epoch_shifts(n: int, seed: int, epoch: int, padding: int) -> Tensor:
    """Row and column at which each crop begins in the padded image, int64 [n, 2] on the CPU, by place in the epoch."""
    return torch.randint(0, 2 * padding + 1, (n, 2), generator=_generator(seed, "crop", epoch))


def epoch_flips(n: int, seed: int, epoch: int) -> Tensor:
    """Which images are mirrored, bool [n] on the CPU, by place in the epoch."""
    return torch.randint(0, 2, (n,), generator=_generator(seed, "flip", epoch)).bool()


def _generator(seed: int, purpose: str, *more: int) -> torch.Generator:
    # Always the CPU's: an accelerator's generator draws other numbers.
    return torch.Generator().manual_seed(derive_seed(seed, purpose, *more))


def normalise(x: Tensor, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> Tensor:
    """float32 [B, C, H, W] of uint8 images, bit for bit what torchvision's ToTensor and Normalize make of them.

    `mean` and `std` are by channel; tensors on the images' device spare a copy to it.
    """
    return x.float().div_(255).sub_(_by_channel(mean, x)).div_(_by_channel(std, x))


def _by_channel(values: Sequence[float] | Tensor, x: Tensor) -> Tensor:
    column = torch.as_tensor(values, dtype=torch.float32, device=x.device).reshape(-1, 1, 1)
    if len(column) != x.shape[1]:
        raise ValueError(f"{len(column)} normalisation constants for images with {x.shape[1]} channels")
    return column


class Batcher:
    """Training batches of a data set that lies on a device, each a pure function of (seed, epoch, step).

    No step waits for the device; an epoch's draws are made on the CPU and sent over in one piece.
    """

    def __init__(
        self, x: Tensor, y: Tensor, batch_size: int, augment: Augment, seed: int, drop_last: bool = False
    ) -> None:
        """Take images uint8 [N, C, H, W] and labels [N], both on the device."""
        self.x = x
        self.y = y
        self.batch_size = batch_size
        self.augment = augment
        self.seed = seed
        self.drop_last = drop_last
        height, width = x.shape[2:]
        self._mean = _by_channel(augment.mean, x)
        self._std = _by_channel(augment.std, x)
        self._padded_width = width + 2 * augment.padding
        rows = torch.arange(height)[:, None] * self._padded_width
        columns = torch.arange(width)
        pixels = torch.stack([(rows + columns).flatten(), (rows + columns.flip(0)).flatten()])
        self._pixels = pixels.to(x.device)
        """Ids in a padded image of the pixels of the crop at its upper left corner, and of that crop mirrored."""

    def __len__(self) -> int:
        """The number of steps in an epoch."""
        whole, rest = divmod(len(self.x), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch (both counted from 0) from `start_step` on."""
        order, corner, flip = self._draws(epoch)
        for step in range(start_step, len(self)):
            part = slice(step * self.batch_size, (step + 1) * self.batch_size)
            index = order[part]
            images = self.x.index_select(0, index)
            if self.augment.padding or self.augment.flip:
                images = self._crop(images, corner[part], flip[part])
            yield normalise(images, self._mean, self._std), self.y.index_select(0, index)

    def _draws(self, epoch: int) -> Tensor:
        """Image, id of the crop's first pixel, and 1 for a mirrored one: int64 [3, N] on the device."""
        n = len(self.x)
        rows, columns = epoch_shifts(n, self.seed, epoch, self.augment.padding).unbind(1)
        flips = epoch_flips(n, self.seed, epoch).long() * self.augment.flip
        draws = torch.stack([epoch_order(n, self.seed, epoch), rows * self._padded_width + columns, flips])
        if self.x.is_cuda:
            return draws.pin_memory().to(self.x.device, non_blocking=True)
        return draws.to(self.x.device)

    def _crop(self, images: Tensor, corner: Tensor, flip: Tensor) -> Tensor:
        count, channels, height, width = images.shape
        padded = torch.nn.functional.pad(images, (self.augment.padding,) * 4).flatten(2)
        ids = self._pixels.index_select(0, flip) + corner[:, None]
        return padded.gather(2, ids[:, None].expand(-1, channels, -1)).view(count, channels, height, width)


class TrainingBatches(Protocol):
    """What training takes its batches from; each batch is a pure function of (seed, epoch, step), on the device."""

    def __len__(self) -> int:
        """The number of steps in an epoch."""
        ...

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch (both counted from 0) from `start_step` on."""
        ...


def training_batches(dataset: Dataset, batch_size: int, augment: Augment, seed: int) -> TrainingBatches:
    """The training batches of a data set."""
    return Batcher(dataset.train_x, dataset.train_y, batch_size, augment, seed)


def test_batches(dataset: Dataset, batch_size: int, mean: Sequence[float], std: Sequence[float]) -> Iterable[Batch]:
    """The images that accuracy is measured on, in their order, normalised, on the device."""
    return evaluation_batches(dataset.test_x, dataset.test_y, batch_size, mean, std)


def evaluation_batches(
    x: Tensor, y: Tensor, batch_size: int, mean: Sequence[float], std: Sequence[float]
) -> Iterator[Batch]:
    """All images (uint8 [N, C, H, W]) in their order, normalised and never augmented; the last batch may be short."""
    mean_column, std_column = _by_channel(mean, x), _by_channel(std, x)
    for start in range(0, len(x), batch_size):
        part = slice(start, start + batch_size)
        yield normalise(x[part], mean_column, std_column), y[part]


def scoring_batches(
    dataset: Dataset, batch_size: int, count: int, seed: int, mean: Sequence[float], std: Sequence[float]
) -> list[Batch]:
    """`count` batches of training images for scoring: not augmented, classes balanced, shuffled; decided by the seed.

    In every batch, and over all of them, the numbers of images of two classes differ by at most one. No image comes
    twice before all images of its class have come.
    """
    generator = _generator(seed, "scoring")
    labels = dataset.train_y.cpu()
    members = [torch.nonzero(labels == label).flatten() for label in range(dataset.classes)]
    members = [images for images in members if len(images)]
    # Classes take turns in one fixed random order: every window of that cycle is as balanced as it can be.
    turn = torch.randperm(len(members), generator=generator).repeat(-(-batch_size * count // len(members)))
    turn = turn[: batch_size * count]
    index = torch.empty_like(turn)
    for position, images in enumerate(members):
        places = torch.nonzero(turn == position).flatten()
        rounds = -(-len(places) // len(images))
        drawn = [images[torch.randperm(len(images), generator=generator)] for _ in range(rounds)]
        if drawn:
            index[places] = torch.cat(drawn)[: len(places)]
    batches = []
    for chosen in index.view(count, batch_size):
        mixed = chosen[torch.randperm(batch_size, generator=generator)].to(dataset.train_x.device)
        x = normalise(dataset.train_x.index_select(0, mixed), mean, std)
        batches.append((x, dataset.train_y.index_select(0, mixed)))
    return batches
