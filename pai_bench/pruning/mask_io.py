"""Masks to and from files, as tensors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from pai_bench.core.atomic import replacing
from pai_bench.errors import PaiBenchError
from pai_bench.pruning.masking import unwrapped
from pai_bench.results import mask_files
from pai_bench.scoring.weights import prunable_weights


def load_masks(path: str | os.PathLike[str], model: nn.Module | None = None) -> dict[str, Tensor]:
    """Return masks from a file, bool by parameter name (True = kept), for `apply_masks`.

    Reads what `save_masks`, `pai-bench prune` and sweeps write, and what other codes save: .npz, .pt, .pth, .ckpt, .bin
    or .tar with 0/1 arrays by name or as a list in the model's order, nested under `mask`, `masks`, `state_dict` or
    `model`, under keys such as `conv1.mask` and `conv1.weight_mask`, with the prefixes of wrappers, sparse. No pickled
    code is run. With `model` the names and the order are those of its prunable weights, where all may have a further
    prefix (`net.`), and shapes are checked; a list needs it.

    Raises: PaiBenchError for a file that cannot be read or does not hold masks, of this model where it is given.
    """
    file = mask_files.read(Path(path))
    if model is None:
        if all(name.isdecimal() for name in file.masks):
            raise PaiBenchError(
                f"{path} is a list of {len(file.masks)} masks without names", "pass the model: load_masks(path, model)"
            )
        masks = file.masks
    else:
        model = unwrapped(model)
        shapes = {name: tuple(weight.shape) for name, weight in prunable_weights(model, only="*").items()}
        masks = file.fitted(shapes, type(model).__name__, partial=True)
    return {name: torch.from_numpy(mask) for name, mask in masks.items()}


def save_masks(path: str | os.PathLike[str], masks: Mapping[str, Tensor]) -> None:
    """Write masks (bool by parameter name) to a file: bool arrays in .npz, or a dict of bool tensors in .pt and .pth.

    Raises: PaiBenchError for another ending, no masks at all, or masks that are not bool.
    """
    if not isinstance(path, (str, os.PathLike)) or not isinstance(masks, Mapping):
        raise PaiBenchError(
            f"the arguments are of types {type(path).__name__} and {type(masks).__name__}",
            "pass the path first: save_masks(path, masks)",
        )
    place = Path(path)
    if place.suffix not in mask_files.SUFFIXES:
        raise PaiBenchError(f"masks {path} have an unknown ending", f"known: {', '.join(mask_files.SUFFIXES)}")
    wrong = [name for name, mask in masks.items() if not isinstance(mask, Tensor) or mask.dtype != torch.bool]
    if wrong or not masks:
        cause = f"the mask of {wrong[0]} is not a tensor of torch.bool" if wrong else "there are no masks to save"
        raise PaiBenchError(cause, "pass what prune or masks_of returns: torch.bool by parameter name, True = kept")
    on_host = {name: mask.detach().cpu() for name, mask in masks.items()}
    if place.suffix == ".npz":
        mask_files.save(place, {name: mask.numpy() for name, mask in on_host.items()})
    else:
        with replacing(place) as file:
            torch.save(on_host, file)
