"""Data sets too large for device memory: worker processes decode images during the training."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from pai_bench.datasets import files
from pai_bench.datasets.augmentation import TRIES, Augment, Batch, epoch_order, generator, normalise, resized_boxes
from pai_bench.datasets.in_memory import steps
from pai_bench.datasets.splits import split
from pai_bench.errors import PaiBenchError
from pai_bench.recipes import Data

if TYPE_CHECKING:  # Pillow is imported where images are decoded: data sets in memory do without it
    from PIL import Image

LOADERS_VARIABLE = "PAI_BENCH_LOADERS"
MAX_LOADERS = 8
MAX_TEST_BATCH = 250
"""Limit of the test batch size: an image of 224 x 224 takes fifty times the memory of one of 32 x 32."""


def loaders() -> int:
    """Return the number of image-decoding processes: PAI_BENCH_LOADERS, else the spare cores, at most 8.

    Results do not depend on this number.

    Raises: PaiBenchError when the variable is not an integer.
    """
    text = os.environ.get(LOADERS_VARIABLE)
    if text:
        if not text.isdecimal():
            raise PaiBenchError(f"{LOADERS_VARIABLE}={text!r} is not a whole number", "write for instance 8")
        return int(text)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # One core is left to the training itself.
    return min(cores - 1, MAX_LOADERS)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Images on disk and their labels."""

    folder: Path
    paths: NDArray[np.bytes_]
    """Paths below the folder, UTF-8 [N]; an array, because it is transferred to a worker process faster than a list."""
    labels: NDArray[np.int64]
    size: int
    """Height and width of the network's input."""

    def __len__(self) -> int:
        return len(self.labels)

    def open(self, index: int) -> Image.Image:
        """Open an image in RGB.

        Raises: PaiBenchError when the image is damaged.
        """
        from PIL import Image

        path = self.folder / self.paths[index].decode()
        try:
            with Image.open(path) as picture:
                return picture.convert("RGB")
        except Exception as error:  # Pillow raises errors without a common base class for damaged files
            raise files.damaged(path, f"{type(error).__name__}: {error}") from error

    def still(self, index: int) -> Tensor:
        """Preprocess for evaluation: resize the shorter side to size x 256/224, crop the centre; uint8 [3, H, W]."""
        from PIL.Image import Resampling

        picture = self.open(index)
        width, height = picture.size
        # Sizes are truncated and offsets rounded as in torchvision.
        short = round(self.size * 256 / 224)
        if width <= height:
            width, height = short, int(short * height / width)
        else:
            width, height = int(short * width / height), short
        picture = picture.resize((width, height), Resampling.BILINEAR)
        left, top = round((width - self.size) / 2), round((height - self.size) / 2)
        return _to_tensor(picture.crop((left, top, left + self.size, top + self.size)))

    def augmented(self, index: int, augment: Augment, seed: int, epoch: int) -> Tensor:
        """Take a random-resized crop (bilinear, antialiased, as in torchvision for PIL images), randomly flipped."""
        from PIL.Image import Resampling, Transpose

        draws = generator(seed, "picture", epoch, index)
        picture = self.open(index)
        uniform = torch.rand((1, TRIES, 4), generator=draws, dtype=torch.float64)
        mirrored = bool(torch.randint(0, 2, (), generator=draws))
        top, left, height, width = resized_boxes(uniform, (picture.height, picture.width), augment)[0].tolist()
        picture = picture.crop((left, top, left + width, top + height))
        picture = picture.resize((self.size, self.size), Resampling.BILINEAR)
        if mirrored and augment.flip:
            picture = picture.transpose(Transpose.FLIP_LEFT_RIGHT)
        return _to_tensor(picture)


def _to_tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture).transpose(2, 0, 1).copy())


_Item = tuple[Tensor, int] | PaiBenchError
"""A sample, or an error as a value: DataLoader would replace the type of an error raised in a worker process."""


@dataclass(frozen=True, eq=False)
class _Training:
    """Data set of the worker processes: augmented images by (epoch, index), each with its own random generator."""

    pictures: Pictures
    augment: Augment
    seed: int

    def __getitem__(self, place: tuple[int, int]) -> _Item:
        epoch, index = place
        try:
            return self.pictures.augmented(index, self.augment, self.seed, epoch), int(self.pictures.labels[index])
        except PaiBenchError as error:
            return error


@dataclass(frozen=True, eq=False)
class _Testing:
    pictures: Pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> _Item:
        try:
            return self.pictures.still(index), int(self.pictures.labels[index])
        except PaiBenchError as error:
            return error


def _collate(items: list[_Item]) -> tuple[Tensor, Tensor] | PaiBenchError:
    for item in items:
        if isinstance(item, PaiBenchError):
            return item
    pairs = [item for item in items if not isinstance(item, PaiBenchError)]
    return torch.stack([x for x, _ in pairs]), torch.tensor([y for _, y in pairs])


def _start(worker: int) -> None:
    """Reset signal handlers in a worker process, ignore Ctrl-C (the parent handles it), and use one thread."""
    del worker
    for number in (signal.SIGTERM, *([signal.SIGUSR1, signal.SIGUSR2] if hasattr(signal, "SIGUSR2") else [])):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _loader(items: Any, **options: Any) -> DataLoader[Any]:
    count = loaders()
    if count:
        # Not fork: threads and the CUDA context of the parent do not survive it. Not forkserver: its
        # processes outlive a killed parent.
        options |= {
            "num_workers": count,
            "multiprocessing_context": "spawn",
            "worker_init_fn": _start,
            "prefetch_factor": 2,
        }
    return DataLoader(items, collate_fn=_collate, pin_memory=torch.cuda.is_available(), **options)


