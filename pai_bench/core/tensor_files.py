"""Files of tensors and plain values, checked when read: one line (format, SHA-256 and length of the rest), then the
output of torch.save."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pai_bench.core.atomic import replacing


class CorruptFile(Exception):
    """Exception for a file whose content has changed since it was written."""


def save_checksummed(place: Path, magic: bytes, state: Mapping[str, Any]) -> None:
    """Write `state` to `place` atomically; `magic` names the format."""
    # The content is serialised in memory first, because its checksum precedes it in the file.
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getbuffer()
    with replacing(place) as file:
        file.write(b"%s %s %d\n" % (magic, hashlib.sha256(content).hexdigest().encode(), len(content)))
        file.write(content)


def load_checksummed(place: Path, magic: bytes) -> dict[str, Any]:
    """Return the stored object, with tensors on the CPU. Code in the file is never run.

    Raises: OSError when the file cannot be read, CorruptFile when its content differs from what was written.
    """
    with place.open("rb") as file:
        # The limit matters for damaged files, which may have no line break at all.
        head = re.fullmatch(re.escape(magic) + rb" ([0-9a-f]{64}) (\d+)\n", file.readline(200))
        content = file.read()
    if head is None:
        raise CorruptFile("its header is not valid")
    if int(head[2]) != len(content):
        raise CorruptFile(f"it has {len(content)} bytes, not {int(head[2])}")
    if head[1] != hashlib.sha256(content).hexdigest().encode():
        raise CorruptFile("its checksum does not match")
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a file of another version of PyTorch; the exception is not documented
        raise CorruptFile(f"it cannot be read: {str(error).partition(chr(10))[0]}") from None
    return state


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """Return SHA-256 (hex) of names, shapes, types and bytes."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
