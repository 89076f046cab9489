"""Mask files: bool arrays by parameter name, or formats of other code bases; checked before any training."""

from __future__ import annotations

import hashlib
import json
import math
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
from numpy.typing import NDArray

from pai_bench.cells import GIVEN, kept_count
from pai_bench.core.atomic import replacing
from pai_bench.errors import PaiBenchError
from pai_bench.results.mask_forms import check_distinct, from_npz, from_torch, named, renamed

Masks = dict[str, NDArray[np.bool_]]
"""Masks by parameter name; True means kept."""

SUFFIXES = (".npz", ".pt", ".pth")
"""Endings of files to write."""
READABLE = (*SUFFIXES, ".ckpt", ".bin", ".tar")
"""Endings of files to read: also checkpoints by torch.save of PyTorch Lightning, Hugging Face and others (.pth.tar)."""
_SHAPES = "__shapes__"


def pack(masks: Mapping[str, NDArray[np.bool_]]) -> dict[str, NDArray[Any]]:
    """Pack masks into arrays with one bit per weight, the format of the masks beside a result."""
    shapes = json.dumps({name: mask.shape for name, mask in masks.items()})
    return {_SHAPES: np.array(shapes), **{name: np.packbits(mask) for name, mask in masks.items()}}


def unpack(arrays: Mapping[str, NDArray[Any]]) -> Masks:
    """Unpack masks that were packed by `pack`."""
    shapes: dict[str, list[int]] = json.loads(str(arrays[_SHAPES]))
    return {
        name: np.unpackbits(arrays[name], count=math.prod(shape)).reshape(shape).astype(bool)
        for name, shape in shapes.items()
    }


def save(place: Path, masks: Mapping[str, NDArray[np.bool_]]) -> None:
    """Write masks to an .npz file: one bool array per weight tensor, by parameter name."""
    with replacing(place) as file:
        write_arrays(file, masks)


