"""Tests of streamed data sets: pixels equal torchvision's, also with worker processes and after resuming."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pai_bench import recipes
from pai_bench.datasets import files, loading, streaming
from pai_bench.datasets.files import sources
from pai_bench.datasets.loading import Augment, StreamingDataset
from pai_bench.errors import PaiBenchError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AUGMENT = Augment(0, True, MEAN, STD, "random-resized", (0.08, 1.0), (3 / 4, 4 / 3))


@pytest.fixture
def imagenet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write ImageNet with three classes, 11 training and 3 test images of many sizes, and network inputs of 32 x 32."""
    source = files.source("imagenet")
    info = files.Info(3, 32, 3, 11, 3)
    monkeypatch.setitem(sources.CATALOGUE._things, "imagenet", dataclasses.replace(source, info=info))
    draws = np.random.default_rng(0)
    for number in range(14):
        part, wnid = ("train", number % 3) if number < 11 else ("val", number - 11)
        size = (int(draws.integers(40, 90)), int(draws.integers(40, 90)), 3)
        small = Image.fromarray(draws.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        place = tmp_path / "imagenet" / part / f"n{wnid}" / f"{number}.JPEG"
        place.parent.mkdir(parents=True, exist_ok=True)
        small.resize(size[:2]).save(place)
    return tmp_path


def load(root: Path, **data: object) -> StreamingDataset:
    recipe = dataclasses.replace(recipes.load("quick", "digits", "conv8").data, **data)  # type: ignore[arg-type]
    found = loading.load("imagenet", root, data=recipe)
    assert isinstance(found, StreamingDataset)
    return found


def test_a_folder_with_the_right_numbers_passes_and_another_needs_to_be_accepted(imagenet: Path) -> None:
    origin = files.require("imagenet", imagenet)
    assert origin.startswith("listed:") and load(imagenet).origin == origin
    (imagenet / "imagenet/train/n1/1.JPEG").unlink()
    with pytest.raises(PaiBenchError, match=r"10 \+ 3 pictures") as caught:
        files.require("imagenet", imagenet)
    assert "--accept-checksum" in caught.value.remedy
    other = imagenet / "other"
    with pytest.raises(PaiBenchError, match=r"add imagenet --from .* --accept-checksum --link"):
        files.add("imagenet", imagenet, other, link=True)
    assert not (other / "imagenet").exists()
    assert files.add("imagenet", imagenet / "imagenet", other, link=True, accept_checksum=True).state == "accepted"
    assert files.require("imagenet", other).startswith("accepted:") and (other / "imagenet").is_symlink()


@pytest.mark.slow
def test_pixels_equal_torchvisions(imagenet: Path) -> None:
    from torchvision.transforms import functional

    pictures = load(imagenet).train
    for index in range(len(pictures)):
        picture = pictures.open(index)
        still = functional.center_crop(functional.resize(picture, [37]), [32, 32])
        assert torch.equal(pictures.still(index), functional.pil_to_tensor(still))
        draws = streaming.generator(5, "picture", 2, index)
        uniform = torch.rand((1, 10, 4), generator=draws, dtype=torch.float64)
        flip = bool(torch.randint(0, 2, (), generator=draws))
        box = loading.resized_boxes(uniform, (picture.height, picture.width), AUGMENT)[0].tolist()
        expected = functional.resized_crop(picture, *box, [32, 32])
        expected = functional.hflip(expected) if flip else expected
        assert torch.equal(pictures.augmented(index, AUGMENT, 5, 2), functional.pil_to_tensor(expected))


@pytest.mark.slow
def test_workers_and_resuming_change_nothing(imagenet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load(imagenet)
    monkeypatch.setenv("PAI_BENCH_LOADERS", "0")
    batches = loading.training_batches(data, 4, AUGMENT, seed=1)
    whole = [list(batches.epoch(epoch)) for epoch in (0, 1)]
    assert len(batches) == len(whole[0]) == 3 and whole[0][0][0].shape == (4, 3, 32, 32)
    tested = list(loading.test_batches(data, 2, MEAN, STD))
    assert torch.cat([y for _, y in tested]).tolist() == [0, 1, 2]
    monkeypatch.setenv("PAI_BENCH_LOADERS", "2")
    several = loading.training_batches(data, 4, AUGMENT, seed=1)
    for epoch, start in ((1, 1), (0, 0)):
        for (a, b), (c, d) in zip(several.epoch(epoch, start), whole[epoch][start:], strict=True):
            assert torch.equal(a, c) and torch.equal(b, d)


def test_validation_and_scoring_come_from_the_training_pictures(imagenet: Path) -> None:
    data = load(imagenet, split="validation", validation_size=0.3)
    names = {path.decode().split("/")[0] for path in (*data.train.paths, *data.test.paths)}
    assert names == {"train"} and (len(data.train), len(data.test)) == (8, 3)
    ((x, y),) = loading.scoring_batches(data, 6, 1, 0, MEAN, STD)
    assert x.shape == (6, 3, 32, 32) and torch.bincount(y).tolist() == [2, 2, 2]
    with pytest.raises(PaiBenchError, match="crop = 'pad'"):
        loading.training_batches(data, 4, dataclasses.replace(AUGMENT, crop="pad"), 0)


@pytest.mark.slow
def test_a_damaged_image_is_reported_by_a_worker_too(imagenet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (imagenet / "imagenet/train/n2/2.JPEG").write_bytes(b"\xff\xd8\xff")
    data = load(imagenet)
    with pytest.raises(PaiBenchError, match=r"n2/2\.JPEG"):
        data.train.still(data.train.paths.tolist().index(b"train/n2/2.JPEG"))
    monkeypatch.setenv("PAI_BENCH_LOADERS", "1")
    with pytest.raises(PaiBenchError, match=r"n2/2\.JPEG"):
        list(loading.training_batches(data, 11, AUGMENT, seed=1).epoch(0))
