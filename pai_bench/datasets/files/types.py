"""Description of a data set: properties, files, and download sources."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pai_bench.errors import PaiBenchError

Images = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images [N, C, H, W] and labels [N]."""

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]
"""Train images [N, C, H, W], train labels [N], test images, test labels."""

PARTS = ("train", "test")


@dataclass(frozen=True)
class Info:
    """Properties of a data set known in advance: image channels and size, classes, numbers of images."""

    channels: int
    size: int
    classes: int
    train: int
    test: int


@dataclass(frozen=True)
class File:
    """A file of a data set and the checksum of its original."""

    name: str
    """Path below the data set's folder."""
    md5: str
    gz_md5: str | None = None
    """MD5 of NAME.gz, which is accepted instead of NAME; None when there is no compressed form."""


@dataclass(frozen=True)
class Archive:
    """A file to download: either a file of the data set or an archive that contains its files."""

    name: str
    md5: str
    urls: tuple[str, ...]
    """Full URLs: the original one first, then mirrors."""
    members: tuple[str, ...] = ()
    """Members to extract into the data set's folder; empty if the file is not an archive."""


@dataclass(frozen=True)
class Listing:
    """List of the images in a folder with too many images to hash their content."""

    train: tuple[tuple[str, int], ...]
    """(path below the folder, label)"""
    test: tuple[tuple[str, int], ...]
    digest: str
    """Hash of the list, not of the content of the images."""


@dataclass(frozen=True)
class Source:
    """Origin of a data set and the way to read it. Only fields that are not None or empty apply."""

    info: Info
    folder: str = ""
    """Folder inside the data root, as in torchvision's layout if it has one."""
    files: tuple[File, ...] = ()
    read: Callable[[Path, str], Images] | None = None
    """Function from (folder, "train" or "test") to arrays; None when the images are streamed."""
    archives: tuple[Archive, ...] = ()
    tree: str = ""
    """Folder inside `folder` that may replace the files (the unpacked archive)."""
    list_tree: Callable[[Path], Listing] | None = None
    build: Callable[[Path], Arrays] | None = None
    """Function of a plug-in from the data root to arrays."""
    by_hand: str = ""
    """Instructions for obtaining the files manually, if they cannot be downloaded."""

    @property
    def streamed(self) -> bool:
        """True if the data set has too many images to load at once."""
        return self.read is None and self.build is None


def damaged(path: Path, why: str) -> PaiBenchError:
    """Return the error for a file with invalid content."""
    return PaiBenchError(f"{path} is corrupt: {why}", "fetch or copy the original file again")
