"""Description of a data set: properties, files, and download sources."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from pai_bench.errors import PaiBenchError, unknown

if TYPE_CHECKING:  # the command line lists data sets without loading NumPy
    import numpy as np
    from numpy.typing import NDArray

Inputs: TypeAlias = "NDArray[np.uint8] | NDArray[np.float32]"
"""Images, uint8 [N, C, H, W], or vectors, float32 [N, features]."""

Images: TypeAlias = "tuple[Inputs, NDArray[np.int64]]"
"""Inputs and labels [N]."""

Arrays: TypeAlias = "tuple[Inputs, NDArray[np.int64], Inputs, NDArray[np.int64]]"
"""Train inputs, train labels, test inputs, test labels."""

KINDS = ("images", "vectors")

PARTS = ("train", "test")


@dataclass(frozen=True)
class Info:
    """Properties of a data set known in advance: image channels and size, classes, numbers of images.

    Raises: PaiBenchError for an unknown kind, and for vectors with a size other than 1.
    """

    channels: int
    """For vectors: the number of features."""
    size: int
    """For vectors: 1."""
    classes: int
    train: int
    test: int
    kind: str = "images"
    """One of KINDS: "images", uint8 [C, H, W], or "vectors", float32 [features]."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown("kind of data", self.kind, KINDS)
        if self.kind == "vectors" and self.size != 1:
            raise PaiBenchError(
                f"a data set of vectors has size = {self.size}", "write size = 1, and channels = number of features"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return (self.channels,) if self.kind == "vectors" else (self.channels, self.size, self.size)

    @property
    def dtype(self) -> str:
        """Name of the NumPy type of the inputs as stored."""
        return "float32" if self.kind == "vectors" else "uint8"

    def __str__(self) -> str:
        """Return the shape in words, such as "3 x 32 x 32"."""
        return " x ".join(map(str, self.shape))


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
