"""Outcome of a cell: its result and its masks on the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pai_bench.results import Result


@dataclass(frozen=True)
class Outcome:
    """A result and its masks (bool arrays by parameter name)."""

    result: Result
    masks: dict[str, np.ndarray]


def to_arrays(masks: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Convert masks to bool arrays on the host."""
    return {name: mask.cpu().numpy() for name, mask in masks.items()}


def device_name(device: torch.device) -> str:
    """Return the model name of the GPU, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
