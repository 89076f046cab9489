"""Data sets in device memory; batches are cropped, flipped and normalised on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from pai_bench.datasets.augmentation import (
    Augment,
    Batch,
    by_channel,
    epoch_boxes,
    epoch_flips,
    epoch_order,
    epoch_shifts,
    normalise,
    resize_crops,
)


@dataclass(frozen=True, eq=False)
class InMemoryDataset:
    """A data set in the memory of one device: unprocessed images, or vectors."""

    name: str
    train_x: Tensor
    """uint8 [N, C, H, W] or float32 [N, features]"""
    train_y: Tensor
    """int64 [N]"""
    test_x: Tensor
    """Images for measuring accuracy: the test set, or the part of the training set that the recipe holds out."""
    test_y: Tensor
    classes: int
    content_hash: str
    """SHA-256 of the arrays; identifies the images of a result independently of the file format."""
    origin: str
    """Identity of the copy: "official", "accepted:…" and so on (see `data_files.Check`)."""
    _padded: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False)

    def to(self, device: torch.device | str) -> InMemoryDataset:
        """Copy the data set to `device`."""
        return replace(
            self,
            train_x=self.train_x.to(device),
            train_y=self.train_y.to(device),
            test_x=self.test_x.to(device),
            test_y=self.test_y.to(device),
        )

    def padded(self, padding: int) -> Tensor:
        """Return the training images with zero padding, uint8 [N, C, H + 2P, W + 2P]; all cells share one copy."""
        if padding == 0:
            return self.train_x
        if padding not in self._padded:
            self._padded[padding] = torch.nn.functional.pad(self.train_x, (padding,) * 4)
            if self.train_x.is_cuda:
                # Cells in other streams read it too.
                torch.cuda.current_stream(self.train_x.device).synchronize()
        return self._padded[padding]

    def batch(self, index: Tensor, mean: Sequence[float], std: Sequence[float]) -> Batch:
        """Return the training images of `index` (int64 on the CPU), normalised but not augmented, and their labels."""
        places = index.to(self.train_x.device)
        x = normalise(self.train_x.index_select(0, places), mean, std)
        return x, self.train_y.index_select(0, places)


def steps(n: int, batch_size: int, last: str) -> int:
    """Return the number of batches of `n` images; `last` as in `InMemoryLoader`, but keep a single short batch."""
    whole, rest = divmod(n, batch_size)
    return whole + (rest > 0 and (last == "keep" or whole == 0))


class InMemoryLoader:
    """Training batches from device memory, each a pure function of (seed, epoch, step).

    No step synchronises with the device; the random draws of an epoch are made on the CPU and copied in one transfer.
    """

    def __init__(self, x: Tensor, y: Tensor, batch_size: int, augment: Augment, seed: int, last: str = "keep") -> None:
        """Take inputs, uint8 [N, C, H, W] or float32 [N, features], and labels [N], both on the device.

        `last` is the treatment of a short last batch: "keep", "drop", or "merge" into the batch before it.
        """
        self.x = x
        self.y = y
        self.batch_size = batch_size
        self.augment = augment
        self.seed = seed
        self.last = last
        height, width = x.shape[2:] if x.ndim == 4 else (1, 1)  # vectors have no crops
        self._mean = by_channel(augment.mean, x)
        self._std = by_channel(augment.std, x)
        self._padded_width = width + 2 * augment.padding
        rows = torch.arange(height)[:, None] * self._padded_width
        columns = torch.arange(width)
        pixels = torch.stack([(rows + columns).flatten(), (rows + columns.flip(0)).flatten()])
        self.pixels = pixels.to(x.device)
        """Flat indices into a padded image [2, H x W]: the upper left crop, and the same crop mirrored."""

    def __len__(self) -> int:
        """Return the number of steps in an epoch."""
        return steps(len(self.x), self.batch_size, self.last)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from `start_step` on; epochs and steps count from 0."""
        order, corner, flip = self.draws(epoch)
        boxes = self._boxes(epoch) if self.augment.crop == "random-resized" else None
        for step in range(start_step, len(self)):
            first = step * self.batch_size
            part = slice(first, first + self.images(step))
            index = order[part]
            images = self.x.index_select(0, index)
            if boxes is not None:
                images = resize_crops(images, boxes[part], flip[part])
            elif self.augment.padding or self.augment.flip:
                images = self._crop(images, corner[part], flip[part])
            yield normalise(images, self._mean, self._std), self.y.index_select(0, index)

    def images(self, step: int) -> int:
        """Return the number of images in a step of an epoch."""
        first = step * self.batch_size
        rest = len(self.x) - first
        return rest if self.last == "merge" and step == len(self) - 1 else min(rest, self.batch_size)

    def draws(self, epoch: int) -> Tensor:
        """Draw image index, flat index of the crop's first pixel, and flip flag: int64 [3, N] on the device."""
        n = len(self.x)
        rows, columns = epoch_shifts(n, self.seed, epoch, self.augment.padding).unbind(1)
        flips = epoch_flips(n, self.seed, epoch).long() * self.augment.flip
        draws = torch.stack([epoch_order(n, self.seed, epoch), rows * self._padded_width + columns, flips])
        return self.to_device(draws)

    def _boxes(self, epoch: int) -> Tensor:
        height, width = self.x.shape[2:]
        return self.to_device(epoch_boxes(len(self.x), self.seed, epoch, (height, width), self.augment))

    def to_device(self, draws: Tensor) -> Tensor:
        """Copy a tensor of the host to the device without waiting for it."""
        if self.x.is_cuda:
            # Only copies from pinned memory are asynchronous.
            return draws.pin_memory().to(self.x.device, non_blocking=True)
        return draws.to(self.x.device)

    def _crop(self, images: Tensor, corner: Tensor, flip: Tensor) -> Tensor:
        count, channels, height, width = images.shape
        padded = torch.nn.functional.pad(images, (self.augment.padding,) * 4).flatten(2)
        ids = self.pixels.index_select(0, flip) + corner[:, None]
        return padded.gather(2, ids[:, None].expand(-1, channels, -1)).view(count, channels, height, width)


def evaluation_batches(
    x: Tensor, y: Tensor, batch_size: int, mean: Sequence[float], std: Sequence[float]
) -> Iterator[Batch]:
    """Yield all inputs in order, normalised but not augmented: uint8 [N, C, H, W] or float32 [N, features].

    The last batch may be short.
    """
    mean_column, std_column = by_channel(mean, x), by_channel(std, x)
    for start in range(0, len(x), batch_size):
        part = slice(start, start + batch_size)
        yield normalise(x[part], mean_column, std_column), y[part]
