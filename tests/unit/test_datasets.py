"""Data: the files as they lie on disk, the pixels as PIL and torchvision make them, the draws as the seed says."""

from __future__ import annotations

import gzip
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from pai_bench import dataset_files, datasets
from pai_bench.datasets import Augment, Batcher
from pai_bench.errors import PaiBenchError

IDX = dataset_files._IDX_FILES


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real file formats with few images: the numbers of images are the only thing that is changed."""
    for name in ("mnist", "fashionmnist", "cifar10", "cifar100"):
        source = dataset_files._SOURCES[name]
        train = 20 if name.startswith("cifar") else 12
        info = dataset_files.Info(source.info.channels, source.info.size, source.info.classes, train, 4)
        changed = dataset_files._Source(info, source.folder, source.files, source.gzipped, source.read)
        monkeypatch.setitem(dataset_files._SOURCES, name, changed)


def write_idx(folder: Path, compress: bool) -> dict[str, NDArray[np.uint8]]:
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    arrays = {}
    for name in IDX:
        count = 12 if name.startswith("train") else 4
        shape = (count, 28, 28) if "images" in name else (count,)
        array = generator.integers(0, 256 if "images" in name else 10, shape, dtype=np.uint8)
        raw = bytes((0, 0, 8, len(shape))) + struct.pack(f">{len(shape)}I", *shape) + array.tobytes()
        place = folder / (name + ".gz" if compress else name)
        place.write_bytes(gzip.compress(raw) if compress else raw)
        arrays[name] = array
    return arrays


def write_cifar(root: Path, name: str) -> dict[str, tuple[NDArray[np.uint8], list[int]]]:
    source = dataset_files._SOURCES[name]
    folder = root / source.folder
    folder.mkdir(parents=True)
    generator = np.random.default_rng(1)
    key = "labels" if name == "cifar10" else "fine_labels"
    written = {}
    for file in source.files:
        count = 4 if file.startswith(("data_batch", "test")) else 20
        data = generator.integers(0, 256, (count, 3072), dtype=np.uint8)
        labels = generator.integers(0, source.info.classes, count).tolist()
        content = {b"data": data, key.encode(): labels, b"batch_label": b"x", b"filenames": [b"a.png"] * count}
        (folder / file).write_bytes(pickle.dumps(content, protocol=2))
        written[file] = data, labels
    return written


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("name", ["mnist", "fashionmnist"])
def test_idx_files_are_read_packed_and_unpacked(small: None, tmp_path: Path, name: str, compress: bool) -> None:
    arrays = write_idx(tmp_path / dataset_files._SOURCES[name].folder, compress)
    data = datasets.load(name, tmp_path)
    assert data.train_x.shape == (12, 1, 28, 28) and data.train_x.dtype == torch.uint8
    assert np.array_equal(data.train_x[:, 0].numpy(), arrays[IDX[0]])
    assert np.array_equal(data.test_y.numpy(), arrays[IDX[3]])
    assert data.train_y.dtype == torch.int64


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_pickles_are_read(small: None, tmp_path: Path, name: str) -> None:
    written = list(write_cifar(tmp_path, name).values())
    data = datasets.load(name, tmp_path)
    assert data.train_x.shape == (20, 3, 32, 32)
    assert np.array_equal(data.train_x.reshape(20, -1).numpy(), np.concatenate([x for x, _ in written[:-1]]))
    assert data.train_y.tolist() == [label for _, labels in written[:-1] for label in labels]
    assert np.array_equal(data.test_x.reshape(4, -1).numpy(), written[-1][0])


class Stranger:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return exec, ("raise SystemExit('a stranger ran')",)


def harm_cut(raw: bytes) -> bytes:
    return raw[: len(raw) // 2]


def harm_text(raw: bytes) -> bytes:
    return b"<html>not found</html>" + raw[:10]


def harm_code(raw: bytes) -> bytes:
    return pickle.dumps(Stranger())


def harm_keys(raw: bytes) -> bytes:
    return pickle.dumps({b"data": np.zeros((4, 3072), np.uint8)})


def harm_shape(raw: bytes) -> bytes:
    return pickle.dumps({b"data": np.zeros((4, 3071), np.uint8), b"labels": [0] * 4})


def harm_count(raw: bytes) -> bytes:
    return pickle.dumps({b"data": np.zeros((3, 3072), np.uint8), b"labels": [0] * 3})


def harm_labels(raw: bytes) -> bytes:
    return pickle.dumps({b"data": np.zeros((4, 3072), np.uint8), b"labels": [10] * 4})


@pytest.mark.parametrize("harm", [harm_cut, harm_text, harm_code, harm_keys, harm_shape, harm_count, harm_labels])
def test_a_damaged_pickle_is_named_and_runs_nothing(
    small: None, tmp_path: Path, harm: Callable[[bytes], bytes]
) -> None:
    write_cifar(tmp_path, "cifar10")
    victim = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    victim.write_bytes(harm(victim.read_bytes()))
    with pytest.raises(PaiBenchError, match="cifar-10-batches-py"):
        datasets.load("cifar10", tmp_path)


@pytest.mark.parametrize("harm", [harm_cut, harm_text])
@pytest.mark.parametrize("compress", [True, False])
def test_a_damaged_idx_file_is_named(
    small: None, tmp_path: Path, harm: Callable[[bytes], bytes], compress: bool
) -> None:
    folder = tmp_path / "MNIST" / "raw"
    write_idx(folder, compress)
    victim = next(folder.glob("t10k-images*"))
    victim.write_bytes(harm(victim.read_bytes()))
    with pytest.raises(PaiBenchError, match="t10k-images"):
        datasets.load("mnist", tmp_path)


@pytest.mark.parametrize("name", ["mnist", "fashionmnist", "cifar10", "cifar100"])
def test_what_is_not_on_disk_is_said_with_the_place_it_belongs(tmp_path: Path, name: str) -> None:
    assert not datasets.present(name, tmp_path)
    with pytest.raises(PaiBenchError, match="not on disk") as caught:
        datasets.require(name, tmp_path)
    assert str(tmp_path) in str(caught.value) and "--data-dir" in caught.value.remedy


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    data = datasets.load("digits")
    assert (len(data.train_x), len(data.test_x)) == (1437, 360)
    everything = torch.cat([data.train_x, data.test_x]).reshape(1797, 64)
    # Grey levels 0 to 16 are kept apart, and no image is lost or there twice.
    assert sorted(map(tuple, (everything.double() * 16 / 255).round().long().tolist())) == sorted(
        map(tuple, load_digits().data.astype(int).tolist())
    )
    counts = torch.bincount(data.test_y)
    assert counts.max() - counts.min() <= 2
    assert data.content_hash == datasets.load("digits").content_hash


AUGMENT = Augment(padding=4, flip=True, mean=(0.49, 0.48, 0.45), std=(0.25, 0.24, 0.26))


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (50, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return x, torch.arange(50)


def test_crops_and_flips_are_those_of_pil_bit_for_bit(images: tuple[Tensor, Tensor]) -> None:
    from torchvision.transforms import functional

    x, y = images
    batcher = Batcher(x, y, 16, AUGMENT, seed=3)
    got_x = torch.cat([inputs for inputs, _ in batcher.epoch(2)])
    got_y = torch.cat([targets for _, targets in batcher.epoch(2)])
    order = datasets.epoch_order(50, 3, 2)
    shifts, flips = datasets.epoch_shifts(50, 3, 2, 4), datasets.epoch_flips(50, 3, 2)
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
    got = torch.cat([inputs for inputs, _ in Batcher(x, y, 7, plain, seed=1).epoch(0)])
    assert torch.equal(got, datasets.normalise(x[datasets.epoch_order(50, 1, 0)], plain.mean, plain.std))


def test_draws_are_a_pure_function_of_seed_epoch_and_step(images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    batcher = Batcher(x, y, 16, AUGMENT, seed=3)
    whole = list(batcher.epoch(5))
    assert len(whole) == len(batcher) == 4
    torch.manual_seed(99)
    torch.rand(7)
    list(batcher.epoch(4))
    for start in range(4):
        for (a, b), (c, d) in zip(batcher.epoch(5, start), whole[start:], strict=True):
            assert torch.equal(a, c) and torch.equal(b, d)
    other_epoch, other_seed = next(batcher.epoch(6))[1], next(Batcher(x, y, 16, AUGMENT, seed=4).epoch(5))[1]
    assert not torch.equal(other_epoch, whole[0][1]) and not torch.equal(other_seed, whole[0][1])


def test_every_image_comes_once_an_epoch(images: tuple[Tensor, Tensor]) -> None:
    batcher = Batcher(*images, 16, AUGMENT, seed=0)
    assert sorted(torch.cat([targets for _, targets in batcher.epoch(0)]).tolist()) == list(range(50))


def test_test_images_are_never_augmented(images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    batches = list(datasets.evaluation_batches(x, y, 16, AUGMENT.mean, AUGMENT.std))
    assert torch.equal(torch.cat([targets for _, targets in batches]), y)
    assert torch.equal(torch.cat([i for i, _ in batches]), datasets.normalise(x, AUGMENT.mean, AUGMENT.std))


def test_scoring_batches_are_balanced_and_decided_by_the_seed() -> None:
    data = datasets.load("digits")
    batches = datasets.scoring_batches(data, 25, 4, 7, (0.3,), (0.4,))
    again = datasets.scoring_batches(data, 25, 4, 7, (0.3,), (0.4,))
    assert len(batches) == 4
    for (x, y), (x2, y2) in zip(batches, again, strict=True):
        assert x.shape == (25, 1, 8, 8) and torch.equal(x, x2) and torch.equal(y, y2)
        counts = torch.bincount(y, minlength=10)
        assert counts.max() - counts.min() <= 1
    total = torch.bincount(torch.cat([y for _, y in batches]), minlength=10)
    assert total.tolist() == [10] * 10
    pictures = torch.cat([x for x, _ in batches]).flatten(1)
    assert len(torch.unique(pictures, dim=0)) == 100
    other = datasets.scoring_batches(data, 25, 4, 8, (0.3,), (0.4,))
    assert not torch.equal(other[0][0], batches[0][0])
    # The images are training images as they are: normalised, not augmented.
    train = set(map(tuple, datasets.normalise(data.train_x, (0.3,), (0.4,)).flatten(1).tolist()))
    assert set(map(tuple, pictures.tolist())) <= train
