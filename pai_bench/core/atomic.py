"""Atomic file writes: write to a temporary file next to the target, fsync, then rename."""

from __future__ import annotations

import errno
import json
import math
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pai_bench.errors import PaiBenchError

NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
"""Error numbers of file systems without hard links."""

PROBE_BYTES = 16384
"""Size of the file that tests whether a folder is writable; a full disk still accepts empty files."""

GONE = (FileNotFoundError, NotADirectoryError)
"""Exceptions for a missing file."""


class Draft:
    """A temporary file next to its target; see `draft`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        # It is in the folder of its target, because a rename is atomic only within one file system.
        self.temporary = place.with_name(f".{place.name}.{uuid.uuid4().hex}.tmp")
        self._moved = False

    @contextmanager
    def writing(self) -> Iterator[IO[bytes]]:
        """Open the temporary file, once; sync it at the end."""
        with self.temporary.open("xb") as file:
            yield file
            # Without the sync, a crash of the machine after the rename may leave an empty file under the final name.
            file.flush()
            os.fsync(file.fileno())

    def replace(self) -> None:
        """Rename the file to its target and replace an existing file; an existing folder is renamed."""
        try:
            self.temporary.replace(self.place)
        except IsADirectoryError:
            # A folder in the place of a file is damage, but its content may be of use.
            self.place.rename(self.place.with_name(f"{self.place.name}.damaged-{uuid.uuid4().hex[:8]}"))
            self.temporary.replace(self.place)
        self._moved = True

    def put(self) -> bool:
        """Put the file in its place if there is none; return True if it is now there.

        Exactly one of several concurrent processes succeeds. On a file system without hard links, two may succeed
        within a short moment.
        """
        try:
            # A link fails if the target exists, also on NFS; a rename would replace the file of another process.
            self.place.hardlink_to(self.temporary)
        except FileExistsError:
            if self.place.is_symlink() and not self.place.exists():
                # A link to nothing: no reader finds a file there, and no writer could ever put one.
                self.place.unlink(missing_ok=True)
                return self.put()
            # NFS repeats a request whose reply was lost: the link that exists may be this one.
            return self.is_placed()
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            if self.place.exists():
                return False
            self.replace()
        return True

    def is_placed(self) -> bool:
        """Return True if the target is this file."""
        if self._moved:
            return True
        try:
            return self.place.samefile(self.temporary)
        except FileNotFoundError:
            return False


@contextmanager
def draft(place: Path) -> Iterator[Draft]:
    """Yield a draft next to `place`, and remove the temporary file at the end. Creates the folder.

    Its name begins with a dot and ends in .tmp, so that no reader takes it for a result.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    new = Draft(place)
    try:
        yield new
    finally:
        new.temporary.unlink(missing_ok=True)


@contextmanager
def replacing(place: Path) -> Iterator[IO[bytes]]:
    """Open a new file that is synced and moved to `place` at the end, or removed after an error; create its folder."""
    with draft(place) as new:
        with new.writing() as file:
            yield file
        new.replace()


def move_away(place: Path, aside: Path, seen: os.stat_result | None = None) -> bool:
    """Rename a file if it is still the one that was `seen` (None: any file); return True if it was renamed.

    Exactly one of several concurrent processes succeeds. A file that has replaced the one seen is put back.
    """
    try:
        place.rename(aside)
    except FileNotFoundError:
        return False
    # The check follows the rename, because another process could replace the file between a check and the rename.
    if seen is None or (aside.stat().st_ino, aside.stat().st_mtime_ns) == (seen.st_ino, seen.st_mtime_ns):
        return True
    try:
        # Another file was moved by mistake: put it back with a link, which never replaces a still newer file.
        place.hardlink_to(aside)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if not place.exists():
            aside.rename(place)
    aside.unlink(missing_ok=True)
    return False


def reason(error: OSError) -> str:
    """Return the operating system's description of an error."""
    return error.strerror or str(error)


def read_bytes(place: Path) -> bytes:
    """Return the content of a file, or of its replacement if NFS reports a stale handle (ESTALE)."""
    try:
        return place.read_bytes()
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
    return place.read_bytes()


def server_time(folder: Path) -> float:
    """Return the time of the server that the folder is on, or of this machine if the folder is not writable."""
    try:
        with draft(folder / "clock") as new:
            with new.writing() as file:
                file.write(b" ")
            # The server stamps the file when the synced byte reaches it, whatever the clock of this machine.
            return new.temporary.stat().st_mtime
    except OSError:
        return time.time()


def parse_json(content: bytes | str) -> Any:
    """Parse JSON text.

    Raises: ValueError for invalid JSON and for brackets that are nested too deep.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("brackets are nested too deep") from None


def as_json(plain: Mapping[str, Any]) -> bytes:
    """Return plain data as JSON; numbers that are not finite become null."""
    return json.dumps(_finite(plain), allow_nan=False, separators=(",", ":")).encode()


def write_json(place: Path, plain: Mapping[str, Any]) -> None:
    """Write plain data; numbers that are not finite become null."""
    with replacing(place) as file:
        file.write(as_json(plain))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def check_folder(folder: Path, option: str) -> None:
    """Check that a path, if it exists, is a folder.

    Raises: PaiBenchError that names `option`.
    """
    if folder.exists() and not folder.is_dir():
        raise PaiBenchError(f"{folder} is not a folder", f"name a folder with {option}")


def check_writable(folder: Path, option: str) -> None:
    """Create the folder if it does not exist, and check that a file can be written there.

    Raises: PaiBenchError that names `option` if it cannot.
    """
    try:
        with replacing(folder / ".writable") as file:
            # Random bytes need room on the disk even if its file system compresses files.
            file.write(os.urandom(PROBE_BYTES))
        (folder / ".writable").unlink(missing_ok=True)
    except OSError as error:
        raise PaiBenchError(
            f"folder {folder} cannot be written to: {reason(error)}",
            f"choose another with {option}, make room, or change its permissions",
        ) from None
