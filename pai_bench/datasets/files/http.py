"""Download of one file over HTTP: resumable, with mirrors, kept only if its checksum is correct."""

from __future__ import annotations

import errno
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from pai_bench.datasets.files.checksums import hash_file
from pai_bench.errors import PaiBenchError

BLOCK = 1 << 16


class FetchFailed(PaiBenchError):
    """A download failed from every source."""


class Observer(Protocol):
    """Observer of the progress of a download."""

    def say(self, text: str) -> None: ...
    def progress(self, name: str, done: int, total: int | None) -> None: ...


@dataclass(frozen=True)
class Patience:
    """Timeouts and retries of downloads: seconds without data, and rounds over all servers without progress."""

    timeout: float = 30.0
    rounds: int = 3
    pause: float = 1.0
    """Seconds before the second round; doubled for each further round."""


@contextmanager
def only_one(part: Path, observer: Observer) -> Iterator[IO[bytes]]:
    """Open and lock the file `part`; wait while another process downloads the same file.

    On file systems without locks, two downloads may corrupt each other's part; the checksum detects it.

    Raises: PaiBenchError when the folder cannot be written to.
    """
    while True:
        with _opened(part) as file:
            _lock(file, part.name, observer)
            # Another process may have completed and moved the file during the wait; then `part` is a new file.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), part.stat()):
                    yield file
                    return


def _opened(part: Path) -> IO[bytes]:
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        return part.open("a+b")
    except OSError as error:
        raise PaiBenchError(
            f"{part} cannot be written: {error.strerror}", "choose a writable folder with --data-dir"
        ) from None


def _lock(file: IO[bytes], name: str, observer: Observer) -> None:
    with suppress(ImportError):
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            observer.say(f"{name} is being fetched by another process; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            pass


def obtain(file: IO[bytes], part: Path, urls: Sequence[str], md5: str, observer: Observer, patience: Patience) -> None:
    """Download the rest of the part until its MD5 is `md5`.

    Raises: FetchFailed with the error of each source; PaiBenchError when the disk is full.
    """
    causes: dict[str, str] = {}
    left, idle = list(urls), 0
    while left:
        before = _size(file)
        for url in tuple(left):
            resumed = _size(file) > 0
            try:
                _receive(url, file, part, observer, patience.timeout)
            except urllib.error.HTTPError as error:
                error.close()
                causes[url] = f"HTTP {error.code} {error.reason}"
                if error.code not in (408, 416, 425, 429) and error.code < 500:
                    left.remove(url)
                if error.code == 416 and resumed and _complete(file, part, md5):
                    return
                if error.code == 416:  # the server has no more bytes, but the checksum is wrong
                    _empty(file, part)
            except (OSError, http.client.HTTPException) as error:
                if causes.get(url) != (reason := _reason(error)):
                    observer.say(f"{url}: {reason}")
                causes[url] = reason
            else:
                if _complete(file, part, md5):
                    return
                causes[url] = f"other content than the original's (MD5 {hash_file(part).md5}, expected {md5})"
                observer.say(f"{url}: {causes[url]}")
                _empty(file, part)
                if not resumed:  # a resumed download may have failed because of an earlier part
                    left.remove(url)
        idle = 0 if _size(file) > before else idle + 1
        if idle >= patience.rounds:
            break
        if left:
            time.sleep(patience.pause * 2 ** max(idle - 1, 0))
    raise FetchFailed("; ".join(f"{url}: {cause}" for url, cause in causes.items()), "")


def _receive(url: str, file: IO[bytes], part: Path, observer: Observer, timeout: float) -> None:
    """Append the missing bytes, or download the whole file if the server does not support ranges.

    Raises: OSError or HTTPException when the connection fails or ends early.
    """
    have = _size(file)
    request = urllib.request.Request(url, headers={"User-Agent": "pai-bench", "Accept-Encoding": "identity"})
    notes = part.with_name(part.name + ".json")
    if have:
        request.add_header("Range", f"bytes={have}-")
        with suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(notes.read_bytes())
            if known["url"] == url:
                request.add_header("If-Range", known["validator"])
    with urllib.request.urlopen(request, timeout=timeout) as response:
        length = response.headers.get("Content-Length")
        if response.status == 206:
            sent = re.match(r"bytes (\d+)-\d+/", response.headers.get("Content-Range", ""))
            if sent is None or int(sent[1]) != have:
                raise OSError(f"sent another part than was asked for ({response.headers.get('Content-Range')})")
        elif have:
            file.truncate(0)
            have = 0
        total = have + int(length) if length is not None and length.isdecimal() else None
        validator = response.headers.get("ETag") or response.headers.get("Last-Modified")
        if validator and not validator.startswith("W/"):
            with suppress(OSError):
                notes.write_text(json.dumps({"url": url, "validator": validator}))
        while block := response.read(BLOCK):
            _write(file, block, part)
            have += len(block)
            observer.progress(part.stem, have, total)
    if total is not None and have < total:
        raise OSError(f"broke off after {have} of {total} bytes")


def _write(file: IO[bytes], block: bytes, part: Path) -> None:
    try:
        file.write(block)
        file.flush()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise PaiBenchError(
                f"no space left for {part}", "free some space and repeat the command (it resumes), or set --data-dir"
            ) from None
        raise PaiBenchError(f"{part} cannot be written: {error.strerror}", "choose another --data-dir") from None


def _complete(file: IO[bytes], part: Path, md5: str) -> bool:
    if hash_file(part).md5 != md5:
        return False
    # The rename that follows must not reach the disk before the content does.
    os.fsync(file.fileno())
    part.with_name(part.name + ".json").unlink(missing_ok=True)
    return True


def _empty(file: IO[bytes], part: Path) -> None:
    file.truncate(0)
    part.with_name(part.name + ".json").unlink(missing_ok=True)


def _size(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size


def _reason(error: Exception) -> str:
    """Summarise a connection error in one line."""
    inner = getattr(error, "reason", error)
    text = getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
    return str(text).splitlines()[0]
