"""Loading of data sets from files to arrays, verified before, during and after reading."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pai_bench.datasets.files.checksums import Check, check
from pai_bench.datasets.files.paths import data_root, find
from pai_bench.datasets.files.sources import is_builtin, source
from pai_bench.datasets.files.types import Arrays, Images, Info, Listing, damaged
from pai_bench.errors import PaiBenchError


class DataChanged(PaiBenchError):
    """The files of a data set changed while they were in use."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """The arrays of a data set and the identity of the copy they were read from."""

    train: Images
    test: Images | None
    """None when it was not requested."""
    origin: str
    content_hash: str
    """SHA-256 of the arrays; identifies the images of a result independently of the file format."""


def present(name: str, root: Path | None = None) -> bool:
    """Return True if all files of the data set exist; they are not opened.

    Raises: PaiBenchError for an unknown name.
    """
    found = source(name)
    where = data_root(root) / found.folder
    if found.tree and (where / found.tree).is_dir():
        return True
    if found.tree and not found.files:
        return False
    return all(find(where / file.name, file.gz_md5 is not None) is not None for file in found.files)


def require(name: str, root: Path | None = None) -> str:
    """Check that the data set is available and is the original or an accepted copy; return its origin.

    The data set of a plug-in is loaded completely and checked; its content hash serves as its origin.

    Raises: PaiBenchError for an unknown name, and for a missing or different file, with the remedy.
    """
    if source(name).build is not None:
        return load(name, root).origin
    return _passed(check(name, root)).origin


def _passed(found: Check) -> Check:
    if found.problem is not None:
        raise found.problem
    return found


def load(name: str, root: Path | None = None, *, test: bool = True) -> Loaded:
    """Load a data set, optionally without its test part.

    Raises: PaiBenchError when a file is missing, refused, truncated, or has a different number of images; DataChanged
        when files change while they are read.
    """
    found = source(name)
    where = data_root(root) / found.folder
    if found.build is not None:
        built = _built(name, root)
        origin = f"plug-in:{content_hash(built)[:16]}"
        train: Images = built[:2]
        tested: Images | None = built[2:] if test else None
    else:
        origin = _passed(check(name, root)).origin
        if found.read is None:
            raise ValueError(f"the pictures of {name} are streamed")
        train = found.read(where, "train")
        tested = found.read(where, "test") if test else None
        if (now := check(name, root).origin) != origin:
            raise DataChanged(
                f"data set {name} changed while it was read: it was {origin}, now {now}",
                f"stop all writes to it, and run pai-bench data check {name}",
            )
    _check_arrays(name, "training", train, found.info.train, found.info, where)
    if tested is not None:
        _check_arrays(name, "test", tested, found.info.test, found.info, where)
    return Loaded(train, tested, origin, content_hash([*train, *(tested or ())]))


def listing(name: str, root: Path | None = None) -> tuple[Path, Listing, str]:
    """Return the folder, the list of images and the origin of a streamed data set.

    Raises: PaiBenchError when the data set is missing or refused.
    """
    found = source(name)
    origin = _passed(check(name, root)).origin
    assert found.list_tree is not None, "streamed data sets have a list of images"
    folder = data_root(root) / found.folder / found.tree
    return folder, found.list_tree(folder), origin


def _built(name: str, root: Path | None) -> Arrays:
    build = source(name).build
    assert build is not None
    try:
        train_x, train_y, test_x, test_y = build(data_root(root))
        arrays: Arrays = tuple(map(np.ascontiguousarray, (train_x, train_y, test_x, test_y)))  # type: ignore[assignment]
    except PaiBenchError:
        raise
    except (Exception, SystemExit) as error:
        line = str(error).partition("\n")[0] or "no message"
        raise PaiBenchError(
            f"data set {name} cannot be built: {type(error).__name__}: {line}",
            "its function must return train inputs, train labels, test inputs, test labels (-v shows the traceback)",
        ) from error
    return arrays


def _check_arrays(name: str, part: str, images: Images, count: int, facts: Info, where: Path) -> None:
    x, y = images
    shape = (count, *facts.shape)
    why = None
    if x.shape != shape or y.shape != (count,):
        why = f"its {part} part has {facts.kind} {x.shape} and labels {y.shape}, not {shape} and ({count},)"
    elif x.dtype != facts.dtype or y.dtype != np.int64:
        why = f"its {part} part has {facts.kind} {x.dtype} and labels {y.dtype}, not {facts.dtype} and int64"
    elif facts.kind == "vectors" and not np.isfinite(x).all():
        why = f"its {part} part has values that are not finite numbers"
    elif y.size and not 0 <= int(y.min()) <= int(y.max()) < facts.classes:
        why = f"its {part} labels run from {y.min()} to {y.max()}, not 0 to {facts.classes - 1}"
    if why is None:
        return
    if is_builtin(name):
        raise damaged(where, why)
    if source(name).build is not None:
        remedy = f"correct Info(…) in register_dataset({name!r}, …), or the arrays that its function returns"
    else:
        remedy = f"correct Info(…) or read in register_source({name!r}, …), or fetch the original files again"
    raise PaiBenchError(f"data set {name} differs from its Info: {why}", remedy)


def content_hash(arrays: Sequence[np.ndarray]) -> str:
    """Return the SHA-256 (hex) of arrays, including their types and shapes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
