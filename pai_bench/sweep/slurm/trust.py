"""Trust in files whose content a job executes or obeys: only the job's user or root may own or write them.

In a results folder shared by a group, every member can replace files. A job therefore reads its specification and its
plug-ins only from files that no other user can write to, and a sweep removes the write permission of other users from
its own folder.
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
"""The umask for files that everybody may read and only the owner may write."""


def fault(place: Path, status: os.stat_result, owner: int | None = None) -> PaiBenchError | None:
    """Return the error when a file is not trusted, None when it is.

    `owner` is the user id that must own the file, by default the user of this process; root is always trusted. Write
    permission for a group is accepted only for the owner's private group, which has the same name as the user and no
    other member (the default on many Linux distributions).
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
        f"check its content, then run: chmod {flag} {place}",
    )


def check(place: Path) -> None:
    """Check that a file or folder is trusted.

    Raises: PaiBenchError when it is not trusted, OSError when its status cannot be read.
    """
    if error := fault(place, place.stat()):
        raise error


def read(place: Path) -> bytes:
    """Return the content of a trusted file.

    The check uses the open file descriptor, so the file cannot be replaced between the check and the read.

    Raises: PaiBenchError when the file is not trusted, OSError when it cannot be read.
    """
    with place.open("rb") as file:
        if error := fault(place, os.fstat(file.fileno())):
            raise error
        return file.read()


def make_folder(place: Path) -> None:
    """Create a folder that only this user can write to, regardless of the umask; its parents follow the umask."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        place.mkdir(mode=FOLDER_MODE)
    if _must_change(place.stat(), FOLDER_MODE):
        place.chmod(FOLDER_MODE)


def close_file(descriptor: int) -> None:
    """Set the mode of an open file to writable by the owner and readable by everybody, regardless of the umask."""
    if _must_change(os.fstat(descriptor), FILE_MODE):
        os.fchmod(descriptor, FILE_MODE)


def _must_change(status: os.stat_result, mode: int) -> bool:
    # Only the owner of a file may change its mode.
    return status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) != mode


@contextmanager
def closed() -> Iterator[None]:
    """Set the umask CLOSED during the context, also for child processes."""
    before = os.umask(CLOSED)
    try:
        yield
    finally:
        os.umask(before)


def umask() -> int:
    """Return the umask of this process."""
    # The umask can be read only by setting it; CLOSED is safe if another thread creates a file meanwhile.
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
