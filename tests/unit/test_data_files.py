"""Tests of data sets on disk: formats, damaged and unofficial copies, checksums."""

from __future__ import annotations

import dataclasses
import gzip
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray
from PIL import Image

from pai_bench.datasets import files as data_files
from pai_bench.datasets.files import checksums, image_folders, sources
from pai_bench.errors import PaiBenchError

IDX = tuple(file.name for file in data_files.source("mnist").files)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the real file formats with few images; only the expected numbers of images are changed."""
    for name, train in {"mnist": 12, "fashionmnist": 12, "cifar10": 20, "cifar100": 20, "svhn": 12}.items():
        shrink(monkeypatch, name, train, 4)


def shrink(monkeypatch: pytest.MonkeyPatch, name: str, train: int, test: int) -> None:
    source = data_files.source(name)
    info = dataclasses.replace(source.info, train=train, test=test)
    monkeypatch.setitem(sources.CATALOGUE._things, name, dataclasses.replace(source, info=info))


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


def write_cifar(
    root: Path, name: str, protocol: int = 2, arrays: bool = False
) -> dict[str, tuple[NDArray[np.uint8], list[int]]]:
    source = data_files.source(name)
    folder = root / source.folder
    folder.mkdir(parents=True)
    generator = np.random.default_rng(1)
    key = "labels" if name == "cifar10" else "fine_labels"
    written = {}
    for file in (file.name for file in source.files):
        count = 4 if file.startswith(("data_batch", "test")) else 20
        data = generator.integers(0, 256, (count, 3072), dtype=np.uint8)
        labels = generator.integers(0, source.info.classes, count).tolist()
        told = list(np.asarray(labels)) if arrays else labels  # numbers of NumPy's, as in copies that were made again
        content = {b"data": data, key.encode(): told, b"batch_label": b"x", b"filenames": [b"a.png"] * count}
        (folder / file).write_bytes(pickle.dumps(content, protocol=protocol))
        written[file] = data, labels
    return written


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("name", ["mnist", "fashionmnist"])
def test_idx_files_are_read_packed_and_unpacked(small: None, tmp_path: Path, name: str, compress: bool) -> None:
    arrays = write_idx(tmp_path / data_files.source(name).folder, compress)
    data_files.accept(name, tmp_path)
    data = data_files.load(name, tmp_path)
    assert data.test is not None
    assert data.train[0].shape == (12, 1, 28, 28)
    assert np.array_equal(data.train[0][:, 0], arrays[IDX[0]])
    assert np.array_equal(data.test[1], arrays[IDX[3]])


@pytest.mark.parametrize("arrays", [False, True])
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_pickles_are_read(small: None, tmp_path: Path, name: str, protocol: int, arrays: bool) -> None:
    written = list(write_cifar(tmp_path, name, protocol, arrays).values())
    data_files.accept(name, tmp_path)
    data = data_files.load(name, tmp_path)
    assert data.test is not None
    assert data.train[0].shape == (20, 3, 32, 32)
    assert np.array_equal(data.train[0].reshape(20, -1), np.concatenate([x for x, _ in written[:-1]]))
    assert data.train[1].tolist() == [label for _, labels in written[:-1] for label in labels]
    assert np.array_equal(data.test[0].reshape(4, -1), written[-1][0])


def test_svhn_matlab_files_are_read(small: None, tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    written = {}
    for part, count in (("train", 12), ("test", 4)):
        x = generator.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        y = np.arange(1, count + 1, dtype=np.uint8) % 10 + 1
        scipy.io.savemat(tmp_path / f"{part}_32x32.mat", {"X": x, "y": y[:, None]}, do_compression=True)
        written[part] = x, y
    data_files.accept("svhn", tmp_path)
    data = data_files.load("svhn", tmp_path)
    x, y = written["train"]
    assert np.array_equal(data.train[0][3], x[:, :, :, 3].transpose(2, 0, 1))
    assert data.train[1].tolist() == [0 if label == 10 else label for label in y.tolist()] and 0 in data.train[1]
    (tmp_path / "test_32x32.mat").write_bytes(b"<html>")
    data_files.accept("svhn", tmp_path)
    with pytest.raises(PaiBenchError, match="test_32x32"):
        data_files.load("svhn", tmp_path)


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


def harm_none(raw: bytes) -> bytes:
    return pickle.dumps({b"data": np.zeros((4, 3072), np.uint8), b"labels": None})


HARMS = [harm_cut, harm_text, harm_code, harm_keys, harm_shape, harm_count, harm_labels, harm_none]


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_pickle_is_named_and_runs_nothing(
    small: None, tmp_path: Path, harm: Callable[[bytes], bytes]
) -> None:
    write_cifar(tmp_path, "cifar10")
    victim = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    victim.write_bytes(harm(victim.read_bytes()))
    data_files.accept("cifar10", tmp_path)
    with pytest.raises(PaiBenchError, match="cifar-10-batches-py"):
        data_files.load("cifar10", tmp_path)


@pytest.mark.parametrize("harm", [harm_cut, harm_text])
@pytest.mark.parametrize("compress", [True, False])
def test_a_damaged_idx_file_is_named(
    small: None, tmp_path: Path, harm: Callable[[bytes], bytes], compress: bool
) -> None:
    folder = tmp_path / "MNIST" / "raw"
    write_idx(folder, compress)
    victim = next(folder.glob("t10k-images*"))
    victim.write_bytes(harm(victim.read_bytes()))
    data_files.accept("mnist", tmp_path)
    with pytest.raises(PaiBenchError, match="t10k-images"):
        data_files.load("mnist", tmp_path)


FILES = [name for name in data_files.names() if data_files.is_builtin(name) and name not in ("digits", "cubist-spiral")]


@pytest.mark.parametrize("name", FILES)
def test_a_missing_data_set_is_reported_with_its_expected_path(tmp_path: Path, name: str) -> None:
    assert not data_files.present(name, tmp_path)
    with pytest.raises(PaiBenchError, match="not on disk") as caught:
        data_files.require(name, tmp_path)
    assert str(tmp_path) in str(caught.value) and "--data-dir" in caught.value.remedy


def tiny(root: Path, packed: bool) -> None:
    """Write Tiny-ImageNet with two classes, four training and two test images, whose labels do not follow the names."""
    files: dict[str, bytes] = {}
    for number in range(6):
        picture = io.BytesIO()
        mode = "L" if number == 1 else "RGB"
        Image.new(mode, (64, 64), number * 40 if mode == "L" else (number * 40, 10, 200)).save(picture, "JPEG")
        wnid = f"n{number % 2:08}"
        place = f"train/{wnid}/images/{wnid}_{number}.JPEG" if number < 4 else f"val/images/val_{number - 4}.JPEG"
        files[place] = picture.getvalue()
    files["val/val_annotations.txt"] = b"val_1.JPEG\tn00000000\t0\t0\t1\t1\nval_0.JPEG\tn00000001\t0\t0\t1\t1\n"
    if packed:
        with zipfile.ZipFile(root / "tiny-imagenet-200.zip", "w") as archive:
            for name, raw in files.items():
                archive.writestr(f"tiny-imagenet-200/{name}", raw)
    else:
        for name, raw in files.items():
            place_ = root / "tiny-imagenet-200" / name
            place_.parent.mkdir(parents=True, exist_ok=True)
            place_.write_bytes(raw)


@pytest.mark.parametrize("packed", [True, False])
def test_tiny_imagenet_is_read_packed_and_unpacked_and_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    shrink(monkeypatch, "tiny-imagenet", 4, 2)
    tiny(tmp_path, packed)
    with pytest.raises(PaiBenchError, match="tiny-imagenet"):
        data_files.require("tiny-imagenet", tmp_path)
    data_files.accept("tiny-imagenet", tmp_path)
    first = data_files.load("tiny-imagenet", tmp_path)
    assert first.test is not None
    assert first.train[1].tolist() == [0, 0, 1, 1] and first.test[1].tolist() == [1, 0]
    assert np.abs(first.train[0][1].reshape(3, -1).mean(1) - [80, 10, 200]).max() < 3
    with monkeypatch.context() as context:
        context.delattr(image_folders, "decode")
        assert data_files.load("tiny-imagenet", tmp_path).content_hash == first.content_hash
    kept = next((tmp_path / "decoded").glob("*train*"))
    kept.write_bytes(kept.read_bytes()[:-2000])
    assert data_files.load("tiny-imagenet", tmp_path).content_hash == first.content_hash


def test_a_damaged_picture_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch, "tiny-imagenet", 4, 2)
    tiny(tmp_path, packed=False)
    victim = tmp_path / "tiny-imagenet-200/train/n00000001/images/n00000001_3.JPEG"
    victim.write_bytes(victim.read_bytes()[:300])
    data_files.accept("tiny-imagenet", tmp_path)
    with pytest.raises(PaiBenchError, match=r"n00000001_3\.JPEG"):
        data_files.load("tiny-imagenet", tmp_path)


@pytest.fixture
def digits_like(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write MNIST with a few images and register their checksums as official."""
    write_idx(tmp_path / "MNIST/raw", compress=True)
    source = data_files.source("mnist")
    files = []
    for file in source.files:
        packed = tmp_path / "MNIST/raw" / f"{file.name}.gz"
        plain = packed.with_suffix("")
        plain.write_bytes(gzip.decompress(packed.read_bytes()))
        files.append(data_files.File(file.name, checksums.hash_file(plain).md5, checksums.hash_file(packed).md5))
        plain.unlink()
    monkeypatch.setitem(sources.CATALOGUE._things, "mnist", dataclasses.replace(source, files=tuple(files)))
    return tmp_path


