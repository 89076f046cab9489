"""A training step under masks beside a dense one, and our batches beside torchvision's."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture
from torch import nn
from torch.nn.utils import prune
from torchvision import transforms

from pai_bench import models, recipes
from pai_bench.core.precision import laid_out
from pai_bench.datasets.loading import Augment, InMemoryLoader, epoch_flips, epoch_shifts
from pai_bench.training.step import Step
from tests.benchmarks.conftest import Compare, Fact
from tests.benchmarks.counting import count


def stepper(masked: str, size: int = 32, **options: Any) -> Callable[[], None]:
    """One SGD step of ResNet-20: dense, with masked gradients, under torch's pruning, or with weights times masks."""
    model = models.build("resnet20", 3, 32, 10)
    models.initialise(model, "kaiming-normal-fan-in", 0)
    generator = torch.Generator().manual_seed(0)
    masks = {n: torch.rand(p.shape, generator=generator) < 0.1 for n, p in model.named_parameters() if p.dim() > 1}
    floats = {n: mask.float() for n, mask in masks.items()}
    settings = dataclasses.replace(
        recipes.load("quick", "digits", "resnet20").train, lr=0.1, weight_decay=1e-4, **options
    )
    model = laid_out(model, settings.channels_last)
    step = Step(model, masks if masked == "gradients" else {}, settings)
    x, y = torch.randn(size, 3, 32, 32, generator=generator), torch.arange(size) % 10
    if masked == "torch":
        for name, mask in masks.items():
            module, _, attribute = name.rpartition(".")
            prune.custom_from_mask(model.get_submodule(module), attribute, mask)
        step = Step(model, {}, settings)

    def by_hand() -> None:
        step.optimizer.zero_grad(set_to_none=True)
        weights = {n: p * floats[n] if n in floats else p for n, p in model.named_parameters()}
        nn.functional.cross_entropy(torch.func.functional_call(model, weights, (x,)), y).backward()
        step.optimizer.step()

    return by_hand if masked == "forward" else lambda: step(x, y, 0.1)


def test_masked_step(compare: Compare) -> None:
    compare(stepper("gradients", 8), stepper("dense", 8), "of a dense step", rounds=25, most=1.03)


def test_masked_step_against_torch(compare: Compare) -> None:
    compare(stepper("gradients", 8), stepper("torch", 8), "of a step with torch.nn.utils.prune", rounds=25, most=1.0)


def test_masked_step_against_multiplying_in_forward(compare: Compare) -> None:
    compare(stepper("gradients", 8), stepper("forward", 8), "of a step that multiplies weights by masks", rounds=25)


def test_operators_of_a_step(benchmark: BenchmarkFixture, fact: Fact) -> None:
    """Dispatched, views aside; the first step makes the optimiser's state."""
    found = {}
    for kind in ("dense", "gradients", "torch", "forward"):
        step = stepper(kind, 8)
        step()
        found[kind] = count(step)[0]
    benchmark.pedantic(step, rounds=1)
    assert found["gradients"] - found["dense"] <= 2 < found["torch"] - found["dense"]
    words = {"dense": "dense", "gradients": "ours", "torch": "torch.nn.utils.prune", "forward": "weights times masks"}
    fact("operators of a step, ResNet-20", ", ".join(f"{words[kind]} {number}" for kind, number in found.items()))


class Pictures(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """The operations of torchvision's CIFAR10 for an image: array to PIL, transforms."""

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


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_compiled_step(compare: Compare, fact: Fact, measuring: bool, precision: str) -> None:
    """In channels-last, by the same step that is not compiled."""
    options = {"size": 32 if measuring else 4, "precision": precision, "channels_last": True}
    fused = stepper("gradients", compile=True, **options)
    began = time.perf_counter()
    fused()
    fact(f"first step, compiled, {precision}", f"{time.perf_counter() - began:.0f} s")
    compare(fused, stepper("gradients", **options), "of the same step, not compiled", rounds=15)


MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def images(number: int) -> torch.Tensor:
    return torch.randint(0, 256, (number, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_data_path(compare: Compare) -> None:
    """An epoch of 2,560 images of 32x32 (crop, flip, normalise), the ratio being images a second."""
    x = images(2560)
    loader = InMemoryLoader(x, torch.arange(2560), 128, Augment(4, True, MEAN, STD), seed=0)
    steps = [
        transforms.RandomCrop(32, padding=4),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
    pictures = Pictures(x.permute(0, 2, 3, 1).contiguous().numpy(), transforms.Compose(steps))
    theirs = torch.utils.data.DataLoader(pictures, batch_size=128, shuffle=True)

    def count_images(batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> int:
        return sum(len(y) for _, y in batches)

    total = compare(
        lambda: count_images(loader.epoch(0)),
        lambda: count_images(theirs),
        "times torchvision's images a second",
        rounds=7,
        least=15,
        inverse=True,
    )
    assert total == 2560


def test_data_path_is_torchvisions_bit_for_bit(benchmark: BenchmarkFixture, fact: Fact) -> None:
    """For given draws: pad, crop, flip, ToTensor, Normalize on PIL images."""
    x = images(64)
    loader = InMemoryLoader(x, torch.arange(64), 64, Augment(4, True, MEAN, STD), seed=0)
    ours, order = benchmark.pedantic(lambda: next(loader.epoch(0)), rounds=1)
    shifts, flips = epoch_shifts(64, 0, 0, 4).tolist(), epoch_flips(64, 0, 0).tolist()
    finish = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    theirs = []
    for index, (row, column), mirrored in zip(order.tolist(), shifts, flips, strict=True):
        picture = Image.fromarray(x[index].permute(1, 2, 0).contiguous().numpy())
        picture = transforms.functional.crop(transforms.functional.pad(picture, [4]), row, column, 32, 32)
        theirs.append(finish(transforms.functional.hflip(picture) if mirrored else picture))
    equal = torch.equal(ours, torch.stack(theirs))
    fact("batches are torchvision's, bit for bit", str(equal))
    assert equal
