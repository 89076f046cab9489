"""Verification of data set copies: official checksums, checksums accepted by the user, and a cache of file hashes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pai_bench.core.atomic import write_json
from pai_bench.datasets.files.paths import data_root, find, option, user_cache
from pai_bench.datasets.files.sources import source
from pai_bench.datasets.files.types import File, Source
from pai_bench.errors import PaiBenchError


@dataclass(frozen=True)
class Digests:
    """Hashes of one file, hexadecimal."""

    md5: str
    sha256: str


@dataclass(frozen=True)
class Check:
    """State of a data set's copy on disk."""

    state: str
    """"built-in", "plug-in", "official", "accepted" (by the user), "listed" (an image folder with the right number of
    images, whose content has no checksum), "refused" or "missing"."""
    origin: str
    """Origin recorded in every result: the state, with a digest if the state alone does not identify the copy."""
    size: int = 0
    """Total size of the hashed files in bytes."""
    problem: PaiBenchError | None = None


def check(name: str, root: Path | None = None, *, rehash: bool = False) -> Check:
    """Verify the copy below `root`. Only new or changed files are hashed, or all files with `rehash`.

    Raises: PaiBenchError for an unknown name.
    """
    found = source(name)
    where = data_root(root) / found.folder
    if found.build is not None:
        return Check("plug-in", "plug-in")
    if not found.files and not found.tree:
        return Check("built-in", "built-in")
    paths = {file: find(where / file.name, file.gz_md5 is not None) for file in found.files}
    if found.files and all(paths.values()):
        return _check_files(name, {file: path for file, path in paths.items() if path is not None}, root, rehash)
    if found.tree and (where / found.tree).is_dir():
        return _check_tree(name, found, where / found.tree, root)
    missing = _missing(name, found, where, root)
    if any(paths.values()):
        gone = next(where / file.name for file, path in paths.items() if path is None)
        incomplete = PaiBenchError(f"{where} is an incomplete copy of {name}: {gone.name} is missing", missing.remedy)
        return Check("refused", "refused", problem=incomplete)
    return Check("missing", "missing", problem=missing)


def digests(path: Path, *, rehash: bool = False) -> Digests:
    """Return the hashes of a file, cached while its size, modification time and inode stay the same.

    The cache has one small file per hashed file in the user's cache folder; if it cannot be written, it is skipped.
    """
    before = path.stat()
    state = [before.st_size, before.st_mtime_ns, before.st_ino]
    key = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:32]
    memory = user_cache() / "checksums" / f"{key}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(memory.read_bytes())
        if kept["state"] == state and not rehash:
            return Digests(kept["md5"], kept["sha256"])
    found = hash_file(path)
    after = path.stat()
    if state == [after.st_size, after.st_mtime_ns, after.st_ino]:
        with suppress(OSError):
            write_json(memory, {"path": str(path), "state": state, "md5": found.md5, "sha256": found.sha256})
    return found


