"""Files of masks: ours bit-packed, those of other code as they come; checked before anything is trained."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pai_bench.atomic import replacing
from pai_bench.cells import GIVEN, kept_count
from pai_bench.errors import PaiBenchError

Masks = dict[str, NDArray[np.bool_]]
"""By parameter name; True is kept."""

SUFFIXES = (".npz", ".pt", ".pth")
_SHAPES = "__shapes__"
_NESTED = ("masks", "state_dict", "model_state_dict")


def pack(masks: Mapping[str, NDArray[np.bool_]]) -> dict[str, NDArray[Any]]:
    """The arrays of a file of masks, a bit a weight."""
    shapes = json.dumps({name: mask.shape for name, mask in masks.items()})
    return {_SHAPES: np.array(shapes), **{name: np.packbits(mask) for name, mask in masks.items()}}


def unpack(arrays: Mapping[str, NDArray[Any]]) -> Masks:
    """The masks that `pack` packed."""
    shapes: dict[str, list[int]] = json.loads(str(arrays[_SHAPES]))
    return {
        name: np.unpackbits(arrays[name], count=math.prod(shape)).reshape(shape).astype(bool)
        for name, shape in shapes.items()
    }


def save(place: Path, masks: Mapping[str, NDArray[np.bool_]]) -> None:
    """Write masks to an .npz file."""
    with replacing(place) as file:
        np.savez_compressed(file, **pack(masks))  # type: ignore[arg-type]


@dataclass(frozen=True)
class MaskFile:
    """The masks of a file."""

    path: Path
    masks: Masks = field(repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of names, shapes and bits, whatever the order and the form of the file."""
        digest = hashlib.sha256()
        for name, mask in sorted(self.masks.items()):
            digest.update(f"{name} {list(mask.shape)}\n".encode())
            digest.update(np.packbits(mask).tobytes())
        return digest.hexdigest()

    @property
    def method(self) -> str:
        """The spec of the method that uses these masks, which can be a part of a file name: file:STEM-HASH."""
        tail = f"-{self.digest[:8]}"
        stem = re.sub(r"[^A-Za-z0-9_.+-]+", "-", self.path.stem.removesuffix(tail)).strip("-.")[:60]
        return f"{GIVEN}{stem or 'masks'}{tail}"

    @property
    def sparsity(self) -> float:
        """The fraction removed, as the shortest decimal that stands for exactly this number of weights."""
        size = sum(mask.size for mask in self.masks.values())
        kept = sum(int(mask.sum()) for mask in self.masks.values())
        if not kept:
            raise PaiBenchError(f"{self.path} keeps no weight at all", "True or 1 means kept; perhaps it is inverted")
        removed = 1 - kept / size
        short = (round(removed, digits) for digits in range(1, 12))
        return next((s for s in short if s < 1 and kept_count(s, size) == kept), removed)

    def check(self, shapes: Mapping[str, tuple[int, ...]], model: str) -> None:
        """See to it that the masks are those of the prunable weights of `model`, whose `shapes` are given.

        Raises: PaiBenchError for a layer without a mask, a mask of another shape, or one too many.
        """
        missing = [name for name in shapes if name not in self.masks]
        if missing:
            raise PaiBenchError(
                f"{self.path} has no mask for {', '.join(missing)} of model {model}",
                f"it has {', '.join(self.masks)}; give one mask per prunable weight, ones where nothing is removed",
            )
        for name, shape in shapes.items():
            if self.masks[name].shape != shape:
                raise PaiBenchError(
                    f"{self.path}: the mask of {name} has shape {list(self.masks[name].shape)},"
                    f" but the weight of model {model} has {list(shape)}",
                    "were the masks made for another model?",
                )
        extra = [name for name in self.masks if name not in shapes]
        if extra:
            raise PaiBenchError(
                f"{self.path} has masks for {', '.join(extra)}, which model {model} does not count as prunable",
                f"leave them out; prunable are {', '.join(shapes)}",
            )


def read(path: Path) -> MaskFile:
    """Masks by parameter name from an .npz file (ours, or plain arrays) or one of torch (no pickled code is run).

    Values are bool, or 0 and 1. A state dict will do if it names masks as torch.nn.utils.prune does (weight_mask).

    Raises: PaiBenchError for a file that cannot be read, or holds something else.
    """
    if path.suffix not in SUFFIXES:
        raise PaiBenchError(f"masks {path} have an unknown ending", f"known: {', '.join(SUFFIXES)}")
    try:
        arrays = _read_npz(path) if path.suffix == ".npz" else _read_torch(path)
    except FileNotFoundError:
        raise PaiBenchError(f"masks {path} do not exist", "give the path of an .npz or .pt file") from None
    except Exception as error:  # a damaged archive raises nearly anything
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PaiBenchError(
            f"masks {path} cannot be read: {reason}", "give bool or 0/1 arrays by parameter name, as .npz or .pt"
        ) from None
    if not arrays:
        raise PaiBenchError(f"masks {path} hold nothing", "give one array per prunable weight, by parameter name")
    return MaskFile(path, {name: _as_bool(path, name, array) for name, array in _named(arrays).items()})


def holds(path: Path, digest: str) -> bool:
    """Whether a file is there, whole, and has the masks of that digest."""
    try:
        return read(path).digest == digest
    except PaiBenchError:
        return False


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
        arrays = {name: content[name] for name in content.files}
    return dict(unpack(arrays)) if _SHAPES in arrays else arrays


def _read_torch(path: Path) -> dict[str, NDArray[Any]]:
    import torch

    content = torch.load(path, map_location="cpu", weights_only=True)
    for key in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise TypeError(f"it holds a {type(content).__name__}, not tensors by name")
    arrays = {}
    for name, tensor in content.items():
        if isinstance(tensor, torch.Tensor):
            # NumPy has no bfloat16; no value of it is rounded.
            tensor = tensor.detach().float() if tensor.dtype == torch.bfloat16 else tensor.detach()
            arrays[str(name)] = tensor.numpy()
    return arrays


def _named(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """By parameter name: of a state dict its masks alone, without the prefix that data-parallel training leaves.

    A mask of a bias that keeps everything, as some codes save, says nothing and is left out.
    """
    masks = {name.removesuffix("_mask"): array for name, array in arrays.items() if name.endswith("_mask")}
    found = masks or dict(arrays)
    if all(name.startswith("module.") for name in found):
        found = {name.removeprefix("module."): array for name, array in found.items()}
    return {name: array for name, array in found.items() if array.ndim > 1 or not array.all()}


def _as_bool(path: Path, name: str, array: NDArray[Any]) -> NDArray[np.bool_]:
    kept = array.astype(bool)
    if array.dtype != np.bool_ and not np.array_equal(kept.astype(array.dtype), array):
        raise PaiBenchError(f"{path}: {name} holds values other than 0 and 1", "give masks, not weights or scores")
    return cast("NDArray[np.bool_]", kept)