def test_the_original_passes_packed_unpacked_and_half_unpacked(digits_like: Path) -> None:
    assert data_files.require("mnist", digits_like) == "official"
    one = data_files.load("mnist", digits_like)
    packed = digits_like / "MNIST/raw" / f"{IDX[0]}.gz"
    packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    two = data_files.load("mnist", digits_like)
    assert one.origin == two.origin == "official" and one.content_hash == two.content_hash


def test_another_copy_is_refused_until_accepted_and_again_when_it_changes(digits_like: Path) -> None:
    victim = digits_like / "MNIST/raw" / f"{IDX[1]}.gz"
    victim.write_bytes(gzip.compress(gzip.decompress(victim.read_bytes()), 1, mtime=5))
    with pytest.raises(PaiBenchError) as caught:
        data_files.require("mnist", digits_like)
    expected = data_files.source("mnist").files[1].gz_md5
    assert str(victim) in caught.value.cause and f"expected {expected}" in caught.value.cause
    assert f"pai-bench data add mnist --from {victim.parent} --accept-checksum" in caught.value.remedy
    assert "\n" not in caught.value.cause + caught.value.remedy
    data_files.accept("mnist", digits_like)
    origin = data_files.require("mnist", digits_like)
    assert origin.startswith("accepted:") and data_files.load("mnist", digits_like).origin == origin
    victim.write_bytes(gzip.compress(gzip.decompress(victim.read_bytes()), 2, mtime=6))
    with pytest.raises(PaiBenchError, match="changed since this copy of mnist was accepted"):
        data_files.require("mnist", digits_like)
    data_files.accept("mnist", digits_like)
    assert data_files.require("mnist", digits_like) != origin


