"""Files that are whole or not there: written to a neighbour, then moved into place."""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pai_bench.errors import PaiBenchError


@contextmanager
def replacing(place: Path) -> Iterator[IO[bytes]]:
    """A new file to write to, synced and moved to `place` at the end, removed after an error.

    Its name begins with a dot and ends in .tmp, so that no reader takes it for a result. Makes the folder.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(place)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(place: Path, plain: Mapping[str, Any]) -> None:
    """Write plain data; numbers that are not finite become null."""
    text = json.dumps(_finite(plain), allow_nan=False, separators=(",", ":"))
    with replacing(place) as file:
        file.write(text.encode())


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def check_writable(folder: Path, option: str) -> None:
    """Make the folder if need be, and see that a file can be written there.

    Raises: PaiBenchError that names `option` when it cannot.
    """
    try:
        with replacing(folder / ".writable"):
            pass
        (folder / ".writable").unlink(missing_ok=True)
    except OSError as error:
        raise PaiBenchError(
            f"folder {folder} cannot be written to: {error.strerror}",
            f"choose another with {option}, or change its permissions",
        ) from None
