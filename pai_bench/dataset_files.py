"""Which data sets there are, where their files lie, and how to read them without trusting them (no torch here)."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pai_bench.errors import PaiBenchError, unknown

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]
"""Train images [N, C, H, W], train labels [N], test images, test labels."""


@dataclass(frozen=True)
class Info:
    """What is known of a data set before it is read: image channels and size, classes, numbers of images."""

    channels: int
    size: int
    classes: int
    train: int
    test: int


@dataclass(frozen=True)
class _Source:
    info: Info
    folder: str
    """Inside the data root, in torchvision's layout; "" for a set that needs no files."""
    files: tuple[str, ...]
    gzipped: bool
    """Whether NAME.gz does as well as NAME."""
    read: Callable[[Path, tuple[str, ...]], Arrays]
    """(folder, files) to arrays."""


def names() -> list[str]:
    """All known data sets in alphabetical order."""
    return sorted(_SOURCES)


def info(name: str) -> Info:
    """The facts of the data set `name`.

    Raises: PaiBenchError for an unknown name.
    """
    return _source(name).info


def data_root(root: Path | None = None) -> Path:
    """Where data sets lie: `root`, else PAI_BENCH_DATA, else pai-bench/data in the user's cache."""
    if root is not None:
        return Path(root).expanduser()
    if os.environ.get("PAI_BENCH_DATA"):
        return Path(os.environ["PAI_BENCH_DATA"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pai-bench" / "data"


def present(name: str, root: Path | None = None) -> bool:
    """Whether all files of the data set are there; they are not opened.

    Raises: PaiBenchError for an unknown name.
    """
    source = _source(name)
    return all(_find(path, source.gzipped) is not None for path in _paths(source, root))


def require(name: str, root: Path | None = None) -> None:
    """Do nothing when all files of the data set are there.

    Raises: PaiBenchError for an unknown name, or with the first file that is missing and where files belong.
    """
    source = _source(name)
    for path in _paths(source, root):
        if _find(path, source.gzipped) is None:
            suffix = " (.gz or unpacked)" if source.gzipped else ""
            raise PaiBenchError(
                f"data set {name} is not on disk: {path} is missing or may not be read",
                f"put {', '.join(source.files)}{suffix} into {path.parent} (torchvision's layout),"
                " or name the folder above with --data-dir or PAI_BENCH_DATA",
            )


def read(name: str, root: Path | None = None) -> Arrays:
    """The images and labels of the data set `name`.

    Raises: PaiBenchError when a file is missing, cut short, of another kind, or holds other numbers of images.
    """
    require(name, root)
    source = _source(name)
    facts = source.info
    where = data_root(root) / source.folder
    arrays = source.read(where, source.files)
    for part, x, y, count in (("training", *arrays[:2], facts.train), ("test", *arrays[2:], facts.test)):
        shape = (count, facts.channels, facts.size, facts.size)
        if x.shape != shape or y.shape != (count,):
            raise _bad(where, f"its {part} part has images {x.shape} and labels {y.shape}, not {shape} and ({count},)")
        if y.size and not 0 <= int(y.min()) <= int(y.max()) < facts.classes:
            raise _bad(where, f"its {part} labels run from {y.min()} to {y.max()}, not 0 to {facts.classes - 1}")
    return arrays


def _source(name: str) -> _Source:
    if name not in _SOURCES:
        raise unknown("data set", name, _SOURCES)
    return _SOURCES[name]


def _paths(source: _Source, root: Path | None) -> list[Path]:
    return [data_root(root) / source.folder / file for file in source.files]


def _find(path: Path, gzipped: bool) -> Path | None:
    candidates = (path, path.with_name(path.name + ".gz")) if gzipped else (path,)
    for candidate in candidates:
        try:
            if candidate.is_file():
                return candidate
        except PermissionError:  # a folder that may not be entered
            continue
    return None


def _bad(path: Path, why: str) -> PaiBenchError:
    return PaiBenchError(f"{path} is not what it should be: {why}", "fetch or copy the original file again")


def _bytes(path: Path) -> bytes:
    found = _find(path, gzipped=True)
    assert found is not None, "require() has seen it"
    try:
        raw = found.read_bytes()
        return gzip.decompress(raw) if found.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise _bad(found, f"{type(error).__name__}: {error}") from error


def _read_digits(folder: Path, files: tuple[str, ...]) -> Arrays:
    """scikit-learn's 1,797 digits, split once and for all: 1,437 for training and 360 for the test, by class."""
    del folder, files
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    # Grey levels 0..16 become 0..255, so that every data set takes the same path from bytes to inputs.
    x = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    y = digits.target.astype(np.int64)
    train, test = train_test_split(np.arange(len(y)), test_size=360, stratify=y, random_state=0)
    return x[train], y[train], x[test], y[test]


def _idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """An array of bytes in the IDX format: 0, 0, 8, number of dimensions, each dimension big-endian, then the bytes."""
    raw = _bytes(path)
    start = 4 + 4 * dimensions
    magic = bytes((0, 0, 8, dimensions))
    if raw[:4] != magic:
        raise _bad(path, f"it starts with {raw[:4].hex()}, not {magic.hex()} (IDX, bytes, {dimensions} dimensions)")
    if len(raw) < start:
        raise _bad(path, f"it ends after {len(raw)} bytes, inside its header")
    shape = struct.unpack(f">{dimensions}I", raw[4:start])
    wanted = start + int(np.prod(shape, dtype=object))
    if len(raw) != wanted:
        raise _bad(path, f"it has {len(raw)} bytes, but {wanted} belong to the shape {shape} in its header")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape).copy()


def _read_idx(folder: Path, files: tuple[str, ...]) -> Arrays:
    train_x, train_y, test_x, test_y = (_idx(folder / file, 3 if "images" in file else 1) for file in files)
    return train_x[:, None], train_y.astype(np.int64), test_x[:, None], test_y.astype(np.int64)


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler for containers, numbers, text and numpy arrays; anything else could run a stranger's code."""

    def find_class(self, module: str, name: str) -> Any:
        # Old pickles name numpy.core, numpy 2 writes numpy._core and warns about the old one: answered by hand.
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np._core.multiarray._reconstruct  # type: ignore[attr-defined]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if module == "_codecs" and name == "encode":  # how Python 3 writes bytes in protocol 2
            return _latin1_bytes
        raise pickle.UnpicklingError(f"it wants {module}.{name}, which no image file needs")


def _latin1_bytes(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes in {encoding!r}")
    return text.encode("latin1")


def _cifar_batch(path: Path, label_key: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    try:
        raw = path.read_bytes()
        content = _ArrayUnpickler(io.BytesIO(raw), encoding="latin1").load()
    except Exception as error:  # a damaged pickle raises nearly anything
        raise _bad(path, f"{type(error).__name__}: {error}") from error
    if not isinstance(content, dict):
        raise _bad(path, f"it holds a {type(content).__name__}, not a dict")
    content = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in content.items()}
    for key in ("data", label_key):
        if key not in content:
            raise _bad(path, f"it has no {key!r}, only {', '.join(map(str, content))}")
    data, labels = content["data"], content[label_key]
    if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.ndim == 2 and data.shape[1] == 3072):
        raise _bad(path, "its 'data' is no array of bytes with 3072 columns")
    if not all(isinstance(label, (int, np.integer)) for label in labels) or len(labels) != len(data):
        raise _bad(path, f"its {label_key!r} are not {len(data)} whole numbers")
    return data.reshape(-1, 3, 32, 32), np.asarray(labels, np.int64)


def _read_cifar(folder: Path, files: tuple[str, ...], label_key: str) -> Arrays:
    parts = [_cifar_batch(folder / file, label_key) for file in files]
    train = parts[:-1]
    return np.concatenate([x for x, _ in train]), np.concatenate([y for _, y in train]), *parts[-1]


_IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

_SOURCES: dict[str, _Source] = {
    "digits": _Source(Info(1, 8, 10, 1437, 360), "", (), False, _read_digits),
    "mnist": _Source(Info(1, 28, 10, 60000, 10000), "MNIST/raw", _IDX_FILES, True, _read_idx),
    "fashionmnist": _Source(Info(1, 28, 10, 60000, 10000), "FashionMNIST/raw", _IDX_FILES, True, _read_idx),
    "cifar10": _Source(
        Info(3, 32, 10, 50000, 10000),
        "cifar-10-batches-py",
        (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"),
        False,
        partial(_read_cifar, label_key="labels"),
    ),
    "cifar100": _Source(
        Info(3, 32, 100, 50000, 10000),
        "cifar-100-python",
        ("train", "test"),
        False,
        partial(_read_cifar, label_key="fine_labels"),
    ),
}
