"""Batches for scoring: training images, or controls that show what scores take from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pai_bench.datasets.augmentation import Batch, generator
from pai_bench.datasets.in_memory import InMemoryDataset
from pai_bench.datasets.streaming import StreamingDataset


class ScoringBatches:
    """Batches of training images, created lazily during iteration."""

    def __init__(
        self,
        dataset: InMemoryDataset | StreamingDataset,
        chosen: Sequence[Tensor],
        mean: Sequence[float],
        std: Sequence[float],
        kind: str = "train",
        seed: int = 0,
    ) -> None:
        """Take the data set, the images of each batch, the normalisation, and a kind of data (see `altered`)."""
        self._dataset = dataset
        self._chosen = chosen
        self._mean = mean
        self._std = std
        self._kind = kind
        self._seed = seed
        self._loaded: list[Batch] | None = None

    def __len__(self) -> int:
        return len(self._chosen)

    def loaded(self) -> ScoringBatches:
        """Return the same batches, from now on in memory."""
        self._loaded = list(self)
        return self

    @property
    def different(self) -> int:
        """Number of different images in all batches together."""
        drawn = torch.cat([*self._chosen, torch.zeros(0, dtype=torch.long)])
        return len(drawn) if self._kind == "noise" else len(set(drawn.tolist()))

    def __iter__(self) -> Iterator[Batch]:
        if self._loaded is not None:
            yield from self._loaded
            return
        for position, chosen in enumerate(self._chosen):
            batch = self._dataset.batch(chosen, self._mean, self._std)
            yield altered(batch, self._kind, self._dataset.classes, generator(self._seed, self._kind, position))


def altered(batch: Batch, kind: str, classes: int, draws: torch.Generator) -> Batch:
    """Return the batch [B, C, H, W], [B] of another kind of scoring data, with draws made on the CPU.

    "train" and "one-class" leave it as it is; "noise": standard normal inputs; "shuffled-pixels": the pixels of each
    image in random order, the channels of a pixel together (of vectors [B, F] the elements); "random-labels": uniform
    labels. Su et al. 2020 (arXiv 2009.11094) corrupt labels and pixels in this way; their code permutes the channels
    too, and labels with the pixels.
    """
    x, y = batch
    if kind == "noise":
        return torch.randn(x.shape, generator=draws, device="cpu").to(x), y
    if kind == "shuffled-pixels":
        pixels = x.flatten(2) if x.ndim > 2 else x[:, None]
        order = torch.rand(len(x), pixels.shape[2], generator=draws, device="cpu").argsort(1).to(x.device)
        return pixels.gather(2, order[:, None].expand_as(pixels)).view_as(x), y
    if kind == "random-labels":
        return x, torch.randint(classes, y.shape, generator=draws, device="cpu").to(y)
    return x, y


def scoring_batches(
    dataset: InMemoryDataset | StreamingDataset,
    batch_size: int,
    count: int,
    seed: int,
    mean: Sequence[float],
    std: Sequence[float],
    kind: str = "train",
) -> ScoringBatches:
    """Draw `count` batches of training images for scoring: class-balanced, shuffled, not augmented, fixed by the seed.

    In every batch, and over all batches, the numbers of images of two classes differ by at most one. No image is
    repeated before all images of its class have been used. `kind` is one of recipes.SCORING_DATA (see `altered`); with
    "one-class" all images are of one class, which is drawn by the seed.
    """
    draws = generator(seed, "scoring")
    labels = dataset.train_y.cpu()
    members = [torch.nonzero(labels == label).flatten() for label in range(dataset.classes)]
    members = [images for images in members if len(images)]
    if kind == "one-class":
        members = [members[int(torch.randint(len(members), (), generator=generator(seed, kind)))]]
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
    return ScoringBatches(dataset, shuffled, mean, std, kind, seed)