def write_arrays(file: IO[bytes], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as numpy.savez_compressed does, which cannot write one called "file" or "allow_pickle"."""
    with ZipFile(file, "w", ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


@dataclass(frozen=True)
class MaskFile:
    """Masks read from a file."""

    path: Path
    masks: Masks = field(repr=False)
    ones: Mapping[str, tuple[int, ...]] = field(default_factory=dict, repr=False)
    """Shapes of all-ones vectors, which count as masks of biases."""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of names, shapes and bits, independent of the order and the file format."""
        digest = hashlib.sha256()
        for name, mask in sorted(self.masks.items()):
            digest.update(f"{name} {list(mask.shape)}\n".encode())
            digest.update(np.packbits(mask).tobytes())
        return digest.hexdigest()

    @property
    def method(self) -> str:
        """Spec of the method that uses these masks, valid in file names: file:STEM-HASH."""
        tail = f"-{self.digest[:8]}"
        stem = re.sub(r"[^A-Za-z0-9_.+-]+", "-", self.path.stem.removesuffix(tail)).strip("-.")[:60]
        return f"{GIVEN}{stem or 'masks'}{tail}"

    @property
    def sparsity(self) -> float:
        """Fraction removed, as the shortest decimal that gives exactly this number of kept weights."""
        size = sum(mask.size for mask in self.masks.values())
        kept = sum(int(mask.sum()) for mask in self.masks.values())
        if not kept:
            raise PaiBenchError(f"{self.path} keeps no weight at all", "True or 1 means kept; perhaps it is inverted")
        removed = 1 - kept / size
        short = (round(removed, digits) for digits in range(1, 12))
        return next((s for s in short if s < 1 and kept_count(s, size) == kept), removed)

    def check(self, shapes: Mapping[str, tuple[int, ...]], model: str) -> None:
        """Check that the masks match the `shapes` of the prunable weights of `model`.

        Raises: PaiBenchError as `fitted` does.
        """
        self.fitted(shapes, model)

    def fitted(self, shapes: Mapping[str, tuple[int, ...]], model: str, *, partial: bool = False) -> Masks:
        """Return the masks with the names and in the order of the prunable weights of `model` (see `shapes`).

        Raises: PaiBenchError for a missing mask (unless `partial`), a mask of another shape, or an extra mask.
        """
        vectors = {name: shape for name, shape in self.ones.items() if not name.isdecimal()}
        for name, weight in renamed(list(vectors), list(shapes)).items():
            if weight in shapes and weight not in self.masks:
                raise self._shape_error(weight, vectors[name], shapes[weight], model)
        names = renamed(list(self.masks), list(shapes))
        check_distinct(names)
        masks = {names[name]: mask for name, mask in self.masks.items()}
        missing = [] if partial else [name for name in shapes if name not in masks]
        extra = [name for name in masks if name not in shapes]
        if len(self.masks) != len(shapes) and set(self.masks) == {str(place) for place in range(len(self.masks))}:
            found = ", ".join(str(list(mask.shape)) for mask in self.masks.values())
            raise PaiBenchError(
                f"{self.path} is a list of {len(self.masks)} masks, and model {model} has {len(shapes)} prunable"
                " weights",
                f"give one mask per prunable weight in this order: {', '.join(shapes)}; the list has shapes {found}",
            )
        if missing:
            raise PaiBenchError(
                f"{self.path} has no mask for {', '.join(missing)} of model {model}",
                f"it has {', '.join(self.masks)}; give one mask per prunable weight, ones where nothing is removed",
            )
        for name, shape in shapes.items():
            if name in masks and masks[name].shape != tuple(shape):
                raise self._shape_error(name, masks[name].shape, shape, model)
        if extra:
            raise PaiBenchError(
                f"{self.path} has masks for {', '.join(extra)}, which model {model} does not count as prunable",
                f"leave them out; prunable are {', '.join(shapes)}",
            )
        return {name: masks[name] for name in shapes if name in masks}

    def _shape_error(self, name: str, found: Sequence[int], shape: Sequence[int], model: str) -> PaiBenchError:
        return PaiBenchError(
            f"{self.path}: the mask of {name} has shape {list(found)},"
            f" but the weight of model {model} has {list(shape)}",
            "were the masks made for another model?",
        )


def read(path: Path) -> MaskFile:
    """Read masks from an .npz file (plain or bit-packed) or a torch file (without executing pickled code).

    Values must be bool, or 0 and 1. See `mask_forms` for the supported formats. The masks of a list are named by their
    position until `fitted` maps them to the model.

    Raises: PaiBenchError for a file that cannot be read or does not contain masks.
    """
    suffix = path.suffix.lower()
    if suffix not in READABLE:
        remedy = f"known: {', '.join(READABLE)}"
        if suffix == ".safetensors":
            other = path.with_suffix(".pt").name
            remedy = f"convert it: torch.save(safetensors.torch.load_file('{path.name}'), '{other}'); {remedy}"
        raise PaiBenchError(f"masks {path} have an unknown ending", remedy)
    try:
        arrays = _read_npz(path) if suffix == ".npz" else from_torch(path)
    except PaiBenchError:
        raise
    except FileNotFoundError:
        raise PaiBenchError(f"masks {path} do not exist", "give the path of an .npz or .pt file") from None
    except Exception as error:  # a damaged archive raises nearly anything
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if suffix != ".npz" and not isinstance(error, OSError):  # of torch.load, whose words advise trusting it
            whole = zipfile.is_zipfile(path)
            reason = "it contains objects other than tensors (for example NumPy arrays or a whole model)"
            reason = reason if whole else "torch.save has not written it, or it contains objects other than tensors"
        raise PaiBenchError(
            f"masks {path} cannot be read: {reason}", "give bool or 0/1 arrays by parameter name, as .npz or .pt"
        ) from None
    found, ones = named(arrays)
    if arrays and not found:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise PaiBenchError(
            f"masks {path} contain vectors of ones only: {shapes}", "give one array per prunable weight, in its shape"
        )
    if not arrays:
        raise PaiBenchError(f"masks {path} are empty", "give one array per prunable weight, by parameter name")
    masks = {name: _as_bool(path, name, array) for name, array in found.items()}
    return MaskFile(path, masks, {name: array.shape for name, array in ones.items()})


def holds(path: Path, digest: str) -> bool:
    """Return True if the file exists, is valid, and contains masks with that digest."""
    try:
        return read(path).digest == digest
    except PaiBenchError:
        return False


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    arrays = from_npz(path)
    return dict(unpack(arrays)) if _SHAPES in arrays else arrays


def _as_bool(path: Path, name: str, array: NDArray[Any]) -> NDArray[np.bool_]:
    if array.dtype.kind not in "biuf":
        raise PaiBenchError(f"{path}: {name} is an array of {array.dtype}, not of numbers", "give bool or 0/1 arrays")
    kept = array.astype(bool)
    if array.dtype != np.bool_ and not np.array_equal(kept.astype(array.dtype), array):
        found = f", from {array.min():g} to {array.max():g}" if array.size else ""
        raise PaiBenchError(
            f"{path}: {name} has values other than 0 and 1{found}",
            "give masks, not weights or scores; a state dict must have keys that end in mask",
        )
    return cast("NDArray[np.bool_]", kept)
