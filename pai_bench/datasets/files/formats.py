"""Readers of data set files; the content of files is not trusted."""

from __future__ import annotations

import gzip
import importlib
import io
import pickle
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pai_bench.datasets.files.paths import find
from pai_bench.datasets.files.types import Images, damaged


def _bytes(path: Path) -> bytes:
    found = find(path, gzipped=True) or path
    try:
        raw = found.read_bytes()
        return gzip.decompress(raw) if found.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(found, f"{type(error).__name__}: {error}") from error


def digits(folder: Path, part: str) -> Images:
    """Load scikit-learn's 1,797 digits with a fixed stratified split: 1,437 for training and 360 for the test."""
    del folder
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    loaded = load_digits()
    # Scale the grey levels from 0..16 to 0..255, so that all data sets share the same conversion from bytes.
    x = np.rint(loaded.images * (255 / 16)).astype(np.uint8)[:, None]
    y = loaded.target.astype(np.int64)
    train, test = train_test_split(np.arange(len(y)), test_size=360, stratify=y, random_state=0)
    chosen = train if part == "train" else test
    return x[chosen], y[chosen]


def _idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read an array of bytes in IDX format: 0, 0, 8, number of dimensions, big-endian dimensions, then the bytes."""
    raw = _bytes(path)
    start = 4 + 4 * dimensions
    magic = bytes((0, 0, 8, dimensions))
    if raw[:4] != magic:
        raise damaged(path, f"it starts with {raw[:4].hex()}, not {magic.hex()} (IDX, bytes, {dimensions} dimensions)")
    if len(raw) < start:
        raise damaged(path, f"it ends after {len(raw)} bytes, inside its header")
    shape = struct.unpack(f">{dimensions}I", raw[4:start])
    expected = start + int(np.prod(shape, dtype=object))
    if len(raw) != expected:
        raise damaged(path, f"it has {len(raw)} bytes, but {expected} belong to the shape {shape} in its header")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape).copy()


def idx(folder: Path, part: str) -> Images:
    """Read images and labels in MNIST's format, compressed or not."""
    stem = "train" if part == "train" else "t10k"
    x = _idx(folder / f"{stem}-images-idx3-ubyte", 3)
    return x[:, None], _idx(folder / f"{stem}-labels-idx1-ubyte", 1).astype(np.int64)


_NUMPYS = {("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer")}
"""Functions that reconstruct arrays and scalars, as (module of NumPy's core, name); the last one since protocol 5."""


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler limited to containers, numbers, text and NumPy arrays, because others could run arbitrary code."""

    def find_class(self, module: str, name: str) -> Any:
        # Old pickles contain numpy.core; NumPy 2 writes numpy._core and warns about the old name, so map it here.
        home, _, last = module.rpartition(".")
        if home in ("numpy.core", "numpy._core") and (last, name) in _NUMPYS:
            return getattr(importlib.import_module(f"numpy._core.{last}"), name)
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if module == "_codecs" and name == "encode":  # Python 3 pickles bytes this way in protocol 2
            return _latin1_bytes
        raise pickle.UnpicklingError(f"it requires {module}.{name}, which an image file must not contain")


def _latin1_bytes(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes in {encoding!r}")
    return text.encode("latin1")


def _cifar_batch(path: Path, label_key: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    try:
        raw = path.read_bytes()
        content = _ArrayUnpickler(io.BytesIO(raw), encoding="latin1").load()
    except Exception as error:  # a damaged pickle raises nearly anything
        raise damaged(path, f"{type(error).__name__}: {error}") from error
    if not isinstance(content, dict):
        raise damaged(path, f"it holds a {type(content).__name__}, not a dict")
    content = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in content.items()}
    for key in ("data", label_key):
        if key not in content:
            raise damaged(path, f"it has no {key!r}, only {', '.join(map(str, content))}")
    data, labels = content["data"], content[label_key]
    if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.ndim == 2 and data.shape[1] == 3072):
        raise damaged(path, "its 'data' is not an array of bytes with 3072 columns")
    if not isinstance(labels, (list, tuple, np.ndarray)) or not (
        all(isinstance(label, (int, np.integer)) for label in labels) and len(labels) == len(data)
    ):
        raise damaged(path, f"its {label_key!r} are not {len(data)} whole numbers")
    return data.reshape(-1, 3, 32, 32), np.asarray(labels, np.int64)


def cifar(folder: Path, part: str, files: Sequence[str], label_key: str) -> Images:
    """Read CIFAR's pickles; the last one of `files` is the test set."""
    parts = [_cifar_batch(folder / file, label_key) for file in (files[:-1] if part == "train" else files[-1:])]
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def svhn(folder: Path, part: str) -> Images:
    """Read SVHN's cropped digits: MATLAB files with X [32, 32, 3, N] and y [N, 1], where label 10 is the digit 0."""
    from scipy.io import loadmat

    path = folder / f"{part}_32x32.mat"
    try:
        content = loadmat(path, variable_names=["X", "y"])
    except Exception as error:  # a damaged MATLAB file raises nearly anything
        raise damaged(path, f"{type(error).__name__}: {error}") from error
    for key in ("X", "y"):
        if key not in content:
            raise damaged(path, f"it has no variable {key!r}")
    x, y = content["X"], content["y"].reshape(-1).astype(np.int64)
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[:3] != (32, 32, 3):
        raise damaged(path, f"its X is {x.dtype} {x.shape}, not bytes with the shape (32, 32, 3, N)")
    return np.ascontiguousarray(x.transpose(3, 2, 0, 1)), np.where(y == 10, 0, y)
