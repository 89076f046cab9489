"""Mask formats of other code bases (dicts, nested dicts, state dicts, lists in model order), as arrays by name."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pai_bench.errors import PaiBenchError

Arrays = dict[str, NDArray[Any]]

_NESTED = ("masks", "mask", "state_dict", "model_state_dict", "model")
_ALL_IN_ONE = re.compile(r"arr_(\d+)")


def from_npz(path: Path) -> Arrays:
    """Read the arrays of an .npz file by name; unnamed ones are named by their position."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
        arrays = {_ALL_IN_ONE.sub(r"\1", name): content[name] for name in content.files}
    other = next((name for name, array in arrays.items() if not isinstance(array, np.ndarray)), None)
    if other is not None:
        raise PaiBenchError(
            f"masks {path} contain {other}, which is not an array",
            "numpy.savez writes .npz files, and torch.save .pt files",
        )
    return arrays


def from_torch(path: Path) -> Arrays:
    """Read the tensors of a torch.save file by name, or by position in a list; no pickled code is executed.

    Raises: PaiBenchError that describes the content when it has no tensors.
    """
    # The import is slow, and results are otherwise read without torch.
    import torch

    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch.load does not compare the sums of the bytes
        if damaged is not None:
            raise PaiBenchError(
                f"masks {path} are damaged: the checksum of {damaged} differs", "copy or save them again"
            )
    # Older versions of torch check the indices of sparse tensors only on request; wrong ones would damage the memory.
    checked = torch.sparse.check_sparse_tensor_invariants()
    with warnings.catch_warnings(), checked:
        warnings.filterwarnings("ignore", "Validating sparse tensor invariants")  # the validation is intended
        warnings.filterwarnings("ignore", "Detected pickle protocol")  # of a file that is refused
        content = torch.load(path, map_location="cpu", weights_only=True)
    tensors = {name: value for name, value in _flat(_inner(content)) if isinstance(value, torch.Tensor)}
    if not tensors:
        raise PaiBenchError(
            f"masks {path} contain nothing that can be a mask: found {described(content)}",
            "save a dict of 0/1 tensors by parameter name, or a list of them in the order of the model's layers",
        )
    arrays = {}
    for name, tensor in tensors.items():
        dense = tensor.detach()
        try:
            dense = dense.dequantize() if dense.is_quantized else dense
            dense = dense if dense.layout == torch.strided else dense.to_dense()
            # NumPy has neither bfloat16 nor types of eight bits; the conversion to float32 is exact.
            plain = dense.dtype in (torch.float16, torch.float32, torch.float64) or not dense.is_floating_point()
            arrays[name] = (dense if plain else dense.float()).numpy()
        except (RuntimeError, TypeError):  # packed types of four bits, and tensors without values
            kind = f"{str(tensor.dtype).removeprefix('torch.')} on {tensor.device}"
            raise PaiBenchError(
                f"{path}: {name} is a tensor of {kind}, which cannot be read as an array",
                "save {name: mask.bool().cpu() for name, mask in masks.items()}",
            ) from None
    return arrays


def _inner(content: Any) -> Any:
    """Return the part of a checkpoint with the masks or the model's state."""
    while isinstance(content, Mapping):
        nested = [content[key] for key in _NESTED if isinstance(content.get(key), (Mapping, list, tuple))]
        if not nested:
            break
        content = nested[0]
    return content


