"""Masks of large networks in float64 on a GPU and on the CPU."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

import pai_bench
from pai_bench import models
from pai_bench.scoring import product_convolutions
from tests.cuda.test_cuda import DEVICE

SIZES = {"vgg19-bn": (32, 10), "resnet50-imagenet": (64, 1000)} if DEVICE.type == "cuda" else {"resnet20": (32, 10)}
"""Side of the images and number of classes; a small network where the CPU is compared with itself."""


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("method", ["snip", "grasp"])
def test_masks_of_large_networks_are_those_of_the_cpu(method: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By cuDNN and by matrix products; relative differences of 1e-13 swap weights in one mask of hundreds."""
    side, classes = SIZES[name]
    model = models.build(name, 3, side, classes)
    models.initialise(model, "kaiming-normal-fan-in", 0)
    generator = torch.Generator().manual_seed(0)
    data = [(torch.randn(4, 3, side, side, generator=generator), torch.arange(4))]
    moved = [(x.to(DEVICE), y.to(DEVICE)) for x, y in data]
    theirs = pai_bench.prune(model, data, method, sparsity=0.98)
    for products in (True, False):
        monkeypatch.setattr(product_convolutions, "faster", lambda device, chosen=products: chosen)
        ours = pai_bench.prune(copy.deepcopy(model).to(DEVICE), moved, method, sparsity=0.98)
        assert different(ours, theirs) <= 2, f"products: {products}"


def different(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> int:
    """Return the number of weights that only one of two masks keeps."""
    return sum(int((ours[name].cpu() != mask).sum()) for name, mask in theirs.items())
