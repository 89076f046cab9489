"""Files that a job acts on: they belong to the user of the job or to root, and nobody else can write to them.

In a results folder that a group shares, every member can replace files. A job therefore takes its specification and its
plug-ins only from files that no other user can have written, and a sweep keeps its own folder closed to others.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pai_bench.errors import PaiBenchError

FOLDER_MODE = 0o755
FILE_MODE = 0o644
CLOSED = 0o022
"""The umask under which others may read and only the owner may write."""


def fault(place: Path, status: os.stat_result, owner: int | None = None) -> PaiBenchError | None:
    """Return the error that says why a file is not trusted, or None when it is.

    `owner` is the user id that a trusted file belongs to, this process's by default; root is trusted always. Write
    permission of a group is accepted only for the owner's private group, which is named as the user and has no other
    member.
    """
    owner = os.geteuid() if owner is None else owner
    if status.st_uid not in (owner, 0):
        return PaiBenchError(
            f"{place} belongs to {_user(status.st_uid)}: a SLURM job trusts only files of {_user(owner)} and of root",
            "copy it to a folder of your own and name the copy, or sweep again where it is part of a sweep",
        )
    who, flag = None, ""
    if status.st_mode & stat.S_IWOTH:
        who, flag = "everybody", "o-w"
    elif status.st_mode & stat.S_IWGRP and not _is_private(status.st_gid, owner):
        who, flag = f"group {_group(status.st_gid)}", "g-w"
    if who is None:
        return None
    return PaiBenchError(
        f"{place} can be written by {who}: a SLURM job trusts only files that nobody else can change",
        f"check what it holds, then type: chmod {flag} {place}",
    )


def check(place: Path) -> None:
    """Check a file or folder.

    Raises: PaiBenchError when it is not trusted, OSError when it cannot be looked at.
    """
    if error := fault(place, place.stat()):
        raise error


def read(place: Path) -> bytes:
    """Return the content of a trusted file; the file that is checked is the one that is read.

    Raises: PaiBenchError when it is not trusted, OSError when it cannot be read.
    """
    with place.open("rb") as file:
        if error := fault(place, os.fstat(file.fileno())):
            raise error
        return file.read()


def make_folder(place: Path) -> None:
    """Make a folder that only this user can write to, whatever the umask; folders above it follow the umask."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        place.mkdir(mode=FOLDER_MODE)
    if _must_change(place.stat(), FOLDER_MODE):
        place.chmod(FOLDER_MODE)


def close_file(descriptor: int) -> None:
    """Let only the owner write to an open file, and everybody read it, whatever the umask."""
    if _must_change(os.fstat(descriptor), FILE_MODE):
        os.fchmod(descriptor, FILE_MODE)


def _must_change(status: os.stat_result, mode: int) -> bool:
    return status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) != mode


@contextmanager
def closed() -> Iterator[None]:
    """Let all that is created meanwhile, also by programs that are started, be writable for its owner only."""
    before = os.umask(CLOSED)
    try:
        yield
    finally:
        os.umask(before)


def umask() -> int:
    """Return the umask of this process."""
    mask = os.umask(CLOSED)
    os.umask(mask)
    return mask


def _is_private(gid: int, owner: int) -> bool:
    try:
        user, group = pwd.getpwuid(owner), grp.getgrgid(gid)
    except KeyError:
        return False
    return gid == user.pw_gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}


def _user(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