def hash_file(path: Path) -> Digests:
    """Compute the hashes of a file from its full content."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            md5.update(block)
            sha256.update(block)
    return Digests(md5.hexdigest(), sha256.hexdigest())


def official(file: File, path: Path, found: Digests) -> bool:
    """Return True if a file, compressed or not, is the original."""
    return found.md5 == official_md5(file, path)


def official_md5(file: File, path: Path) -> str | None:
    """Return the MD5 of the original in the form of `path` (compressed or not)."""
    return file.md5 if path.name == Path(file.name).name else file.gz_md5


def accepted_path(name: str, root: Path | None) -> Path:
    """Return the path of the file with the hashes of the accepted copy of a data set."""
    return data_root(root) / "accepted" / f"{name}.json"


def accept(name: str, root: Path | None = None) -> Check:
    """Accept the copy on disk and record its hashes.

    Raises: PaiBenchError when files are missing or the record cannot be written.
    """
    found = source(name)
    where = data_root(root) / found.folder
    paths = [find(where / file.name, file.gz_md5 is not None) for file in found.files]
    if found.files and all(paths):
        content = {path.name: digests(path).sha256 for path in paths if path is not None}
    elif found.list_tree is not None and (where / found.tree).is_dir():
        content = {found.tree: found.list_tree(where / found.tree).digest}
    else:
        raise _missing(name, found, where, root)
    place = accepted_path(name, root)
    try:
        write_json(place, {"dataset": name, "accepted": datetime.now(UTC).isoformat(), "sha256": content})
    except OSError as error:
        raise PaiBenchError(
            f"{place} cannot be written: {error.strerror}", "add the copy to a --data-dir of your own, with --link"
        ) from None
    return check(name, root)


def refuse(name: str, root: Path | None = None) -> None:
    """Revoke the acceptance of a copy."""
    accepted_path(name, root).unlink(missing_ok=True)


def _accepted(name: str, root: Path | None) -> dict[str, str]:
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        return {
            str(key): str(value) for key, value in json.loads(accepted_path(name, root).read_bytes())["sha256"].items()
        }
    return {}


def _check_files(name: str, paths: Mapping[File, Path], root: Path | None, rehash: bool) -> Check:
    accepted = _accepted(name, root)
    size = 0
    content = {}
    for file, path in paths.items():
        try:
            found = digests(path, rehash=rehash)
            size += path.stat().st_size
        except OSError as error:
            problem = PaiBenchError(f"{path} cannot be read: {error.strerror}", "change its permissions")
            return Check("refused", "refused", problem=problem)
        if official(file, path, found):
            content[file.name] = "official"
        elif accepted.get(path.name) == found.sha256:
            content[file.name] = found.sha256
        else:
            return Check("refused", "refused", problem=_refusal(name, file, path, found, accepted, root))
    if set(content.values()) == {"official"}:
        return Check("official", "official", size)
    return Check("accepted", f"accepted:{_digest(content)}", size)


def _digest(content: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _refusal(
    name: str, file: File, path: Path, found: Digests, accepted: Mapping[str, str], root: Path | None
) -> PaiBenchError:
    if path.name in accepted:
        cause = (
            f"{path} has changed since this copy of {name} was accepted: SHA-256 {found.sha256[:16]}…,"
            f" then {accepted[path.name][:16]}…"
        )
    else:
        cause = f"{path} is not the original file of {name}: MD5 {found.md5}, expected {official_md5(file, path)}"
    add = f"pai-bench data add {name} --from {path.parent} --accept-checksum{option(root)}"
    return PaiBenchError(
        cause, f"get the original (pai-bench data fetch {name}{option(root)}), or accept this copy: {add}"
    )


def _check_tree(name: str, found: Source, folder: Path, root: Path | None) -> Check:
    assert found.list_tree is not None, "a tree has a way to list it"
    add = f"pai-bench data add {name} --from {folder} --accept-checksum{option(root)}"
    try:
        listing = found.list_tree(folder)
    except PaiBenchError as error:
        return Check("refused", "refused", problem=error)
    if _accepted(name, root).get(found.tree) == listing.digest:
        return Check("accepted", f"accepted:{listing.digest[:16]}")
    numbers, expected = (len(listing.train), len(listing.test)), (found.info.train, found.info.test)
    if numbers != expected:
        problem = PaiBenchError(
            f"{folder} has {numbers[0]} + {numbers[1]} pictures (train + test), not {expected[0]} + {expected[1]}",
            f"unpack the original again, or accept this copy: {add}",
        )
        return Check("refused", "refused", problem=problem)
    if found.files:
        problem = PaiBenchError(
            f"{folder} is unpacked, so it cannot be compared with the original",
            f"put {found.files[0].name} beside it (pai-bench data fetch {name}), or accept this copy: {add}",
        )
        return Check("refused", "refused", problem=problem)
    return Check("listed", f"listed:{listing.digest[:16]}")


def _missing(name: str, found: Source, where: Path, root: Path | None) -> PaiBenchError:
    gone = next(
        (where / file.name for file in found.files if find(where / file.name, file.gz_md5 is not None) is None),
        where / found.tree,
    )
    if found.archives:
        remedy = (
            f"fetch it where there is internet (pai-bench data fetch {name} --data-dir {data_root(root)}),"
            f" add a copy (pai-bench data add {name} --from DIR)"
        )
    else:
        remedy = found.by_hand or f"put its files into {where}"
    return PaiBenchError(
        f"data set {name} is not on disk: {gone} is missing or not readable",
        f"{remedy}, or name another folder (--data-dir or PAI_BENCH_DATA)",
    )
