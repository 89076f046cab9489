"""What is done to images on their way to the network; every draw is a pure function of (seed, epoch, position)."""

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
"""Inputs float32 [B, C, H, W] and targets int64 [B]."""


@dataclass(frozen=True)
class Augment:
    """What happens to a training image: a random crop, a random flip, and normalisation."""

    padding: int
    """Pixels of zeros on each side before a "pad" crop to the old size; 0 for no such crop."""
    flip: bool
    mean: tuple[float, ...]
    """By channel, in units of [0, 1]."""
    std: tuple[float, ...]
    crop: str = "pad"
    """"pad", or "random-resized": a part of the image with a random area and shape, enlarged to the whole size."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Least and greatest area of a random-resized crop, as a fraction of the image."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Least and greatest width / height of a random-resized crop."""

    @classmethod
    def of(cls, data: Data) -> Augment:
        """What a recipe says."""
        scale, ratio = (data.scale[0], data.scale[1]), (data.ratio[0], data.ratio[1])
        return cls(data.padding, data.flip, data.mean, data.std, data.crop, scale, ratio)


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """The order of the n training images in this epoch, int64 [n] on the CPU."""
    return torch.randperm(n, generator=generator(seed, "order", epoch))


def epoch_shifts(n: int, seed: int, epoch: int, padding: int) -> Tensor:
    """Row and column at which each crop begins in the padded image, int64 [n, 2] on the CPU, by place in the epoch."""
    return torch.randint(0, 2 * padding + 1, (n, 2), generator=generator(seed, "crop", epoch))


def epoch_flips(n: int, seed: int, epoch: int) -> Tensor:
    """Which images are mirrored, bool [n] on the CPU, by place in the epoch."""
    return torch.randint(0, 2, (n,), generator=generator(seed, "flip", epoch)).bool()


TRIES = 10
"""How often a random-resized crop is drawn until it fits, as in torchvision."""


def epoch_boxes(n: int, seed: int, epoch: int, size: tuple[int, int], augment: Augment) -> Tensor:
    """The random-resized crops of images of one size, int64 [n, 4]: first row and column, height, width."""
    uniform = torch.rand((n, TRIES, 4), generator=generator(seed, "resized", epoch), dtype=torch.float64)
    return resized_boxes(uniform, size, augment)


def resized_boxes(uniform: Tensor, size: tuple[int, int], augment: Augment) -> Tensor:
    """Crops int64 [n, 4] (first row and column, height, width) from draws in [0, 1) [n, TRIES, 4].

    As torchvision: area uniform in `scale`, log(width / height) uniform in log(`ratio`), place uniform; the first try
    that fits, else the largest crop in the middle whose shape is allowed.
    """
    height, width = size
    area = height * width * (augment.scale[0] + (augment.scale[1] - augment.scale[0]) * uniform[..., 0])
    low, high = math.log(augment.ratio[0]), math.log(augment.ratio[1])
    shape = torch.exp(low + (high - low) * uniform[..., 1])
    widths, heights = (area * shape).sqrt().round().long(), (area / shape).sqrt().round().long()
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    rows = (uniform[..., 2] * (height - heights + 1)).floor().long()
    columns = (uniform[..., 3] * (width - widths + 1)).floor().long()
    first = fits.int().argmax(1)[:, None, None].expand(-1, 1, 4)
    boxes = torch.stack([rows, columns, heights, widths], 2).gather(1, first).squeeze(1)
    whole_height = height if width / height >= augment.ratio[0] else round(width / augment.ratio[0])
    whole_width = width if width / height <= augment.ratio[1] else round(height * augment.ratio[1])
    middle = [(height - whole_height) // 2, (width - whole_width) // 2, whole_height, whole_width]
    return torch.where(fits.any(1)[:, None], boxes, torch.tensor(middle))


def resize_crops(images: Tensor, boxes: Tensor, flips: Tensor) -> Tensor:
    """Crops of images [B, C, H, W] enlarged to H x W, mirrored where `flips` is not 0: float32 in the images' units.

    Bilinear, pixels at their centres, the crop's edge repeated; that is torchvision's resized_crop with or without
    antialiasing, since nothing is made smaller. Grey levels are not rounded, as torchvision does to bytes.
    """
    height, width = images.shape[2:]
    top, left, heights, widths = (column[:, None].float() for column in boxes.unbind(1))

    def places(first: Tensor, length: Tensor, n: int) -> Tensor:
        inside = (torch.arange(n, device=images.device) + 0.5) * (length / n) - 0.5
        return (first + torch.minimum(inside.clamp(min=0), length - 1)) * (2 / max(n - 1, 1)) - 1

    x = places(left, widths, width)
    x = torch.where(flips.bool()[:, None], x.flip(1), x)
    y = places(top, heights, height)
    grid = torch.stack([x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], 3)
    return torch.nn.functional.grid_sample(images.float(), grid, "bilinear", "border", align_corners=True)


def generator(seed: int, purpose: str, *more: int) -> torch.Generator:
    """The generator of the draws for one purpose."""
    # Always the CPU's: an accelerator's generator draws other numbers.
    return torch.Generator().manual_seed(derive_seed(seed, purpose, *more))


def normalise(x: Tensor, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> Tensor:
    """float32 [B, C, H, W] of uint8 images, bit for bit what torchvision's ToTensor and Normalize make of them.

    `mean` and `std` are by channel; tensors on the images' device spare a copy to it.
    """
    # By a number a GPU would not divide, but multiply by its reciprocal.
    white = torch.full((), 255.0, dtype=torch.float32, device=x.device)
    return torch.div(x, white).sub_(by_channel(mean, x)).div_(by_channel(std, x))


def by_channel(values: Sequence[float] | Tensor, x: Tensor) -> Tensor:
    """Constants by channel, float32 [C, 1, 1] on the device of the images `x`."""
    column = torch.as_tensor(values, dtype=torch.float32, device=x.device).reshape(-1, 1, 1)
    if len(column) != x.shape[1]:
        raise ValueError(f"{len(column)} normalisation constants for images with {x.shape[1]} channels")
    return column


class TrainingBatches(Protocol):
    """What training takes its batches from; each batch is a pure function of (seed, epoch, step), on the device."""

    def __len__(self) -> int:
        """The number of steps in an epoch."""
        ...

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch (both counted from 0) from `start_step` on."""
        ...
