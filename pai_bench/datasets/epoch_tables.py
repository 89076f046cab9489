"""Tables of an epoch in device memory, from which a captured CUDA graph gathers its batches without the host."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pai_bench.datasets.augmentation import Batch, normalise
from pai_bench.datasets.in_memory import InMemoryLoader


class EpochTables:
    """The draws and learning rates of one epoch, and a step counter, in tensors that keep their addresses.

    The batches are those of `InMemoryLoader.epoch`, bit for bit: the same bytes are gathered, and normalised by a table
    of all 256 values of a byte that the loader's own arithmetic has filled.
    """

    def __init__(self, loader: InMemoryLoader, padded: Tensor, channels_last: bool = False) -> None:
        """Take a loader with "pad" crops and its images with zero padding, uint8 [N, C, H + 2P, W + 2P].

        With `channels_last`, batches have this memory format from the beginning.
        """
        n, channels, height, width = loader.x.shape
        device, image = loader.x.device, padded[0]
        self._loader = loader
        self._bytes = padded.flatten()
        self._image_bytes = image.numel()
        self._shape = (height, width, channels) if channels_last else (channels, height, width)
        self._channels_last = channels_last
        # Byte and channel of each pixel of a crop, in the order of the batch's memory; plain and mirrored.
        channel = torch.arange(channels, device=device)
        pixels, plane = loader.pixels[:, :, None], channel * image[0].numel()
        places = (pixels + plane) if channels_last else (pixels + plane).transpose(1, 2)
        self._places = places.reshape(2, -1).contiguous()
        values = (256 * channel).expand(height * width, channels)
        self._values = (values if channels_last else values.T).reshape(-1).contiguous()
        grey = torch.arange(256, device=device).to(torch.uint8).view(256, 1, 1, 1).expand(256, channels, 1, 1)
        self._normalised = normalise(grey, loader.augment.mean, loader.augment.std).flatten(1).T.contiguous().flatten()
        self._batch = torch.arange(loader.batch_size + 1, device=device)
        """Positions in a batch; a merged last batch has one more image."""
        self._draws = torch.zeros(3, n, dtype=torch.long, device=device)
        """First byte of the crop, mirror flag and label of each image, in the order of the epoch."""
        self._rates = torch.zeros(len(loader), device=device)
        # The counter is on the device, because the launch of a graph has no arguments.
        self.step = torch.zeros(1, dtype=torch.long, device=device)
        """Index in the epoch of the step that the next launch begins with."""

    def fill(self, epoch: int, step: int, rates: Sequence[float]) -> None:
        """Load an epoch, with the learning rate of each of its steps, and set the counter to `step`; no waiting."""
        order, corner, flip = self._loader.draws(epoch)
        # A captured graph reads fixed addresses, so that every tensor is overwritten in place.
        torch.add(corner, order, alpha=self._image_bytes, out=self._draws[0])
        self._draws[1].copy_(flip)
        self._draws[2].copy_(self._loader.y.index_select(0, order))
        self._rates.copy_(self._loader.to_device(torch.tensor(rates, dtype=torch.float32)))
        self.step.fill_(step)

    def rate(self, offset: int, out: Tensor) -> None:
        """Store the learning rate of the step `offset` after the counter in `out`, float32 [1]."""
        torch.index_select(self._rates, 0, self.step + offset if offset else self.step, out=out)

    def batch(self, offset: int, size: int) -> Batch:
        """Gather the batch of `size` images of the step `offset` after the counter."""
        places = self._batch[:size]
        # A merged last batch is longer, but begins at the same place.
        first = places + offset * self._loader.batch_size if offset else places
        start, flip, labels = self._draws.index_select(1, torch.add(first, self.step, alpha=self._loader.batch_size))
        grey = self._bytes.take(self._places.index_select(0, flip).add_(start[:, None]))
        x = self._normalised.take(self._values + grey).view(size, *self._shape)
        return (x.permute(0, 3, 1, 2) if self._channels_last else x), labels
