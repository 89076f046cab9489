"""Small networks and batches that the unit tests share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

BRIEF: dict[str, dict[str, int]] = {
    "ntk-sap": {"rounds": 3, "repeats": 1},
    "px": {"rounds": 5},
    "force": {"rounds": 5},
    "iterative-snip": {"rounds": 5},
    "iterative-grasp": {"rounds": 2},
    "synflow-l2": {"rounds": 2},
    "dpai": {"steps": 3},
    **{name: {"every": 2} for name in ("rigl", "set", "gmp")},
    **{name: {"cycles": 1} for name in ("ltr", "lr-rewinding")},
    "gem-miner": {"every": 1, "epochs": 2},
    **{name: {"probes": 1} for name in ("hutchinson", "hutchinson-pruning", "hts")},
}
"""Hyper-parameters with which costly methods compute the same kind of score in less time; the golden tests use all."""


def brief(method: str) -> str:
    """Return the method as it is written on the command line, with the hyper-parameters of `BRIEF`."""
    options = ",".join(f"{name}={value}" for name, value in BRIEF.get(method, {}).items())
    return f"{method}:{options}" if options else method


class TinyNet(nn.Module):
    """Two conv layers with BatchNorm and a classifier, 3x6x6 inputs; 482 prunable weights."""

    def __init__(self, norm: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1, bias=not norm)
        self.bn1 = nn.BatchNorm2d(6) if norm else nn.Identity()
        self.conv2 = nn.Conv2d(6, 5, 3, padding=1, bias=not norm)
        self.bn2 = nn.BatchNorm2d(5) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(5, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return self.fc(self.dropout(x.mean((2, 3))))


def tiny(seed: int = 0, **options: object) -> TinyNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TinyNet(**options)  # type: ignore[arg-type]


def batches(count: int = 4, size: int = 12, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, 3, 6, 6, generator=generator), torch.randint(0, 10, (size,), generator=generator))
        for _ in range(count)
    ]


def flat(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors.values()])
