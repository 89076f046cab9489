"""What a data set is to this package: its facts, its files, and where they are fetched from."""

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
    """What is known of a data set before it is read: image channels and size, classes, numbers of images."""

    channels: int
    size: int
    classes: int
    train: int
    test: int


@dataclass(frozen=True)
class File:
    """A file that is read, and what it hashes to when it is the original."""

    name: str
    """Below the data set's folder."""
    md5: str
    gz_md5: str | None = None
    """Of NAME.gz, which does as well as NAME; None when there is no such file."""


@dataclass(frozen=True)
class Archive:
    """A file that is fetched: one of the data set's own, or an archive that holds them."""

    name: str
    md5: str
    urls: tuple[str, ...]
    """The original place first, then mirrors; each is the whole address."""
    members: tuple[str, ...] = ()
    """What is taken out of it, below the data set's folder; empty when the file itself is what is read."""


@dataclass(frozen=True)
class Listing:
    """The pictures of a folder, of which there are too many to hash."""

    train: tuple[tuple[str, int], ...]
    """(path below the folder, label)"""
    test: tuple[tuple[str, int], ...]
    digest: str
    """Of the list; not of what is in the pictures."""


@dataclass(frozen=True)
class Source:
    """Where a data set comes from and how it is read. Exactly what is not None or empty applies."""

    info: Info
    folder: str = ""
    """Inside the data root, in torchvision's layout where it has one."""
    files: tuple[File, ...] = ()
    read: Callable[[Path, str], Images] | None = None
    """(folder, "train" or "test") to arrays; None when the pictures are streamed."""
    archives: tuple[Archive, ...] = ()
    tree: str = ""
    """A folder inside `folder` that does in place of the files."""
    list_tree: Callable[[Path], Listing] | None = None
    build: Callable[[Path], Arrays] | None = None
    """A stranger's function from the data root to arrays."""
    by_hand: str = ""
    """How to get the files, where they cannot be fetched."""

    @property
    def streamed(self) -> bool:
        """Whether its pictures are too many to be read at once."""
        return self.read is None and self.build is None


def damaged(path: Path, why: str) -> PaiBenchError:
    """The error for a file that cannot be what it is taken for."""
    return PaiBenchError(f"{path} is not what it should be: {why}", "fetch or copy the original file again")