def _flat(content: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Flatten nested dicts and lists to (name, value) with dotted names; a list of (name, value) counts as a dict."""
    if isinstance(content, Mapping):
        items = [(str(key), value) for key, value in content.items()]
    elif isinstance(content, (list, tuple)):
        content = [item for item in content if item is not None]  # layers without a mask
        pairs = all(isinstance(item, (list, tuple)) and len(item) == 2 and isinstance(item[0], str) for item in content)
        items = [(item[0], item[1]) if pairs else (str(place), item) for place, item in enumerate(content)]
    else:
        yield prefix or "0", content
        return
    for key, value in items:
        yield from _flat(value, f"{prefix}.{key}" if prefix else key)


def described(content: Any) -> str:
    """Describe the content of a file in a few words."""
    if isinstance(content, Mapping):
        shown = [f"{key} ({type(value).__name__})" for key, value in islice(content.items(), 6)]
        return f"a dict with {', '.join(shown)}{', …' if len(content) > 6 else ''}" if shown else "an empty dict"
    if isinstance(content, (list, tuple)):
        kinds = ", ".join(sorted({type(item).__name__ for item in content}))
        return f"a {type(content).__name__} of {len(content)} ({kinds})" if content else "an empty list"
    return f"a {type(content).__name__}"


def bare(name: str) -> str:
    """Remove the prefixes of torch wrappers from a name: `_orig_mod.` anywhere, `module.` in front."""
    parts = [part for part in name.split(".") if part != "_orig_mod"]
    while len(parts) > 1 and parts[0] == "module":
        del parts[0]
    return ".".join(parts)


def named(arrays: Arrays) -> tuple[Arrays, Arrays]:
    """Name arrays by parameter, as far as possible without the model; only the masks of a state dict are kept.

    "conv1.weight_mask" and "conv1.mask" both name the mask of conv1.weight. All-ones vectors, which some code bases
    save as masks of biases, are the second dict.
    """
    masks = {_weight(name): array for name, array in arrays.items() if re.search(r"(?:^|[._])mask$", name)}
    masks = masks or arrays
    found = {name: array for name, array in masks.items() if array.ndim > 1 or not array.all()}
    check_distinct({name: bare(name) for name in found})
    ones = {bare(name): array for name, array in masks.items() if name not in found}
    return {bare(name): array for name, array in found.items()}, ones


def check_distinct(names: Mapping[str, str]) -> None:
    """Check that no two masks are for the same weight; `names` has the weight of each.

    Raises: PaiBenchError.
    """
    first: dict[str, str] = {}
    for name, weight in names.items():
        if first.setdefault(weight, name) != name:
            raise PaiBenchError(
                f"{first[weight]} and {name} are both masks of {weight}", "give one mask per prunable weight"
            )


def _weight(name: str) -> str:
    if name.endswith("_mask"):
        return name.removesuffix("_mask")
    layer = name.removesuffix("mask").removesuffix(".")
    if "weight" in layer.rpartition(".")[2]:
        return layer
    return f"{layer}.weight" if layer else "weight"


def renamed(given: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """Map each given name to the model's: equal up to wrappers, the name of a layer, or a position in the model.

    All may have further names in front, as where the model was an attribute ("net.") of the one that was saved. Names
    without a match stay unchanged.
    """
    found = _matches(given, known)
    outer = list(given)
    while (
        not set(found.values()) & set(known)
        and all("." in name for name in outer)
        and len({name.partition(".")[0] for name in outer}) == 1
    ):
        outer = [name.partition(".")[2] for name in outer]
        inner = _matches(outer, known)
        if set(inner.values()) <= set(known):
            return {name: inner[rest] for name, rest in zip(given, outer, strict=True)}
    # The length comes first, so that "10" follows "9".
    in_order = sorted(given, key=lambda name: (len(name), name))
    places = [str(place) for place in range(len(given))]
    if in_order == places and not set(found.values()) <= set(known) and len(given) == len(known):
        return dict(zip(places, known, strict=True))
    return found


def _matches(given: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """Map each given name to the model's where it is equal up to wrappers or the name of a layer, else to itself."""
    by_bare = {bare(name): name for name in known}
    layers: dict[str, list[str]] = {}
    for name in known:
        layers.setdefault(bare(name).rpartition(".")[0], []).append(name)
    found = {}
    for name in given:
        layer = layers.get(name, [])
        found[name] = by_bare.get(name) or (layer[0] if len(layer) == 1 else name)
    return found