def test_a_file_that_changes_during_reading_is_detected(digits_like: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = data_files.source("mnist")
    victim = digits_like / "MNIST/raw" / f"{IDX[1]}.gz"

    def read(folder: Path, part: str) -> data_files.Images:
        assert source.read is not None
        found = source.read(folder, part)
        victim.write_bytes(victim.read_bytes()[:-5])
        return found

    monkeypatch.setitem(sources.CATALOGUE._things, "mnist", dataclasses.replace(source, read=read))
    with pytest.raises(data_files.DataChanged, match="data set mnist changed while it was read: it was official"):
        data_files.load("mnist", digits_like, test=False)


@pytest.mark.slow
def test_files_are_hashed_once_and_again_when_they_change(
    digits_like: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    hashed = []
    hash_file = checksums.hash_file
    monkeypatch.setattr(checksums, "hash_file", lambda path: (hashed.append(path.name), hash_file(path))[1])
    for _ in range(3):
        data_files.require("mnist", digits_like)
    assert len(hashed) == 4
    victim = digits_like / "MNIST/raw" / f"{IDX[2]}.gz"
    os.utime(victim, ns=(0, 0))
    data_files.require("mnist", digits_like)
    assert hashed[4:] == [victim.name]
    # Neither a memory that is damaged nor one that cannot be written is in the way.
    for path in (own_cache / "pai-bench/checksums").iterdir():
        path.write_text("{")
    assert data_files.require("mnist", digits_like) == "official"
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert data_files.require("mnist", digits_like) == "official"


def test_a_plugins_data_set_is_checked_and_identified_by_its_content() -> None:
    shift = [0]

    @data_files.register_dataset("blobs", data_files.Info(channels=1, size=4, classes=2, train=6, test=2))
    def blobs(root: Path) -> data_files.Arrays:
        x = np.arange(8 * 16, dtype=np.uint8).reshape(8, 1, 4, 4) + np.uint8(shift[0])
        y = np.arange(8) % 2
        return x[:6], y[:6], x[6:], y[6:]

    assert "blobs" in data_files.names() and data_files.present("blobs")
    origin = data_files.require("blobs")
    assert origin.startswith("plug-in:") and data_files.load("blobs", test=False).test is None
    shift[0] = 1
    assert data_files.require("blobs") != origin
    data_files.register_dataset("short", data_files.Info(1, 4, 2, 7, 2))(blobs)
    with pytest.raises(PaiBenchError, match=r"short .*images \(6, 1, 4, 4\)"):
        data_files.require("short")
    data_files.register_dataset("broken", data_files.Info(1, 4, 2, 7, 2))(lambda root: 1 / 0)  # type: ignore[arg-type,return-value]
    with pytest.raises(PaiBenchError, match="broken cannot be built: ZeroDivisionError"):
        data_files.require("broken")
    with pytest.raises(ValueError, match="twice"):
        data_files.register_dataset("broken", data_files.Info(1, 4, 2, 7, 2))(blobs)
