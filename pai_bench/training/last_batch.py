"""Treatment of a last batch of one image, on which batch norm may fail."""

from __future__ import annotations

import copy

import torch
from torch import nn

from pai_bench.core.precision import forward
from pai_bench.datasets.loading import InMemoryDataset, StreamingDataset
from pai_bench.errors import PaiBenchError
from pai_bench.recipes import Recipe


def last_batch(model: nn.Module, dataset: InMemoryDataset | StreamingDataset, recipe: Recipe) -> str:
    """Return the treatment of the last batch: `train.last_batch` if it is a single image and batch norm fails on it.

    Raises: PaiBenchError when no other batch precedes it.
    """
    n, size = len(dataset.train_y), recipe.train.batch_size
    if n % size != 1 and size > 1:
        return "keep"
    image, _ = dataset.batch(torch.zeros(1, dtype=torch.long), recipe.data.mean, recipe.data.std)
    try:
        with torch.no_grad():
            # On a copy, because the pass changes running statistics.
            forward(copy.deepcopy(model).train(), image)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        if n > size > 1:
            return recipe.train.last_batch
        raise PaiBenchError(
            f"batch norm cannot be trained on batches of one image ({n} images, train.batch_size = {size})",
            "raise train.batch_size, or choose a network without batch norm over single values",
        ) from error
    return "keep"
