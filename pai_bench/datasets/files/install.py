"""Installation of data sets by download or from a local copy: complete and verified, or not at all."""

from __future__ import annotations

import os
import shlex
import shutil
import tarfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pai_bench.datasets.files.checksums import Check, accept, check, digests, hash_file, official, official_md5
from pai_bench.datasets.files.http import FetchFailed, Observer, Patience, obtain, only_one
from pai_bench.datasets.files.paths import data_root, find, option
from pai_bench.datasets.files.sources import source
from pai_bench.datasets.files.types import Archive, File, Source, damaged
from pai_bench.errors import PaiBenchError

GOOD = ("built-in", "plug-in", "official", "accepted", "listed")
ASIDE = ".not-original"


def fetch(
    name: str,
    root: Path | None,
    observer: Observer,
    mirrors: Sequence[str] = (),
    patience: Patience = Patience(),  # noqa: B008 - frozen
) -> Check:
    """Download the missing files of a data set; existing files that are not the original are renamed, not deleted.

    `mirrors` are URLs of folders that are tried first.

    Raises: FetchFailed when every source failed; PaiBenchError when the data set cannot be downloaded or written.
    """
    found = source(name)
    if not found.archives:
        raise PaiBenchError(f"data set {name} cannot be fetched", found.by_hand or "it needs no files")
    for mirror in mirrors:
        if not mirror.startswith(("http://", "https://", "file://")):
            raise PaiBenchError(
                f"mirror {mirror!r} is not a URL", "write the URL of the folder that contains the files, https://…"
            )
    for archive in found.archives:
        part = data_root(root) / found.folder / f"{archive.name}.part"
        if archive.members:  # the data set's folder is created only when it is complete
            part = data_root(root) / f"{archive.name}.part"
        if (done := check(name, root)).state in GOOD:
            return done
        if _installed(found, archive, root):
            continue
        with only_one(part, observer) as file:
            if _installed(found, archive, root):  # installed by another process during the wait for the lock
                part.unlink()
                continue
            urls = [f"{mirror.rstrip('/')}/{archive.name}" for mirror in mirrors] + list(archive.urls)
            observer.say(f"fetching {archive.name} from {urls[0]}")
            try:
                obtain(file, part, urls, archive.md5, observer, patience)
            except FetchFailed as error:
                raise FetchFailed(
                    f"{archive.name} could not be fetched: {error.cause}",
                    f"a node without internet? run it on a login node with --data-dir {data_root(root)}, or: pai-bench"
                    f" data add {name} --from DIR; a mirror of yours: --mirror URL",
                ) from None
            _install(found, archive, part, root)
    return check(name, root)


def _installed(found: Source, archive: Archive, root: Path | None) -> bool:
    """Return True if the original versions of all files from an archive are installed."""
    where = data_root(root) / found.folder
    names = archive.members or (archive.name.removesuffix(".gz"),)
    brought = [file for file in found.files if file.name in names]
    paths = [find(where / file.name, file.gz_md5 is not None) for file in brought]
    return all(
        path is not None and official(file, path, digests(path)) for file, path in zip(brought, paths, strict=True)
    )


def _install(found: Source, archive: Archive, part: Path, root: Path | None) -> None:
    where = data_root(root) / found.folder
    if not archive.members:
        _set_aside(where, archive.name.removesuffix(".gz"))
        part.replace(where / archive.name)
        return
    with _staging(data_root(root)) as folder:
        take_out(part, found.folder, archive.members, folder)
        _move_in(folder, where, archive.members)
    part.unlink()


def take_out(archive: Path, top: str, members: Iterable[str], folder: Path) -> None:
    """Extract the files top/member of a tar archive into `folder`.

    All other members and all paths stored in the archive are ignored, so that it cannot write elsewhere.

    Raises: PaiBenchError when the archive is damaged or lacks a member.
    """
    try:
        with tarfile.open(archive) as content:
            for member in members:
                packed = content.extractfile(f"{top}/{member}")
                if packed is None:
                    raise damaged(archive, f"its {top}/{member} is not a file")
                with packed, (folder / member).open("xb") as file:
                    shutil.copyfileobj(packed, file)
    except (tarfile.TarError, KeyError, EOFError) as error:
        raise damaged(archive, f"{type(error).__name__}: {error}") from error


@contextmanager
def _staging(root: Path) -> Iterator[Path]:
    """Create a temporary folder on the file system of the data; it is removed at the end."""
    folder = root / f".new-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise PaiBenchError(
            f"{root} cannot be written to: {error.strerror}", "choose a writable folder with --data-dir"
        ) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move_in(folder: Path, where: Path, names: Iterable[str]) -> None:
    where.mkdir(parents=True, exist_ok=True)
    for name in names:
        _set_aside(where, name.removesuffix(".gz"))
        (folder / name).replace(where / name)