class _Order:
    """Batch sampler: yields lists of (epoch, index) for the current epoch."""

    def __init__(self, n: int, batch_size: int, seed: int, last: str) -> None:
        self.n, self.batch_size, self.seed, self.last = n, batch_size, seed, last
        self.epoch, self.start = 0, 0

    def __len__(self) -> int:
        return steps(self.n, self.batch_size, self.last) - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = epoch_order(self.n, self.seed, self.epoch).tolist()
        count = steps(self.n, self.batch_size, self.last)
        for step in range(self.start, count):
            stop = None if self.last == "merge" and step == count - 1 else (step + 1) * self.batch_size
            yield [(self.epoch, index) for index in order[step * self.batch_size : stop]]


class StreamedBatches:
    """Training batches of images on disk, each a pure function of (seed, epoch, step)."""

    def __init__(
        self, pictures: Pictures, batch_size: int, augment: Augment, seed: int, device: torch.device, last: str = "keep"
    ) -> None:
        """Take the images; `last` as in `InMemoryLoader`. The first epoch starts worker processes, which persist."""
        self._order = _Order(len(pictures), batch_size, seed, last)
        self._augment = augment
        self._device = device
        self._loader = _loader(
            _Training(pictures, augment, seed), batch_sampler=self._order, persistent_workers=loaders() > 0
        )

    def __len__(self) -> int:
        """Return the number of steps in an epoch."""
        return steps(self._order.n, self._order.batch_size, self._order.last)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from `start_step` on; epochs and steps count from 0."""
        self._order.epoch, self._order.start = epoch, start_step
        return _on_device(self._loader, self._device, self._augment.mean, self._augment.std)


def _on_device(
    loader: DataLoader[Any], device: torch.device, mean: Sequence[float], std: Sequence[float]
) -> Iterator[Batch]:
    mean_on_device, std_on_device = torch.tensor(mean, device=device), torch.tensor(std, device=device)
    for batch in loader:
        if isinstance(batch, PaiBenchError):
            raise batch
        x, y = batch
        images = x.to(device, non_blocking=True)
        yield normalise(images, mean_on_device, std_on_device), y.to(device, non_blocking=True)


@dataclass(frozen=True, eq=False)
class StreamingDataset:
    """A data set whose images stay on disk."""

    name: str
    train: Pictures
    test: Pictures
    """Images for measuring accuracy: the test set, or the part of the training set that the recipe holds out."""
    classes: int
    content_hash: str
    """SHA-256 of the list of images; their content is not hashed."""
    origin: str
    device: torch.device

    @classmethod
    def load(cls, name: str, root: Path | None, device: torch.device, data: Data | None) -> StreamingDataset:
        """Load the list of images and split it as in the recipe.

        Raises: PaiBenchError as `datasets.load`.
        """
        folder, listing, origin = files.listing(name, root)
        facts = files.info(name)
        train = _pictures(folder, listing.train, facts.size)
        kept, held_out = split(name, train.labels, data)
        if data is not None and data.split == "validation":
            test = Pictures(folder, train.paths[held_out], train.labels[held_out], facts.size)
        else:
            test = _pictures(folder, listing.test, facts.size)
        train = Pictures(folder, train.paths[kept], train.labels[kept], facts.size)
        return cls(name, train, test, facts.classes, listing.digest, origin, device)

    @property
    def train_y(self) -> Tensor:
        """Training labels, int64 [N] on the CPU."""
        return torch.from_numpy(self.train.labels)

    def batch(self, index: Tensor, mean: Sequence[float], std: Sequence[float]) -> Batch:
        """Return the training images of `index`, preprocessed as for the test, and their labels, on the device."""
        with ThreadPoolExecutor(MAX_LOADERS) as pool:  # Pillow releases the GIL while it decodes
            images = torch.stack(list(pool.map(self.train.still, index.tolist())))
        return normalise(images.to(self.device), mean, std), self.train_y[index].to(self.device)

    def training_batches(self, batch_size: int, augment: Augment, seed: int, last: str = "keep") -> StreamedBatches:
        """Create the training batches on the device.

        Raises: PaiBenchError when the recipe's crop does not support images of different sizes.
        """
        if augment.crop != "random-resized":
            raise PaiBenchError(
                f"the images of {self.name} have different sizes, so crop = {augment.crop!r} is not possible",
                'choose a recipe with data.crop = "random-resized"',
            )
        return StreamedBatches(self.train, batch_size, augment, seed, self.device, last)

    def test_batches(self, batch_size: int, mean: Sequence[float], std: Sequence[float]) -> Iterator[Batch]:
        """Create the batches for measuring accuracy: images in order, on the device."""
        return _on_device(
            _loader(_Testing(self.test), batch_size=min(batch_size, MAX_TEST_BATCH)), self.device, mean, std
        )


def _pictures(folder: Path, listed: Sequence[tuple[str, int]], size: int) -> Pictures:
    paths = np.array([path.encode() for path, _ in listed], np.bytes_)
    return Pictures(folder, paths, np.array([label for _, label in listed], np.int64), size)
