"""Augmentation and normalisation of images; every random draw is a pure function of (seed, epoch, position)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pai_bench.core.randomness import derive_seed
from pai_bench.recipes import Data

Batch = tuple[Tensor, Tensor]
"""Inputs float32, [B, C, H, W] or [B, features], and targets int64 [B]."""


@dataclass(frozen=True)
class Augment:
    """Settings of the augmentation of training images: random crop, random flip and normalisation."""

    padding: int
    """Pixels of zero padding on each side before a "pad" crop to the original size; 0 for no crop."""
    flip: bool
    mean: tuple[float, ...]
    """Mean by channel, for pixel values in [0, 1]."""
    std: tuple[float, ...]
    crop: str = "pad"
    """"pad", or "random-resized": a part of the image with random area and aspect ratio, resized to the full size."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest area of a random-resized crop, as a fraction of the image."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest aspect ratio (width / height) of a random-resized crop."""

    @classmethod
    def of(cls, data: Data) -> Augment:
        """Take the settings from a recipe."""
        scale, ratio = (data.scale[0], data.scale[1]), (data.ratio[0], data.ratio[1])
        return cls(data.padding, data.flip, data.mean, data.std, data.crop, scale, ratio)


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """Draw the order of the n training images in this epoch, int64 [n] on the CPU."""
    return torch.randperm(n, generator=generator(seed, "order", epoch))


def epoch_shifts(n: int, seed: int, epoch: int, padding: int) -> Tensor:
    """Draw the first row and column of each crop in the padded image, int64 [n, 2] on the CPU, in epoch order."""
    return torch.randint(0, 2 * padding + 1, (n, 2), generator=generator(seed, "crop", epoch))


def epoch_flips(n: int, seed: int, epoch: int) -> Tensor:
    """Draw a flag per image for a horizontal flip, bool [n] on the CPU, in epoch order."""
    return torch.randint(0, 2, (n,), generator=generator(seed, "flip", epoch)).bool()


TRIES = 10
"""Number of attempts to draw a random-resized crop that fits, as in torchvision."""


def epoch_boxes(n: int, seed: int, epoch: int, size: tuple[int, int], augment: Augment) -> Tensor:
    """Draw the random-resized crops of images of one size, int64 [n, 4]: first row, first column, height, width."""
    uniform = torch.rand((n, TRIES, 4), generator=generator(seed, "resized", epoch), dtype=torch.float64)
    return resized_boxes(uniform, size, augment)


def resized_boxes(uniform: Tensor, size: tuple[int, int], augment: Augment) -> Tensor:
    """Compute crops int64 [n, 4] (first row, first column, height, width) from draws in [0, 1) [n, TRIES, 4].

    As in torchvision: the area is uniform in `scale`, log(width / height) uniform in log(`ratio`), the position
    uniform. The first attempt that fits is used, else the largest central crop with an allowed aspect ratio.
    """
    height, width = size
    area = height * width * (augment.scale[0] + (augment.scale[1] - augment.scale[0]) * uniform[..., 0])
    low, high = math.log(augment.ratio[0]), math.log(augment.ratio[1])
    shape = torch.exp(low + (high - low) * uniform[..., 1])
    widths, heights = (area * shape).sqrt().round().long(), (area / shape).sqrt().round().long()
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    rows = (uniform[..., 2] * (height - heights + 1)).floor().long()
    columns = (uniform[..., 3] * (width - widths + 1)).floor().long()
    # argmax returns the first of equal values, and thereby the first attempt that fits.
    first = fits.int().argmax(1)[:, None, None].expand(-1, 1, 4)
    boxes = torch.stack([rows, columns, heights, widths], 2).gather(1, first).squeeze(1)
    whole_height = height if width / height >= augment.ratio[0] else round(width / augment.ratio[0])
    whole_width = width if width / height <= augment.ratio[1] else round(height * augment.ratio[1])
    middle = [(height - whole_height) // 2, (width - whole_width) // 2, whole_height, whole_width]
    return torch.where(fits.any(1)[:, None], boxes, torch.tensor(middle))


def resize_crops(images: Tensor, boxes: Tensor, flips: Tensor) -> Tensor:
    """Resize crops of images [B, C, H, W] to H x W, flipped where `flips` is not 0; float32 in the images' units.

    Bilinear interpolation with sample points at pixel centres and a replicated border. This equals torchvision's
    resized_crop with or without antialiasing, because crops are never downscaled; unlike torchvision on bytes, the
    results are not rounded.
    """
    height, width = images.shape[2:]
    top, left, heights, widths = (column[:, None].float() for column in boxes.unbind(1))

    def places(first: Tensor, length: Tensor, n: int) -> Tensor:
        inside = (torch.arange(n, device=images.device) + 0.5) * (length / n) - 0.5
        # Clamping replicates the border of the crop. With align_corners, -1 and 1 are the centres of the outer pixels.
        return (first + torch.minimum(inside.clamp(min=0), length - 1)) * (2 / max(n - 1, 1)) - 1

    x = places(left, widths, width)
    x = torch.where(flips.bool()[:, None], x.flip(1), x)
    y = places(top, heights, height)
    grid = torch.stack([x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], 3)
    return torch.nn.functional.grid_sample(images.float(), grid, "bilinear", "border", align_corners=True)


def generator(seed: int, purpose: str, *more: int) -> torch.Generator:
    """Create the random generator for one purpose, on the CPU."""
    # The generator of a GPU draws other numbers, so results would depend on the device.
    return torch.Generator().manual_seed(derive_seed(seed, purpose, *more))


def normalise(x: Tensor, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> Tensor:
    """Normalise images to float32 [B, C, H, W], bit for bit like torchvision's ToTensor and Normalize.

    The images are bytes, or floats between 0 and 255 after resizing. `mean` and `std` are by channel; tensors on the
    images' device avoid a copy. Vectors, float32 [B, features], are normalised by feature and not divided by 255.
    """
    if x.ndim == 2:  # not by dtype: resized images are floats in the units of bytes
        return torch.sub(x, by_channel(mean, x)).div_(by_channel(std, x))
    # With a Python number as divisor, a GPU multiplies by the rounded reciprocal; a tensor forces a true division.
    white = torch.full((), 255.0, dtype=torch.float32, device=x.device)
    return torch.div(x, white).sub_(by_channel(mean, x)).div_(by_channel(std, x))


def by_channel(values: Sequence[float] | Tensor, x: Tensor) -> Tensor:
    """Return constants by channel as float32 on the device of `x`: [C, 1, 1] for images, [features] for vectors."""
    column = torch.as_tensor(values, dtype=torch.float32, device=x.device).reshape(-1, *[1] * (x.ndim - 2))
    if len(column) != x.shape[1]:
        raise ValueError(f"{len(column)} normalisation constants for inputs with {x.shape[1]} channels")
    return column


class TrainingBatches(Protocol):
    """Source of training batches on the device; each batch is a pure function of (seed, epoch, step)."""

    def __len__(self) -> int:
        """Return the number of steps in an epoch."""
        ...

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from `start_step` on; epochs and steps count from 0."""
        ...