def _set_aside(where: Path, name: str) -> None:
    """Rename existing files of that name, compressed or not, so that no file of the user is lost."""
    for path in (where / name, where / f"{name}.gz"):
        with suppress(FileNotFoundError):
            path.rename(path.with_name(path.name + ASIDE))


def add(name: str, origin: Path, root: Path | None, *, accept_checksum: bool = False, link: bool = False) -> Check:
    """Copy or link a data set from a folder into the data root.

    With `accept_checksum`, a copy that is not the original is accepted too; its recorded hashes identify it.

    Raises: PaiBenchError when `origin` does not contain the data set, or its files are not the original.
    """
    found = source(name)
    if not found.files and not found.tree:
        raise PaiBenchError(f"data set {name} needs no files", "use it as it is")
    origin = origin.expanduser().absolute()
    if not origin.is_dir():
        raise PaiBenchError(f"{origin} is not a folder", "name the folder that contains the files with --from")
    paths = _files_in(found, origin)
    if paths:
        return _add_files(name, found, paths, root, accept_checksum, link)
    tree = next((folder for folder in (origin / found.tree, origin) if (folder / "train").is_dir()), None)
    if found.tree and tree is not None:
        return _add_tree(name, found, tree, root, accept_checksum, link)
    for archive in found.archives:
        if archive.members and (origin / archive.name).is_file():
            return _add_archive(name, found, archive, origin / archive.name, root)
    expected = [file.name for file in found.files] or [f"{found.tree}/train", f"{found.tree}/val"]
    raise PaiBenchError(
        f"{origin} does not contain {name}: looked for {', '.join(expected)}",
        "name the folder that contains them, or its parent, with --from",
    )


def _files_in(found: Source, origin: Path) -> dict[File, Path]:
    for folder in (origin / found.folder, origin, origin / Path(found.folder).name):
        paths = {file: find(folder / file.name, file.gz_md5 is not None) for file in found.files}
        if paths and all(paths.values()):
            return {file: path for file, path in paths.items() if path is not None}
    return {}


def _add_files(
    name: str, found: Source, paths: dict[File, Path], root: Path | None, accept_checksum: bool, link: bool
) -> Check:
    where = data_root(root) / found.folder
    unofficial = [(file, path) for file, path in paths.items() if not official(file, path, digests(path))]
    if unofficial and not accept_checksum:
        file, path = unofficial[0]
        raise PaiBenchError(
            f"{path} is not the original file of {name}: MD5 {digests(path).md5}, expected {official_md5(file, path)}",
            f"accept it anyway: pai-bench data add {name} --from {shlex.quote(str(path.parent))} --accept-checksum"
            f"{' --link' if link else ''}{option(root)}",
        )
    with _staging(data_root(root)) as folder:
        moved = {}
        for path in paths.values():
            if (where / path.name).exists() and path.samefile(where / path.name):
                continue
            moved[path.name] = path
            if link:
                (folder / path.name).symlink_to(path)
            else:
                shutil.copyfile(path, folder / path.name)
                if hash_file(folder / path.name) != digests(path):
                    raise PaiBenchError(f"{path} changed while it was copied", "repeat the command")
        _move_in(folder, where, moved)
    return accept(name, root) if unofficial else check(name, root)


def _add_archive(name: str, found: Source, archive: Archive, path: Path, root: Path | None) -> Check:
    if (md5 := digests(path).md5) != archive.md5:
        raise PaiBenchError(
            f"{path} is not the original archive of {name}: MD5 {md5}, expected {archive.md5}",
            "unpack it and add the folder with --accept-checksum, if you trust it",
        )
    with _staging(data_root(root)) as folder:
        take_out(path, found.folder, archive.members, folder)
        _move_in(folder, data_root(root) / found.folder, archive.members)
    return check(name, root)


def _add_tree(name: str, found: Source, tree: Path, root: Path | None, accept_checksum: bool, link: bool) -> Check:
    place = data_root(root) / found.folder / found.tree
    made = not (place.exists() and place.samefile(tree))
    if made:
        if place.exists() or place.is_symlink():
            raise PaiBenchError(f"{place} already exists", "move it, or choose another --data-dir")
        if link:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(tree, target_is_directory=True)
        elif found.streamed:
            raise PaiBenchError(f"{tree} is too large to be copied by this command", "link it: add --link")
        else:
            with _staging(data_root(root)) as folder:
                shutil.copytree(tree, folder / "tree")
                os.replace(folder / "tree", place)  # noqa: PTH105 - a folder, too
    added = check(name, root)
    if added.problem is not None and not accept_checksum:
        if made and place.is_symlink():
            place.unlink()
        elif made:
            shutil.rmtree(place)
        raise PaiBenchError(
            added.problem.cause.replace(str(place), str(tree)),
            f"accept it anyway: pai-bench data add {name} --from {shlex.quote(str(tree))} --accept-checksum"
            f"{' --link' if link else ''}{option(root)}",
        )
    return accept(name, root) if added.problem is not None else added
