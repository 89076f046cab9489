"""Readers of data sets stored as folders or archives of JPEG files: Tiny-ImageNet and ImageNet."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pai_bench.core.atomic import replacing
from pai_bench.datasets.files.paths import user_cache
from pai_bench.datasets.files.types import Images, Listing, damaged
from pai_bench.errors import PaiBenchError

TINY = "tiny-imagenet-200"
ENDINGS = (".jpeg", ".jpg", ".png")


def decode(raw: bytes, what: Path) -> NDArray[np.uint8]:
    """Decode an image to RGB, uint8 [3, H, W].

    Raises: PaiBenchError when the image is damaged.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(raw)) as picture:
            return np.asarray(picture.convert("RGB"), np.uint8).transpose(2, 0, 1)
    except Exception as error:  # Pillow raises errors without a common base class for damaged files
        raise damaged(what, f"{type(error).__name__}: {error}") from error


def names_in(folder: Path) -> list[str]:
    """List the names of a folder's entries in alphabetical order.

    Raises: PaiBenchError when the folder cannot be read.
    """
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - only names are needed, from folders with thousands of entries
    except OSError as error:
        raise PaiBenchError(f"{folder} cannot be read: {error.strerror}", "see docs/data.md for the layout") from None


def _pictures(folder: Path) -> list[str]:
    return [name for name in names_in(folder) if name.lower().endswith(ENDINGS)]


def _classes(folder: Path) -> list[str]:
    return [name for name in names_in(folder) if (folder / name).is_dir()]


def list_imagenet(folder: Path) -> Listing:
    """List train/<wnid>/*.JPEG and val/<wnid>/*.JPEG; classes are numbered in order of their wnid, as in torchvision.

    Only names are read, because a million stat calls take minutes on a network file system.
    """
    classes = _classes(folder / "train")
    parts = []
    for part in ("train", "val"):
        if _classes(folder / part) != classes:
            raise damaged(folder / part, "its classes differ from those in train (val needs one folder per class, too)")
        parts.append(
            tuple(
                (f"{part}/{wnid}/{name}", label)
                for label, wnid in enumerate(classes)
                for name in _pictures(folder / part / wnid)
            )
        )
    lines = "\n".join(path for part in parts for path, _ in part)
    return Listing(parts[0], parts[1], hashlib.sha256(lines.encode()).hexdigest())


def _tiny(read: Callable[[str], bytes], classes: list[str], train: Callable[[str], list[str]]) -> Listing:
    """List the images of Tiny-ImageNet; the labelled validation part serves as the test set, as is customary."""
    label = {wnid: number for number, wnid in enumerate(classes)}
    test = []
    for line in read("val/val_annotations.txt").decode().splitlines():
        name, wnid = line.split("\t")[:2]
        test.append((f"val/images/{name}", label[wnid]))
    listed = [(f"train/{wnid}/images/{name}", label[wnid]) for wnid in classes for name in train(wnid)]
    return Listing(tuple(listed), tuple(sorted(test)), "")


def list_tiny(folder: Path) -> Listing:
    """List the unpacked Tiny-ImageNet; the digest covers names and sizes."""

    def pictures(wnid: str) -> list[str]:
        return _pictures(folder / "train" / wnid / "images")

    try:
        found = _tiny(lambda name: (folder / name).read_bytes(), _classes(folder / "train"), pictures)
        sizes = [f"{path} {label} {(folder / path).stat().st_size}" for path, label in (*found.train, *found.test)]
    except (OSError, KeyError, ValueError) as error:
        raise damaged(folder, f"{type(error).__name__}: {error}") from error
    return Listing(found.train, found.test, hashlib.sha256("\n".join(sizes).encode()).hexdigest())


def _list_zip(archive: zipfile.ZipFile) -> Listing:
    pictures: dict[str, list[str]] = {}
    lines = []
    for entry in archive.infolist():
        lines.append(f"{entry.filename} {entry.CRC} {entry.file_size}")
        path = entry.filename.split("/")
        if len(path) == 5 and path[1] == "train" and path[4].lower().endswith(ENDINGS):
            pictures.setdefault(path[2], []).append(path[4])
    found = _tiny(lambda name: archive.read(f"{TINY}/{name}"), sorted(pictures), lambda wnid: sorted(pictures[wnid]))
    return Listing(found.train, found.test, hashlib.sha256("\n".join(lines).encode()).hexdigest())


def tiny(root: Path, part: str) -> Images:
    """Read Tiny-ImageNet from its archive (unpacking would create 110,000 files) or from the unpacked folder.

    Decoded images are cached in root/decoded if that is writable, else in the user's cache; NumPy verifies their CRC.
    """
    path = root / f"{TINY}.zip"
    try:
        if path.is_file():
            with zipfile.ZipFile(path) as archive:
                listing = _list_zip(archive)
                return _decoded(root, part, listing, lambda name: archive.read(f"{TINY}/{name}"), path)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from error
    folder = root / TINY
    listing = list_tiny(folder)
    # The cache key includes modification times, because an image changed in place may keep its size.
    times = "".join(str((folder / name).stat().st_mtime_ns) for name, _ in (*listing.train, *listing.test))
    key = hashlib.sha256((listing.digest + times).encode()).hexdigest()
    return _decoded(
        root, part, Listing(listing.train, listing.test, key), lambda name: (folder / name).read_bytes(), folder
    )


def _decoded(root: Path, part: str, listing: Listing, read: Callable[[str], bytes], what: Path) -> Images:
    places = [place / f"{TINY}-{part}-{listing.digest[:16]}.npz" for place in _caches(root)]
    for place in places:
        with suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile), place.open("rb") as file:
            kept = np.load(file)
            return kept["x"], kept["y"]
    chosen = listing.train if part == "train" else listing.test
    x = np.empty((len(chosen), 3, 64, 64), np.uint8)
    for position, (name, _) in enumerate(chosen):
        picture = decode(read(name), what / name)
        if picture.shape != x.shape[1:]:
            raise damaged(what / name, f"it has the shape {picture.shape}, not {x.shape[1:]}")
        x[position] = picture
    y = np.asarray([label for _, label in chosen], np.int64)
    for place in places:
        with suppress(OSError):
            with replacing(place) as file:
                np.savez(file, x=x, y=y)
            break
    return x, y


def _caches(root: Path) -> Iterator[Path]:
    yield root / "decoded"
    yield user_cache() / "decoded"
