"""Masks from files as methods."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from pai_bench.core import plugins
from pai_bench.results import mask_files
from pai_bench.results.mask_files import MaskFile
from pai_bench.scoring import registry
from pai_bench.scoring.problem import Problem

_mask_files: dict[str, MaskFile] = {}


def load_plugin(path: Path, content: bytes | None = None) -> None:
    """Load a file given as a plug-in: masks become a method, Python runs (see `core.plugins.load_plugin`).

    Raises: PaiBenchError when the file is missing, raises, or holds no masks.
    """
    if path.suffix in mask_files.SUFFIXES:
        register_masks(mask_files.read(path))
    else:
        plugins.load_plugin(path, content)


def register_masks(file: MaskFile) -> None:
    """Make the masks of a file known as the method `file.method`; other methods are not touched, nor `names`."""

    @dataclasses.dataclass(frozen=True)
    class FixedMasks:
        """Masks from a file as scores: 1 for kept weights, 0 for pruned ones."""

        masks: str = file.digest

        # Scores are 0 and 1, so that ties do not mean that the mask is arbitrary.
        may_tie: ClassVar[bool] = True

        def __call__(self, problem: Problem) -> dict[str, Tensor]:
            shapes = {name: tuple(weight.shape) for name, weight in problem.weights.items()}
            masks = file.fitted(shapes, type(problem.model).__name__)
            return {name: torch.from_numpy(masks[name]).to(weight) for name, weight in problem.weights.items()}

    registry.register_unlisted(file.method, FixedMasks)
    _mask_files[file.method] = file


def mask_file(name: str) -> MaskFile | None:
    """Return the file behind a method of masks, None for every other method."""
    return _mask_files.get(name)
