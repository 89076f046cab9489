"""Tests of data on the device: pixels as from PIL and torchvision, and draws determined by the seed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor

from pai_bench import recipes
from pai_bench.core.dispatch import DispatchMode
from pai_bench.datasets import files, loading
from pai_bench.datasets.files import sources
from pai_bench.datasets.loading import Augment, InMemoryLoader
from pai_bench.datasets.splits import split
from pai_bench.errors import PaiBenchError


@pytest.mark.slow
def test_digits_equal_scikit_learns_data() -> None:
    from sklearn.datasets import load_digits

    data = loading.load("digits")
    assert (len(data.train_x), len(data.test_x)) == (1437, 360)
    everything = torch.cat([data.train_x, data.test_x]).reshape(1797, 64)
    # Grey levels 0 to 16 are kept apart, and no image is lost or there twice.
    assert sorted(map(tuple, (everything.double() * 16 / 255).round().long().tolist())) == sorted(
        map(tuple, load_digits().data.astype(int).tolist())
    )
    counts = torch.bincount(data.test_y)
    assert counts.max() - counts.min() <= 2
    assert data.content_hash == loading.load("digits").content_hash


AUGMENT = Augment(padding=4, flip=True, mean=(0.49, 0.48, 0.45), std=(0.25, 0.24, 0.26))


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (50, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return x, torch.arange(50)


@pytest.mark.slow  # the import of torchvision
def test_crops_and_flips_are_those_of_pil_bit_for_bit(images: tuple[Tensor, Tensor]) -> None:
    from torchvision.transforms import functional

    x, y = images
    loader = InMemoryLoader(x, y, 16, AUGMENT, seed=3)
    got_x = torch.cat([inputs for inputs, _ in loader.epoch(2)])
    got_y = torch.cat([targets for _, targets in loader.epoch(2)])
    order = loading.epoch_order(50, 3, 2)
    shifts, flips = loading.epoch_shifts(50, 3, 2, 4), loading.epoch_flips(50, 3, 2)
    assert torch.equal(got_y, order)
    assert {0, 8} <= set(shifts.flatten().tolist()) and flips.any() and not flips.all()
    for place, index in enumerate(order.tolist()):
        picture = ImageOps.expand(Image.fromarray(x[index].permute(1, 2, 0).numpy()), border=4)
        row, column = shifts[place].tolist()
        picture = picture.crop((column, row, column + 32, row + 32))
        if flips[place]:
            picture = ImageOps.mirror(picture)
        expected = functional.normalize(functional.to_tensor(picture), AUGMENT.mean, AUGMENT.std)
        assert torch.equal(got_x[place], expected)


def test_without_augmentation_only_the_order_changes(images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    plain = Augment(0, False, AUGMENT.mean, AUGMENT.std)
    got = torch.cat([inputs for inputs, _ in InMemoryLoader(x, y, 7, plain, seed=1).epoch(0)])
    assert torch.equal(got, loading.normalise(x[loading.epoch_order(50, 1, 0)], plain.mean, plain.std))


def test_draws_are_a_pure_function_of_seed_epoch_and_step(images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    loader = InMemoryLoader(x, y, 16, AUGMENT, seed=3)
    whole = list(loader.epoch(5))
    assert len(whole) == len(loader) == 4
    torch.manual_seed(99)
    torch.rand(7)
    list(loader.epoch(4))
    for start in range(4):
        for (a, b), (c, d) in zip(loader.epoch(5, start), whole[start:], strict=True):
            assert torch.equal(a, c) and torch.equal(b, d)
    other_epoch, other_seed = next(loader.epoch(6))[1], next(InMemoryLoader(x, y, 16, AUGMENT, seed=4).epoch(5))[1]
    assert not torch.equal(other_epoch, whole[0][1]) and not torch.equal(other_seed, whole[0][1])


def test_every_image_comes_once_an_epoch(images: tuple[Tensor, Tensor]) -> None:
    loader = InMemoryLoader(*images, 16, AUGMENT, seed=0)
    assert sorted(torch.cat([targets for _, targets in loader.epoch(0)]).tolist()) == list(range(50))


def test_test_images_are_never_augmented(images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    batches = list(loading.evaluation_batches(x, y, 16, AUGMENT.mean, AUGMENT.std))
    assert torch.equal(torch.cat([targets for _, targets in batches]), y)
    assert torch.equal(torch.cat([i for i, _ in batches]), loading.normalise(x, AUGMENT.mean, AUGMENT.std))


@pytest.mark.slow
def test_scoring_batches_are_balanced_and_decided_by_the_seed() -> None:
    data = loading.load("digits")
    batches = loading.scoring_batches(data, 25, 4, 7, (0.3,), (0.4,))
    again = loading.scoring_batches(data, 25, 4, 7, (0.3,), (0.4,))
    assert len(batches) == 4
    for (x, y), (x2, y2) in zip(batches, again, strict=True):
        assert x.shape == (25, 1, 8, 8) and torch.equal(x, x2) and torch.equal(y, y2)
        counts = torch.bincount(y, minlength=10)
        assert counts.max() - counts.min() <= 1
    total = torch.bincount(torch.cat([y for _, y in batches]), minlength=10)
    assert total.tolist() == [10] * 10
    pictures = torch.cat([x for x, _ in batches]).flatten(1)
    assert len(torch.unique(pictures, dim=0)) == 100
    other = loading.scoring_batches(data, 25, 4, 8, (0.3,), (0.4,))
    assert not torch.equal(next(iter(other))[0], next(iter(batches))[0])
    # The images are training images as they are: normalised, not augmented.
    train = set(map(tuple, loading.normalise(data.train_x, (0.3,), (0.4,)).flatten(1).tolist()))
    assert set(map(tuple, pictures.tolist())) <= train


RESIZED = Augment(0, True, AUGMENT.mean, AUGMENT.std, "random-resized", (0.2, 1.0), (3 / 4, 4 / 3))


@pytest.mark.slow  # the import of torchvision
def test_random_resized_crops_are_torchvisions(images: tuple[Tensor, Tensor]) -> None:
    from torchvision.transforms import InterpolationMode, functional

    x, y = images
    got = torch.cat([inputs for inputs, _ in InMemoryLoader(x, y, 16, RESIZED, seed=3).epoch(2)])
    order, flips = loading.epoch_order(50, 3, 2), loading.epoch_flips(50, 3, 2)
    boxes = loading.epoch_boxes(50, 3, 2, (32, 32), RESIZED)
    assert len(set(map(tuple, boxes.tolist()))) > 40
    for place, index in enumerate(order.tolist()):
        expected = functional.resized_crop(
            x[index].float(), *boxes[place].tolist(), [32, 32], InterpolationMode.BILINEAR, antialias=place % 2 == 0
        )
        expected = functional.hflip(expected) if flips[place] else expected
        expected = functional.normalize(expected / 255, AUGMENT.mean, AUGMENT.std)
        assert (got[place] - expected).abs().max() < 1e-4
    grey = torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1).expand(2, 3, 1, 1)
    low, high = loading.normalise(grey, AUGMENT.mean, AUGMENT.std)
    assert (got >= low - 1e-5).all() and (got <= high + 1e-5).all()


def test_random_resized_crops_resume_inside_an_epoch(images: tuple[Tensor, Tensor]) -> None:
    loader = InMemoryLoader(*images, 16, RESIZED, seed=3)
    whole = list(loader.epoch(5))
    for (a, b), (c, d) in zip(loader.epoch(5, 2), whole[2:], strict=True):
        assert torch.equal(a, c) and torch.equal(b, d)
    assert not torch.equal(next(iter(loader.epoch(6)))[0], whole[0][0])


def test_the_distribution_of_random_resized_crops() -> None:
    boxes = loading.epoch_boxes(4000, 0, 0, (64, 64), RESIZED).double()
    top, left, height, width = boxes.unbind(1)
    assert (top >= 0).all() and (left >= 0).all() and (top + height <= 64).all() and (left + width <= 64).all()
    area, ratio = height * width / 64**2, width / height
    assert 0.18 < area.min() < 0.25 and area.max() > 0.9 and abs(area.mean() - 0.57) < 0.04
    assert ratio.min() > 0.7 and ratio.max() < 1.43 and abs(ratio.log().mean()) < 0.02
    # If no crop fits, the crop of an image three times as wide as high is the largest allowed one in the middle.
    ones = torch.full((1, 10, 4), 1 - 1e-9, dtype=torch.float64)
    assert loading.resized_boxes(ones, (20, 60), RESIZED).tolist() == [[0, 16, 20, 27]]


def recipe_data(**values: object) -> recipes.Data:
    return dataclasses.replace(recipes.load("quick", "digits", "conv8").data, **values)  # type: ignore[arg-type]


@pytest.mark.slow
def test_validation_images_are_training_images_that_are_not_trained_on() -> None:
    whole = loading.load("digits")
    held = loading.load("digits", data=recipe_data(split="validation", validation_size=0.25))
    assert (len(held.train_x), len(held.test_x)) == (1080, 357)

    def pictures(x: Tensor) -> list[tuple[int, ...]]:
        return sorted(map(tuple, x.flatten(1).tolist()))

    assert pictures(torch.cat([held.train_x, held.test_x])) == pictures(whole.train_x)
    share = torch.bincount(held.test_y) / torch.bincount(whole.train_y)
    assert (share - 0.25).abs().max() < 0.005
    again = loading.load("digits", data=recipe_data(split="validation", validation_size=0.25))
    assert torch.equal(again.test_x, held.test_x)
    other = loading.load("digits", data=recipe_data(split="validation", validation_size=0.25, split_seed=1))
    assert not torch.equal(other.test_x, held.test_x)
    # The split is written here: later versions must make the same.
    assert split("digits", np.arange(40) % 2, recipe_data(split="validation"))[1].tolist() == [4, 10, 19, 35]


def test_unused_training_images_form_the_validation_part_first() -> None:
    labels = np.arange(1000) % 10
    validation = split("x", labels, recipe_data(split="validation", validation_size=0.1))
    fraction = split("x", labels, recipe_data(train_fraction=0.9))
    both = split("x", labels, recipe_data(split="validation", validation_size=0.1, train_fraction=0.9))
    assert len(fraction[0]) == 900 and len(fraction[1]) == 0
    assert validation[0].tolist() == fraction[0].tolist() == both[0].tolist()
    with pytest.raises(PaiBenchError, match="leaves no image for validation"):
        split("x", labels, recipe_data(split="validation", validation_size=1e-6))


@pytest.mark.slow
def test_the_test_set_is_not_read_for_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[str] = []
    source = files.source("digits")
    assert source.read is not None

    def read(folder: Path, part: str) -> files.Images:
        parts.append(part)
        return source.read(folder, part)  # type: ignore[misc]

    monkeypatch.setitem(sources.CATALOGUE._things, "digits", dataclasses.replace(source, read=read))
    loading.load("digits", data=recipe_data(split="validation"))
    assert parts == ["train"]
    loading.load("digits", data=recipe_data())
    assert parts == ["train", "train", "test"]


def test_a_gpu_divides_as_the_cpu_does() -> None:
    """A GPU divides by a Python number through its rounded reciprocal; so every operand must be a tensor."""
    divisors: list[object] = []

    class Divisions(DispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.overloadpacket in (torch.ops.aten.div_, torch.ops.aten.div):
                divisors.append(args[1])
            return func(*args, **(kwargs or {}))

    x = torch.zeros((2, 3, 4, 4), dtype=torch.uint8, device="meta")
    with Divisions():
        loading.normalise(x, AUGMENT.mean, AUGMENT.std)
    assert [isinstance(d, Tensor) and d.device.type for d in divisors] == ["meta", "meta"]
