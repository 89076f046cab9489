"""A training step under masks beside a dense one, and our batches beside torchvision's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import transforms

from pai_bench import models, recipes
from pai_bench.arithmetic import laid_out
from pai_bench.datasets import Augment, Batcher
from pai_bench.steps import Step
from tests.benchmarks.conftest import Compare


def stepper(masked: str, **options: Any) -> Callable[[], None]:
    """One SGD step of ResNet-20 on 32 images: dense, with masked gradients, or with masks multiplied in forward."""
    model = models.build("resnet20", 3, 32, 10)
    models.initialise(model, "kaiming-normal-fan-in", 0)
    generator = torch.Generator().manual_seed(0)
    masks = {n: torch.rand(p.shape, generator=generator) < 0.1 for n, p in model.named_parameters() if p.dim() > 1}
    floats = {n: mask.float() for n, mask in masks.items()}
    settings = dataclasses.replace(
        recipes.load("quick", "digits", "resnet20").train, lr=0.1, weight_decay=1e-4, **options
    )
    step = Step(laid_out(model, settings.channels_last), masks if masked == "gradients" else {}, settings)
    x, y = torch.randn(32, 3, 32, 32, generator=generator), torch.arange(32) % 10

    def by_hand() -> None:
        step.optimizer.zero_grad(set_to_none=True)
        weights = {n: p * floats[n] if n in floats else p for n, p in model.named_parameters()}
        nn.functional.cross_entropy(torch.func.functional_call(model, weights, (x,)), y).backward()
        step.optimizer.step()

    return by_hand if masked == "forward" else lambda: step(x, y, 0.1)


def test_masked_step(compare: Compare) -> None:
    compare(stepper("gradients"), stepper("dense"), "of a dense step", rounds=25)


def test_masked_step_against_multiplying_in_forward(compare: Compare) -> None:
    compare(stepper("gradients"), stepper("forward"), "of a step that multiplies weights by masks", rounds=25)


class Pictures(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """What torchvision's CIFAR10 does for an image: array to PIL, transforms."""

    def __init__(self, x: np.ndarray, transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self.x, self.transform = x, transform

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.x[index])), index


@pytest.mark.parametrize(
    "options",
    [{"channels_last": True}, {"precision": "bfloat16"}, {"precision": "bfloat16", "channels_last": True}],
    ids=lambda options: "-".join(options),
)
def test_step_in_another_arithmetic(compare: Compare, options: dict[str, Any]) -> None:
    compare(stepper("gradients", **options), stepper("gradients"), "of a float32 step", rounds=15)


def test_data_path(compare: Compare) -> None:
    """An epoch of 2,560 images of 32x32 (crop, flip, normalise), the ratio being images a second."""
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    x = torch.randint(0, 256, (2560, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    batcher = Batcher(x, torch.arange(2560), 128, Augment(4, True, mean, std), seed=0)
    transform = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )
    pictures = Pictures(x.permute(0, 2, 3, 1).contiguous().numpy(), transform)
    loader = torch.utils.data.DataLoader(pictures, batch_size=128, shuffle=True)

    def count(batches: object) -> int:
        return sum(len(y) for _, y in batches)  # type: ignore[attr-defined]

    # The yardstick is ours, so that the number says how many times torchvision's loader takes.
    total = compare(lambda: count(loader), lambda: count(batcher.epoch(0)), "of our time by torchvision", rounds=7)
    assert total == 2560
