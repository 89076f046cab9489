"""Layers of a network that removing channels changes."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from pai_bench.pruning.shrinking.channels import Channels, Identities


@dataclass(frozen=True, eq=False)
class Mixing:
    """A convolution or linear layer, by module name, with its input and output channels."""

    name: str
    inputs: Channels
    outputs: Channels


@dataclass(frozen=True, eq=False)
class PerChannel:
    """A module or parameter with one entry per channel, by name: a norm, a depthwise convolution, a scale."""

    name: str
    channels: Channels
    parameter_dim: int | None = None
    """Dimension of a bare parameter that contains the channels; None for a module."""


@dataclass(frozen=True, eq=False)
class Padding:
    """A shortcut that adds channels of zeros on both sides, by module name."""

    name: str
    before: Tensor
    after: Tensor


@dataclass
class Structure:
    """All layers of a network that removing channels changes."""

    identities: Identities = field(default_factory=Identities)
    mixing: list[Mixing] = field(default_factory=list)
    per_channel: list[PerChannel] = field(default_factory=list)
    paddings: list[Padding] = field(default_factory=list)
    last: set[str] = field(default_factory=set)
    """Modules and parameters with weights, by name, which no other weights follow on the way to the output."""
